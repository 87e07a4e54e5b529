package templates

import (
	"errors"
	"fmt"
	"slices"
	"text/template/parse"
)

// Labels are the only texts that columns can have, those of an enum: by the name of the row (new, old), and the column's.
type Labels map[string]map[string][]string

// CheckLabels finds texts that a template compares a column with and that it can never have, in any language and any branch. d is a
// sample as [Set.Check] takes it.
func (s *Set) CheckLabels(name string, d Data, labels Labels) error {
	m := s.mails[name]
	if m == nil {
		return nil
	}
	var errs mistakes
	for _, v := range m.variants {
		root := open(map[string]any(d)).(map[string]any)
		rows := make(map[uintptr]string)
		for name := range labels {
			if at := address(root[name]); at != 0 {
				rows[at] = name
			}
		}
		w := &walker{variant: v}
		w.compared = func(of any, column string, text *parse.StringNode) {
			row := rows[address(of)]
			known, ok := labels[row][column]
			if !ok || slices.Contains(known, text.Text) || errs.full() {
				return
			}
			errs.add(w.at.file.at(int(text.Pos), fmt.Sprintf("%s.%s is never %q", "."+row, column, text.Text), labelHint(text.Text, known)))
		}
		for _, block := range known {
			w.block(block, root)
		}
	}
	return errors.Join(errs.inOrder()...)
}

func labelHint(text string, labels []string) string {
	if best, ok := nearest(text, labels); ok {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return didYouMean("", labels)
}

// comparison tells of eq and ne which column is compared with which texts.
func (w *walker) comparison(c *parse.CommandNode, dot any) {
	for _, arg := range c.Args[1:] {
		of, column := w.owner(arg, dot)
		if column == "" {
			continue
		}
		for _, other := range c.Args[1:] {
			if text, ok := other.(*parse.StringNode); ok {
				w.compared(of, column, text)
			}
		}
	}
}

// owner is the shape that a value is a part of, and the part's name; empty, if the value is no part.
func (w *walker) owner(n parse.Node, dot any) (shape any, name string) {
	var path []string
	switch n := n.(type) {
	case *parse.FieldNode:
		shape, path = dot, n.Ident
	case *parse.VariableNode:
		shape, path = w.get(n.Ident[0]), n.Ident[1:]
	}
	if len(path) == 0 {
		return nil, ""
	}
	for _, name := range path[:len(path)-1] {
		part, message, _ := partOf(shape, name, "")
		if message != "" {
			return nil, ""
		}
		shape = part
	}
	return shape, path[len(path)-1]
}
