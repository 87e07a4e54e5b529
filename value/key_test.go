package value

import (
	"bytes"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyValue draws values of all types that Decode yields, from so few that many are equal.
func anyValue(depth int) *rapid.Generator[any] {
	texts := rapid.SampledFrom([]string{"", "a", "b", "ab", "1", "null", "s\x01a", "n\x03", "\x00", "a,b", `"`, "한글"})
	at := rapid.Custom(func(t *rapid.T) time.Time {
		zone := rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("KST", 9*60*60)}).Draw(t, "zone")
		return time.Unix(rapid.SampledFrom([]int64{0, 86400, -210866803200, 253402300800}).Draw(t, "seconds"), rapid.SampledFrom([]int64{0, 1000}).Draw(t, "ns")).In(zone)
	})
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), texts.AsAny(), rapid.SampledFrom([]int64{0, 1, -1, 10, math.MaxInt64, math.MinInt64}).AsAny(),
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, 10, 0.1, 1e300, math.NaN(), math.Inf(1), math.Inf(-1)}).AsAny(),
		rapid.Map(rapid.SampledFrom([]string{"0", "-0.00", "1", "1.00", "10", "1e1", "0.1", "0.10", "9223372036854775807", "9223372036854775807.0", "1e300", "NaN", "Infinity", "-Infinity", "123456789012345678901234567890", "123456789012345678901234567890.0"}),
			func(s string) any { return decimalOf(s) }),
		rapid.Map(texts, func(s string) any { return []byte(s) }), at.AsAny(), rapid.Map(at, func(at time.Time) any { return LocalTime{at.UTC()} }),
		rapid.Map(at, func(at time.Time) any { return Date{at.UTC().Truncate(24 * time.Hour)} }), rapid.SampledFrom([]Infinity{1, -1}).AsAny(),
	}
	if depth > 0 {
		kinds = append(kinds, rapid.SliceOfN(anyValue(depth-1), 0, 3).AsAny(), rapid.MapOfN(texts, anyValue(depth-1), 0, 3).AsAny())
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

// TestKey holds the promise: values have the same key if and only if they are equal.
func TestKey(t *testing.T) {
	t.Parallel()
	key := func(t *rapid.T, v any) []byte {
		k, err := AppendKey(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	equal := 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyValue(2).Draw(t, "a"), anyValue(2).Draw(t, "b")
		same := Equal(a, b)
		if same {
			equal++
		}
		if bytes.Equal(key(t, a), key(t, b)) != same {
			t.Fatalf("%#v and %#v: equal is %v, and the keys are %q and %q", a, b, same, key(t, a), key(t, b))
		}
		if x, y := key(t, a), key(t, b); !same && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
			t.Fatalf("%q and %q: one begins the other", x, y)
		}
	})
	if equal == 0 {
		t.Error("no two values were equal")
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
