package authoring

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/daemon"
	"postman/rules"
	"postman/value"
)

// visitTable is a table of which the stream carries the old row's key alone.
func visitTable() *cdc.Table {
	column := func(name string, oid uint32) cdc.Column {
		return cdc.Column{Column: value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: value.TypeName(oid)}}}
	}
	t := &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: "visits"}, OID: 1, Identity: cdc.IdentityDefault, Columns: []cdc.Column{
		column("id", pgtype.Int8OID), column("kind", pgtype.TextOID), column("email", pgtype.TextOID), column("pin", pgtype.TextOID), column("tags", pgtype.TextArrayOID),
		column("data", pgtype.JSONBOID),
	}}
	t.Columns[0].Key, t.Columns[0].PK, t.Columns[0].NotNull, t.Columns[1].NotNull = true, true, true, true
	return t
}

const visitRule = `rules: [{name: visit, on: {table: visits, ops: [insert, update]}, when: new.kind == "visit", to: new.email, template: visit}]`

func revived(t *testing.T, source string, table *cdc.Table) *rules.Rule {
	t.Helper()
	r, err := rules.Revive([]byte(source), table)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReadChange holds how a change is written down, and what is said of one that is not.
func TestReadChange(t *testing.T) {
	t.Parallel()
	table := visitTable()
	onTable, onMessage := revived(t, visitRule, table), revived(t, "rules: [{name: m, on: {message: m}, to: message.email, template: x}]", nil)
	for name, c := range map[string]struct{ text, want string }{
		"an insert":         {`{"new": {"id": 1, "kind": "visit", "email": null}}`, `insert [] [email=NULL id=1 kind=visit]`},
		"an update":         {`{"old": {"id": 1}, "new": {"id": 12345678901234567890.10}}`, `update [id=1] [id=12345678901234567890.10]`},
		"a delete":          {`{"old": {}}`, `delete [] []`},
		"a truncate":        {`{"op": "truncate"}`, `truncate [] []`},
		"JSON and lists":    {`{"new": {"data": {"a": [1, "x"]}, "tags": ["a", null, "b\"c\\", 1, true]}}`, `insert [] [data={"a": [1, "x"]} tags={"a",NULL,"b\"c\\","1","true"}]`},
		"a list of JSON":    {`{"new": {"data": [1, "x"]}}`, `insert [] [data=[1, "x"]]`},
		"a message":         {`{"message": {"email": "a@b.c"}}`, `message [] []`},
		"nothing":           {`{}`, "c.json: it has no op, no old, no new and no message"},
		"an unknown key":    {"{\n\"nwe\": {}}", `c.json:2: json: unknown field "nwe"`},
		"no JSON":           {`{`, `c.json: unexpected EOF`},
		"no row":            {`{"new": 5}`, `c.json: new cannot be a number`},
		"a list":            {`[]`, `c.json: the change cannot be a array`},
		"an unknown op":     {`{"op": "upsert", "new": {}}`, `c.json: there is no operation "upsert"; there are insert, update, delete, truncate and message`},
		"an old too much":   {`{"op": "insert", "new": {}, "old": {}}`, `c.json: an insert has new and nothing else`},
		"no old":            {`{"op": "update", "new": {}}`, `c.json: an update has old and new and nothing else`},
		"what it is not on": {`{"message": {}}`, `c.json: it is a message, and rule "visit" is on the table visits`},
	} {
		rule, of := onTable, table
		if name == "a message" {
			rule, of = onMessage, nil
		}
		s, at, err := readChange("c.json", []byte(c.text), rule, of)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %s %s", s.Op, cellTexts(s.Old), cellTexts(s.New))
			if time.Since(at) > time.Minute {
				t.Errorf("%s: it was committed at %v", name, at)
			}
		} else if got, _, _ = strings.Cut(err.Error(), "\n"); !daemon.Misconfigured(err) {
			t.Errorf("%s: %v is no mistake of the caller's", name, err)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if _, at, err := readChange("c.json", []byte(`{"new": {}, "commit_time": "2026-03-04T12:00:00+09:00"}`), onTable, table); err != nil || at.UTC() != time.Date(2026, 3, 4, 3, 0, 0, 0, time.UTC) {
		t.Errorf("%v, %v", at, err)
	}
}

func cellTexts(cells []rules.Cell) []string {
	texts := []string{}
	for _, c := range cells {
		text := "NULL"
		if c.Text != nil {
			text = *c.Text
		}
		texts = append(texts, c.Name+"="+text)
	}
	return texts
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FuzzReadChange holds that whatever a file says is refused in words, or makes a change that the rule can be tried on.
func FuzzReadChange(f *testing.F) {
	for _, seed := range []string{
		`{"new": {"id": 1, "kind": "visit"}}`, `{"op": "update", "old": {"tags": ["a", [null]]}, "new": {"data": {"a": 1e999}}}`, `{"old": {"id": "x"}}`, `{"message": []}`,
		`{"new": {"id": 1}, "commit_time": "2026-03-04T12:00:00Z"}`, `[`, `{"new": null}`,
	} {
		f.Add([]byte(seed))
	}
	table := visitTable()
	rule, err := rules.Revive([]byte(visitRule), table)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, _, err := readChange("c.json", text, rule, table)
		if err != nil {
			if !daemon.Misconfigured(err) {
				t.Errorf("%v is no mistake of the caller's", err)
			}
			return
		}
		change, mistakes := rule.TestChange(s)
		if len(mistakes) > 0 {
			return
		}
		if _, err := factsOf(change); err != nil {
			t.Error(err)
		}
		if trace := rule.Explain(cdc.Tx{}, change); trace.Verdict.Err != nil {
			t.Error(trace.Verdict.Err)
		}
	})
}
