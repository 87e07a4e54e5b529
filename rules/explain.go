package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"

	"postman/cdc"
)

// mostElements is how many of a list's elements a trace tells of.
const mostElements = 20

// Explain tries the rule on a change and tells what each part of its condition came to. It looks at all parts, and at each by
// itself: the index does not find the rule, no clause is made of its parts, and none is passed over since another has decided.
// The leaves are those that a [Plan] has, and so is the verdict. Sensitive values are not shown.
func (r *Rule) Explain(tx cdc.Tx, c *cdc.Change) *Trace {
	t := &Trace{Rule: r, Excluded: r.excludes(c)}
	if t.Excluded != "" {
		return t
	}
	f := new(frame)
	if c.Table != nil {
		*f = newFrame(c.Table)
	}
	f.begin(tx, c)
	if c.Op == cdc.Emit {
		f.message = readMessage(c.Content)
	}
	if x, ok := f.message.(*absent); ok {
		t.Verdict = Verdict{Truth: Undetermined, Err: x.err}
		return t
	}
	if r.When == nil {
		t.Verdict.Truth = True
		return t
	}
	rec, root, err := r.record(f)
	if err != nil {
		t.Verdict = Verdict{Truth: Undetermined, Err: err}
		return t
	}
	t.Verdict = f.try(rec.made[root])
	t.When = rec.condition(root)
	t.When.idle(false)
	return t
}

// excludes says why a change is none that the rule is tried on.
func (r *Rule) excludes(c *cdc.Change) string {
	switch {
	case c.Op == cdc.Emit && r.On.Message == "":
		return fmt.Sprintf("the rule is on the table %s, and this is a message", r.On.Table)
	case c.Op == cdc.Emit && c.Prefix != messagePrefix+r.On.Message:
		return fmt.Sprintf("the rule is on the message %s, and this is %s", messagePrefix+r.On.Message, c.Prefix)
	case c.Op == cdc.Emit:
		return ""
	case r.On.Message != "":
		return fmt.Sprintf("the rule is on the message %s, and this is a change of %s", messagePrefix+r.On.Message, c.Table)
	case c.Table.TableName != r.On.Table:
		return fmt.Sprintf("the rule is on the table %s, and this is a change of %s", r.On.Table, c.Table)
	case !slices.Contains(r.On.Ops, c.Op):
		return fmt.Sprintf("the rule is on %s, and this is %s %s", list(opNames(r.On.Ops), "and"), article(c.Op), c.Op)
	}
	return ""
}

func article(op cdc.Op) string {
	if op == cdc.Insert || op == cdc.Update {
		return "an"
	}
	return "a"
}

// recorder evaluates a condition part by part.
type recorder struct {
	rule   *Rule
	text   text
	source []rune  // of the text
	places []Place // of each of its characters
	tokens []lexer.Token
	pairs  [][2]int // brackets that belong together
	made   map[ast.Node]node
	frame  *frame
	hiding bool // the element that a predicate is tried on is sensitive
}

// record checks the condition again, for the change's table, and keeps which node was made of which part of it.
func (r *Rule) record(f *frame) (*recorder, ast.Node, error) {
	t := r.When.text
	e := env{table: f.table, ops: r.On.Ops, zone: r.Zone}
	config := e.config()
	c := newCheck(t.value, e, config)
	c.made = make(map[ast.Node]node)
	root, problems := parseExpr(t.value, config.Config)
	if len(problems) == 0 {
		c.expr(root)
		problems = c.problems
	}
	var errs Errors
	for _, p := range problems {
		errs = append(errs, r.Mistake(p.id, t.place(p.offset), p.message, p.hint))
	}
	if len(errs) > 0 {
		return nil, nil, fmt.Errorf("the rule does not fit the table as it was: %w", errs)
	}
	tokens, err := lexer.Lex(file.NewSource(t.value))
	return &recorder{rule: r, text: t, source: c.source, places: t.places(), tokens: tokens, pairs: brackets(tokens), made: c.made, frame: f}, root, err
}

// places are those of all characters, see place.
func (t text) places() []Place {
	c := t.begin()
	var all []Place
	for _, r := range t.value {
		all = append(all, c.find(r).place(t.file))
	}
	return all
}

// brackets pairs those that belong together, by their places.
func brackets(tokens []lexer.Token) (pairs [][2]int) {
	var open []int
	for _, t := range tokens {
		switch {
		case t.Kind != lexer.Bracket:
		case strings.Contains("([{", t.Value):
			open = append(open, t.From)
		case len(open) > 0:
			pairs = append(pairs, [2]int{open[len(open)-1], t.From})
			open = open[:len(open)-1]
		}
	}
	return pairs
}

// span is where a part of the expression begins and ends: the syntax tree knows the place of one token of it.
func (r *recorder) span(n ast.Node) (from, to int) {
	s := span{from: len(r.text.value)}
	ast.Walk(&n, &s)
	for grown := true; grown; {
		grown = false
		for _, p := range r.pairs {
			if inside := s.has(p[0]); inside != s.has(p[1]) {
				s.from, s.to, grown = min(s.from, p[0]), max(s.to, p[1]+1), true
			}
		}
	}
	return s.from, s.to
}

type span struct{ from, to int }

func (s *span) has(at int) bool { return at >= s.from && at < s.to }

// Visit takes in a node's token.
func (s *span) Visit(n *ast.Node) {
	at := (*n).Location()
	s.from, s.to = min(s.from, at.From), max(s.to, at.To)
}

// step is a part without what it came to.
func (r *recorder) step(n ast.Node) *Step {
	s := new(Step)
	s.From, s.To = r.span(n)
	s.Place = r.places[s.From]
	var b strings.Builder
	end := s.From
	first, _ := slices.BinarySearchFunc(r.tokens, s.From, func(t lexer.Token, from int) int { return cmp.Compare(t.From, from) })
	for _, t := range r.tokens[first:] {
		if t.Kind == lexer.EOF || t.From >= s.To { // the end's place is the last character's
			break
		}
		if t.From > end {
			b.WriteByte(' ') // for white space and comments
		}
		end = t.To
		b.WriteString(string(r.source[t.From:t.To]))
	}
	s.Text = b.String()
	return s
}

var junctions = map[string]StepKind{"and": AndStep, "&&": AndStep, "or": OrStep, "||": OrStep}

// condition records a condition, and those that it joins.
func (r *recorder) condition(n ast.Node) *Step {
	s := r.step(n)
	v := r.eval(n)
	s.Truth = Undetermined
	if b, ok := truth(v).(bool); ok {
		s.Truth = truthOf(b)
	}
	switch n := n.(type) {
	case *ast.BinaryNode:
		if kind, ok := junctions[n.Operator]; ok {
			s.Kind, s.Parts = kind, r.joined(n, kind)
			return s
		}
	case *ast.ConditionalNode:
		s.Kind, s.Parts = IfStep, []*Step{r.condition(n.Cond), r.condition(n.Exp1), r.condition(n.Exp2)}
		return s
	case *ast.UnaryNode:
		if !notIn(n) {
			s.Kind, s.Parts = NotStep, []*Step{r.condition(n.Node)}
			return s
		}
	}
	s.Kind, s.Note = ClauseStep, r.note(n, v)
	if s.Parts = r.parts(n); len(s.Parts) == 0 && !literal(n) {
		s.Parts = []*Step{r.value(n)} // it is a value itself
	}
	return s
}

// notIn says whether a negation is written as not in.
func notIn(n *ast.UnaryNode) bool {
	in, ok := n.Node.(*ast.BinaryNode)
	return ok && in.Operator == "in" && in.Location() == n.Location()
}

// joined are the parts of a chain of the same operator.
func (r *recorder) joined(n *ast.BinaryNode, kind StepKind) (parts []*Step) {
	for _, side := range []ast.Node{n.Left, n.Right} {
		if inner, ok := side.(*ast.BinaryNode); ok && junctions[inner.Operator] == kind {
			parts = append(parts, r.joined(inner, kind)...)
			continue
		}
		parts = append(parts, r.condition(side))
	}
	return parts
}

// eval is what a part comes to by itself.
func (r *recorder) eval(n ast.Node) (v any) {
	defer func() {
		if p := recover(); p != nil {
			v = &absent{err: fmt.Errorf("evaluating it: %v", p)}
		}
	}()
	return r.made[n].eval(r.frame)
}

// value records a value, and those that it is made of.
func (r *recorder) value(n ast.Node) *Step {
	s := r.step(n)
	s.Kind, s.Parts = ValueStep, r.parts(n)
	r.fill(s, r.eval(n), r.made[n], r.hides(n))
	return s
}

// fill tells a value, or why it is not told.
func (r *recorder) fill(s *Step, v any, of node, hidden bool) {
	x, unknown := v.(*absent)
	c, isColumn := of.(*column)
	switch {
	case unknown && isColumn:
		s.Note = r.whyAbsent(c, x)
	case unknown && x.err != nil:
		s.Note = x.err.Error()
	case unknown:
		s.Note = hangsOn + x.column
	case hidden && v != nil:
		s.Value = "<sensitive>"
	default:
		s.Value = r.printed(v)
	}
	if isColumn && !hasRow(r.frame.op, c.side) {
		s.Note = fmt.Sprintf("%s %s has no %s row", article(r.frame.op), r.frame.op, c.side)
	}
}

// parts are the values that an expression is made of.
func (r *recorder) parts(n ast.Node) []*Step {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if notIn(n) {
			return r.parts(n.Node)
		}
		return r.values(n.Node)
	case *ast.BinaryNode:
		return r.values(n.Left, n.Right)
	case *ast.ConditionalNode:
		return r.values(n.Cond, n.Exp1, n.Exp2)
	case *ast.ArrayNode:
		return r.values(n.Nodes...)
	case *ast.ChainNode:
		return r.parts(n.Node)
	case *ast.CallNode:
		return r.both(n)
	case *ast.BuiltinNode:
		if q, ok := r.made[n].(*quantifier); ok {
			return append(r.values(n.Arguments[0]), r.elements(n, q)...)
		}
		return r.values(n.Arguments...)
	}
	return nil // a column, a key of a JSON value
}

// values records expressions, but for those that are written out. Lists that are written out are their items.
func (r *recorder) values(of ...ast.Node) (all []*Step) {
	for _, n := range of {
		switch {
		case literal(n):
		case r.made[n] == nil:
			all = append(all, r.parts(n)...)
		default:
			all = append(all, r.value(n))
		}
	}
	return all
}

// literal says whether an expression tells its value by itself.
func literal(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.StringNode, *ast.BytesNode, *ast.IntegerNode, *ast.FloatNode:
		return true
	case *ast.UnaryNode:
		return n.Operator != "not" && n.Operator != "!" && literal(n.Node)
	case *ast.BuiltinNode:
		return n.Name == "date" || n.Name == "duration"
	}
	return false
}

// both are the values of changed(new.column), before and after.
func (r *recorder) both(n *ast.CallNode) (all []*Step) {
	c, ok := r.made[n].(*changed)
	if !ok {
		return nil
	}
	for _, column := range []*column{c.then, c.now} {
		s := r.step(n.Arguments[0])
		s.Kind, s.Text = ValueStep, column.absent.column
		r.fill(s, r.frame.value(column), column, r.rule.Hides(column.name))
		all = append(all, s)
	}
	return all
}

// elements records what the predicate says of each element of its list.
func (r *recorder) elements(n *ast.BuiltinNode, q *quantifier) (all []*Step) {
	of, _ := q.of.eval(r.frame).([]any)
	pred, ok := n.Arguments[1].(*ast.PredicateNode)
	if !ok {
		return nil
	}
	defer func(was bool) { r.hiding = was }(r.hiding)
	r.hiding = r.hiding || r.hides(n.Arguments[0])
	for _, v := range of[:min(len(of), mostElements)] {
		r.frame.element = v
		all = append(all, r.condition(pred.Node))
	}
	return all
}

// hides says whether a value is made of a sensitive one.
func (r *recorder) hides(n ast.Node) bool {
	h := hiding{rule: r.rule, element: r.hiding}
	ast.Walk(&n, &h)
	return h.found
}

type hiding struct {
	rule           *Rule
	element, found bool
}

// Visit looks for new.column, old.column, message.key and #.
func (h *hiding) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.PointerNode:
		h.found = h.found || h.element
	case *ast.MemberNode:
		of, isName := n.Node.(*ast.IdentifierNode)
		name, isWord := n.Property.(*ast.StringNode)
		if isName && isWord && slices.Contains([]string{"new", "old", "message"}, of.Value) {
			h.found = h.found || h.rule.Hides(name.Value)
		}
	}
}
