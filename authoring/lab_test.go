package authoring

import (
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/daemon"
	"postman/internal/pgcluster/pgtest"
)

var labSchema = []string{
	`create domain won as numeric(12, 2)`,
	`create type kinds as enum ('visit', 'call')`,
	`create table staff (id int primary key, email text, name text)`,
	`insert into staff values (1, 'kim@example.com', '김하늘'), (2, 'lee@example.com', '이서연'), (3, null, '주소 없음')`,
	`create table visits (
		id bigint generated always as identity primary key, kind kinds not null default 'visit', staff_id int references staff,
		note text, price won check (price > 0), starts_at timestamptz not null default '2026-03-04 15:30+09', label text generated always as ('v' || note) stored)`,
	`insert into visits (note, staff_id) values ('there', 1)`,
	`alter table visits replica identity full`,
	`create table parts (id int, at date not null, note text, primary key (id, at)) partition by range (at)`,
	`create table parts_old partition of parts for values from ('2020-01-01') to ('2026-01-01')`,
	`create table parts_new partition of parts for values from ('2026-01-01') to ('2030-01-01')`,
	`create table silent (id int primary key)`,
	`create function nothing() returns trigger language plpgsql as $$ begin return null; end $$`,
	`create trigger nothing before insert on silent for each row execute function nothing()`,
	`create table log (id int, n bigserial primary key)`,
	`create function writes() returns text language sql as $$ insert into log values (1); select 'kim@example.com' $$`,
}

const labRules = `
rules:
  - name: visit
    on: {table: visits, ops: [insert, update, delete]}
    when: new.kind == "visit" or op == "delete"
    load:
      count: select count(*) as n, min(note) as note from visits where id = coalesce(@new.id, @old.id)
    to: {query: "select email, name from staff where id = coalesce(@new.staff_id, @old.staff_id)"}
    template: visit
    tests:
      - name: what is left out has its default
        insert: {staff_id: 1, note: new}
        match: true
        to: kim@example.com
        subject: insert visit 1 new
      - name: the key may be named
        insert: {id: 4711, staff_id: 2}
        to: lee@example.com
        subject: 4711
      - name: a row of defaults
        insert: {}
        match: true
        mail: none
      - name: no address
        insert: {staff_id: 3}
        mail: none
      - name: the row is there
        update: {old: {id: 1, kind: call}, new: {id: 1, kind: visit, note: moved}}
        to: kim@example.com
        subject: update visit 1 moved
      - name: the row is not there
        update: {old: {id: 900, kind: call, staff_id: 2}, new: {id: 900, kind: visit}}
        to: lee@example.com
      - name: nothing changes
        update: {old: {id: 1, note: there}, new: {id: 1, note: there}}
        to: kim@example.com
      - name: the row has no key yet
        update: {old: {kind: call}, new: {kind: visit, staff_id: 2}}
        to: lee@example.com
      - name: deleted
        delete: {id: 1}
        to: kim@example.com
        subject: delete  0
      - name: steps share a transaction
        steps:
          - {insert: {id: 950, staff_id: 1, note: first}, to: kim@example.com}
          - {after: 1h, update: {old: {id: 950}, new: {id: 950, staff_id: 2, note: second}}, subject: visit 1 second}
          - {after: 1h, delete: {id: 950}, to: lee@example.com, subject: delete  0}
      - name: only the condition is asked
        insert: {id: 1, kind: call}
        match: false
      - name: given answers are kept to
        insert: {id: 1, kind: visit, starts_at: "2026-01-01 00:00+00"}
        given: {to: [{email: given@example.com}], load: {count: {n: 7, note: null}}}
        to: given@example.com
        subject: visit 7
      - {name: no such staff, insert: {staff_id: 9}, to: a@example.com}
      - {name: a null, insert: {kind: null}, to: a@example.com}
      - {name: taken, insert: {id: 1}, to: a@example.com}
      - {name: a check, insert: {price: -1}, to: a@example.com}
      - {name: other people, insert: {staff_id: 1}, to: lee@example.com}
      - {name: and the next one finds all as it was, insert: {staff_id: 1}, to: kim@example.com, subject: visit 1}
  - name: parts
    on: {table: parts, ops: [update]}
    to: {query: "select email from staff where id = @new.id"}
    template: parts
    tests:
      - name: a row moves to another partition
        update: {old: {id: 1, at: 2025-12-31}, new: {id: 1, at: 2026-01-01}}
        to: kim@example.com
  - name: silent
    on: {table: silent, ops: [insert]}
    to: {query: "select email from staff where id = @new.id"}
    template: parts
    tests:
      - {name: a trigger swallows it, insert: {id: 1}, to: kim@example.com}
  - name: writes
    on: {table: log, ops: [insert, truncate]}
    to: {query: "select writes() as email"}
    template: parts
    tests:
      - {name: a query that writes, insert: {id: 1}, to: kim@example.com}
      - {name: a table is not emptied, truncate: {}, to: kim@example.com}
  - name: reset
    on: {message: reset}
    to: {query: "select email, name from staff where email = @message.email"}
    template: reset
    tests:
      - {name: a message, message: {email: lee@example.com}, to: lee@example.com, body: 이서연}
      - {name: a message to nobody, message: {email: x}, match: true, mail: none}
`

var labTemplates = map[string]string{
	"templates/visit.html": `{{define "subject"}}{{.op}} {{.new.kind}} {{.count.n}} {{.count.note}} {{.new.id}}{{end}}{{define "body"}}<p>{{.to.name}}</p>{{end}}`,
	"templates/parts.html": `{{define "subject"}}x{{end}}{{define "body"}}<p>x</p>{{end}}`,
	"templates/reset.html": `{{define "subject"}}x{{end}}{{define "body"}}<p>{{.to.name}}</p>{{end}}`,
}

func labOf(t *testing.T) (daemon.Config, string) {
	t.Helper()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, labSchema...)
	files := map[string]string{"rules.yaml": labRules}
	maps.Copy(files, labTemplates)
	config, _ := folder(t, files)
	config.DatabaseURL = daemon.Secret(database)
	return config, database
}

// TestDatabase has changes made and taken back, and asks the queries of them.
func TestDatabase(t *testing.T) {
	t.Parallel()
	config, at := labOf(t)
	const contents = `select (select jsonb_agg(v) from visits v)::text || (select count(*) from parts) || (select count(*) from log) || (select count(*) from silent)`
	conn := pgtest.Connect(t, at)
	var before, after string
	if err := conn.QueryRow(t.Context(), contents).Scan(&before); err != nil {
		t.Fatal(err)
	}
	report, err := Test(t.Context(), config, TestOptions{Database: true})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // those that fail, and with what
		"no such staff":          `violates foreign key constraint`,
		"a null":                 `→ name the column kind in the test's row`,
		"taken":                  `→ a row with that value is there`,
		"a check":                `violates check constraint`,
		"other people":           "+ kim@example.com",
		"a trigger swallows it":  "the database made no row of it",
		"a query that writes":    "cannot execute INSERT in a read-only transaction",
		"a table is not emptied": "not truncated for a test",
	}
	failures := make(map[string]bool)
	for _, r := range report.Rules {
		for _, test := range r.Tests {
			if len(test.Failures) == 0 {
				continue
			}
			failures[test.Name] = true
			if f := test.Failures[0]; len(test.Failures) != 1 || want[test.Name] == "" || !strings.Contains(f.String(), want[test.Name]) {
				t.Errorf("%s: %s", test.Name, f.String())
			}
		}
	}
	if len(failures) != len(want) {
		t.Errorf("%v fail; want %v", failures, want)
	}
	if err := conn.QueryRow(t.Context(), contents).Scan(&after); err != nil || before != after {
		t.Errorf("the database was\n%s\nand is (%v)\n%s", before, err, after)
	}
}

// TestDatabaseRefuses has a role that may not write, and one that the database lets read only.
func TestDatabaseRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, want string }{
		"a role":    {`grant select on all tables in schema public to %s`, "and the role "},
		"read-only": {`grant all on all tables in schema public to %[1]s; alter role %[1]s set default_transaction_read_only = on`, "name a database that takes changes"},
	} {
		config, at := labOf(t)
		role := pgtest.Name(at) + "_reader"
		pgtest.Exec(t, at, "create role "+role+" login", strings.ReplaceAll(strings.ReplaceAll(c.sql, "%[1]s", role), "%s", role))
		config.DatabaseURL = daemon.Secret(as(t, at, role))
		report, err := Test(t.Context(), config, TestOptions{Database: true, Rules: []string{"visit"}})
		if err != nil {
			t.Fatal(err)
		}
		f := report.Rules[0].Tests[0].Failures
		if len(f) != 1 || !strings.Contains(f[0].String(), c.want) || !strings.Contains(f[0].String(), "DATABASE_URL") {
			t.Errorf("%s: %s", name, told(report))
		}
	}
}

// TestNotRun has no database to ask, and says so.
func TestNotRun(t *testing.T) {
	t.Parallel()
	config, _ := labOf(t)
	report, err := Test(t.Context(), config, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var run []string
	for _, r := range report.Rules {
		for _, test := range r.Tests {
			if test.NotRun == "" {
				run = append(run, test.Name)
			}
			if len(test.Failures) > 0 {
				t.Errorf("%s: %s", test.Name, test.Failures[0].String())
			}
		}
	}
	if diff := cmp.Diff([]string{"only the condition is asked", "given answers are kept to"}, run); diff != "" {
		t.Error(diff)
	}
}

// TestDatabaseGone loses the connection in the middle: that is no test's failure.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	config, at := labOf(t)
	pgtest.Exec(t, at, `create function leave() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$`,
		`create trigger leave before insert on visits for each row execute function leave()`)
	report, err := Test(t.Context(), config, TestOptions{Database: true, Rules: []string{"visit"}})
	if err == nil || daemon.Misconfigured(err) {
		t.Errorf("%v, %v", report, err)
	}
}

// as is a database's URL for another role.
func as(t *testing.T, database, role string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}
