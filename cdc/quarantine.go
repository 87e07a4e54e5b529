package cdc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// A message that cannot be read may have been garbled on its way, so that it is asked for again, on a new connection. What comes
// the same way twice is what the server says: then the change is handed over unread, with its bytes, and the stream goes on. What
// decides is whether the places of all other changes are still known, since they are part of what identifies a mail:
//
//   - an insert, an update, a delete and a transactional message count as one change, however broken they are;
//   - of a truncate that is broken, of a description of a table and of an unknown kind of message nobody can say how many changes they
//     are, or what they do to those that follow: the rest of the transaction is handed over unread. Who reads it again, see [Rest], counts
//     on from there;
//   - Begin, Commit and Origin say what the transaction is and where the stream stands. Without them nothing can be confirmed: the
//     stream stops before them.
//
// All this is done where transactions come whole: a session that begins with a suspect asks for no transaction in progress.

// quarantine is what a decoder knows of messages that cannot be read.
type quarantine struct {
	// suspects are the messages that ended the last sessions.
	suspects []*DecodeError
	// certain says that it came again just so: this connection delivers what the server says.
	certain bool
	// rest says that the rest of the transaction has to be handed over unread.
	rest bool
	// described are the tables that the next change that is handed over tells of.
	described []*Table
	// relations are the descriptions of tables that could not be read, by OID: what comes of these tables cannot be, either.
	relations map[uint32][]byte
}

var errBehind = errors.New("it follows a message that could not be read, so that its place in the transaction is not known")

// sure says whether a message is broken for good.
func (q *quarantine) sure(e *DecodeError) bool {
	q.certain = q.certain || e.among(q.suspects)
	return q.certain
}

// mostSuspects bounds them. Each costs a session, and a network that garbles something else each time is no server's word.
const mostSuspects = 16

// among says whether one of the errors is of the same message.
func (e *DecodeError) among(others []*DecodeError) bool {
	return slices.ContainsFunc(others, func(o *DecodeError) bool { return e.LSN == o.LSN && bytes.Equal(e.Message, o.Message) })
}

// envelope says whether a message tells of its transaction, and not of what is in it.
func envelope(b []byte) bool { return len(b) > 0 && bytes.IndexByte([]byte("BCO"), b[0]) >= 0 }

// isolate hands over a message of the open transaction that cannot be read.
func (d *decoder) isolate(ctx context.Context, b []byte, cause error) error {
	q, c := &d.quarantine, Change{Op: Emit, Err: cause, Raw: b}
	switch {
	case q.rest:
		if described, err := d.describes(ctx, b); described || err != nil {
			return err
		}
	case counted(b):
		d.attribute(&c)
	case len(b) > 0 && b[0] == 'Y':
		return nil // a type's name, for the case that the catalog does not know the type any more
	default:
		q.rest = true
		d.forget(b)
		q.described = slices.SortedFunc(maps.Values(d.relations), func(a, b *Table) int { return cmp.Compare(a.OID, b.OID) })
	}
	c.Described, q.described = q.described, nil
	d.change, d.change.Ordinal = c, d.next
	d.next++
	if d.skip {
		return nil
	}
	return handled(d.handler.Change(&d.change))
}

// counted says whether a message is one change for sure.
func counted(b []byte) bool {
	switch {
	case len(b) == 0:
		return false
	case b[0] == 'M':
		return len(b) > 1 && b[1] == 1
	}
	return b[0] == 'I' || b[0] == 'U' || b[0] == 'D'
}

// attribute notes what the message of one change tells of it.
func (d *decoder) attribute(c *Change) {
	ops := map[byte]Op{'I': Insert, 'U': Update, 'D': Delete}
	op, row := ops[c.Raw[0]]
	if !row {
		return
	}
	c.Op = op
	if len(c.Raw) >= 5 {
		oid := binary.BigEndian.Uint32(c.Raw[1:])
		if c.Table = d.relations[oid]; c.Table == nil {
			c.Relation = d.quarantine.relations[oid]
		}
	}
}

// describes takes in what a message says of tables and types, so that the session's next transaction can be read, and says whether it
// could.
func (d *decoder) describes(ctx context.Context, b []byte) (bool, error) {
	if len(b) == 0 || b[0] != 'R' && b[0] != 'Y' {
		return false, nil
	}
	err := d.dispatch(ctx, b)
	if _, ok := errors.AsType[protocolError](err); ok {
		d.forget(b)
		return false, nil
	}
	if err == nil && b[0] == 'R' {
		d.quarantine.described = append(d.quarantine.described, d.relations[binary.BigEndian.Uint32(b[1:])])
	}
	return err == nil, err
}

// forget keeps changes from being read by a description of their table that has been replaced by one that cannot be read.
func (d *decoder) forget(b []byte) {
	d.last = nil
	if len(b) < 5 {
		clear(d.relations)
	} else if b[0] == 'R' {
		oid := binary.BigEndian.Uint32(b[1:])
		delete(d.relations, oid)
		if d.quarantine.relations == nil {
			d.quarantine.relations = make(map[uint32][]byte)
		}
		d.quarantine.relations[oid] = bytes.Clone(b)
	}
}
