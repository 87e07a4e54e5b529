package crm_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/examples/crm"
	"postman/internal/pgcluster/pgtest"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

var update = flag.Bool("update", false, "write testdata/ anew")

func TestMain(m *testing.M) { os.Exit(pgtest.Shared(m).Run()) }

// world is the example's database, with the repository's rules compiled against it and the mails that they send.
type world struct {
	conn    *pgx.Conn
	catalog *cdc.Catalog
	rules   map[string]*rules.Rule
	set     *rules.Set
	mails   *templates.Set
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, crm.Schema, crm.Data)
	w := &world{conn: pgtest.Connect(t, url), rules: make(map[string]*rules.Rule)}
	source, err := rules.Read("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tables []cdc.TableName
	for _, n := range source.Needs() {
		tables = append(tables, n.Table)
	}
	if w.catalog, err = cdc.LoadCatalog(t.Context(), w.conn, tables); err != nil {
		t.Fatal(err)
	}
	if w.set, err = rules.Compile(source, w.catalog); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.set.Rules {
		w.rules[r.Name] = r
	}
	if w.mails, err = templates.Load(os.DirFS("../../templates")); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestData(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, crm.Schema, crm.Data)
	conn := pgtest.Connect(t, url)
	for query, want := range map[string]int{
		`select count(*) from teams`:     3,
		`select count(*) from staff`:     12,
		`select count(*) from customers`: 40,
		`select count(*) from listings`:  60,
		`select count(*) from schedules`: 15,
		// What the rules live on.
		`select count(*) from (select from assignments group by customer_id having count(*) = 2) s`:            21,
		`select count(*) from customers c where not exists (select from assignments where customer_id = c.id)`: 0,
		`select count(*) from customers where grade = 'vip'`:                                                   5,
		`select count(*) from customers where email is null`:                                                   1,
		`select count(*) from customers where locale = 'en'`:                                                   2,
		// What would look odd.
		`select count(*) from listings l join teams t on t.id = l.team_id where position(l.region in t.region) = 0`:                                 0,
		`select count(*) from listings where (deal = 'monthly') <> (rent is not null)`:                                                              0,
		`select count(*) from schedules s where not exists (select from assignments where customer_id = s.customer_id and staff_id = s.created_by)`: 0,
		`select count(*) from listings where deal = 'sale' and price not between 100000000 and 5000000000`:                                          0,
	} {
		var got int
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", query, got, err, want)
		}
	}
	for _, table := range []string{"customers", "listings", "schedules"} { // the next row gets the next number
		var id int
		if err := conn.QueryRow(t.Context(), fmt.Sprintf(`select nextval(pg_get_serial_sequence('%s', 'id')) - (select max(id) from %[1]s)`, table)).Scan(&id); err != nil || id != 1 {
			t.Errorf("%s: the next id is %d away, %v", table, id, err)
		}
	}
}

// TestSchemaFile compares schema.json, with which `postman test` and `postman check` do without a database, with the schema.
func TestSchemaFile(t *testing.T) {
	t.Parallel()
	catalog, err := cdc.LoadSchema(t.Context(), newWorld(t).conn)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", catalog.Schema(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(catalog.Schema())); diff != "" {
		t.Errorf("schema.json (-) and the database (+), go test -update writes it anew:\n%s", diff)
	}
}

// Every template of the rules is there and reads nothing that the rule does not give it, in any branch, filled or NULL.
func TestTemplatesFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range w.set.Rules {
		var samples []templates.Data
		for _, null := range []bool{false, true} {
			samples = append(samples, w.sample(t, r, null))
		}
		if err := w.mails.Check(r.Template, samples...); err != nil {
			t.Errorf("rule %s:\n%v", r.Name, err)
		}
	}
	for _, name := range w.mails.Names() {
		if !slices.ContainsFunc(w.set.Rules, func(r *rules.Rule) bool { return r.Template == name }) {
			t.Errorf("no rule sends %s", name)
		}
	}
}

func (w *world) sample(t *testing.T, r *rules.Rule, null bool) templates.Data {
	t.Helper()
	d := templates.Data{
		"rule": r.Name, "about": r.About, "op": "update", "table": r.On.Table.String(), "commit_time": time.Now(),
		"to": map[string]any{"email": "a@x.example", "name": nil, "locale": nil, "timezone": nil},
	}
	if r.On.Message != "" {
		d["message"] = templates.Unknown{}
		return d
	}
	var columns, old []value.Column
	for _, c := range w.catalog.Tables[r.On.Table].Columns {
		columns = append(columns, c.Column)
		if slices.Contains(r.On.Ops, cdc.Insert) || c.Key {
			old = append(old, c.Column) // of an update, what the replica identity has
		}
	}
	d["new"], d["old"] = templates.Sample(columns, null), templates.Sample(old, null)
	nobody := map[string]value.Row{"new": rowOf(columns), "old": rowOf(columns)}
	for _, l := range r.Load {
		columns, _ := w.query(t, l.SQL, nobody)
		if d[l.Name] = templates.Sample(columns, null); l.All {
			d[l.Name] = []map[string]any{templates.Sample(columns, null)}
		}
	}
	return d
}

func rowOf(columns []value.Column) value.Row {
	row := make(value.Row, len(columns))
	for i, c := range columns {
		row[i].Column = c
	}
	return row
}

// TestMails has each rule's event happen, and compares the mails that come of it with testdata/.
func TestMails(t *testing.T) {
	t.Parallel()
	for rule, c := range map[string]struct {
		change string // made in the database
		table  string
		where  string // the row that changes
	}{
		"schedule-co-assigned": {
			`insert into schedules (id, kind, customer_id, created_by, starts_at, ends_at, place)
			 values (100, 'meeting', 38, 5, '2026-03-04 15:30+09', '2026-03-04 16:30+09', '강남점 상담실'),
			        (101, 'meeting', 7, 2, '2026-03-05 11:00+09', '2026-03-05 12:00+09', null)`, "schedules", "id in (100, 101)",
		},
		"schedule-moved": {
			`update schedules set starts_at = '2026-03-06 10:00+09', ends_at = '2026-03-06 11:00+09', updated_by = case id when 1 then created_by end
			 where id in (1, 8)`, "schedules", "id in (1, 8)",
		},
		"schedule-cancelled": {
			`update schedules set status = 'cancelled', note = '고객 사정' where id = 8`, "schedules", "id = 8",
		},
		"booking-confirmed": {
			`insert into schedules (id, kind, customer_id, listing_id, created_by, starts_at, ends_at, place)
			 values (100, 'viewing', 1, 1, 2, '2026-03-04 15:30+09', '2026-03-04 16:10+09', '현장'),
			        (101, 'meeting', 38, null, 8, '2026-03-05 11:00+09', '2026-03-05 12:00+09', null)`, "schedules", "id in (100, 101)",
		},
		"team-listing-price-cut": {
			`update listings set price = price - 70000000 where id in (2, 3)`, "listings", "id in (2, 3)",
		},
		"vip-customer-assigned": {
			`update customers set last_login_at = '2026-02-27 12:00+09' where id in (7, 38);
			 insert into assignments values (7, 3, '2026-03-04', '지인 소개'), (38, 7, '2026-03-04', null), (1, 1, '2026-03-04', null)`,
			"assignments", "(customer_id, staff_id) in ((7, 3), (38, 7), (1, 1))",
		},
		"password-reset": {
			`create table sent as select 1 as id, jsonb_build_object('email', email, 'name', name, 'token', '4f0c4f0c') as message from customers where id = 1`, "sent", "true",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.rules[rule]
			var before []value.Row
			if c.table != "sent" {
				before = w.rows(t, c.table, c.where)
			}
			if _, err := w.conn.Exec(t.Context(), c.change); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for i, after := range w.rows(t, c.table, c.where) {
				f := &rules.Facts{New: after, Old: rowOf(columnsOf(after)), CommitTime: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
				if i < len(before) {
					f.Old = before[i]
				}
				if r.On.Message != "" {
					f.Message, f.New, f.Old = decode(t, after)["message"], nil, nil
				}
				for _, to := range w.recipients(t, r, f) {
					w.write(t, &b, r, f, to)
				}
			}
			golden(t, rule, b.String())
		})
	}
}

// recipients are the rows of the rule's recipients.
func (w *world) recipients(t *testing.T, r *rules.Rule, f *rules.Facts) (all []map[string]any) {
	t.Helper()
	for _, to := range r.To {
		if to.Expr != nil {
			email, err := to.Expr.Value(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, map[string]any{"email": email, "name": nil, "locale": nil, "timezone": nil})
			continue
		}
		_, rows := w.query(t, to.Query, map[string]value.Row{"new": f.New, "old": f.Old})
		for _, row := range rows {
			all = append(all, decode(t, row))
		}
	}
	return all
}

// write renders one mail, in words.
func (w *world) write(t *testing.T, b *strings.Builder, r *rules.Rule, f *rules.Facts, to map[string]any) {
	t.Helper()
	d := templates.Data{"rule": r.Name, "about": r.About, "message": f.Message, "commit_time": f.CommitTime, "to": to}
	d["new"], d["old"] = decode(t, f.New), decode(t, f.Old)
	for _, l := range r.Load {
		columns, rows := w.query(t, l.SQL, map[string]value.Row{"new": f.New, "old": f.Old})
		list := []map[string]any{}
		for _, row := range rows {
			list = append(list, decode(t, row))
		}
		switch {
		case l.All:
			d[l.Name] = list
		case len(list) == 0:
			d[l.Name] = decode(t, rowOf(columns))
		default:
			d[l.Name] = list[0]
		}
	}
	zone, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	locale, _ := to["locale"].(string)
	m, err := w.mails.Render(r.Template, templates.Context{Locale: locale, Zone: zone}, d)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(m.HTML, "<!doctype html>") || strings.Contains(m.HTML, "ZgotmplZ") || strings.Contains(m.HTML, "<nil>") {
		t.Errorf("the HTML is %s", m.HTML)
	}
	for part, text := range map[string]string{"HTML": m.HTML, "text": m.Text} {
		if n := strings.Count(text, "이 메일을 받으신 이유: ") + strings.Count(text, "Why you received this: "); n != 1 {
			t.Errorf("the %s of %s tells %d times why it came:\n%s", part, r.Name, n, text)
		}
	}
	fmt.Fprintf(b, "To: %v\nSubject: %s\n\n%s\n%s%s\n", to["email"], m.Subject, m.Text, strings.ReplaceAll(m.ICS, "\r\n", "\n"), strings.Repeat("=", 80))
}

// rows are the rows of a table, in the text form in which the stream has them.
func (w *world) rows(t *testing.T, table, where string) []value.Row {
	t.Helper()
	_, rows := w.ask(t, fmt.Sprintf("select * from %s where %s order by 1, 2", table, where), nil)
	if table == "sent" {
		return rows
	}
	for _, row := range rows { // as the catalog types them: a result's domain is its base type
		for i, c := range w.catalog.Tables[cdc.TableName{Schema: "public", Name: table}].Columns {
			row[i].Column = c.Column
		}
	}
	return rows
}

func columnsOf(row value.Row) []value.Column {
	columns := make([]value.Column, len(row))
	for i, f := range row {
		columns[i] = f.Column
	}
	return columns
}

// query asks with parameters out of the change's rows, typed as their columns are.
func (w *world) query(t *testing.T, q *rules.SQL, change map[string]value.Row) ([]value.Column, []value.Row) {
	t.Helper()
	params := make(value.Row, len(q.Params))
	for i, p := range q.Params {
		f, ok := change[p.Scope].Field(p.Name)
		if !ok {
			t.Fatalf("%s: there is no @%s.%s", q.Place(), p.Scope, p.Name)
		}
		params[i] = f
	}
	return w.ask(t, q.Text, params)
}

func (w *world) ask(t *testing.T, sql string, params value.Row) (columns []value.Column, rows []value.Row) {
	t.Helper()
	values, oids := make([][]byte, len(params)), make([]uint32, len(params))
	for i, p := range params {
		if oids[i] = p.Type.OID; p.State == value.Present {
			values[i] = p.Text
		}
	}
	result := w.conn.PgConn().ExecParams(t.Context(), sql, values, oids, nil, nil)
	for _, f := range result.FieldDescriptions() {
		columns = append(columns, value.Column{Name: f.Name, Type: value.Type{OID: f.DataTypeOID, Base: f.DataTypeOID}})
	}
	for result.NextRow() {
		row := rowOf(columns)
		for i, text := range result.Values() {
			if text != nil {
				row[i].Datum = value.Datum{State: value.Present, Text: bytes.Clone(text)}
			}
		}
		rows = append(rows, row)
	}
	if _, err := result.Close(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return columns, rows
}

func decode(t *testing.T, row value.Row) map[string]any {
	t.Helper()
	m := make(map[string]any, len(row))
	for _, f := range row {
		v, err := value.Decode(f.Type.Base, f.Datum)
		if err != nil {
			t.Fatal(err)
		}
		m[f.Name] = v
	}
	return m
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("mails (-want +got), go test -update writes them anew:\n%s", diff)
	}
}

// A customer who asks for a new password gets a row and a message, in one transaction or not at all.
func TestRequestPasswordReset(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.WithoutCancel(t.Context())
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	var tokens, distinct int
	if _, err := tx.Exec(ctx, `select request_password_reset(1), request_password_reset(2)`); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(ctx, `select count(*), count(distinct token) from password_resets where length(token) = 64 and expires_at = created_at + interval '15 minutes'`).Scan(&tokens, &distinct); err != nil || tokens != 2 || distinct != 2 {
		t.Errorf("%d tokens, %d distinct, %v", tokens, distinct, err)
	}
}
