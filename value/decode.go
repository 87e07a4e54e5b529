package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
	"github.com/jackc/pgx/v5/pgtype"
)

// typeMaps pools pgx's type maps: building one is dear, and one memoizes plans and so serves one goroutine at a time.
var typeMaps = sync.Pool{New: func() any { return pgtype.NewMap() }}

// Decode reads the text form of a value of the type with the OID base (see [Type]). NULL is nil.
// A datum that is not available has no value to decode: that is the caller's to ask first.
func Decode(base uint32, d Datum) (any, error) {
	switch d.State {
	case Null:
		return nil, nil
	case Unavailable, Blanked:
		return nil, fmt.Errorf("the value is not available")
	case Present:
	}
	v, err := decodeText(base, d.Text)
	if err != nil {
		// Neither the value nor err, which quotes it: it may be sensitive, and errors are logged.
		return nil, fmt.Errorf("a value of %d bytes is no %s", len(d.Text), TypeName(base))
	}
	return v, nil
}

func decodeText(base uint32, text []byte) (any, error) {
	switch base {
	case pgtype.BoolOID:
		return decodeBool(text)
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		return strconv.ParseInt(string(text), 10, 64)
	case pgtype.Float4OID, pgtype.Float8OID:
		return strconv.ParseFloat(string(text), 64)
	case pgtype.NumericOID:
		return ParseDecimal(string(text))
	case pgtype.BPCharOID:
		return strings.TrimRight(string(text), " "), nil
	case pgtype.JSONOID, pgtype.JSONBOID:
		return DecodeJSON(text)
	case pgtype.ByteaOID, pgtype.TimestamptzOID, pgtype.TimestampOID, pgtype.DateOID:
		return decodeByPgx(base, text)
	}
	if element, ok := Element(base); ok {
		return decodeArray(element, text)
	}
	return string(text), nil
}

func decodeBool(text []byte) (any, error) {
	switch string(text) {
	case "t":
		return true, nil
	case "f":
		return false, nil
	}
	return nil, strconv.ErrSyntax
}

// ParseDecimal reads a number of any precision, or NaN, Infinity, -Infinity, keeping its scale.
func ParseDecimal(text string) (*Decimal, error) {
	d, _, err := apd.NewFromString(text)
	return d, err
}

func decodeByPgx(base uint32, text []byte) (any, error) {
	m := typeMaps.Get().(*pgtype.Map)
	defer typeMaps.Put(m)
	t, _ := m.TypeForOID(base)
	v, err := t.Codec.DecodeDatabaseSQLValue(m, base, pgtype.TextFormatCode, text)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case time.Time:
		return instant(base, v.UTC()), nil
	case string: // an infinity: database/sql has no other word for it
		if strings.HasPrefix(v, "-") {
			return Infinity(-1), nil
		}
		return Infinity(1), nil
	default:
		return v, nil
	}
}

func instant(base uint32, t time.Time) any {
	switch base {
	case pgtype.DateOID:
		return Date{t}
	case pgtype.TimestampOID:
		return LocalTime{t}
	default:
		return t
	}
}

// DecodeJSON reads one JSON value, its numbers exact.
func DecodeJSON(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, inWords(text, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("something follows the JSON value")
	}
	return exact(v)
}

// inWords says for people why a text is no JSON.
func inWords(text []byte, err error) error {
	wrong, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF), ok && int(wrong.Offset) > len(text):
		return errors.New("it ends too early")
	case ok && wrong.Offset > 0:
		before := text[:wrong.Offset-1]
		r, _ := utf8.DecodeRune(text[len(before):])
		return fmt.Errorf("%q does not belong where it stands, as character %d", r, utf8.RuneCount(before)+1)
	}
	return err
}

// exact replaces each json.Number by a decimal, in place.
func exact(v any) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		return ParseDecimal(v.String())
	case []any:
		for i := range v {
			if v[i], err = exact(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = exact(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// Element returns the OID of the elements of an array type that pgx knows.
func Element(base uint32) (uint32, bool) {
	m := typeMaps.Get().(*pgtype.Map)
	defer typeMaps.Put(m)
	t, ok := m.TypeForOID(base)
	if !ok {
		return 0, false
	}
	array, ok := t.Codec.(*pgtype.ArrayCodec)
	if !ok {
		return 0, false
	}
	return array.ElementType.OID, true
}

// decodeArray has pgx split the array's text form into the texts of its elements, and decodes those.
func decodeArray(element uint32, text []byte) (any, error) {
	m := typeMaps.Get().(*pgtype.Map)
	defer typeMaps.Put(m)
	var a pgtype.Array[pgtype.Text]
	if err := m.Scan(pgtype.TextArrayOID, pgtype.TextFormatCode, text, &a); err != nil {
		return nil, err
	}
	flat := make([]any, len(a.Elements))
	for i, e := range a.Elements {
		if !e.Valid {
			continue
		}
		v, err := decodeText(element, []byte(e.String))
		if err != nil {
			return nil, err
		}
		flat[i] = v
	}
	return nest(flat, a.Dims), nil
}

// nest folds a flat list of elements into lists of lists, one level for each dimension.
func nest(flat []any, dims []pgtype.ArrayDimension) []any {
	for level := len(dims) - 1; level > 0; level-- {
		n := int(dims[level].Length)
		folded := make([]any, 0, len(flat)/n)
		for i := 0; i < len(flat); i += n {
			folded = append(folded, flat[i:i+n:i+n])
		}
		flat = folded
	}
	return flat
}

// TypeName is the name of a type that pgx knows, or its OID.
func TypeName(oid uint32) string {
	m := typeMaps.Get().(*pgtype.Map)
	defer typeMaps.Put(m)
	if t, ok := m.TypeForOID(oid); ok {
		return t.Name
	}
	return "type " + strconv.FormatUint(uint64(oid), 10)
}
