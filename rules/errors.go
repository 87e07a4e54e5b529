package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// ID is the stable name of a kind of mistake, such as PM105. docs/checks.md explains each; one that goes out of use is not
// given again.
type ID string

// Warning says whether what is so called may be right all the same: PM2xx. Everything else is an error.
func (id ID) Warning() bool { return strings.HasPrefix(string(id), "PM2") }

// Error is one mistake in a rule file, or in what belongs to it.
type Error struct {
	ID      ID
	Place   Place
	Rule    string // empty at a file's top
	Message string
	Hint    string // the way out; may be empty
	Line    string // the source line of Place; empty where there is none
}

// Error is the place, the message, the source line with a caret, and the way out.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Place.String())
	if e.Rule != "" {
		fmt.Fprintf(&b, ": rule %q", e.Rule)
	}
	fmt.Fprintf(&b, ": %s", e.Message)
	if e.ID != "" {
		fmt.Fprintf(&b, " [%s]", e.ID)
	}
	if line, caret := e.Excerpt(); line != "" {
		b.WriteString("\n    " + line)
		if caret != "" {
			b.WriteString("\n    " + caret)
		}
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n    → %s", e.Hint)
	}
	return b.String()
}

// Excerpt is the source line without its indentation, and a line with a caret under the column as a terminal shows it. Both may be
// empty.
func (e *Error) Excerpt() (source, caret string) {
	line := []rune(strings.TrimRightFunc(e.Line, unicode.IsSpace))
	at := e.Place.Column - 1
	for len(line) > 0 && unicode.IsSpace(line[0]) {
		line, at = line[1:], at-1
	}
	if len(line) == 0 {
		return "", ""
	}
	if e.Place.Column == 0 || at < 0 || at > len(line) {
		return string(line), ""
	}
	line, at = window(line, at)
	return string(line), blank(line[:at]) + "^"
}

// window cuts a line that is too long for a terminal to the neighbourhood of the caret.
func window(line []rune, caret int) ([]rune, int) {
	const most, before = 110, 70
	if start := caret - before; len(line) > most && start > 0 {
		line, caret = append([]rune{'…'}, line[start:]...), before+1
	}
	if len(line) > most {
		line = append(line[:most:most], '…')
	}
	return line, caret
}

// blank is white space as wide as the text is on a terminal, where Korean letters take two columns.
func blank(text []rune) string {
	var b strings.Builder
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case r == '\t':
			b.WriteByte('\t')
		case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Cf, r):
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// String is file:line:column, without what is not known.
func (p Place) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Errors is every mistake that was found, in the order of their places in each file.
type Errors []*Error

// Error prints all of them.
func (es Errors) Error() string {
	texts := make([]string, len(es))
	for i, e := range es {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap lets errors.As find a single mistake.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// inOrder sorts the list by file and place.
func (es Errors) inOrder() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Place.File, b.Place.File), cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return es
}

// orNil is the list as an error: nil, and not an empty list, where there is none.
func (es Errors) orNil() error {
	if len(es) == 0 {
		return nil
	}
	return es
}
