package demo

import (
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"

	"postman/outbox"
)

// outcome is what came of a scenario: how much was expected and arrived, by rule, and everything that is wrong.
type outcome struct {
	rules    []tally
	problems []problem
	threads  map[string]string // what the first mail about a thing referred to
}

type tally struct {
	rule              string
	expected, arrived int
	unsent            []string // states of the messages that were not sent, as they should not
}

// problem is a mail that is missing, or is not as expected, or should not be there.
type problem struct{ kind, rule, to, what string }

// The kinds of problems.
const (
	missing = "missing"
	extra   = "extra"
	wrong   = "wrong"
)

// awaited is an expected mail to one address.
type awaited struct {
	scene  *scene
	want   *expected
	to     string
	secret string // what want.secret answered
}

// await lists what a scene has to bring, one by one.
func (s *scene) await(answer func(query string) (string, error)) (all []awaited, err error) {
	for i := range s.mails {
		m := &s.mails[i]
		secret := ""
		if m.secret != "" {
			if secret, err = answer(m.secret); err != nil {
				return nil, fmt.Errorf("asking for what the mail must show: %w", err)
			}
		}
		for _, to := range m.to {
			all = append(all, awaited{s, m, to, secret})
		}
	}
	return all, nil
}

// check compares what is there with what was awaited: all of it, and nothing else.
func check(scenes []scene, want []awaited, entries []*entry) outcome {
	o := outcome{threads: make(map[string]string)}
	for _, name := range scenarioRules(scenes) {
		o.rules = append(o.rules, tally{rule: name})
	}
	for _, a := range want {
		o.tally(a.want.rule).expected++
	}
	left := slices.Clone(want)
	for _, e := range entries {
		if e.arrived() {
			left = o.match(left, e)
		}
	}
	for _, a := range left {
		o.add(missing, a.want.rule, a.to, fmt.Sprintf("%q, when %s", a.want.subject, a.scene.does))
	}
	o.checkUnsent(scenes, entries)
	return o
}

// match finds the awaited mail that an entry is, and returns the others.
func (o *outcome) match(left []awaited, e *entry) []awaited {
	if e.Rule == "" {
		o.add(extra, "", e.To, fmt.Sprintf("%q: it arrived, and postman has no record of it", e.Subject))
		return left
	}
	o.tally(e.Rule).arrived++
	fits := func(a awaited) bool { return a.want.rule == e.Rule && a.to == e.To }
	i := slices.IndexFunc(left, func(a awaited) bool { return fits(a) && a.want.subject == e.Subject })
	if i < 0 {
		i = slices.IndexFunc(left, fits)
	}
	if i < 0 {
		o.add(extra, e.Rule, e.To, fmt.Sprintf("%q", e.Subject))
		return left
	}
	for _, text := range left[i].differences(e) {
		o.add(wrong, e.Rule, e.To, text)
	}
	if text := o.thread(left[i].want.thread, readLetter(e.Raw)); text != "" {
		o.add(wrong, e.Rule, e.To, text)
	}
	return slices.Delete(left, i, i+1)
}

// thread says how a mail does not stand with those that it should stand with; empty: it does.
func (o *outcome) thread(about string, l *letter) string {
	root, first := l.field("References"), o.threads[about]
	switch {
	case root != l.field("In-Reply-To"):
		return "References and In-Reply-To differ"
	case about == "" && root != "":
		return "it stands in a thread"
	case about == "":
		return ""
	case root == "":
		return "it stands in no thread"
	case first != "" && first != root:
		return "it does not stand with the first mail about " + about
	}
	for other, known := range o.threads {
		if known == root && other != about {
			return fmt.Sprintf("it stands with the mails about %s, and is about %s", other, about)
		}
	}
	o.threads[about] = root
	return ""
}

// differences says where a mail is not as it should be.
func (a awaited) differences(e *entry) (all []string) {
	if e.Subject != a.want.subject {
		all = append(all, fmt.Sprintf("its subject is %q; expected %q", e.Subject, a.want.subject))
	}
	l := readLetter(e.Raw)
	if l.Problem != "" {
		all = append(all, "it cannot be read whole: "+l.Problem)
	}
	if !slices.Contains(l.Fields, field{"Auto-Submitted", "auto-generated"}) {
		all = append(all, "it does not say that a machine wrote it (Auto-Submitted)")
	}
	bodies := map[string]string{"HTML": plainText(l.HTML), "text": oneSpace(l.Text)}
	links := map[string]string{"HTML": html.UnescapeString(l.HTML), "text": l.Text}
	for _, kind := range []string{"HTML", "text"} {
		for _, piece := range a.want.body {
			if !strings.Contains(bodies[kind], piece) && !strings.Contains(links[kind], piece) {
				all = append(all, fmt.Sprintf("its %s lacks %q", kind, piece))
			}
		}
		if !strings.Contains(links[kind], a.secret) {
			all = append(all, fmt.Sprintf("its %s lacks the link", kind)) // which is nobody else's business
		}
	}
	return append(all, a.calendar(l)...)
}

func (a awaited) calendar(l *letter) []string {
	i := slices.IndexFunc(l.Parts, func(p part) bool { return strings.HasPrefix(p.Type, "text/calendar") })
	switch {
	case i < 0 && a.want.ics != "":
		return []string{"it has no calendar entry"}
	case i >= 0 && a.want.ics == "":
		return []string{"it has a calendar entry"}
	case i >= 0 && !strings.Contains(string(l.Parts[i].Data), a.want.ics):
		return []string{fmt.Sprintf("its calendar entry lacks %q", a.want.ics)}
	}
	return nil
}

// checkUnsent compares what postman decided not to send. That a message is tried again is no end.
func (o *outcome) checkUnsent(scenes []scene, entries []*entry) {
	var left []decided
	for _, s := range scenes {
		left = append(left, s.unsent...)
	}
	for _, e := range entries {
		if e.arrived() || e.State == outbox.MessageQueued {
			continue
		}
		is := decided{e.Rule, e.To, e.State}
		if i := slices.Index(left, is); i >= 0 {
			left = slices.Delete(left, i, i+1)
			t := o.tally(e.Rule)
			t.unsent = append(t.unsent, e.State.String())
		} else {
			o.add(extra, e.Rule, e.To, fmt.Sprintf("it ended as %s: %s", e.State, e.Reason))
		}
	}
	for _, d := range left {
		o.add(missing, d.rule, d.to, fmt.Sprintf("a message that ends as %s", d.state))
	}
}

// checkMatches compares the matches that came to no message.
func (o *outcome) checkMatches(scenes []scene, found map[ended]int) {
	left := maps.Clone(found)
	for _, s := range scenes {
		for _, e := range slices.SortedFunc(maps.Keys(s.matches), func(a, b ended) int { return strings.Compare(a.rule, b.rule) }) {
			if n := s.matches[e]; found[e] != n {
				o.add(missing, e.rule, "", fmt.Sprintf("matches that are %s: %d; expected %d", e.state, found[e], n))
			} else {
				t := o.tally(e.rule)
				t.unsent = append(t.unsent, fmt.Sprintf("%d %s", n, e.state))
			}
			delete(left, e)
		}
	}
	for e, n := range left {
		o.add(extra, e.rule, "", fmt.Sprintf("matches that are %s: %d", e.state, n))
	}
}

func (o *outcome) tally(rule string) *tally {
	i := slices.IndexFunc(o.rules, func(t tally) bool { return t.rule == rule })
	if i < 0 {
		o.rules = append(o.rules, tally{rule: rule})
		i = len(o.rules) - 1
	}
	return &o.rules[i]
}

func (o *outcome) add(kind, rule, to, what string) {
	o.problems = append(o.problems, problem{kind, rule, to, what})
}

// complete says whether nothing is missing.
func (o *outcome) complete() bool {
	return !slices.ContainsFunc(o.problems, func(p problem) bool { return p.kind == missing })
}

var (
	hidden = regexp.MustCompile(`(?s)<(style|head)\b.*?</(style|head)>`)
	tags   = regexp.MustCompile(`(?s)<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// plainText is what a reader sees of HTML that postman's templates made.
func plainText(text string) string {
	return oneSpace(html.UnescapeString(tags.ReplaceAllString(hidden.ReplaceAllString(text, ""), " ")))
}

func oneSpace(text string) string { return spaces.ReplaceAllString(text, " ") }
