package templates

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"postman/value"
)

// asNumber reads a number of any of our types, exactly.
func asNumber(v any) (*value.Decimal, error) {
	switch v := v.(type) {
	case *value.Decimal:
		return v, nil
	case int64:
		return apd.New(v, 0), nil
	case int:
		return apd.New(int64(v), 0), nil
	case float64:
		return fromFloat(v)
	}
	return nil, fmt.Errorf("%s is no number%swhat is not one is shown as it is, by its name alone", kind(v), hintMark)
}

// fromFloat is the number that Postgres prints for a float8.
func fromFloat(f float64) (*value.Decimal, error) {
	switch {
	case math.IsNaN(f):
		return &value.Decimal{Form: apd.NaN}, nil
	case math.IsInf(f, 0):
		return &value.Decimal{Form: apd.Infinite, Negative: f < 0}, nil
	}
	return new(value.Decimal).SetFloat64(f)
}

// round is the number with so many digits behind the point, halves away from zero as in Postgres' round(numeric).
func round(d *value.Decimal, digits int) (*value.Decimal, error) {
	if d.Form != apd.Finite {
		return d, nil
	}
	precision := d.NumDigits() + int64(max(d.Exponent, 0)) + int64(digits) + 1
	c := apd.BaseContext.WithPrecision(uint32(precision))
	c.Rounding = apd.RoundHalfUp
	rounded := new(value.Decimal)
	if _, err := c.Quantize(rounded, d, -int32(digits)); err != nil {
		return nil, fmt.Errorf("rounding: %w", err)
	}
	if rounded.IsZero() {
		rounded.Negative = false
	}
	return rounded, nil
}

// plain prints a number in full, as Postgres prints numeric.
func plain(d *value.Decimal) string {
	switch d.Form {
	case apd.Finite:
		return d.Text('f')
	case apd.Infinite:
		if d.Negative {
			return "-Infinity"
		}
		return "Infinity"
	default:
		return "NaN"
	}
}

// grouped is plain with commas between thousands.
func grouped(d *value.Decimal) string {
	text := plain(d)
	if d.Form != apd.Finite {
		return text
	}
	sign := ""
	if text[0] == '-' {
		sign, text = "-", text[1:]
	}
	whole, fraction, hasFraction := strings.Cut(text, ".")
	var b strings.Builder
	b.WriteString(sign)
	for i, digit := range []byte(whole) {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(digit)
	}
	if hasFraction {
		b.WriteString("." + fraction)
	}
	return b.String()
}

// currencies have the digits of ISO 4217 and the sign that they are known by in every language here.
var currencies = map[string]struct {
	digits int
	sign   string
}{
	"KRW": {0, "₩"}, "JPY": {0, "¥"}, "VND": {0, "₫"}, "USD": {2, "$"}, "EUR": {2, "€"}, "GBP": {2, "£"}, "CNY": {2, "CN¥"},
}

// money is an amount rounded to its currency's digits: 5,000,000원 or ₩5,000,000, $1,250.50, CHF 12.00.
func (l *locale) money(v any, currency string) (string, error) {
	if skip(v) {
		return text(v), nil
	}
	d, err := asNumber(v)
	if err != nil {
		return "", err
	}
	c, ok := currencies[currency]
	if !ok {
		if len(currency) != 3 || strings.ToUpper(currency) != currency {
			return "", errors.New("that is no currency" + hintMark + `write a code such as "KRW" or "USD"`)
		}
		c.digits, c.sign = 2, currency+" "
	}
	d, err = round(d, c.digits)
	if err != nil {
		return "", err
	}
	if currency == "KRW" && l.wonAfter != "" {
		return grouped(d) + l.wonAfter, nil
	}
	return signed(d, c.sign), nil
}

// signed puts a currency's sign between the minus and the digits.
func signed(d *value.Decimal, sign string) string {
	if amount, negative := strings.CutPrefix(grouped(d), "-"); negative {
		return "-" + sign + amount
	}
	return sign + grouped(d)
}

// won is an amount of won as people say it: in Korean 12억 5,000만원, elsewhere as money.
func (l *locale) won(v any) (string, error) {
	if skip(v) || !l.units {
		return l.money(v, "KRW")
	}
	d, err := asNumber(v)
	if err != nil {
		return "", err
	}
	d, err = round(d, 0)
	if err != nil {
		return "", err
	}
	if d.Form != apd.Finite {
		return l.money(v, "KRW")
	}
	amount, negative := strings.CutPrefix(plain(d), "-")
	text := inUnits(amount) + "원"
	if negative {
		text = "-" + text
	}
	return text, nil
}

// inUnits splits the digits of a whole number at each ten thousand: 123456789 is 1억 2,345만 6,789.
func inUnits(digits string) string {
	units := []string{"", "만", "억", "조", "경"}
	var parts []string
	for i := 0; digits != ""; i++ {
		cut := max(len(digits)-4, 0)
		if i == len(units)-1 {
			cut = 0 // all that is left
		}
		group := strings.TrimLeft(digits[cut:], "0")
		if digits = digits[:cut]; group != "" {
			d, _, _ := apd.NewFromString(group)
			parts = append([]string{grouped(d) + units[i]}, parts...)
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, " ")
}
