package rules

import (
	"fmt"
	"slices"

	"postman/cdc"
	"postman/value"
)

// Expr is an expression. It is safe for many goroutines.
type Expr struct {
	text  text
	tree  tree // empty in a Source
	table *cdc.Table
}

// node is the expression's root; nil of no expression.
func (e *Expr) node() node {
	if e == nil {
		return nil
	}
	return e.tree.root
}

// String is the expression as it was written.
func (e *Expr) String() string { return e.text.value }

// Shape is the shape of a table that changes were stored with, read once for all of them. It is immutable. The nil Shape is
// that of messages.
type Shape struct{ table *cdc.Table }

// ReadShape reads what cdc.Table.Shape wrote; nothing is the shape of a message.
func ReadShape(text []byte) (*Shape, error) {
	if len(text) == 0 {
		return nil, nil
	}
	t, err := cdc.ParseShape(text)
	if err != nil {
		return nil, fmt.Errorf("reading a stored shape: %w", err)
	}
	return &Shape{t}, nil
}

// Facts decodes a stored change: what cdc.Change.AppendRest wrote. Position, CommitTime and XID are the caller's to fill in.
//
// Rows have all columns of the table. One whose value the stream did not carry is unavailable; an unchanged TOAST value is
// taken from the old row where that has it.
func (s *Shape) Facts(change []byte) (*Facts, error) {
	var table *cdc.Table
	if s != nil {
		table = s.table
	}
	c, err := cdc.ParseRest(change, table)
	if err != nil {
		return nil, fmt.Errorf("reading a stored change: %w", err)
	}
	facts, err := factsOf(c)
	if err != nil {
		return nil, fmt.Errorf("reading a stored change: %w", err)
	}
	return facts, nil
}

// NewFacts are the facts of a change that has just come, but for its position.
func NewFacts(tx cdc.Tx, c *cdc.Change) (*Facts, error) {
	facts, err := factsOf(c)
	if err != nil {
		return nil, fmt.Errorf("reading a change: %w", err)
	}
	facts.CommitTime, facts.XID = tx.Time, tx.XID
	return facts, nil
}

func factsOf(c *cdc.Change) (facts *Facts, err error) {
	facts = &Facts{Op: c.Op.String()}
	if c.Op == cdc.Emit {
		facts.Prefix = c.Prefix
		if facts.Message, err = value.DecodeJSON(c.Content); err != nil {
			return nil, fmt.Errorf("the message's content is no JSON: %w", err)
		}
		return facts, nil
	}
	facts.Table = c.Table.String()
	var f frame
	f.begin(cdc.Tx{}, c)
	if c.Op == cdc.Insert || c.Op == cdc.Update {
		facts.New, err = f.fields(newRow)
	}
	if err == nil && (c.Op == cdc.Update || c.Op == cdc.Delete) {
		facts.Old, err = f.fields(oldRow)
	}
	return facts, err
}

// fields are all columns of a row.
func (f *frame) fields(s side) (_ value.Row, err error) {
	row := make(value.Row, len(f.table.Columns))
	for i := range row {
		row[i].Column = f.table.Columns[i].Column
		if row[i].Datum, err = f.datum(s, i); err != nil {
			return nil, err
		}
	}
	return row, nil
}

// Value evaluates an expression of to, cc, from or reply_to on a change's facts: a string, a []string (with "" for a NULL
// among its items), or nil for NULL. The error names a column that is not available, or says what is no text.
func (e *Expr) Value(f *Facts) (any, error) {
	frame, err := e.frame(f)
	if err != nil {
		return nil, err
	}
	return frame.text(e)
}

// text evaluates what must be text.
func (f *frame) text(e *Expr) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("evaluating %s: %v", e, p)
		}
	}()
	switch v := e.tree.root.eval(f).(type) {
	case nil, string:
		return v, nil
	case []any:
		return texts(e, v)
	case *absent:
		return nil, v.because(e)
	default:
		return nil, fmt.Errorf("evaluating %s: it is %s, and not text or a list of texts", e, valueName(v))
	}
}

// because says why an expression has no value.
func (x *absent) because(e *Expr) error {
	if x.err != nil {
		return fmt.Errorf("evaluating %s: %w", e, x.err)
	}
	return fmt.Errorf("evaluating %s: the value of %s is not available", e, x.column)
}

func texts(e *Expr, list []any) (any, error) {
	texts := make([]string, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok && v != nil {
			return nil, fmt.Errorf("evaluating %s: item %d is %s, and not text", e, i+1, valueName(v))
		}
		texts[i] = s
	}
	return texts, nil
}

// valueName says what a JSON value is.
func valueName(v any) string {
	switch v.(type) {
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	case *value.Decimal:
		return "a number"
	}
	return fmt.Sprintf("a %T", v)
}

// frame lays the facts out in the order of the columns that the expression was checked against. They are found by name: the
// table may have changed between.
func (e *Expr) frame(f *Facts) (*frame, error) {
	frame := &frame{table: e.table, message: f.Message, op: opOf(f.Op)}
	frame.tx.Time, frame.tx.XID = f.CommitTime, f.XID
	frame.serial = 1
	if e.table == nil {
		return frame, nil
	}
	for s := range frame.rows {
		frame.rows[s] = make([]value.Datum, len(e.table.Columns))
		frame.cells[s] = make([]cell, len(e.table.Columns))
	}
	for _, u := range e.tree.uses {
		row := [2]value.Row{f.New, f.Old}[u.side]
		field, ok := row.Field(u.name)
		if !ok && row != nil {
			return nil, fmt.Errorf("evaluating %s: the change has no column %s", e, u.name)
		}
		frame.rows[u.side][u.index] = field.Datum
	}
	return frame, nil
}

func opOf(name string) cdc.Op {
	for _, op := range slices.Concat(rowOps, []cdc.Op{cdc.Emit}) {
		if op.String() == name {
			return op
		}
	}
	return cdc.Insert
}
