package rules

import (
	"fmt"

	"postman/cdc"
	"postman/value"
)

// side is the new or the old row of a change.
type side uint8

const (
	newRow side = iota
	oldRow
)

func (s side) String() string { return [...]string{"new", "old"}[s] }

func sideOf(row string) side {
	if row == "old" {
		return oldRow
	}
	return newRow
}

// hasRow says whether an operation has a new or an old row. The one that it has not is a row of NULLs.
func hasRow(op cdc.Op, s side) bool {
	return op == cdc.Update || op == cdc.Insert && s == newRow || op == cdc.Delete && s == oldRow
}

// absent is the value of what cannot be known: Kleene's third value, and any value that depends on one. It is not NULL.
type absent struct {
	column string // new.note
	err    error  // why the value could not be read; nil: the stream does not carry it
}

// frame is what an expression is evaluated on: one change, whose columns are decoded when they are first asked for.
// It is used again for the next change.
type frame struct {
	tx     cdc.Tx
	early  bool // it was asked for the time of a commit that has not been read
	op     cdc.Op
	table  *cdc.Table
	change *cdc.Change // nil when rows holds the final values
	rows   [2][]value.Datum
	walked [2]bool  // the change's tuple was walked into rows
	broken [2]error // why it could not be
	cells  [2][]cell
	serial uint64 // of the change: a cell or scalar of another one is empty

	scalars [2][]scalarCell // of a plan's frame

	message any // a message's content, or an *absent
	element any // the array's element that a predicate is tried on
}

type cell struct {
	serial uint64
	value  any
}

type scalarCell struct {
	serial uint64
	scalar
}

// newFrame is a frame for changes of a table.
func newFrame(t *cdc.Table) (f frame) {
	for s := range f.rows {
		f.rows[s] = make([]value.Datum, 0, len(t.Columns))
		f.cells[s] = make([]cell, len(t.Columns))
		f.scalars[s] = make([]scalarCell, len(t.Columns))
	}
	return f
}

// begin takes a change in.
func (f *frame) begin(tx cdc.Tx, c *cdc.Change) {
	f.tx, f.op, f.table, f.change = tx, c.Op, c.Table, c
	f.walked, f.broken = [2]bool{}, [2]error{}
	f.serial++
}

// row finds the columns in one of the change's tuples: all of the table's, or none where there is no tuple.
func (f *frame) row(s side) ([]value.Datum, error) {
	if f.change == nil || f.walked[s] {
		return f.rows[s], f.broken[s]
	}
	f.walked[s] = true
	tuple := [2]cdc.Tuple{f.change.New, f.change.Old}[s]
	due := len(tuple) > 0 || s == newRow && (f.op == cdc.Insert || f.op == cdc.Update)
	row, err := tuple.Datums(f.rows[s][:0])
	if n := len(row); err == nil && due && n != len(f.table.Columns) {
		err = fmt.Errorf("a row of %d columns in a table of %d", n, len(f.table.Columns))
	}
	if err != nil {
		row, f.broken[s] = row[:0], fmt.Errorf("reading the %s row: %w", s, err)
	}
	f.rows[s] = row
	return row, f.broken[s]
}

// datum is a column's value as far as the stream tells it. See docs/rules.md, "What the stream does not carry".
func (f *frame) datum(s side, i int) (value.Datum, error) {
	switch {
	case f.change == nil:
		return f.rows[s][i], nil
	case s == newRow:
		return f.newDatum(i)
	}
	return f.oldDatum(i)
}

func (f *frame) newDatum(i int) (value.Datum, error) {
	if !hasRow(f.op, newRow) {
		return value.Datum{State: value.Null}, nil
	}
	row, err := f.row(newRow)
	if err != nil {
		return value.Datum{}, err
	}
	if row[i].State != value.Unavailable {
		return row[i], nil
	}
	old, err := f.row(oldRow)
	if f.carried(old, i) { // an unchanged TOAST value is as it was
		return old[i], err
	}
	return row[i], err
}

func (f *frame) oldDatum(i int) (value.Datum, error) {
	if !hasRow(f.op, oldRow) {
		return value.Datum{State: value.Null}, nil
	}
	row, err := f.row(oldRow)
	switch {
	case err != nil:
		return value.Datum{}, err
	case f.carried(row, i):
		return row[i], nil
	case f.keyKept(row, i):
		return f.newDatum(i)
	}
	return value.Datum{State: value.Unavailable}, nil
}

// carried says whether the change's old row has the column. What a row of the identity's columns says of the others
// means nothing.
func (f *frame) carried(old []value.Datum, i int) bool {
	return i < len(old) && (!f.change.OldKey || f.table.Columns[i].Key)
}

// keyKept says whether the column belongs to the replica identity and did not change: an update that changes none of
// the identity's columns sends no old row. (With REPLICA IDENTITY FULL there always is one.)
func (f *frame) keyKept(old []value.Datum, i int) bool {
	return f.op == cdc.Update && len(old) == 0 && f.table.Columns[i].Key && f.table.Identity != cdc.IdentityFull
}

// value is a column's decoded value, or an *absent.
func (f *frame) value(c *column) any {
	cell := &f.cells[c.side][c.index]
	if cell.serial != f.serial {
		cell.serial, cell.value = f.serial, f.decode(c)
	}
	return cell.value
}

// scalar is a column's value in its canonical form. Its text aliases the change.
func (f *frame) scalar(c *column) *scalar {
	cell := &f.scalars[c.side][c.index]
	if cell.serial != f.serial {
		cell.serial = f.serial
		f.fill(&cell.scalar, c)
	}
	return &cell.scalar
}

func (f *frame) fill(s *scalar, c *column) {
	d, err := f.datum(c.side, c.index)
	switch {
	case err != nil || d.State == value.Unavailable || d.State == value.Blanked:
		s.state = stateAbsent
		return
	case d.State == value.Null:
		s.state = stateNull
		return
	case c.form == formOther:
		s.state = stateOdd
		return
	case s.read(c.form, d.Text):
		return
	}
	v, err := value.Decode(c.base, d)
	switch {
	case err != nil:
		s.state = stateAbsent
	case !s.set(c.form, v):
		s.state = stateOdd
	}
}

func (f *frame) decode(c *column) any {
	d, err := f.datum(c.side, c.index)
	if err != nil {
		return &absent{c.absent.column, err}
	}
	switch d.State {
	case value.Null:
		return nil
	case value.Unavailable, value.Blanked:
		return c.absent
	case value.Present:
	}
	if c.form == formText {
		return string(d.Text)
	}
	v, err := value.Decode(c.base, d)
	if err != nil {
		return &absent{c.absent.column, fmt.Errorf("column %s: %w", c.absent.column, err)}
	}
	return v
}

// unchanged says that a column cannot have changed, as far as that is seen without decoding: its TOAST value was not sent
// again, no column of the identity changed, or both texts are the same.
func (f *frame) unchanged(i int) bool {
	if f.change == nil || f.op != cdc.Update {
		return false
	}
	now, err1 := f.row(newRow)
	then, err2 := f.row(oldRow)
	switch {
	case err1 != nil || err2 != nil:
		return false
	case now[i].State == value.Unavailable || f.keyKept(then, i):
		return true
	case !f.carried(then, i):
		return false
	}
	return now[i].State == then[i].State && (now[i].State == value.Null ||
		now[i].State == value.Present && string(now[i].Text) == string(then[i].Text))
}
