package rules

import (
	"bytes"
	"cmp"
	"math"
	"math/bits"
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

// form is how a column's values are kept as scalars.
type form uint8

const (
	formOther form = iota // as decoded values only: JSON, arrays, bytea
	formText
	formPadded // char(n)
	formBool
	formWhole
	formNumber
	formFloat
	formInstant
	formLocal
	formDay
)

var forms = map[uint32]form{
	pgtype.BPCharOID: formPadded, pgtype.BoolOID: formBool,
	pgtype.Int2OID: formWhole, pgtype.Int4OID: formWhole, pgtype.Int8OID: formWhole, pgtype.OIDOID: formWhole,
	pgtype.NumericOID: formNumber, pgtype.Float4OID: formFloat, pgtype.Float8OID: formFloat,
	pgtype.TimestamptzOID: formInstant, pgtype.TimestampOID: formLocal, pgtype.DateOID: formDay,
}

// formOf is the form of a column with the base type, whose values an expression knows as t.
func formOf(t typ, base uint32) form {
	if f, ok := forms[base]; ok {
		return f
	}
	if t.is(kindText, kindOpaque) {
		return formText
	}
	return formOther
}

// scalar is a value in its canonical form: two are the same value if and only if they have the same fields (or the
// decimals that big stands for are equal). It is compared and looked up without making a value of package value.
type scalar struct {
	state state
	exp   int32
	n     int64
	text  []byte
	big   *value.Decimal
}

// state says which fields of a scalar count.
type state uint8

const (
	stateNull   state = iota
	stateInt          // n: a whole number, a truth value (0 or 1), or microseconds since 2000
	stateNum          // n × 10^exp in its canonical form, with at most 18 digits; else big
	stateText         // text
	stateOdd          // a value that has no such form: only its decoded value tells
	stateAbsent       // a value that the stream does not carry, or that does not decode
)

// exactDigits is how many digits an int64 always holds. millionths is the exponent of what most numbers are kept in.
const (
	exactDigits = 18
	millionths  = -6
)

// set takes a decoded value in, as a column of the form has it. It reports false where the value has no such form.
func (s *scalar) set(f form, v any) bool {
	*s = scalar{}
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		s.state, s.n = stateInt, int64(b2i(v))
		return f == formBool
	case string:
		s.state, s.text = stateText, []byte(v)
		return f == formText || f == formPadded
	case int64, *value.Decimal, float64:
		return s.setNumber(f, v)
	case time.Time:
		return f == formInstant && s.setMoment(v)
	case value.LocalTime:
		return (f == formLocal || f == formDay) && s.setMoment(v.Time)
	case value.Date:
		return (f == formLocal || f == formDay) && s.setMoment(v.Time)
	case value.Infinity:
		s.state, s.n = stateInt, math.MaxInt64*int64(v)
		return f == formInstant || f == formLocal || f == formDay
	}
	return false
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *scalar) setNumber(f form, v any) bool {
	n, isInt := v.(int64)
	if isInt && f == formWhole {
		s.state, s.n = stateInt, n
		return true
	}
	d := decimal(v)
	switch {
	case f == formNumber || f == formFloat:
		s.setDecimal(d)
		return true
	case f != formWhole || d.Form != apd.Finite:
		return false
	}
	whole, err := d.Int64()
	s.state, s.n = stateInt, whole
	return err == nil
}

func (s *scalar) setDecimal(d *value.Decimal) {
	s.state, s.big = stateNum, d
	if d.Form != apd.Finite {
		return
	}
	var r value.Decimal
	r.Reduce(d)
	if r.NumDigits() > exactDigits {
		return
	}
	n := r.Coeff.Int64()
	if r.Negative {
		n = -n
	}
	s.n, s.exp = canonical(n, r.Exponent)
	s.big = nil
}

// epoch is where Postgres counts moments from; all that it knows lie within int64 microseconds of it.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// setMoment reports false for what has no whole microseconds, and for dates beyond the year 290,000.
func (s *scalar) setMoment(t time.Time) bool {
	seconds, nanos := t.Unix()-epoch, int64(t.Nanosecond())
	const most = 290_000 * 365 * 86_400
	if seconds < -most || seconds > most || nanos%1000 != 0 {
		return false
	}
	s.state, s.n = stateInt, seconds*1_000_000+nanos/1000
	return true
}

// canonical is the form that a number has as a scalar: millionths where they make it whole and have at most 18 digits, as
// most numbers of a table do, which are compared the quickest; and else without zeros at its end.
func canonical(n int64, exp int32) (int64, int32) {
	for exp < millionths && n%10 == 0 && n != 0 {
		n, exp = n/10, exp+1
	}
	if n == 0 {
		return 0, millionths
	}
	if shift := exp - millionths; shift >= 0 && shift <= exactDigits && max(n, -n) < powers[exactDigits-shift] {
		return n * powers[shift], millionths
	}
	for n%10 == 0 {
		n, exp = n/10, exp+1
	}
	return n, exp
}

// compare orders two scalars of the same state, and is 0 for equal ones: value.Compare on the values they stand for.
func (s *scalar) compare(t *scalar) int {
	switch s.state {
	case stateInt:
		return cmp.Compare(s.n, t.n)
	case stateText:
		return bytes.Compare(s.text, t.text)
	case stateNum:
		return s.compareNumber(t)
	case stateNull, stateOdd, stateAbsent:
	}
	return 0
}

// equal is compare == 0, quicker.
func (s *scalar) equal(t *scalar) bool {
	if s.big != nil || t.big != nil {
		return s.compare(t) == 0
	}
	return s.n == t.n && s.exp == t.exp && bytes.Equal(s.text, t.text)
}

func (s *scalar) compareNumber(t *scalar) int {
	switch {
	case s.big != nil || t.big != nil:
		c, _ := value.Compare(s.number(), t.number())
		return c
	case s.exp == t.exp || s.n == 0 || t.n == 0 || (s.n < 0) != (t.n < 0):
		return cmp.Compare(s.n, t.n)
	}
	// Of the same sign: the one with the longer whole part is farther from 0. Else both have 18 digits at most behind the
	// first, and fit an int64 in the unit of the finer one.
	a, b := int64(decimals(s.n))+int64(s.exp), int64(decimals(t.n))+int64(t.exp)
	switch {
	case a != b && s.n > 0:
		return cmp.Compare(a, b)
	case a != b:
		return cmp.Compare(b, a)
	case s.exp > t.exp:
		return cmp.Compare(s.n*powers[s.exp-t.exp], t.n)
	}
	return cmp.Compare(s.n, t.n*powers[t.exp-s.exp])
}

// powers are those of ten that an int64 holds.
var powers = func() (p [exactDigits + 1]int64) {
	p[0] = 1
	for i := range exactDigits {
		p[i+1] = p[i] * 10
	}
	return p
}()

// decimals is how many digits a number has, 0 of 0.
func decimals(n int64) int {
	if n < 0 {
		n = -n
	}
	const log2 = 1233 // of 10, by 4096
	d := bits.Len64(uint64(n)) * log2 >> 12
	if n >= powers[d] && n != 0 {
		d++
	}
	return d
}

func (s *scalar) number() *value.Decimal {
	if s.big != nil {
		return s.big
	}
	return apd.New(s.n, s.exp)
}
