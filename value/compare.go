package value

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/apd/v3"
)

// Compare orders two decoded values as Postgres does: numbers by exact value whatever their types, NaN above
// all numbers and equal to itself, text by bytes, false before true, infinities outside all times.
// It reports false where there is no order between the two: a NULL, different kinds, JSON objects.
func Compare(a, b any) (int, bool) {
	if x, ok := number(a); ok {
		y, ok := number(b)
		if !ok {
			return 0, false
		}
		return compareNumbers(x, y), true
	}
	if x, ok := moment(a); ok {
		y, ok := moment(b)
		if !ok || !comparable(a, b) {
			return 0, false
		}
		return x.compare(y), true
	}
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return cmp.Compare(a, b), ok
	case []byte:
		b, ok := b.([]byte)
		return bytes.Compare(a, b), ok
	case bool:
		b, ok := b.(bool)
		return cmp.Compare(bit(a), bit(b)), ok
	case []any:
		b, ok := b.([]any)
		if !ok {
			return 0, false
		}
		return compareLists(a, b)
	}
	return 0, false
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareLists(a, b []any) (int, bool) {
	for i := range min(len(a), len(b)) {
		if Equal(a[i], b[i]) {
			continue
		}
		return Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b)), true
}

// Equal is SQL's IS NOT DISTINCT FROM: NULL equals NULL and nothing else. Values of different kinds differ.
func Equal(a, b any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if x, ok := a.(map[string]any); ok {
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, Equal)
	}
	if x, ok := a.([]any); ok {
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, Equal)
	}
	c, ok := Compare(a, b)
	return ok && c == 0
}

// number returns the exact value of a number of any of our types.
func number(v any) (*apd.Decimal, bool) {
	switch v := v.(type) {
	case *apd.Decimal:
		return v, true
	case int64:
		return apd.New(v, 0), true
	case int:
		return apd.New(int64(v), 0), true
	case float64:
		return exactFloat(v), true
	}
	return nil, false
}

// exactFloat is the number that Postgres prints for a float8: the shortest that reads back as the same float.
func exactFloat(f float64) *apd.Decimal {
	switch {
	case math.IsNaN(f):
		return &apd.Decimal{Form: apd.NaN}
	case math.IsInf(f, 0):
		return &apd.Decimal{Form: apd.Infinite, Negative: f < 0}
	}
	d, err := new(apd.Decimal).SetFloat64(f)
	if err != nil {
		return &apd.Decimal{Form: apd.NaN}
	}
	return d
}

func compareNumbers(a, b *apd.Decimal) int {
	aNaN, bNaN := a.Form == apd.NaN, b.Form == apd.NaN
	if aNaN || bNaN {
		return cmp.Compare(bit(aNaN), bit(bNaN))
	}
	return a.Cmp(b)
}

// point is a time on a line that has two ends.
type point struct {
	end Infinity
	t   time.Time
}

func moment(v any) (point, bool) {
	switch v := v.(type) {
	case time.Time:
		return point{t: v}, true
	case Date:
		return point{t: v.Time}, true
	case LocalTime:
		return point{t: v.Time}, true
	case Infinity:
		return point{end: v}, true
	}
	return point{}, false
}

func (p point) compare(q point) int {
	if p.end != 0 || q.end != 0 {
		return cmp.Compare(p.end, q.end)
	}
	return p.t.Compare(q.t)
}

// comparable says whether two moments stand on the same line. A day and a wall clock do (the day is its
// midnight); an instant needs a zone to be compared with either, and there is none here.
func comparable(a, b any) bool {
	_, aInstant := a.(time.Time)
	_, bInstant := b.(time.Time)
	_, aEnd := a.(Infinity)
	_, bEnd := b.(Infinity)
	return aEnd || bEnd || aInstant == bInstant
}
