package rules

import (
	"bytes"
	"regexp"
	"slices"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// A file of many rules is parsed in parts: the library makes a tree of a whole document, which is several times as large as all that is
// kept of it. Only files are taken apart where nobody could tell the difference; all others, and those with a mistake in their YAML, are
// parsed as a whole.

// partSize is how many rules make a part.
const partSize = 50

// listKey is the line behind which the rules stand.
var listKey = regexp.MustCompile(`^rules:[ \t]*(#.*)?$`)

// marker is a line that begins or ends a document, or says something about it.
var marker = regexp.MustCompile(`^(---|\.\.\.|%)`)

// parts is a file that was taken apart.
type parts struct {
	head  []byte // with the key rules at its end
	rules []chunk
}

// chunk is some items of the list.
type chunk struct {
	text  []byte
	line  int // that it begins on, counted from 0
	items int
}

// addParts parses a file in parts of so many rules; false: it has to be parsed as a whole.
func (s *Source) addParts(file *ruleFile, content []byte, size int) (Errors, bool) {
	p := split(file, content, size)
	if p == nil {
		return nil, false
	}
	top := newReader(file)
	root := document(p.head)
	if root == nil || root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 || !endsIn(root, p.rules[0].line) {
		return nil, false
	}
	read := new(Source)
	last := len(root.Content) - 1
	root.Content[last] = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: p.rules[0].line + 1, Column: 1}
	top.top(root, read)
	rules, errs, ok := file.read(p.rules)
	if !ok {
		return nil, false
	}
	s.Rules = append(s.Rules, rules...)
	s.sensitive = append(s.sensitive, read.sensitive...)
	return append(top.errs, errs...), true
}

// endsIn says whether a mapping ends in the key rules, without a value, on the line before another one.
func endsIn(root *yaml.Node, line int) bool {
	if len(root.Content) < 2 {
		return false
	}
	key, value := root.Content[len(root.Content)-2], root.Content[len(root.Content)-1]
	return key.Value == "rules" && key.Column == 1 && key.Line <= line &&
		value.Kind == yaml.ScalarNode && value.Tag == "!!null" && value.Value == "" && value.Anchor == "" && value.Style == 0
}

// document is the root of a text's one document; nil, where it is not that.
func document(text []byte) *yaml.Node {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

// read reads the parts of a file, several at once; false: one of them is no part of a list.
func (f *ruleFile) read(list []chunk) ([]*Rule, Errors, bool) {
	rules, errs, fit := make([][]*Rule, len(list)), make([]Errors, len(list)), make([]bool, len(list))
	share(len(list), func(from, to int) {
		r := newReader(f)
		for i := from; i < to; i++ {
			root := document(list[i].text)
			if root == nil || root.Kind != yaml.SequenceNode || root.Style&yaml.FlowStyle != 0 || len(root.Content) != list[i].items {
				return
			}
			for _, n := range root.Content {
				moveDown(n, list[i].line)
			}
			rules[i] = r.rules(root.Content)
			errs[i], fit[i] = r.errs, true
			r.errs = nil
			clear(r.trapped)
		}
	})
	return slices.Concat(rules...), slices.Concat(errs...), !slices.Contains(fit, false)
}

// moveDown has nodes stand so many lines lower.
func moveDown(n *yaml.Node, lines int) {
	n.Line += lines
	for _, child := range n.Content {
		moveDown(child, lines)
	}
}

// split takes a file apart before the hyphens of its list; nil: it cannot be done for sure. What it takes for a hyphen of the list may
// stand inside of a text or brackets: then what stands before is no YAML by itself.
func split(file *ruleFile, content []byte, size int) *parts {
	at := file.find(listKey)
	if at == 0 || !utf8.Valid(content) || bytes.Contains(content, []byte("postman:")) { // a comment that silences warnings may be about anything
		return nil
	}
	ends := lineEnds(content)
	p, indent, from := &parts{}, -1, 0
	for i := at; i < len(ends); i++ {
		line := content[ends[i-1]:ends[i]]
		depth, first := firstOf(line)
		switch {
		case first == 0 || first == '#':
			continue
		case indent < 0 && hyphen(line, depth):
			indent, from, p.head = depth, i, content[:ends[i-1]]
			p.rules = []chunk{{line: i}}
		case depth < indent || indent < 0 || depth == indent && !hyphen(line, depth):
			return nil
		case depth > indent:
			continue
		}
		last := &p.rules[len(p.rules)-1]
		if last.items == size {
			last.text = content[ends[from-1]:ends[i-1]]
			from = i
			p.rules = append(p.rules, chunk{line: i})
			last = &p.rules[len(p.rules)-1]
		}
		last.items++
	}
	if indent < 0 || file.find(marker) > 0 {
		return nil
	}
	p.rules[len(p.rules)-1].text = content[ends[from-1]:]
	return p
}

// firstOf is how far a line is indented with spaces, and what stands there; 0 of an empty one.
func firstOf(line []byte) (depth int, first byte) {
	rest := bytes.TrimLeft(line, " ")
	if len(bytes.TrimSpace(rest)) == 0 {
		return 0, 0
	}
	return len(line) - len(rest), rest[0]
}

// hyphen says whether an item of a list begins at a place of a line.
func hyphen(line []byte, at int) bool {
	return line[at] == '-' && (at+1 == len(line) || line[at+1] == ' ' || line[at+1] == '\n' || line[at+1] == '\r')
}
