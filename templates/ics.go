package templates

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"postman/value"
)

// escapeICS writes a text value of RFC 5545 §3.3.11.
var escapeICS = strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\r\n", `\n`, "\n", `\n`, "\r", `\n`)

// showICS is show for calendar text: no value can end a line and begin a property of its own.
func showICS(l *locale, v any) (string, error) {
	s, err := show(l, v)
	return escapeICS.Replace(s), err
}

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

// foldICS ends lines with CRLF, drops empty ones, and folds those longer than 75 octets (RFC 5545 §3.1), never inside a character.
func foldICS(text string) string {
	var b strings.Builder
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if line = strings.TrimSpace(line); line != "" {
			foldLine(&b, line)
		}
	}
	return b.String()
}

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
