package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// condition looks at the rule's when.
func (l *linter) condition() {
	if l.rule.When == nil {
		return
	}
	e := env{table: l.table, ops: l.rule.On.Ops, zone: l.rule.Zone}
	source := l.rule.When.text.value
	config := e.config()
	root, problems := parseExpr(source, config.Config)
	if len(problems) > 0 { // it was parsed before
		return
	}
	w := &whenLint{linter: l, check: newCheck(source, e, config), root: root}
	if !w.constant() {
		w.parts(root)
		w.chains(root)
		w.nulls(root)
	}
	w.comparisons()
	w.long()
	w.lasting()
}

// whenLint looks at a condition, part by part.
type whenLint struct {
	*linter
	check *check
	root  ast.Node
}

func (w *whenLint) at(n ast.Node) Place { return w.rule.When.text.place(n.Location().From) }

// node makes the tree of a part of the condition.
func (w *whenLint) node(n ast.Node) node {
	made, _ := w.check.expr(n)
	return made
}

// decided says whether a condition comes to the same for all changes of an operation: it does where that needs no column's value.
func (w *whenLint) decided(n node, op cdc.Op) (is, known bool) {
	is, known = truth(n.eval(w.unknown(op))).(bool)
	return is, known
}

// unknown is a change of which only the operation is known.
func (w *whenLint) unknown(op cdc.Op) *frame {
	f := &frame{op: op, table: w.table, serial: 1, message: &absent{column: "message"}}
	if w.table == nil {
		return f
	}
	for s := range f.rows {
		f.cells[s] = make([]cell, len(w.table.Columns))
		f.rows[s] = make([]value.Datum, len(w.table.Columns))
		for i := range f.rows[s] {
			if hasRow(op, side(s)) {
				f.rows[s][i].State = value.Unavailable
			}
		}
	}
	return f
}

// always says whether a condition comes to the same for all changes that the rule is on.
func (w *whenLint) always(n ast.Node) (is, known bool) {
	if mentions(n, "commit_time", "xid") {
		return false, false
	}
	made := w.node(n)
	for i, op := range w.rule.On.Ops {
		b, ok := w.decided(made, op)
		if !ok || i > 0 && b != is {
			return false, false
		}
		is = b
	}
	return is, true
}

// constant reports a condition that no change matters to, or none of an operation's. It says whether it is the former.
func (w *whenLint) constant() bool {
	switch is, known := w.always(w.root); {
	case known && is:
		w.warn("PM201", w.at(w.root), "the condition is always true", "leave when out: then every change matches; or say what is to be true of the change")
		return true
	case known:
		w.warn("PM201", w.at(w.root), "the condition is never true: the rule never matches", w.whyNever())
		return true
	}
	made := w.node(w.root)
	for _, op := range w.rule.On.Ops {
		if is, known := w.decided(made, op); known && !is && !mentions(w.root, "commit_time", "xid") {
			w.warn("PM202", w.rule.Key("on"), fmt.Sprintf("the rule is on %s and never matches one", op), "leave "+op.String()+" out of ops, or let when be true of some")
		}
	}
	return false
}

// whyNever names a row that the condition reads and none of the rule's operations has.
func (w *whenLint) whyNever() string {
	having := map[side]string{newRow: "an insert and an update have a new row", oldRow: "an update and a delete have an old row"}
	for _, u := range w.rule.When.tree.uses {
		if !slices.ContainsFunc(w.rule.On.Ops, func(op cdc.Op) bool { return hasRow(op, u.side) }) {
			return fmt.Sprintf("only %s: %s.%s is NULL here", having[u.side], u.side, u.name)
		}
	}
	return ""
}

// parts reports what in a condition that does depend on the change does not.
func (w *whenLint) parts(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		if isJunction(n) {
			w.part(n.Left)
			w.part(n.Right)
		}
	case *ast.UnaryNode:
		if isNot(n) {
			w.part(n.Node)
		}
	case *ast.ConditionalNode:
		w.part(n.Cond)
	}
}

func (w *whenLint) part(n ast.Node) {
	is, known := w.always(n)
	if !known {
		w.parts(n)
		return
	}
	word := map[bool]string{true: "always", false: "never"}[is]
	w.warn("PM201", w.at(n), fmt.Sprintf("%s is %s true here: it decides nothing", show(n), word), "leave it out, or say what is to be true of the change")
}

func isNot(n *ast.UnaryNode) bool { return n.Operator == "not" || n.Operator == "!" }

func isJunction(n *ast.BinaryNode) bool {
	return slices.Contains([]string{"and", "&&", "or", "||"}, n.Operator)
}

// nulls reports negations that are also true for NULL, which people who know SQL do not expect. Conditions that are false
// for that NULL all the same, as with `and new.x != nil`, are what was meant.
func (w *whenLint) nulls(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		switch {
		case isJunction(n):
			w.nulls(n.Left)
			w.nulls(n.Right)
		case n.Operator == "!=":
			w.negation(n)
		}
	case *ast.UnaryNode:
		if isNot(n) {
			w.negation(n)
		}
	case *ast.ConditionalNode:
		w.nulls(n.Exp1)
		w.nulls(n.Exp2)
	}
}

func (w *whenLint) negation(n ast.Node) {
	if w.table == nil || mentionsNull(n) {
		return
	}
	made, whole := w.node(n), w.node(w.root)
	for _, c := range columnsOf(n, w.check) {
		if w.table.Columns[c.index].NotNull {
			continue
		}
		for _, op := range w.rule.On.Ops {
			if c.side == oldRow && op == cdc.Update { // it became what new.x is, from nothing: that is meant
				continue
			}
			if hasRow(op, c.side) && w.withNull(made, op, c) == true && w.withNull(whole, op, c) != any(false) {
				name := c.side.String() + "." + c.name
				w.warn("PM203", w.at(n), fmt.Sprintf("%s is also true where %s is NULL", showNot(n), name), fmt.Sprintf("if that is not meant, add: and %s != nil", name))
				return
			}
		}
	}
}

// showNot writes `x not in y` as people do.
func showNot(n ast.Node) string {
	if u, ok := n.(*ast.UnaryNode); ok {
		if in, ok := u.Node.(*ast.BinaryNode); ok && in.Operator == "in" {
			return show(in.Left) + " not in " + show(in.Right)
		}
	}
	return show(n)
}

// withNull is what a condition comes to when a column is NULL and nothing else is known: true, false or absent.
func (w *whenLint) withNull(n node, op cdc.Op, c *column) any {
	f := w.unknown(op)
	f.rows[c.side][c.index].State = value.Null
	return truth(n.eval(f))
}

// mentions says whether a part has one of these names.
func mentions(n ast.Node, names ...string) bool {
	found := false
	walk(n, func(n ast.Node) {
		if id, ok := n.(*ast.IdentifierNode); ok {
			found = found || slices.Contains(names, id.Value)
		}
	})
	return found
}

// mentionsNull says whether a part was written with NULL in mind, or with what is not known here.
func mentionsNull(n ast.Node) bool {
	found := mentions(n, "commit_time", "xid")
	walk(n, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.NilNode:
			found = true
		case *ast.BinaryNode:
			found = found || n.Operator == "??"
		case *ast.CallNode: // changed
			found = true
		}
	})
	return found
}

// columnsOf are the columns that a part reads, but for those whose keys it reads: a JSON key may always be missing.
func columnsOf(n ast.Node, c *check) []*column {
	var list []*column
	walk(n, func(n ast.Node) {
		if m, ok := n.(*ast.MemberNode); ok {
			made, t := c.expr(m)
			if col, ok := made.(*column); ok && t.kind != kindJSON {
				list = append(list, col)
			}
		}
	})
	return list
}

// walk visits a node and all below it.
func walk(n ast.Node, visit func(ast.Node)) { ast.Walk(&n, visitor(visit)) }

type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n *ast.Node) { v(*n) }

// comparisons reports == of numbers that are not exact, and texts that a function never yields.
func (w *whenLint) comparisons() {
	walk(w.root, func(n ast.Node) {
		b, ok := n.(*ast.BinaryNode)
		if !ok {
			return
		}
		switch b.Operator {
		case "==", "!=":
			w.float(b, b.Right, b.Left)
			w.wrongCase(b.Right, b.Left)
			w.instant(b, b.Left, b.Right)
			w.instant(b, b.Right, b.Left)
			fallthrough
		case "in":
			w.float(b, b.Left, b.Right)
			fallthrough
		case "contains", "startsWith", "endsWith":
			w.wrongCase(b.Left, b.Right)
		}
	})
}

func (w *whenLint) float(at *ast.BinaryNode, of, other ast.Node) {
	m, ok := of.(*ast.MemberNode)
	if !ok {
		return
	}
	made, t := w.check.expr(m)
	col, ok := made.(*column)
	if !ok || col.base != pgtype.Float4OID && col.base != pgtype.Float8OID {
		return
	}
	switch other.(type) {
	case *ast.NilNode, *ast.IntegerNode:
		return
	}
	if slices.ContainsFunc(columnsOf(other, w.check), func(c *column) bool { return c.name == col.name }) {
		return // old.rate != new.rate
	}
	w.warn("PM205", w.at(at), fmt.Sprintf("%s is %s, which is rarely equal to anything: sums of it are not exact", show(of), t.name), nearHint(at.Operator, of, other))
}

// nearHint is how a number is compared with one that is near to it: within the first digit that is not written.
func nearHint(operator string, of, other ast.Node) string {
	f, ok := other.(*ast.FloatNode)
	switch {
	case !ok && operator == "in":
		return "write a range for each, joined with or"
	case !ok && operator == "==":
		return fmt.Sprintf("write abs(%s - %s) < 0.001, or as near as is meant", show(of), show(other))
	case !ok:
		return fmt.Sprintf("write abs(%s - %s) > 0.001, or as near as is meant", show(of), show(other))
	}
	_, digits, _ := strings.Cut(strconv.FormatFloat(f.Value, 'f', -1, 64), ".")
	places := len(digits) + 1
	least, most := strconv.FormatFloat(f.Value-math.Pow10(-places), 'f', places, 64), strconv.FormatFloat(f.Value+math.Pow10(-places), 'f', places, 64)
	if operator == "!=" {
		return fmt.Sprintf("compare with a range: write (%[1]s < %[2]s or %[1]s > %[3]s)", show(of), least, most)
	}
	return fmt.Sprintf("compare with a range: write %[1]s > %[2]s and %[1]s < %[3]s", show(of), least, most)
}

// instant reports a moment that is to be just that of the commit, which has microseconds.
func (w *whenLint) instant(at *ast.BinaryNode, of, other ast.Node) {
	if !mentions(of, "commit_time") || !w.moment(of) || !w.moment(other) || mentions(other, "commit_time") && of == at.Right {
		return
	}
	word, hint := "never", recentHint(show(other))
	if _, plain := of.(*ast.IdentifierNode); !plain {
		hint = "compare with < or >=, or with both for a stretch of time"
	}
	if at.Operator == "!=" {
		word, hint = "always", "leave it out, or compare with < or >="
	}
	w.warn("PM215", w.at(at), fmt.Sprintf("practically, this is %s true: commit_time has microseconds, and what is written in a row is another moment", word), hint)
}

func (w *whenLint) moment(n ast.Node) bool {
	_, t := w.check.expr(n)
	return t.kind != kindAny && t.moment()
}

func (w *whenLint) wrongCase(of, other ast.Node) {
	call, ok := of.(*ast.BuiltinNode)
	if !ok {
		return
	}
	change := map[string]func(string) string{"lower": strings.ToLower, "upper": strings.ToUpper}[call.Name]
	if change == nil {
		return
	}
	walk(other, func(n ast.Node) {
		if s, ok := n.(*ast.StringNode); ok && change(s.Value) != s.Value {
			w.warn("PM201", w.at(s), fmt.Sprintf("%s() never yields %q", call.Name, s.Value), fmt.Sprintf("write %q", change(s.Value)))
		}
	})
}

// long reports JSON and bytes that an update does not carry when it leaves a long value alone. Of texts, which mostly are
// short, nothing is said.
func (w *whenLint) long() {
	if w.table == nil || !slices.Contains(w.rule.On.Ops, cdc.Update) || w.table.Identity == cdc.IdentityFull {
		return
	}
	told := make(map[string]bool)
	for _, u := range w.rule.When.tree.uses {
		if u.side == newRow && slices.Contains(longTypes, u.base) && !told[u.name] && !w.table.Columns[u.index].Key {
			told[u.name] = true
			hint := "ask for it in the query of to"
			if !w.table.Partitioned {
				hint = fmt.Sprintf("run: ALTER TABLE %s REPLICA IDENTITY FULL; or %s", quoteTable(w.table.TableName), hint)
			}
			w.warn("PM206", w.rule.When.text.place(u.offset), fmt.Sprintf("an update that leaves a long new.%s alone does not carry it: the rule is undetermined then", u.name), hint)
		}
	}
}

// lasting reports a condition on updates that says how the row is, and not that it became so: it is true again whenever anything
// else of the row changes.
func (w *whenLint) lasting() {
	if w.table == nil || !slices.Contains(w.rule.On.Ops, cdc.Update) || mentions(w.root, "commit_time", "xid") {
		return
	}
	if is, known := w.decided(w.node(w.root), cdc.Update); known && !is {
		return
	}
	var names []string
	carried, settled := true, true
	for _, u := range w.rule.When.tree.uses {
		if u.side == oldRow {
			return
		}
		if name := exprColumn("new", u.name); !slices.Contains(names, name) {
			names = append(names, name)
			settled = settled && w.table.Columns[u.index].PK
			carried = carried && (w.table.Identity == cdc.IdentityFull || w.table.Columns[u.index].Key)
		}
	}
	if len(names) == 0 || settled {
		return
	}
	became := "changed(" + strings.Join(names, ") or changed(") + ")"
	if len(names) > 1 {
		became = "(" + became + ")"
	}
	hint := "for the moment when it becomes so, add: and " + became
	if n, ok := w.root.(*ast.BinaryNode); ok && isJunction(n) && (n.Operator == "or" || n.Operator == "||") {
		hint = "for the moment when it becomes so, put the condition into brackets and add: and " + became
	}
	if !carried && w.table.Partitioned {
		hint = "of a partitioned table nothing tells the moment when it becomes so: decide by a column that the application sets then, or silence this where each save is to be told"
	} else if !carried {
		hint += fmt.Sprintf("; for that, first run: ALTER TABLE %s REPLICA IDENTITY FULL;", quoteTable(w.table.TableName))
	}
	w.warn("PM214", w.rule.When.text.place(0), "of an update this is also true when something else of the row changes: there is a mail each time", hint)
}

var longTypes = []uint32{pgtype.JSONOID, pgtype.JSONBOID, pgtype.ByteaOID, pgtype.XMLOID}
