package dispatch

import (
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

// show makes what the draft's templates see.
func (h *Rehearser) show(d *draft) error {
	if !h.HideSensitive {
		return d.show()
	}
	whole, seen := d.facts, *d.facts
	seen.New, seen.Old = d.madeUp(seen.New), d.madeUp(seen.Old)
	if object, ok := seen.Message.(map[string]any); ok {
		object = maps.Clone(object)
		for _, name := range d.rule.Sensitive {
			if object[name] != nil {
				object[name] = veiled
			}
		}
		seen.Message = object
	}
	d.facts = &seen
	err := d.show()
	d.facts = whole
	return err
}

// madeUp is a row with values of no meaning in the place of sensitive ones.
func (d *draft) madeUp(row value.Row) value.Row {
	row = slices.Clone(row)
	for i := range row {
		if row[i].State == value.Present && d.rule.Hides(row[i].Name) {
			row[i].Datum = value.Of(madeUp(row[i].Type.Base))
		}
	}
	return row
}

// madeUp is a value of a type, as Postgres prints it: of a text it says what it stands for.
func madeUp(base uint32) string {
	switch base {
	case pgtype.BoolOID:
		return "f"
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID:
		return "0"
	case pgtype.DateOID:
		return "2000-01-01"
	case pgtype.TimestampOID:
		return "2000-01-01 00:00:00"
	case pgtype.TimestamptzOID:
		return "2000-01-01 00:00:00+00"
	case pgtype.JSONOID, pgtype.JSONBOID:
		return `"` + veiled + `"`
	case pgtype.ByteaOID:
		return `\x`
	}
	if _, list := value.Element(base); list {
		return "{}"
	}
	return veiled
}
