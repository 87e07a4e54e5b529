package authoring

import (
	"html"
	"slices"
	"strings"

	netmail "net/mail"

	"postman/dispatch"
	"postman/rules"
	"postman/templates"
)

// compare holds the mails against what is expected of them.
func (t *trial) compare(s *rules.TestStep, p *played) {
	e := &s.Expect
	if e.None {
		t.none(e, p)
		return
	}
	t.addresses("to", e.Place, e.To, append(goingTo(p), p.broken...), p)
	t.addresses("cc", e.Place, e.CC, copiesOf(p), p)
	if len(p.going) == 0 {
		if len(e.To) == 0 && e.To != nil || len(t.result.Failures) > p.told {
			return // that nobody gets one was expected, or has been told
		}
		t.fail(Failure{Place: e.Place, Kind: "mail", Text: "expected a mail, and there is none", Got: p.none})
		return
	}
	t.content(&e.Content, p)
	for i := range e.Mails {
		t.mail(e, &e.Mails[i], p)
	}
}

// content compares what is in each of the mails.
func (t *trial) content(c *rules.Content, p *played) {
	for _, want := range c.Subject {
		t.subject(want, p)
	}
	for _, want := range c.Body {
		t.body(want, p)
	}
	for _, not := range c.NotBody {
		t.notBody(not, p)
	}
	if c.Locale != nil {
		t.locale(c.Locale, p)
	}
}

// mail compares what is in the one mail to an address.
func (t *trial) mail(e *rules.Expect, want *rules.MailExpect, p *played) {
	other := func(a string) bool { return !strings.EqualFold(a, want.To.Text) }
	its := &played{going: slices.DeleteFunc(slices.Clone(p.going), func(m dispatch.RehearsedMail) bool { return other(m.Address) })}
	if len(its.going) > 0 {
		t.content(&want.Content, its)
		return
	}
	if e.To != nil || slices.ContainsFunc(p.broken, func(a string) bool { return !other(a) }) {
		return // that there is none has been told
	}
	t.fail(Failure{
		Place: want.To.Place, Kind: "to", Text: "there is no mail to " + want.To.Text + "; one goes to " + strings.Join(goingTo(p), ", "),
		Missing: []string{want.To.Text}, Got: strings.Join(p.lost, "; "),
	})
}

// none looks for mails that should not be.
func (t *trial) none(e *rules.Expect, p *played) {
	if len(p.going) == 0 {
		return
	}
	t.fail(Failure{Place: e.Place, Kind: "mail", Text: "expected no mail, and there is one", Strays: goingTo(p), Got: p.going[0].Subject})
}

func goingTo(p *played) []string {
	var all []string
	for _, m := range p.going {
		all = append(all, m.Address)
	}
	return all
}

// copiesOf are the addresses of the copies, which go with the first mail.
func copiesOf(p *played) []string {
	var all []string
	for _, m := range p.going {
		for _, c := range m.CC {
			if a, err := netmail.ParseAddress(c); err == nil {
				c = a.Address
			}
			all = append(all, c)
		}
	}
	return all
}

// addresses compares who gets one with who should, in any order and whatever the case. Nothing said is nothing compared.
func (t *trial) addresses(kind string, at rules.Place, said []rules.Said, got []string, p *played) {
	if said == nil {
		return
	}
	want := make([]string, len(said))
	for i, s := range said {
		want[i] = s.Text
	}
	f := Failure{Place: at, Kind: kind, Missing: without(want, got), Strays: without(got, want)}
	if len(said) > 0 {
		f.Place = said[0].Place
	}
	if len(f.Missing)+len(f.Strays) == 0 {
		return
	}
	if f.Got = p.none; p.none == "" && len(f.Missing) > 0 {
		f.Got = strings.Join(p.lost, "; ")
	}
	f.Text = map[string]string{"to": "the mail goes to other people than expected", "cc": "the copy goes to other people than expected"}[kind]
	t.fail(f)
}

// without is what of one list the other lacks.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool {
		return slices.ContainsFunc(others, func(b string) bool { return strings.EqualFold(a, b) })
	})
}

func (t *trial) subject(want rules.Said, p *played) {
	for _, m := range p.going {
		if !strings.Contains(m.Subject, oneLine(want.Text)) {
			t.fail(Failure{Place: want.Place, Kind: "subject", Text: "the subject of the mail to " + m.Address + " does not have it", Want: want.Text, Got: m.Subject})
			return
		}
	}
}

func (t *trial) locale(want *rules.Said, p *played) {
	for _, m := range p.going {
		if !strings.EqualFold(want.Text, m.Locale) {
			t.fail(Failure{Place: want.Place, Kind: "locale", Text: "the mail to " + m.Address + " is in another language", Want: want.Text, Got: m.Locale})
			return
		}
	}
}

// body looks for a text in what readers see: in the text part, and in the page, whose links and pictures count too.
func (t *trial) body(want rules.Said, p *played) {
	for _, m := range p.going {
		text, page := partsOf(&m)
		inText, inPage := strings.Contains(text, oneLine(want.Text)), len(page) == 0 || has(page, want.Text)
		if inText && inPage {
			continue
		}
		f := Failure{Place: want.Place, Kind: "body", Text: "the mail to " + m.Address + " does not have it", Want: want.Text, Got: nearest(m.Text, want.Text)}
		switch {
		case inText:
			f.Text, f.Got = "the text part of the mail to "+m.Address+" has it, its HTML has not", nearest(page[0], want.Text)
		case inPage && len(page) > 0:
			f.Text = "the HTML of the mail to " + m.Address + " has it, its text part has not"
		}
		t.fail(f)
		return
	}
}

func (t *trial) notBody(not rules.Said, p *played) {
	for _, m := range p.going {
		text, page := partsOf(&m)
		i := slices.IndexFunc(append([]string{text}, page...), func(s string) bool { return strings.Contains(s, oneLine(not.Text)) })
		if i < 0 {
			continue
		}
		where := m.Text
		if i > 0 {
			where = page[i-1]
		}
		t.fail(Failure{Place: not.Place, Kind: "not_body", Text: "the mail to " + m.Address + " has it", Want: not.Text, Got: nearest(where, not.Text)})
		return
	}
}

// partsOf is a mail's text in one line; and its page, as it is seen, and as it is written. A mail without HTML has no page.
func partsOf(m *dispatch.RehearsedMail) (text string, page []string) {
	if m.HTML == "" {
		return oneLine(m.Text), nil
	}
	seen, err := templates.PlainText(m.HTML)
	if err != nil {
		seen = ""
	}
	return oneLine(m.Text), []string{oneLine(seen), oneLine(html.UnescapeString(m.HTML))}
}

func has(texts []string, fragment string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, oneLine(fragment)) })
}

// oneLine has one space for each run of white space: how a text is broken into lines is nobody's expectation.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// broadest is how much of a line a failure shows, in characters.
const broadest = 90

// nearest is the place in a text that has most of a fragment's pairs of letters.
func nearest(text, fragment string) string {
	pairs := pairsOf([]rune(oneLine(fragment)))
	best, most := "", 0
	for line := range strings.Lines(text) {
		runes := []rune(oneLine(line))
		for from := 0; from == 0 || from+broadest/2 < len(runes); from += broadest / 4 {
			window := runes[from:min(len(runes), from+broadest)]
			n := 0
			for pair := range pairsOf(window) {
				if pairs[pair] {
					n++
				}
			}
			if n > most {
				best, most = clipped(runes, from, from+len(window)), n
			}
		}
	}
	return best
}

// clipped is a part of a line, with a sign where it goes on.
func clipped(line []rune, from, to int) string {
	s := string(line[from:to])
	if from > 0 {
		s = "…" + s
	}
	if to < len(line) {
		s += "…"
	}
	return s
}

func pairsOf(s []rune) map[[2]rune]bool {
	pairs := make(map[[2]rune]bool)
	for i := 1; i < len(s); i++ {
		pairs[[2]rune{s[i-1], s[i]}] = true
	}
	return pairs
}
