package rules

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// verdicts collects what a plan says, by rule.
func verdicts(match func(yield func(*Rule, Verdict))) map[string]string {
	got := make(map[string]string)
	match(func(r *Rule, v Verdict) {
		switch {
		case v.Err != nil:
			got[r.Name] = v.Err.Error()
		case v.Truth == Undetermined:
			got[r.Name] = "undetermined: " + v.Missing
		default:
			got[r.Name] = "match"
		}
	})
	return got
}

const planRules = `
rules:
  - {name: all, on: {table: customers, ops: [insert, update, delete]}, to: new.email, template: x}
  - {name: ann, on: {table: customers, ops: [insert, update]}, when: new.name == "Ann", to: new.email, template: x}
  - {name: note, on: {table: customers, ops: [update]}, when: new.note == "x", to: new.email, template: x}
  - {name: number, on: {table: customers, ops: [insert]}, when: 'new["Buyer Id"] > 5', to: new.email, template: x}
  - {name: gone, on: {table: customers, ops: [delete]}, when: old.id == 1, to: {address: a@example.com}, template: x}
  - {name: elsewhere, on: {table: schedules, ops: [insert]}, to: new.note, template: x}
`

func TestMatch(t *testing.T) {
	t.Parallel()
	table := customers()
	set := compile(t, planRules)
	plan, err := set.Bind(table)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change cdc.Change
		want   map[string]string
	}{
		{"insert", cdc.Change{Op: cdc.Insert, New: row{"name": "Ann", "Buyer Id": "6"}.tuple(table)}, map[string]string{"all": "match", "ann": "match", "number": "match"}},
		{"no match", cdc.Change{Op: cdc.Insert, New: row{"name": "Bob"}.tuple(table)}, map[string]string{"all": "match"}},
		{"broken value", cdc.Change{Op: cdc.Insert, New: row{"name": "Ann", "Buyer Id": "six"}.tuple(table)}, map[string]string{
			"all": "match", "ann": "match", "number": `column new.Buyer Id: a value of 3 bytes is no int4`,
		}},
		{"unchanged TOAST", cdc.Change{Op: cdc.Update, New: row{"name": "Ann", "note": unsent}.tuple(table)}, map[string]string{
			"all": "match", "ann": "match", "note": "undetermined: new.note",
		}},
		{"delete", cdc.Change{Op: cdc.Delete, Old: row{"id": "1"}.tuple(table), OldKey: true}, map[string]string{"all": "match", "gone": "match"}},
		{"truncate", cdc.Change{Op: cdc.Truncate}, map[string]string{}},
		// the plan forgets what it decoded
		{"another insert", cdc.Change{Op: cdc.Insert, New: row{"name": "Eve", "Buyer Id": "5"}.tuple(table)}, map[string]string{"all": "match"}},
	}
	for _, tt := range tests { // one plan, one change after the other
		tt.change.Table = table
		for range 2 { // the first one of each operation is tried on every rule
			got := verdicts(func(yield func(*Rule, Verdict)) { plan.Match(testTx, &tt.change, yield) })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: %s", tt.name, diff)
			}
		}
	}
}

// TestMatchAllocates holds that a change that matches nothing costs nothing but the decoding of what the rules read. It is not parallel: allocations are counted for the process.
func TestMatchAllocates(t *testing.T) {
	table := schedules()
	set := compile(t, `
rules:
  - {name: a, on: {table: schedules, ops: [update]}, when: 'op == "update" and new.id > 500 and changed(new.status)', to: new.note, template: x}
  - {name: b, on: {table: schedules, ops: [update]}, when: new.id == 300 or new.created_by == nil, to: new.note, template: x}
`)
	plan, err := set.Bind(table)
	if err != nil {
		t.Fatal(err)
	}
	r := row{"id": "100", "created_by": "5", "status": "open", "note": "a long note", "data": `{"a": [1, 2]}`, "starts_at": "2026-03-04 15:30:00+00"}.tuple(table)
	c := &cdc.Change{Op: cdc.Update, Table: table, New: r, Old: r}
	got := testing.AllocsPerRun(100, func() { plan.Match(testTx, c, func(*Rule, Verdict) { t.Error("a match") }) })
	if got != 0 { // numbers below 256 are decoded without
		t.Errorf("%v allocations", got)
	}
}

// TestIndexAllocates holds that neither a change that matches nothing nor one that matches allocates, whatever kind of key
// finds the rules, as long as no rule needs more than the scalars of the columns.
func TestIndexAllocates(t *testing.T) {
	var content strings.Builder
	content.WriteString("rules:\n")
	for i, when := range []string{
		`new.id == 300 and new.note contains "x"`, `new.status in ["won", "lost"]`, `new.price > 1000.25 and new.price < 2000`, `new.starts_at >= date("2027-01-01T00:00Z")`,
		`new.note startsWith "urgent"`, `changed(new.status) and new.vacant`, `new.rate == 0.25`, `new.day == date("2026-03-05")`, `new.ref == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`,
		`new.local_at < date("2000-01-01") or new.created_by == nil`, `not new.vacant and new.note contains "b"`, `new.created_by <= new.customer_id`, `old.price > new.price`,
		`new.kind == "call" and new.note endsWith "!"`,
	} {
		for j := range 10 {
			fmt.Fprintf(&content, "  - name: r%d.%d\n    on: {table: schedules, ops: [update]}\n    when: |\n      %s\n    to: new.note\n    template: x\n", i, j, when)
		}
	}
	table := schedules()
	plan, err := compile(t, content.String()).Bind(table)
	if err != nil {
		t.Fatal(err)
	}
	none := row{
		"id": "100", "kind": "meeting", "status": "open", "customer_id": "1000", "created_by": "5000", "starts_at": "2026-03-04 15:30:00+00", "local_at": "2026-03-04 15:30:00",
		"day": "2026-03-04", "price": "999.50", "rate": "0.5", "vacant": "t", "note": "a long note", "data": `{"a": [1, 2]}`, "ref": "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
	}
	many := maps.Clone(none)
	maps.Copy(many, row{"id": "300", "status": "won", "price": "1500", "vacant": "f", "rate": "0.25", "note": "urgent: fix!"})
	for want, now := range map[int]row{0: none, 50: many} {
		c := &cdc.Change{Op: cdc.Update, Table: table, New: now.tuple(table), Old: none.tuple(table)}
		matches := 0
		got := testing.AllocsPerRun(100, func() {
			matches = 0
			plan.Match(testTx, c, func(*Rule, Verdict) { matches++ })
		})
		if got != 0 || matches != want {
			t.Errorf("%v allocations with %d matches, not %d", got, matches, want)
		}
	}
}

// TestBind holds that a table of another shape breaks only the rules that it touches, and that columns are found where
// they stand now.
func TestBind(t *testing.T) {
	t.Parallel()
	set := compile(t, planRules)
	moved := customers()
	moved.Columns = slices.DeleteFunc(moved.Columns, func(c cdc.Column) bool { return c.Name == "note" })
	slices.Reverse(moved.Columns)
	plan, err := set.Bind(moved)
	errs, ok := errors.AsType[Errors](err)
	if !ok || len(errs) != 1 || errs[0].Rule != "note" || !strings.Contains(err.Error(), "no column note") {
		t.Fatal(err)
	}
	c := &cdc.Change{Op: cdc.Insert, Table: moved, New: row{"name": "Ann", "Buyer Id": "6"}.tuple(moved)}
	want := map[string]string{"all": "match", "ann": "match", "number": "match"}
	if diff := cmp.Diff(want, verdicts(func(yield func(*Rule, Verdict)) { plan.Match(testTx, c, yield) })); diff != "" {
		t.Error(diff)
	}
	for _, r := range set.Rules {
		if r.Name == "note" && r.When.tree.root == nil {
			t.Error("binding changed the set")
		}
	}

	nothing := customers()
	nothing.Identity = cdc.IdentityNothing
	plan, err = set.Bind(nothing)
	if errs, _ := errors.AsType[Errors](err); len(errs) != 4 || plan == nil || !strings.Contains(err.Error(), "REPLICA IDENTITY FULL") {
		t.Errorf("%v", err)
	}
	if plan, err := set.Bind(visits()); plan != nil || err != nil {
		t.Errorf("%v, %v", plan, err)
	}
}

// TestBindShares holds that plans share what was checked and indexed as long as rules cannot tell the tables apart, and that a
// set of some of another's rules is as good.
func TestBindShares(t *testing.T) {
	t.Parallel()
	set := compile(t, planRules)
	tests := []struct {
		name   string
		change func(*cdc.Table)
		shared bool
	}{
		{"the same", func(*cdc.Table) {}, true},
		{"what only the catalog knows", func(t *cdc.Table) {
			t.OID, t.Columns[0].PK, t.Columns[0].NotNull, t.Columns[0].Type.Name, t.Columns[1].Enum = 1, false, false, "int8", []string{"x"}
		}, true},
		{"identity", func(t *cdc.Table) { t.Identity = cdc.IdentityFull }, false},
		{"key", func(t *cdc.Table) { t.Columns[1].Key = true }, false},
		{"type", func(t *cdc.Table) { t.Columns[1].Type.Base = pgtype.VarcharOID }, false},
		{"declared type", func(t *cdc.Table) { t.Columns[1].Type.OID = 16999 }, false},
		{"a column more", func(t *cdc.Table) { t.Columns = append(t.Columns, col("more", pgtype.TextOID)) }, false},
		{"order", func(t *cdc.Table) { t.Columns[1], t.Columns[2] = t.Columns[2], t.Columns[1] }, false},
	}
	for _, tt := range tests {
		table := customers()
		tt.change(table)
		for _, s := range []*Set{set, {Rules: set.Rules}} {
			plan, err := s.Bind(table)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if shared := plan.watch == s.watches[table.TableName]; shared != tt.shared {
				t.Errorf("%s: shared %v", tt.name, shared)
			}
			c := &cdc.Change{Op: cdc.Insert, Table: table, New: row{"name": "Ann", "Buyer Id": "6"}.tuple(table)}
			want := map[string]string{"all": "match", "ann": "match", "number": "match"}
			for range 2 { // by trying every rule, and by the index
				if diff := cmp.Diff(want, verdicts(func(yield func(*Rule, Verdict)) { plan.Match(testTx, c, yield) })); diff != "" {
					t.Errorf("%s: %s", tt.name, diff)
				}
			}
		}
	}
}

func TestMatchMessage(t *testing.T) {
	t.Parallel()
	set := compile(t, `
rules:
  - {name: all, on: {message: reset}, to: message.email, template: x}
  - {name: urgent, on: {message: reset}, when: 'message.urgent or message.tries > 2 and op == "message"', to: message.email, template: x}
  - {name: other, on: {message: reset2}, to: message.email, template: x}
  - {name: table, on: {table: customers, ops: [insert]}, to: new.email, template: x}
`)
	tests := []struct {
		name, prefix, content string
		want                  map[string]string
	}{
		{"plain", "postman.reset", `{"email": "a@x"}`, map[string]string{"all": "match"}},
		{"urgent", "postman.reset", `{"urgent": true}`, map[string]string{"all": "match", "urgent": "match"}},
		{"number", "postman.reset", `{"tries": 2.5}`, map[string]string{"all": "match", "urgent": "match"}},
		{"another type", "postman.reset", `{"tries": "many", "urgent": "yes"}`, map[string]string{"all": "match"}},
		{"no object", "postman.reset", `[1]`, map[string]string{"all": "match"}},
		{"another message", "postman.reset2", `{}`, map[string]string{"other": "match"}},
		{"not ours", "reset", `{}`, map[string]string{}},
		{"no name", "postman.", `{}`, map[string]string{}},
		{"no JSON", "postman.reset", `{`, map[string]string{
			"all": "the message's content is no JSON: it ends too early", "urgent": "the message's content is no JSON: it ends too early",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &cdc.Change{Op: cdc.Emit, Prefix: tt.prefix, Content: []byte(tt.content)}
			got := verdicts(func(yield func(*Rule, Verdict)) { set.MatchMessage(testTx, c, yield) })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadFacts(t *testing.T) {
	t.Parallel()
	full := customers()
	full.Identity = cdc.IdentityFull
	key := customers()
	now := row{"id": "1", "name": "Ann", "note": unsent}
	tests := []struct {
		name     string
		change   cdc.Change
		now, was map[string]string // nil: no row
	}{
		{
			"insert",
			cdc.Change{Op: cdc.Insert, Table: key, New: row{"id": "1"}.tuple(key)},
			map[string]string{"id": "1"},
			nil,
		},
		{
			"update, whole old row",
			cdc.Change{Op: cdc.Update, Table: full, New: now.tuple(full), Old: row{"id": "1", "note": "long"}.tuple(full)},
			map[string]string{"id": "1", "name": "Ann", "note": "long"},
			map[string]string{"id": "1", "note": "long"},
		},
		{
			"update, no old row",
			cdc.Change{Op: cdc.Update, Table: key, New: now.tuple(key)},
			map[string]string{"id": "1", "name": "Ann", "note": "?"},
			map[string]string{"id": "1", "email": "?", "name": "?", "Buyer Id": "?", "note": "?"},
		},
		{
			"delete",
			cdc.Change{Op: cdc.Delete, Table: key, Old: row{"id": "1"}.tuple(key), OldKey: true},
			nil,
			map[string]string{"id": "1", "email": "?", "name": "?", "Buyer Id": "?", "note": "?"},
		},
		{"truncate", cdc.Change{Op: cdc.Truncate, Table: key}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			facts, err := readStored(tt.change.Table.Shape(), tt.change.AppendRest(nil, nil))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]any{tt.change.Op.String(), "customers", tt.now, tt.was}, []any{facts.Op, facts.Table, known(facts.New), known(facts.Old)}); diff != "" {
				t.Error(diff)
			}
			if len(facts.New) > 0 && (len(facts.New) != 5 || facts.New[3].Name != "Buyer Id" || facts.New[3].Type.Name != "integer") {
				t.Errorf("%+v", facts.New)
			}
		})
	}
}

// known is a row without its NULLs; a ? stands for what is not available.
func known(r value.Row) map[string]string {
	if r == nil {
		return nil
	}
	m := make(map[string]string)
	for _, f := range r {
		switch f.State {
		case value.Present:
			m[f.Name] = string(f.Text)
		case value.Unavailable, value.Blanked:
			m[f.Name] = "?"
		case value.Null:
		}
	}
	return m
}

// readStored reads a change with its shape.
func readStored(shape, change []byte) (*Facts, error) {
	s, err := ReadShape(shape)
	if err != nil {
		return nil, err
	}
	return s.Facts(change)
}

func TestReadFactsOfMessage(t *testing.T) {
	t.Parallel()
	c := cdc.Change{Op: cdc.Emit, Prefix: "postman.reset", Content: []byte(`{"email": "a@x", "n": 1.50}`)}
	facts, err := readStored(nil, c.AppendRest(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := facts.Message.(map[string]any)
	if facts.Op != "message" || facts.Prefix != "postman.reset" || m["email"] != "a@x" || !value.Equal(m["n"], 1.5) {
		t.Errorf("%+v", facts)
	}
	for name, stored := range map[string][2][]byte{
		"nothing": {nil, nil}, "no shape": {nil, (&cdc.Change{Op: cdc.Insert, Table: customers(), New: row{}.tuple(customers())}).AppendRest(nil, nil)},
		"bad shape": {[]byte("{"), nil}, "no JSON": {nil, (&cdc.Change{Op: cdc.Emit, Prefix: "postman.x", Content: []byte("x")}).AppendRest(nil, nil)},
	} {
		if _, err := readStored(stored[0], stored[1]); err == nil || !strings.HasPrefix(err.Error(), "reading a stored ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	table := schedules()
	tests := []struct {
		name, source string
		want         any
		err          string
	}{
		{"text", `new.note`, "a@x", ""},
		{"NULL", `new.status`, nil, ""},
		{"list", `new.tags`, []string{"a@x", "", "b@x"}, ""},
		{"JSON text", `new.data.email`, "j@x", ""},
		{"JSON list", `new.data.emails`, []string{"k@x"}, ""},
		{"JSON nothing", `new.data.nothing`, nil, ""},
		{"computed", `new.status ?? lower("A@X")`, "a@x", ""},
		{"the old row", `old.note`, "old@x", ""},
		{"the envelope", `op == "update" and xid == 77 and commit_time == date("2026-03-04T12:00:00Z") ? table : "?"`, "schedules", ""},
		{"JSON number", `new.data.n`, nil, "it is a number, and not text or a list of texts"},
		{"JSON object", `new.data`, nil, "it is an object"},
		{"JSON list of numbers", `new.data.numbers`, nil, "item 1 is a number"},
		{"not available", `new.ip`, nil, "the value of new.ip is not available"},
		{"not readable", `new.id > 1 ? "a" : "b"`, nil, `a value of 3 bytes is no int8`},
	}
	facts := &Facts{
		Op: "update", Table: "schedules", CommitTime: testTime, XID: 77,
		New: fieldsOf(t, table, row{
			"id": "one", "note": "a@x", "tags": "{a@x,NULL,b@x}", "ip": unsent,
			"data": `{"email": "j@x", "emails": ["k@x"], "n": 1, "numbers": [1]}`,
		}),
		Old: fieldsOf(t, table, row{"note": "old@x"}),
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := exprOf(t, tt.source, table)
			got, err := e.Value(facts)
			if (err != nil) != (tt.err != "") {
				t.Fatalf("%v, want %q", err, tt.err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), tt.source)) {
				t.Fatalf("%v, want %q of %s", err, tt.err, tt.source)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestValueOfAnotherShape holds that columns are found by name: a live rule may finish a match of an earlier shape.
func TestValueOfAnotherShape(t *testing.T) {
	t.Parallel()
	e := exprOf(t, "new.email", customers())
	moved := customers()
	slices.Reverse(moved.Columns)
	got, err := e.Value(&Facts{Op: "insert", New: fieldsOf(t, moved, row{"email": "a@x", "name": "wrong"})})
	if got != "a@x" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := e.Value(&Facts{Op: "insert", New: fieldsOf(t, visits(), row{})}); err == nil || !strings.Contains(err.Error(), "the change has no column email") {
		t.Error(err)
	}
}

func TestValueOfMessage(t *testing.T) {
	t.Parallel()
	r := compile(t, "rules:\n  - {name: m, on: {message: m}, to: message.email, template: x}\n").Rules[0]
	got, err := r.To[0].Expr.Value(&Facts{Op: "message", Message: map[string]any{"email": "a@x"}})
	if got != "a@x" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func fieldsOf(t *testing.T, table *cdc.Table, r row) value.Row {
	t.Helper()
	facts, err := readStored(table.Shape(), (&cdc.Change{Op: cdc.Insert, Table: table, New: r.tuple(table)}).AppendRest(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	return facts.New
}

func exprOf(t *testing.T, source string, table *cdc.Table) *Expr {
	t.Helper()
	c, problems := checkExpr(source, env{table: table, ops: everyOp})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &Expr{text: text{value: source}, tree: c, table: table}
}

// TestConcurrent shares a set between goroutines, as the daemon does: each has its own plan.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	set := compile(t, every)
	table := schedules()
	facts := &Facts{Op: "insert", New: fieldsOf(t, table, row{"tags": "{a@x}"})}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			plan, err := set.Bind(table)
			if err != nil {
				t.Error(err)
				return
			}
			for range 50 {
				plan.Match(testTx, &cdc.Change{Op: cdc.Insert, Table: table, New: row{"kind": "meeting", "status": "x"}.tuple(table)}, func(r *Rule, v Verdict) {
					if got, err := r.To[2].Expr.Value(facts); v.Truth != True || err != nil || len(got.([]string)) != 1 {
						t.Errorf("%+v, %v, %v", v, got, err)
					}
				})
				set.MatchMessage(testTx, &cdc.Change{Op: cdc.Emit, Prefix: "postman.reset", Content: []byte("{}")}, func(*Rule, Verdict) {})
			}
		})
	}
	group.Wait()
}

// FuzzExpr holds that no expression makes the front end panic, and that one which is accepted is total: it has a truth
// value on every row, and none is undetermined where all is known; and that the index says what the tree says.
func FuzzExpr(f *testing.F) {
	for _, seed := range []string{
		`new.id == 1 and not (old.note contains "x")`, `any(new.tags, # in ["a", nil])`, `new.price * 2 / new.rate - -1 % 3 > abs(new.id)`,
		`new.starts_at - commit_time > duration("1h") or new.day + duration("1d") < date("2026-01-01")`, `new.data.a[0]?.b ?? "x" startsWith "y"`,
		`changed(new.data) ? 1 in 1..new.id : op == "insert"`, `((((`, `new["a`, `1e999`, `"\u{110000}"`, `#`, `let x = 1; x`, "new.id == \x00",
	} {
		f.Add(seed)
	}
	table := schedules()
	rows := []row{
		{},
		{
			"id": "1", "kind": "call", "status": "a", "customer_id": "-9223372036854775808", "starts_at": "infinity", "local_at": "0044-03-15 00:00:00 BC",
			"day": "9999-12-31", "price": "NaN", "rate": "Infinity", "vacant": "t", "note": "", "tags": "{a,NULL}", "numbers": "{{1,2},{3,NULL}}",
			"data": `{"a": [{"b": null}, 1e300, "x"], "": {}}`, "ref": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "blob": `\x00`, "ip": "::1",
		},
	}
	f.Fuzz(func(t *testing.T, source string) {
		c, problems := checkExpr(source, env{table: table, ops: everyOp})
		for _, p := range problems {
			if p.message == "" || p.offset < 0 || p.offset > len([]rune(source))+1 {
				t.Errorf("%+v", p)
			}
		}
		if len(problems) > 0 || !c.typ.condition() {
			return
		}
		rules, trees := []*Rule{{On: On{Ops: everyOp}}}, []node{c.root}
		plan := planOf(table, rules, trees)
		for _, now := range rows {
			for _, then := range rows {
				c := &cdc.Change{Op: cdc.Update, Table: table, New: now.tuple(table), Old: then.tuple(table)}
				said := naively(rules, trees, c)
				if len(said) > 0 && said[0].Truth == Undetermined {
					t.Errorf("%+v on %v and %v", said[0].Verdict, now, then)
				}
				if diff := differing(said, plan.byIndex(c)); diff != "" {
					t.Errorf("the tree and the index on %v and %v: %s", now, then, diff)
				}
			}
		}
	})
}
