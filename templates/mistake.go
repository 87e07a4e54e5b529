package templates

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mistake is one thing that is wrong in a template file, with its place.
type mistake struct {
	file    *file
	line    int // from 1; 0: the file as a whole
	column  int // in characters, from 1; 0: not known
	message string
}

func (m *mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.file.name)
	if m.line > 0 {
		fmt.Fprintf(&b, ":%d", m.line)
	}
	if m.column > 0 {
		fmt.Fprintf(&b, ":%d", m.column)
	}
	b.WriteString(": " + m.message)
	m.excerpt(&b)
	return b.String()
}

// excerpt shows the line, and a caret under the place.
func (m *mistake) excerpt(b *strings.Builder) {
	if m.line == 0 {
		return
	}
	source := m.file.lineText(m.line)
	indent := strings.TrimLeft(source, " \t")
	cut := utf8.RuneCountInString(source) - utf8.RuneCountInString(indent)
	number := strconv.Itoa(m.line)
	const most = 160
	fmt.Fprintf(b, "\n  %s | %s", number, clip(indent, most))
	if at := m.column - 1 - cut; m.column > 0 && at >= 0 && at < most {
		fmt.Fprintf(b, "\n  %s | %s^", strings.Repeat(" ", len(number)), blank(indent, at))
	}
}

// blank is a line of spaces as wide as the first n characters of s are on a screen: Hangul and Han take two columns.
func blank(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n--; n < 0 {
			break
		}
		switch {
		case r == '\t':
			b.WriteByte('\t')
		case wide(r):
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func wide(r rune) bool {
	return r >= 0x1100 && r <= 0x115F || r >= 0x2E80 && r <= 0xA4CF || r >= 0xAC00 && r <= 0xD7A3 ||
		r >= 0xF900 && r <= 0xFAFF || r >= 0xFE30 && r <= 0xFE6F || r >= 0xFF00 && r <= 0xFF60 || r >= 0x1F300 && r <= 0x1FAFF
}

func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// mistakes gathers errors, each once.
type mistakes struct {
	errs []error
	seen map[string]bool
}

// maxMistakes is how many a file may have before the rest is left for the next time.
const maxMistakes = 50

func (l *mistakes) add(errs ...error) {
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	for _, err := range errs {
		if text := err.Error(); !l.seen[text] {
			l.seen[text] = true
			l.errs = append(l.errs, err)
		}
	}
}

func (l *mistakes) full() bool { return len(l.errs) >= maxMistakes }

// inOrder are the errors in the order of their places.
func (l *mistakes) inOrder() []error {
	slices.SortStableFunc(l.errs, func(a, b error) int {
		x, xok := errors.AsType[*mistake](a)
		y, yok := errors.AsType[*mistake](b)
		if !xok || !yok {
			return 0
		}
		return cmp.Or(cmp.Compare(x.file.name, y.file.name), cmp.Compare(x.line, y.line), cmp.Compare(x.column, y.column))
	})
	return l.errs
}

// Errors of the standard library's template packages are texts: `template: FILE:LINE: …` when parsing, and
// `template: FILE:LINE:COLUMN: executing "BLOCK" at <NODE>: …` when executing, with columns in bytes from 0.
var (
	parseError   = regexp.MustCompile(`(?s)^template: .*?:(\d+): (.*)$`)
	execError    = regexp.MustCompile(`(?s)^template: ([^:]+):(\d+):(\d+): executing .*? at <(.*?)>: (.*)$`)
	unknownEntry = regexp.MustCompile(`^map has no entry for key "(.*)"$`)
	nilPointer   = regexp.MustCompile(`^nil pointer evaluating interface \{\}\.(.*)$`)
)

func parseMistake(f *file, err error) error {
	m := parseError.FindStringSubmatch(err.Error())
	if m == nil {
		return &mistake{file: f, message: err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	return &mistake{file: f, line: line, message: m[2]}
}

// execMistake gives an error of execution its place. Where it cannot be read, it stays the text that it is.
func (v *variant) execMistake(err error) error {
	m := execError.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s: %w", v.file.name, err)
	}
	f := v.files[m[1]]
	if f == nil {
		return fmt.Errorf("%s: %w", v.file.name, err)
	}
	line, _ := strconv.Atoi(m[2])
	column, _ := strconv.Atoi(m[3])
	return &mistake{file: f, line: line, column: f.runeColumn(line, column+toPart(f.lineText(line), column, m[5])), message: explain(m[4], m[5])}
}

// toPart is how far behind a path's place in a line the part stands that the error is about.
func toPart(line string, column int, message string) int {
	part := unknownEntry.FindStringSubmatch(message)
	if part == nil {
		part = nilPointer.FindStringSubmatch(message)
	}
	if part == nil || column > len(line) {
		return 0
	}
	return max(strings.Index(line[column:], "."+part[1])+len("."), 0)
}

// explain says in our words what the standard library says in Go's.
func explain(node, message string) string {
	if m := unknownEntry.FindStringSubmatch(message); m != nil {
		owner := ownerOf(node, m[1])
		return fmt.Sprintf("there is no %s.%s; where it may be absent, write %s", strings.TrimSuffix(owner, "."), m[1], getCall(owner, m[1]))
	}
	if m := nilPointer.FindStringSubmatch(message); m != nil {
		owner := ownerOf(node, m[1])
		return fmt.Sprintf("%s is NULL here and has no .%s; put it inside {{with %s}}, or write %s", owner, m[1], owner, getCall(owner, m[1]))
	}
	if _, own, ok := strings.Cut(message, "error calling "); ok {
		name, text, _ := strings.Cut(own, ": ")
		if strings.HasPrefix(name, "_") {
			return text
		}
		return name + ": " + text
	}
	return message
}

// ownerOf is what a path such as .a.b.c names before its part b.
func ownerOf(path, part string) string {
	at := strings.Index(path+".", "."+part+".")
	if at <= 0 {
		return "."
	}
	return path[:at]
}

func getCall(owner, part string) string { return fmt.Sprintf("(get %s %q)", owner, part) }

// didYouMean is a question behind an error, if a known name resembles the unknown one; else the names there are, if few.
func didYouMean(name string, known []string) string {
	const few = 12
	if best, ok := nearest(name, known); ok {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	if len(known) == 0 || len(known) > few {
		return ""
	}
	return "; there are: " + strings.Join(known, ", ")
}

// nearest is the known name with the least edit distance, if that is small beside the length.
func nearest(name string, known []string) (string, bool) {
	best, least := "", 1+max(1, utf8.RuneCountInString(name)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best, best != ""
}

// distance is how many characters have to be changed, added, left out or swapped with their neighbour to make a out of b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	d := make([][]int, len(x)+1)
	for i := range d {
		d[i] = make([]int, len(y)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			change := d[i-1][j-1]
			if x[i-1] != y[j-1] {
				change++
			}
			d[i][j] = min(change, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(x)][len(y)]
}
