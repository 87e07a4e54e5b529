package templates

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Mistake is one thing that is wrong with a template.
type Mistake struct {
	File         string // schedule.ko.html; empty where it is none's in particular
	Line, Column int    // from 1, the column in characters; 0: not known
	Message      string
	Hint         string // the way out; may be empty
	Source       string // the line
}

// Mistakes takes apart what [Load], [Set.Check] and [Set.Render] return as an error.
func Mistakes(err error) []Mistake {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Mistake
		for _, e := range joined.Unwrap() {
			all = append(all, Mistakes(e)...)
		}
		return all
	}
	if m, ok := errors.AsType[*mistake](err); ok {
		return []Mistake{{m.file.name, m.line, m.column, m.message, m.hint, m.file.lineText(m.line)}}
	}
	var m Mistake
	m.Message, m.Hint, _ = strings.Cut(err.Error(), "\n    → ")
	if name, rest, ok := strings.Cut(m.Message, ": "); ok && fileName.MatchString(name) {
		m.File, m.Message = name, rest
	}
	return []Mistake{m}
}

// mistake is one thing that is wrong in a template file, with its place and the way out.
type mistake struct {
	file    *file
	line    int // from 1; 0: the file as a whole
	column  int // in characters, from 1; 0: not known
	message string
	hint    string // the way out; may be empty
	empty   bool   // it is wrong with these data alone, which lack a value
	failed  int    // where the node stands that could not be executed, in bytes from 1; 0: it was no execution
}

// Error is the place, the message, the source line with a caret, and the way out.
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
	if m.hint != "" {
		b.WriteString("\n    → " + m.hint)
	}
	return b.String()
}

// excerpt shows the line, and a caret under the place. Of a long line it shows what stands around the place.
func (m *mistake) excerpt(b *strings.Builder) {
	if m.line == 0 {
		return
	}
	line := []rune(strings.TrimRightFunc(m.file.lineText(m.line), unicode.IsSpace))
	at := m.column - 1
	for len(line) > 0 && unicode.IsSpace(line[0]) {
		line, at = line[1:], at-1
	}
	if len(line) == 0 {
		return
	}
	const most, before = 110, 70
	if len(line) > most && at > before {
		line, at = append([]rune{'…'}, line[at-before:]...), before+1
	}
	if len(line) > most {
		line = append(line[:most:most], '…')
	}
	b.WriteString("\n    " + string(line))
	if m.column > 0 && at >= 0 && at <= len(line) {
		b.WriteString("\n    " + blank(line[:at]) + "^")
	}
}

// blank is white space as wide as the text is on a terminal, where Korean letters take two columns.
func blank(text []rune) string {
	var b strings.Builder
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case r == '\t':
			b.WriteByte('\t')
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
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

// execMistake gives an error of execution its place. Where it cannot be read, it stays the text that it is.
func (v *variant) execMistake(err error) error {
	m := execError.FindStringSubmatch(err.Error())
	if m == nil || v.files[m[1]] == nil {
		return fmt.Errorf("%s: %w", v.file.name, err)
	}
	f, node, message := v.files[m[1]], m[4], m[5]
	line, _ := strconv.Atoi(m[2])
	column, _ := strconv.Atoi(m[3])
	mistake := &mistake{file: f, line: line, column: f.runeColumn(line, column+toPart(f.lineText(line), column, message)), failed: f.lineStart(line) + column + 1}
	mistake.message, mistake.hint = explain(node, message)
	if mistake.hint == "" {
		mistake.hint = usageHint(f.lineText(line), column, message)
	}
	return mistake
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

// explain says in our words what the standard library says in Go's, and the way out.
func explain(node, message string) (text, hint string) {
	if m := unknownEntry.FindStringSubmatch(message); m != nil {
		owner := ownerOf(node, m[1])
		return fmt.Sprintf("there is no %s.%s", strings.TrimSuffix(owner, "."), m[1]),
			fmt.Sprintf("where it may be absent, write {{%s}}, and inside of another action (%[1]s)", getCall(owner, m[1]))
	}
	if m := nilPointer.FindStringSubmatch(message); m != nil {
		owner := ownerOf(node, m[1])
		return fmt.Sprintf("%s is NULL here and has no .%s", owner, m[1]),
			fmt.Sprintf("put it inside {{with %s}}, or write {{%s}}, and inside of another action (%[2]s)", owner, getCall(owner, m[1]))
	}
	if m := wrongValue.FindStringSubmatch(message); m != nil {
		return map[string]string{"string": "a text", "int": "a whole number", "integer": "a whole number"}[m[1]+m[2]] + " is expected here", ""
	}
	if m := wrongCount.FindStringSubmatch(message); m != nil {
		return m[1] + " " + strings.NewReplacer("want", "takes", " got", " values, and gets").Replace(m[2]), ""
	}
	name, own, ok := strings.Cut(message, ": ")
	name, ours := strings.CutPrefix(name, "error calling ")
	if !ok || !ours {
		return message, ""
	}
	own, hint, _ = strings.Cut(own, hintMark)
	if strings.HasPrefix(name, "_") {
		return own, hint
	}
	return name + ": " + own, hint
}

// hintMark stands between the message and the way out in the errors of our functions.
const hintMark = " → "

// ownerOf is what a path such as .a.b.c names before its part b.
func ownerOf(path, part string) string {
	at := strings.Index(path+".", "."+part+".")
	if at <= 0 {
		return "."
	}
	return path[:at]
}

func getCall(owner, part string) string { return fmt.Sprintf("get %s %q", owner, part) }

// didYouMean asks whether the known name was meant that resembles the unknown one; else it names what there is, if that is little.
func didYouMean(name string, known []string) string {
	const few = 20
	if best, ok := nearest(name, known); ok {
		return fmt.Sprintf("did you mean %s?", best)
	}
	if len(known) == 0 || len(known) > few {
		return ""
	}
	return "there are: " + strings.Join(known, ", ")
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
