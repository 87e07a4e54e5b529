package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"postman/position"
)

// streamed is what a session knows of a transaction that the server sends while it is still in progress, in blocks between
// Stream Start and Stream Stop. The server takes back what savepoints rolled back (Stream Abort), and says at last whether the rest
// was committed.
//
// What a subtransaction's end takes back is always a suffix of what was sent: while it lives, whatever its transaction does is
// done in it or in one that it began. So that changes are counted again from where it began, and an ordinal is the same
// however much of the transaction was sent before its end.
type streamed struct {
	xid    uint32
	origin string
	next   uint64 // ordinal
	// subs are the subtransactions that changed rows, in the order in which they got their numbers. Sixteen bytes each: a loop in
	// PL/pgSQL can make a million.
	subs []subtransaction
	// unowned are the messages of which nobody knows in which subtransaction they were emitted, as ranges of ordinals. Postgres sends
	// all of them under the number of the top transaction.
	unowned   []ordinals
	relations map[uint32]*described
}

type subtransaction struct {
	age   uint32 // its number less that of the top transaction: numbers wrap around
	first uint64 // ordinal of its first change
}

// ordinals are those from one up to another, which is not among them.
type ordinals struct{ from, to uint64 }

// described is a table as a transaction in progress sees it, which may have altered it.
type described struct {
	*Table
	first   uint64 // surviving change that it describes; unused: none
	partial bool   // some of its types are not to be seen before the commit
	passed  bool   // another transaction has described the table since
}

const unused = ^uint64(0)

// add counts a change of the subtransaction, or of the transaction itself.
func (s *streamed) add(xid uint32, op Op) (ordinal uint64) {
	ordinal = s.next
	s.next++
	if xid == s.xid {
		if op == Emit {
			s.addUnowned(ordinal)
		}
		return ordinal
	}
	age := xid - s.xid
	if last := len(s.subs) - 1; last >= 0 && s.subs[last].age == age {
		return ordinal
	}
	if at, known := s.find(age); !known {
		s.subs = slices.Insert(s.subs, at, subtransaction{age, ordinal})
	}
	return ordinal
}

func (s *streamed) addUnowned(ordinal uint64) {
	if last := len(s.unowned) - 1; last >= 0 && s.unowned[last].to == ordinal {
		s.unowned[last].to++
		return
	}
	s.unowned = append(s.unowned, ordinals{ordinal, ordinal + 1})
}

func (s *streamed) find(age uint32) (at int, known bool) {
	return slices.BinarySearchFunc(s.subs, age, func(t subtransaction, age uint32) int { return cmp.Compare(t.age, age) })
}

// cut forgets what a subtransaction did that was rolled back, and all that began after it: while it lived, only its own
// subtransactions got numbers. Sound is false if a message may or may not be part of it.
func (s *streamed) cut(xid uint32) (sound bool) {
	from, _ := s.find(xid - s.xid)
	for _, t := range s.subs[from:] {
		s.next = min(s.next, t.first)
	}
	s.subs = s.subs[:from]
	for len(s.unowned) > 0 && s.unowned[len(s.unowned)-1].from >= s.next {
		s.unowned = s.unowned[:len(s.unowned)-1]
	}
	for _, t := range s.relations {
		if t.first >= s.next {
			t.first = unused
		}
	}
	if len(s.unowned) == 0 {
		return true
	}
	last := &s.unowned[len(s.unowned)-1]
	last.to = min(last.to, s.next)
	return last.to < s.next
}

// ErrLater is what a [Handler] returns of a change that it cannot decide on before the commit: the transaction is handed over again,
// whole, once it has committed.
var ErrLater = errors.New("it cannot be decided before the commit")

// errUnowned: a savepoint was rolled back, and the message before it may have been emitted before the savepoint or behind it.
var errUnowned = errors.New("it rolled back a savepoint behind a logical message, and Postgres does not tell which came first")

// errUntold: Postgres takes nothing back of a subtransaction that it had on its own disk when it sent it for the first and only time, which happens to what
// was in progress when a session began (14 to 17, and likely 18: ReorderBufferTruncateTXN marks as streamed only those that have changes in memory).
var errUntold = errors.New("it rolled back a savepoint of which Postgres sent the changes, and said nothing")

// numbers are those of the subtransactions of which something is left.
func (s *streamed) numbers() []uint32 {
	all := make([]uint32, len(s.subs))
	for i, t := range s.subs {
		all[i] = s.xid + t.age
	}
	return all
}

// wholeError says that a transaction cannot be taken in while it is in progress. It has to be read again, after its end.
type wholeError struct {
	xid uint32
	why error
}

func (e *wholeError) Error() string {
	return fmt.Sprintf("transaction %d is in progress and is read again, whole, once it has committed: %v", e.xid, e.why)
}

// streamStart begins a block of changes of a transaction in progress.
func (d *decoder) streamStart(r *reader) error {
	xid := r.u32()
	first := r.u8()
	if err := r.end(); err != nil {
		return err
	}
	if d.open || d.block != nil {
		return malformed(errNested)
	}
	s := d.streams[xid]
	switch {
	case first > 1:
		return malformed(errKind)
	case (s == nil) != (first == 1):
		return malformed(errBlock)
	case s == nil:
		s = &streamed{xid: xid, relations: make(map[uint32]*described)}
		d.streams[xid] = s
	}
	d.block, d.last = s, nil
	return handled(d.handler.Stream(xid))
}

func (d *decoder) streamStop(r *reader) error {
	if err := r.end(); err != nil {
		return err
	}
	if d.block == nil {
		return malformed(errOutside)
	}
	d.block, d.last = nil, nil
	return nil
}

// streamAbort takes back a subtransaction, or all of the transaction.
func (d *decoder) streamAbort(r *reader) error {
	xid, sub := r.u32(), r.u32()
	if err := r.end(); err != nil {
		return err
	}
	if d.open || d.block != nil {
		return malformed(errNested)
	}
	s := d.streams[xid]
	if s == nil { // nothing was told of it
		return nil
	}
	if sub == xid {
		delete(d.streams, xid)
		return handled(d.handler.Rollback(xid, 0))
	}
	before := s.next
	if !s.cut(sub) {
		return &wholeError{xid, errUnowned}
	}
	if s.next == before {
		return nil
	}
	return handled(d.handler.Rollback(xid, s.next))
}

// streamCommit ends a transaction that was streamed. Its tables are the session's from here on: the server does not describe
// them again.
func (d *decoder) streamCommit(ctx context.Context, r *reader) error {
	tx := Tx{XID: r.u32()}
	r.u8() // flags: unused
	tx.Commit, tx.End, tx.Time = position.LSN(r.u64()), position.LSN(r.u64()), pgTime(r.u64())
	if err := r.end(); err != nil {
		return err
	}
	if d.open || d.block != nil {
		return malformed(errNested)
	}
	if tx.End <= tx.Commit {
		return malformed(fmt.Errorf("the transaction commits from %s to %s", tx.Commit, tx.End))
	}
	s := d.streams[tx.XID]
	delete(d.streams, tx.XID)
	known := tx.Commit < d.done // it was handed over before
	if s != nil && len(s.subs) > 0 && !known {
		if untold, err := d.rolledBack(ctx, s.numbers()); err != nil {
			return err
		} else if untold {
			return &wholeError{tx.XID, errUntold}
		}
	}
	if s != nil {
		tx.Origin = s.origin
		if err := d.adopt(ctx, s); err != nil {
			return err
		}
	}
	if known {
		return handled(d.handler.Rollback(tx.XID, 0))
	}
	d.tx = tx
	if err := d.handler.Commit(tx); err != nil {
		return handled(err)
	}
	d.done = tx.End
	return nil
}

// adopt makes the session's what a transaction saw of tables, and announces it. Of those that only served what was rolled back nothing
// is left: the server describes them again.
func (d *decoder) adopt(ctx context.Context, s *streamed) error {
	d.last = nil
	for _, oid := range slices.Sorted(maps.Keys(s.relations)) {
		t := s.relations[oid]
		if t.passed || t.first == unused {
			continue
		}
		if t.partial {
			whole := *t.Table
			whole.Columns = slices.Clone(t.Columns)
			if _, err := d.fillTypes(ctx, &whole, s.xid); err != nil {
				return err
			}
			t.Table = &whole
		}
		if known := d.announced[oid]; known == nil || !same(known, t.Table) { // announced as part of it
			if err := d.handler.Stream(s.xid); err != nil {
				return handled(err)
			}
		}
		if err := d.announce(t.Table); err != nil {
			return err
		}
	}
	return nil
}

// describe keeps how a table looks to the transaction whose block is open.
func (d *decoder) describe(ctx context.Context, t *Table) error {
	whole, err := d.fillTypes(ctx, t, 0)
	if err != nil {
		return err
	}
	if known := d.announced[t.OID]; known != nil && same(known, t) {
		t = known
	} else if before := d.block.relations[t.OID]; before != nil && same(before.Table, t) {
		t = before.Table // what is known by its address stays so
	}
	d.last = nil
	d.block.relations[t.OID] = &described{Table: t, first: unused, partial: !whole}
	return nil
}
