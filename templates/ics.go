package templates

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postman/value"
)

// What a value prints in calendar text stands between these two until its line is whole: how it is escaped depends on where it stands. Neither
// can be in a value, nor in a calendar (RFC 5545 §3.1, CONTROL).
const (
	valueBegins = '\x02'
	valueEnds   = '\x03'
)

// showICS is show for calendar text: no value can end a line, begin a property or a parameter of its own, or close a quote.
func showICS(l *locale, v any) (string, error) {
	s, err := show(l, v)
	if err != nil {
		return "", err
	}
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(s, "\ufffd"))
	return string(valueBegins) + strings.Map(printable, s) + string(valueEnds), nil
}

// printable leaves out the control characters that a calendar must not have.
func printable(r rune) rune {
	if unicode.IsControl(r) && r != '\n' && r != '\t' {
		return ' '
	}
	return r
}

// escapeText writes a text value of RFC 5545 §3.3.11.
var escapeText = strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\n", `\n`)

// escapeParam writes what a parameter's quoted value must not have (RFC 6868).
var escapeParam = strings.NewReplacer("^", "^^", `"`, "^'", "\n", "^n")

// icsTime is an instant as RFC 5545 §3.3.5 writes it in UTC, a timestamp without zone as local time (form 1), and a day as a date.
func icsTime(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case Unknown:
		return "20060102T150405Z", nil
	case time.Time:
		return v.UTC().Format("20060102T150405Z"), nil
	case value.LocalTime:
		return v.Format("20060102T150405"), nil
	case value.Date:
		return v.Format("20060102"), nil
	case value.Infinity:
		return "", fmt.Errorf("a calendar has no day that is %s", v)
	}
	return "", notTime(v)
}

// rawLines are the lines of calendar text, values still marked, without the white space around them and without those that are empty: the block
// may be indented, and {{with}} and {{end}} may stand on lines of their own.
func rawLines(text string) (lines []string) {
	within, from := false, 0
	take := func(end int) {
		line := strings.TrimSpace(text[from:end])
		if strings.Trim(line, string(valueBegins)+string(valueEnds)) != "" {
			lines = append(lines, line)
		}
		from = end + 1
	}
	for i, r := range text {
		switch {
		case r == valueBegins, r == valueEnds:
			within = r == valueBegins
		case !within && (r == '\n' || r == '\r'):
			take(i)
		}
	}
	if from < len(text) {
		take(len(text))
	}
	return lines
}

// foldLine ends a line with CRLF, and folds it where it is longer than 75 octets (RFC 5545 §3.1), never inside a character.
func foldLine(b *strings.Builder, line string) {
	const most = 75
	room := most
	for len(line) > room {
		cut := room
		for !utf8.RuneStart(line[cut]) {
			cut--
		}
		b.WriteString(line[:cut] + "\r\n ")
		line, room = line[cut:], most-1
	}
	b.WriteString(line + "\r\n")
}
