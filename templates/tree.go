package templates

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"text/template/parse"
)

// nodes yields a node and all below it, parents first.
func nodes(n parse.Node) iter.Seq[parse.Node] {
	return func(yield func(parse.Node) bool) { visit(n, yield) }
}

func visit(n parse.Node, yield func(parse.Node) bool) bool {
	if !yield(n) {
		return false
	}
	for _, child := range children(n) {
		if !visit(child, yield) {
			return false
		}
	}
	return true
}

// children are a node's parts in the order of the source.
func children(n parse.Node) []parse.Node {
	switch n := n.(type) {
	case *parse.ListNode:
		return n.Nodes
	case *parse.ActionNode:
		return []parse.Node{n.Pipe}
	case *parse.IfNode:
		return branches(&n.BranchNode)
	case *parse.RangeNode:
		return branches(&n.BranchNode)
	case *parse.WithNode:
		return branches(&n.BranchNode)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			return []parse.Node{n.Pipe}
		}
	case *parse.PipeNode:
		parts := make([]parse.Node, len(n.Cmds))
		for i, c := range n.Cmds {
			parts[i] = c
		}
		return parts
	case *parse.CommandNode:
		return n.Args
	case *parse.ChainNode:
		return []parse.Node{n.Node}
	}
	return nil
}

func branches(n *parse.BranchNode) []parse.Node {
	parts := []parse.Node{n.Pipe, n.List}
	if n.ElseList != nil {
		parts = append(parts, n.ElseList)
	}
	return parts
}

// calls yields the {{template}} actions below a node.
func calls(n parse.Node) iter.Seq[*parse.TemplateNode] {
	return func(yield func(*parse.TemplateNode) bool) {
		for n := range nodes(n) {
			if call, ok := n.(*parse.TemplateNode); ok && !yield(call) {
				return
			}
		}
	}
}

// prepare changes a tree for execution: what is printed goes through _print, what is looped over through _rows, and what is asked
// for its truth through _some. The names begin with _ so that a template cannot mean them.
func prepare(tree *parse.Tree, n parse.Node) {
	for n := range nodes(n) {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				pipe(tree, n.Pipe, "_print")
			}
		case *parse.RangeNode:
			pipe(tree, n.Pipe, "_rows")
		case *parse.IfNode:
			pipe(tree, n.Pipe, "_some")
		case *parse.WithNode:
			pipe(tree, n.Pipe, "_some")
		}
	}
}

// pipe sends what a pipeline yields through one more function.
func pipe(tree *parse.Tree, p *parse.PipeNode, function string) {
	name := parse.NewIdentifier(function).SetTree(tree).SetPos(p.Pos)
	p.Cmds = append(p.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: p.Pos, Args: []parse.Node{name}})
}

// The depth to which blocks of control may be nested. html/template works through a range twice for each level, and a mail
// would loop over its data that often.
const (
	maxRanges = 6
	maxDepth  = 100
)

// checkDepth refuses what is nested deeper than any mail is.
func (f *file) checkDepth() (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(f.blocks)) {
		if n := tooDeep(f.blocks[name].Root, 0, 0); n != nil {
			errs = append(errs, f.at(int(n.Position()), "this is nested too deep", fmt.Sprintf("at most %d ranges stand in each other, and %d blocks of control in all", maxRanges, maxDepth)))
		}
	}
	return errs
}

// tooDeep is the first node that is nested too deep, or nil.
func tooDeep(n parse.Node, ranges, depth int) parse.Node {
	switch n.(type) {
	case *parse.RangeNode:
		ranges, depth = ranges+1, depth+1
	case *parse.IfNode, *parse.WithNode, *parse.PipeNode:
		depth++
	}
	if ranges > maxRanges || depth > maxDepth {
		return n
	}
	for _, child := range children(n) {
		if found := tooDeep(child, ranges, depth); found != nil {
			return found
		}
	}
	return nil
}

// refused are functions of the standard library that would print NULL as <nil>, undo the escaping or split characters.
var refused = map[string]string{
	"printf":   "write the text around the value, or use number, money, date or print",
	"println":  "use print",
	"html":     "what is printed is escaped already",
	"js":       "what is printed is escaped already",
	"urlquery": "what is printed into a link is escaped already",
	"call":     "there is nothing to call",
	"slice":    "cut the text in the query, as in left(note, 80)",
	"index":    "use get, as in (get .list 0)",
}

// values are names that every template sees.
var values = []string{"new", "old", "message", "to", "row", "about", "rule", "table", "op", "commit_time", "items"}

// builtin are functions of the standard library that are left as they are. (len, not and the comparisons are ours.)
var builtin = []string{"and", "or"}

// checkFunctions finds the functions that do not exist.
func (f *file) checkFunctions() []error {
	var errs mistakes
	for _, name := range slices.Sorted(maps.Keys(f.blocks)) {
		for n := range nodes(f.blocks[name].Root) {
			if id, ok := n.(*parse.IdentifierNode); ok && !errs.full() {
				errs.add(f.checkFunction(id)...)
			}
		}
	}
	return errs.inOrder()
}

func (f *file) checkFunction(id *parse.IdentifierNode) []error {
	if slices.Contains(functionNames(), id.Ident) {
		return nil
	}
	if why := refused[id.Ident]; why != "" {
		return []error{f.at(int(id.Pos), "function "+id.Ident+" is not for templates", why)}
	}
	if slices.Contains(values, id.Ident) {
		return []error{f.at(int(id.Pos), "there is no function "+id.Ident, "a value begins with a dot: ."+id.Ident)}
	}
	return []error{f.at(int(id.Pos), "there is no function "+id.Ident, cmp.Or(f.valueHint(id), didYouMean(id.Ident, functionNames()), f.unknownHint(id)))}
}
