package rules

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ruleFile is a file of rules, for messages.
type ruleFile struct {
	name string
	text string
	ends []uint32 // offsets behind the lines
}

func newFile(name string, content []byte) *ruleFile {
	ends := lineEnds(content)
	f := &ruleFile{name, string(content), make([]uint32, len(ends))}
	for i, end := range ends {
		f.ends[i] = uint32(end)
	}
	return f
}

// lineEnds are the offsets behind each line of the content, the last one included even if nothing is in it. Lines end as in
// YAML 1.1.
func lineEnds(content []byte) []int {
	var ends []int
	for i, c := range content {
		rest := content[i:]
		switch {
		case c == '\n', c == '\r' && !bytes.HasPrefix(rest, []byte("\r\n")):
			ends = append(ends, i+1)
		case c == 0xC2 && bytes.HasPrefix(rest, []byte("\u0085")):
			ends = append(ends, i+len("\u0085"))
		case c == 0xE2 && (bytes.HasPrefix(rest, []byte("\u2028")) || bytes.HasPrefix(rest, []byte("\u2029"))):
			ends = append(ends, i+len("\u2028"))
		}
	}
	return append(ends, len(content))
}

// line is a source line without its end, counted from 1.
func (f *ruleFile) line(n int) string {
	if n < 1 || n > len(f.ends) {
		return ""
	}
	var start uint32
	if n > 1 {
		start = f.ends[n-2]
	}
	return strings.Trim(f.text[start:f.ends[n-1]], "\uFEFF\r\n\u0085\u2028\u2029")
}

// find is the first line that a pattern fits, counted from 1; 0: there is none.
func (f *ruleFile) find(pattern *regexp.Regexp) int {
	for n := range f.ends {
		if pattern.MatchString(f.line(n + 1)) {
			return n + 1
		}
	}
	return 0
}

// known is a scalar's value as a part of the file's own text, which is kept anyway, where it stands there as it is.
func (f *ruleFile) known(n *yaml.Node) string {
	for quote := range 2 {
		line, at := f.line(n.Line), n.Column-1+quote
		if at >= 0 && at < len(line) && strings.HasPrefix(line[at:], n.Value) {
			return line[at : at+len(n.Value)]
		}
	}
	return n.Value
}

// text is a scalar, and where each of its characters stands in the file. Quotes, escapes, indentation and folding lie
// between the two.
type text struct {
	file         *ruleFile
	value        string
	line, column int32 // where the scalar begins, its quote or | included
	style        yaml.Style
}

func newText(f *ruleFile, n *yaml.Node) text {
	return text{f, n.Value, int32(n.Line), int32(n.Column), n.Style}
}

// place is where the character at an offset, counted in characters, stands. Offsets behind the text are its end.
func (t text) place(offset int) Place {
	c := t.begin()
	end := len([]rune(strings.TrimRightFunc(t.value, unicode.IsSpace)))
	at := c.pos
	for i, r := range []rune(t.value) {
		if i == end {
			break
		}
		if at = c.find(r); i == offset {
			return at.place(t.file)
		}
	}
	if end > 0 {
		at.column++
	}
	return at.place(t.file)
}

// cutBy is the place of a comment that follows the plain scalar on its line.
func (t text) cutBy() (Place, bool) {
	if t.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return Place{}, false
	}
	c := t.end()
	for c.peek() == ' ' || c.peek() == '\t' {
		c.next()
	}
	return c.pos.place(t.file), c.peek() == '#'
}

// end stands behind the last character of the scalar's source, but for the quote that closes it.
func (t text) end() *cursor {
	c := t.begin()
	for _, r := range t.value {
		c.find(r)
	}
	return c
}

const (
	swallowed     = "YAML joins these lines, and the comment takes in what follows it"
	swallowedHint = "write the value under a | line, which keeps its lines"
)

// swallows says whether a comment to the end of a line, which is the text between two offsets, goes on behind the end of its
// line in the file: YAML joins the lines of all scalars but those under a |.
func swallows(t text, from, to int) bool {
	return t.place(from).Line != t.place(to-1).Line
}

// pos is a place in the lines of a file; both count from 0.
type pos struct{ line, column int }

func (p pos) place(f *ruleFile) Place { return Place{f.name, p.line + 1, p.column + 1} }

// cursor walks the source of a scalar, one character of its value at a time.
type cursor struct {
	file  *ruleFile
	row   []rune // the line that pos is in
	style yaml.Style
	pos   pos
}

// begin stands on the first character of the scalar's source.
func (t text) begin() *cursor {
	c := &cursor{file: t.file, style: t.style, pos: pos{int(t.line) - 1, int(t.column) - 1}}
	c.row = []rune(t.file.line(int(t.line)))
	switch {
	case t.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		c.pos.column = len(c.row)
		c.next()
	case t.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		c.next()
	}
	return c
}

const eof = -1

func (c *cursor) peek() rune {
	switch {
	case c.pos.column < len(c.row):
		return c.row[c.pos.column]
	case c.pos.line < len(c.file.ends)-1:
		return '\n'
	}
	return eof
}

func (c *cursor) next() rune {
	r := c.peek()
	switch {
	case c.pos.column < len(c.row):
		c.pos.column++
	case r == '\n':
		c.pos = pos{line: c.pos.line + 1}
		c.row = []rune(c.file.line(c.pos.line + 1))
	}
	return r
}

// find walks to the place that a character of the value came from, and behind it. What lies between is white space that
// YAML dropped or folded: all other characters come in the same order.
func (c *cursor) find(want rune) pos {
	for {
		at := *c
		got := c.unit()
		switch {
		case got == want || got == eof:
			return at.pos
		case got != nothing && !unicode.IsSpace(got): // the white space of the value has none here
			*c = at
			return at.pos
		}
	}
}

// nothing stands for a source that means no character: an escaped line end.
const nothing = -2

// unit reads what one character of the value may be written as.
func (c *cursor) unit() rune {
	r := c.next()
	switch {
	case r == '\'' && c.style&yaml.SingleQuotedStyle != 0:
		c.next()
	case r == '\\' && c.style&yaml.DoubleQuotedStyle != 0:
		return c.escape()
	}
	return r
}

// escape reads what follows the backslash of a double-quoted scalar (YAML 1.2, section 5.7).
func (c *cursor) escape() rune {
	r := c.next()
	switch r {
	case '\n':
		return nothing
	case 'x':
		return c.hex(2)
	case 'u':
		return c.hex(4)
	case 'U':
		return c.hex(8)
	}
	const from, to = "0abtnvfre N_LP", "\x00\a\b\t\n\v\f\r\x1b \u0085\u00a0\u2028\u2029"
	if i := strings.IndexRune(from, r); i >= 0 {
		return []rune(to)[i]
	}
	return r
}

func (c *cursor) hex(digits int) rune {
	var s strings.Builder
	for range digits {
		s.WriteRune(c.next())
	}
	n, err := strconv.ParseUint(s.String(), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
