package templates

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postman/value"
)

// entry is a template with a calendar entry that has some lines.
func entry(lines string) map[string]string {
	return map[string]string{
		"_kind.html": `{{define "kind"}}{{.}}{{end}}`,
		"m.html": whole("b") + `{{define "ics"}}
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Example//postman//EN
METHOD:PUBLISH
BEGIN:VEVENT
UID:1@example.com
DTSTAMP:20260304T063000Z
DTSTART:{{icstime .at}}
` + lines + `
END:VEVENT
END:VCALENDAR
{{end}}`,
	}
}

// property is a content line as RFC 5545 §3.1 has it, read by hand: an oracle that shares nothing with what wrote it.
type property struct {
	name, value string
	params      map[string]string
}

// readICS reads an object strictly: line ends, folding, and what may stand where.
func readICS(t fataler, text string) (all []property) {
	t.Helper()
	for line := range strings.SplitAfterSeq(text, "\r\n") {
		if body := strings.TrimSuffix(line, "\r\n"); line != "" && (body == line || len(body) > 75 || strings.ContainsAny(body, "\r\n") || !utf8.ValidString(body)) {
			t.Fatalf("line %q of %d octets", line, len(body))
		}
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(strings.ReplaceAll(text, "\r\n ", ""), "\r\n"), "\r\n") {
		quoted, from := false, 0
		var parts []string // the name, and each parameter
		for i, r := range line {
			quoted = quoted != (r == '"')
			if !quoted && (r == ';' || r == ':') {
				parts, from = append(parts, line[from:i]), i+1
			}
			if !quoted && r == ':' {
				break
			}
		}
		if len(parts) == 0 || from == 0 || line[from-1] != ':' {
			t.Fatalf("no value in %q", line)
		}
		p := property{name: parts[0], value: line[from:], params: make(map[string]string)}
		for _, part := range parts[1:] {
			name, v, _ := strings.Cut(part, "=")
			p.params[name] = strings.NewReplacer("^n", "\n", "^'", `"`, "^^", "^").Replace(strings.Trim(v, `"`))
		}
		all = append(all, p)
	}
	return all
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// unescaped reads a TEXT value (RFC 5545 §3.3.11).
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		b.WriteString(map[byte]string{'n': "\n", 'N': "\n"}[s[i]])
		if s[i] != 'n' && s[i] != 'N' {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// TestICS: each value comes out as it went in, wherever it stands, and nothing else becomes of it: no line, no property, no parameter.
func TestICS(t *testing.T) {
	t.Parallel()
	s := load(t, entry(`SUMMARY:Visit: {{.x}} ({{template "kind" .x}})
  ATTENDEE;CN={{.x}};ROLE="REQ-PARTICIPANT";X-A="{{.x}}":mailto:{{.mail}}
	URL:{{.url}}
{{with .null}}COMMENT:{{.}}{{end}}
LOCATION:{{.null}}
x-lower;value=text:{{.x}}
`))
	hostile := rapid.OneOf(rapid.String(), rapid.StringMatching(`["^:;,=\\nN\r\n\t\x01\x02\x03 a한BEGIN]{0,60}`), rapid.StringMatching(`[한é😀]{20,90}`))
	rapid.Check(t, func(r *rapid.T) {
		x, url := hostile.Draw(r, "x"), "https://example.com/?a=1,2;3&b="+rapid.StringMatching(`[a-z,;:%]{0,100}`).Draw(r, "url")
		m, err := s.Render("m", Context{}, Data{"x": x, "at": moment, "mail": "kim@example.com", "url": url, "null": nil})
		if err != nil {
			r.Fatal(err)
		}
		shown := strings.Map(printable, strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(x, "\ufffd")))
		want := []property{
			{name: "SUMMARY", value: "Visit: " + shown + " (" + shown + ")"},
			{name: "ATTENDEE", value: "mailto:kim@example.com", params: map[string]string{"CN": shown, "ROLE": "REQ-PARTICIPANT", "X-A": shown}},
			{name: "URL", value: url},
			{name: "LOCATION"},
			{name: "X-LOWER", value: shown, params: map[string]string{"VALUE": "text"}},
		}
		all := readICS(r, m.ICS)
		got := all[8 : len(all)-2]
		for i := range got {
			if got[i].name != "URL" {
				got[i].value = unescaped(got[i].value)
			}
			if len(got[i].params) == 0 {
				got[i].params = nil
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(property{})); diff != "" {
			r.Fatalf("%s\n%s", diff, m.ICS)
		}
		if m.Method != "PUBLISH" {
			r.Fatalf("method %q", m.Method)
		}
	})
}

// TestICSOfNothing: a block that prints nothing is no entry.
func TestICSOfNothing(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": whole("b") + "{{define \"ics\"}}\n {{with .x}}BEGIN:{{.}}{{end}}\n{{end}}"})
	if m, err := s.Render("m", Context{}, Data{"x": nil}); err != nil || m.ICS != "" || m.Method != "" {
		t.Errorf("%q, %q, %v", m.ICS, m.Method, err)
	}
}

func TestFoldLine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.StringMatching(`[a-z한글é]{1,300}`).Draw(t, "line")
		var b strings.Builder
		foldLine(&b, line)
		if unfolded := strings.ReplaceAll(b.String(), "\r\n ", ""); unfolded != line+"\r\n" {
			t.Fatalf("%q unfolds to %q", line, unfolded)
		}
		for part := range strings.SplitSeq(b.String(), "\r\n") {
			if len(part) > 75 || strings.ToValidUTF8(part, "") != part {
				t.Fatalf("part %q", part)
			}
		}
	})
}

// TestBrokenICS: what no mail program takes is an error when the template is checked, with its line and the way out.
func TestBrokenICS(t *testing.T) {
	t.Parallel()
	good := "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:{{.id}}\nDTSTAMP:{{icstime .at}}\nDTSTART:{{icstime .at}}\nSUMMARY:{{.x}}\nEND:VEVENT\nEND:VCALENDAR"
	for name, c := range map[string]struct{ from, to, want string }{
		"whole":                     {"", "", ""},
		"no calendar":               {"BEGIN:VCALENDAR\n", "", "m.html:2:1: a calendar entry begins with BEGIN:VCALENDAR"},
		"no end":                    {"\nEND:VCALENDAR", "", "m.html:2:1: BEGIN:VCALENDAR has no END:VCALENDAR"},
		"no end of the event":       {"END:VEVENT\n", "", "m.html:10:1: END:VCALENDAR stands where VEVENT is still open"},
		"two":                       {"END:VCALENDAR", "END:VCALENDAR\nBEGIN:VCALENDAR\nEND:VCALENDAR", "m.html:2:1: something follows END:VCALENDAR"},
		"no event":                  {"BEGIN:VEVENT\nUID:{{.id}}\nDTSTAMP:{{icstime .at}}\nDTSTART:{{icstime .at}}\nSUMMARY:{{.x}}\nEND:VEVENT\n", "", "m.html:2:1: the calendar entry is empty"},
		"no version":                {"VERSION:2.0\n", "", "m.html:2:1: VCALENDAR has no VERSION"},
		"another version":           {"VERSION:2.0", "VERSION:1.0", "m.html:3:1: the version of a calendar entry is 2.0"},
		"no product":                {"PRODID:x\n", "", "m.html:2:1: VCALENDAR has no PRODID"},
		"no UID":                    {"UID:{{.id}}\n", "", "m.html:5:1: VEVENT has no UID"},
		"no stamp":                  {"DTSTAMP:{{icstime .at}}\n", "", "m.html:5:1: VEVENT has no DTSTAMP"},
		"no start":                  {"DTSTART:{{icstime .at}}\n", "", "m.html:5:1: VEVENT has no DTSTART"},
		"no start, cancelled":       {"PRODID:x\nBEGIN:VEVENT\nUID:{{.id}}\nDTSTAMP:{{icstime .at}}\nDTSTART:{{icstime .at}}\n", "PRODID:x\nMETHOD:CANCEL\nBEGIN:VEVENT\nUID:{{.id}}\nDTSTAMP:{{icstime .at}}\nORGANIZER:mailto:a@example.com\n", ""},
		"two starts":                {"SUMMARY", "DTSTART:{{icstime .at}}\nSUMMARY", "m.html:8:1: VEVENT has DTSTART twice"},
		"no colon":                  {"SUMMARY:{{.x}}", "  SUMMARY {{.x}}", "m.html:9:3: there is no colon behind SUMMARY"},
		"no name":                   {"SUMMARY:{{.x}}", "SUMMARY:\n  {{.x}}: and more", "m.html:2:1: a line of a calendar entry begins with the name of a property"},
		"no parameter":              {"SUMMARY:{{.x}}", "SUMMARY;:{{.x}}", "m.html:9:1: behind the semicolon of SUMMARY stands no parameter"},
		"an open quote":             {"SUMMARY:{{.x}}", "SUMMARY;X=\"{{.x}}:a", "m.html:9:1: quotes stand around the whole value of the parameter X, or not at all"},
		"a quote inside":            {"SUMMARY:{{.x}}", "SUMMARY;X=a\"{{.x}}\":a", "m.html:9:1: quotes stand around the whole value of the parameter X, or not at all"},
		"a control character":       {"SUMMARY:", "SUMMARY:\x03", "m.html:9:1: a line of a calendar entry has no control characters"},
		"a method of two words":     {"PRODID:x", "PRODID:x\nMETHOD:PUBLISH; x", "m.html:5:1: METHOD is one word"},
		"asked by nobody":           {"PRODID:x", "PRODID:x\nMETHOD:request", "m.html:6:1: VEVENT has no ORGANIZER"},
		"asked of nobody":           {"PRODID:x\nBEGIN:VEVENT", "PRODID:x\nMETHOD:REQUEST\nBEGIN:VEVENT\nORGANIZER:mailto:a@example.com", "m.html:6:1: VEVENT has no ATTENDEE"},
		"cancelled by nobody":       {"PRODID:x", "PRODID:x\nMETHOD:CANCEL", "m.html:6:1: VEVENT has no ORGANIZER"},
		"a moment for people":       {"DTSTART:{{icstime .at}}", "DTSTART:{{.at}}", "m.html:8:1: DTSTART is no moment as calendars write it"},
		"a stamp without a zone":    {"DTSTAMP:{{icstime .at}}", "DTSTAMP:{{icstime .wall}}", "m.html:7:1: DTSTAMP is a moment in UTC"},
		"a start without a zone":    {"DTSTART:{{icstime .at}}", "DTSTART:{{icstime .wall}}", ""},
		"a day that does not say":   {"DTSTART:{{icstime .at}}", "DTSTART:{{icstime .day}}", "m.html:8:1: DTSTART is a day, and does not say so"},
		"a day":                     {"DTSTART:{{icstime .at}}", "DTSTART;VALUE=DATE:{{icstime .day}}\nDTEND;VALUE=DATE:{{icstime .day}}", ""},
		"a moment that is no day":   {"DTSTART:{{icstime .at}}", "DTSTART;VALUE=DATE:{{icstime .at}}", "m.html:8:1: DTSTART says VALUE=DATE, and is no day"},
		"a day and a moment":        {"DTSTART:{{icstime .at}}", "DTSTART:{{icstime .at}}\nDTEND;VALUE=DATE:{{icstime .day}}", "m.html:9:1: DTSTART and DTEND are both days, or both moments"},
		"a version that is no text": {"SUMMARY", "SEQUENCE:{{.x}}\nSUMMARY", "m.html:9:1: SEQUENCE is a whole number"},
		"numbered":                  {"SUMMARY", "SEQUENCE:{{.id}}\nSUMMARY", ""},
		"of a message":              {"DTSTART:{{icstime .at}}", "DTSTART:{{.message.starts}}\nDTEND:{{icstime .message.ends}}\nSEQUENCE:{{.message.n}}", ""},
		"in a shared file":          {"SUMMARY", "{{template \"kind\" .x}}", "m.html:2:1: a line of a calendar entry begins with the name of a property"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, c.from, c.to, 1)
			if c.from != "" && text == good {
				t.Fatalf("%q is not there", c.from)
			}
			s := load(t, map[string]string{"_kind.html": `{{define "kind"}}{{.}}{{end}}`, "m.html": "{{define \"ics\"}}\n" + text + "\n{{end}}" + whole("b")})
			sample := Data{
				"x": "text", "id": int64(7), "at": moment, "wall": value.LocalTime{Time: moment}, "day": value.Date{Time: moment.Truncate(24 * time.Hour)},
				"message": Unknown{},
			}
			nulls := Data{"x": nil, "id": nil, "at": nil, "wall": nil, "day": nil, "message": Unknown{}}
			if name == "in a shared file" {
				nulls["x"] = "text"
			}
			got := ""
			if err := s.Check("m", sample, nulls); err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") || got != "" && !strings.Contains(got, "\n    → ") {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// TestEmptyICS: a value that is NULL and must not be fails the mail, and forgives the check's sample of NULLs.
func TestEmptyICS(t *testing.T) {
	t.Parallel()
	s := load(t, entry(""))
	if err := s.Check("m", Data{"at": moment}, Data{"at": nil}); err != nil {
		t.Error(err)
	}
	if err := s.Check("m", Data{"at": nil}); err == nil {
		t.Error("the first sample has all values, and is not forgiven")
	}
	m, err := s.Render("m", Context{}, Data{"at": nil})
	if err == nil || !strings.HasPrefix(err.Error(), "m.html:9:1: DTSTART is NULL here, and no entry can be without it") {
		t.Errorf("%v\n%s", err, m.ICS)
	}
}

// FuzzICS: whatever a block prints, and whatever values are in it, comes to an error or to an object that can be read.
func FuzzICS(f *testing.F) {
	f.Add("BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTAMP:20260101T000000Z\nDTSTART:20260101T000000Z\nSUMMARY;X=\"\x02a\x03\":\x02b\x03\nEND:VEVENT\nEND:VCALENDAR\n")
	f.Add("BEGIN:VCALENDAR\r\n\x02\n\x03;A=\x02\":\x03,b:\x02")
	s, err := Load(folderOf(entry("")))
	if err != nil {
		f.Fatal(err)
	}
	v := s.mails["m"].variants[""]
	f.Fuzz(func(t *testing.T, printed string) {
		c, err := v.renderICS(strings.ToValidUTF8(printed, "\ufffd"))
		if c == nil || err != nil {
			return
		}
		if all := readICS(t, c.text()); all[0].name != "BEGIN" || all[len(all)-1].value != "VCALENDAR" {
			t.Errorf("%q", c.text())
		}
	})
}

// TestDocsICS holds that the entry of docs/templates.md is one.
func TestDocsICS(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```html\n(\\{\\{define \"ics\"}}.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/templates.md shows no entry")
	}
	s := load(t, map[string]string{"m.html": whole("b") + string(m[1])})
	all, err := s.Render("m", Context{}, Data{
		"commit_time": moment, "new": map[string]any{"id": int64(9), "version": nil, "starts_at": moment, "ends_at": moment.Add(time.Hour), "place": nil},
		"listing": map[string]any{"title": "Hapjeong, 84㎡", "address": "103-2 Hapjeong-dong, Seoul", "url": "https://www.onmaru.example/listings?a=1,2"},
		"staff":   map[string]any{"name": "Park, Seojun", "phone": "010-0000-1074", "email": "park@onmaru.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := readICS(t, all.ICS)
	want := map[string]string{
		"UID": "schedule-9@onmaru.example", "SEQUENCE": "0", "SUMMARY": `Viewing: Hapjeong\, 84㎡`, "URL": "https://www.onmaru.example/listings?a=1,2",
		"ORGANIZER": "mailto:park@onmaru.example", "DTEND": "20260304T073000Z",
	}
	for _, p := range got {
		if v, ok := want[p.name]; ok && v != p.value || p.name == "ORGANIZER" && p.params["CN"] != "Park, Seojun" {
			t.Errorf("%s is %q %v, want %q", p.name, p.value, p.params, v)
		}
		delete(want, p.name)
	}
	if len(want) > 0 {
		t.Errorf("there is no %v", want)
	}
}
