package rules

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"postman/cdc"
	"postman/value"
)

// Thread says by what the mails of a rule stand together.
type Thread struct {
	PK    bool    // by the row's primary key
	Exprs []*Expr // or by these values, of which there is one at least

	key []string // the columns of the primary key; none: it is not known, as the stream does not tell it
}

// Standing is the thread that the mails about a change stand in.
type Standing struct {
	// Key is the same for two changes if and only if they are of one table, or messages of one name, and the rules' threads name the same
	// columns of it, in whatever order, and these have equal values. A column is the same one in the old row and in the new.
	Key  []byte
	Text string // for people: schedules, id 5
}

const threadForms = "pk or a list of expressions"

func (r *reader) readThread(rule *Rule, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		word, ok := r.scalar(n, threadForms)
		switch {
		case ok && word == "pk":
			rule.Thread = &Thread{PK: true}
		case ok:
			r.fail(n, "PM008", "this must be "+threadForms+", and is a single value", "write pk for the primary key, or put it in brackets: ["+word+"]")
		}
		return
	}
	t := new(Thread)
	for _, item := range r.items(n, threadForms) {
		if item.Kind == yaml.ScalarNode && item.Value == "pk" && !r.trapped[item] {
			r.fail(item, "PM008", "pk stands alone, and in no list", "write thread: pk")
			continue
		}
		if e := r.expr(item, "an expression"); e != nil {
			t.Exprs = append(t.Exprs, e)
		}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.fail(n, "PM008", "the list is empty", "name at least one value, as in [new.customer_id], or write pk")
	}
	if len(t.Exprs) > 0 {
		rule.Thread = t
	}
}

// single says whether it is one value that names something.
func (t typ) single() bool {
	return t.is(kindBool, kindWhole, kindNumber, kindText, kindOpaque, kindInstant, kindLocal, kindDay, kindBytes, kindJSON)
}

// thread checks by what the rule's mails stand together. That a table has no primary key, only the catalog tells: see [Rule.keyless].
func (c *ruleCheck) thread(t *Thread) *Thread {
	if t == nil {
		return nil
	}
	checked := *t
	if t.PK {
		checked.key = c.primaryKey()
		return &checked
	}
	checked.Exprs = slices.Clone(t.Exprs)
	for i, e := range t.Exprs {
		checked.Exprs[i] = c.expr(e, typ.single, "a single value", "name what holds one: a number, a text, a moment")
		c.sensitiveThread(checked.Exprs[i])
	}
	c.rowless(checked.Exprs)
	return &checked
}

// primaryKey are the columns of the table's primary key, as far as it is known.
func (c *ruleCheck) primaryKey() (key []string) {
	at := c.rule.Key("thread")
	if c.env.table == nil {
		c.fail(at, "PM021", "a message has no primary key", "name keys of it that tell what it is about: thread: [message.id]")
		return nil
	}
	for i := range c.env.table.Columns {
		column := &c.env.table.Columns[i]
		if !column.PK {
			continue
		}
		key = append(key, column.Name)
		if c.rule.Hides(column.Name) {
			c.fail(at, "PM022", fmt.Sprintf("the primary key has %s, which is sensitive", column.Name), erasedHint)
		}
		if c.sees(cdc.Delete) {
			c.carries(at, column.Name)
		}
	}
	if c.sees(cdc.Truncate) {
		c.fail(at, "PM021", "a truncate has no row, and so no primary key", "leave truncate out of ops, or make a rule of its own for it")
	}
	return key
}

// keyless says what is wrong with `thread: pk` of a table as the catalog knows it; nil: nothing.
func (r *Rule) keyless(t *cdc.Table) Errors {
	if r.Thread == nil || !r.Thread.PK || t == nil || slices.ContainsFunc(t.Columns, func(c cdc.Column) bool { return c.PK }) {
		return nil
	}
	return Errors{r.Mistake("PM021", r.Key("thread"), fmt.Sprintf("the table %s has no primary key", t.TableName), "name the columns that tell its rows apart: thread: [new.a, new.b]")}
}

const erasedHint = "it is erased once a mail is done, and what is made of it later would stand in another thread: name other columns"

// sensitiveThread refuses values that are erased.
func (c *ruleCheck) sensitiveThread(e *Expr) {
	for _, u := range e.tree.uses {
		if c.rule.Hides(u.name) {
			c.fail(e.text.place(u.offset), "PM022", fmt.Sprintf("%s.%s is sensitive", u.side, u.name), erasedHint)
		}
	}
	for _, key := range c.rule.Sensitive {
		if c.env.table == nil && hasWord(e.String(), key) {
			c.fail(e.text.place(0), "PM022", fmt.Sprintf("message.%s is sensitive", key), erasedHint)
		}
	}
}

// rowless refuses a list whose columns are all of a row that an operation has not: the mails about all of its changes would be one thread.
func (c *ruleCheck) rowless(list []*Expr) {
	var uses []use
	for _, e := range list {
		uses = append(uses, e.tree.uses...)
	}
	for _, op := range c.env.ops {
		known := slices.ContainsFunc(uses, func(u use) bool { return hasRow(op, u.side) })
		if len(uses) == 0 || known {
			continue
		}
		hint := "leave " + op.String() + " out of ops"
		if op != cdc.Truncate {
			hint = fmt.Sprintf("write thread: pk, or ['%s ?? %s']", exprColumn("new", uses[0].name), exprColumn("old", uses[0].name))
		}
		c.fail(list[0].text.place(0), "PM021", fmt.Sprintf("of %s %s, all of these values are NULL: the mails about all of them would stand in one thread", article(op), op), hint)
		return
	}
}

// Standing is the thread that the rule's mails about a change stand in; nil: each stands alone. The error names the value that is not known.
func (r *Rule) Standing(f *Facts) (_ *Standing, err error) {
	if r.Thread == nil {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("evaluating thread: %v", p)
		}
	}()
	of, text := []any{"table", r.On.Table.Schema, r.On.Table.Name}, []string{r.On.Table.String()}
	if r.On.Message != "" {
		of, text = []any{"message", r.On.Message}, []string{"message " + r.On.Message}
	}
	list, err := r.Thread.values(f)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(list))
	for i, v := range list {
		key, err := value.AppendKey(nil, []any{v.columns, v.value})
		if err != nil {
			return nil, err
		}
		keys[i], text = string(key), append(text, v.text+" "+shownValue(v.value))
	}
	slices.Sort(keys)
	key, err := value.AppendKey(nil, of)
	return &Standing{append(key, strings.Join(keys, "")...), strings.Join(text, ", ")}, err
}

// named is a value that a thread is told by.
type named struct {
	columns []any // that it is made of, in alphabetical order, whichever row they are of; of a message, the expression
	text    string
	value   any
}

func (t *Thread) values(f *Facts) ([]named, error) {
	if t.PK {
		return t.keyValues(f)
	}
	all := make([]named, len(t.Exprs))
	for i, e := range t.Exprs {
		v, err := e.single(f)
		if err != nil {
			return nil, err
		}
		all[i] = named{e.columns(), strings.TrimSpace(e.String()), v}
	}
	return all, nil
}

// keyValues are those of the primary key in the row as it is after the change, or as it was before a delete.
func (t *Thread) keyValues(f *Facts) (all []named, err error) {
	if len(t.key) == 0 {
		return nil, errors.New("the table's primary key is not known")
	}
	row := f.New
	if row == nil {
		row = f.Old
	}
	for _, name := range t.key {
		field, ok := row.Field(name)
		if !ok {
			return nil, fmt.Errorf("the change has no column %s", name)
		}
		v, err := value.Decode(field.Type.Base, field.Datum)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, named{[]any{name}, name, v})
	}
	return all, nil
}

// columns are those that an expression reads.
func (e *Expr) columns() []any {
	if e.table == nil {
		return []any{strings.TrimSpace(e.String())}
	}
	var names []string
	for _, u := range e.tree.uses {
		names = append(names, u.name)
	}
	slices.Sort(names)
	list := []any{}
	for _, name := range slices.Compact(names) {
		list = append(list, name)
	}
	return list
}

// single evaluates an expression on a change's facts.
func (e *Expr) single(f *Facts) (any, error) {
	frame, err := e.frame(f)
	if err != nil {
		return nil, err
	}
	v := e.tree.root.eval(frame)
	if x, ok := v.(*absent); ok {
		return nil, x.because(e)
	}
	return v, nil
}

// shownValue is a value for people.
func shownValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []byte:
		return `\x` + hex.EncodeToString(v)
	case *value.Decimal:
		return v.Text('f')
	}
	return fmt.Sprint(v)
}
