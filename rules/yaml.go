package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/expr-lang/expr/conf"
	"gopkg.in/yaml.v3"
)

// reader walks the nodes of one file and gathers every mistake. The nodes are walked by hand, since a decoder would
// forget where a value stood.
type reader struct {
	file *ruleFile
	rule string // whose part is being read
	errs Errors
	// trapped are nodes that a mistake was reported of: what they hold is not looked at again.
	trapped map[*yaml.Node]bool
	unread  []text       // expressions of the rule that cannot be parsed
	grammar *conf.Config // of expressions; made when the first is read
	// Rules that a program writes say the same again and again: it is kept once.
	words   map[string]string
	queries map[string]*SQL // without what depends on where they stand
}

func newReader(file *ruleFile) *reader {
	return &reader{file: file, trapped: make(map[*yaml.Node]bool), words: make(map[string]string), queries: make(map[string]*SQL)}
}

func (r *reader) fail(n *yaml.Node, id ID, message, hint string) {
	r.failAt(Place{r.file.name, n.Line, n.Column}, id, message, hint)
}

func (r *reader) failAt(p Place, id ID, message, hint string) {
	r.errs = append(r.errs, &Error{id, p, r.rule, message, hint, r.file.line(p.Line)})
}

// parse reads the file's one document; nil where it has none or is no YAML.
func (r *reader) parse(content []byte) *yaml.Node {
	d := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.failAt(Place{File: r.file.name}, "PM007", "the file has no rules", "write rules: and a list of them")
		return nil
	case err != nil:
		r.syntax(content, err)
		return nil
	}
	switch err := d.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(content, err)
	default:
		r.fail(&more, "PM002", "a rule file holds one document, and here a second one begins", "drop the --- line, or use a file for each")
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line \d+: )?`)

// syntax reports what is no YAML. The library often names the line where the broken construct began or none at all, so
// the line is looked for: it ends the shortest beginning of the file that fails in the same way.
func (r *reader) syntax(content []byte, err error) {
	ends := lineEnds(content)
	n, _ := slices.BinarySearchFunc(ends, true, func(end int, _ bool) int {
		if failure(content[:end]) == err.Error() {
			return 1
		}
		return -1
	})
	n = min(n, len(ends)-1)
	start := n // of the construct that breaks there: what stands before it is YAML
	for start > 0 && n-start < 100 && failure(content[:ends[start-1]]) != "" {
		start--
	}
	problem := yamlLine.ReplaceAllString(err.Error(), "")
	message := "this is not YAML: " + problem
	if start < n {
		message += fmt.Sprintf(", in what begins on line %d", start+1)
	}
	begin := append([]int{0}, ends...)
	place := Place{r.file.name, n + 1, breaks(content[begin[start]:ends[n]], begin[n]-begin[start], problem)}
	r.failAt(place, "PM002", message, r.syntaxHint(start+1, n+1, problem))
}

// breaks is the column, from 1, in which a broken construct breaks, in its line that begins at an offset; 0: it cannot be told.
func breaks(construct []byte, line int, problem string) int {
	const most = 1000
	for end := line + 1; end <= len(construct) && end-line < most; end++ {
		if yamlLine.ReplaceAllString(failure(construct[:end]), "") == problem {
			return max(utf8.RuneCount(construct[line:end]), 1)
		}
	}
	return 0
}

// failure is how the decoding of a file's beginning fails; empty if it does not.
func failure(content []byte) string {
	d := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var n yaml.Node
		switch err := d.Decode(&n); {
		case errors.Is(err, io.EOF):
			return ""
		case err != nil:
			return err.Error()
		}
	}
}

// traps reports what YAML would do behind the writer's back: tags, anchors, aliases, merged and repeated keys.
func (r *reader) traps(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.trap(n, "PM003", "an alias (*"+n.Value+") is not allowed", "write the value out")
		return
	case n.Anchor != "":
		r.trap(n, "PM003", "an anchor (&"+n.Anchor+") is not allowed", "write the value out wherever it is needed; a value that begins with & belongs in quotes")
	case n.Style&yaml.TaggedStyle != 0:
		r.trap(n, "PM003", "YAML takes "+n.Tag+" for a tag and would drop it", tagHint(n))
	}
	if n.Kind == yaml.MappingNode {
		r.keys(n)
	}
	for _, child := range n.Content {
		r.traps(child)
	}
}

func (r *reader) trap(n *yaml.Node, id ID, message, hint string) {
	r.trapped[n] = true
	r.fail(n, id, message, hint)
}

func tagHint(n *yaml.Node) string {
	if strings.HasPrefix(n.Tag, "!!") {
		return "leave the tag out"
	}
	return fmt.Sprintf("write not instead of !, as in: not %s", strings.TrimSpace(n.Tag[1:]+" "+n.Value))
}

// keys checks the keys of a mapping.
func (r *reader) keys(n *yaml.Node) {
	first := make(map[string]int)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch line, repeated := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.trap(key, "PM003", "a key must be a word", "{ and [ begin a mapping and a list in YAML: a value that begins with them belongs in quotes")
		case key.Tag == "!!merge":
			r.trap(key, "PM003", "a merged mapping (<<) is not allowed", "write the keys out")
		case repeated:
			r.trap(key, "PM004", fmt.Sprintf("the key %s is there twice, first on line %d", key.Value, line), "keep one of them")
		default:
			first[key.Value] = key.Line
		}
	}
}

// field is a key of a mapping and its value.
type field struct{ key, value *yaml.Node }

// name is the key's; empty where there is no field.
func (f field) name() string {
	if f.key == nil {
		return ""
	}
	return f.key.Value
}

// fields are a mapping's fields in their order, without those that were trapped.
func (r *reader) fields(n *yaml.Node, what string) []field {
	if !r.is(n, yaml.MappingNode, what) {
		return nil
	}
	var fs []field
	for i := 0; i < len(n.Content); i += 2 {
		f := field{n.Content[i], n.Content[i+1]}
		if i > 0 && n.Style&yaml.FlowStyle != 0 && null(f.value) && r.noColon(f.key) {
			r.torn(fs, f.key)
			return fs
		}
		if !r.trapped[f.key] {
			fs = append(fs, f)
		}
	}
	return fs
}

// noColon says whether what YAML takes for a key is none: nothing follows it but a comma or a brace.
func (r *reader) noColon(key *yaml.Node) bool {
	if !plainStyle(key) {
		return false
	}
	c := newText(r.file, key).end()
	for unicode.IsSpace(c.peek()) {
		c.next()
	}
	return c.peek() != ':'
}

// torn reports a value between braces that YAML ends at a comma. Nothing more is said of what is left of it.
func (r *reader) torn(before []field, rest *yaml.Node) {
	r.trapped[rest] = true
	var last field
	if len(before) > 0 {
		last = before[len(before)-1]
		r.trapped[last.value] = true
	}
	hint := "put the value into quotes, or under a | line"
	switch last.name() {
	case "ops":
		hint = "a list stands in square brackets: ops: [insert, update]"
	case "address":
		hint = "write a list of recipients: [{address: a@example.com}, {address: b@example.com}]"
	}
	r.fail(rest, "PM010", "between braces YAML ends a value at a comma: what follows it is cut off", hint)
}

// items are a list's items.
func (r *reader) items(n *yaml.Node, what string) []*yaml.Node {
	if !r.is(n, yaml.SequenceNode, what) {
		return nil
	}
	return n.Content
}

// is checks a node's kind. Of what was trapped it says no and nothing else.
func (r *reader) is(n *yaml.Node, kind yaml.Kind, what string) bool {
	if r.trapped[n] || n.Kind == yaml.AliasNode {
		return false
	}
	if n.Kind != kind || null(n) {
		r.fail(n, "PM008", fmt.Sprintf("this must be %s, and is %s", what, kindName(n)), formHint(n, kind, what))
		return false
	}
	return true
}

func kindName(n *yaml.Node) string {
	switch {
	case null(n):
		return "empty"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// null says whether a value is left out or null.
func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// scalar is a value as it was written, whatever type YAML would give it: `no` is a word here.
func (r *reader) scalar(n *yaml.Node, what string) (string, bool) {
	value, ok := r.written(n, what)
	return value, ok && r.whole(n)
}

// whole checks that no # cuts a plain value short.
func (r *reader) whole(n *yaml.Node) bool {
	p, cut := r.cutWord(n)
	if cut {
		r.failAt(p, "PM010", "YAML takes this # and what follows for a comment: the value ends before it",
			"put the value into quotes; a comment has a space behind its #")
	}
	return !cut
}

// cutWord finds a # that follows a plain value and looks like a part of it: Unit #5. A comment has a space behind its sign.
func (r *reader) cutWord(n *yaml.Node) (Place, bool) {
	if !plainStyle(n) || n.Kind != yaml.ScalarNode || !strings.Contains(r.file.line(n.Line), " #") && len(n.Value) < len(r.file.line(n.Line)) {
		return Place{}, false
	}
	p, cut := newText(r.file, n).cutBy()
	if !cut {
		return Place{}, false
	}
	behind := []rune(r.file.line(p.Line))[p.Column:]
	return p, len(behind) > 0 && behind[0] != ' ' && behind[0] != '#'
}

// written is a scalar's value, a # behind it or not.
func (r *reader) written(n *yaml.Node, what string) (string, bool) {
	if !r.is(n, yaml.ScalarNode, what) {
		return "", false
	}
	if strings.TrimSpace(n.Value) == "" {
		r.fail(n, "PM008", "this must be "+what+", and is empty", "")
		return "", false
	}
	return r.file.known(n), true
}

// word is a scalar that other rules may have as well.
func (r *reader) word(n *yaml.Node, what string) (string, bool) {
	text, ok := r.scalar(n, what)
	return r.known(text), ok
}

// known is a text as it was met first.
func (r *reader) known(text string) string {
	first, ok := r.words[text]
	if !ok {
		first = text
		r.words[text] = text
	}
	return first
}

// expr is an expression whose syntax is right. Its types are checked when the tables are known.
func (r *reader) expr(n *yaml.Node, what string) *Expr {
	if _, ok := r.written(n, what); !ok {
		return nil
	}
	t := newText(r.file, n)
	t.value = r.file.known(n)
	if r.grammar == nil {
		r.grammar = syntax()
	}
	_, problems := parseExpr(t.value, r.grammar)
	if p, cut := t.cutBy(); cut && len(problems) > 0 { // a # of an expression stands in quotes or brackets, which are open now
		r.cut(p, "expression")
		return nil
	}
	if offset, found := swallowing(t); found {
		problems = []problem{{offset, "PM011", swallowed, swallowedHint}}
	}
	for _, p := range problems {
		r.failAt(t.place(p.offset), p.id, p.message, p.hint)
	}
	if len(problems) > 0 {
		r.unread = append(r.unread, t)
		return nil
	}
	return &Expr{text: t}
}

// sql is a query. A # behind it on its line may be meant as an operator: what is left would be another query, and run.
func (r *reader) sql(n *yaml.Node) *SQL {
	if _, ok := r.written(n, "a query"); !ok {
		return nil
	}
	t := newText(r.file, n)
	if p, cut := t.cutBy(); cut && !ignoreComment.MatchString(r.file.line(p.Line)) {
		r.cut(p, "query")
		return nil
	}
	t.value = r.known(r.file.known(n))
	if known := r.queries[t.value]; known != nil {
		sql := *known
		sql.text = t
		return &sql
	}
	sql, problems := parseSQL(t)
	for _, p := range problems {
		r.failAt(t.place(p.offset), p.id, p.message, p.hint)
	}
	if sql != nil && !strings.Contains(t.value, "--") { // where a comment ends depends on the lines of the file
		r.queries[t.value] = sql
	}
	return sql
}

func (r *reader) cut(p Place, what string) {
	r.failAt(p, "PM010", "YAML takes this # and what follows for a comment: the "+what+" ends before it",
		"put a comment on a line of its own, and a # that belongs to the "+what+" into quotes or under a | line")
}

// oneOf is a word of a closed list; the first of the list if it is none.
func oneOf[T ~string](r *reader, n *yaml.Node, words ...T) T {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	got, ok := r.scalar(n, "one of "+list(known, "or"))
	if ok && !slices.Contains(known, got) {
		r.fail(n, "PM009", fmt.Sprintf("%s is not one of %s", got, list(known, "and")), Nearest(got, known))
	}
	if !slices.Contains(known, got) {
		return words[0]
	}
	return T(got)
}

// count is a whole number from 1.
func (r *reader) count(n *yaml.Node) (int, bool) {
	got, ok := r.scalar(n, "a whole number")
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(got)
	if err != nil || number < 1 || number > 1_000_000_000 {
		hint := ""
		if plain := plainNumber(got); plain != "" && !strings.Contains(plain, ".") && plain != got {
			hint = "write " + plain
		}
		r.fail(n, "PM009", got+" is not a whole number from 1 to 1000000000", hint)
		return 0, false
	}
	return number, true
}
