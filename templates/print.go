package templates

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postman/value"
)

// show is how a value is printed that no function has formatted: exact, and a time by the locale.
func show(l *locale, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, Unknown:
		return fmt.Sprint(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case *value.Decimal:
		return plain(v), nil
	case time.Time, value.LocalTime, value.Infinity:
		return l.clock(v, l.datetime)
	case value.Date:
		return l.when(v, l.date)
	case []byte:
		return `\x` + hex.EncodeToString(v), nil
	case []any:
		return l.join(", ", v)
	case map[string]any:
		return showJSON(v)
	case []map[string]any:
		return "", errors.New("these are rows" + hintMark + "print their parts inside {{range}}")
	}
	return "", fmt.Errorf("%T cannot be printed", v)
}

func showJSON(v map[string]any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(jsonable(v)); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// jsonable replaces exact numbers by what encoding/json writes as they are.
func jsonable(v any) any {
	switch v := v.(type) {
	case *value.Decimal:
		return json.Number(plain(v))
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = jsonable(e)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = jsonable(e)
		}
		return list
	}
	return v
}

// when formats a value that has a day.
func (l *locale) when(v any, layout string) (string, error) {
	switch v := v.(type) {
	case nil, Unknown:
		return text(v), nil
	case time.Time:
		return l.format(layout, v), nil
	case value.LocalTime:
		return l.format(layout, v.Time), nil
	case value.Date:
		return l.format(layout, v.Time), nil
	case value.Infinity:
		return v.String(), nil
	}
	return "", notTime(v)
}

// clock formats a value that has a time of day.
func (l *locale) clock(v any, layout string) (string, error) {
	if _, day := v.(value.Date); day {
		return "", errors.New("a date has no time of day" + hintMark + "use date or day")
	}
	return l.when(v, layout)
}

func notTime(v any) error {
	if _, ok := v.(string); ok {
		return fmt.Errorf("%s is no date or time%slet a query make it one: select @message.at::timestamptz as at", kind(v), hintMark)
	}
	return fmt.Errorf("%s is no date or time", kind(v))
}

func (l *locale) weekday(v any) (string, error) {
	switch v := v.(type) {
	case time.Time:
		return l.weekdays[v.Weekday()], nil
	case value.LocalTime:
		return l.weekdays[v.Weekday()], nil
	case value.Date:
		return l.weekdays[v.Weekday()], nil
	}
	return l.when(v, "")
}

// zone is the short name of the time zone that a time is shown in: KST, or an offset where the zone has no name.
func zone(v any) (string, error) {
	switch v := v.(type) {
	case nil, Unknown:
		return text(v), nil
	case time.Time:
		name, _ := v.Zone()
		return name, nil
	case value.Date, value.LocalTime:
		return "", errors.New("a date or timestamp without time zone has none to name")
	case value.Infinity:
		return "", nil
	}
	return "", notTime(v)
}

// inZone is the data with all instants moved to a zone. Days and wall clocks stay.
func inZone(d Data, zone *time.Location) map[string]any {
	if zone == nil {
		zone = time.UTC
	}
	return moveMap(d, zone)
}

func moveMap(m map[string]any, zone *time.Location) map[string]any {
	moved := make(map[string]any, len(m))
	for k, v := range m {
		moved[k] = move(v, zone)
	}
	return moved
}

func move(v any, zone *time.Location) any {
	switch v := v.(type) {
	case time.Time:
		return v.In(zone)
	case map[string]any:
		return moveMap(v, zone)
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = move(e, zone)
		}
		return list
	case []map[string]any:
		list := make([]map[string]any, len(v))
		for i, m := range v {
			list[i] = moveMap(m, zone)
		}
		return list
	}
	return v
}
