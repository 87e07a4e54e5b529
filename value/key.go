package value

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/apd/v3"
)

// AppendKey appends to dst a form of a decoded value that two values share if and only if they are [Equal]: numbers by their exact value
// whatever their types, a day as its midnight, JSON by content. No form is the beginning of another one, so that those of several values in
// a row tell where each ends. It refuses what [Decode] never yields.
func AppendKey(dst []byte, v any) ([]byte, error) {
	if n, ok := number(v); ok {
		return appendText(append(dst, 'n'), numberKey(n)), nil
	}
	switch v := v.(type) {
	case nil:
		return append(dst, '0'), nil
	case bool:
		return append(dst, 'b', byte(bit(v))), nil
	case string:
		return appendText(append(dst, 's'), v), nil
	case []byte:
		return appendText(append(dst, 'x'), v), nil
	case time.Time:
		return appendMoment(append(dst, 't'), v), nil
	case LocalTime:
		return appendMoment(append(dst, 'l'), v.Time), nil
	case Date:
		return appendMoment(append(dst, 'l'), v.Time), nil
	case Infinity:
		return append(dst, 'i', byte(v)), nil
	case []any:
		return appendList(dst, v)
	case map[string]any:
		return appendObject(dst, v)
	}
	return dst, fmt.Errorf("a %T is no value of a column", v)
}

// numberKey is the same for the same number: 1, 1.0 and 10e-1; 0 and -0.
func numberKey(n *apd.Decimal) string {
	switch n.Form {
	case apd.Finite:
	case apd.Infinite:
		return map[bool]string{true: "-infinity", false: "infinity"}[n.Negative]
	case apd.NaN, apd.NaNSignaling:
		return "nan"
	}
	var reduced apd.Decimal
	reduced.Reduce(n)
	return reduced.Text('E')
}

func appendText[T string | []byte](dst []byte, text T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

// appendMoment counts from 1970: a time's zone is none of it.
func appendMoment(dst []byte, t time.Time) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond()))
}

func appendList(dst []byte, list []any) (_ []byte, err error) {
	dst = binary.AppendUvarint(append(dst, 'a'), uint64(len(list)))
	for _, v := range list {
		if dst, err = AppendKey(dst, v); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func appendObject(dst []byte, object map[string]any) (_ []byte, err error) {
	dst = binary.AppendUvarint(append(dst, 'o'), uint64(len(object)))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if dst, err = AppendKey(appendText(dst, name), object[name]); err != nil {
			return dst, err
		}
	}
	return dst, nil
}
