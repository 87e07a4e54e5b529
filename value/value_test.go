package value

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	dec := func(s string) *Decimal {
		d, err := ParseDecimal(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	day := time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		oid  uint32
		text string
		want any
	}{
		"bool":             {pgtype.BoolOID, "t", true},
		"int8":             {pgtype.Int8OID, "-9223372036854775808", int64(math.MinInt64)},
		"numeric scale":    {pgtype.NumericOID, "1.00", dec("1.00")},
		"numeric exact":    {pgtype.NumericOID, "123456789012345678901234567890.123456789", dec("123456789012345678901234567890.123456789")},
		"float8":           {pgtype.Float8OID, "-Infinity", math.Inf(-1)},
		"timestamptz":      {pgtype.TimestamptzOID, "2026-03-29 01:30:00.5+09", time.Date(2026, 3, 28, 16, 30, 0, 5e8, time.UTC)},
		"timestamptz end":  {pgtype.TimestamptzOID, "-infinity", Infinity(-1)},
		"timestamp":        {pgtype.TimestampOID, "2026-03-29 01:30:00", LocalTime{time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)}},
		"date":             {pgtype.DateOID, "2026-03-29", Date{day}},
		"date end":         {pgtype.DateOID, "infinity", Infinity(1)},
		"uuid":             {pgtype.UUIDOID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		"inet":             {pgtype.InetOID, "10.0.0.1", "10.0.0.1"},
		"char(n)":          {pgtype.BPCharOID, "ab   ", "ab"},
		"bytea":            {pgtype.ByteaOID, `\x00ff`, []byte{0, 255}},
		"jsonb":            {pgtype.JSONBOID, `{"a":[1.10,null,"x"]}`, map[string]any{"a": []any{dec("1.10"), nil, "x"}}},
		"text[]":           {pgtype.TextArrayOID, `{a,"b,c",NULL,"NULL"}`, []any{"a", "b,c", nil, "NULL"}},
		"int4[][]":         {pgtype.Int4ArrayOID, `{{1,2},{3,4}}`, []any{[]any{int64(1), int64(2)}, []any{int64(3), int64(4)}}},
		"numeric[]":        {pgtype.NumericArrayOID, `{1.50}`, []any{dec("1.50")}},
		"empty array":      {pgtype.TextArrayOID, `{}`, []any{}},
		"unknown is text":  {4711, "whatever", "whatever"},
		"interval is text": {pgtype.IntervalOID, "1 day", "1 day"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode(c.oid, Of(c.text))
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b *Decimal) bool { return a.String() == b.String() })
			if diff := cmp.Diff(c.want, got, same); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for oid, text := range map[uint32]string{
		pgtype.BoolOID: "yes", pgtype.Int4OID: "1x", pgtype.NumericOID: "1..2", pgtype.DateOID: "soon", pgtype.JSONBOID: `{} {}`, pgtype.Int4ArrayOID: "{1",
	} {
		if got, err := Decode(oid, Of(text)); err == nil {
			t.Errorf("%q as %s gave %v", text, TypeName(oid), got)
		}
	}
	if got, err := Decode(pgtype.TextOID, Datum{State: Unavailable}); err == nil {
		t.Errorf("an unavailable datum gave %v", got)
	}
	if got, err := Decode(pgtype.TextOID, Datum{}); got != nil || err != nil {
		t.Errorf("NULL gave %v, %v", got, err)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	big, _ := ParseDecimal("9007199254740993")
	one, _ := ParseDecimal("1.00")
	nan, _ := ParseDecimal("NaN")
	now := time.Now()
	for name, c := range map[string]struct {
		a, b  any
		want  int
		order bool
	}{
		"int beyond float":    {int64(9007199254740993), float64(9007199254740992), 1, true},
		"decimal and int":     {big, int64(9007199254740993), 0, true},
		"scale is no matter":  {one, int64(1), 0, true},
		"NaN above infinity":  {nan, math.Inf(1), 1, true},
		"NaN equals NaN":      {nan, math.NaN(), 0, true},
		"text":                {"a", "b", -1, true},
		"text and number":     {"1", int64(1), 0, false},
		"NULL":                {nil, int64(1), 0, false},
		"infinity after now":  {Infinity(1), now, 1, true},
		"-infinity is first":  {now, Infinity(-1), 1, true},
		"day and wall clock":  {Date{now.Truncate(24 * time.Hour)}, LocalTime{now}, -1, true},
		"day and instant":     {Date{now}, now, 0, false},
		"lists":               {[]any{int64(1), int64(2)}, []any{int64(1)}, 1, true},
		"false is before yes": {false, true, -1, true},
	} {
		got, order := Compare(c.a, c.b)
		if order != c.order || order && got != c.want {
			t.Errorf("%s: Compare(%v, %v) = %d, %v; want %d, %v", name, c.a, c.b, got, order, c.want, c.order)
		}
		if back, _ := Compare(c.b, c.a); order && back != -c.want {
			t.Errorf("%s: Compare(%v, %v) = %d; want %d", name, c.b, c.a, back, -c.want)
		}
	}
	if !Equal(nil, nil) || Equal(nil, "") || !Equal(map[string]any{"a": one}, map[string]any{"a": int64(1)}) {
		t.Error("Equal: NULL is a value equal to itself alone, and JSON is compared by content")
	}
}

func FuzzDecode(f *testing.F) {
	for _, oid := range []uint32{pgtype.BoolOID, pgtype.NumericOID, pgtype.TimestamptzOID, pgtype.DateOID, pgtype.JSONBOID, pgtype.TextArrayOID, pgtype.ByteaOID} {
		f.Add(oid, []byte("{1,2}"))
		f.Add(oid, []byte("2026-01-01 00:00:00+00"))
	}
	f.Fuzz(func(t *testing.T, oid uint32, text []byte) {
		v, err := Decode(oid, Datum{State: Present, Text: text})
		if err == nil && !Equal(v, v) {
			t.Fatalf("%q as %d is %#v, which does not equal itself", text, oid, v)
		}
	})
}
