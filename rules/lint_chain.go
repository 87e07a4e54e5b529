package rules

import (
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// chains reports parts joined by and that exclude each other, and parts joined by or of which one is always true.
func (w *whenLint) chains(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		if !isJunction(n) {
			return
		}
		parts := joined(n, isOr(n))
		if isOr(n) {
			w.either(parts)
		} else {
			w.both(parts)
			w.between(parts)
		}
		for _, part := range parts {
			w.chains(part)
		}
	case *ast.UnaryNode:
		w.chains(n.Node)
	case *ast.ConditionalNode:
		w.chains(n.Cond)
		w.chains(n.Exp1)
		w.chains(n.Exp2)
	}
}

func isOr(n *ast.BinaryNode) bool { return n.Operator == "or" || n.Operator == "||" }

// joined lists what a chain of and, or of or, joins.
func joined(n ast.Node, or bool) []ast.Node {
	b, ok := n.(*ast.BinaryNode)
	if !ok || !isJunction(b) || isOr(b) != or {
		return []ast.Node{n}
	}
	return append(joined(b.Left, or), joined(b.Right, or)...)
}

// equated is a part that says which constants a column is equal to, or with not is not.
type equated struct {
	column string // new.status
	values []any
	not    bool
}

func equatedOf(n node) (equated, bool) {
	switch n := n.(type) {
	case *equality:
		c, k, ok := withConstant(n.a, n.b)
		if ok && k.value != nil {
			return equated{c.absent.column, []any{k.value}, n.not}, true
		}
	case *oneOfList:
		c, ok := n.x.(*column)
		if !ok {
			return equated{}, false
		}
		e := equated{column: c.absent.column}
		for _, item := range n.list {
			k, ok := item.(*constant)
			if !ok {
				return equated{}, false
			}
			e.values = append(e.values, k.value)
		}
		return e, true
	}
	return equated{}, false
}

// withConstant finds a column and a constant among two.
func withConstant(a, b node) (*column, *constant, bool) {
	if _, ok := a.(*column); !ok {
		a, b = b, a
	}
	c, isColumn := a.(*column)
	k, isConstant := b.(*constant)
	return c, k, isColumn && isConstant
}

// both finds a column that would have to be two things at once.
func (w *whenLint) both(parts []ast.Node) {
	left := make(map[string][]any)
	for _, part := range parts {
		e, ok := equatedOf(w.node(part))
		if !ok || e.not {
			continue
		}
		before, again := left[e.column]
		if !again {
			left[e.column] = e.values
			continue
		}
		left[e.column] = slices.DeleteFunc(slices.Clone(before), func(v any) bool {
			return !slices.ContainsFunc(e.values, func(u any) bool { return equal(u, v) })
		})
		if len(before) > 0 && len(left[e.column]) == 0 {
			w.warn("PM201", w.at(part), e.column+" is never both: what and joins here is never true",
				fmt.Sprintf("write or, or a list: %s in […]", e.column))
		}
	}
}

// either finds a column that is always one or the other of two: not this, or not that.
func (w *whenLint) either(parts []ast.Node) {
	first := make(map[string]any)
	for _, part := range parts {
		e, ok := equatedOf(w.node(part))
		if !ok || !e.not {
			continue
		}
		if v, again := first[e.column]; again && !equal(v, e.values[0]) {
			w.warn("PM201", w.at(part), e.column+" is always different from one of the two: what or joins here is always true",
				fmt.Sprintf("write and, or a list: %s not in […]", e.column))
		}
		first[e.column] = e.values[0]
	}
}

// bounds are what a chain says of a column's order.
type bounds struct {
	low, high             any
	lowStrict, highStrict bool
}

// between finds ranges that hold nothing.
func (w *whenLint) between(parts []ast.Node) {
	of := make(map[string]*bounds)
	for _, part := range parts {
		a, ok := w.node(part).(*apply)
		if !ok || a.b == nil {
			continue
		}
		c, k, ok := withConstant(a.a, a.b)
		if !ok {
			continue
		}
		name := a.name
		if _, first := a.a.(*column); !first {
			name = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}[name]
		}
		if of[c.absent.column] == nil {
			of[c.absent.column] = new(bounds)
		}
		if b := of[c.absent.column]; b.take(name, k.value) && b.empty() {
			w.warn("PM201", w.at(part), c.absent.column+" has no value that is in both: what and joins here is never true", "write or, or turn a comparison round")
			return
		}
	}
}

// take narrows the bounds by a comparison with a constant. It says whether it is one.
func (b *bounds) take(operator string, v any) bool {
	switch operator {
	case ">", ">=":
		if d, ok := order(v, b.low); b.low == nil || ok && d > 0 {
			b.low, b.lowStrict = v, operator == ">"
		}
	case "<", "<=":
		if d, ok := order(v, b.high); b.high == nil || ok && d < 0 {
			b.high, b.highStrict = v, operator == "<"
		}
	default:
		return false
	}
	return true
}

func (b *bounds) empty() bool {
	if b.low == nil || b.high == nil {
		return false
	}
	d, ok := order(b.low, b.high)
	return ok && (d > 0 || d == 0 && (b.lowStrict || b.highStrict))
}
