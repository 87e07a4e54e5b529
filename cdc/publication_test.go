package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
)

func TestPlanPublications(t *testing.T) {
	t.Parallel()
	a, b, odd, loose := TableName{"public", "a"}, TableName{"public", "b"}, TableName{`Sh"op`, "Or,der"}, TableName{"public", "loose"}
	cat := &Catalog{
		Tables:       map[TableName]*Table{a: {}, b: {}, odd: {}, loose: {}},
		Unwatchable:  map[TableName]string{{"public", "v"}: "it is a view"},
		Unidentified: map[TableName]string{loose: `it has none: ALTER TABLE "public"."loose" REPLICA IDENTITY FULL;`},
	}
	publication := func(name, ops string, members ...TableName) *Publication {
		p := &Publication{Name: name, ViaRoot: true, Tables: make(map[TableName]Member)}
		p.Insert, p.Update = strings.Contains(ops, "i"), strings.Contains(ops, "u")
		p.Delete, p.Truncate = strings.Contains(ops, "d"), strings.Contains(ops, "t")
		for _, m := range members {
			p.Tables[m] = Member{}
		}
		return p
	}
	existing := func(ins, upd, del *Publication) *Database {
		db := &Database{Publications: make(map[string]*Publication)}
		for _, p := range []*Publication{ins, upd, del} {
			db.Publications[p.Name] = p
		}
		return db
	}
	good := func() *Database {
		return existing(publication("s_ins", "i", a), publication("s_upd", "u", a), publication("s_del", "dt"))
	}
	with := func(change func(*Database)) *Database {
		db := good()
		change(db)
		return db
	}
	onA := []Need{{a, []Op{Insert, Update}}}
	const surplus = "surplus:"
	const viaRoot = "publish_via_partition_root = true);"
	for name, c := range map[string]struct {
		db    *Database
		needs []Need
		want  []string
		err   string
	}{
		"nothing there, nothing needed": {&Database{}, nil, []string{
			`CREATE PUBLICATION "s_ins" WITH (publish = 'insert', ` + viaRoot,
			`CREATE PUBLICATION "s_upd" WITH (publish = 'update', ` + viaRoot,
			`CREATE PUBLICATION "s_del" WITH (publish = 'delete, truncate', ` + viaRoot,
		}, ""},
		"nothing there": {&Database{}, []Need{{odd, []Op{Insert, Delete}}, {a, []Op{Truncate}}, {a, []Op{Insert}}, {b, []Op{Insert, Insert, Emit}}}, []string{
			`CREATE PUBLICATION "s_ins" FOR TABLE ONLY "Sh""op"."Or,der", ONLY "public"."a", ONLY "public"."b" WITH (publish = 'insert', ` + viaRoot,
			`CREATE PUBLICATION "s_upd" WITH (publish = 'update', ` + viaRoot,
			`CREATE PUBLICATION "s_del" FOR TABLE ONLY "Sh""op"."Or,der", ONLY "public"."a" WITH (publish = 'delete, truncate', ` + viaRoot,
		}, ""},
		"all fits": {good(), onA, nil, ""},
		"a table more and one less": {good(), []Need{{b, []Op{Insert, Delete}}}, []string{
			`ALTER PUBLICATION "s_ins" ADD TABLE ONLY "public"."b";`,
			`ALTER PUBLICATION "s_del" ADD TABLE ONLY "public"."b";`,
			surplus,
			`ALTER PUBLICATION "s_ins" DROP TABLE ONLY "public"."a";`,
			`ALTER PUBLICATION "s_upd" DROP TABLE ONLY "public"."a";`,
		}, ""},
		"options that somebody changed": {with(func(db *Database) {
			db.Publications["s_upd"].Insert = true
			db.Publications["s_ins"].ViaRoot = false
		}), onA, []string{
			`ALTER PUBLICATION "s_ins" SET (publish = 'insert', ` + viaRoot,
			`ALTER PUBLICATION "s_upd" SET (publish = 'update', ` + viaRoot,
		}, ""},
		"a restriction and a schema": {with(func(db *Database) {
			db.Publications["s_ins"].Tables[a] = Member{Restricted: true}
			db.Publications["s_upd"].Schemas = []string{`Sh"op`}
		}), onA, []string{
			`ALTER PUBLICATION "s_ins" DROP TABLE ONLY "public"."a";`,
			`ALTER PUBLICATION "s_ins" ADD TABLE ONLY "public"."a";`,
			surplus,
			`ALTER PUBLICATION "s_upd" DROP TABLES IN SCHEMA "Sh""op";`,
		}, ""},
		"no identity": {good(), append([]Need{{loose, []Op{Insert, Update, Truncate}}}, onA...), []string{
			`ALTER PUBLICATION "s_ins" ADD TABLE ONLY "public"."loose";`,
		}, `table loose cannot be watched for update: it has none: ALTER TABLE "public"."loose" REPLICA IDENTITY FULL;` + "\n" +
			`table loose cannot be watched for delete: it has none: ALTER TABLE "public"."loose" REPLICA IDENTITY FULL;`},
		"a member that lost its identity leaves": {
			with(func(db *Database) { db.Publications["s_upd"].Tables[loose] = Member{} }), onA,
			[]string{`ALTER PUBLICATION "s_upd" DROP TABLE ONLY "public"."loose";`},
			"",
		},
		"tables that cannot be": {
			good(), append([]Need{{TableName{"public", "v"}, []Op{Insert}}, {TableName{"x", "y"}, []Op{Delete}}}, onA...), nil,
			"table v cannot be watched for insert: it is a view\ntable x.y cannot be watched for delete: it does not exist",
		},
		"all tables":                      {with(func(db *Database) { db.Publications["s_del"].AllTables = true }), onA, nil, "FOR ALL TABLES"},
		"a slot without its publications": {&Database{Slot: &SlotInfo{}}, onA, nil, "lacks its publication s_ins and s_upd and s_del"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := PlanPublications(c.db, "s", c.needs, cat)
			got := plan.Missing
			if len(plan.Surplus) > 0 {
				got = append(append(got, surplus), plan.Surplus...)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v; want %q", err, c.err)
			}
		})
	}
	_, err := PlanPublications(&Database{}, "not a slot", nil, cat)
	setupError(t, err, "lower-case")
}

// TestApplicationNeverBreaks watches tables of every kind of replica identity for everything, and then does what the
// application does. Where watching is refused, the statement that the refusal names must mend it.
func TestApplicationNeverBreaks(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testApplicationNeverBreaks)
}

func testApplicationNeverBreaks(t *testing.T) {
	url := pgtest.Database(t)
	slot := pgtest.Name(url)
	tables := map[string]struct {
		make    []string
		refused string // what the refusal says; empty: none
		mend    []string
	}{
		"keyed":    {[]string{"create table keyed (id int primary key, n int)"}, "", nil},
		"bare":     {[]string{"create table bare (id int, n int)"}, "no primary key", nil},
		"whole":    {[]string{"create table whole (id int, n int)", "alter table whole replica identity full"}, "", nil},
		"nothing":  {[]string{"create table nothing (id int primary key, n int)", "alter table nothing replica identity nothing"}, "NOTHING", nil},
		"late":     {[]string{"create table late (id int primary key deferrable, n int)"}, "no primary key", nil},
		"indexed":  {[]string{"create table indexed (id int not null unique, n int)", "alter table indexed replica identity using index indexed_id_key"}, "", nil},
		"unmoored": {[]string{"create table unmoored (id int not null, n int)", "create unique index gone on unmoored (id)", "alter table unmoored replica identity using index gone", "drop index gone"}, "is gone", nil},
		"parted":   {[]string{"create table parted (id int primary key, n int) partition by range (id)", "create table parted_1 partition of parted for values from (0) to (9)"}, "", nil},
		"loose": {
			[]string{"create table loose (id int, n int) partition by range (id)", "create table loose_1 partition of loose for values from (0) to (9)"},
			"partitioned and has no primary key",
			[]string{"alter table loose add primary key (id)"},
		},
		"spoilt": {[]string{
			"create table spoilt (id int primary key, n int) partition by range (id)",
			"create table spoilt_1 partition of spoilt for values from (0) to (9) partition by range (id)",
			`create table "Spoilt 2" partition of spoilt_1 for values from (0) to (5)`, `alter table "Spoilt 2" replica identity nothing`,
		}, "partition Spoilt 2", nil},
		"lying":  {[]string{"create table lying (id int primary key, n int) partition by range (id)", "create table lying_1 partition of lying for values from (0) to (9)", "alter table lying replica identity full"}, "do not inherit", nil},
		"parent": {[]string{"create table parent (id int primary key, n int)", "create table child () inherits (parent)"}, "", nil},
	}
	use := func(why string) {
		t.Helper()
		for name := range tables {
			for _, s := range []string{"insert into %s values (1, 1)", "update %s set n = 2", "update %s set id = 2", "delete from %s", "truncate %s"} {
				pgtest.Exec(t, url, fmt.Sprintf(s, name))
			}
		}
		pgtest.Exec(t, url, "insert into child values (1, 1)", "update child set n = 2", "delete from child")
		if t.Failed() {
			t.Fatal(why)
		}
	}
	var needs, inserts []Need
	for name, c := range tables {
		pgtest.Exec(t, url, c.make...)
		needs = append(needs, all(name)...)
		inserts = append(inserts, Need{TableName{"public", name}, []Op{Insert}})
	}
	use("before")
	conn := pgtest.Connect(t, url)
	apply := func(needs []Need) error {
		t.Helper()
		statements, err := plan(t, url, slot, needs...)
		if applied := Apply(t.Context(), conn, statements); applied != nil {
			t.Fatal(applied)
		}
		return err
	}
	if err := apply(inserts); err != nil {
		t.Error(err)
	}
	use("watched for inserts")
	err := apply(needs)
	use("watched for everything")
	for name, c := range tables {
		_, why, refused := strings.Cut(fmt.Sprint(err), "table "+name+" cannot be watched for update: ")
		why, _, _ = strings.Cut(why, "\n")
		if refused != (c.refused != "") || !strings.Contains(why, c.refused) {
			t.Errorf("%s: refused with %q; want %q", name, why, c.refused)
		}
		if !refused {
			continue
		}
		mend := c.mend
		if mend == nil {
			_, sql, _ := strings.Cut(why, "ALTER TABLE ")
			sql, _, _ = strings.Cut(sql, ";")
			mend = []string{"ALTER TABLE " + sql}
		}
		pgtest.Exec(t, url, mend...)
	}
	if err := apply(needs); err != nil {
		t.Error("after mending: ", err)
	}
	use("mended")
	if err := apply(inserts); err != nil {
		t.Error(err)
	}
	if err := apply(nil); err != nil {
		t.Error(err)
	}
	use("not watched any more")
}

// TestMeddledPublications has a DBA change the publications in every way.
func TestMeddledPublications(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table a (id int primary key, x text)", "create table b (id int primary key)", "create schema s", "create table s.c (id int)")
	slot, _ := provide(t, url, all("a", "b")...)
	meddling := []string{
		"alter publication " + slot + "_ins set (publish = 'update', publish_via_partition_root = false)",
		"alter publication " + slot + "_upd drop table b",
		"alter publication " + slot + "_del add table s.c",
	}
	if pgtest.Cluster(t).Version() >= 15 {
		meddling = append(meddling,
			"alter publication "+slot+"_ins set table a where (id > 5), tables in schema s",
			"alter publication "+slot+"_del set table a (id)")
	}
	for _, m := range meddling {
		pgtest.Exec(t, url, m)
		publish(t, url, slot, all("a", "b")...) // fails unless afterwards there is nothing to do
	}
}

func TestApplyIsAtomic(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	err := Apply(t.Context(), conn, []string{"create publication first", "create publication first"})
	if err == nil || !strings.Contains(err.Error(), "running create publication first") {
		t.Errorf("Apply returned %v", err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_publication").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d publications are left (%v)", n, err)
	}
}

func TestApplyWithoutPrivilege(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	role := pgtest.Name(url) + "_role"
	pgtest.Exec(t, url, "create table t (id int primary key)", "create role "+role+" login replication")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), "drop role "+role); err != nil {
			t.Error(err)
		}
	})
	meek := strings.Replace(url, "postgres@", role+"@", 1)
	// A role that may do no more than replicate can look at everything, and use what a DBA made.
	statements, err := plan(t, meek, pgtest.Name(url), all("t")...)
	if err != nil || len(statements) != 3 {
		t.Fatalf("planned %q, %v", statements, err)
	}
	if err := Apply(t.Context(), pgtest.Connect(t, meek), statements); sqlState(err) != codeNoPrivilege {
		t.Errorf("Apply returned %v", err)
	}
	pgtest.Exec(t, url, append(statements, SlotSQL(pgtest.Name(url), pgtest.Cluster(t).Version()))...)
	r := newRecorder(t)
	_, stop := run(t, Options{URL: meek, Slot: pgtest.Name(url)}, r)
	pgtest.Exec(t, url, "insert into t values (1)")
	onceEach(t, r, 1, 1)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestMisreadStaysPublished holds that a table whose old rows would lie is left in its publications: nobody is harmed, and one order is
// enough to mend it.
func TestMisreadStaysPublished(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table parted (id int primary key, n int) partition by range (id)", "create table parted_1 partition of parted for values from (0) to (9)")
	conn := pgtest.Connect(t, url)
	before, err := plan(t, url, "misread", all("parted")...)
	if err = errors.Join(err, Apply(t.Context(), conn, before)); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "alter table parted replica identity full")
	statements, err := plan(t, url, "misread", all("parted")...)
	if len(statements) > 0 || err == nil || !strings.Contains(err.Error(), "REPLICA IDENTITY DEFAULT") {
		t.Errorf("%q, %v", statements, err)
	}
	pgtest.Exec(t, url, "update parted set n = 1", "alter table parted replica identity default")
	if statements, err = plan(t, url, "misread", all("parted")...); len(statements) > 0 || err != nil {
		t.Errorf("mended: %q, %v", statements, err)
	}
}
