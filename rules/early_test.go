package rules

import (
	"testing"
	"time"

	"postman/cdc"
	"postman/value"
)

// TestEarly tries rules on a change whose commit has not been read.
func TestEarly(t *testing.T) {
	t.Parallel()
	table := &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: "t"}, Identity: cdc.IdentityDefault, Columns: []cdc.Column{
		{Column: value.Column{Name: "id", Type: value.Type{OID: 23, Base: 23, Name: "int4"}}, Key: true, PK: true, NotNull: true},
		{Column: value.Column{Name: "big", Type: value.Type{OID: 25, Base: 25, Name: "text"}}},
	}}
	for when, want := range map[string]struct{ early, then Verdict }{
		`new.id == 1`: {Verdict{Truth: True}, Verdict{Truth: True}},
		`new.id == 2 and commit_time > date("2026-01-01T00:00:00Z")`: {Verdict{}, Verdict{}},
		`new.id == 1 or commit_time > date("2026-01-01T00:00:00Z")`:  {Verdict{Truth: True}, Verdict{Truth: True}},
		`commit_time > date("2026-01-01T00:00:00Z")`:                 {Verdict{Truth: Undetermined, Missing: "commit_time", Early: true}, Verdict{Truth: True}},
		`new.big == "x"`: {Verdict{Truth: Undetermined, Missing: "new.big"}, Verdict{Truth: Undetermined, Missing: "new.big"}},
		`new.big == "x" and commit_time > date("2027-01-01T00:00:00Z")`: {Verdict{Truth: Undetermined, Missing: "new.big", Early: true}, Verdict{}},
	} {
		set, err := Compile(parse(t, "rules:\n  - {name: r, on: {table: t, ops: [update]}, when: '"+when+"', to: {address: a@example.com}, template: t}\n"),
			&cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{table.TableName: table}})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		plan, err := set.Bind(table)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		c := &cdc.Change{Op: cdc.Update, Table: table, New: cdc.MakeTuple([]value.Datum{{State: value.Present, Text: []byte("1")}, {State: value.Unavailable}})}
		for i, tx := range []cdc.Tx{{XID: 7}, {XID: 7, Commit: 1, Time: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}} {
			for range 3 { // one of them is audited
				var got Verdict
				plan.Match(tx, c, func(_ *Rule, v Verdict) { got = v })
				if expected := []Verdict{want.early, want.then}[i]; got != expected {
					t.Errorf("%s, commit at %s: %+v; want %+v", when, tx.Commit, got, expected)
				}
			}
		}
	}
}
