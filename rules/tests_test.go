package rules

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/value"
)

const everyTest = `
rules:
  - name: a
    on: {table: schedules, ops: [insert, update, delete, truncate]}
    timezone: Asia/Seoul
    load:
      customer: select name from customers where id = @new.customer_id
      others[]: select name from customers
    to: [{query: select email from staff}, {address: office@example.com}]
    cc: {query: select email from staff}
    template: a
    tests:
      - name: 미팅
        at: 2026-03-04 15:30+09
        insert: {id: 1, note: "1", kind: ~}
        match: true
        given:
          to: [{email: kim@example.com, n: 3}, {email: null}]
          cc: []
          load: {customer: {name: 김}, others: [{name: a}, {name: b}]}
        to: kim@example.com
        cc: []
        subject: 미팅
        body: [a, b]
        not_body: c
        locale: ko
        mails:
          - {to: Kim@example.com, body: [a, d], locale: en}
      - steps:
          - {at: 2026-01-31T09:00, truncate: {}, match: true}
          - {after: 1d2h, delete: {id: 2}, match: false}
          - {after: 15m, mail: none}
      - {insert: {}, match: true, given: {load: {customer: null}}}
  - name: b
    on: {message: b}
    to: message.email
    template: b
    tests:
      - message: {email: a@example.com, n: 1.50, yes: true, none: null, text: "1", zero: 007, list: [1, a, {b: false}], date: 2026-01-31}
        subject: x
`

// TestReadTests holds what each key of a test comes to.
func TestReadTests(t *testing.T) {
	t.Parallel()
	source := parse(t, everyTest)
	cell := func(name string, text *string, plain bool) Cell { return Cell{Name: name, Text: text, Plain: plain} }
	said := func(text string) []Said { return []Said{{Text: text}} }
	want := []Test{
		{Name: "미팅", Steps: []TestStep{{
			At: time.Date(2026, 3, 4, 6, 30, 0, 0, time.UTC), Op: "insert", Match: new(true),
			New: []Cell{cell("id", new("1"), true), cell("note", new("1"), false), cell("kind", nil, true)},
			Given: &Given{
				To: [][]Cell{{cell("email", new("kim@example.com"), true), cell("n", new("3"), true)}, {cell("email", nil, true)}},
				CC: [][]Cell{},
				Load: map[string][][]Cell{
					"customer": {{cell("name", new("김"), true)}},
					"others":   {{cell("name", new("a"), true)}, {cell("name", new("b"), true)}},
				},
			},
			Expect: Expect{
				To: said("kim@example.com"), CC: []Said{},
				Content: Content{Subject: said("미팅"), Body: []Said{{Text: "a"}, {Text: "b"}}, NotBody: said("c"), Locale: &Said{Text: "ko"}},
				Mails:   []MailExpect{{said("Kim@example.com")[0], Content{Body: []Said{{Text: "a"}, {Text: "d"}}, Locale: &Said{Text: "en"}}}},
			},
		}}},
		{Steps: []TestStep{
			{At: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), Op: "truncate", Match: new(true)},
			{After: Duration{Days: 1, Time: 2 * time.Hour}, Op: "delete", Old: []Cell{cell("id", new("2"), true)}, Match: new(false)},
			{After: Duration{Time: 15 * time.Minute}, Expect: Expect{None: true}},
		}},
		{Steps: []TestStep{{Op: "insert", New: []Cell{}, Match: new(true), Given: &Given{Load: map[string][][]Cell{"customer": {}}}}}},
	}
	if diff := cmp.Diff(want, source.Rules[0].Tests, withoutPlaces); diff != "" {
		t.Error(diff)
	}
	step := source.Rules[1].Tests[0].Steps[0]
	content := `{"date":"2026-01-31","email":"a@example.com","list":[1,"a",{"b":false}],"n":1.50,"none":null,"text":"1","yes":true,"zero":"007"}`
	if string(step.Message) != content {
		t.Errorf("%s", step.Message)
	}
	if e := source.Rules[0].Tests[0].Steps[0].Expect; !e.Mail() || e.Place.Line != 21 || e.To[0].Place.Column != 13 {
		t.Errorf("%+v", e)
	}
	if set := compile(t, everyTest); set.CheckTests() != nil {
		t.Error(set.CheckTests())
	}
}

// TestTestsBreakNoRule has a test of what the table does not have: the rule decides all the same.
func TestTestsBreakNoRule(t *testing.T) {
	t.Parallel()
	set := compile(t, `
rules:
  - name: a
    on: {table: schedules, ops: [insert]}
    to: {address: a@example.com}
    template: a
    tests:
      - {insert: {nothing: 1}, match: true}
`)
	if plan, err := set.Bind(schedules()); plan == nil || err != nil {
		t.Error(err)
	}
	if errs := set.CheckTests(); len(errs) != 1 || errs[0].ID != "PM105" {
		t.Error(errs)
	}
}

// TestLiterals reads values as Postgres does, and prints them as it sends them.
func TestLiterals(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	pgtest.Exec(t, conn.Config().ConnString(), "create type kinds as enum ('meeting', 'a b')")
	seoul, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		oid   uint32
		texts []string
		not   []string // which Postgres reads and we do not: there is a plainer way to write it
	}{
		"smallint":                    {oid: pgtype.Int2OID, texts: []string{"1", " -7 ", "+5", "007", "32767", "32768", "1.5", "x", ""}},
		"integer":                     {oid: pgtype.Int4OID, texts: []string{"2147483647", "-2147483648", "2147483648"}},
		"bigint":                      {oid: pgtype.Int8OID, texts: []string{"9223372036854775807", "9223372036854775808", "1e3"}},
		"oid":                         {oid: pgtype.OIDOID, texts: []string{"4294967295", "4294967296"}},
		"boolean":                     {oid: pgtype.BoolOID, texts: []string{"true", "TRUE", "t", "yes", "on", "1", "false", "f", "no", "off", "0", " true ", "maybe", ""}},
		"numeric":                     {oid: pgtype.NumericOID, texts: []string{"1.50", "-0.5", " 7 ", "NaN", "1,000", "x"}},
		"float8":                      {oid: pgtype.Float8OID, texts: []string{"0.1", "-1.5", "NaN", "Infinity", "x"}},
		"timestamptz":                 {oid: pgtype.TimestamptzOID, texts: []string{"2026-03-04 15:30+09", "2026-03-04T15:30:01.5Z", "2026-03-04 15:30", "2026-03-04", "infinity", "2026-03-32", "x"}, not: []string{"now", "March 4, 2026"}},
		"timestamp":                   {oid: pgtype.TimestampOID, texts: []string{"2026-03-04 15:30", "2026-03-04T15:30:01.25", "2026-03-04", "-infinity", "x"}, not: []string{"2026-03-04 15:30+09"}},
		"date":                        {oid: pgtype.DateOID, texts: []string{"2026-03-04", "infinity", "2026-02-30"}, not: []string{"2026-03-04 15:30", "tomorrow"}},
		"uuid":                        {oid: pgtype.UUIDOID, texts: []string{"6BA7B810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"}, not: []string{"{6ba7b8109dad11d180b400c04fd430c8}"}},
		"text":                        {oid: pgtype.TextOID, texts: []string{"", " 김 ", "null"}},
		"bytea":                       {oid: pgtype.ByteaOID, texts: []string{`\x00ff`, `\x0`}, not: []string{"abc"}},
		"text[]":                      {oid: pgtype.TextArrayOID, texts: []string{`{a,"b c",NULL}`, "{}", "a"}},
		"integer[]":                   {oid: pgtype.Int4ArrayOID, texts: []string{"{1,2}", "{1,x}", "{1"}},
		"json":                        {oid: pgtype.JSONOID, texts: []string{`{"a": [1, null]}`, "1", "{a: 1}", "x"}},
		"kinds":                       {oid: pgtype.TextOID, texts: []string{"meeting", "a b", "call", " meeting"}},
		"timestamp without time zone": {oid: pgtype.TimestampOID, texts: []string{"2026-03-04 15:30:00"}},
	} {
		column := &cdc.Column{Column: col("x", c.oid).Column}
		if column.Type.Name = name; name == "kinds" {
			column.Enum = []string{"meeting", "a b"}
		}
		for _, text := range append(c.texts, c.not...) {
			got, hint := readLiteral(column, text, seoul)
			results, err := conn.PgConn().Exec(t.Context(), fmt.Sprintf(`begin; set local timezone to 'Asia/Seoul'; create temp table v on commit drop as select '%s'::%s as x;
				set local timezone to 'UTC'; select x from v; commit`, text, name)).ReadAll()
			switch refused := err != nil; {
			case refused:
				if hint == "" {
					t.Errorf("%s: Postgres refuses %q, and it is read as %q", name, text, got)
				}
				if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
					t.Fatal(err)
				}
			case slices.Contains(c.not, text):
				if hint == "" {
					t.Errorf("%s: %q is read as %q", name, text, got)
				}
			default:
				want, err1 := value.Decode(c.oid, value.Of(string(results[4].Rows[0][0])))
				have, err2 := value.Decode(c.oid, value.Of(got))
				if hint != "" || err1 != nil || err2 != nil || !value.Equal(want, have) {
					t.Errorf("%s: %q is read as %q (%s %v %v); Postgres prints %q", name, text, got, hint, err1, err2, results[4].Rows[0][0])
				}
			}
		}
	}
}

// TestLeftOut names columns that a test leaves out, that are never NULL, and on which the verdict hangs.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	table := schedules()
	for _, name := range []string{"kind", "status", "starts_at"} {
		table.Columns[table.Column(name)].NotNull = true
	}
	c := catalog()
	c.Tables[table.TableName] = table
	for _, test := range []struct {
		when, step string
		want       []string
	}{
		{`new.kind == "meeting"`, "insert: {id: 1}", []string{"new.kind"}},
		{`new.kind == "meeting"`, "insert: {id: 1, kind: ~}", nil}, // on purpose
		{`new.kind == "meeting" and new.id == 2`, "insert: {id: 1}", nil},
		{`new.note == "x"`, "insert: {id: 1}", nil}, // which may be NULL
		{`new.status != old.status and old.kind == "call"`, "update: {old: {kind: call}, new: {kind: call}}", []string{"new.status", "old.status"}},
		{`old.status == "x"`, "delete: {id: 1}", []string{"old.status"}},
		{`old.status == "x"`, "insert: {id: 1}", nil},
	} {
		text := fmt.Sprintf("rules:\n- name: a\n  on: {table: schedules, ops: [insert, update, delete]}\n  when: |\n    %s\n  to: {address: a@b.example}\n  template: a\n"+
			"  tests:\n  - match: true\n    %s\n", test.when, test.step)
		set, err := Compile(parse(t, text), c)
		if err != nil {
			t.Fatal(err)
		}
		r := set.Rules[0]
		step := &r.Tests[0].Steps[0]
		change, errs := r.TestChange(step)
		if errs != nil {
			t.Fatal(errs)
		}
		facts, err := NewFacts(testTx, change)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, r.LeftOut(step, facts)); diff != "" {
			t.Errorf("%s of %s: %s", test.when, test.step, diff)
		}
	}
}

// TestCellField holds which type a given value has by how it is written.
func TestCellField(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		plain bool
		want  any
	}{
		{"김하늘", true, "김하늘"},
		{"010-0000-1271", true, "010-0000-1271"},
		{"007", true, "007"},
		{"7", true, int64(7)},
		{"7", false, "7"},
		{"true", true, true},
		{"true", false, "true"},
		{"2026-03-04", true, value.Date{Time: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)}},
		{"2026-03-04 15:30", true, value.LocalTime{Time: time.Date(2026, 3, 4, 15, 30, 0, 0, time.UTC)}},
		{"2026-03-04 15:30+09", true, time.Date(2026, 3, 4, 6, 30, 0, 0, time.UTC)},
		{"2026-03-04 15:30+09", false, "2026-03-04 15:30+09"},
		{"12345678901234567890.50", true, "a decimal"},
	} {
		f := (&Cell{Name: "x", Text: new(c.text), Plain: c.plain}).Field()
		got, err := value.Decode(f.Type.Base, f.Datum)
		if d, ok := got.(*value.Decimal); ok && d.String() == c.text {
			got = "a decimal"
		}
		if err != nil || !value.Equal(got, c.want) {
			t.Errorf("%s (plain %v) is %#v, %v; want %#v", c.text, c.plain, got, err, c.want)
		}
	}
	if f := (&Cell{Name: "x", Plain: true}).Field(); f.State != value.Null || f.Type.Base != pgtype.TextOID {
		t.Errorf("null is %+v", f)
	}
}
