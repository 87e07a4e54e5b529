package rules

import (
	"errors"
	"math"
	"time"

	"postman/value"
)

// momentForms are how a moment is written: as Postgres prints it, and as ISO 8601 has it.
var momentForms = []struct {
	layout string
	is     typ
}{
	{"2006-01-02", typDay},
	{"2006-01-02 15:04", typLocal},
	{"2006-01-02T15:04", typLocal},
	{"2006-01-02 15:04:05", typLocal},
	{"2006-01-02T15:04:05", typLocal},
	{"2006-01-02 15:04Z07:00", typInstant},
	{"2006-01-02T15:04Z07:00", typInstant},
	{"2006-01-02 15:04Z07", typInstant},
	{"2006-01-02T15:04Z07", typInstant},
	{"2006-01-02 15:04:05Z07:00", typInstant},
	{"2006-01-02T15:04:05Z07:00", typInstant},
	{"2006-01-02 15:04:05Z07", typInstant},
	{"2006-01-02T15:04:05Z07", typInstant},
}

var errMoment = errors.New(`a moment is written like "2026-01-31", "2026-01-31T09:00" or "2026-01-31T09:00:00+09:00"`)

// parseMoment reads the text of date("…"). Whether it is a date, a wall clock's time or an instant is in how it is written.
func parseMoment(s string) (any, typ, error) {
	for _, form := range momentForms {
		t, err := time.Parse(form.layout, s) // takes a fraction behind the seconds
		if err != nil {
			continue
		}
		if form.is.kind == kindDay {
			return value.Date{Time: t}, form.is, nil
		}
		if form.is.kind == kindLocal {
			return value.LocalTime{Time: t}, form.is, nil
		}
		return t.UTC(), form.is, nil
	}
	return nil, typAny, errMoment
}

// inZone is a date or a timestamp without time zone as an instant in a zone.
func inZone(zone *time.Location) *function {
	return &function{name: "in " + zone.String(), do: func(a, _ any) any {
		var t time.Time
		switch a := a.(type) {
		case value.Date:
			t = a.Time
		case value.LocalTime:
			t = a.Time
		default:
			return a // an infinity is one everywhere
		}
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone).UTC()
	}}
}

// signs are the operators that add and take away.
var signs = map[bool]string{true: "+", false: "-"}

// shift adds a duration, sign times, to a moment. Days are calendar days in the zone; a clock without zone counts in UTC.
func shift(sign int, zone *time.Location) *function {
	return &function{name: signs[sign > 0], do: func(a, b any) any {
		var d Duration
		switch b := b.(type) {
		case Duration:
			d = b
		case time.Duration:
			d.Time = b
		}
		move := func(t time.Time) time.Time { return t.AddDate(0, 0, sign*d.Days).Add(time.Duration(sign) * d.Time) }
		switch a := a.(type) {
		case time.Time:
			if d.Days == 0 {
				return move(a)
			}
			return move(a.In(zone)).UTC()
		case value.LocalTime:
			return value.LocalTime{Time: move(a.Time)}
		case value.Date:
			return value.LocalTime{Time: move(a.Time)}
		case value.Infinity:
			return a
		}
		return nil
	}}
}

// distance is a moment less another, at most 292 years; NULL where one of them is infinite.
var distance = &function{name: "-", do: func(a, b any) any {
	x, ok1 := clockReading(a)
	y, ok2 := clockReading(b)
	if !ok1 || !ok2 {
		return nil
	}
	return x.Sub(y)
}}

func clockReading(v any) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, true
	case value.LocalTime:
		return v.Time, true
	case value.Date:
		return v.Time, true
	}
	return time.Time{}, false
}

// stretch is a duration's length, its days being of 24 hours: what makes that wrong is refused at load.
func stretch(v any) time.Duration {
	switch v := v.(type) {
	case time.Duration:
		return v
	case Duration:
		return v.elapsed()
	}
	return 0
}

// spanOrder is < <= > >= of two durations.
func spanOrder(holds func(c int) bool) func(a, b any) any {
	return func(a, b any) any {
		x, y := stretch(a), stretch(b)
		switch {
		case x < y:
			return holds(-1)
		case x > y:
			return holds(1)
		}
		return holds(0)
	}
}

// spanSum is the sum of two durations, or with sign -1 their difference, at most 292 years.
func spanSum(sign time.Duration) *function {
	return &function{name: signs[sign > 0], do: func(a, b any) any {
		x, y := stretch(a), stretch(b)
		y = sign * max(y, -math.MaxInt64)
		switch z := x + y; {
		case y > 0 && z < x:
			return time.Duration(math.MaxInt64)
		case y < 0 && z > x:
			return time.Duration(math.MinInt64)
		default:
			return z
		}
	}}
}
