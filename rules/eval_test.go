package rules

import (
	"strings"
	"testing"
	"time"

	"postman/cdc"
	"postman/value"
)

// row is a row of a test, by column: its text as Postgres prints it, nil for NULL, or unsent.
type row map[string]any

// unsent is a value that the stream does not carry.
var unsent = struct{}{}

// tuple is the row as the stream sends it. Columns that are left out are NULL; a nil row is no tuple at all.
func (r row) tuple(t *cdc.Table) cdc.Tuple {
	if r == nil {
		return nil
	}
	datums := make([]value.Datum, len(t.Columns))
	for i, c := range t.Columns {
		switch v := r[c.Name].(type) {
		case string:
			datums[i] = value.Of(v)
		case struct{}:
			datums[i].State = value.Unavailable
		}
	}
	return cdc.MakeTuple(datums)
}

var (
	everyOp  = []cdc.Op{cdc.Insert, cdc.Update, cdc.Delete, cdc.Truncate}
	testTime = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	testTx   = cdc.Tx{XID: 77, Time: testTime}
)

// ask evaluates a condition on one change.
func ask(tb testing.TB, source string, e env, c *cdc.Change) Verdict {
	tb.Helper()
	t, problems := checkExpr(source, e)
	if len(problems) > 0 {
		tb.Fatalf("%s: %v", source, problems)
	}
	c.Table = e.table
	f := newFrame(e.table)
	f.begin(testTx, c)
	return f.try(t.root)
}

func TestNull(t *testing.T) {
	t.Parallel()
	seoul, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	change := cdc.Change{Op: cdc.Insert, New: row{
		"id": "7", "kind": "meeting", "status": "won", "price": "12.50", "rate": "0.1", "vacant": "t",
		"starts_at": "2026-03-04 15:30:00+00", "local_at": "2026-03-04 15:30:00", "day": "2026-03-04",
		"tags": `{a,NULL,"b c"}`, "numbers": "{1,2,3}", "data": `{"a": {"b": [1, 2.0, null]}, "t": true, "s": "x"}`,
		"ref": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "blob": `\x6869`, "ip": "10.0.0.1",
	}.tuple(schedules())}
	tests := map[string]bool{ // customer_id, created_by and note are NULL
		// NULL is a value for equality
		`new.note == nil`: true, `new.note != nil`: false, `new.note == "x"`: false, `new.note != "x"`: true, `new.status != nil`: true,
		// and false for order and text
		`new.customer_id > 5`: false, `new.customer_id <= 5`: false, `not (new.customer_id > 5)`: true, `new.note contains "x"`: false,
		`not (new.note contains "x")`: true, `new.note startsWith "x"`: false, `new.note endsWith ""`: false, `new.note matches "."`: false,
		`new.customer_id in [1, 2]`: false, `new.customer_id not in [1, 2]`: true, `new.customer_id in [1, nil]`: true, `new.customer_id in 1..5`: false,
		// other operators yield NULL
		`new.customer_id + 1 == nil`: true, `-new.customer_id == nil`: true, `lower(new.note) == nil`: true, `len(new.note) == nil`: true,
		`new.customer_id + 1 > 0`: false, `new.starts_at + duration("1h") == nil`: false,
		// NULL as a condition is false
		`new.vacant`: true, `not new.vacant`: false, `(new.note == nil ? nil : true) ?? true`: true,
		`new.data.nothing`: false, `not new.data.nothing`: true, `new.data.t`: true, `new.data.s`: false, `new.data.s and true`: false,
		// absent rows
		`old.status == nil`: true, `old.status != new.status`: true, `changed(new.status)`: true, `changed(new.note)`: false, `old.price < new.price`: false,
		// the rest of the language
		`op == "insert" and table == "schedules" and xid == 77`: true, `commit_time == date("2026-03-04T12:00:00Z")`: true,
		`new.kind in ["meeting", "call"]`: true, `new.kind not in ["call"]`: true, `new.id in 1..7`: true, `new.id in 8..9`: false,
		`1 < new.id < 10`: true, `1 < new.id < 7`: false, `new.id == 7.0`: true, `new.price == 12.5`: true, `new.price > 12.49999999999999999999999`: true,
		`new.rate == 0.1`: true, `new.rate * 3 == 0.3`: true, `new.price * 2 == 25`: true, `7 / 2 == 3.5`: true, `-7 % 2 == -1`: true,
		`new.id / 0 == nil`: true, `new.id % 0 == nil`: true, `new.id / 0 > 1`: false, `abs(-5) == 5`: true, `abs(new.price - 20) == 7.50`: true,
		`9223372036854775807 + 1 > 9223372036854775807`: true, `9223372036854775807 * 9223372036854775807 > 0`: true,
		`new.status + "!" == "won!"`: true, `upper(new.status) == "WON"`: true, `trim(" x ") == "x"`: true, `len("한글") == 2`: true,
		`new.status startsWith "w" && new.status endsWith "n" && new.status contains "o"`: true, `new.status matches "^w.n$"`: true,
		`"a" in new.tags`: true, `"c" in new.tags`: false, `nil in new.tags`: true, `any(new.tags, # == "b c")`: true, `all(new.tags, # != nil)`: false,
		`none(new.tags, # == "z")`: true, `one(new.numbers, # > 2)`: true, `count(new.numbers, # > 1) == 2`: true, `len(new.numbers) == 3`: true,
		`any(["a", "won"], # == new.status)`: true, `all(new.note == nil ? new.tags : new.tags, true)`: true,
		`new.data.a.b[1] == 2`: true, `new.data["a"]["b"][5] == nil`: true, `new.data.a.b[2] == nil`: true, `new.data?.x?.y == nil`: true,
		`"a" in new.data`: true, `"z" in new.data`: false, `2 in new.data.a.b`: true, `any(new.data.a.b, # == 1)`: true, `new.data.s == "x"`: true,
		`new.data.s > 5`: false, `new.data.s + 1 == nil`: true, `len(new.data.a) == 1`: true, `new.data.s in ["x", 5]`: true,
		`new.starts_at > date("2026-03-04T15:29:59Z")`: true, `new.starts_at == date("2026-03-05T00:30+09:00")`: true,
		`new.local_at == date("2026-03-04 15:30")`: true, `new.day == date("2026-03-04")`: true, `new.day < new.local_at`: true,
		`new.day + duration("1d") == date("2026-03-05")`: true, `new.local_at - new.day == duration("15h30m")`: true,
		`new.local_at - new.day < duration("1d")`: true, `new.starts_at - commit_time == duration("3h30m")`: true,
		`commit_time - new.starts_at < duration("0h")`: true, `new.starts_at - duration("4h") < commit_time`: true,
		`new.ref == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`: true, `new.blob == b"hi"`: true, `new.ip startsWith "10."`: true,
		`(new.customer_id ?? 3) == 3`: true, `(new.id > 3 ? "a" : "b") == "a"`: true, `(new.note == nil ? 1 : 2.5) == 1`: true,
	}
	zoned := map[string]bool{
		`new.starts_at == date("2026-03-05T00:30")`: true, `new.starts_at > date("2026-03-05")`: true, `new.starts_at < new.local_at`: false,
		`new.starts_at - duration("1d") == date("2026-03-04T00:30")`: true, `new.starts_at in [date("2026-03-05 00:30"), nil]`: true,
	}
	for source, want := range tests {
		if got := ask(t, source, env{table: schedules(), ops: everyOp}, &change); got != (Verdict{Truth: truthOf(want)}) {
			t.Errorf("%s: %+v, want %v", source, got, want)
		}
	}
	for source, want := range zoned {
		if got := ask(t, source, env{table: schedules(), ops: everyOp, zone: seoul}, &change); got != (Verdict{Truth: truthOf(want)}) {
			t.Errorf("%s in Seoul: %+v, want %v", source, got, want)
		}
	}
}

// TestExtremes has values that have no like in Go: each is compared as Postgres does, and nothing fails.
func TestExtremes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		row    row
		source string
		want   bool
	}{
		{"NaN is above all", row{"price": "NaN", "rate": "NaN"}, `new.price > 1.0 and new.rate > 1 and new.price == new.rate`, true},
		{"NaN in arithmetic", row{"price": "NaN"}, `new.price + 1 == new.price and new.price * 0 > 5`, true},
		{"infinite number", row{"price": "Infinity", "rate": "-Infinity"}, `new.price > 1 and new.rate < 1 and new.price + 1 == new.price`, true},
		{"infinity less infinity", row{"price": "Infinity"}, `new.price - new.price > 1`, true}, // NaN
		{"infinite moment", row{"starts_at": "infinity", "day": "-infinity"}, `new.starts_at > commit_time and new.day < date("0001-01-01")`, true},
		{"infinite shifted", row{"starts_at": "infinity"}, `new.starts_at + duration("1h") == new.starts_at`, true},
		{"infinite distance", row{"starts_at": "infinity"}, `new.starts_at - commit_time == nil`, true},
		{"more digits than a float has", row{"price": "12345678901234567890.123456789"}, `new.price == 12345678901234567890.123456789 and new.price != 12345678901234567890.123456788`, true},
		{"2^53+1", row{"id": "9007199254740993"}, `new.id == 9007199254740993.0 and new.id != 9007199254740992.0`, true},
		{"too many digits", row{"price": strings.Repeat("9", 2000)}, `new.price * new.price == nil and new.price + 1 == nil and new.price > 1`, true},
		{"too many digits behind the point", row{"price": "0." + strings.Repeat("3", 600)}, `new.price * new.price == nil and new.price + new.price > new.price`, true},
		{"text that would be too long", row{"note": strings.Repeat("x", 700_000)}, `new.note + new.note == nil and len(new.note + "x") == 700001 and "x" + new.note + new.note == nil`, true},
		{"NULL among moments", row{"starts_at": "2026-03-04 15:30:00+00"}, `new.starts_at - old.starts_at < duration("1h") or new.starts_at + duration("1h") == old.starts_at + duration("1h")`, false},
		{"smallest", row{"id": "-9223372036854775808"}, `-new.id == 9223372036854775808.0 and abs(new.id) > 0 and new.id % -1 == 0`, true},
		{"BC", row{"day": "0044-03-15 BC"}, `new.day < date("0001-01-01")`, true},
		{"far future", row{"starts_at": "9999-12-31 23:59:59.999999+00"}, `new.starts_at - commit_time > duration("300000h")`, true},
		{"empty text is not NULL", row{"note": ""}, `new.note == "" and new.note != nil and len(new.note) == 0`, true},
		{"empty array", row{"tags": "{}"}, `all(new.tags, false) and none(new.tags, true) and not any(new.tags, true) and len(new.tags) == 0`, true},
		{"NULL array", row{}, `all(new.tags, false) and not any(new.tags, true) and count(new.tags, true) == 0 and "a" not in new.tags`, true},
		{"nested array", row{"numbers": "{{1,2},{3,4}}"}, `len(new.numbers) == 2 and not any(new.numbers, # > 0)`, true},
		{"JSON null", row{"data": "null"}, `new.data == nil and new.data.a == nil`, true},
		{"JSON true", row{"data": "true"}, `new.data and new.data == true`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := schedules()
			got := ask(t, tt.source, env{table: table, ops: everyOp}, &cdc.Change{Op: cdc.Insert, New: tt.row.tuple(table)})
			if got != (Verdict{Truth: truthOf(tt.want)}) {
				t.Errorf("%s: %+v, want %v", tt.source, got, tt.want)
			}
		})
	}
}

// TestCalendarDays holds that a day added to a moment is a day of the rule's zone, even when that has 23 hours.
func TestCalendarDays(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	table := schedules()
	c := &cdc.Change{Op: cdc.Insert, New: row{"starts_at": "2026-03-07 17:00:00+00"}.tuple(table)} // noon, the day before summer time
	for source, want := range map[string]bool{
		`new.starts_at + duration("1d") == date("2026-03-08T16:00Z")`:  true,
		`new.starts_at + duration("24h") == date("2026-03-08T17:00Z")`: true,
		`date("2026-03-08T16:00Z") - duration("1d") == new.starts_at`:  true,
	} {
		if got := ask(t, source, env{table: table, ops: everyOp, zone: zone}, c); got != (Verdict{Truth: truthOf(want)}) {
			t.Errorf("%s: %+v", source, got)
		}
	}
}

// TestUnavailable holds what a rule says when the stream does not carry a value: only what is true whatever the value
// is fires.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	toast := cdc.Change{Op: cdc.Update, New: row{"id": "1", "name": "a", "note": unsent}.tuple(customers())}
	const u = Undetermined
	tests := []struct {
		source string
		want   Truth
	}{
		{`new.note == "x"`, u},
		{`new.note != "x"`, u},
		{`new.note == nil`, u},
		{`new.note contains "x"`, u},
		{`not (new.note == "x")`, u},
		{`new.note == "x" and new.name == "b"`, False},
		{`new.name == "b" and new.note == "x"`, False},
		{`new.note == "x" or new.name == "a"`, True},
		{`new.name == "a" or new.note == "x"`, True},
		{`new.note == "x" and new.name == "a"`, u},
		{`new.note == "x" or new.name == "b"`, u},
		{`new.note == "x" and new.note == "y"`, u},
		{`(new.note ?? "x") == "x"`, u},
		{`new.note == "x" ? true : true`, True},
		{`new.note == "x" ? true : false`, u},
		{`(new.name == "a" ? "k" : new.note) == "k"`, True},
		{`new.note in ["a", "b"]`, u},
		{`new.name in [new.note, "a"]`, True},
		{`new.name in [new.note, "z"]`, u},
		{`len(new.note) > 5`, u},
		{`lower(new.note) == "x"`, u},
		{`any([new.note, "a"], # == "a")`, True},
		{`any([new.note, "b"], # == "a")`, u},
		{`all([new.note, "b"], # == "a")`, False},
		{`none([new.note, "a"], # == "a")`, False},
		{`none([new.note], # == "a")`, u},
		{`one(["a", "a", new.note], # == "a")`, False},
		{`one(["a", new.note], # == "a")`, u},
		{`count([new.note], # == "a") > 0`, u},
		{`changed(new.note)`, False},
		{`not changed(new.note)`, True},
		{`changed(new.name)`, u},
		{`old.note != new.note`, False}, // it was not sent because it did not change
		{`new.note == old.note`, True},
		{`old.name == new.name`, u},
		{`new.email < new.note`, False}, // of NULL, whatever the other is
		{`new.note contains new.email`, False},
		{`(new.note + new.email) == nil`, True},
		{`new.email == new.note`, u},
		{`old.name == "a"`, u},
		{`old.id == 1`, True},
		{`changed(new.id)`, False},
	}
	for _, tt := range tests {
		c := toast
		got := ask(t, tt.source, env{table: customers(), ops: everyOp}, &c)
		if got.Truth != tt.want || got.Err != nil || (got.Missing != "") != (tt.want == u) {
			t.Errorf("%s: %+v, want %v", tt.source, got, tt.want)
		}
	}
	c := toast
	if got := ask(t, `new.name == "a" and new.note == "x"`, env{table: customers(), ops: everyOp}, &c); got.Missing != "new.note" {
		t.Errorf("missing %q", got.Missing)
	}
}

// TestOldRow holds what is known of the old row under each replica identity.
func TestOldRow(t *testing.T) {
	t.Parallel()
	full, key, none := customers(), customers(), customers()
	full.Identity, none.Identity = cdc.IdentityFull, cdc.IdentityNothing
	byIndex := customers()
	byIndex.Identity, byIndex.Columns[1].Key = cdc.IdentityIndex, true // id and email
	now := row{"id": "1", "email": "b@x", "name": "n", "note": unsent}
	tests := []struct {
		name   string
		table  *cdc.Table
		change cdc.Change
		source string
		want   Truth
	}{
		{
			"full, old row", full,
			cdc.Change{Op: cdc.Update, New: now.tuple(full), Old: row{"id": "1", "email": "a@x", "name": "n", "note": "long"}.tuple(full)},
			`changed(new.email) and not changed(new.name) and not changed(new.note) and new.note == "long" and old.note == "long" and old.email == "a@x"`, True,
		},
		{
			"full, deleted", full,
			cdc.Change{Op: cdc.Delete, Old: row{"id": "1", "email": "a@x"}.tuple(full)},
			`new.email == nil and old.email == "a@x" and changed(new.email) and old.name == nil and not changed(new.name)`, True,
		},
		{"key, nothing of it changed", key, cdc.Change{Op: cdc.Update, New: now.tuple(key)}, `old.id == 1 and not changed(new.id)`, True},
		{"key changed", key, cdc.Change{Op: cdc.Update, New: now.tuple(key), Old: row{"id": "2"}.tuple(key), OldKey: true}, `old.id == 2 and changed(new.id)`, True},
		{"key row says nothing of others", key, cdc.Change{Op: cdc.Update, New: now.tuple(key), Old: row{"id": "2"}.tuple(key), OldKey: true}, `old.email == nil`, Undetermined},
		{"key, deleted", key, cdc.Change{Op: cdc.Delete, Old: row{"id": "2"}.tuple(key), OldKey: true}, `old.id == 2 and new.id == nil`, True},
		{"key, deleted, others", key, cdc.Change{Op: cdc.Delete, Old: row{"id": "2"}.tuple(key), OldKey: true}, `old.email != nil`, Undetermined},
		{"index, nothing of it changed", byIndex, cdc.Change{Op: cdc.Update, New: now.tuple(byIndex)}, `old.email == new.email and not changed(new.email)`, True},
		{
			"index changed", byIndex,
			cdc.Change{Op: cdc.Update, New: now.tuple(byIndex), Old: row{"id": "1", "email": "a@x"}.tuple(byIndex), OldKey: true},
			`old.email == "a@x" and changed(new.email) and not changed(new.id)`, True,
		},
		{"nothing", none, cdc.Change{Op: cdc.Update, New: now.tuple(none)}, `old.email == "a@x"`, Undetermined},
		{"truncated", full, cdc.Change{Op: cdc.Truncate}, `op == "truncate" and new.id == nil and old.id == nil and not changed(new.id)`, True},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.table == none {
				for i := range tt.table.Columns {
					tt.table.Columns[i].Key = false
				}
			}
			got := ask(t, tt.source, env{table: tt.table, ops: everyOp}, &tt.change)
			if got.Truth != tt.want || got.Err != nil {
				t.Errorf("%s: %+v, want %v", tt.source, got, tt.want)
			}
		})
	}
}

// TestBadValues holds that what cannot be read is an error of the rules whose verdict hangs on it, and of no other.
func TestBadValues(t *testing.T) {
	t.Parallel()
	bad := row{"id": "seven", "status": "won"}.tuple(schedules())
	short := cdc.MakeTuple([]value.Datum{value.Of("1")})
	tests := []struct {
		name   string
		tuple  cdc.Tuple
		source string
		want   Truth
		err    string
	}{
		{"not read", bad, `new.status == "won"`, True, ""},
		{"decides nothing", bad, `new.status == "lost" and new.id == 7`, False, ""},
		{"decides", bad, `new.id == 7`, Undetermined, `column new.id: a value of 5 bytes is no int8`},
		{"short row", short, `new.id == 7`, Undetermined, "a row of 1 columns in a table of 18"},
		{"malformed row", cdc.Tuple{0}, `new.id == 7`, Undetermined, "malformed tuple"},
		{"no row", nil, `new.id == 7`, Undetermined, "a row of 0 columns"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, tt.source, env{table: schedules(), ops: everyOp}, &cdc.Change{Op: cdc.Insert, New: tt.tuple})
			if got.Truth != tt.want || (got.Err != nil) != (tt.err != "") || got.Err != nil && !strings.Contains(got.Err.Error(), tt.err) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestPanic holds that a defect costs a verdict and not the stream.
func TestPanic(t *testing.T) {
	t.Parallel()
	for name, got := range map[string]Verdict{
		"the tree":  new(frame).try(&column{}),
		"the parts": new(frame).judge(&tried{parts: all{nil}}),
	} {
		if got.Err == nil || got.Truth != Undetermined {
			t.Errorf("%s: %+v", name, got)
		}
	}
	told := 0
	p := &Plan{OnMismatch: func(_ *Rule, err error) {
		if told++; err == nil {
			t.Error("it is told of no error")
		}
	}}
	if _, err := p.find(&opRules{}); err == nil || told != 1 {
		t.Errorf("without an index: %v, told %d times", err, told)
	}
}
