package cdc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"postman/value"
)

// A change at rest:
//
//	Byte1   1, the version of this form
//	Byte1   the operation
//	Byte1   flags, see below
//	Byten   the new tuple, then the old one, as far as the flags name them
//	or, of a message: Uvarint length, Byten prefix, and the content to the end
//
// A change that could not be read:
//
//	Byte1   2
//	Byte1   the operation
//	Byten   the message as it came, to the end
//
// and 4 without the message, where it was blanked.
//
// One of a table whose description could not be read, either:
//
//	Byte1   3
//	Byte1   the operation
//	Uvarint length, Byten: the description as it came
//	Byten   the message as it came, to the end
//
// Table, transaction and ordinal are kept beside it, not in it.
const (
	restVersion     = 1
	restUnread      = 2
	restUndescribed = 3
	restBlanked     = 4
)

const (
	restOldKey = 1 << iota
	restNew
	restOld
)

// AppendRest appends the change in the form that the store keeps. Columns that blank names (nil: none) are kept as
// blanked, and so are the top-level keys of a message's JSON object: a key that is blanked is left out, and a content
// that is no object is left out whole. So is a change that could not be read.
func (c *Change) AppendRest(dst []byte, blank func(column string) bool) []byte {
	switch {
	case c.Err != nil && blank != nil:
		return append(dst, restBlanked, byte(c.Op))
	case c.Err != nil && c.Relation != nil:
		dst = binary.AppendUvarint(append(dst, restUndescribed, byte(c.Op)), uint64(len(c.Relation)))
		return append(append(dst, c.Relation...), c.Raw...)
	case c.Err != nil:
		return append(append(dst, restUnread, byte(c.Op)), c.Raw...)
	}
	var flags byte
	if c.OldKey {
		flags |= restOldKey
	}
	if len(c.New) > 0 {
		flags |= restNew
	}
	if len(c.Old) > 0 {
		flags |= restOld
	}
	dst = append(dst, restVersion, byte(c.Op), flags)
	if c.Op == Emit {
		dst = binary.AppendUvarint(dst, uint64(len(c.Prefix)))
		dst = append(dst, c.Prefix...)
		return append(dst, blankContent(c.Content, blank)...)
	}
	dst = appendBlanked(dst, c.New, c.Table, blank)
	return appendBlanked(dst, c.Old, c.Table, blank)
}

func appendBlanked(dst []byte, t Tuple, table *Table, blank func(string) bool) []byte {
	if blank == nil || len(t) == 0 {
		return append(dst, t...)
	}
	// The tuple was walked when it was received, and has the columns of its table.
	datums, _ := t.Datums(make([]value.Datum, 0, len(table.Columns)))
	for i := range datums {
		if datums[i].State == value.Present && blank(table.Columns[i].Name) {
			datums[i] = value.Datum{State: value.Blanked}
		}
	}
	return appendTuple(dst, datums)
}

func blankContent(content []byte, blank func(string) bool) []byte {
	if blank == nil {
		return content
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(content, &object) != nil || object == nil {
		return nil
	}
	for key := range object {
		if blank(key) {
			delete(object, key)
		}
	}
	rest, err := json.Marshal(object)
	if err != nil {
		return nil
	}
	return rest
}

var errRest = errors.New("malformed stored change")

// ParseRest reads what [Change.AppendRest] wrote. The change aliases b; t is the table that it was written with, nil for a message.
func ParseRest(b []byte, t *Table) (*Change, error) {
	c := new(Change)
	if err := c.parseRest(b, t); err != nil {
		return nil, err
	}
	if c.Err != nil {
		return nil, c.Err
	}
	return c, nil
}

// parseRest is ParseRest into a change that is used again.
func (c *Change) parseRest(b []byte, t *Table) error {
	if len(b) >= 2 && b[0] >= restUnread && b[0] <= restBlanked {
		return c.parseUnread(b, t)
	}
	if len(b) < 3 {
		return errRest
	}
	if b[0] != restVersion {
		return fmt.Errorf("stored change: version %d is not known to this postman", b[0])
	}
	op, flags, rest := Op(b[1]), b[2], b[3:]
	*c = Change{Op: op, Table: t, OldKey: flags&restOldKey != 0}
	switch {
	case op > Emit || flags >= restOld<<1:
		return errRest
	case op == Emit:
		return c.parseMessage(rest, flags)
	case t == nil:
		return fmt.Errorf("stored change: a row's %s without its table", op)
	}
	var err error
	if c.New, rest, err = restTuple(rest, flags&restNew != 0, t); err != nil {
		return err
	}
	if c.Old, rest, err = restTuple(rest, flags&restOld != 0, t); err != nil {
		return err
	}
	if len(rest) > 0 {
		return errRest
	}
	return nil
}

var errBlanked = errors.New("a change that could not be read when it came, and was blanked")

// parseUnread reads a change that could not be read when it came.
func (c *Change) parseUnread(b []byte, t *Table) error {
	*c = Change{Op: Op(b[1]), Table: t}
	r := reader{b: b[2:]}
	switch b[0] {
	case restBlanked:
		c.Err = errBlanked
		return nil
	case restUndescribed:
		c.Relation = r.take(int64(r.uvarint()))
		if len(c.Relation) == 0 || c.Relation[0] != 'R' {
			return errRest
		}
	}
	c.Raw = r.b
	c.reread()
	return nil
}

// reread tries to read a message again that could not be read when it came: a later version may know how. Where that fails, Err
// says so.
func (c *Change) reread() {
	if !counted(c.Raw) {
		c.Err = fmt.Errorf("a message that could not be read when it came, and is no change of one row: it is of the kind %.1q", c.Raw)
		return
	}
	again := *c
	d := rereading(func(read *Change) error { again = *read; return nil })
	err := d.about(c)
	if err == nil {
		r := &reader{b: c.Raw[1:]}
		err = map[byte]func(*reader) error{'I': d.insert, 'U': d.update, 'D': d.delete, 'M': d.emit}[c.Raw[0]](r)
	}
	if err != nil {
		c.Err = fmt.Errorf("a change that could not be read when it came, and still cannot: %w", err)
		return
	}
	*c = again
}

// about has the decoder know the table of a change that could not be read.
func (d *decoder) about(c *Change) error {
	t := c.Table
	if c.Relation != nil {
		var err error
		if t, err = parseRelation(&reader{b: c.Relation[1:]}); err != nil {
			return err
		}
		d.nameTypes(t, nil)
	}
	if t != nil {
		d.relations[t.OID] = t
	}
	return nil
}

func (c *Change) parseMessage(b []byte, flags byte) error {
	n, size := binary.Uvarint(b)
	if flags != 0 || c.Table != nil || size <= 0 || n > uint64(len(b)-size) {
		return errRest
	}
	at := size + int(n)
	c.Prefix, c.Content = string(b[size:at]), b[at:]
	return nil
}

// restTuple takes a tuple from the beginning of b, if there is one.
func restTuple(b []byte, there bool, t *Table) (_ Tuple, rest []byte, err error) {
	if !there {
		return nil, b, nil
	}
	size, columns, err := tupleLen(b, true)
	if err != nil {
		return nil, nil, fmt.Errorf("stored change: %w", err)
	}
	if columns != len(t.Columns) {
		return nil, nil, fmt.Errorf("stored change: %d values for the %d columns of %s", columns, len(t.Columns), t)
	}
	return Tuple(b[:size:size]), b[size:], nil
}
