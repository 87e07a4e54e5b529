package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"

	"postman/cdc"
)

// Set is a compiled rule set. It is immutable, and safe for many goroutines.
type Set struct {
	Rules []*Rule

	once     sync.Once // see prepare
	watches  map[cdc.TableName]*watch
	messages map[string][]*Rule
}

// Needs is what the set's rules need published.
func (s *Set) Needs() []cdc.Need { return needs(s.Rules) }

// Compile type-checks the rules against the catalog. With a non-nil *Set and an Errors, the set holds the rules
// that are sound: at start a catalog that changed breaks only the rules it touches.
func Compile(s *Source, c *cdc.Catalog) (*Set, error) { return s.Clone().Settle(c) }

// Settle is Compile for a source that nobody else has: the rules that are sound take the places of those that were read, so that what
// both have in common is kept once, also on the way.
func (s *Source) Settle(c *cdc.Catalog) (*Set, error) {
	sound, mistakes := make([]bool, len(s.Rules)), make([]Errors, len(s.Rules))
	share(len(s.Rules), func(from, to int) {
		known := make(configs)
		for i := from; i < to; i++ {
			checked, errs := s.Rules[i].compile(c, known)
			if mistakes[i] = errs; checked != nil && len(errs) == 0 {
				s.Rules[i], sound[i] = checked, true
			}
		}
	})
	set, errs := new(Set), s.checkSensitive(c)
	for i, r := range s.Rules {
		if errs = append(errs, mistakes[i]...); sound[i] {
			set.Rules = append(set.Rules, r)
		}
	}
	set.prepare()
	return set, errs.orNil()
}

// compile checks the rule against its table in the catalog.
func (r *Rule) compile(c *cdc.Catalog, known configs) (*Rule, Errors) {
	if len(r.On.Ops) == 0 { // a mistake that Read reported
		return nil, nil
	}
	table, mistake := r.table(c)
	if mistake != nil {
		return nil, Errors{mistake}
	}
	checked, errs := r.check(table, c.Unidentified[r.On.Table], known)
	if more := r.keyless(table); more != nil {
		errs = append(errs, more...).inOrder()
	}
	return checked, errs
}

// share has a list's parts seen to at once, one by each processor.
func share(length int, part func(from, to int)) {
	workers := min(runtime.GOMAXPROCS(0), length)
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() { part(length*i/workers, length*(i+1)/workers) })
	}
	group.Wait()
}

// table finds the rule's table; nil for a message.
func (r *Rule) table(c *cdc.Catalog) (*cdc.Table, *Error) {
	if r.On.Message != "" {
		return nil, nil
	}
	if t, ok := c.Tables[r.On.Table]; ok {
		return t, nil
	}
	if why, ok := c.Unwatchable[r.On.Table]; ok {
		return nil, r.Mistake("PM402", r.at(r.tableAt), fmt.Sprintf("%s cannot be watched", r.On.Table), why)
	}
	return nil, r.Mistake("PM401", r.at(r.tableAt), fmt.Sprintf("the database has no table %s", r.On.Table), suggest(r.On.Table.String(), tableNames(c)))
}

func tableNames(c *cdc.Catalog) []string {
	names := make([]string, len(c.Names))
	for i, n := range c.Names {
		names[i] = n.String()
	}
	return names
}

// checkSensitive checks that what is called sensitive is there: a misspelt name would hide nothing. Of a table that no
// rule watches only the name is known.
func (s *Source) checkSensitive(c *cdc.Catalog) Errors {
	var errs Errors
	for _, e := range s.sensitive {
		t, watched := c.Tables[e.table]
		mistake := &Error{ID: "PM405", Place: e.place, Line: e.line}
		switch {
		case e.message != "":
			continue
		case watched && t.Column(e.name) < 0:
			mistake.Message = fmt.Sprintf("the table %s has no column %s", e.table, e.name)
			mistake.Hint = suggest(e.name, columnNames(t))
		case !watched && !slices.Contains(c.Names, e.table):
			mistake.Message = fmt.Sprintf("the database has no table %s", e.table)
			mistake.Hint = suggest(e.table.String(), tableNames(c))
		default:
			continue
		}
		errs = append(errs, mistake)
	}
	return errs
}

// Revive reads back what Rule.Source returned, compiled against the shape that a match was stored with (nil for a message).
func Revive(source []byte, shape *cdc.Table) (*Rule, error) {
	s := new(Source)
	errs := append(s.add("the stored rule", source), s.unite()...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("reading a stored rule: %w", errs)
	}
	if len(s.Rules) != 1 {
		return nil, fmt.Errorf("reading a stored rule: there are %d", len(s.Rules))
	}
	r := s.Rules[0]
	if (shape == nil) != (r.On.Message != "") {
		return nil, fmt.Errorf("reading rule %q: it is not about what its match was stored with", r.Name)
	}
	checked, errs := r.check(shape, "", nil)
	if len(errs) > 0 {
		return nil, fmt.Errorf("reading a stored rule: %w", errs)
	}
	return checked, nil
}

// Hides says whether a column of the rule's table, or a key of its message, is sensitive.
func (r *Rule) Hides(name string) bool { return slices.Contains(r.Sensitive, name) }

// check returns the rule with its expressions made for the table, as a catalog, a stream or a store describes it; nil
// for a message. The catalog may know more than the table says about why its updates and deletes must not be published.
func (r *Rule) check(t *cdc.Table, unidentified string, known configs) (*Rule, Errors) {
	c := &ruleCheck{rule: r, env: env{t, r.On.Ops, r.Zone, known}}
	c.identity(unidentified)
	checked := *r
	checked.against = t
	for _, t := range r.unread {
		c.names(t)
	}
	checked.When = c.expr(r.When, typ.condition, "a condition", "")
	for _, l := range r.Load {
		c.sql(l.SQL, true)
	}
	checked.To, checked.CC = c.recipients(r.To), c.recipients(r.CC)
	checked.From, checked.ReplyTo = c.sender(r.From), c.sender(r.ReplyTo)
	checked.Thread = c.thread(r.Thread)
	slices.SortStableFunc(c.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return &checked, c.errs
}

// ruleCheck checks one rule against its table.
type ruleCheck struct {
	rule    *Rule
	env     env
	blind   bool // the table sends no updates and deletes at all, which is reported once
	errs    Errors
	noticed map[string]bool // columns of the old row that were reported
}

func (c *ruleCheck) fail(p Place, id ID, message, hint string) {
	c.errs = append(c.errs, c.rule.Mistake(id, p, message, hint))
}

// identity checks that updates and deletes can be watched: without a usable replica identity, publishing them would make
// the application's own UPDATE and DELETE fail. Truncates are published along with deletes.
func (c *ruleCheck) identity(why string) {
	t := c.env.table
	if t == nil || !c.sees(cdc.Update, cdc.Delete, cdc.Truncate) {
		return
	}
	if why == "" && !usable(t) {
		why = fmt.Sprintf("it has no replica identity: ALTER TABLE %s REPLICA IDENTITY FULL; or better, give it a primary key", quoteTable(t.TableName))
	}
	if why == "" {
		return
	}
	c.blind = true
	message := fmt.Sprintf("updates, deletes and truncates of %s cannot be watched", t.TableName)
	if !t.Partitioned || t.Identity == cdc.IdentityDefault {
		message += ": the application's own would fail"
	}
	c.fail(c.rule.at(c.rule.tableAt), "PM403", message, why)
}

// sees says whether the rule is on one of the operations.
func (c *ruleCheck) sees(ops ...cdc.Op) bool {
	return slices.ContainsFunc(ops, func(op cdc.Op) bool { return slices.Contains(c.env.ops, op) })
}

func usable(t *cdc.Table) bool {
	switch t.Identity {
	case cdc.IdentityFull:
		return true
	case cdc.IdentityDefault, cdc.IdentityIndex:
		return slices.ContainsFunc(t.Columns, func(c cdc.Column) bool { return c.Key })
	case cdc.IdentityNothing:
	}
	return false
}

// carries checks that the stream can tell a column of the old row.
func (c *ruleCheck) carries(p Place, name string) {
	t := c.env.table
	i := t.Column(name)
	if i < 0 || c.blind || !c.sees(cdc.Update, cdc.Delete) || t.Identity == cdc.IdentityFull || t.Columns[i].Key || c.noticed[name] {
		return
	}
	if c.noticed == nil {
		c.noticed = make(map[string]bool)
	}
	c.noticed[name] = true
	if t.Partitioned {
		c.fail(p, "PM404", fmt.Sprintf("old.%s can never be known: of a partitioned table Postgres tells the key of the old row alone", name),
			"no REPLICA IDENTITY mends that: decide by new alone, or by a column that the application sets when it changes the row")
		return
	}
	c.fail(p, "PM404", fmt.Sprintf("old.%s can never be known: the replica identity of %s does not carry it", name, t.TableName),
		fmt.Sprintf("run: ALTER TABLE %s REPLICA IDENTITY FULL; (or USING INDEX, with a unique index that has the column and no NULL)", quoteTable(t.TableName)))
}

// columnName is an expression that is a column or a key alone.
var columnName = regexp.MustCompile(`^\s*(?:new|old|message)(?:\.\w+)+\s*$`)

func quoteTable(n cdc.TableName) string { return quoteName(n.Schema) + "." + quoteName(n.Name) }

func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// expr makes an expression's tree. A nil expression stays nil.
func (c *ruleCheck) expr(e *Expr, fits func(typ) bool, what, hint string) *Expr {
	if e == nil {
		return nil
	}
	t, problems := checkExpr(e.text.value, c.env)
	for _, p := range problems {
		c.fail(e.text.place(p.offset), p.id, p.message, p.hint)
	}
	for _, u := range t.uses {
		if u.side == oldRow {
			c.carries(e.text.place(u.offset), u.name)
		}
	}
	if len(problems) > 0 {
		return e
	}
	if !fits(t.typ) && hint == "" { // a condition
		if hint = "compare it with something"; columnName.MatchString(e.text.value) {
			hint += ", as in " + strings.TrimSpace(e.text.value) + " != nil"
		}
	}
	if !fits(t.typ) {
		c.fail(e.text.place(0), "PM116", fmt.Sprintf("this is %s, and must be %s", t.typ.name, what), hint)
	}
	return &Expr{text: e.text, tree: t, table: c.env.table}
}

// names checks the names of an expression that cannot be parsed, so that a mistake of its form hides none of these.
func (c *ruleCheck) names(t text) {
	tokens, err := lexer.Lex(file.NewSource(t.value))
	asks := slices.ContainsFunc(tokens, func(t lexer.Token) bool { return strings.EqualFold(t.Value, "select") }) // with names of its own
	if err != nil || c.env.table == nil || asks {
		return
	}
	expr := &check{env: c.env}
	for i, token := range tokens[:len(tokens)-1] {
		next := tokens[i+1]
		switch {
		case token.Kind != lexer.Identifier || i > 0 && dot(tokens[i-1]) || next.Is(lexer.Bracket, "("):
		case token.Value == "new" || token.Value == "old":
			if i+3 < len(tokens) && dot(next) && tokens[i+2].Kind == lexer.Identifier && (tokens[i+3].Kind != lexer.Identifier || habitual(tokens[i+3].Value)) {
				c.named(t, tokens[i+2], token.Value)
			}
		case c.env.table.Column(token.Value) >= 0 && !slices.Contains(expr.names(), token.Value) && !habitual(token.Value):
			c.fail(t.place(token.From), "PM104", "unknown name "+token.Value, expr.suggestName(token.Value))
		}
	}
}

// named checks a column of an expression that cannot be parsed.
func (c *ruleCheck) named(t text, column lexer.Token, row string) {
	if c.env.table.Column(column.Value) < 0 {
		c.fail(t.place(column.From), "PM105", fmt.Sprintf("the table %s has no column %s", c.env.table.TableName, column.Value), suggestColumn(column.Value, c.env.table, spelled(row)))
		return
	}
	if row == "old" {
		c.carries(t.place(column.From), column.Value)
	}
}

// addressable says whether a value can be an address or a list of them.
func (t typ) addressable() bool {
	return t.is(kindText, kindOpaque, kindJSON, kindNil) || t.kind == kindArray && t.elem.is(kindText, kindOpaque, kindJSON)
}

func (c *ruleCheck) recipients(sources []Recipients) []Recipients {
	checked := slices.Clone(sources)
	for i := range checked {
		checked[i].Expr = c.expr(checked[i].Expr, typ.addressable, "text or a list of texts", "an address comes from a column or key that holds one")
		c.sql(checked[i].Query, false)
	}
	return checked
}

func (c *ruleCheck) sender(s *Recipients) *Recipients {
	if s == nil {
		return nil
	}
	return &c.recipients([]Recipients{*s})[0]
}

// sql checks that a query's names are there.
func (c *ruleCheck) sql(q *SQL, loads bool) {
	if q == nil {
		return
	}
	for i, p := range q.Params {
		c.param(q.text.place(q.offsets[i]), p, loads)
	}
}

func (c *ruleCheck) param(at Place, p Param, loads bool) {
	name := "@" + p.Scope
	switch p.Scope {
	case "tick", "last_tick", "row":
		c.fail(at, "PM006", name+" belongs to scheduled rules, which this version of postman does not have yet", laterHint)
	case "to":
		if !loads {
			c.fail(at, "PM307", "@to is the recipient, whom this query is to find", "use @to in load")
		}
	case "message":
		if c.env.table != nil {
			c.fail(at, "PM307", "the rule is on a table: there is no message", "write "+sqlColumn("new", p.Name))
		}
	default: // new, old
		c.columnParam(at, p)
	}
}

func (c *ruleCheck) columnParam(at Place, p Param) {
	t := c.env.table
	switch {
	case t == nil:
		c.fail(at, "PM307", "the rule is on a message: there is no "+p.Scope, "write "+sqlColumn("message", p.Name))
	case t.Column(p.Name) < 0:
		c.fail(at, "PM306", fmt.Sprintf("the table %s has no column %s", t.TableName, p.Name), suggestColumn(p.Name, t, parameter(p.Scope)))
	case !slices.ContainsFunc(c.env.ops, func(op cdc.Op) bool { return hasRow(op, sideOf(p.Scope)) }):
		c.fail(at, "PM307", fmt.Sprintf("@%s.%s is always NULL: the rule is on %s", p.Scope, p.Name, list(opNames(c.env.ops), "and")),
			"an insert has a new row, a delete an old one, an update both")
	case p.Scope == "old":
		c.carries(at, p.Name)
	}
}

// ReadStored reads back what Rule.Source returned, for a [Set] whose tables are told by [Set.Bind]: what the rule asks of its table is
// checked there.
func ReadStored(source []byte) (*Rule, error) {
	s := new(Source)
	if errs := append(s.add("the stored rule", source), s.unite()...); len(errs) > 0 {
		return nil, fmt.Errorf("reading a stored rule: %w", errs)
	}
	if len(s.Rules) != 1 {
		return nil, fmt.Errorf("reading a stored rule: there are %d", len(s.Rules))
	}
	r := s.Rules[0]
	if r.On.Message == "" {
		return r, nil
	}
	checked, errs := r.check(nil, "", nil)
	if len(errs) > 0 {
		return nil, fmt.Errorf("reading a stored rule: %w", errs)
	}
	return checked, nil
}
