package templates

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/template"
	"time"
	"unicode/utf8"

	"postman/value"
)

// Unknown is a sample value of any shape: a message's content, a JSON column, whose keys no catalog knows. A template that is
// checked may read any part of it, loop over it, and pass it to any function.
type Unknown struct{}

// String stands where the value will.
func (Unknown) String() string { return "…" }

// functions are what templates may call, in the locale. printer is what an action's value goes through at last. All of them yield
// nothing for NULL.
func (l *locale) functions(printer func(*locale, any) (string, error)) template.FuncMap {
	return template.FuncMap{
		"_print": func(v any) (string, error) { return printer(l, v) },
		"_rows":  rows,
		"_some":  some,
		"_stop":  func() (string, error) { return "", errStop },

		"money":    func(v any, currency string) (string, error) { return l.money(v, currency) },
		"won":      l.won,
		"number":   l.number,
		"date":     func(v any) (string, error) { return l.when(v, l.date) },
		"day":      func(v any) (string, error) { return l.when(v, l.day) },
		"time":     func(v any) (string, error) { return l.clock(v, l.time) },
		"datetime": func(v any) (string, error) { return l.clock(v, l.datetime) },
		"weekday":  l.weekday,
		"zone":     zone,
		"icstime":  icsTime,
		"locale":   func() string { return l.tag },
		"plural":   l.pluralOf,

		"default": orElse,
		"join":    l.join,
		"print":   l.concat,
		"upper":   func(v any) (string, error) { return onText(v, strings.ToUpper) },
		"lower":   func(v any) (string, error) { return onText(v, strings.ToLower) },
		"initial": func(v any) (string, error) { return onText(v, initial) },
		"get":     get,
		"dict":    dict,

		"len": length,
		"not": func(v any) bool { return !isTrue(v) },
		"eq":  equal,
		"ne":  func(a, b any) (bool, error) { eq, err := equal(a, b); return !eq, err },
		"lt":  func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c < 0 }) },
		"le":  func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c <= 0 }) },
		"gt":  func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c > 0 }) },
		"ge":  func(a, b any) (bool, error) { return ordered(a, b, func(c int) bool { return c >= 0 }) },
	}
}

// functionNames are the names that a template may call.
var functionNames = sync.OnceValue(func() []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(english.functions(show))), func(n string) bool { return n[0] == '_' })
	return slices.Sorted(slices.Values(append(names, builtin...)))
})

// skip says whether a function has nothing to do with a value: it is NULL, or a sample of unknown shape.
func skip(v any) bool {
	_, unknown := v.(Unknown)
	return v == nil || unknown
}

// text is what stands for a value that was skipped.
func text(v any) string {
	if v == nil {
		return ""
	}
	return Unknown{}.String()
}

// number groups thousands; with digits it rounds to so many behind the point.
func (l *locale) number(v any, digits ...int) (string, error) {
	if skip(v) {
		return text(v), nil
	}
	d, err := asNumber(v)
	if err != nil {
		return "", err
	}
	const most = 30
	switch {
	case len(digits) > 1 || len(digits) == 1 && (digits[0] < 0 || digits[0] > most):
		return "", fmt.Errorf("the digits behind the point are one number from 0 to %d", most)
	case len(digits) == 1:
		d, err = round(d, digits[0])
	}
	if err != nil {
		return "", err
	}
	return grouped(d), nil
}

// pluralOf chooses the word that goes with a number.
func (l *locale) pluralOf(n any, one, other string) (string, error) {
	if skip(n) {
		return other, nil
	}
	d, err := asNumber(n)
	if err != nil {
		return "", err
	}
	if l.plural(value.Equal(d, 1)) {
		return one, nil
	}
	return other, nil
}

// orElse is the value, or the fallback where it is NULL or empty.
func orElse(fallback, v any) any {
	if v == nil || v == "" {
		return fallback
	}
	return v
}

func (l *locale) join(separator string, v any) (string, error) {
	if skip(v) {
		return text(v), nil
	}
	list, ok := v.([]any)
	if !ok {
		return "", fmt.Errorf("%s is no list", kind(v))
	}
	parts := make([]string, 0, len(list))
	for _, element := range list {
		if element == nil {
			continue
		}
		s, err := show(l, element)
		if err != nil {
			return "", err
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, separator), nil
}

// concat prints its arguments one behind the other.
func (l *locale) concat(vs ...any) (string, error) {
	var b strings.Builder
	for _, v := range vs {
		s, err := show(l, v)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func onText(v any, f func(string) string) (string, error) {
	if skip(v) {
		return text(v), nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is no text", kind(v))
	}
	return f(s), nil
}

// initial is the first character, in upper case where there is one: J of Jane, 박 of 박서준.
func initial(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:size])
}

// get reads a part that may be absent: of a row, a JSON object or a list. What is not there is NULL, and so is a part of NULL.
func get(v any, path ...any) (any, error) {
	if len(path) == 0 {
		return nil, errors.New("there is nothing to read" + hintMark + `write (get .message "phone")`)
	}
	for _, key := range path {
		switch at := v.(type) {
		case nil:
			return nil, nil
		case Unknown:
			return Unknown{}, nil
		case map[string]any:
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("%s is no name", kind(key))
			}
			v = at[name]
		case []any:
			v = element(len(at), key, func(i int) any { return at[i] })
		case []map[string]any:
			v = element(len(at), key, func(i int) any { return at[i] })
		default:
			return nil, fmt.Errorf("%s has no parts", kind(v))
		}
	}
	return v, nil
}

func element(n int, key any, at func(int) any) any {
	if i, ok := key.(int); ok && i >= 0 && i < n {
		return at(i)
	}
	return nil
}

// dict makes one value of several, for a block that needs more than one.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, errors.New("names and values stand in turn" + hintMark + `write (dict "label" "…" "href" .url)`)
	}
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("%s is no name", kind(pairs[i]))
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}

func length(v any) (int, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case Unknown:
		return 1, nil
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case []map[string]any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return 0, fmt.Errorf("%s has no length", kind(v))
}

// rows lets a range loop over lists and objects only: over a number it might loop for ever.
func rows(v any) (any, error) {
	switch v.(type) {
	case nil, []any, []map[string]any, map[string]any:
		return v, nil
	case Unknown:
		return []any{v}, nil
	}
	return nil, fmt.Errorf("range takes a list; this is %s", kind(v))
}

// some is nil for an exact zero, which Go's templates would take for true, and otherwise the value.
func some(v any) any {
	if d, ok := v.(*value.Decimal); ok && d.IsZero() {
		return nil
	}
	return v
}

func isTrue(v any) bool {
	truth, _ := template.IsTrue(some(v))
	return truth
}

// equal says whether the first value is one of the others. NULL equals NULL and nothing else.
func equal(a any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, errors.New("there is nothing to compare with")
	}
	for _, b := range others {
		if !alike(a, b) {
			return false, fmt.Errorf("%s is never equal to %s", kind(a), kind(b))
		}
		if value.Equal(a, b) {
			return true, nil
		}
	}
	return false, nil
}

// alike says whether two values may be compared at all: they are of one kind, or one of them fits every kind.
func alike(a, b any) bool {
	_, aEnd := a.(value.Infinity)
	_, bEnd := b.(value.Infinity)
	return skip(a) || skip(b) || aEnd || bEnd || kind(a) == kind(b)
}

// ordered is false where either side is NULL.
func ordered(a, b any, holds func(int) bool) (bool, error) {
	if skip(a) || skip(b) {
		return false, nil
	}
	c, ok := value.Compare(a, b)
	if !ok {
		return false, fmt.Errorf("%s cannot be compared with %s", kind(a), kind(b))
	}
	return holds(c), nil
}

// kind is what a person calls a value's type. Errors name it and never the value, which may be sensitive.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "NULL"
	case bool:
		return "yes or no"
	case int, int64, float64, *value.Decimal:
		return "a number"
	case string:
		return "text"
	case time.Time:
		return "a time"
	case value.Date, value.LocalTime:
		return "a date without time zone"
	case value.Infinity:
		return "infinity"
	case []byte:
		return "bytes"
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}
