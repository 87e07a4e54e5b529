package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"postman/value"
)

func (c *check) binary(n *ast.BinaryNode) (node, typ) {
	if made, t := c.slip(n); made != nil {
		return made, t
	}
	switch n.Operator {
	case "in":
		return c.in(n)
	case "matches":
		return c.matches(n)
	case "..":
		return c.fail(n, "PM107", "a range stands only behind in", "a value, and in, stand before it")
	case "**", "^":
		return c.fail(n, "PM107", n.Operator+" is not a part of rules", "multiply")
	}
	a, b := c.operand(n.Left), c.operand(n.Right)
	switch n.Operator {
	case "&&", "and", "||", "or":
		c.condition(n.Left, a.typ)
		c.condition(n.Right, b.typ)
		return &junction{a.node, b.node, n.Operator == "||" || n.Operator == "or"}, typBool
	case "==", "!=":
		return c.equality(n, a, b), typBool
	case "<", "<=", ">", ">=":
		return c.ordering(n, a, b), typBool
	case "contains", "startsWith", "endsWith":
		return c.textTest(n, a, b), typBool
	case "??":
		x, y, t := c.unite(n, a, b)
		return &fallback{x, y}, t
	}
	return c.arithmetic(n, a, b)
}

func (c *check) mismatch(at ast.Node, a, b operand, why string) {
	message := fmt.Sprintf("%s is %s and %s is %s: %s", show(a.ast), a.typ.name, show(b.ast), b.typ.name, why)
	c.fail(at, "PM108", message, c.mismatchHint(at, a, b))
}

// mismatchHint is the way out of comparing something with what it looks like.
func (c *check) mismatchHint(at ast.Node, a, b operand) string {
	if _, ok := a.ast.(*ast.StringNode); ok || !isConstant(b.ast) {
		a, b = b, a
	}
	written, ok := constantOf(b.ast)
	if !ok {
		return ""
	}
	operator := ""
	if n, ok := at.(*ast.BinaryNode); ok {
		operator = n.Operator
	}
	same := operator == "==" || operator == "!="
	text, isText := written.(string)
	switch {
	case a.typ.kind == kindArray && same && alike(*a.typ.elem, b.typ):
		return fmt.Sprintf("write %s %s %s", show(b.ast), map[string]string{"==": "in", "!=": "not in"}[operator], show(a.ast))
	case a.typ.kind == kindBool && same:
		return boolHint(a.ast, operator, fmt.Sprint(written))
	case !isText && a.typ.kind == kindText:
		return fmt.Sprintf("a text stands in quotes: %q", fmt.Sprint(written))
	case !isText && (a.typ.moment() && (operator == "+" || operator == "-") || a.typ.kind == kindSpan):
		return c.spanHint(a.typ, written)
	case !isText:
		return ""
	case text == "" && same:
		return fmt.Sprintf("what is not there is NULL: write %s %s nil", show(a.ast), operator)
	case a.typ.moment() && (operator == "+" || operator == "-"):
		return c.spanHint(a.typ, text)
	case a.typ.moment():
		return c.momentHint(a.typ, text)
	case a.typ.numeric():
		return numberHint(a.ast, text)
	case a.typ.kind == kindSpan:
		return c.spanHint(a.typ, text)
	}
	return ""
}

func isConstant(n ast.Node) bool {
	_, ok := constantOf(n)
	return ok
}

// constantOf is the text, number or truth value that is written out.
func constantOf(n ast.Node) (any, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.Value, true
	case *ast.BoolNode:
		return n.Value, true
	}
	return nil, false
}

// boolHint is the way out of comparing a truth value with a number or a text.
func boolHint(of ast.Node, operator, word string) string {
	printed, _ := boolLiteral(strings.ToLower(strings.TrimSpace(word)))
	switch {
	case printed == "":
		return fmt.Sprintf("it is a condition by itself: write %[1]s, or not %[1]s", show(of))
	case (printed == "t") == (operator == "=="):
		return "it is a condition by itself: write " + show(of)
	}
	return "it is a condition by itself: write not " + show(of)
}

var (
	separators   = strings.NewReplacer("_", "", " ", "", "'", "")
	thousands    = regexp.MustCompile(`^\d{1,3}(?:,\d{3})+(?:\.\d+)?$`)
	decimalComma = regexp.MustCompile(`^\d+,\d+$`)
)

// plainNumber is a number that a person wrote, as an expression has it; empty: it is none.
func plainNumber(text string) string {
	plain := separators.Replace(text)
	switch {
	case thousands.MatchString(plain):
		plain = strings.ReplaceAll(plain, ",", "")
	case decimalComma.MatchString(plain):
		plain = strings.ReplaceAll(plain, ",", ".")
	}
	if trimmed := strings.TrimLeft(plain, "0"); trimmed != "" && digit(trimmed[0]) {
		plain = trimmed
	}
	if d, err := value.ParseDecimal(plain); err != nil || d.Form != 0 {
		return ""
	}
	return plain
}

// numberHint is the way out of a number in quotes.
func numberHint(of ast.Node, text string) string {
	plain := plainNumber(text)
	_, named := of.(*ast.MemberNode)
	switch {
	case plain != "":
		return "write the number without quotes: " + plain
	case named:
		return show(of) + " holds numbers: compare it with one"
	}
	return ""
}

func (c *check) equality(n *ast.BinaryNode, a, b operand) node {
	if !alike(a.typ, b.typ) {
		c.mismatch(n, a, b, n.Operator+" compares like with like")
		return &constant{}
	}
	a, b = c.align(n, a, b)
	c.literal(a, b)
	c.literal(b, a)
	if now, then := sides(a.node, b.node); now != nil {
		return negate(&changed{now, then}, n.Operator == "==")
	}
	return &equality{a.node, b.node, n.Operator == "!="}
}

// sides are a column's new and old value, where the two nodes are that.
func sides(a, b node) (now, then *column) {
	x, ok1 := a.(*column)
	y, ok2 := b.(*column)
	if !ok1 || !ok2 || x.index != y.index || x.side == y.side {
		return nil, nil
	}
	if x.side == newRow {
		return x, y
	}
	return y, x
}

// negate is not n, or n itself.
func negate(n node, is bool) node {
	if is {
		return &not{n}
	}
	return n
}

// align makes two moments, or two durations, comparable.
func (c *check) align(at ast.Node, a, b operand) (operand, operand) {
	if a.typ.kind == kindSpan && b.typ.kind == kindSpan {
		c.alignSpans(at, a, b)
		return a, b
	}
	if !a.typ.moment() || !b.typ.moment() || (a.typ.kind == kindInstant) == (b.typ.kind == kindInstant) ||
		a.typ.kind == kindAny || b.typ.kind == kindAny {
		return a, b
	}
	clock := &a
	if a.typ.kind == kindInstant {
		clock = &b
	}
	if c.env.zone == nil {
		hint := "give the rule a timezone"
		if k, ok := clock.node.(*constant); ok {
			moment, _ := clockReading(k.value)
			hint = fmt.Sprintf(`write the offset, as in date("%s+09:00"), or give the rule a timezone`, moment.Format("2006-01-02T15:04:05"))
		}
		c.fail(at, "PM113", fmt.Sprintf("%s is %s: in which time zone?", show(clock.ast), clock.typ.name), hint)
		return a, b
	}
	clock.node, clock.typ = fold(&apply{inZone(c.env.zone), clock.node, nil}, clock.node), typInstant
	return a, b
}

// alignSpans refuses days where nobody can say how long they are.
func (c *check) alignSpans(at ast.Node, a, b operand) {
	if !a.typ.days {
		a, b = b, a
	}
	if !a.typ.days || b.typ.clock {
		return
	}
	hint := "write hours"
	if k, ok := a.node.(*constant); ok {
		hint = fmt.Sprintf("write duration(%q)", fmt.Sprintf("%dh", stretch(k.value)/time.Hour))
	}
	c.fail(at, "PM114", "a day between two moments may have 23, 24 or 25 hours", hint)
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// literal refuses a text that a value can never be: no label of the enum, no operation of the rule, no uuid.
func (c *check) literal(of, o operand) {
	k, ok := o.ast.(*ast.StringNode)
	if !ok {
		return
	}
	name, isName := of.ast.(*ast.IdentifierNode)
	switch {
	case isName && name.Value == "op" && !slices.Contains(of.typ.enum, k.Value):
		c.fail(k, "PM112", fmt.Sprintf("op is never %q: the rule is on %s", k.Value, list(of.typ.enum, "and")), suggest(k.Value, of.typ.enum))
	case len(of.typ.enum) > 0 && !slices.Contains(of.typ.enum, k.Value):
		c.fail(k, "PM112", fmt.Sprintf("%q is no label of %s", k.Value, of.typ.name), suggest(k.Value, of.typ.enum))
	case of.typ.name == "uuid" && !uuid.MatchString(k.Value):
		c.fail(k, "PM112", fmt.Sprintf("%q is never a uuid as Postgres prints it", k.Value), "write it in small letters, with hyphens")
	}
}

// comparisons are what the ordering operators say of a comparison's result.
var comparisons = map[string]func(c int) bool{
	"<":  func(c int) bool { return c < 0 },
	"<=": func(c int) bool { return c <= 0 },
	">":  func(c int) bool { return c > 0 },
	">=": func(c int) bool { return c >= 0 },
}

// The operators that yield true or false, by the way they are written.
var (
	orderings     = tests(comparisons, ordered)
	spanOrderings = tests(comparisons, spanOrder)
	textTests     = tests(map[string]func(a, b string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}, textTest)
)

// tests are functions that are false where a value is NULL.
func tests[T any](of map[string]T, do func(T) func(a, b any) any) map[string]*function {
	named := make(map[string]*function, len(of))
	for name, is := range of {
		named[name] = &function{name, false, do(is)}
	}
	return named
}

func (c *check) ordering(n *ast.BinaryNode, a, b operand) node {
	for _, o := range []operand{a, b} {
		switch {
		case o.typ.kind == kindNil:
			c.fail(n, "PM110", "an ordering with nil is always false", "write == nil or != nil")
			return &constant{}
		case o.typ.kind == kindOpaque && alike(a.typ, b.typ):
			c.fail(n, "PM110", fmt.Sprintf("%s is %s, whose order postman does not know", show(o.ast), o.typ.name), "compare with == or list the values with in")
			return &constant{}
		}
	}
	ordering := orderings[n.Operator]
	switch {
	case a.typ.numeric() && b.typ.numeric():
	case a.typ.textual() && b.typ.textual():
	case a.typ.moment() && b.typ.moment():
		a, b = c.align(n, a, b)
	case a.typ.is(kindSpan) && b.typ.is(kindSpan):
		c.alignSpans(n, a, b)
		ordering = spanOrderings[n.Operator]
	case alike(a.typ, b.typ):
		c.fail(n, "PM110", fmt.Sprintf("%s is %s, which has no order here", show(a.ast), a.typ.name), "compare with == or !=")
	default:
		c.mismatch(n, a, b, n.Operator+" compares like with like")
	}
	return fold(&apply{ordering, a.node, b.node}, a.node, b.node)
}

func (c *check) textTest(n *ast.BinaryNode, a, b operand) node {
	for _, o := range []operand{a, b} {
		if !o.typ.textual() {
			hint := ""
			if o.typ.kind == kindArray {
				hint = fmt.Sprintf("write %s in %s", show(b.ast), show(a.ast))
			}
			c.fail(n, "PM108", fmt.Sprintf("%s is %s, and %s is about text", show(o.ast), o.typ.name, n.Operator), hint)
			return &constant{}
		}
	}
	return fold(&apply{textTests[n.Operator], a.node, b.node}, a.node, b.node)
}

func (c *check) matches(n *ast.BinaryNode) (node, typ) {
	a := c.operand(n.Left)
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		return c.fail(n.Right, "PM115", "a regular expression must be written out", fmt.Sprintf("write it in quotes; a text that another column has is found with contains: write %s contains %s", show(n.Left), show(n.Right)))
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		return c.fail(pattern, "PM115", strings.TrimPrefix(err.Error(), "error parsing regexp: "), "the syntax is RE2's, which has no look-around and no back-references")
	}
	if !a.typ.textual() {
		return c.fail(n, "PM108", fmt.Sprintf("%s is %s, and matches is about text", show(n.Left), a.typ.name), "")
	}
	return fold(&matches{a.node, re}, a.node), typBool
}

func (c *check) in(n *ast.BinaryNode) (node, typ) {
	x := c.operand(n.Left)
	switch right := n.Right.(type) {
	case *ast.ArrayNode:
		return c.inList(n, x, right), typBool
	case *ast.BinaryNode:
		if right.Operator == ".." {
			return c.inRange(n, x, right), typBool
		}
	case *ast.MapNode:
		return c.fail(n, "PM107", "a mapping is not a part of rules", "a list stands in square brackets")
	}
	of := c.operand(n.Right)
	switch {
	case of.typ.kind == kindAny:
	case of.typ.kind == kindArray && (!alike(x.typ, *of.typ.elem) || x.typ.moment() && (x.typ.kind == kindInstant) != (of.typ.elem.kind == kindInstant)):
		c.mismatch(n, x, of, "it is never one of them")
	case of.typ.textual() && of.typ.kind != kindJSON:
		return c.fail(n, "PM117", fmt.Sprintf("%s is %s, not a list", show(n.Right), of.typ.name), inTextHint(n))
	case !of.typ.is(kindArray, kindJSON):
		return c.fail(n, "PM117", fmt.Sprintf("%s is %s, not a list", show(n.Right), of.typ.name), fmt.Sprintf("a list stands in square brackets: write %s in [%s]", show(n.Left), show(n.Right)))
	}
	return &within{x.node, of.node}, typBool
}

// inTextHint is the way out of in with a text behind it.
func inTextHint(n *ast.BinaryNode) string {
	left, right := show(n.Left), show(n.Right)
	if _, written := n.Right.(*ast.StringNode); written {
		return fmt.Sprintf("write %[1]s in [%[2]s] or %[1]s == %[2]s for that text alone, %[1]s contains %[2]s for a part of the text", left, right)
	}
	return fmt.Sprintf("write %s contains %s", right, left)
}

func (c *check) inList(n *ast.BinaryNode, x operand, list *ast.ArrayNode) node {
	l := &oneOfList{x: x.node}
	for _, item := range list.Nodes {
		y := c.operand(item)
		if !alike(x.typ, y.typ) {
			c.mismatch(item, x, y, "it is never one of them")
			continue
		}
		a, b := c.align(item, x, y)
		if a.typ.kind != x.typ.kind {
			c.fail(item, "PM113", "the time zones differ from one another", "write the offsets of all, or of none")
		}
		c.literal(x, y)
		l.list = append(l.list, b.node)
	}
	return l
}

// inRange is x in a..b: both ends belong to it.
func (c *check) inRange(n *ast.BinaryNode, x operand, bounds *ast.BinaryNode) node {
	from, to := c.operand(bounds.Left), c.operand(bounds.Right)
	for _, o := range []operand{x, from, to} {
		if !o.typ.is(kindWhole) {
			c.fail(n, "PM117", fmt.Sprintf("%s is %s, and a range is of whole numbers", show(o.ast), o.typ.name), rangeWritten(x, from, to))
			return &constant{}
		}
	}
	return &junction{
		a: &apply{orderings[">="], x.node, from.node},
		b: &apply{orderings["<="], x.node, to.node},
	}
}

// rangeWritten is the way out of a range of what is not whole numbers.
func rangeWritten(x, from, to operand) string {
	return fmt.Sprintf("write %[1]s >= %[2]s and %[1]s <= %[3]s", show(x.ast), show(from.ast), show(to.ast))
}

// arithmetic is + - * / % on numbers, and + and - on texts, moments and durations.
func (c *check) arithmetic(n *ast.BinaryNode, a, b operand) (node, typ) {
	if a.typ.kind == kindAny || b.typ.kind == kindAny {
		return &constant{}, typAny
	}
	if a.typ.is(kindSpan) || b.typ.is(kindSpan) || a.typ.moment() || b.typ.moment() {
		return c.timeArithmetic(n, a, b)
	}
	t := typNumber
	do := calculate(n.Operator)
	switch {
	case n.Operator == "+" && a.typ.textual() && b.typ.textual():
		do = plus
		if t = typText; a.typ.kind == kindJSON && b.typ.kind == kindJSON {
			t = typJSON
		}
	case !a.typ.numeric() || !b.typ.numeric():
		c.mismatch(n, a, b, n.Operator+" takes numbers")
		return &constant{}, typAny
	case n.Operator == "%" && (a.typ.kind == kindNumber || b.typ.kind == kindNumber):
		return c.fail(n, "PM108", "% is the remainder of a division, and takes whole numbers", "a share is a factor: old.price * 0.9")
	case a.typ.kind == kindWhole && b.typ.kind == kindWhole && n.Operator != "/":
		t = typWhole
	}
	return fold(&apply{do, a.node, b.node}, a.node, b.node), t
}

func (c *check) timeArithmetic(n *ast.BinaryNode, a, b operand) (node, typ) {
	sign := map[string]int{"+": 1, "-": -1}[n.Operator]
	switch {
	case sign == 0:
	case a.typ.moment() && b.typ.kind == kindSpan:
		return c.shift(n, a, b, sign)
	case a.typ.kind == kindSpan && b.typ.moment() && sign > 0:
		return c.shift(n, b, a, sign)
	case a.typ.moment() && b.typ.moment() && sign < 0:
		a, b = c.align(n, a, b)
		t := typSpan
		t.clock = a.typ.kind != kindInstant
		return fold(&apply{distance, a.node, b.node}, a.node, b.node), t
	case a.typ.kind == kindSpan && b.typ.kind == kindSpan:
		if a.typ.days || b.typ.days {
			return c.fail(n, "PM114", "days do not add to other durations", `write one duration, as in duration("1d12h"), or hours`)
		}
		t := typSpan
		t.clock = a.typ.clock && b.typ.clock
		return fold(&apply{spanSum(time.Duration(sign)), a.node, b.node}, a.node, b.node), t
	}
	c.mismatch(n, a, b, n.Operator+" does not go with them")
	return &constant{}, typAny
}

// shift is a moment and a duration added to it.
func (c *check) shift(n ast.Node, moment, by operand, sign int) (node, typ) {
	t, zone := moment.typ, c.env.zone
	switch {
	case t.kind != kindInstant:
		t = typLocal
	case by.typ.days && zone == nil:
		return c.fail(n, "PM113", "the days of "+show(by.ast)+" are calendar days: in which time zone?",
			fmt.Sprintf("write duration(%q), or give the rule a timezone", fmt.Sprintf("%dh", stretch(by.node.(*constant).value)/time.Hour)))
	}
	return fold(&apply{shift(sign, zone), moment.node, by.node}, moment.node, by.node), t
}
