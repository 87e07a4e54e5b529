package rules

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"postman/cdc"
	"postman/value"
)

// threaded is a sound rule with a thread.
func threaded(t testing.TB, on, thread string) *Rule {
	t.Helper()
	return compile(t, "rules:\n  - {name: x, on: "+on+", to: {address: a@example.com}, template: x, thread: "+thread+"}\n").Rules[0]
}

const allOps = "{table: schedules, ops: [insert, update, delete]}"

// rowFacts are the facts of a change of schedules.
func rowFacts(t fataler, op cdc.Op, now, then row) *Facts {
	t.Helper()
	table := schedules()
	c := &cdc.Change{Op: op, Table: table}
	if now != nil {
		c.New = now.tuple(table)
	}
	if then != nil {
		c.Old = then.tuple(table)
	}
	f, err := NewFacts(cdc.Tx{Time: time.Now()}, c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func standing(t fataler, r *Rule, f *Facts) *Standing {
	t.Helper()
	s, err := r.Standing(f)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// columnTexts are values of columns of most types, as Postgres prints them; empty: NULL.
var columnTexts = map[string][]string{
	"id": {"1", "2"}, "kind": {"meeting", "call", ""}, "note": {"", "a", "b", "a,b", "a\x00b", "1", "NULL", "\x01a", "s\x01a"}, "price": {"", "1", "1.00", "2"},
	"rate": {"", "1", "NaN", "-0", "0"}, "vacant": {"", "t", "f"}, "starts_at": {"", "2026-03-04 06:30:00+00", "2026-03-04 15:30:00+09", "infinity"},
	"local_at": {"", "2026-03-04 00:00:00", "infinity"}, "day": {"", "2026-03-04", "infinity"}, "ref": {"", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
	"blob": {"", `\x61`, `\x00`}, "status": {"", "a", "b", "1"},
}

// TestStandingProperty: two changes stand in one thread if and only if all columns that the thread names have equal values.
func TestStandingProperty(t *testing.T) {
	t.Parallel()
	var names []string
	for name := range columnTexts {
		names = append(names, name)
	}
	slices.Sort(names)
	table := schedules()
	same := 0
	rapid.Check(t, func(t *rapid.T) {
		chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID).Draw(t, "columns")
		draw := func(side string) row {
			r := row{"id": "1"}
			for _, name := range names {
				if text := rapid.SampledFrom(columnTexts[name]).Draw(t, side+name); text != "" {
					r[name] = text
				}
			}
			return r
		}
		a, b := draw("a "), draw("b ")
		rule := func(side string, columns []string) *Rule {
			var list []string
			for _, c := range columns {
				list = append(list, side+"."+c)
			}
			return threaded(&quiet{T: t}, "{table: schedules, ops: ["+map[string]string{"new": "insert", "old": "delete"}[side]+"]}", "["+strings.Join(list, ", ")+"]")
		}
		equal := true
		for _, c := range chosen {
			base := table.Columns[table.Column(c)].Type.Base
			equal = equal && value.Equal(decoded(t, base, a, c), decoded(t, base, b, c))
		}
		if equal {
			same++
		}
		reversed := slices.Clone(chosen)
		slices.Reverse(reversed)
		x, y := standing(t, rule("new", chosen), rowFacts(t, cdc.Insert, a, nil)), standing(t, rule("old", reversed), rowFacts(t, cdc.Delete, nil, b))
		if bytes.Equal(x.Key, y.Key) != equal {
			t.Fatalf("%v of %v and %v: equal is %v\n%q\n%q", chosen, a, b, equal, x.Key, y.Key)
		}
	})
	if same == 0 {
		t.Error("no two rows were equal")
	}
}

func decoded(t *rapid.T, base uint32, r row, column string) any {
	d := value.Datum{}
	if text, ok := r[column].(string); ok {
		d = value.Of(text)
	}
	v, err := value.Decode(base, d)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// quiet is a rapid.T as a testing.TB.
type quiet struct {
	testing.TB
	T *rapid.T
}

func (q *quiet) Helper()           {}
func (q *quiet) Fatal(args ...any) { q.T.Fatal(args...) }

// TestStanding holds what is one thread and what is another.
func TestStanding(t *testing.T) {
	t.Parallel()
	now, then := row{"id": "5", "customer_id": "5", "note": "x"}, row{"id": "5", "customer_id": "6", "note": "y"}
	insert, update, removal := rowFacts(t, cdc.Insert, now, nil), rowFacts(t, cdc.Update, now, then), rowFacts(t, cdc.Delete, nil, then)
	pk := standing(t, threaded(t, allOps, "pk"), insert)
	for name, c := range map[string]struct {
		on, thread string
		facts      *Facts
		same       bool
		text       string
	}{
		"its update":              {allOps, "pk", update, true, "schedules, id 5"},
		"its deletion":            {allOps, "pk", removal, true, "schedules, id 5"},
		"by name":                 {allOps, `["new.id ?? old.id"]`, removal, true, "schedules, new.id ?? old.id 5"},
		"by the old name":         {"{table: schedules, ops: [delete]}", "[old.id]", removal, true, "schedules, old.id 5"},
		"another column":          {"{table: schedules, ops: [insert]}", `["new.customer_id ?? 0", op]`, insert, false, "schedules, new.customer_id ?? 0 5, op insert"},
		"that has the same value": {"{table: schedules, ops: [insert]}", "[new.customer_id]", insert, false, "schedules, new.customer_id 5"},
		"one more column":         {"{table: schedules, ops: [insert]}", "[new.id, new.note]", insert, false, "schedules, new.id 5, new.note x"},
		"a word before it":        {"{table: schedules, ops: [insert]}", `['"visit"', new.id]`, insert, false, `schedules, "visit" visit, new.id 5`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := standing(t, threaded(t, c.on, c.thread), c.facts)
			if bytes.Equal(s.Key, pk.Key) != c.same || s.Text != c.text {
				t.Errorf("%q: one thread is %v, want %v; want %q", s.Text, bytes.Equal(s.Key, pk.Key), c.same, c.text)
			}
		})
	}
	if s, err := compile(t, every).Rules[0].Standing(insert); s != nil || err != nil {
		t.Errorf("a rule without a thread: %v, %v", s, err)
	}
}

// TestStandingOfTables: equal keys of two tables, and of messages, are different threads.
func TestStandingOfTables(t *testing.T) {
	t.Parallel()
	facts := &Facts{Op: "insert", New: value.Row{{Column: value.Column{Name: "id", Type: value.Type{Base: pgtype.Int8OID}}, Datum: value.Of("5")}}}
	said := &Facts{Op: "message", Message: map[string]any{"id": must(value.ParseDecimal("5"))}}
	seen := make(map[string]string)
	for _, s := range []*Standing{
		standing(t, threaded(t, "{table: schedules, ops: [insert]}", "pk"), facts), standing(t, threaded(t, "{table: customers, ops: [insert]}", "pk"), facts),
		standing(t, threaded(t, "{message: schedules}", "[message.id]"), said), standing(t, threaded(t, "{message: other}", "[message.id]"), said),
		standing(t, threaded(t, "{message: other}", "[message.about]"), said),
	} {
		if other := seen[string(s.Key)]; other != "" {
			t.Errorf("%s and %s are one thread", other, s.Text)
		}
		seen[string(s.Key)] = s.Text
	}
	for _, want := range []string{"schedules, id 5", "customers, id 5", "message schedules, message.id 5", "message other, message.about NULL"} {
		if !slices.Contains(slices.Collect(maps.Values(seen)), want) {
			t.Errorf("nothing reads %q: %v", want, seen)
		}
	}
}

// TestStandingUnknown: what is not known is named, and nothing is made up in its place.
func TestStandingUnknown(t *testing.T) {
	t.Parallel()
	missing := &Facts{Op: "update", New: value.Row{
		{Column: value.Column{Name: "id", Type: value.Type{Base: pgtype.Int8OID}}, Datum: value.Datum{State: value.Blanked}},
		{Column: value.Column{Name: "note", Type: value.Type{Base: pgtype.TextOID}}, Datum: value.Datum{State: value.Unavailable}},
	}}
	update := "{table: schedules, ops: [update]}"
	unkeyed := *threaded(t, update, "pk")
	told := schedules()
	for i := range told.Columns {
		told.Columns[i].PK = false // as the stream tells it
	}
	revived, err := Revive(unkeyed.Source(), told)
	if err != nil {
		t.Fatalf("a stored rule by the primary key, which its table's shape does not tell: %v", err)
	}
	for name, c := range map[string]struct {
		rule *Rule
		want string
	}{
		"of a primary key": {&unkeyed, "id: the value is not available"},
		"of an expression": {threaded(t, update, "[new.note]"), "evaluating new.note: the value of new.note is not available"},
		"no such column":   {threaded(t, update, "[new.price]"), "evaluating new.price: the change has no column price"},
		"no key":           {revived, "the table's primary key is not known"},
	} {
		if s, err := c.rule.Standing(missing); err == nil || err.Error() != c.want || s != nil {
			t.Errorf("%s: %v, %v; want %s", name, s, err, c.want)
		}
	}
}

// TestThreadKeyed: a table without a primary key is refused by the catalog, which knows, and by no stream.
func TestThreadKeyed(t *testing.T) {
	t.Parallel()
	s := parse(t, "rules:\n  - {name: x, on: {table: shop.Visits, ops: [insert]}, to: {address: a@example.com}, template: x, thread: pk}\n")
	_, err := Compile(s, catalog())
	if errs, _ := errors.AsType[Errors](err); len(errs) != 1 || errs[0].ID != "PM021" {
		t.Errorf("%v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
