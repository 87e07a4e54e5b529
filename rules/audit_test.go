package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
)

// nowhere is an index that leads nowhere; broken one that breaks down.
type broken struct{}

func (broken) follow(*search) { panic("out of order") }

const auditRules = `
rules:
  - {name: a, on: {table: customers, ops: [insert]}, when: new.name == "Ann", to: new.email, template: x}
  - {name: b, on: {table: customers, ops: [insert]}, when: new.id > 5, to: new.email, template: x}
  - {name: never, on: {table: customers, ops: [insert]}, when: old.id == 1, to: new.email, template: x}
  - {name: every, on: {table: customers, ops: [insert]}, to: new.email, template: x}
`

// TestAudit sabotages the index: on the changes that are tried on every rule that is told, and what every rule says counts.
func TestAudit(t *testing.T) {
	t.Parallel()
	table := customers()
	ann := &cdc.Change{Op: cdc.Insert, Table: table, New: row{"id": "9", "name": "Ann"}.tuple(table)}
	tests := []struct {
		name     string
		sabotage func(o *opRules)
		told     []string // of the first change, which is tried on every rule
		then     []string // matches of the next one
		thenTold []string
	}{
		{"sound", func(*opRules) {}, nil, []string{"a", "b", "every"}, nil},
		{
			"finds nothing", func(o *opRules) { o.index = &index{root: new(vertex)} },
			[]string{"a: the index says false of a change, and trying every rule says true", "b: the index says false of a change, and trying every rule says true", "every: the index says false of a change, and trying every rule says true"},
			nil, nil,
		},
		{
			"finds what does not match", func(o *opRules) { o.index.root.here, o.rules[2].parts = []uint32{0, 1, 2, 3}, all{always(True)} },
			[]string{"never: the index says true of a change, and trying every rule says false"},
			[]string{"a", "b", "never", "every"},
			nil,
		},
		{
			"breaks down", func(o *opRules) { o.index.root.branches = []branch{broken{}} },
			[]string{"?: asking the rules' index: out of order"},
			[]string{"a", "b", "every"},
			[]string{"?: asking the rules' index: out of order"},
		},
		{
			"one rule breaks down", func(o *opRules) { o.rules[1].parts = all{nil} },
			[]string{"b: the index says undetermined of a change, and trying every rule says true"},
			[]string{"a", "b: evaluating the rule: runtime error: invalid memory address or nil pointer dereference", "every"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, err := compile(t, auditRules).Bind(table)
			if err != nil {
				t.Fatal(err)
			}
			tt.sabotage(&plan.watch.ops[cdc.Insert])
			var told []string
			plan.OnMismatch = func(r *Rule, err error) {
				name := "?"
				if r != nil {
					name = r.Name
				}
				told = append(told, name+": "+err.Error())
			}
			match := func() (names []string) {
				plan.Match(testTx, ann, func(r *Rule, v Verdict) {
					if v.Err != nil {
						names = append(names, r.Name+": "+v.Err.Error())
						return
					}
					names = append(names, r.Name)
				})
				return names
			}
			if diff := cmp.Diff([]string{"a", "b", "every"}, match()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.told, told); diff != "" {
				t.Error(diff)
			}
			told = nil
			if diff := cmp.Diff(tt.then, match()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.thenTold, told); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAuditRate holds which changes are tried on every rule: the first, and then one in so many.
func TestAuditRate(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	many.WriteString("rules:\n")
	for i := range 20 {
		fmt.Fprintf(&many, "  - {name: r%d, on: {table: customers, ops: [insert]}, when: new.id == %d, to: new.email, template: x}\n", i, i)
	}
	table := customers()
	c := &cdc.Change{Op: cdc.Insert, Table: table, New: row{"id": "3"}.tuple(table)}
	for rules, every := range map[string]int{auditRules: 1024, many.String(): 20 * 64} {
		plan, err := compile(t, rules).Bind(table)
		if err != nil {
			t.Fatal(err)
		}
		o := &plan.watch.ops[cdc.Insert]
		o.index = &index{root: new(vertex)}
		var audited []int
		for i := range 2*every + 3 {
			plan.OnMismatch = func(*Rule, error) {
				if !slices.Contains(audited, i) {
					audited = append(audited, i)
				}
			}
			plan.Match(testTx, c, func(*Rule, Verdict) {})
		}
		if want := []int{0, every, 2 * every}; !slices.Equal(audited, want) {
			t.Errorf("of %d rules %v, not %v", len(o.rules), audited, want)
		}
	}
}
