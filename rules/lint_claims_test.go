package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postman/cdc"
)

// claim is what a warning says of all changes: that a condition is always true of those that the rule is on, or never.
type claim struct {
	source string
	ops    []cdc.Op
	is     bool
}

var (
	partClaim = regexp.MustCompile(`^(.*) is (always|never) true here: it decides nothing$`)
	opClaim   = regexp.MustCompile(`^the rule is on (\w+) and never matches one$`)
)

// claims takes the warnings of a rule at their word: one whose condition joins two parts, by or or by and.
func claims(r *Rule, found Errors, or bool) (all []claim) {
	whole := strings.TrimSpace(r.When.String())
	for _, e := range found {
		part, op := partClaim.FindStringSubmatch(e.Message), opClaim.FindStringSubmatch(e.Message)
		switch {
		case strings.HasPrefix(e.Message, "the condition is "):
			all = append(all, claim{whole, r.On.Ops, strings.Contains(e.Message, "always")})
		case strings.HasSuffix(e.Message, "what or joins here is always true") && or:
			all = append(all, claim{whole, r.On.Ops, true})
		case strings.HasSuffix(e.Message, "what and joins here is never true") && !or:
			all = append(all, claim{whole, r.On.Ops, false})
		case part != nil && !strings.Contains(part[1], "…"):
			all = append(all, claim{part[1], r.On.Ops, part[2] == "always"})
		case op != nil:
			all = append(all, claim{whole, []cdc.Op{opOf(op[1])}, false})
		}
	}
	return all
}

// TestLintClaims holds that what a warning says of all changes is true of random ones: conditions that are made of two parts, so that
// what they join is the whole.
func TestLintClaims(t *testing.T) {
	t.Parallel()
	made := map[string]int{}
	for seed := range uint64(40) {
		w := newWorld(seed)
		var changes []*cdc.Change
		for range 40 {
			changes = append(changes, w.change())
		}
		for range 40 {
			a, b := w.leaves[w.IntN(len(w.leaves))].source, w.leaves[w.IntN(len(w.leaves))].source
			operator := w.of("and", "and", "or")
			when := fmt.Sprintf("(%s) %s (%s)", a, operator, b)
			r, found := w.linted(when)
			if r == nil {
				continue
			}
			for _, c := range claims(r, found, operator == "or") {
				of, ok := w.checked(c.source)
				if !ok {
					t.Errorf("%s: the warning is of %s, which is no condition", when, c.source)
					continue
				}
				made[fmt.Sprint(c.is, len(c.ops) == len(r.On.Ops))]++
				for _, change := range changes {
					f := newFrame(w.table)
					f.begin(testTx, change)
					if v := f.try(of.node); slices.Contains(c.ops, change.Op) && v.Err == nil && v.Truth == truthOf(!c.is) {
						t.Errorf("%s on %v: a warning says that %s is %v for all, and it is not for\n%s", when, opNames(r.On.Ops), c.source, c.is, shown(change))
					}
				}
			}
		}
	}
	if len(made) < 3 || made["true true"] < 10 || made["false true"] < 10 {
		t.Errorf("too few claims to hold: %v", made)
	}
}

// linted is a rule with a condition, and what it is warned of; nil where the rule is not sound.
func (w *world) linted(when string) (*Rule, Errors) {
	ops := slices.DeleteFunc(slices.Clone(rowOps), func(cdc.Op) bool { return w.chance(50) })
	if len(ops) == 0 {
		return nil, nil
	}
	zone := ""
	if w.zone != nil {
		zone = "    timezone: UTC\n"
	}
	text := fmt.Sprintf("rules:\n  - name: r\n    on: {table: things, ops: [%s]}\n%s    when: |\n      %s\n    to: {address: a@example.com}\n    template: x\n",
		strings.Join(opNames(ops), ", "), zone, when)
	s := new(Source)
	if errs := append(s.add("x.yaml", []byte(text)), s.unite()...); len(errs) > 0 {
		return nil, nil
	}
	catalog := &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{w.table.TableName: w.table}}
	set, err := Compile(s, catalog)
	if err != nil {
		return nil, nil
	}
	return set.Rules[0], set.Lint(catalog)
}
