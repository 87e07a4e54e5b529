package authoring

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postman/cdc"
	"postman/rules"
	"postman/value"
)

// domain are values of the columns of visits, as tests write them and as the stream has them; the first is left out, the second NULL.
var domain = map[string][][2]string{
	"id":        {{"", "NULL"}, {"1", "1"}, {"2", "2"}},
	"kind":      {{"", "NULL"}, {"visit", "visit"}, {"call", "call"}, {"meeting", "meeting"}},
	"starts_at": {{"", "NULL"}, {"~", "NULL"}, {"2026-03-04 15:30+09", "2026-03-04 06:30:00+00"}, {"2026-03-05T00:00:00Z", "2026-03-05 00:00:00+00"}},
	"staff_id":  {{"", "NULL"}, {"~", "NULL"}, {"7", "7"}, {"-1", "-1"}},
	"note":      {{"", "NULL"}, {"~", "NULL"}, {"'null'", "null"}, {"김", "김"}, {"''", ""}, {"'1'", "1"}},
	"done":      {{"", "NULL"}, {"null", "NULL"}, {"true", "t"}, {"no", "f"}},
	"price":     {{"", "NULL"}, {"~", "NULL"}, {"0.10", "0.10"}, {"100", "100"}, {"'-5'", "-5"}},
}

// leavesOf are conditions on a row.
var leavesOf = []string{
	`%s.kind == "visit"`, `%s.kind in ["call", "visit"]`, `%s.note == "김"`, `%s.note != "1"`, `%s.note == nil`, `%s.done`, `%s.price > 0`, `%s.price <= 0.1`,
	`%s.staff_id != 7`, `%s.starts_at < date("2026-03-05T00:00:00Z")`, `%s.note contains "n"`, `%s.id == 1`, `(%s.staff_id ?? 7) == 7`, `commit_time > %s.starts_at`, `len(%s.note) > 0`,
}

func condition(t *rapid.T, op string, depth int) string {
	leaf := func() string {
		side := rapid.SampledFrom([]string{"new", "old"}).Draw(t, "side")
		if rapid.IntRange(0, 9).Draw(t, "leaf") == 0 {
			return rapid.SampledFrom([]string{`op == "` + op + `"`, `op != "` + op + `"`, `changed(new.note)`, `changed(new.price)`}).Draw(t, "of both")
		}
		return fmt.Sprintf(rapid.SampledFrom(leavesOf).Draw(t, "leaf"), side)
	}
	if depth == 0 {
		return leaf()
	}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return "(" + condition(t, op, depth-1) + " and " + condition(t, op, depth-1) + ")"
	case 1:
		return "(" + condition(t, op, depth-1) + " or " + condition(t, op, depth-1) + ")"
	case 2:
		return "not (" + condition(t, op, depth-1) + ")"
	case 3:
		return "(" + condition(t, op, depth-1) + " ? " + condition(t, op, depth-1) + " : " + condition(t, op, depth-1) + ")"
	}
	return leaf()
}

// line is a row as a test writes it, and as the stream has it.
func line(t *rapid.T, table *cdc.Table) (string, []value.Datum) {
	var cells []string
	datums := make([]value.Datum, len(table.Columns))
	for i, c := range table.Columns {
		v := rapid.SampledFrom(domain[c.Name]).Draw(t, c.Name)
		if v[0] != "" {
			cells = append(cells, c.Name+": "+v[0])
		}
		if v[1] != "NULL" {
			datums[i] = value.Of(v[1])
		}
	}
	return "{" + strings.Join(cells, ", ") + "}", datums
}

// TestVerdict compares what tests say of a change with what the live plan of all the rules says of it.
func TestVerdict(t *testing.T) {
	t.Parallel()
	config, schema := folder(t, nil)
	catalog := visits()
	table := catalog.Tables[cdc.TableName{Schema: "public", Name: "visits"}]
	ops := []cdc.Op{cdc.Insert, cdc.Update, cdc.Delete}
	at := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	matches, total := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		text.WriteString("rules:\n")
		var changes []*cdc.Change
		var steps []string
		for range 5 {
			op := rapid.SampledFrom(ops).Draw(t, "op")
			now, newDatums := line(t, table)
			then, oldDatums := line(t, table)
			changes = append(changes, cdc.MakeChange(op, table, newDatums, oldDatums))
			steps = append(steps, map[cdc.Op]string{
				cdc.Insert: "insert: " + now, cdc.Update: "update: {old: " + then + ", new: " + now + "}", cdc.Delete: "delete: " + then,
			}[op])
		}
		for i := range 4 {
			on := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"insert", "update", "delete"}), 1, 3, rapid.ID).Draw(t, "ops")
			fmt.Fprintf(&text, "- name: r%d\n  on: {table: visits, ops: [%s]}\n  when: |\n    %s\n  to: {address: a@example.com}\n  template: x\n  tests:\n  - {%s, match: true}\n",
				i, strings.Join(on, ", "), condition(t, on[0], 3), map[string]string{"insert": "insert: {}", "update": "update: {new: {}}", "delete": "delete: {}"}[on[0]])
			for j, s := range steps {
				if slices.Contains(on, changes[j].Op.String()) { // a test of another operation is a mistake
					fmt.Fprintf(&text, "  - at: 2026-03-04T09:00:00Z\n    %s\n    match: true\n", s)
				}
			}
		}
		if err := os.WriteFile(config.Rules, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := Test(t.Context(), config, TestOptions{Schema: schema})
		if err != nil {
			t.Fatalf("%v in\n%s", err, text.String())
		}
		set := compiled(t, config.Rules, catalog)
		plan, err := set.Bind(table)
		if err != nil {
			t.Fatal(err)
		}
		next := make(map[string]int) // of each rule's tests; the first is of no change here
		for _, change := range changes {
			want := make(map[string]bool)
			plan.Match(cdc.Tx{Time: at}, change, func(r *rules.Rule, v rules.Verdict) {
				if v.Err != nil || v.Truth == rules.Undetermined {
					t.Fatalf("%+v", v)
				}
				want[r.Name] = true
			})
			for _, r := range report.Rules {
				if !slices.Contains(r.Rule.On.Ops, change.Op) {
					if want[r.Rule.Name] {
						t.Fatalf("%s matches an operation that it is not on, in\n%s", r.Rule.Name, text.String())
					}
					continue
				}
				total++
				next[r.Rule.Name]++
				i := next[r.Rule.Name]
				if got := len(r.Tests[i].Failures) == 0; got != want[r.Rule.Name] {
					t.Fatalf("%s: the test says %v, the plan %v in\n%s", r.Tests[i].Place, got, want[r.Rule.Name], text.String())
				} else if got {
					matches++
				}
			}
		}
	})
	if !t.Failed() && (matches < total/20 || matches > total-total/20) {
		t.Errorf("%d of %d match: that shows little", matches, total)
	}
}

func compiled(t *rapid.T, path string, c *cdc.Catalog) *rules.Set {
	source, err := rules.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.Compile(source, c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestFlip compares the verdict of a tree of clauses with that of logic, and with what happens when one of them is the other.
func TestFlip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var clauses []*rules.Step
		var tree func(depth int) (*rules.Step, func() rules.Truth)
		tree = func(depth int) (*rules.Step, func() rules.Truth) {
			kinds := []rules.StepKind{rules.ClauseStep, rules.AndStep, rules.OrStep, rules.NotStep, rules.IfStep}
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			if depth == 0 || kind == rules.ClauseStep {
				s := &rules.Step{Kind: rules.ClauseStep, Truth: rapid.SampledFrom([]rules.Truth{rules.True, rules.False}).Draw(t, "truth")}
				clauses = append(clauses, s)
				return s, func() rules.Truth { return s.Truth }
			}
			n := map[rules.StepKind]int{rules.AndStep: 3, rules.OrStep: 2, rules.NotStep: 1, rules.IfStep: 3}[kind]
			s := &rules.Step{Kind: kind}
			parts := make([]func() rules.Truth, n)
			for i := range n {
				var part *rules.Step
				part, parts[i] = tree(depth - 1)
				s.Parts = append(s.Parts, part)
			}
			is := func(i int) bool { return parts[i]() == rules.True }
			return s, func() rules.Truth {
				yes := false
				switch kind {
				case rules.AndStep:
					yes = is(0) && is(1) && is(2)
				case rules.OrStep:
					yes = is(0) || is(1)
				case rules.NotStep:
					yes = !is(0)
				case rules.IfStep:
					yes = is(0) && is(1) || !is(0) && is(2)
				case rules.ClauseStep, rules.ValueStep:
				}
				if yes {
					return rules.True
				}
				return rules.False
			}
		}
		root, want := tree(4)
		if got := verdict(root, nil, 0); got != want() {
			t.Fatalf("%v, and it is %v", got, want())
		}
		for _, c := range clauses {
			other := rules.True
			if c.Truth == rules.True {
				other = rules.False
			}
			got := verdict(root, c, other)
			c.Truth, other = other, c.Truth
			if want := want(); got != want {
				t.Fatalf("flipped it is said to be %v, and is %v", got, want)
			}
			c.Truth = other
		}
	})
}

// TestUndetermined has clauses of which nobody can tell.
func TestUndetermined(t *testing.T) {
	t.Parallel()
	step := func(kind rules.StepKind, parts ...*rules.Step) *rules.Step {
		return &rules.Step{Kind: kind, Parts: parts}
	}
	yes, no, unknown := &rules.Step{Truth: rules.True}, &rules.Step{Truth: rules.False}, &rules.Step{Truth: rules.Undetermined}
	for i, c := range []struct {
		tree *rules.Step
		want rules.Truth
	}{
		{step(rules.AndStep, unknown, no), rules.False},
		{step(rules.AndStep, unknown, yes), rules.Undetermined},
		{step(rules.OrStep, unknown, yes), rules.True},
		{step(rules.OrStep, no, unknown), rules.Undetermined},
		{step(rules.NotStep, unknown), rules.Undetermined},
		{step(rules.IfStep, unknown, yes, yes), rules.True},
		{step(rules.IfStep, unknown, yes, no), rules.Undetermined},
		{step(rules.IfStep, yes, unknown, no), rules.Undetermined},
	} {
		if got := verdict(c.tree, nil, 0); got != c.want {
			t.Errorf("%d: %v; want %v", i, got, c.want)
		}
	}
}

// TestJUnit reads the XML as a build server does.
func TestJUnit(t *testing.T) {
	t.Parallel()
	config, schema := folder(t, map[string]string{"rules.yaml": `
rules:
  - name: visit
    on: {table: visits, ops: [insert]}
    when: new.kind == "visit"
    to: {query: select email from staff where id = @new.staff_id}
    template: visit
    tests:
      - {name: "김 <b> & \"x\"", insert: {id: 1, kind: visit}, match: true}
      - {name: fails, insert: {id: 1, kind: call}, match: true, given: {to: []}, subject: x}
      - {name: is not run, insert: {id: 1, kind: visit}, subject: x}
      - {name: is noted, insert: {id: 1}, match: false}
  - {name: untested, on: {table: visits, ops: [insert]}, to: {address: a@example.com}, template: visit}
`, "templates/visit.html": oneRule["templates/visit.html"]})
	report, err := Test(t.Context(), config, TestOptions{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := report.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name    string `xml:"name,attr"`
			Tests   int    `xml:"tests,attr"`
			Skipped int    `xml:"skipped,attr"`
			Cases   []struct {
				Name     string  `xml:"name,attr"`
				Class    string  `xml:"classname,attr"`
				Line     int     `xml:"line,attr"`
				Time     float64 `xml:"time,attr"`
				Failures []struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
				Skipped *struct{} `xml:"skipped"`
				Out     string    `xml:"system-out"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(b.String()), &read); err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if read.Tests != 4 || read.Failures != 1 || len(read.Suites) != 1 || read.Suites[0].Skipped != 1 {
		t.Fatalf("%+v", read)
	}
	cases := read.Suites[0].Cases
	var names []string
	for _, c := range cases {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]string{`김 <b> & "x"`, "fails", "is not run", "is noted"}, names); diff != "" {
		t.Error(diff)
	}
	f := cases[1].Failures
	if len(f) != 1 || f[0].Message != "expected a match, and there is none" || !strings.Contains(f[0].Text, `new.kind = "call"`) || cases[1].Line != 10 || cases[1].Class != "visit" {
		t.Errorf("%+v", cases[1])
	}
	if cases[2].Skipped == nil || cases[0].Skipped != nil || !strings.Contains(cases[3].Out, "new.kind is left out") {
		t.Errorf("%+v", cases)
	}
}

// TestNames holds what tests without a name are called.
func TestNames(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	cell := func(name string, v *string) rules.Cell { return rules.Cell{Name: name, Text: v} }
	for want, test := range map[string]rules.Test{
		"a name":                     {Name: "a name", Steps: []rules.TestStep{{Op: "insert"}}},
		"insert {}":                  {Steps: []rules.TestStep{{Op: "insert"}}},
		`insert {a: NULL, b: ""}`:    {Steps: []rules.TestStep{{Op: "insert", New: []rules.Cell{cell("a", nil), cell("b", text(""))}}}},
		"delete {id: 1} and 2 more":  {Steps: []rules.TestStep{{Op: "delete", Old: []rules.Cell{cell("id", text("1"))}}, {}, {}}},
		"message {email: a, n: [1]}": {Steps: []rules.TestStep{{Op: "message", Message: json.RawMessage(`{"email":"a","n":[1]}`)}}},
		"update {s: a → b, n: NULL → 1, id: 1, x: 2}": {Steps: []rules.TestStep{{
			Op: "update", Old: []rules.Cell{cell("id", text("1")), cell("s", text("a")), cell("n", nil)},
			New: []rules.Cell{cell("id", text("1")), cell("s", text("b")), cell("n", text("1")), cell("x", text("2"))},
		}}},
		"insert {" + strings.Repeat("가", 62) + "…}": {Steps: []rules.TestStep{{Op: "insert", New: []rules.Cell{cell(strings.Repeat("가", 90), nil)}}}},
	} {
		if got := nameOf(&test); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}
