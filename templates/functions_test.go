package templates

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postman/value"
)

func TestFunctions(t *testing.T) {
	t.Parallel()
	data := Data{
		"null": nil, "n": int64(1234567), "one": int64(1), "price": decimal(t, "1250000000"), "cents": decimal(t, "1234.565"), "neg": decimal(t, "-0.004"),
		"nan": decimal(t, "NaN"), "inf": decimal(t, "-Infinity"), "big": decimal(t, "1E+20"), "float": 2.5,
		"name": "박서준", "latin": "éva", "at": moment, "day": value.Date{Time: moment.Truncate(24 * 3600e9)}, "end": value.Infinity(-1),
		"list": []any{"가", int64(2)}, "rows": []map[string]any{{"id": int64(7)}}, "json": map[string]any{"a": []any{map[string]any{"b": "x"}}},
		"unknown": Unknown{},
	}
	for _, c := range []struct{ call, ko, en string }{
		{`money .price "KRW"`, "1,250,000,000원", "₩1,250,000,000"},
		{`money .cents "KRW"`, "1,235원", "₩1,235"},
		{`money .cents "USD"`, "$1,234.57", "$1,234.57"},
		{`money .neg "USD"`, "$0.00", "$0.00"},
		{`money -5 "EUR"`, "-€5.00", "-€5.00"},
		{`money 5.5 "CHF"`, "CHF 5.50", "CHF 5.50"},
		{`money .big "JPY"`, "¥100,000,000,000,000,000,000", "¥100,000,000,000,000,000,000"},
		{`money .nan "KRW"`, "NaN원", "₩NaN"},
		{`money .null "KRW"`, "", ""},
		{`won .price`, "12억 5,000만원", "₩1,250,000,000"},
		{`won 100000000`, "1억원", "₩100,000,000"},
		{`won 50000000`, "5,000만원", "₩50,000,000"},
		{`won 9500`, "9,500원", "₩9,500"},
		{`won 123456789`, "1억 2,345만 6,789원", "₩123,456,789"},
		{`won 10001`, "1만 1원", "₩10,001"},
		{`won 1000000000000`, "1조원", "₩1,000,000,000,000"},
		{`won .big`, "10,000경원", "₩100,000,000,000,000,000,000"},
		{`won 0`, "0원", "₩0"},
		{`won -350000`, "-35만원", "-₩350,000"},
		{`won .inf`, "-Infinity원", "-₩Infinity"},
		{`won .null`, "", ""},
		{`number .n`, "1,234,567", "1,234,567"},
		{`number .cents 2`, "1,234.57", "1,234.57"},
		{`number .cents`, "1,234.565", "1,234.565"},
		{`number .neg 2`, "0.00", "0.00"},
		{`number .big`, "100,000,000,000,000,000,000", "100,000,000,000,000,000,000"},
		{`number .float 0`, "3", "3"},
		{`number 999`, "999", "999"},
		{`number .null`, "", ""},
		{`date .at`, "2026년 3월 4일", "March 4, 2026"},
		{`date .day`, "2026년 3월 4일", "March 4, 2026"},
		{`day .at`, "3월 4일 (수)", "Wed, March 4"},
		{`time .at`, "오후 3:30", "3:30 PM"},
		{`datetime .at`, "2026년 3월 4일 (수) 오후 3:30", "Wed, March 4, 2026, 3:30 PM"},
		{`weekday .at`, "수요일", "Wednesday"},
		{`weekday .day`, "수요일", "Wednesday"},
		{`weekday .null`, "", ""},
		{`zone .at`, "KST", "KST"},
		{`date .end`, "-infinity", "-infinity"},
		{`weekday .end`, "-infinity", "-infinity"},
		{`icstime .at`, "20260304T063000Z", "20260304T063000Z"},
		{`icstime .day`, "20260304", "20260304"},
		{`plural .one "listing" "listings"`, "listings", "listing"},
		{`plural .n "listing" "listings"`, "listings", "listings"},
		{`plural 1.0 "a" "b"`, "b", "a"},
		{`plural .null "a" "b"`, "b", "b"},
		{`default "없음" .null`, "없음", "없음"},
		{`.name | default "없음"`, "박서준", "박서준"},
		{`join " · " .list`, "가 · 2", "가 · 2"},
		{`join "," .null`, "", ""},
		{`print .name " " .n " " .null`, "박서준 1234567 ", "박서준 1234567 "},
		{`upper .latin`, "ÉVA", "ÉVA"},
		{`lower "ABC"`, "abc", "abc"},
		{`initial .latin`, "É", "É"},
		{`initial .name`, "박", "박"},
		{`initial ""`, "", ""},
		{`get .json "a" 0 "b"`, "x", "x"},
		{`get .json "a" 1 "b"`, "", ""},
		{`get .json "b" "c"`, "", ""},
		{`get .rows 0 "id"`, "7", "7"},
		{`get .null "x"`, "", ""},
		{`money .unknown "KRW"`, "…", "…"},
		{`won .unknown`, "…", "…"},
		{`date .unknown`, "…", "…"},
		{`number .unknown`, "…", "…"},
		{`upper .unknown`, "…", "…"},
		{`eq .unknown 1`, "false", "false"},
		{`lt .unknown "a"`, "false", "false"},
		{`locale`, "ko", "en"},
	} {
		t.Run(c.call, func(t *testing.T) {
			t.Parallel()
			for tag, want := range map[string]string{"ko": c.ko, "en": c.en} {
				s := load(t, map[string]string{
					"_l.html": `{{define "locale"}}` + tag + `{{end}}`,
					"m.html":  whole("x") + `{{define "text"}}|{{` + c.call + `}}|{{end}}`,
				})
				m, err := s.Render("m", Context{Zone: seoul}, data)
				if err != nil || m.Text != "|"+want+"|\n" {
					t.Errorf("%s in %s is %q, %v; want %q", c.call, tag, m.Text, err, want)
				}
			}
		})
	}
}

func TestFunctionErrors(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]string{
		`won "x"`:            `won: text is no number`,
		`number 1 31`:        `number: the digits behind the point are one number from 0 to 30`,
		`number 1 -1`:        `number: the digits behind the point are one number from 0 to 30`,
		`number 1 1 1`:       `number: the digits behind the point are one number from 0 to 30`,
		`time .day`:          `time: a date has no time of day`,
		`zone .day`:          `zone: a date or timestamp without time zone has none to name`,
		`date 5`:             `date: a number is no date or time`,
		`weekday true`:       `weekday: yes or no is no date or time`,
		`upper 5`:            `upper: a number is no text`,
		`join "," "x"`:       `join: text is no list`,
		`len 5`:              `len: a number has no length`,
		`get . `:             `get: there is nothing to read`,
		`get "x" "y"`:        `get: text has no parts`,
		`get . 1`:            `get: a number is no name`,
		`len (dict "a")`:     `dict: names and values stand in turn`,
		`len (dict 1 2)`:     `dict: a number is no name`,
		`eq 1`:               `eq: there is nothing to compare with`,
		`lt "a" 1`:           `lt: text cannot be compared with a number`,
		`plural "x" "a" "b"`: `plural: text is no number`,
		`icstime "x"`:        `icstime: text is no date or time`,
	} {
		s := load(t, map[string]string{"m.html": whole(`{{` + call + `}}`)})
		_, err := s.Render("m", Context{}, Data{"day": value.Date{Time: moment}})
		if err == nil || !strings.HasPrefix(err.Error(), "m.html:1:") || !strings.Contains(err.Error(), ": "+want+"\n") {
			t.Errorf("%s: error is %v; want %s", call, err, want)
		}
	}
}

// Amounts in 억 and 만 add up to the number.
func TestInUnits(t *testing.T) {
	t.Parallel()
	worth := map[rune]int64{'만': 1e4, '억': 1e8, '조': 1e12, '경': 1e16}
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[1-9][0-9]{0,25}`).Draw(t, "digits")
		sum := new(big.Int)
		for part := range strings.SplitSeq(inUnits(digits), " ") {
			unit := int64(1)
			number := strings.TrimRightFunc(part, func(r rune) bool {
				if w, ok := worth[r]; ok {
					unit = w
				}
				return worth[r] != 0
			})
			n, ok := new(big.Int).SetString(strings.ReplaceAll(number, ",", ""), 10)
			if !ok || n.Sign() == 0 {
				t.Fatalf("part %q of %q", part, inUnits(digits))
			}
			sum.Add(sum, n.Mul(n, big.NewInt(unit)))
		}
		if sum.String() != digits {
			t.Fatalf("%s is written %s", digits, inUnits(digits))
		}
	})
}

// round agrees with rational arithmetic, and grouped loses no digit.
func TestRound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?[0-9]{1,30}(\.[0-9]{1,12})?`).Draw(t, "number")
		digits := rapid.IntRange(0, 8).Draw(t, "digits")
		d, err := value.ParseDecimal(text)
		if err != nil {
			t.Fatal(err)
		}
		rounded, err := round(d, digits)
		if err != nil {
			t.Fatal(err)
		}
		exact, _ := new(big.Rat).SetString(text)
		want := exact.FloatString(digits) // rounds halves away from zero
		if strings.Trim(want, "-0.") == "" {
			want = strings.TrimPrefix(want, "-")
		}
		if got := strings.ReplaceAll(grouped(rounded), ",", ""); got != want {
			t.Fatalf("%s to %d digits is %s, want %s", text, digits, got, want)
		}
	})
}
