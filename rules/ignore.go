package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

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
	var scalars []extent
	for i, line := range r.file.lines {
		if !strings.Contains(line, "postman") {
			continue
		}
		m := ignoreComment.FindStringSubmatchIndex(line)
		if m == nil {
			continue
		}
		if scalars == nil {
			scalars = extents(r.file, root)
		}
		place := Place{r.file.name, i + 1, len([]rune(line[:m[2]])) + 1}
		if slices.ContainsFunc(scalars, func(s extent) bool { return s.has(place) }) {
			continue // it belongs to a text
		}
		g := ignore{file: r.file, place: place}
		for _, word := range strings.FieldsFunc(line[m[4]:], func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
			id := warningID.FindString(word)
			if id == "" {
				break // a reason follows
			}
			if g.ids = append(g.ids, ID(id)); id != word {
				break
			}
		}
		g.from, g.to = scope(r.file, root, place.Line, strings.TrimSpace(line[:m[2]]) == "")
		found = append(found, g)
	}
	return found
}

// extent is where a scalar stands, from its first character to behind its last.
type extent struct{ from, to Place }

func (s extent) has(p Place) bool {
	return !before(p, s.from) && before(p, s.to)
}

func before(p, q Place) bool { return p.Line < q.Line || p.Line == q.Line && p.Column < q.Column }

func extents(f *ruleFile, n *yaml.Node) []extent {
	if n.Kind == yaml.ScalarNode {
		t := newText(f, n)
		return []extent{{Place{f.name, n.Line, n.Column}, t.place(len([]rune(t.value)))}}
	}
	var all []extent
	for _, child := range n.Content {
		all = append(all, extents(f, child)...)
	}
	return all
}

// scope is the lines of the outermost item that begins on a line, or on the first one below where one does.
func scope(f *ruleFile, root *yaml.Node, line int, below bool) (from, to int) {
	var visit func(n *yaml.Node)
	item := func(start, value *yaml.Node) {
		if start.Line == line || below && start.Line > line {
			if from == 0 || start.Line < from {
				from, to = start.Line, lastLine(f, value)
			}
		}
		visit(value)
	}
	visit = func(n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				item(n.Content[i], n.Content[i+1])
			}
		case yaml.SequenceNode:
			for _, child := range n.Content {
				item(child, child)
			}
		case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
		}
	}
	visit(root)
	return from, to
}

// lastLine is the line that a node ends on.
func lastLine(f *ruleFile, n *yaml.Node) int {
	last := n.Line
	if n.Kind == yaml.ScalarNode {
		t := newText(f, n)
		last = t.place(len([]rune(t.value))).Line
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
