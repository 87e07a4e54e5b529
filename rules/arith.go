package rules

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
)

// digits bounds the numbers that arithmetic yields, so that no row and no message makes a rule slow. A sum, difference or
// product is exact or, beyond the bound, NULL.
const digits = 1000

var exactly = &apd.Context{Precision: digits, MaxExponent: digits, MinExponent: -digits, Rounding: apd.RoundHalfUp}

// quotient rounds to 40 digits, half away from zero.
var quotient = &apd.Context{Precision: 40, MaxExponent: digits, MinExponent: -digits, Rounding: apd.RoundHalfUp}

// decimal is the exact value of a number; nil of anything else.
func decimal(v any) *apd.Decimal {
	switch v := v.(type) {
	case int64:
		return apd.New(v, 0)
	case *apd.Decimal:
		return v
	case float64:
		return floatDecimal(v)
	}
	return nil
}

// floatDecimal is the number that Postgres prints for a float, with which it is also compared (see value.Compare).
func floatDecimal(f float64) *apd.Decimal {
	switch {
	case math.IsNaN(f):
		return &apd.Decimal{Form: apd.NaN}
	case math.IsInf(f, 0):
		return &apd.Decimal{Form: apd.Infinite, Negative: f < 0}
	}
	d, _, err := apd.NewFromString(strconv.FormatFloat(f, 'g', -1, 64))
	if err != nil {
		return nil
	}
	return d
}

// calculate is + - * / % on two numbers; NULL on anything else.
func calculate(operator string) *function {
	return &function{name: operator, do: func(a, b any) any {
		if x, ok := a.(int64); ok {
			if y, ok := b.(int64); ok {
				if z, ok := whole(operator, x, y); ok {
					return z
				}
			}
		}
		x, y := decimal(a), decimal(b)
		if x == nil || y == nil {
			return nil
		}
		return exact(operator, x, y)
	}}
}

// whole calculates in int64 where that is exact.
func whole(operator string, x, y int64) (int64, bool) {
	switch operator {
	case "+":
		z := x + y
		return z, (z > x) == (y > 0)
	case "-":
		z := x - y
		return z, (z < x) == (y > 0)
	case "*":
		const half = math.MaxInt32
		return x * y, -half <= x && x <= half && -half <= y && y <= half
	case "%":
		if y == 0 || y == -1 { // the latter would overflow
			return 0, y == -1
		}
		return x % y, true
	}
	return 0, false
}

func exact(operator string, x, y *apd.Decimal) any {
	if (operator == "/" || operator == "%") && y.IsZero() || tooLong(x) || tooLong(y) {
		return nil
	}
	z, context := new(apd.Decimal), exactly
	var condition apd.Condition
	var err error
	switch operator {
	case "+":
		condition, err = context.Add(z, x, y)
	case "-":
		condition, err = context.Sub(z, x, y)
	case "*":
		condition, err = context.Mul(z, x, y)
	case "%":
		condition, err = context.Rem(z, x, y)
	case "/":
		context = quotient
		condition, err = context.Quo(z, x, y)
	}
	if err != nil || condition.Overflow() || condition.Underflow() || condition.Inexact() && context == exactly || condition.DivisionImpossible() {
		return nil
	}
	return z
}

// tooLong says that a number has more digits, before or behind its point, than arithmetic takes.
func tooLong(d *apd.Decimal) bool {
	if d.Form != apd.Finite {
		return false
	}
	return d.NumDigits()+int64(d.Exponent) > digits || -int64(d.Exponent) > digits || d.NumDigits() > digits
}

// absolute is abs; NULL of what is no number.
func absolute(a, _ any) any {
	if x, ok := a.(int64); ok && x != math.MinInt64 {
		return max(x, -x)
	}
	d := decimal(a)
	if d == nil {
		return nil
	}
	return new(apd.Decimal).Abs(d)
}

// negative is the minus before a number.
var negative = &function{name: "-", do: func(a, _ any) any { return calculate("-").do(int64(0), a) }}

// length is len: the characters of a text, the items of a list, the keys of an object.
func length(a, _ any) any {
	switch a := a.(type) {
	case string:
		return int64(utf8.RuneCountInString(a))
	case []any:
		return int64(len(a))
	case map[string]any:
		return int64(len(a))
	}
	return nil
}

// textual makes a function on text total: of anything else it is NULL.
func textual(do func(string) string) func(a, b any) any {
	return func(a, _ any) any {
		if s, ok := a.(string); ok {
			return do(s)
		}
		return nil
	}
}

// textTest makes a test of two texts total: of anything else it is false.
func textTest(do func(a, b string) bool) func(a, b any) any {
	return func(a, b any) any {
		x, ok1 := a.(string)
		y, ok2 := b.(string)
		return ok1 && ok2 && do(x, y)
	}
}

// longestText bounds the texts that + yields, in bytes, so that a long value and a rule that says new.x + new.x + new.x … do not take
// the memory. What would be longer is NULL, as a number is that would have too many digits.
const longestText = 1 << 20

// plus is + on texts, as far as an expression types them; on two JSON values it is whatever they are.
var plus = &function{name: "+", do: func(a, b any) any {
	x, ok1 := a.(string)
	y, ok2 := b.(string)
	switch {
	case ok1 && ok2 && len(x)+len(y) > longestText:
		return nil
	case ok1 && ok2:
		return x + y
	}
	return calculate("+").do(a, b)
}}

// ordered is < <= > >=; false where there is no order.
func ordered(holds func(c int) bool) func(a, b any) any {
	return func(a, b any) any {
		c, ok := order(a, b)
		return ok && holds(c)
	}
}
