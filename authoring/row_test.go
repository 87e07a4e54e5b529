package authoring

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
	"postman/daemon"
	"postman/rules"
	"postman/value"
)

// newPreview is one of a rule on the table visits, without a database.
func newPreview(t *testing.T, rule string, table *cdc.Table) *preview {
	t.Helper()
	return &preview{rule: revivedWithTests(t, rule, table), table: table, mask: daemon.Mask}
}

// revivedWithTests is the rule compiled as a file's is: a stored rule has no tests.
func revivedWithTests(t *testing.T, source string, table *cdc.Table) *rules.Rule {
	t.Helper()
	path := t.TempDir() + "/rules.yaml"
	put(t, path, source)
	read, err := rules.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.Compile(read, &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{table.TableName: table}, Names: []cdc.TableName{table.TableName}})
	if err != nil {
		t.Fatal(err)
	}
	return set.Rules[0]
}

func visit(id, kind, email string) []value.Datum {
	row := make([]value.Datum, 6)
	row[0] = value.Of(id)
	for i, text := range []string{kind, email} {
		if text != "" {
			row[i+1] = value.Of(text)
		}
	}
	return row
}

// values is a tuple as a test reads it.
func values(t cdc.Tuple) string {
	row, err := t.Datums(nil)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for _, d := range row {
		switch d.State {
		case value.Null:
			parts = append(parts, "–")
		case value.Present:
			parts = append(parts, string(d.Text))
		case value.Unavailable, value.Blanked:
			parts = append(parts, "?")
		}
	}
	return strings.TrimRight(strings.Join(parts, " "), " –")
}

// TestExamples holds what is taken for what a row was before, and which values of a test are laid over the newest row where none
// matches.
func TestExamples(t *testing.T) {
	t.Parallel()
	const moved = `
sensitive: [visits.email]
rules:
  - name: visit
    on: {table: visits, ops: [insert, update, delete]}
    when: op == "update" and old.kind == "call" and new.kind == "visit" and new.email != "nobody"
    to: [address: a@example.com]
    template: visit
    tests:
      - {update: {old: {id: 1, kind: call}, new: {id: 1, kind: call}}, match: false}
      - {update: {old: {id: 1, kind: call, email: kim@example.com}, new: {id: 1, kind: visit, email: lee@example.com}}, match: true}
`
	full, key := visitTable(), visitTable()
	full.Identity = cdc.IdentityFull
	for name, c := range map[string]struct {
		rule  string
		table *cdc.Table
		rows  [][]value.Datum
		old   string
		now   string
		what  string
		says  []string
		match bool
	}{
		"none that matches": {
			moved, full,
			[][]value.Datum{visit("9", "other", ""), visit("7", "other", "")},
			"9 call kim@example.com", "9 visit lee@example.com",
			"update of visits, id 9, the row with the greatest primary key; none of the 2 rows looked at matches as it is",
			[]string{"new.kind is visit, as in the test at", "old.kind is call, as in the test at", "new.email is <sensitive>, as in the test at", "old.email is <sensitive>, as in the test at"},
			true,
		},
		"an empty table": {
			moved, full, nil, "– call kim@example.com", "– visit lee@example.com", "update of a row that is made up: visits is empty", nil, true,
		},
		"no test to take values of": {
			"rules: [{name: visit, on: {table: visits, ops: [insert]}, when: new.kind == \"visit\", to: [address: a@example.com], template: visit}]", full,
			[][]value.Datum{visit("9", "other", "")},
			"", "9 other", "insert of visits, id 9, the row with the greatest primary key; the only row does not match", nil, false,
		},
		"an identity that is the key": {
			`rules: [{name: visit, on: {table: visits, ops: [update]}, when: new.kind == "visit", to: [address: a@example.com], template: visit,
  tests: [{update: {old: {id: 1, kind: call}, new: {id: 1, kind: visit}}, match: true}]}]`, key,
			[][]value.Datum{visit("9", "other", "")},
			"", "9 visit", "update of visits, id 9, the row with the greatest primary key; the only row does not match as it is",
			[]string{"new.kind is visit, as in the test at"},
			true,
		},
		"a test that changes the key": {
			`rules: [{name: visit, on: {table: visits, ops: [update]}, when: new.kind == "visit" and old.id != new.id, to: [address: a@example.com], template: visit,
  tests: [{update: {old: {id: 1, kind: call}, new: {id: 2, kind: visit}}, match: true}]}]`, key,
			[][]value.Datum{visit("9", "visit", "")},
			"1", "9 visit", "",
			[]string{"old.id is 1, as in the test at"},
			true,
		},
	} {
		p := newPreview(t, c.rule, c.table)
		var e *example
		if c.what == "" {
			e = p.example(cdc.Update, c.rows[0])
		} else {
			e = p.fromTest(p.rule.On.Ops, c.rows)
		}
		if got := p.matches(e.change); got != c.match || e.what != c.what || values(e.change.Old) != c.old || values(e.change.New) != c.now {
			t.Errorf("%s: %s: %q → %q, matches: %v", name, e.what, values(e.change.Old), values(e.change.New), got)
		}
		if c.says == nil {
			continue
		}
		var said []string
		for _, a := range e.assumed {
			said = append(said, a[:strings.Index(a, " at ")+len(" at")])
		}
		if diff := cmp.Diff(c.says, said); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestExampleBefore holds that an update of a row is assumed to have changed what the test changes, and nothing else.
func TestExampleBefore(t *testing.T) {
	t.Parallel()
	table := visitTable()
	table.Identity = cdc.IdentityFull
	p := newPreview(t, `rules: [{name: visit, on: {table: visits, ops: [update]}, when: changed(new.kind), to: [address: a@example.com], template: visit,
  tests: [{update: {old: {id: 1, kind: call, email: x@example.com}, new: {id: 2, kind: visit, email: x@example.com}}, match: true}]}]`, table)
	e := p.example(cdc.Update, visit("7", "visit", "kim@example.com"))
	if values(e.change.Old) != "1 call kim@example.com" || values(e.change.New) != "7 visit kim@example.com" || len(e.assumed) != 2 || !p.matches(e.change) {
		t.Errorf("%q → %q, %q", values(e.change.Old), values(e.change.New), e.assumed)
	}
	p.table = visitTable() // the stream tells of the old row no more than its key, which stays
	p.rule = revivedWithTests(t, `rules: [{name: visit, on: {table: visits, ops: [update]}, when: new.kind == "visit", to: [address: a@example.com], template: visit,
  tests: [{update: {old: {id: 1, kind: call}, new: {id: 1, kind: visit}}, match: true}]}]`, p.table)
	if e := p.example(cdc.Update, visit("7", "visit", "")); e.change.Old != nil || len(e.assumed) > 0 || !p.matches(e.change) {
		t.Errorf("%q → %q, %q", values(e.change.Old), values(e.change.New), e.assumed)
	}
	p.table = table
	e = p.example(cdc.Delete, visit("7", "visit", ""))
	if values(e.change.Old) != "7 visit" || e.change.New != nil {
		t.Errorf("%q → %q", values(e.change.Old), values(e.change.New))
	}
}
