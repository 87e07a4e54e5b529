package main

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"postman/authoring"
)

func previewText(in paint, v *authoring.PreviewView) string {
	w := &printer{in: in}
	w.printf("rule %s: %s\n", in.in(bold, v.Rule.Name), v.Row)
	for _, a := range v.Assumed {
		w.printf("  assumed: %s\n", a)
	}
	if !v.Matches {
		w.mismatch(v)
	}
	if v.State == "" {
		return w.String()
	}
	w.audience(v)
	shown := shownMail(v)
	if shown != nil {
		w.loads(shown.Load)
		w.letter(shown, v.Thread)
	}
	for _, n := range v.Notes {
		w.printf("\n%s %s\n", in.in(yellow, "!"), n)
	}
	return w.String()
}

// mismatch tells why the rule does not match the row, and what may help.
func (w *printer) mismatch(v *authoring.PreviewView) {
	if v.State == "" && v.Looked == 0 {
		w.WriteString(w.in.in(cyan, arrow("insert a row, or give the rule a test with match: true: its values are shown then")) + "\n")
		return
	}
	w.change(&v.Change)
	w.condition(&v.Condition, v.Rule.File)
	if v.State == "" {
		w.WriteString("\n" + w.in.in(cyan, arrow("what is marked ✗ would have to be true: name a row with --pk, or give the rule a test with match: true, whose values are laid over it")) + "\n")
		return
	}
	w.WriteString("\n" + w.in.in(yellow, "! the rule does not match it: the mail is shown all the same") + "\n")
}

// audience tells who would get a mail.
func (w *printer) audience(v *authoring.PreviewView) {
	switch v.State {
	case "nobody", "held":
		w.title("no mail: " + v.State)
		w.WriteString("  " + v.Reason + "\n")
		return
	}
	origin := v.Mails[0].Origin
	if slices.ContainsFunc(v.Mails, func(m authoring.PreviewMail) bool { return m.Origin != origin }) {
		origin = ""
	}
	w.title(number(len(v.Mails), "recipient", "recipients") + w.in.in(dim, from(origin)))
	shown := shownMail(v)
	for i := range v.Mails {
		m := &v.Mails[i]
		mark := " "
		if m == shown && len(v.Mails) > 1 {
			mark = "▸"
		}
		about := slices.DeleteFunc([]string{m.Name, m.Locale, m.Zone}, func(s string) bool { return s == "" })
		if origin == "" {
			about = append(about, strings.TrimPrefix(from(m.Origin), ", "))
		}
		w.WriteString(strings.TrimRight("  "+mark+" "+cmp.Or(m.Address, "(no address)")+"   "+strings.Join(about, ", "), " ") + "\n")
		for _, problem := range []string{m.Error, m.Note} {
			if problem != "" {
				w.WriteString("      " + w.in.in(red, strings.ReplaceAll(problem, "\n", "\n      ")) + "\n")
			}
		}
	}
	if v.Reason != "" {
		w.printf("  %s\n", v.Reason)
	}
}

func from(origin string) string {
	if origin == "" {
		return ""
	}
	return ", from " + origin
}

// mostLoaded is how many rows of a load are told.
const mostLoaded = 5

func (w *printer) loads(loads []authoring.LoadView) {
	if len(loads) == 0 {
		return
	}
	w.title("load")
	for _, l := range loads {
		if l.All {
			w.printf("  %s[]: %s\n", l.Name, number(len(l.Rows), "row", "rows"))
		}
		for i, row := range l.Rows {
			if i == mostLoaded {
				w.WriteString("    …\n")
				break
			}
			name := l.Name + ": "
			if l.All {
				name = "  "
			}
			w.printf("  %s%s\n", name, rowText(row))
		}
	}
}

func rowText(row authoring.LoadRow) string {
	parts := make([]string, 0, len(row))
	empty := true
	for _, name := range slices.Sorted(maps.Keys(row)) {
		text := "NULL"
		if v := row[name]; v != nil {
			text, empty = oneLine(*v), false
		}
		parts = append(parts, name+" "+text)
	}
	if empty {
		return "no row, so that all is NULL"
	}
	return strings.Join(parts, " · ")
}

// letter lays a mail out as a mail program would show its text part.
func (w *printer) letter(m *authoring.PreviewMail, thread string) {
	w.WriteByte('\n')
	for _, h := range [][2]string{{"From", m.From}, {"Reply-To", m.ReplyTo}, {"To", m.To}, {"Cc", strings.Join(m.CC, ", ")}, {"Thread", thread}, {"Subject", m.Subject}} {
		if h[1] != "" {
			text := h[1]
			if h[0] == "Subject" {
				text = w.in.in(bold, text)
			}
			w.printf("  %s %s\n", w.in.in(dim, h[0]+":"+strings.Repeat(" ", len("Reply-To")-len(h[0]))), text)
		}
	}
	const line = 76
	w.WriteString("  " + w.in.in(dim, strings.Repeat("─", line)) + "\n")
	for _, row := range wrapped(m.Text, line) {
		w.WriteString(strings.TrimRight("  "+row, " ") + "\n")
	}
	w.WriteString("  " + w.in.in(dim, strings.Repeat("─", line)) + "\n")
	if m.ICS != "" {
		w.WriteString("  with a calendar entry\n")
	}
}

// wrapped breaks a text into lines of at most so many columns, between words: a word that is longer, such as an address, stays whole.
func wrapped(text string, most int) (lines []string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		var b strings.Builder
		used := 0
		for word := range strings.FieldsSeq(line) {
			w := columns(word)
			if used > 0 && used+1+w > most {
				lines = append(lines, b.String())
				b.Reset()
				used = 0
			}
			if used > 0 {
				b.WriteByte(' ')
				used++
			}
			b.WriteString(word)
			used += w
		}
		lines = append(lines, b.String())
	}
	return lines
}

// columns is how wide a text is on a terminal, where Korean letters take two columns (Unicode Standard Annex #11).
func columns(text string) int {
	n := 0
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Cf, r):
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
