package rules

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"

	"postman/cdc"
	"postman/value"
)

// env is what an expression is written for.
type env struct {
	table *cdc.Table // nil: a message
	ops   []cdc.Op
	zone  *time.Location // nil: not known when rules are read
	known configs        // may be nil
}

// configs are what is made once for the rules of a table that are checked together.
type configs map[*cdc.Table]*tableConfig

// tableConfig describes a table to expr's own checker, which takes longer than checking an expression, and has the columns that trees of
// expressions share.
type tableConfig struct {
	*conf.Config
	columns map[spot]*column
}

// config describes the same to expr's own checker.
func (e env) config() *tableConfig {
	if c, ok := e.known[e.table]; ok {
		return c
	}
	names := types.Map{
		"op": types.String, "commit_time": types.TypeOf(time.Time{}), "xid": types.Int, "message": types.Any, "table": types.String,
	}
	if e.table != nil {
		row := make(types.Map, len(e.table.Columns))
		for i := range e.table.Columns {
			row[e.table.Columns[i].Name] = columnType(&e.table.Columns[i]).exprType(false)
		}
		names["new"], names["old"] = row, row
	}
	c := &tableConfig{syntax(), make(map[spot]*column)}
	c.WithEnv(names)
	if e.known != nil {
		e.known[e.table] = c
	}
	return c
}

// syntax is what expr's parser has to know.
func syntax() *conf.Config {
	c := conf.New(nil)
	c.Functions["changed"] = &builtin.Function{Name: "changed", Types: []reflect.Type{reflect.TypeFor[func(any) bool]()}}
	return c
}

// tree is a checked expression.
type tree struct {
	root node
	typ  typ
	uses []use
}

// use is a column that an expression reads, and where.
type use struct {
	*column
	offset int
}

// checkExpr parses an expression and makes the tree that is evaluated. What an expression may do is what the methods of
// check know; the rest of expr's language is refused. Nothing is accepted that expr's own checker refuses.
func checkExpr(source string, e env) (tree, []problem) {
	config := e.config()
	root, problems := parseExpr(source, config.Config)
	if len(problems) > 0 {
		return tree{}, first(problems)
	}
	c := newCheck(source, e, config)
	var t tree
	t.root, t.typ = c.expr(root)
	t.uses = c.uses
	if len(c.problems) > 0 {
		return tree{uses: t.uses}, first(c.problems)
	}
	if _, err := checker.Check(&parser.Tree{Node: root, Source: file.NewSource(source)}, config.Config); err != nil {
		return tree{}, []problem{reading{source: []rune(source)}.problem(err)}
	}
	return t, nil
}

// mostProblems is how many mistakes of one expression are told. One that is repeated all along a list makes hundreds, and nobody reads on.
const mostProblems = 20

// first are those that are told. The last of them says that it is not the last.
func first(problems []problem) []problem {
	if len(problems) <= mostProblems {
		return problems
	}
	problems = problems[:mostProblems:mostProblems]
	last := &problems[mostProblems-1]
	if last.hint != "" {
		last.hint += "; "
	}
	last.hint += "there are more mistakes behind the first " + strconv.Itoa(mostProblems) + " of this expression: mend these, and the others are told"
	return problems
}

// check makes nodes of an expression's syntax tree and gathers every mistake.
type check struct {
	env       env
	columns   map[spot]*column
	source    []rune
	problems  []problem
	uses      []use
	predicate bool              // inside of a predicate
	element   typ               // of #
	made      map[ast.Node]node // where it is set: which node was made of which part
}

func newCheck(source string, e env, config *tableConfig) *check {
	return &check{env: e, columns: config.columns, source: []rune(source)}
}

// fail reports a mistake at a node. What stands there fits everywhere, so that one mistake is one message.
func (c *check) fail(n ast.Node, id ID, message, hint string) (node, typ) {
	c.problems = append(c.problems, problem{n.Location().From, id, message, hint})
	return &constant{}, typAny
}

func (c *check) expr(n ast.Node) (node, typ) {
	if len(c.problems) > mostProblems {
		return &constant{}, typAny // it is refused, and enough is known of why
	}
	made, t := c.part(n)
	if c.made != nil {
		c.made[n] = made
	}
	return made, t
}

func (c *check) part(n ast.Node) (node, typ) {
	switch n := n.(type) {
	case *ast.NilNode:
		return &constant{}, typNil
	case *ast.BoolNode:
		return &constant{n.Value}, typBool
	case *ast.StringNode:
		return &constant{n.Value}, typText
	case *ast.BytesNode:
		return &constant{n.Value}, typBytes
	case *ast.IntegerNode:
		return &constant{int64(n.Value)}, typWhole
	case *ast.FloatNode:
		return c.decimal(n)
	case *ast.IdentifierNode:
		return c.name(n)
	case *ast.ChainNode:
		return c.expr(n.Node)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.choice(n)
	case *ast.CallNode:
		return c.call(n)
	case *ast.BuiltinNode:
		return c.builtin(n)
	case *ast.PointerNode:
		return c.pointer(n)
	case *ast.ArrayNode:
		return c.fail(n, "PM107", "a list stands only behind in, and in any, all, none, one and count", "to compare with each of some values, a value and in stand before the list")
	}
	return c.fail(n, "PM107", "this is not a part of rules", "docs/rules.md lists what is")
}

// decimal reads a number from the source: a float would have lost digits.
func (c *check) decimal(n *ast.FloatNode) (node, typ) {
	at := n.Location()
	d, err := value.ParseDecimal(strings.ReplaceAll(string(c.source[at.From:at.To]), "_", ""))
	if err != nil {
		return c.fail(n, "PM119", "this is no number", "")
	}
	return &constant{d}, typNumber
}

func (c *check) name(n *ast.IdentifierNode) (node, typ) {
	switch {
	case n.Value == "op":
		return &envelope{partOp}, typ{kind: kindText, name: "text", enum: opNames(c.env.ops)}
	case n.Value == "commit_time":
		return &envelope{partTime}, typInstant
	case n.Value == "xid":
		return &envelope{partXID}, typWhole
	case n.Value == "table" && c.env.table != nil:
		return &constant{c.env.table.String()}, typText
	case n.Value == "message" && c.env.table == nil:
		return &envelope{partMessage}, typJSON
	case (n.Value == "new" || n.Value == "old") && c.env.table != nil:
		return c.fail(n, "PM104", n.Value+" is a row", "say which column: "+n.Value+".id")
	case n.Value == "message":
		return c.fail(n, "PM104", "the rule is on a table: there is no message", "")
	case slices.Contains([]string{"new", "old", "table"}, n.Value):
		return c.fail(n, "PM104", "the rule is on a message: there is no "+n.Value, "write message.key")
	case strings.HasPrefix(n.Value, "$"):
		return c.fail(n, "PM101", "a $ has no meaning in an expression", dollarHint(n.Value))
	case n.Value == "row":
		return c.fail(n, "PM006", "row belongs to scheduled rules, which this version of postman does not have yet", laterHint)
	}
	made, t := c.fail(n, "PM104", "unknown name "+n.Value, c.suggestName(n.Value))
	if c.env.table != nil {
		if col, of := c.columnOf(newRow, n.Value); col != nil { // that is meant: what else is wrong with it is told at once
			return col, of
		}
	}
	return made, t
}

// dollarHint tells sums of money from parameters.
func dollarHint(name string) string {
	if amount := strings.TrimPrefix(name, "$"); amount != "" && digit(amount[0]) {
		return "write the number alone: " + amount
	}
	return "leave it out: an expression has the row's columns by their names, and no variables"
}

func (c *check) suggestName(name string) string {
	if c.env.table == nil {
		return suggest(name, c.names())
	}
	if c.env.table.Column(name) >= 0 {
		return "a column is written with its row: new." + name + " or old." + name
	}
	if best := nearest(name, columnNames(c.env.table)); best != "" && nearest(name, c.names()) == "" {
		return "did you mean " + exprColumn("new", best) + "?"
	}
	for i := range c.env.table.Columns {
		if col := &c.env.table.Columns[i]; slices.Contains(col.Enum, name) {
			return fmt.Sprintf("a label of %s is a text, in quotes: %q", col.Name, name)
		}
	}
	if nearest(name, c.names()) == "" {
		return fmt.Sprintf("there are %s; a text stands in quotes: %q", list(c.names(), "and"), name)
	}
	return suggest(name, c.names())
}

// names are all that an expression can begin with.
func (c *check) names() []string {
	if c.env.table == nil {
		return []string{"message", "op", "commit_time", "xid"}
	}
	return []string{"new", "old", "op", "table", "commit_time", "xid"}
}

// foreign says whether x of x.y is like nothing that there is: another table, mostly.
func (c *check) foreign(name string) bool {
	return Nearest(name, c.names()) == "" && !slices.Contains([]string{"new", "old", "message", "row", "table"}, name) && !strings.HasPrefix(name, "$")
}

// member is a column, or a key or item of a JSON value.
func (c *check) member(n *ast.MemberNode) (node, typ) {
	row, isName := n.Node.(*ast.IdentifierNode)
	name, isWord := n.Property.(*ast.StringNode)
	if isName && c.env.table != nil && (row.Value == "new" || row.Value == "old") {
		if !isWord {
			return c.fail(n, "PM107", "which column is meant must be written out", `its name stands behind a dot, or in quotes and square brackets where it has spaces`)
		}
		return c.column(n, row.Value, name.Value)
	}
	if isName && isWord && c.foreign(row.Value) {
		return c.fail(row, "PM104", "unknown name "+row.Value, "an expression sees the changed row alone: what is in another table is asked for in a query, as in to: {query: select …}")
	}
	of, t := c.expr(n.Node)
	index, isNumber := n.Property.(*ast.IntegerNode)
	switch {
	case t.kind == kindAny:
		return &constant{}, typAny
	case t.moment() && isWord:
		return c.fail(n, "PM108", fmt.Sprintf("%s is %s and has no parts", show(n.Node), t.name), partHint(show(n.Node), t, name.Value))
	case t.kind != kindJSON && isWord:
		return c.fail(n, "PM108", fmt.Sprintf("%s is %s and has no parts", show(n.Node), t.name), "")
	case t.kind == kindArray:
		return c.fail(n, "PM107", fmt.Sprintf("%s is %s: its items cannot be picked by number", show(n.Node), t.name), "ask whether it has a value: the value, in, and "+show(n.Node))
	case t.kind != kindJSON:
		return c.fail(n, "PM107", fmt.Sprintf("%s is %s: it has no items", show(n.Node), t.name), "")
	case isWord:
		return &member{of, name.Value}, typJSON
	case isNumber:
		return &item{of, int64(index.Value)}, typJSON
	}
	return c.fail(n, "PM107", "which key is meant must be written out", `write x.key, x["a key"] or x[0]`)
}

func (c *check) column(n ast.Node, row, name string) (node, typ) {
	col, t := c.columnOf(sideOf(row), name)
	if col == nil {
		return c.fail(n, "PM105", fmt.Sprintf("the table %s has no column %s", c.env.table.TableName, name), suggestColumn(name, c.env.table, spelled(row)))
	}
	c.uses = append(c.uses, use{col, n.Location().From})
	return col, t
}

func (c *check) columnOf(s side, name string) (*column, typ) {
	i := c.env.table.Column(name)
	if i < 0 {
		return nil, typAny
	}
	col := &c.env.table.Columns[i]
	t := columnType(col)
	made := c.columns[spot{s, i}]
	if made == nil {
		made = &column{s, i, name, col.Type.Base, formOf(t, col.Type.Base), &absent{column: s.String() + "." + name}}
		c.columns[spot{s, i}] = made
	}
	return made, t
}

func columnNames(t *cdc.Table) []string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = t.Columns[i].Name
	}
	return names
}

func (c *check) unary(n *ast.UnaryNode) (node, typ) {
	of, t := c.expr(n.Node)
	switch {
	case n.Operator == "!" || n.Operator == "not":
		c.condition(n.Node, t)
		return &not{of}, typBool
	case !t.numeric():
		return c.fail(n, "PM108", fmt.Sprintf("%s is %s and takes no %s", show(n.Node), t.name, n.Operator), "")
	case t.kind == kindJSON:
		t = typNumber
	}
	if n.Operator == "+" {
		return of, t
	}
	return fold(&apply{negative, of, nil}, of), t
}

// condition checks that a value can be true or false.
func (c *check) condition(n ast.Node, t typ) {
	if !t.condition() {
		c.fail(n, "PM109", fmt.Sprintf("%s is %s, where a condition is expected", show(n), t.name), conditionHint(n))
	}
}

// conditionHint is the way out of a value that stands where a condition is expected.
func conditionHint(n ast.Node) string {
	if isConstant(n) {
		return "compare something with it: a column stands before it, and == between the two"
	}
	return "compare it with something, as in " + show(n) + " != nil"
}

func (c *check) choice(n *ast.ConditionalNode) (node, typ) {
	cond, t := c.expr(n.Cond)
	c.condition(n.Cond, t)
	a, b, united := c.unite(n.Exp2, c.operand(n.Exp1), c.operand(n.Exp2))
	return &choice{cond, a, b}, united
}

// operand is a part of an expression, in all its forms.
type operand struct {
	ast  ast.Node
	node node
	typ  typ
}

func (c *check) operand(n ast.Node) operand {
	o := operand{ast: n}
	o.node, o.typ = c.expr(n)
	return o
}

// unite makes one type of two that the same place may have.
func (c *check) unite(at ast.Node, a, b operand) (node, node, typ) {
	t := a.typ
	switch {
	case a.typ.is(kindNil):
		t = b.typ
	case b.typ.is(kindNil, kindAny):
	case !alike(a.typ, b.typ):
		c.mismatch(at, a, b, "both must be of one type")
		return a.node, b.node, typAny
	case a.typ.moment():
		a, b = c.align(at, a, b)
		if t = a.typ; t.kind != b.typ.kind {
			t = typLocal
		}
	case a.typ.kind == kindSpan && (a.typ.days || b.typ.days || a.typ.clock != b.typ.clock):
		c.fail(at, "PM114", "it is not clear how long a day is here", "write hours")
	case a.typ.kind != b.typ.kind:
		t = wider(a.typ, b.typ)
	}
	t.enum = nil
	return a.node, b.node, t
}

func wider(a, b typ) typ {
	switch {
	case a.kind == kindJSON || b.kind == kindJSON:
		return typJSON
	case a.numeric():
		return typNumber
	}
	return typ{kind: kindOpaque, name: "text"}
}

func (c *check) pointer(n *ast.PointerNode) (node, typ) {
	switch {
	case !c.predicate:
		return c.fail(n, "PM107", "# stands only in any, all, none, one and count", "")
	case n.Name != "":
		return c.fail(n, "PM107", "#"+n.Name+" is not a part of rules", "# is the element")
	}
	return &envelope{partElement}, c.element
}

// fold evaluates what depends on constants only.
func fold(n node, of ...node) node {
	for _, o := range of {
		if _, ok := o.(*constant); !ok {
			return n
		}
	}
	return &constant{n.eval(new(frame))}
}

// show is a part of an expression in a message.
func show(n ast.Node) string {
	const most = 40
	s := []rune(shorten(n, 2*most).String())
	if len(s) > most {
		return string(s[:most]) + "…"
	}
	return string(s)
}

// shorten replaces parts of an expression by an ellipsis until it has about so many: a chain as long as an expression may be has a
// thousand parts that have the rest of the chain in them, and each of them may be shown.
func shorten(n ast.Node, size int) ast.Node {
	if left := size; countable(n, &left) {
		return n
	}
	if size <= 1 {
		return &ast.IdentifierNode{Value: "…"}
	}
	switch n := n.(type) {
	case *ast.BinaryNode:
		return &ast.BinaryNode{Operator: n.Operator, Left: shorten(n.Left, size/2), Right: shorten(n.Right, size/2)}
	case *ast.UnaryNode:
		return &ast.UnaryNode{Operator: n.Operator, Node: shorten(n.Node, size/2)}
	case *ast.ConditionalNode:
		return &ast.ConditionalNode{Cond: shorten(n.Cond, size/3), Exp1: shorten(n.Exp1, size/3), Exp2: shorten(n.Exp2, size/3)}
	case *ast.BuiltinNode:
		return &ast.BuiltinNode{Name: n.Name, Arguments: shortened(n.Arguments, size/2)}
	case *ast.ArrayNode:
		return &ast.ArrayNode{Nodes: shortened(n.Nodes, size/2)}
	}
	return &ast.IdentifierNode{Value: "…"}
}

// shortened are the first of many parts.
func shortened(nodes []ast.Node, size int) []ast.Node {
	const most = 3
	some := make([]ast.Node, 0, most+1)
	for _, n := range nodes[:min(most, len(nodes))] {
		some = append(some, shorten(n, size/most))
	}
	if len(nodes) > most {
		some = append(some, &ast.IdentifierNode{Value: "…"})
	}
	return some
}
