package templates

import (
	"errors"
	"maps"
	"text/template/parse"
)

// tryRender renders the variant, and again without what failed, until nothing does: so that all mistakes that only rendering tells are
// told at once. It returns what is left of the variant. A subject, or a needed value of a calendar entry, that is empty is forgiven where
// that is asked.
func (v *variant) tryRender(data map[string]any, errs *mistakes, emptied bool) *variant {
	for range maxMistakes {
		_, err := v.render(inZone(data, nil))
		if err == nil || emptied && ofEmpty(err) {
			return v
		}
		errs.add(err)
		m, ok := errors.AsType[*mistake](err)
		if !ok || m.failed == 0 {
			return v
		}
		less := v.without(m.file, m.failed-1)
		if less == nil {
			return v
		}
		v = less
	}
	return v
}

// ofEmpty says whether an error is one of data that lack a value.
func ofEmpty(err error) bool {
	m, ok := errors.AsType[*mistake](err)
	return errors.Is(err, errNoSubject) || ok && m.empty
}

// without is the variant without the action of a file that has a node at an offset; nil where that cannot be left out.
func (v *variant) without(f *file, offset int) *variant {
	less := *v
	less.blocks = maps.Clone(v.blocks)
	found := false
	for name, b := range v.blocks {
		if b.file != f {
			continue
		}
		tree := b.tree.Copy()
		if leaveOut(tree.Root, offset) {
			less.blocks[name], found = &block{f, tree}, true
		}
	}
	if !found || len(less.build()) > 0 {
		return nil
	}
	return &less
}

// leaveOut takes the innermost action out of a list that has a node at an offset. Of an if its condition becomes true. What declares a
// variable stays, since others read it.
func leaveOut(l *parse.ListNode, offset int) bool {
	if l == nil {
		return false
	}
	for i, n := range l.Nodes {
		var of *parse.PipeNode
		switch n := n.(type) {
		case *parse.ActionNode:
			of = n.Pipe
		case *parse.TemplateNode:
			of = n.Pipe
		case *parse.IfNode:
			if leaveOut(n.List, offset) || leaveOut(n.ElseList, offset) {
				return true
			}
			if of = n.Pipe; stands(of, offset) && len(of.Decl) == 0 {
				of.Cmds = []*parse.CommandNode{{NodeType: parse.NodeCommand, Pos: of.Pos, Args: []parse.Node{&parse.BoolNode{NodeType: parse.NodeBool, Pos: of.Pos, True: true}}}}
				return true
			}
		case *parse.WithNode:
			if leaveOut(n.List, offset) || leaveOut(n.ElseList, offset) {
				return true
			}
			of = n.Pipe
		case *parse.RangeNode:
			if leaveOut(n.List, offset) || leaveOut(n.ElseList, offset) {
				return true
			}
			of = n.Pipe
		}
		if of != nil && stands(of, offset) {
			if _, action := n.(*parse.ActionNode); action && len(of.Decl) > 0 {
				return false
			}
			l.Nodes[i] = &parse.TextNode{NodeType: parse.NodeText, Pos: n.Position()}
			return true
		}
	}
	return false
}

// stands says whether a pipeline has a node at an offset.
func stands(p *parse.PipeNode, offset int) bool {
	for n := range nodes(p) {
		if int(n.Position()) == offset {
			return true
		}
	}
	return false
}
