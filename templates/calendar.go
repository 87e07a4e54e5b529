package templates

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// calendar is an iCalendar object (RFC 5545 §3.4) that a template's block ics has made.
type calendar struct {
	variant *variant
	lines   []*icsLine
	method  string // of RFC 5546; empty: it has none
}

// component is what stands between BEGIN and END.
type component struct {
	name  string
	begin *icsLine
	props map[string][]*icsLine
	parts []*component
}

// one is the first property of a name; nil: there is none.
func (c *component) one(name string) *icsLine {
	if all := c.props[name]; len(all) > 0 {
		return all[0]
	}
	return nil
}

// renderICS makes the object of what the block ics printed; nil: it printed nothing. What a mail program would not take is an error, which names
// the template's line.
func (v *variant) renderICS(printed string) (*calendar, error) {
	lines := rawLines(printed)
	if len(lines) == 0 {
		return nil, nil
	}
	c := &calendar{variant: v}
	for _, raw := range lines {
		l, message, hint := readICSLine(raw)
		if message == "" && strings.ContainsFunc(l.text(), func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			message, hint = "a line of a calendar entry has no control characters", "delete it"
		}
		if message != "" {
			return nil, c.mistake(l, message, hint)
		}
		c.lines = append(c.lines, l)
	}
	root, err := c.tree()
	if err != nil {
		return nil, err
	}
	return c, c.check(root)
}

// text is the object as it goes out.
func (c *calendar) text() string {
	var b strings.Builder
	for _, l := range c.lines {
		foldLine(&b, l.text())
	}
	return b.String()
}

// mistake names the line of the template that a line of the object was made of: the first in the block that begins as it does, or with its name. Where
// a shared block printed all of it, it is where the block begins.
func (c *calendar) mistake(l *icsLine, message, hint string) error {
	b := c.variant.blocks[blockICS]
	start := int(b.tree.Root.Pos)
	start += len(b.file.text[start:]) - len(strings.TrimLeft(b.file.text[start:], " \t\r\n"))
	for _, head := range []string{l.head, l.name} {
		for at := start; head != "" && at < len(b.file.text); {
			line, _, _ := strings.Cut(b.file.text[at:], "\n")
			if trimmed := strings.TrimLeft(line, " \t"); strings.HasPrefix(trimmed, head) {
				return b.file.at(at+len(line)-len(trimmed), message, hint)
			}
			at += len(line) + 1
		}
	}
	return b.file.at(start, message, hint)
}

// tree finds what belongs together between BEGIN and END.
func (c *calendar) tree() (*component, error) {
	var open []*component
	for i, l := range c.lines {
		name := strings.ToUpper(l.value)
		switch {
		case i == 0 && (l.name != "BEGIN" || name != "VCALENDAR"):
			return nil, c.mistake(l, "a calendar entry begins with BEGIN:VCALENDAR", "write that line first, and END:VCALENDAR last")
		case i > 0 && len(open) == 0:
			return nil, c.mistake(l, "something follows END:VCALENDAR", "a mail has one calendar entry: put it before that line, or delete it")
		case l.name == "BEGIN":
			open = append(open, &component{name: name, begin: l, props: make(map[string][]*icsLine)})
		case l.name != "END":
			of := open[len(open)-1]
			of.props[l.name] = append(of.props[l.name], l)
		case name != open[len(open)-1].name:
			return nil, c.mistake(l, fmt.Sprintf("END:%s stands where %s is still open", name, open[len(open)-1].name), "write END:"+open[len(open)-1].name+" before it")
		case len(open) == 1:
			if i == len(c.lines)-1 {
				return open[0], nil
			}
			open = open[:0]
		default:
			of := open[len(open)-2]
			of.parts = append(of.parts, open[len(open)-1])
			open = open[:len(open)-1]
		}
	}
	last := open[len(open)-1]
	return nil, c.mistake(last.begin, fmt.Sprintf("BEGIN:%s has no END:%[1]s", last.name), "write it behind the last line that belongs to it")
}

// icsEntries are the components that name themselves (RFC 5545 §3.6.1 to §3.6.4).
var icsEntries = []string{"VEVENT", "VTODO", "VJOURNAL", "VFREEBUSY"}

// check looks for what RFC 5545 §3.6 wants of an object and its components, and RFC 5546 §3.2 of a method, as far as mail programs make
// nothing of what lacks it.
func (c *calendar) check(root *component) error {
	if err := c.needs(root, "VERSION", "2.0", "PRODID", "-//Example//postman//EN"); err != nil {
		return err
	}
	if v := root.one("VERSION"); v.value != "2.0" {
		return c.mistake(v, "the version of a calendar entry is 2.0", "write VERSION:2.0")
	}
	if m := root.one("METHOD"); m != nil {
		if c.method = strings.ToUpper(m.value); !methodName.MatchString(c.method) {
			return c.mistake(m, "METHOD is one word", "write METHOD:PUBLISH, or REQUEST or CANCEL")
		}
	}
	if len(root.parts) == 0 {
		return c.mistake(root.begin, "the calendar entry is empty", "put BEGIN:VEVENT … END:VEVENT into it")
	}
	for _, part := range root.parts {
		if err := c.checkEntry(part); err != nil {
			return err
		}
	}
	return nil
}

// methodName is a token of RFC 5545 that is a token of RFC 2045 as well: it becomes a parameter of the part's Content-Type.
var methodName = regexp.MustCompile(`^[A-Z-]{1,30}$`)

func (c *calendar) checkEntry(e *component) error {
	if !slices.Contains(icsEntries, e.name) {
		return nil // a time zone, or one's own
	}
	if err := c.needs(e, "UID", "{{.new.id}}@example.com, which stays the same in all mails about the entry", "DTSTAMP", "{{icstime .commit_time}}"); err != nil {
		return err
	}
	if e.name == "VEVENT" && c.method != "CANCEL" {
		if err := c.needs(e, "DTSTART", "{{icstime .new.starts_at}}"); err != nil {
			return err
		}
	}
	if c.method == "REQUEST" || c.method == "CANCEL" {
		if err := c.needs(e, "ORGANIZER", "mailto:office@example.com, or METHOD:PUBLISH for an entry that nobody has to answer"); err != nil {
			return err
		}
	}
	if c.method == "REQUEST" {
		if err := c.needs(e, "ATTENDEE", "mailto:{{.to.email}}, or METHOD:PUBLISH for an entry that nobody has to answer"); err != nil {
			return err
		}
	}
	return c.checkValues(e)
}

// needs looks for properties, each with an example.
func (c *calendar) needs(of *component, names ...string) error {
	for i := 0; i < len(names); i += 2 {
		if of.one(names[i]) == nil {
			return c.mistake(of.begin, fmt.Sprintf("%s has no %s", of.name, names[i]), "add "+names[i]+":"+names[i+1])
		}
	}
	return nil
}

// icsOnce are the properties of which there is one.
var icsOnce = []string{"UID", "DTSTAMP", "DTSTART", "DTEND", "DUE", "SEQUENCE", "ORGANIZER", "SUMMARY", "LOCATION", "STATUS"}

// icsDated are those that are a moment or a day.
var icsDated = []string{"DTSTAMP", "DTSTART", "DTEND", "DUE", "RECURRENCE-ID"}

// The values of RFC 5545 §3.3.4, §3.3.5 and §3.3.8.
var (
	icsDay    = regexp.MustCompile(`^\d{8}$`)
	icsMoment = regexp.MustCompile(`^\d{8}T\d{6}Z?$`)
	icsNumber = regexp.MustCompile(`^\d{1,10}$`)
)

func (c *calendar) checkValues(e *component) error {
	for _, name := range icsOnce {
		if all := e.props[name]; len(all) > 1 {
			return c.mistake(all[1], fmt.Sprintf("%s has %s twice", e.name, name), "keep one of them")
		}
	}
	if uid := e.one("UID"); uid.value == "" {
		return c.empty(uid)
	}
	for _, name := range icsDated {
		for _, l := range e.props[name] {
			if err := c.checkMoment(l); err != nil {
				return err
			}
		}
	}
	if start, end := e.one("DTSTART"), e.one("DTEND"); start != nil && end != nil && (start.param("VALUE") == "DATE") != (end.param("VALUE") == "DATE") {
		return c.mistake(end, "DTSTART and DTEND are both days, or both moments", "write ;VALUE=DATE behind both or none of them")
	}
	if s := e.one("SEQUENCE"); s != nil && !icsNumber.MatchString(s.value) && !sampled(s.value) {
		if s.value == "" {
			return c.empty(s)
		}
		return c.mistake(s, "SEQUENCE is a whole number", "let it be 0 at first, and greater in each later mail that moves the entry")
	}
	return nil
}

func (c *calendar) checkMoment(l *icsLine) error {
	day := strings.EqualFold(l.param("VALUE"), "DATE")
	switch {
	case sampled(l.value):
		return nil
	case l.value == "":
		return c.empty(l)
	case l.name == "DTSTAMP" && (day || !icsMoment.MatchString(l.value) || !strings.HasSuffix(l.value, "Z")):
		return c.mistake(l, "DTSTAMP is a moment in UTC", "write DTSTAMP:{{icstime .commit_time}}")
	case day && icsDay.MatchString(l.value), !day && icsMoment.MatchString(l.value):
		return nil
	case icsDay.MatchString(l.value):
		return c.mistake(l, l.name+" is a day, and does not say so", "write "+l.name+";VALUE=DATE:")
	case day:
		return c.mistake(l, l.name+" says VALUE=DATE, and is no day", "leave ;VALUE=DATE out, or let a query make a date of it")
	}
	return c.mistake(l, l.name+" is no moment as calendars write it", "write "+l.name+":{{icstime .new.starts_at}}")
}

// empty is a value that is NULL. A sample of NULLs may well have it.
func (c *calendar) empty(l *icsLine) error {
	err := c.mistake(l, l.name+" is NULL here, and no entry can be without it", "put the whole entry into {{with …}} and {{end}}: the mail then goes without one")
	if m, ok := errors.AsType[*mistake](err); ok {
		m.empty = true
	}
	return err
}

// sampled says whether a value is made of one that is not known while the template is checked.
func sampled(v string) bool { return strings.Contains(v, Unknown{}.String()) }
