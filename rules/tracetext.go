package rules

import (
	"fmt"
	"slices"
	"strings"
)

// The marks of a trace: a condition that is true, one that is not, one that cannot be known, and one that made no difference.
const (
	MarkTrue    = "✓"
	MarkFalse   = "✗"
	MarkUnknown = "?"
	MarkIdle    = "·"
)

// Text lays the trace out for people: a line for each condition, with its line in the rule file, its mark and the values that it
// looked at. paint colours a mark's line, and may be nil.
func (t *Trace) Text(paint func(mark, text string) string) string {
	if paint == nil {
		paint = func(_, text string) string { return text }
	}
	if t.When == nil {
		return ""
	}
	var l traceLines
	if t.When.Kind == AndStep {
		l.each(t.When.Parts, 0, nil)
	} else {
		l.step(t.When, 0, "")
	}
	return l.text(paint)
}

// traceLine is a condition in a trace's text.
type traceLine struct {
	number     int
	mark, text string
	outcome    string
}

type traceLines []traceLine

func (l *traceLines) each(parts []*Step, depth int, labels []string) {
	for i, p := range parts {
		label := ""
		if i < len(labels) {
			label = labels[i]
		}
		l.step(p, depth, label)
	}
}

var choiceLabels = []string{"if ", "then ", "else "}

func (l *traceLines) step(s *Step, depth int, label string) {
	switch s.Kind {
	case AndStep, OrStep:
		l.add(s, depth, label+s.heading(), "")
		l.each(s.Parts, depth+1, nil)
	case IfStep:
		l.add(s, depth, label+"a choice:", "")
		l.each(s.Parts, depth+1, choiceLabels)
	case NotStep:
		l.not(s, depth, label)
	case ClauseStep, ValueStep:
		l.add(s, depth, label+s.Text, s.outcome())
		l.elements(s, depth+1)
	}
}

func (s *Step) heading() string {
	if s.Kind == AndStep {
		return "all of these:"
	}
	return "one of these:"
}

// not is told in one line where it negates a clause.
func (l *traceLines) not(s *Step, depth int, label string) {
	of := s.Parts[0]
	switch of.Kind {
	case ClauseStep:
		l.add(s, depth, label+s.Text, of.outcome())
		l.elements(of, depth+1)
	case AndStep, OrStep:
		l.add(s, depth, label+"not "+of.heading(), "")
		l.each(of.Parts, depth+1, nil)
	case NotStep, IfStep, ValueStep:
		l.add(s, depth, label+"not this:", "")
		l.step(of, depth+1, "")
	}
}

// elements are what a predicate said of a list's elements.
func (l *traceLines) elements(s *Step, depth int) {
	for _, p := range s.Parts {
		if p.Kind != ValueStep {
			l.step(p, depth, "")
		}
	}
}

func (l *traceLines) add(s *Step, depth int, text, outcome string) {
	mark := map[Truth]string{True: MarkTrue, False: MarkFalse, Undetermined: MarkUnknown}[s.Truth]
	if s.Idle {
		mark = MarkIdle
		outcome = strings.TrimSpace(outcome + " (" + s.Truth.String() + ", not needed)")
	}
	*l = append(*l, traceLine{s.Place.Line, mark, strings.Repeat("  ", depth) + text, outcome})
}

// outcome is what a clause looked at, and what is to be noted of it.
func (s *Step) outcome() string {
	var seen []string
	text := strings.Join(s.values(&seen), ", ")
	if then, now, ok := s.pair(); ok {
		text = then.Value + " → " + now.Value
	}
	if s.Note == "" || strings.Contains(text, s.Note) || strings.HasPrefix(s.Note, hangsOn) && strings.Contains(text, notKnown) {
		return text
	}
	return strings.TrimSpace(text + " — " + s.Note)
}

const notKnown = " is not known"

// values tells all values that a step is made of, each once: seen are the texts that were told.
func (s *Step) values(seen *[]string) (all []string) {
	for _, p := range s.Parts {
		if p.Kind != ValueStep || slices.Contains(*seen, p.Text) {
			continue
		}
		*seen = append(*seen, p.Text)
		text := p.Text + " = " + p.Value
		if p.Value == "" {
			text = p.Text + notKnown
		}
		if p.Note != "" && !strings.HasPrefix(p.Note, hangsOn) {
			text += " (" + p.Note + ")"
		}
		all = append(append(all, text), p.values(seen)...)
	}
	return all
}

// pair are the old and the new value of one column, where a clause looks at these and nothing else.
func (s *Step) pair() (then, now *Step, ok bool) {
	if len(s.Parts) != 2 {
		return nil, nil, false
	}
	then, now = s.Parts[0], s.Parts[1]
	if strings.HasPrefix(then.Text, "new") {
		then, now = now, then
	}
	old, isOld := strings.CutPrefix(then.Text, "old")
	name, isNew := strings.CutPrefix(now.Text, "new")
	plain := then.Note+now.Note == "" && then.Value != "" && now.Value != ""
	return then, now, isOld && isNew && old == name && plain && len(then.Parts)+len(now.Parts) == 0
}

// Columns of a text beyond which what follows no longer stands under what follows elsewhere.
const widestClause = 52

func (l traceLines) text(paint func(mark, text string) string) string {
	widest, last := 0, 0
	for _, line := range l {
		if w := columns(line.text); w <= widestClause {
			widest = max(widest, w)
		}
		last = max(last, line.number)
	}
	digits := len(fmt.Sprint(last))
	var b strings.Builder
	for _, line := range l {
		text := line.text
		if line.outcome != "" {
			text += strings.Repeat(" ", max(widest-columns(line.text), 0)) + "   " + line.outcome
		}
		fmt.Fprintf(&b, "%*d  %s\n", digits, line.number, paint(line.mark, line.mark+" "+text))
	}
	return b.String()
}

// columns is how wide a text is on a terminal.
func columns(text string) int { return len(blank([]rune(text))) }
