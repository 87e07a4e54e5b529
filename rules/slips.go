package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// slip finds an expression that is well formed and says something else than its writer meant, since operators bind in another order
// than in speech: a == 1 or 2, not a == "x", a || "x". nil: it is none.
func (c *check) slip(n *ast.BinaryNode) (node, typ) {
	if isJunction(n) {
		return c.shared(n)
	}
	if hint := c.equalityHint(n); hint != "" {
		return c.fail(n, "PM108", fmt.Sprintf("%s compares one value with another", n.Operator), hint)
	}
	if b, ok := n.Right.(*ast.BinaryNode); ok && (n.Operator == "==" || n.Operator == "!=") && isJunction(b) {
		if parts := c.joined(b, b.Operator); !slices.ContainsFunc(parts, func(n ast.Node) bool { return !isValue(n) }) {
			return c.fail(parts[0], "PM109", fmt.Sprintf("%s joins conditions, and not values", b.Operator), "write "+comparedWith(n, parts))
		}
	}
	if u, ok := n.Left.(*ast.UnaryNode); ok && isNot(u) && isSimple(u.Node) && !c.typeOf(u.Node).condition() {
		return c.fail(u, "PM109", fmt.Sprintf("not belongs to %s alone, which is no condition", show(u.Node)), "write "+negated(n, u.Node))
	}
	return nil, typAny
}

// equalityHint is the way out of comparing with a list, and of comparing a part of a text.
func (c *check) equalityHint(n *ast.BinaryNode) string {
	if n.Operator != "==" && n.Operator != "!=" || !isSimple(n.Left) {
		return ""
	}
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok || len(list.Nodes) == 0 || slices.ContainsFunc(list.Nodes, func(n ast.Node) bool { return !isValue(n) }) {
		return ""
	}
	if c.typeOf(n.Left).kind != kindArray {
		return "write " + comparedWith(n, list.Nodes)
	}
	parts := make([]string, len(list.Nodes))
	for i, value := range list.Nodes {
		parts[i] = fmt.Sprintf("%s in %s", show(value), show(n.Left))
	}
	held := strings.Join(parts, " and ")
	if n.Operator == "!=" {
		held = "not (" + held + ")"
	}
	return "write " + held
}

// isSimple says whether a part of an expression is a value, a column or a function of one: its type is found in no time.
func isSimple(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ChainNode:
		return isSimple(n.Node)
	case *ast.MemberNode:
		return isSimple(n.Node) && isConstant(n.Property)
	case *ast.BuiltinNode:
		return unaries[n.Name] != nil && !slices.ContainsFunc(n.Arguments, func(n ast.Node) bool { return !isSimple(n) })
	case *ast.IdentifierNode:
		return true
	}
	return isValue(n)
}

// typeOf is the type of a simple part, of which nothing is noted: its mistakes are told by whoever reads it next.
func (c *check) typeOf(n ast.Node) typ {
	silent := *c
	silent.made, silent.problems, silent.uses = nil, nil, nil
	_, t := silent.expr(n)
	return t
}

var opposites = map[string]string{"==": "!=", "in": "not in", "contains": "not contains", "startsWith": "not startsWith", "endsWith": "not endsWith", "matches": "not matches"}

// negated is what not a == b was to say.
func negated(n *ast.BinaryNode, of ast.Node) string {
	if opposite := opposites[n.Operator]; opposite != "" {
		return fmt.Sprintf("%s %s %s", show(of), opposite, show(n.Right))
	}
	return "not (" + show(&ast.BinaryNode{Operator: n.Operator, Left: of, Right: n.Right}) + ")"
}

// shared finds what is joined by or, or by and, and is a value instead of a condition: one that a comparison before it was to share, or
// a text that SQL would join with ||.
func (c *check) shared(n *ast.BinaryNode) (node, typ) {
	parts := c.joined(n, n.Operator)
	at := slices.IndexFunc(parts, isValue)
	if at < 0 {
		return c.concatenated(n)
	}
	if at > 0 && !isValue(parts[at-1]) {
		if hint := c.alternatives(parts[at-1:], n.Operator); hint != "" {
			return c.fail(parts[at], "PM109", fmt.Sprintf("%s stands alone: %s joins conditions, and not values", show(parts[at]), n.Operator), hint)
		}
	}
	return c.concatenated(n)
}

// joined are the conditions that one operator joins, from the left to the right.
func (c *check) joined(n ast.Node, operator string) []ast.Node {
	b, ok := n.(*ast.BinaryNode)
	if !ok || b.Operator != operator {
		return []ast.Node{n}
	}
	return append(c.joined(b.Left, operator), b.Right)
}

// isValue says whether a value is written out.
func isValue(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode:
		return true
	}
	return false
}

// alternatives is the way out of a == 1 or 2 or 3, which begins with the comparison.
func (c *check) alternatives(parts []ast.Node, operator string) string {
	first, ok := parts[0].(*ast.BinaryNode)
	if !ok {
		return ""
	}
	others := parts[1:]
	if i := slices.IndexFunc(others, func(n ast.Node) bool { return !isValue(n) }); i >= 0 {
		others = others[:i]
	}
	all := append([]ast.Node{first.Right}, others...)
	either := operator == "or" || operator == "||"
	switch {
	case (first.Operator == "==" || first.Operator == "!=") && isValue(first.Right):
		return "write " + comparedWith(first, all)
	case slices.Contains([]string{"contains", "startsWith", "endsWith", "<", "<=", ">", ">="}, first.Operator):
		values := make([]string, len(all))
		for i := range all {
			values[i] = fmt.Sprintf("%s %s %s", show(first.Left), first.Operator, show(all[i]))
		}
		if either {
			return "write (" + strings.Join(values, " or ") + ")"
		}
		return "write " + strings.Join(values, " and ")
	}
	return ""
}

// comparedWith is a comparison with each of some values.
func comparedWith(n *ast.BinaryNode, values []ast.Node) string {
	texts := make([]string, len(values))
	for i := range values {
		texts[i] = show(values[i])
	}
	return fmt.Sprintf("%s %s [%s]", show(n.Left), map[string]string{"==": "in", "!=": "not in"}[n.Operator], strings.Join(texts, ", "))
}

// concatenated finds texts that || was to join, as it does in SQL.
func (c *check) concatenated(n *ast.BinaryNode) (node, typ) {
	if n.Operator != "||" {
		return nil, typAny
	}
	parts := c.joined(n, "||")
	last := parts[len(parts)-1]
	compared, ok := last.(*ast.BinaryNode)
	if ok && (compared.Operator == "==" || compared.Operator == "!=") {
		parts[len(parts)-1] = compared.Left
	}
	for _, part := range parts {
		if !isSimple(part) || !c.typeOf(part).is(kindText, kindOpaque) {
			return nil, typAny
		}
	}
	texts := make([]string, len(parts))
	for i := range parts {
		texts[i] = show(parts[i])
	}
	written := strings.Join(texts, " + ")
	if ok {
		written += " " + compared.Operator + " " + show(compared.Right)
	}
	at := n
	for b, ok := at.Left.(*ast.BinaryNode); ok && b.Operator == "||"; b, ok = at.Left.(*ast.BinaryNode) {
		at = b
	}
	return c.fail(at, "PM109", "|| means or here, and joins conditions", "texts are joined with +: write "+written)
}
