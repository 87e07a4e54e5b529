package authoring

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"postman/rules"
)

// Mark says what a line of a failure is about.
type Mark rune

// The marks.
const (
	Plain   Mark = ' '
	Missing Mark = '-' // expected, and not there
	Stray   Mark = '+' // there, and not expected
	Yes     Mark = '✓' // a clause that is true
	No      Mark = '✗' // a clause that is false
	Unknown Mark = '?' // a clause of which nobody can tell
	Way     Mark = '→' // the way out
)

// Detail is a line of a failure.
type Detail struct {
	Mark Mark
	Text string
	Idle bool // of a clause: it makes no difference
}

// Title is the failure's sentence, with the step that it is about.
func (f *Failure) Title() string {
	first, _, _ := strings.Cut(f.Text, "\n")
	if f.Step > 0 {
		return fmt.Sprintf("step %d: %s", f.Step, first)
	}
	return first
}

// Details is what a failure has beside its sentence.
func (f *Failure) Details() []Detail {
	var all []Detail
	if _, more, _ := strings.Cut(f.Text, "\n"); more != "" {
		for line := range strings.Lines(more) {
			all = append(all, Detail{Mark: Plain, Text: strings.TrimSuffix(strings.TrimPrefix(line, "    "), "\n")})
		}
	}
	for _, a := range f.Missing {
		all = append(all, Detail{Mark: Missing, Text: a})
	}
	for _, a := range f.Strays {
		all = append(all, Detail{Mark: Stray, Text: a})
	}
	if f.Want != "" {
		word := "expected"
		if f.Kind == "not_body" {
			word = "not expected"
		}
		all = append(all, labelled(word, f.Want)...)
	}
	if f.Got != "" {
		word := cmp.Or(map[string]string{"body": "nearest", "not_body": "where", "mail": "since", "to": "since", "cc": "since"}[f.Kind], "got")
		if f.Kind == "mail" && len(f.Strays) > 0 {
			word = "subject"
		}
		all = append(all, labelled(word, f.Got)...)
	}
	all = append(all, clauseDetails(f.Trace)...)
	if f.Hint != "" {
		all = append(all, Detail{Mark: Way, Text: f.Hint})
	}
	return all
}

// labelled is a text behind a word, its further lines below it.
func labelled(word, text string) (all []Detail) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		all = append(all, Detail{Mark: Plain, Text: fmt.Sprintf("%-12s  %s", word, strings.TrimRight(line, "\n"))})
		word = ""
	}
	return all
}

// clauseDetails are the clauses of a condition, each with its values.
func clauseDetails(t *rules.Trace) (all []Detail) {
	if t == nil {
		return nil
	}
	if t.Excluded != "" {
		return []Detail{{Mark: No, Text: t.Excluded}}
	}
	lines := leaves(t.When)
	widest := 0
	for _, s := range lines {
		widest = max(widest, utf8.RuneCountInString(s.Text))
	}
	for _, s := range lines {
		text := s.Text
		if values := valuesOf(s); values != "" {
			text += strings.Repeat(" ", widest-utf8.RuneCountInString(text)+3) + values
		}
		mark := map[rules.Truth]Mark{rules.True: Yes, rules.False: No, rules.Undetermined: Unknown}[s.Truth]
		all = append(all, Detail{mark, text, s.Idle})
	}
	return all
}

// leaves are the conditions of a tree that join no others; one that is negated with its not.
func leaves(s *rules.Step) (all []*rules.Step) {
	switch {
	case s == nil:
		return nil
	case s.Kind == rules.ClauseStep, s.Kind == rules.NotStep && s.Parts[0].Kind == rules.ClauseStep:
		return []*rules.Step{s}
	}
	for _, part := range s.Parts {
		all = append(all, leaves(part)...)
	}
	return all
}

// valuesOf are the values that a clause looks at: columns and keys, and not what is computed of them.
func valuesOf(s *rules.Step) string {
	var all []string
	seen := make(map[string]bool)
	var walk func(s *rules.Step)
	walk = func(s *rules.Step) {
		if s.Kind == rules.ValueStep && len(s.Parts) == 0 && !seen[s.Text] {
			seen[s.Text] = true
			text := s.Text + " = " + s.Value
			if s.Value == "" {
				text = s.Text + ": " + s.Note
			}
			all = append(all, text)
		}
		for _, part := range s.Parts {
			walk(part)
		}
	}
	note := s.Note
	for _, part := range s.Parts {
		walk(part)
		if s.Kind == rules.NotStep {
			note = part.Note
		}
	}
	text := strings.Join(all, ", ")
	if note != "" {
		text = strings.TrimPrefix(text+" ("+note+")", " ")
	}
	return text
}

// String is the failure as plain text.
func (f *Failure) String() string {
	var b strings.Builder
	b.WriteString(f.Title())
	for _, d := range f.Details() {
		fmt.Fprintf(&b, "\n  %c %s", d.Mark, d.Text)
	}
	return b.String()
}
