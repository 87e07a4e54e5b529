package cdc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/pgcluster/pgtest"
	"postman/value"
)

// TestSchemaOfADatabase holds that a schema file says of a database what the catalog does: only the OIDs are gone.
func TestSchemaOfADatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"create type mood as enum ('sad', 'glad')", "create domain happy as mood", "create schema shop",
		`create table shop."Order <&>" (id int, line int, m mood not null, h happy, ms mood[], price numeric(10,2), primary key (id, line))`,
		"create table loose (id int)", "create table bare ()", "alter table loose replica identity nothing",
		"create table uniq (a int, b int not null)", "create unique index uniq_b on uniq (b)", "alter table uniq replica identity using index uniq_b",
		"create table parted (id int primary key) partition by range (id)", "create table part partition of parted for values from (0) to (9)",
		"create view v as select 1 as x", "create unlogged table u (id int)", "create schema postman", "create table postman.outbox ()",
	)
	want, err := LoadSchema(t.Context(), pgtest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Tables) != 5 || len(want.Unwatchable) != 3 || len(want.Unidentified) != 2 {
		t.Errorf("%d tables, %v, %v", len(want.Tables), want.Unwatchable, want.Unidentified)
	}
	got, err := ParseSchema(want.Schema())
	if err != nil {
		t.Fatalf("%v\n%s", err, want.Schema())
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Table{}, "OID"), cmpopts.IgnoreFields(value.Type{}, "OID"), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if again := got.Schema(); string(again) != string(want.Schema()) {
		t.Errorf("written again it is another:\n%s", again)
	}
	if !strings.Contains(string(want.Schema()), `
    {"schema":"shop","name":"Order <&>","replica_identity":"default","columns":[
      {"name":"id","type":"integer","base":23,"not_null":true,"primary_key":true,"identity":true},
`) {
		t.Errorf("a column has no line of its own:\n%s", want.Schema())
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	t.Parallel()
	table := func(text string) string {
		return `{"postman_schema": 1, "tables": [{"schema": "public", "name": "t", ` + text + `}], "unwatchable": []}`
	}
	for name, test := range map[string]struct{ text, want string }{
		"no JSON":              {"tables", "invalid character"},
		"another file":         {`{"tables": []}`, "write it anew"},
		"of a later version":   {`{"postman_schema": 2, "news": 1}`, "this postman reads 1"},
		"an unknown key":       {`{"postman_schema": 1, "table": []}`, "table"},
		"something behind it":  {`{"postman_schema": 1} {}`, "after top-level value"},
		"no replica identity":  {table(`"columns": []`), "replica identity"},
		"a column twice":       {table(`"replica_identity": "full", "columns": [{"name": "a"}, {"name": "a"}]`), "table t: column a is there twice"},
		"a column of no name":  {table(`"replica_identity": "full", "columns": [{"type": "text"}]`), "no name"},
		"an OID of a database": {table(`"replica_identity": "full", "columns": [{"name": "a", "base": 16400}]`), "16400"},
		"a table of no name":   {strings.Replace(table(`"columns": []`), `"t"`, `""`, 1), "a name"},
		"a table twice": {
			`{"postman_schema": 1, "tables": [{"schema": "a", "name": "t", "replica_identity": "full"}, {"schema": "a", "name": "t", "replica_identity": "full"}]}`,
			"table a.t: it is there twice",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c, err := ParseSchema([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v; want %q", c, err, test.want)
			}
		})
	}
}

// FuzzParseSchema holds that what is taken is written and taken again as the same.
func FuzzParseSchema(f *testing.F) {
	f.Add([]byte(`{"postman_schema": 1, "tables": [{"schema": "public", "name": "t", "replica_identity": "default", "unidentified": "why", "columns": [
		{"name": "id", "type": "bigint", "base": 20, "not_null": true, "primary_key": true, "identity": true},
		{"name": "kind", "type": "mood", "base": 25, "enum": ["sad", "glad"]}]}], "unwatchable": [{"schema": "public", "name": "v", "why": "a view"}]}`))
	f.Add([]byte(`{"postman_schema": 1}`))
	f.Add([]byte(`{"postman_schema": 1, "tables": null, "unwatchable": [{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseSchema(text)
		if err != nil {
			return
		}
		again, err := ParseSchema(c.Schema())
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Schema())
		}
		if diff := cmp.Diff(c, again, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}
