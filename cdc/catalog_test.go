package cdc

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/pgcluster/pgtest"
	"postman/value"
)

func TestLoadCatalog(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testLoadCatalog)
}

func testLoadCatalog(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url,
		"create type mood as enum ('sad', 'glad')", "alter type mood add value 'ok' after 'sad'", "create domain happy as mood",
		"create schema shop", `create table shop."Order" (id int, line int, gone int, note text not null, m mood, h happy default 'ok', ms mood[], price numeric(10,2),
		   twice int generated always as (id * 2) stored, primary key (line, id) include (note))`,
		`alter table shop."Order" drop gone`,
		"create table parted (id int primary key) partition by range (id)", "create table part partition of parted for values from (0) to (9)",
		"create table uniq (a int, b int not null)", "create unique index uniq_b on uniq (b) include (a)", "alter table uniq replica identity using index uniq_b",
		"create view v as select 1 as x", "create materialized view mv as select 1 as x", "create unlogged table u (id int)", "create sequence seq", "create schema postman", "create table postman.outbox ()",
	)
	asked := []TableName{
		{"shop", "Order"},
		{"public", "parted"},
		{"public", "part"},
		{"public", "uniq"},
		{"public", "v"},
		{"public", "mv"},
		{"public", "u"},
		{"public", "seq"},
		{"pg_catalog", "pg_class"},
		{"public", "order"},
		{"no", "where"},
		{"public", "uniq"},
	}
	got, err := LoadCatalog(t.Context(), pgtest.Connect(t, url), asked)
	if err != nil {
		t.Fatal(err)
	}
	labels := []string{"sad", "ok", "glad"}
	column := func(name, typ string, base uint32) Column {
		return Column{Column: value.Column{Name: name, Type: value.Type{Name: typ, Base: base}}}
	}
	key := func(c Column) Column {
		c.Key, c.PK, c.NotNull = true, true, true
		return c
	}
	note, m, h := column("note", "text", 25), column("m", "mood", 25), column("h", "happy", 25)
	note.NotNull, m.Enum, h.Enum = true, labels, labels
	b := column("b", "integer", 23)
	b.Key, b.NotNull = true, true
	want := map[TableName]*Table{
		asked[0]: {TableName: asked[0], Identity: IdentityDefault, Columns: []Column{
			key(column("id", "integer", 23)), key(column("line", "integer", 23)), note, m, h, column("ms", "mood[]", 1009), column("price", "numeric", 1700),
		}},
		asked[1]: {TableName: asked[1], Identity: IdentityDefault, Partitioned: true, Columns: []Column{key(column("id", "integer", 23))}},
		asked[3]: {TableName: asked[3], Identity: IdentityIndex, Columns: []Column{column("a", "integer", 23), b}},
	}
	if diff := cmp.Diff(want, got.Tables, cmpopts.IgnoreFields(Table{}, "OID"), cmpopts.IgnoreFields(value.Type{}, "OID")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]TableName{{"public", "parted"}, {"public", "uniq"}, {"shop", "Order"}}, got.Names); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{"v": "view", "mv": "materialized", "u": "unlogged", "part": "partition", "pg_class": "system"} {
		i := slices.IndexFunc(asked, func(a TableName) bool { return a.Name == name })
		if why := got.Unwatchable[asked[i]]; !strings.Contains(why, text) {
			t.Errorf("%s: %q lacks %q", name, why, text)
		}
	}
	if len(got.Unwatchable) != 6 { // the sequence too
		t.Errorf("unwatchable: %v", got.Unwatchable)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testInspect)
}

func testInspect(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	db, err := Inspect(t.Context(), pgtest.Connect(t, url+"&wal_sender_timeout=2s"), slot)
	if err != nil {
		t.Fatal(err)
	}
	if db.Name != slot || db.Version != pgtest.Cluster(t).Version() || db.WALLevel != "logical" || db.Role != "postgres" || !db.Superuser || !db.Replication ||
		db.InRecovery || db.SystemID == "" || db.Timeline != 1 || db.WALEnd < start || db.KeepSize != -1 || db.IdleLimit != 0 || db.SenderTimeout.Seconds() != 2 {
		t.Errorf("%+v", db)
	}
	s := db.Slot
	if s == nil || s.Plugin != "pgoutput" || s.Database != slot || s.ActivePID != 0 || s.Confirmed != start || s.Restart == 0 || s.Restart > s.Confirmed || s.Lost() ||
		s.SafeSize != nil || s.Failover != (db.Version >= firstFailover) || s.Inactive.IsZero() != (db.Version < 17) || db.Publications[slot+"_ins"].OID < firstUserOID {
		t.Errorf("%+v", s)
	}
	table := map[TableName]Member{{"public", "t"}: {}}
	want := map[string]*Publication{
		slot + "_ins": {Name: slot + "_ins", Insert: true, ViaRoot: true, Tables: table},
		slot + "_upd": {Name: slot + "_upd", Update: true, ViaRoot: true, Tables: table},
		slot + "_del": {Name: slot + "_del", Delete: true, Truncate: true, ViaRoot: true, Tables: table},
	}
	if diff := cmp.Diff(want, db.Publications, cmpopts.IgnoreFields(Publication{}, "OID", "Altered", "ByOID"), cmpopts.IgnoreFields(Member{}, "OID")); diff != "" {
		t.Error(diff)
	}
	for name, p := range db.Publications {
		if p.Altered == 0 || p.Tables[TableName{"public", "t"}].OID < firstUserOID || len(p.ByOID) != 1 {
			t.Errorf("%s does not say which it is: %+v", name, p)
		}
	}
	if db, err := Inspect(t.Context(), pgtest.Connect(t, url), "none"); err != nil || db.Slot != nil || len(db.Publications) != 0 {
		t.Errorf("of a slot that is not there: %+v, %v", db, err)
	}
}
