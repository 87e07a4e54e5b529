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

var errTuple = errors.New("malformed tuple")

// tupleLen walks one tuple at the beginning of b and returns its length in bytes.
func tupleLen(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, errTuple
	}
	at := 2
	for range binary.BigEndian.Uint16(b) {
		_, n, err := datum(b[at:])
		if err != nil {
			return 0, err
		}
		at += n
	}
	return at, nil
}

// datum reads one column's value at the beginning of b and returns its length in bytes.
func datum(b []byte) (value.Datum, int, error) {
	if len(b) == 0 {
		return value.Datum{}, 0, errTuple
	}
	switch b[0] {
	case 'n':
		return value.Datum{State: value.Null}, 1, nil
	case 'u':
		return value.Datum{State: value.Unavailable}, 1, nil
	case 'x':
		return value.Datum{State: value.Blanked}, 1, nil
	case 't':
		if len(b) < 5 {
			return value.Datum{}, 0, errTuple
		}
		n := int(binary.BigEndian.Uint32(b[1:]))
		if n < 0 || n > len(b)-5 {
			return value.Datum{}, 0, errTuple
		}
		return value.Datum{State: value.Present, Text: b[5 : 5+n : 5+n]}, 5 + n, nil
	}
	return value.Datum{}, 0, errTuple
}

// Datums appends the tuple's values to dst, which may be reused between calls. The values alias the tuple.
func (t Tuple) Datums(dst []value.Datum) ([]value.Datum, error) {
	if len(t) == 0 {
		return dst, nil
	}
	if len(t) < 2 {
		return dst, errTuple
	}
	at := 2
	for range binary.BigEndian.Uint16(t) {
		d, n, err := datum(t[at:])
		if err != nil {
			return dst, err
		}
		dst, at = append(dst, d), at+n
	}
	return dst, nil
}

// MakeTuple writes datums in a tuple's form.
func MakeTuple(datums []value.Datum) Tuple {
	t := binary.BigEndian.AppendUint16(nil, uint16(len(datums)))
	for _, d := range datums {
		switch d.State {
		case value.Null:
			t = append(t, 'n')
		case value.Unavailable:
			t = append(t, 'u')
		case value.Blanked:
			t = append(t, 'x')
		case value.Present:
			t = binary.BigEndian.AppendUint32(append(t, 't'), uint32(len(d.Text)))
			t = append(t, d.Text...)
		}
	}
	return t
}
