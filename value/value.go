// Package value holds what a Postgres column can hold, as rules compare it and templates print it.
//
// A [Datum] is a column's value as the server sent it: its text form, or NULL, or unavailable. Decoding
// is by type OID and exact: numeric never passes through a float, a date stays a calendar day whatever
// the zone, and a type that is not known here stays the text that Postgres printed. The text form is
// the one of sessions that pin DateStyle ISO, IntervalStyle, TimeZone UTC and extra_float_digits.
//
// The package holds values only. It imports nothing of postman, and everything may import it.
package value

import (
	"time"

	"github.com/cockroachdb/apd/v3"
)

// State says whether a datum has a value at all.
type State uint8

// The states of a datum.
const (
	Null State = iota
	Present
	// Unavailable is a value that the stream does not carry: an unchanged TOAST value, or a column of the old
	// row outside the replica identity. It exists in the database and is never shown as NULL.
	Unavailable
	// Blanked is a sensitive value that was erased here. It counts as unavailable and is never read again.
	Blanked
)

// Datum is one undecoded value. Text may alias a buffer of the stream: copy it to keep it.
type Datum struct {
	State State
	Text  []byte
}

// Of is a present datum.
func Of(text string) Datum { return Datum{State: Present, Text: []byte(text)} }

// Type is a column's type. OID is the declared one, under which a parameter is bound; Base is the one that
// its text is decoded under: a domain's base type, text for an enum, the array of these for an array.
// A Base that [Decode] does not know is text.
type Type struct {
	OID  uint32 `json:"oid"`
	Base uint32 `json:"base"`
	Name string `json:"name"` // as format_type prints it, for messages
}

// Column is a named type.
type Column struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// Field is a column and its value.
type Field struct {
	Column
	Datum
}

// Row is a row of a table or of a query's result. Names may repeat in a query's result; the first one counts.
type Row []Field

// Field returns the named field, if the row has it.
func (r Row) Field(name string) (Field, bool) {
	for _, f := range r {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// The Go types of decoded values:
//
//	bool                      bool
//	int2, int4, int8, oid     int64
//	numeric                   *apd.Decimal, with the scale it has in Postgres; NaN and infinities as its forms
//	float4, float8            float64
//	timestamptz               time.Time, in UTC
//	timestamp                 LocalTime
//	date                      Date
//	json, jsonb               nil, bool, *apd.Decimal, string, []any, map[string]any
//	bytea                     []byte
//	arrays                    []any, nested by dimension
//	all others                string (char(n) without its padding)
//
// A timestamp or date may also be an [Infinity].

// Decimal is an exact number.
type Decimal = apd.Decimal

// Date is a calendar day: the midnight in UTC that begins it. No zone ever moves it.
type Date struct{ time.Time }

// String is the ISO form, 2006-01-02.
func (d Date) String() string { return d.Format(time.DateOnly) }

// LocalTime is a timestamp without time zone: what a clock on some wall showed. No zone ever moves it.
type LocalTime struct{ time.Time }

// String is the ISO form, 2006-01-02 15:04:05, with the fraction that is there.
func (t LocalTime) String() string { return t.Format("2006-01-02 15:04:05.999999") }

// Infinity is Postgres' 'infinity' (+1) or '-infinity' (-1) of a date or timestamp.
type Infinity int8

// String is Postgres' word for it.
func (i Infinity) String() string {
	if i < 0 {
		return "-infinity"
	}
	return "infinity"
}
