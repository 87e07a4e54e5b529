package cdc

import (
	"encoding/binary"
	"errors"

	"postman/value"
)

// Tuple is a row as pgoutput sends it (TupleData in the Postgres documentation, "Logical Replication Message
// Formats"): undecoded and usually not copied. The zero Tuple is no row at all.
//
//	Int16  number of columns
//	then for each column: Byte1 'n' NULL, 'u' unchanged TOAST, 't' text: Int32 length, Byten
//
// Tuples at rest in the store have the same form, and one kind more: 'x' for a blanked value.
type Tuple []byte

const (
	kindNull      = 'n'
	kindUnchanged = 'u'
	kindText      = 't'
	kindBlanked   = 'x'
)

var errTuple = errors.New("malformed tuple")

// tupleLen walks one tuple at the beginning of b and returns its length in bytes and its number of columns.
func tupleLen(b []byte, atRest bool) (size, columns int, err error) {
	if len(b) < 2 {
		return 0, 0, errTuple
	}
	columns = int(binary.BigEndian.Uint16(b))
	at := 2
	for range columns {
		if at >= len(b) {
			return 0, 0, errTuple
		}
		switch kind := b[at]; {
		case kind == kindText:
			if len(b)-at < 5 {
				return 0, 0, errTuple
			}
			n := int64(binary.BigEndian.Uint32(b[at+1:]))
			if n > int64(len(b)-at-5) {
				return 0, 0, errTuple
			}
			at += 5 + int(n)
		case kind == kindNull, kind == kindUnchanged, kind == kindBlanked && atRest:
			at++
		default:
			return 0, 0, errTuple
		}
	}
	return at, columns, nil
}

// datum reads one column's value at the beginning of b and returns its length in bytes.
func datum(b []byte) (value.Datum, int, error) {
	if len(b) == 0 {
		return value.Datum{}, 0, errTuple
	}
	switch b[0] {
	case kindNull:
		return value.Datum{State: value.Null}, 1, nil
	case kindUnchanged:
		return value.Datum{State: value.Unavailable}, 1, nil
	case kindBlanked:
		return value.Datum{State: value.Blanked}, 1, nil
	case kindText:
		if len(b) < 5 {
			return value.Datum{}, 0, errTuple
		}
		n := int64(binary.BigEndian.Uint32(b[1:]))
		if n > int64(len(b)-5) {
			return value.Datum{}, 0, errTuple
		}
		end := 5 + int(n)
		return value.Datum{State: value.Present, Text: b[5:end:end]}, end, nil
	}
	return value.Datum{}, 0, errTuple
}

// Datums appends the tuple's values to dst, which may be reused between calls. The values alias the tuple. It is on the way
// of every change, and so does at once what datum does for one column.
func (t Tuple) Datums(dst []value.Datum) ([]value.Datum, error) {
	if len(t) == 0 {
		return dst, nil
	}
	if len(t) < 2 {
		return dst, errTuple
	}
	rest := t[2:]
	for range binary.BigEndian.Uint16(t) {
		if len(rest) >= 5 && rest[0] == kindText {
			n := uint64(binary.BigEndian.Uint32(rest[1:]))
			if rest = rest[5:]; n > uint64(len(rest)) {
				return dst, errTuple
			}
			dst = append(dst, value.Datum{State: value.Present, Text: rest[:n:n]})
			rest = rest[n:]
			continue
		}
		d, n, err := datum(rest)
		if err != nil {
			return dst, err
		}
		dst, rest = append(dst, d), rest[n:]
	}
	return dst, nil
}

// MakeTuple writes datums in a tuple's form.
func MakeTuple(datums []value.Datum) Tuple {
	return appendTuple(nil, datums)
}

func appendTuple(dst []byte, datums []value.Datum) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(datums)))
	for _, d := range datums {
		switch d.State {
		case value.Null:
			dst = append(dst, kindNull)
		case value.Unavailable:
			dst = append(dst, kindUnchanged)
		case value.Blanked:
			dst = append(dst, kindBlanked)
		case value.Present:
			dst = binary.BigEndian.AppendUint32(append(dst, kindText), uint32(len(d.Text)))
			dst = append(dst, d.Text...)
		}
	}
	return dst
}
