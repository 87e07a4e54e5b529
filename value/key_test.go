package value

import (
	"bytes"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// scalars are values of all types that have no parts, many of them equal to one of another type or form.
func scalars() (all []any) {
	all = append(all, nil, false, true, Infinity(1), Infinity(-1))
	for _, text := range []string{"", "a", "b", "ab", "1", "null", "s\x01a", "n\x03", "\x00", "a,b", `"`, "한글", "infinity", "nan"} {
		all = append(all, text, []byte(text))
	}
	for _, n := range []int64{0, 1, -1, 10, math.MaxInt64, math.MinInt64} {
		all = append(all, n)
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 1, 10, 0.1, 1e300, math.NaN(), math.Inf(1), math.Inf(-1)} {
		all = append(all, f)
	}
	for _, d := range []string{
		"0", "-0.00", "1", "1.00", "-1.0", "10", "1e1", "0.1", "0.10", "9223372036854775807", "9223372036854775807.0", "1e300", "NaN", "Infinity", "-Infinity",
		"123456789012345678901234567890", "123456789012345678901234567890.0", "12345678901234567890123456789.0",
	} {
		all = append(all, decimalOf(d))
	}
	for _, seconds := range []int64{0, 86400, -210866803200, 253402300800} {
		for _, ns := range []int64{0, 1000} {
			at := time.Unix(seconds, ns)
			all = append(all, at.UTC(), at.In(time.FixedZone("KST", 9*60*60)), LocalTime{at.UTC()}, Date{at.UTC().Truncate(24 * time.Hour)})
		}
	}
	return all
}

// anyValue draws a value with parts, or without.
func anyValue(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{rapid.SampledFrom(scalars())}
	if depth > 0 {
		few := rapid.SampledFrom([]any{int64(1), decimalOf("1.00"), "1", nil})
		inner := rapid.OneOf(few, anyValue(depth-1))
		kinds = append(kinds, rapid.SliceOfN(inner, 0, 2).AsAny(), rapid.MapOfN(rapid.SampledFrom([]string{"", "a", "b"}), inner, 0, 2).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func decimalOf(s string) *Decimal {
	d, err := ParseDecimal(s)
	if err != nil {
		panic(err)
	}
	return d
}

// TestKey holds the promise: values have the same key if and only if they are equal, and no key begins another.
func TestKey(t *testing.T) {
	t.Parallel()
	all := scalars()
	for _, a := range all {
		for _, b := range all {
			checkKeys(t, a, b)
		}
	}
	rapid.Check(t, func(t *rapid.T) { checkKeys(t, anyValue(2).Draw(t, "a"), anyValue(2).Draw(t, "b")) })
}

func checkKeys(t interface{ Fatalf(string, ...any) }, a, b any) {
	x, err := AppendKey(nil, a)
	y, err2 := AppendKey(nil, b)
	if err != nil || err2 != nil {
		t.Fatalf("%#v, %#v: %v, %v", a, b, err, err2)
	}
	same := Equal(a, b)
	if bytes.Equal(x, y) != same {
		t.Fatalf("%#v and %#v: equal is %v, and the keys are %q and %q", a, b, same, x, y)
	}
	if !same && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
		t.Fatalf("%q and %q: one begins the other", x, y)
	}
}

func TestKeyRefuses(t *testing.T) {
	t.Parallel()
	for _, v := range []any{time.Hour, struct{}{}, []any{time.Hour}, map[string]any{"a": time.Hour}} {
		if k, err := AppendKey(nil, v); err == nil {
			t.Errorf("%#v has the key %q", v, k)
		}
	}
}
