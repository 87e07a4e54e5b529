package rules

import (
	"slices"
	"time"

	"github.com/expr-lang/expr/types"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// kind is what an expression's value is like: what it may be compared with, and how.
type kind uint8

const (
	kindAny kind = iota // of an expression that a mistake was reported of: fits everywhere
	kindNil             // the literal nil
	kindBool
	kindWhole  // int64, or a decimal where that would overflow
	kindNumber // decimal or float
	kindText   // text that has an order
	kindOpaque // text as Postgres prints it, of a type whose order is not that of its text
	kindInstant
	kindLocal // a timestamp without time zone
	kindDay
	kindSpan
	kindBytes
	kindJSON
	kindArray
)

// typ is the type of an expression.
type typ struct {
	kind
	name string   // as a person knows it
	enum []string // the labels of an enum, where they are known
	elem *typ     // of an array
	// Of a span: days says that it has calendar days; clock, that it is the distance of two clock readings,
	// where a day has 24 hours.
	days, clock bool
}

var (
	typAny     = typ{kind: kindAny}
	typNil     = typ{kind: kindNil, name: "nil"}
	typBool    = typ{kind: kindBool, name: "a condition"}
	typWhole   = typ{kind: kindWhole, name: "a whole number"}
	typNumber  = typ{kind: kindNumber, name: "a number"}
	typText    = typ{kind: kindText, name: "text"}
	typInstant = typ{kind: kindInstant, name: "timestamp with time zone"}
	typLocal   = typ{kind: kindLocal, name: "timestamp without time zone"}
	typDay     = typ{kind: kindDay, name: "date"}
	typSpan    = typ{kind: kindSpan, name: "a duration"}
	typBytes   = typ{kind: kindBytes, name: "bytea"}
	typJSON    = typ{kind: kindJSON, name: "JSON"}
)

// columnType is the type of a column's values.
func columnType(c *cdc.Column) typ {
	t := baseType(c.Type.Base)
	t.enum = c.Enum
	if c.Type.Name != "" {
		t.name = c.Type.Name
	}
	if len(t.enum) > 0 && t.kind == kindText {
		t.kind = kindOpaque // labels are ordered as they were created
	}
	return t
}

// kinds are the kinds of the types that have an own one.
var kinds = map[uint32]kind{
	pgtype.BoolOID: kindBool,
	pgtype.Int2OID: kindWhole, pgtype.Int4OID: kindWhole, pgtype.Int8OID: kindWhole, pgtype.OIDOID: kindWhole,
	pgtype.NumericOID: kindNumber, pgtype.Float4OID: kindNumber, pgtype.Float8OID: kindNumber,
	pgtype.TextOID: kindText, pgtype.VarcharOID: kindText, pgtype.BPCharOID: kindText, pgtype.NameOID: kindText, pgtype.QCharOID: kindText,
	pgtype.JSONOID: kindJSON, pgtype.JSONBOID: kindJSON,
	pgtype.ByteaOID:       kindBytes,
	pgtype.TimestamptzOID: kindInstant, pgtype.TimestampOID: kindLocal, pgtype.DateOID: kindDay,
}

func baseType(oid uint32) typ {
	t := typ{name: value.TypeName(oid)}
	if k, ok := kinds[oid]; ok {
		t.kind = k
		return t
	}
	t.kind = kindOpaque
	if element, ok := value.Element(oid); ok {
		elem := baseType(element)
		t.kind, t.elem = kindArray, &elem
	}
	return t
}

// is says whether the type is of one of the kinds, or of any.
func (t typ) is(kinds ...kind) bool { return t.kind == kindAny || slices.Contains(kinds, t.kind) }

// condition says whether the value can be true or false. A JSON value that is neither counts as false.
func (t typ) condition() bool { return t.is(kindBool, kindJSON) }

func (t typ) numeric() bool { return t.is(kindWhole, kindNumber, kindJSON) }

func (t typ) textual() bool { return t.is(kindText, kindOpaque, kindJSON) }

func (t typ) moment() bool { return t.is(kindInstant, kindLocal, kindDay) }

// alike says whether two values can be equal at all. nil can be anything; a JSON value has no moments and no bytes.
func alike(a, b typ) bool {
	switch {
	case a.is(kindNil) || b.is(kindNil):
		return true
	case a.kind == kindJSON:
		return b.is(kindJSON, kindBool, kindWhole, kindNumber, kindText, kindOpaque, kindArray)
	case b.kind == kindJSON:
		return alike(b, a)
	case a.is(kindWhole, kindNumber):
		return b.is(kindWhole, kindNumber)
	case a.is(kindText, kindOpaque):
		return b.is(kindText, kindOpaque)
	case a.moment():
		return b.moment()
	case a.kind == kindArray && b.kind == kindArray:
		return alike(*a.elem, *b.elem)
	}
	return a.kind == b.kind
}

// exprType is the type as expr's own checker knows it: nullable, but for the elements of arrays, which it compares
// without following a pointer.
func (t typ) exprType(element bool) types.Type {
	if t.kind == kindArray {
		return types.Array(t.elem.exprType(true))
	}
	forms, ok := exprTypes[t.kind]
	switch {
	case !ok:
		return types.Any
	case element:
		return types.TypeOf(forms[0])
	}
	return types.TypeOf(forms[1])
}

// exprTypes are a value of each kind, and a pointer to one. Other kinds are not checked.
var exprTypes = map[kind][2]any{
	kindBool:    {false, (*bool)(nil)},
	kindWhole:   {0, (*int)(nil)},
	kindNumber:  {0.0, (*float64)(nil)},
	kindText:    {"", (*string)(nil)},
	kindOpaque:  {"", (*string)(nil)},
	kindInstant: {time.Time{}, (*time.Time)(nil)},
	kindLocal:   {time.Time{}, (*time.Time)(nil)},
	kindDay:     {time.Time{}, (*time.Time)(nil)},
	kindBytes:   {[]byte(nil), []byte(nil)},
}
