package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ignore is a comment such as `# postman: ignore PM203`. It silences warnings of these kinds in what it stands at: the rule,
// key or list item that begins on its line or, where it has a line of its own, below it.
type ignore struct {
	file     *ruleFile
	place    Place
	ids      []ID
	from, to int // lines that it silences; 0: nothing follows it
}

var ignoreComment = regexp.MustCompile(`(?:^|\s)(#\s*postman:\s*ignore\b)(.*)$`)

var warningID = regexp.MustCompile(`^PM\d+`)

// ignores finds the comments of a file that silence warnings.
func (r *reader) ignores(root *yaml.Node) []ignore {
	var found []ignore
	var o *outline
	for i := range r.file.ends {
		line := r.file.line(i + 1)
		if !strings.Contains(line, "postman:") {
			continue
		}
		m := ignoreComment.FindStringSubmatchIndex(line)
		if m == nil {
			continue
		}
		if o == nil {
			o = newOutline(r.file, root)
		}
		place := Place{r.file.name, i + 1, utf8.RuneCountInString(line[:m[2]]) + 1}
		if o.inText(place) {
			continue
		}
		g := ignore{file: r.file, place: place, ids: warnings(line[m[4]:])}
		g.from, g.to = o.item(place.Line, strings.TrimSpace(line[:m[2]]) == "")
		found = append(found, g)
	}
	return found
}

// warnings are the names at the beginning of a text; what follows them is for people.
func warnings(text string) (ids []ID) {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		id := warningID.FindString(word)
		if id != "" {
			ids = append(ids, ID(id))
		}
		if id != word {
			return ids
		}
	}
	return ids
}

// outline is where a file's texts and items stand, in the order in which they begin.
type outline struct {
	file  *ruleFile
	texts []extent
	items []extent
}

// extent is where something stands, from its first character to behind its last.
type extent struct{ from, to Place }

func newOutline(f *ruleFile, root *yaml.Node) *outline {
	o := &outline{file: f}
	o.visit(root)
	return o
}

func (o *outline) visit(n *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		o.texts = append(o.texts, extent{Place{o.file.name, n.Line, n.Column}, end(o.file, n)})
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			o.items = append(o.items, extent{Place{o.file.name, key.Line, key.Column}, Place{Line: lastLine(o.file, value)}})
			o.visit(key)
			o.visit(value)
		}
	case yaml.SequenceNode:
		for _, child := range n.Content {
			o.items = append(o.items, extent{Place{o.file.name, child.Line, child.Column}, Place{Line: lastLine(o.file, child)}})
			o.visit(child)
		}
	case yaml.DocumentNode, yaml.AliasNode:
	}
}

// inText says whether a place belongs to a text.
func (o *outline) inText(p Place) bool {
	i, exact := slices.BinarySearchFunc(o.texts, p, func(e extent, p Place) int { return compare(e.from, p) })
	return exact || i > 0 && compare(p, o.texts[i-1].to) < 0
}

// item is the lines of the outermost item that begins on a line, or else, if it may, on the first one below where one does.
func (o *outline) item(line int, below bool) (from, to int) {
	i, _ := slices.BinarySearchFunc(o.items, line, func(e extent, line int) int { return cmp.Compare(e.from.Line, line) })
	if i == len(o.items) || !below && o.items[i].from.Line > line {
		return 0, 0
	}
	return o.items[i].from.Line, o.items[i].to.Line
}

func compare(p, q Place) int {
	return cmp.Or(cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

func before(p, q Place) bool { return compare(p, q) < 0 }

// end is behind the last character of a scalar.
func end(f *ruleFile, n *yaml.Node) Place {
	t := newText(f, n)
	return t.place(utf8.RuneCountInString(t.value))
}

// lastLine is the line that a node ends on.
func lastLine(f *ruleFile, n *yaml.Node) int {
	last := n.Line
	if n.Kind == yaml.ScalarNode {
		last = end(f, n).Line
	}
	for _, child := range n.Content {
		last = max(last, lastLine(f, child))
	}
	return last
}

// Silence leaves out the warnings that the files' comments silence, and adds one for each comment that silences nothing; of kinds
// that were not tried, and beside errors, after which not everything was, nothing is said. Errors cannot be silenced.
func (s *Source) Silence(found Errors, tried func(ID) bool) Errors {
	used := make(map[*ignore]map[ID]bool)
	left := slices.DeleteFunc(slices.Clone(found), func(e *Error) bool {
		silenced := false
		for i := range s.ignores {
			if g := &s.ignores[i]; g.silences(e) {
				if used[g] == nil {
					used[g] = make(map[ID]bool)
				}
				used[g][e.ID], silenced = true, true
			}
		}
		return silenced
	})
	whole := !slices.ContainsFunc(found, func(e *Error) bool { return !e.ID.Warning() })
	for i := range s.ignores {
		g := &s.ignores[i]
		if len(g.ids) == 0 {
			left = append(left, g.idle("the comment does not say what to ignore", "name the warnings: # postman: ignore PM203"))
		}
		for _, id := range g.ids {
			switch {
			case !id.Warning():
				left = append(left, g.idle(fmt.Sprintf("%s is no warning, and only warnings can be ignored", id), "docs/checks.md lists them"))
			case whole && tried(id) && !used[g][id]:
				left = append(left, g.idle("there is no "+string(id)+" to ignore here", "drop it from the comment, so that it hides nothing later"))
			}
		}
	}
	return left.inOrder()
}

func (g *ignore) silences(e *Error) bool {
	return e.ID.Warning() && e.Place.File == g.place.File && e.Place.Line >= g.from && e.Place.Line <= g.to && slices.Contains(g.ids, e.ID)
}

func (g *ignore) idle(message, hint string) *Error {
	return &Error{ID: "PM230", Place: g.place, Message: message, Hint: hint, Line: g.file.line(g.place.Line)}
}
