package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// CheckTests says what the set's tests have against the tables: columns that are not there, values that a column's type does not
// read. It is for those who check and run tests: [Compile] and [Set.Bind] do not look, so that a test breaks no rule.
func (s *Set) CheckTests() Errors {
	var errs Errors
	for _, r := range s.Rules {
		for _, t := range r.Tests {
			for i := range t.Steps {
				_, mistakes := r.TestChange(&t.Steps[i])
				errs = append(errs, mistakes...)
			}
		}
	}
	return errs.inOrder()
}

// TestChange is a step's change as the stream would send it; nil of a step without one. Columns that the step leaves out are NULL.
// The rule is one of a [Set].
func (r *Rule) TestChange(s *TestStep) (*cdc.Change, Errors) {
	switch {
	case s.Op == "":
		return nil, nil
	case r.against == nil:
		return &cdc.Change{Op: cdc.Emit, Prefix: messagePrefix + r.On.Message, Content: s.Message}, nil
	}
	now, then, errs := r.TestRows(s)
	if len(errs) > 0 {
		return nil, errs
	}
	return cdc.MakeChange(opOf(s.Op), r.against, now, then), nil
}

// TestRows are the rows of a step in the order of the table's columns, as the stream would print their values.
func (r *Rule) TestRows(s *TestStep) (now, then []value.Datum, errs Errors) {
	row := &testRow{rule: r}
	now, then = row.datums(s.New), row.datums(s.Old)
	return now, then, row.errs
}

// LeftOut names the columns that a step leaves out although they are never NULL in the table, and on whose values the verdict
// hangs.
func (r *Rule) LeftOut(s *TestStep, f *Facts) []string {
	if r.against == nil || r.When == nil {
		return nil
	}
	var names []string
	for _, of := range []struct {
		side  side
		cells []Cell
		row   value.Row
	}{{newRow, s.New, f.New}, {oldRow, s.Old, f.Old}} {
		for i, c := range r.against.Columns {
			named := slices.ContainsFunc(of.cells, func(cell Cell) bool { return cell.Name == c.Name })
			if !c.NotNull || named || !hasRow(opOf(s.Op), of.side) || i >= len(of.row) || of.row[i].State != value.Null {
				continue
			}
			unknown := *f
			row := slices.Clone(of.row)
			row[i].Datum = value.Datum{State: value.Unavailable}
			if of.side == newRow {
				unknown.New = row
			} else {
				unknown.Old = row
			}
			if v := r.Decide(&unknown); v.Truth == Undetermined && v.Err == nil {
				names = append(names, of.side.String()+"."+c.Name)
			}
		}
	}
	return names
}

// Field is a value whose type is in how it is written: without quotes a number, true, false or a moment; else text.
func (c *Cell) Field() value.Field {
	f := value.Field{Column: value.Column{Name: c.Name, Type: typeOf(pgtype.TextOID)}}
	if c.Text == nil {
		return f
	}
	f.Datum = value.Of(*c.Text)
	if !c.Plain {
		return f
	}
	_, moment, err := parseMoment(*c.Text)
	switch text := *c.Text; {
	case text == "true", text == "false":
		f.Type, f.Datum = typeOf(pgtype.BoolOID), value.Of(text[:1])
	case jsonWord(text):
		f.Type = typeOf(pgtype.NumericOID)
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			f.Type = typeOf(pgtype.Int8OID)
		}
	case err == nil:
		f.Type = typeOf(map[kind]uint32{kindInstant: pgtype.TimestamptzOID, kindLocal: pgtype.TimestampOID, kindDay: pgtype.DateOID}[moment.kind])
		printed, _ := momentLiteral(moment, text, nil)
		f.Datum = value.Of(printed)
	}
	return f
}

func typeOf(oid uint32) value.Type { return value.Type{OID: oid, Base: oid, Name: value.TypeName(oid)} }

// testRow reads the rows of a test by their columns' types.
type testRow struct {
	rule *Rule
	errs Errors
}

func (t *testRow) datums(cells []Cell) []value.Datum {
	table := t.rule.against
	row := make([]value.Datum, len(table.Columns))
	for _, c := range cells {
		i := table.Column(c.Name)
		if i < 0 {
			t.errs = append(t.errs, t.rule.Mistake("PM105", c.Place, fmt.Sprintf("the table %s has no column %s", table.TableName, c.Name), suggest(c.Name, columnNames(table))))
			continue
		}
		if c.Text == nil {
			continue
		}
		col := &table.Columns[i]
		text, hint := readLiteral(col, *c.Text, t.rule.Zone)
		if hint == "" {
			row[i] = value.Of(text)
			continue
		}
		message := fmt.Sprintf("%s: %q is no %s", c.Name, *c.Text, columnType(col).name)
		if len(col.Enum) > 0 {
			message = fmt.Sprintf("%s: %s has no label %q", c.Name, col.Type.Name, *c.Text)
		}
		t.errs = append(t.errs, t.rule.Mistake("PM019", c.Value, message, hint))
	}
	return row
}

// readLiteral is a value as the stream would print it, of a text as people write it for Postgres. A hint says why it cannot be one.
func readLiteral(c *cdc.Column, text string, zone *time.Location) (_, hint string) {
	t := columnType(c)
	trimmed := strings.TrimSpace(text)
	switch base := c.Type.Base; {
	case len(c.Enum) > 0 && t.kind == kindOpaque:
		if !slices.Contains(c.Enum, text) {
			return "", suggest(text, c.Enum)
		}
		return text, ""
	case t.kind == kindBool:
		return boolLiteral(strings.ToLower(trimmed))
	case t.kind == kindWhole:
		return wholeLiteral(base, trimmed)
	case t.moment():
		return momentLiteral(t, trimmed, zone)
	case t.kind == kindNumber:
		return checked(base, trimmed, "a number is written like 1250000000 or 0.5, without separators")
	case base == pgtype.UUIDOID:
		if trimmed = strings.ToLower(trimmed); !uuid.MatchString(trimmed) {
			return "", "write it with hyphens: 6ba7b810-9dad-11d1-80b4-00c04fd430c8"
		}
		return trimmed, ""
	case t.kind == kindJSON:
		return checked(base, text, `JSON stands in quotes: '{"city": "Seoul"}'`)
	case t.kind == kindArray:
		return checked(base, text, `an array is written as Postgres prints it, in quotes: "{a,b}"`)
	case t.kind == kindBytes:
		return checked(base, trimmed, `bytes are written as Postgres prints them, in quotes: '\x00ff'`)
	}
	return text, ""
}

// checked is a text that the column's own decoder reads.
func checked(base uint32, text, hint string) (_, _ string) {
	if _, err := value.Decode(base, value.Of(text)); err != nil {
		return "", hint
	}
	return text, ""
}

func boolLiteral(word string) (_, hint string) {
	switch {
	case slices.Contains([]string{"t", "true", "y", "yes", "on", "1"}, word):
		return "t", ""
	case slices.Contains([]string{"f", "false", "n", "no", "off", "0"}, word):
		return "f", ""
	}
	return "", "write true or false"
}

// wholeBits are the sizes of the integer types.
var wholeBits = map[uint32]int{pgtype.Int2OID: 16, pgtype.Int4OID: 32, pgtype.Int8OID: 64}

func wholeLiteral(base uint32, text string) (_, hint string) {
	if base == pgtype.OIDOID {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return "", "write a whole number from 0 to 4294967295"
		}
		return strconv.FormatUint(n, 10), ""
	}
	n, err := strconv.ParseInt(text, 10, wholeBits[base])
	if err != nil {
		most := int64(math.MaxInt64) >> (64 - wholeBits[base])
		return "", fmt.Sprintf("write a whole number from %d to %d, without separators", -most-1, most)
	}
	return strconv.FormatInt(n, 10), ""
}

var endless = regexp.MustCompile(`^-?infinity$`)

func momentLiteral(t typ, text string, zone *time.Location) (_, hint string) {
	if endless.MatchString(text) {
		return text, ""
	}
	v, is, err := parseMoment(text)
	switch {
	case err != nil:
		return "", "write it like " + map[kind]string{kindInstant: "2026-01-31 09:00+09", kindLocal: "2026-01-31 09:00", kindDay: "2026-01-31"}[t.kind]
	case t.kind == kindDay && is.kind != kindDay:
		return "", "a date has no time of day: 2026-01-31"
	case t.kind == kindDay:
		return v.(value.Date).String(), ""
	case t.kind == kindLocal && is.kind == kindInstant:
		return "", "the column has no time zone: leave the offset out"
	case t.kind == kindInstant && is.kind != kindInstant && zone == nil:
		return "", "in which time zone? write the offset, as in 2026-01-31 09:00+09, or give the rule a timezone"
	case t.kind == kindInstant && is.kind != kindInstant:
		v = inZone(zone).do(v, nil)
	}
	switch v := v.(type) {
	case value.Date:
		return value.LocalTime(v).String(), ""
	case value.LocalTime:
		return v.String(), ""
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.999999") + "+00", ""
	}
	return "", "" // parseMoment knows no other
}
