package rules

import (
	"slices"

	"gopkg.in/yaml.v3"

	"postman/cdc"
)

// testOps are the kinds of change that a test can begin with.
var testOps = []string{"insert", "update", "delete", "message"}

func (r *reader) readTests(rule *Rule, n *yaml.Node) {
	for _, item := range r.items(n, "a list of tests") {
		if test, ok := r.readTest(rule, item); ok {
			rule.Tests = append(rule.Tests, test)
		}
	}
}

// readTest reads one case: the change, and whether the rule matches it.
func (r *reader) readTest(rule *Rule, n *yaml.Node) (Test, bool) {
	t := Test{Place: Place{r.file.name, n.Line, n.Column}, columns: make(map[string]Place)}
	parts, whole := r.mapping(n, "a test such as {insert: {…}, match: true}", append(slices.Clone(testOps), "match")...)
	if !whole {
		return t, false
	}
	for _, op := range testOps {
		change, ok := parts[op]
		switch {
		case !ok:
		case t.Op != "":
			r.fail(change, "PM016", "a test is about one change, and this one has "+t.Op+" already", "make it two tests")
		default:
			t.Op = op
			r.readChange(&t, change)
		}
	}
	if t.Op == "" {
		r.fail(n, "PM016", "the test has no change", "add insert, update, delete or message")
	} else if (t.Op == cdc.Emit.String()) != (rule.On.Message != "") && len(rule.On.Ops) > 0 {
		r.fail(n, "PM016", "the rule is never tried on a "+t.Op, "its on names "+list(opNames(rule.On.Ops), "and"))
		return t, false
	}
	t.Match = r.readMatch(n, parts["match"])
	return t, t.Op != "" && t.Match != nil
}

func (r *reader) readMatch(test, n *yaml.Node) *bool {
	if n == nil {
		r.fail(test, "PM016", "the test does not say whether the rule matches", "add match: true or match: false")
		return nil
	}
	word, ok := r.scalar(n, "true or false")
	if ok && word != "true" && word != "false" {
		r.fail(n, "PM009", "match is true or false, not "+word, "")
		return nil
	}
	if !ok {
		return nil
	}
	return new(word == "true")
}

// readChange reads a test's change: one row or message, and two rows for an update.
func (r *reader) readChange(t *Test, n *yaml.Node) {
	switch t.Op {
	case "update":
		rows, whole := r.mapping(n, "{new: {…}, old: {…}}", "new", "old")
		if whole && rows["new"] == nil {
			r.fail(n, "PM016", "an update has a new row", "write {new: {…}, old: {…}}")
			return
		}
		if rows["new"] != nil {
			t.New = r.readRow(t, rows["new"])
		}
		if rows["old"] != nil {
			t.Old = r.readRow(t, rows["old"])
		}
	case "delete":
		t.Old = r.readRow(t, n)
	default:
		t.New = r.readRow(t, n)
	}
}

// readRow reads columns and their values as they were written: the column's type says what they mean.
func (r *reader) readRow(t *Test, n *yaml.Node) map[string]*string {
	row := make(map[string]*string)
	for _, f := range r.fields(n, "a row such as {id: 1, kind: meeting}") {
		t.columns[f.key.Value] = Place{r.file.name, f.key.Line, f.key.Column}
		switch {
		case null(f.value):
			row[f.key.Value] = nil
		case f.value.Kind != yaml.ScalarNode:
			r.is(f.value, yaml.ScalarNode, "a single value (an array or JSON column is written as Postgres prints it, in quotes)")
		case !r.trapped[f.value]:
			row[f.key.Value] = new(f.value.Value)
		}
	}
	return row
}
