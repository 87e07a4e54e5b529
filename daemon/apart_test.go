package daemon

import (
	"testing"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/rules"
)

// TestRenamedBetweenTheQueries: the catalog and the publications are read one after the other. A table that gets another name, or changes its name
// with another one, between the two is published all the while.
func TestRenamedBetweenTheQueries(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	slot := pgtest.Name(url)
	pgtest.Exec(t, url, "create table a (id int primary key)", "create table b (id int primary key)", "create schema elsewhere")
	for _, name := range []string{"_ins", "_upd", "_del"} {
		pgtest.Exec(t, url, "create publication "+slot+name+" for table a with (publish_via_partition_root)")
	}
	conn := pgtest.Connect(t, url)
	a := cdc.TableName{Schema: "public", Name: "a"}
	on := rules.On{Table: a, Ops: []cdc.Op{cdc.Insert, cdc.Update}}
	for _, ddl := range [][]string{
		{"alter table a rename to c"},
		{"alter table c set schema elsewhere"},
		{"alter table elsewhere.c rename to a", "alter table elsewhere.a set schema public"},
		{"alter table a rename to c", "alter table b rename to a", "alter table c rename to b"},
	} {
		catalog, err := cdc.LoadTables(t.Context(), conn, []cdc.TableName{a, {Schema: "public", Name: "c"}, {Schema: "elsewhere", Name: "c"}})
		if err != nil {
			t.Fatal(err)
		}
		for name, table := range catalog.Tables {
			on.Table = name
			pgtest.Exec(t, url, ddl...)
			db, err := cdc.Inspect(t.Context(), conn, slot)
			if err != nil {
				t.Fatal(err)
			}
			was := watch{Table: name, Ops: on.Ops, OID: table.OID}
			if lost := missing(db, slot, catalog, []watching{{"r", on, was}}); len(lost) > 0 || !published(db, slot, catalog, on) {
				t.Errorf("%q: %+v is lost", ddl, lost)
			}
		}
	}
}
