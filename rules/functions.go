package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// functions are all that rules know, for "did you mean".
var functions = []string{"changed", "date", "duration", "len", "lower", "upper", "trim", "abs", "any", "all", "none", "one", "count"}

func (c *check) call(n *ast.CallNode) (node, typ) {
	name, ok := n.Callee.(*ast.IdentifierNode)
	switch {
	case !ok:
		return c.fail(n, "PM106", "values have no methods in rules", methodHint(n))
	case name.Value == "changed":
		return c.changed(n)
	}
	return c.fail(n, "PM106", "there is no function "+name.Value, suggestFunction(name.Value, n.Arguments))
}

// operatorWords are operators by the names that other languages give them as methods.
var operatorWords = map[string]string{
	"contains": "contains", "includes": "contains", "startswith": "startsWith", "endswith": "endsWith", "matches": "matches", "equals": "==",
}

// methodHint is the way out of new.x.contains("a") and new.x.lower().
func methodHint(n *ast.CallNode) string {
	m, ok := n.Callee.(*ast.MemberNode)
	if !ok {
		return "docs/rules.md lists the functions"
	}
	name, _ := m.Property.(*ast.StringNode)
	if name == nil {
		return "docs/rules.md lists the functions"
	}
	word := strings.ToLower(strings.ReplaceAll(name.Value, "_", ""))
	switch {
	case operatorWords[word] != "" && len(n.Arguments) == 1:
		return fmt.Sprintf("write %s %s %s", show(m.Node), operatorWords[word], show(n.Arguments[0]))
	case unaries[word] != nil && len(n.Arguments) == 0:
		return fmt.Sprintf("write %s(%s)", word, show(m.Node))
	}
	return "docs/rules.md lists the functions"
}

// changedHint is the way out of changed of what is no column of the new row.
func (c *check) changedHint(given ast.Node) string {
	name := ""
	switch n := given.(type) {
	case *ast.StringNode:
		name = n.Value
	case *ast.IdentifierNode:
		name = n.Value
	case *ast.MemberNode:
		row, isRow := n.Node.(*ast.IdentifierNode)
		if of, ok := n.Property.(*ast.StringNode); ok && isRow && row.Value == "old" {
			name = of.Value
		} else if ok && !isRow {
			if inner, ok := n.Node.(*ast.MemberNode); ok && show(inner.Node) == "new" {
				return fmt.Sprintf("write %s != %s", show(&ast.MemberNode{Node: asOld(inner), Property: n.Property}), show(n))
			}
		}
	}
	if c.env.table.Column(name) >= 0 {
		return "write changed(" + exprColumn("new", name) + ")"
	}
	return "name a column of the new row, as it is written elsewhere in a condition"
}

// asOld is a column of the new row as that of the old one.
func asOld(m *ast.MemberNode) ast.Node {
	return &ast.MemberNode{Node: &ast.IdentifierNode{Value: "old"}, Property: m.Property}
}

// changed is a test of one column, old.c != new.c.
func (c *check) changed(n *ast.CallNode) (node, typ) {
	if c.env.table == nil {
		return c.fail(n, "PM106", "the rule is on a message: no column changes", "")
	}
	if len(n.Arguments) != 1 {
		return c.fail(n, "PM111", "changed takes one column", c.changedHint(nil))
	}
	m, ok := n.Arguments[0].(*ast.MemberNode)
	if !ok {
		return c.fail(n, "PM111", "changed takes a column, and "+show(n.Arguments[0])+" is none", c.changedHint(n.Arguments[0]))
	}
	row, isRow := m.Node.(*ast.IdentifierNode)
	name, isName := m.Property.(*ast.StringNode)
	if !isRow || !isName || row.Value != "new" {
		return c.fail(n, "PM111", "changed takes a column, and "+show(m)+" is none", c.changedHint(m))
	}
	now, t := c.column(m, "new", name.Value)
	if t.kind == kindAny {
		return now, typBool
	}
	then, _ := c.columnOf(oldRow, name.Value)
	c.uses = append(c.uses, use{then, m.Location().From})
	return &changed{now.(*column), then}, typBool
}

func (c *check) builtin(n *ast.BuiltinNode) (node, typ) {
	switch n.Name {
	case "any", "all", "none", "one", "count":
		return c.quantifier(n)
	case "date", "duration":
		return c.constant(n)
	case "len", "lower", "upper", "trim", "abs":
		return c.function(n)
	}
	return c.fail(n, "PM106", "the function "+n.Name+" is not a part of rules", suggestFunction(n.Name, n.Arguments))
}

// unaries are the functions of one value.
var unaries = map[string]*function{
	"len":   {name: "len", do: length},
	"abs":   {name: "abs", do: absolute},
	"lower": {name: "lower", do: textual(strings.ToLower)},
	"upper": {name: "upper", do: textual(strings.ToUpper)},
	"trim":  {name: "trim", do: textual(strings.TrimSpace)},
}

// function is a function of one value. NULL yields NULL.
func (c *check) function(n *ast.BuiltinNode) (node, typ) {
	if len(n.Arguments) != 1 {
		hint := ""
		if len(n.Arguments) > 1 {
			hint = fmt.Sprintf("write %s(%s)", n.Name, show(n.Arguments[0]))
		}
		return c.fail(n, "PM111", n.Name+" takes one value", hint)
	}
	of, t := c.expr(n.Arguments[0])
	var fits bool
	var result typ
	switch n.Name {
	case "len":
		result, fits = typWhole, t.is(kindText, kindOpaque, kindArray, kindJSON)
	case "abs":
		result, fits = t, t.numeric()
	default:
		result, fits = typText, t.textual()
	}
	if !fits {
		return c.fail(n, "PM108", fmt.Sprintf("%s does not go with %s, which is %s", n.Name, show(n.Arguments[0]), t.name), "")
	}
	return fold(&apply{unaries[n.Name], of, nil}, of), result
}

// constant is date("…") or duration("…"): the text is read when the rule is.
func (c *check) constant(n *ast.BuiltinNode) (node, typ) {
	var text *ast.StringNode
	if len(n.Arguments) == 1 {
		text, _ = n.Arguments[0].(*ast.StringNode)
	}
	if text == nil {
		return c.fail(n, "PM111", n.Name+" takes one text that is written out", `write date("2026-01-31T09:00:00+09:00"), duration("1h30m")`)
	}
	if n.Name == "date" {
		v, t, err := parseMoment(text.Value)
		if err != nil {
			return c.fail(text, "PM119", err.Error(), "")
		}
		return &constant{v}, t
	}
	d, err := parseDuration(text.Value)
	if err != nil {
		hint := ""
		if meant, ok := readInterval(text.Value); ok {
			hint = "write " + meant.written(c.env.zone != nil)
		}
		return c.fail(text, "PM119", err.Error(), hint)
	}
	t := typSpan
	t.days = d.Days > 0
	if !t.days {
		return &constant{d.Time}, t
	}
	return &constant{d}, t
}

// quantifierHint is the way out of any and others without their condition.
func quantifierHint(n *ast.BuiltinNode) string {
	hint := `a list comes first, and then a condition on its element #, such as # == "x"`
	if n.Name == "count" && len(n.Arguments) == 1 {
		hint += "; how many there are is told by len(" + show(n.Arguments[0]) + ")"
	}
	return hint
}

func (c *check) quantifier(n *ast.BuiltinNode) (node, typ) {
	if c.predicate {
		return c.fail(n, "PM107", n.Name+" stands inside of another predicate", "predicates do not nest, so that a rule always ends soon")
	}
	if len(n.Arguments) != 2 {
		return c.fail(n, "PM111", n.Name+" takes a list and a condition on #", quantifierHint(n))
	}
	of, elem := c.collection(n.Arguments[0])
	pred, ok := n.Arguments[1].(*ast.PredicateNode)
	if !ok {
		return c.fail(n, "PM111", n.Name+" takes a condition on #", "")
	}
	c.predicate, c.element = true, elem
	test, t := c.expr(pred.Node)
	c.predicate = false
	c.condition(pred.Node, t)
	if n.Name == "count" {
		return &quantifier{n.Name, of, test}, typWhole
	}
	return &quantifier{n.Name, of, test}, typBool
}

// collection is a list column, a JSON value or a list that is written out, and its elements' type.
func (c *check) collection(n ast.Node) (node, typ) {
	if array, ok := n.(*ast.ArrayNode); ok {
		return c.items(array)
	}
	of, t := c.expr(n)
	switch {
	case t.kind == kindArray:
		return of, *t.elem
	case t.is(kindJSON):
		return of, t
	}
	return c.fail(n, "PM117", fmt.Sprintf("%s is %s, not a list", show(n), t.name), "")
}

func (c *check) items(n *ast.ArrayNode) (node, typ) {
	list := new(items)
	elem := typNil
	for _, child := range n.Nodes {
		o := c.operand(child)
		if !alike(elem, o.typ) || o.typ.moment() && !slices.Contains([]kind{kindNil, o.typ.kind}, elem.kind) {
			return c.fail(child, "PM108", "the items of a list must be of one type", "")
		}
		if elem.kind == kindNil {
			elem = o.typ
		} else if elem.kind != o.typ.kind && o.typ.kind != kindNil {
			elem = wider(elem, o.typ)
		}
		list.list = append(list.list, o.node)
	}
	return list, elem
}
