package templates

import (
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

// Sample is a row of the columns' types to check a template with: each value filled, or all of them NULL. Of columns that share
// a name the first one counts.
func Sample(columns []value.Column, null bool) map[string]any {
	row := make(map[string]any, len(columns))
	for _, c := range columns {
		if _, taken := row[c.Name]; taken {
			continue
		}
		row[c.Name] = nil
		if !null {
			row[c.Name] = sampleOf(c.Type.Base, c.Name)
		}
	}
	return row
}

// sampleTime is a Wednesday afternoon in Seoul.
var sampleTime = time.Date(2026, time.March, 4, 6, 30, 0, 0, time.UTC)

// sampleOf is a value of the type with the OID base. A text says which column it stands for.
func sampleOf(base uint32, name string) any {
	switch base {
	case pgtype.BoolOID:
		return true
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		return int64(3)
	case pgtype.NumericOID:
		return apd.New(123450000, -2)
	case pgtype.Float4OID, pgtype.Float8OID:
		return 1234.5
	case pgtype.TimestamptzOID:
		return sampleTime
	case pgtype.TimestampOID:
		return value.LocalTime{Time: sampleTime.Add(9 * time.Hour)}
	case pgtype.DateOID:
		return value.Date{Time: sampleTime.Truncate(24 * time.Hour)}
	case pgtype.JSONOID, pgtype.JSONBOID:
		return Unknown{}
	case pgtype.ByteaOID:
		return []byte(name)
	}
	if element, ok := value.Element(base); ok {
		return []any{sampleOf(element, name)}
	}
	return name
}
