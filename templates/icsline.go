package templates

import (
	"slices"
	"strings"
)

// icsLine is a content line of RFC 5545 §3.1.
type icsLine struct {
	name   string // in capitals
	params []icsParam
	value  string // as it goes out
	head   string // what the template itself has before the line's first value, which finds the line there
}

type icsParam struct {
	name   string // in capitals
	values []string
	quoted []bool
}

// param is the first value of a parameter; empty: it is not there.
func (l *icsLine) param(name string) string {
	for _, p := range l.params {
		if p.name == name {
			return p.values[0]
		}
	}
	return ""
}

// text is the line as it goes out, not yet folded.
func (l *icsLine) text() string {
	var b strings.Builder
	b.WriteString(l.name)
	for _, p := range l.params {
		b.WriteString(";" + p.name)
		for i, v := range p.values {
			b.WriteByte("=,"[min(i, 1)])
			if p.quoted[i] || strings.ContainsAny(v, ",;:") {
				v = `"` + v + `"`
			}
			b.WriteString(v)
		}
	}
	b.WriteString(":" + l.value)
	return b.String()
}

// icsLinked are the properties whose value is an address of the web or of a mailbox: nothing in it is escaped (RFC 5545 §3.3.3, §3.3.13).
var icsLinked = []string{"ATTACH", "ATTENDEE", "CONFERENCE", "IMAGE", "ORGANIZER", "SOURCE", "TZURL", "URL"}

// readICSLine reads a line whose values are marked, and escapes these for the place where they stand. The message is what is wrong with it.
func readICSLine(raw string) (l *icsLine, message, hint string) {
	s := &icsScanner{rest: raw}
	l = &icsLine{}
	l.head, _, _ = strings.Cut(raw, string(valueBegins))
	if l.name = strings.ToUpper(s.word()); l.name == "" {
		return l, "a line of a calendar entry begins with the name of a property", "write NAME:value; a long line is folded for you, and goes on in no other"
	}
	for s.skip(';') {
		p := icsParam{name: strings.ToUpper(s.word())}
		if p.name == "" || !s.skip('=') {
			return l, "behind the semicolon of " + l.name + " stands no parameter", "write " + l.name + ";PARAMETER=value:…"
		}
		for more := true; more; more = s.skip(',') {
			v, quoted, ok := s.paramValue()
			if !ok {
				return l, "quotes stand around the whole value of the parameter " + p.name + ", or not at all", "write " + p.name + `="value"`
			}
			p.values, p.quoted = append(p.values, v), append(p.quoted, quoted)
		}
		l.params = append(l.params, p)
	}
	if !s.skip(':') {
		return l, "there is no colon behind " + l.name, "write " + l.name + ":value"
	}
	l.value = s.value(slices.Contains(icsLinked, l.name))
	return l, "", ""
}

// icsScanner reads a line from its beginning. Values are pieces of their own: no character of one is taken for a delimiter.
type icsScanner struct{ rest string }

// skip passes over a delimiter of the template's own.
func (s *icsScanner) skip(delimiter byte) bool {
	if s.rest == "" || s.rest[0] != delimiter {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// word is a name (RFC 5545 §3.1, iana-token and x-name).
func (s *icsScanner) word() string {
	n := 0
	for n < len(s.rest) && (s.rest[n] == '-' || s.rest[n] >= '0' && s.rest[n] <= '9' || s.rest[n]|0x20 >= 'a' && s.rest[n]|0x20 <= 'z') {
		n++
	}
	word := s.rest[:n]
	s.rest = s.rest[n:]
	return word
}

// until reads to one of some delimiters of the template's own, or the end; from a value it takes what escape makes of it.
func (s *icsScanner) until(delimiters string, escape func(string) string) string {
	var b strings.Builder
	for s.rest != "" && !strings.ContainsRune(delimiters, rune(s.rest[0])) {
		if s.rest[0] != valueBegins {
			b.WriteByte(s.rest[0])
			s.rest = s.rest[1:]
			continue
		}
		piece, rest, _ := strings.Cut(s.rest[1:], string(valueEnds))
		b.WriteString(escape(piece))
		s.rest = rest
	}
	return b.String()
}

func (s *icsScanner) paramValue() (v string, quoted, ok bool) {
	if !s.skip('"') {
		v = s.until(",;:", escapeParam.Replace)
		return v, false, !strings.Contains(v, `"`)
	}
	v = s.until(`"`, escapeParam.Replace)
	return v, true, s.skip('"')
}

func (s *icsScanner) value(link bool) string {
	if link {
		return s.until("", func(v string) string { return strings.ReplaceAll(v, "\n", "") })
	}
	return s.until("", escapeText.Replace)
}
