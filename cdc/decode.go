package cdc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"postman/position"
	"postman/value"
)

// decoder turns the messages of one session into calls of a handler. It copies and allocates nothing for a change.
// ("Logical Replication Message Formats" in the Postgres documentation.)
type decoder struct {
	handler Handler
	// done is the end of the last transaction that was handed over, in this session or one before: what commits before it
	// is not handed over again.
	done position.LSN
	// announced are the tables that the handler knows, by OID. It outlives the session.
	announced map[uint32]*Table
	// resolve finds the types that are not Postgres' own, for a transaction that has just committed, or for xid 0 those that are
	// to be seen now.
	resolve func(ctx context.Context, xid uint32, oids []uint32) (map[uint32]value.Type, error)
	// rolledBack says whether one of some subtransactions was, of a transaction that has committed.
	rolledBack func(ctx context.Context, xids []uint32) (bool, error)
	// refuse takes note of a message that no transaction carries.
	refuse func(prefix string)

	relations map[uint32]*Table // as this session described them, and announced
	last      *Table            // the relation of the last change: rows of a table come in runs
	typeNames map[uint32]string // as Type messages gave them

	tx     Tx
	open   bool // between Begin and Commit
	untold bool // the handler's Begin waits for the transaction's origin, which comes next if it has one
	skip   bool // the open transaction was handed over before
	change Change
	next   uint64 // ordinal

	streams map[uint32]*streamed // transactions in progress, by their number
	block   *streamed            // the one whose block is open; nil: none
	sub     uint32               // the subtransaction of the message in hand, in a block

	quarantine quarantine
}

// Errors of the protocol; message wraps them in a DecodeError.
var (
	errShort    = errors.New("the message is cut short")
	errLong     = errors.New("the message goes on behind its end")
	errKind     = errors.New("a row or message of an unknown kind")
	errOutside  = errors.New("a change outside of a transaction")
	errNested   = errors.New("a transaction within a transaction")
	errRelation = errors.New("a change of a relation that was not described")
	errColumns  = errors.New("the row has not the columns of its relation")
	errBlock    = errors.New("a first block of a transaction that is known, or a later one of one that is not")
)

// handlerError keeps an error of the handler apart from all others.
type handlerError struct{ error }

func (e handlerError) Unwrap() error { return e.error }

func handled(err error) error {
	if err == nil {
		return nil
	}
	return handlerError{err}
}

// message reads one pgoutput message and tells the handler of it. It returns a handlerError, a DecodeError, or
// what resolve returned.
func (d *decoder) message(ctx context.Context, lsn position.LSN, b []byte) error {
	err := d.begun(b)
	if err == nil && d.quarantine.rest && !envelope(b) {
		err = d.isolate(ctx, b, errBehind)
	} else if err == nil {
		err = d.dispatch(ctx, b)
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[protocolError](err); !ok {
		return err
	}
	broken := &DecodeError{LSN: lsn, Message: bytes.Clone(b), Err: err}
	if d.open {
		broken.Commit = d.tx.Commit
	} else if d.block != nil {
		broken.XID = d.block.xid
	}
	if d.quarantine.sure(broken) && d.open && !envelope(b) {
		return d.isolate(ctx, b, err)
	}
	return broken
}

// begun tells the handler of a transaction once its origin is known.
func (d *decoder) begun(b []byte) error {
	if !d.untold || len(b) > 0 && b[0] == 'O' {
		return nil
	}
	d.untold = false
	return handled(d.handler.Begin(d.tx))
}

// protocolError marks what is wrong with the message itself.
type protocolError struct{ error }

func (e protocolError) Unwrap() error { return e.error }

func malformed(err error) error { return protocolError{err} }

func (d *decoder) dispatch(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return malformed(errShort)
	}
	r := reader{b: b[1:]}
	if d.block != nil && prefixed(b[0]) {
		d.sub = r.u32()
	}
	switch b[0] {
	case 'I':
		return d.insert(&r)
	case 'U':
		return d.update(&r)
	case 'D':
		return d.delete(&r)
	case 'T':
		return d.truncate(&r)
	case 'M':
		return d.emit(&r)
	case 'B':
		return d.begin(&r)
	case 'C':
		return d.commit(&r)
	case 'R':
		return d.relation(ctx, &r)
	case 'Y':
		return d.typ(&r)
	case 'O':
		return d.origin(&r)
	case 'S':
		return d.streamStart(&r)
	case 'E':
		return d.streamStop(&r)
	case 'A':
		return d.streamAbort(&r)
	case 'c':
		return d.streamCommit(ctx, &r)
	}
	return malformed(fmt.Errorf("a message of the unknown kind %q", b[0]))
}

// prefixed says whether messages of a kind begin with the number of their subtransaction, in a block.
func prefixed(kind byte) bool {
	switch kind {
	case 'I', 'U', 'D', 'T', 'M', 'R', 'Y':
		return true
	}
	return false
}

func (d *decoder) begin(r *reader) error {
	tx := Tx{Commit: position.LSN(r.u64()), Time: pgTime(r.u64()), XID: r.u32()}
	if err := r.end(); err != nil {
		return err
	}
	if d.open || d.block != nil {
		return malformed(errNested)
	}
	d.tx, d.next, d.open, d.skip = tx, 0, true, tx.Commit < d.done
	d.untold, d.quarantine.rest = !d.skip, false
	return nil
}

// origin is the replication origin that a transaction was replayed from. It comes first in its transaction.
func (d *decoder) origin(r *reader) error {
	r.u64() // the commit's LSN on the origin
	name := r.cstring()
	if err := r.end(); err != nil {
		return err
	}
	switch {
	case d.block != nil:
		d.block.origin = string(name)
	case d.open:
		d.tx.Origin = string(name)
	default:
		return malformed(errOutside)
	}
	return nil
}

func (d *decoder) commit(r *reader) error {
	r.u8() // flags: unused
	commit, end := position.LSN(r.u64()), position.LSN(r.u64())
	r.u64() // the time, which Begin told
	if err := r.end(); err != nil {
		return err
	}
	if !d.open {
		return malformed(errOutside)
	}
	if commit != d.tx.Commit || end <= commit {
		return malformed(fmt.Errorf("the transaction was to commit at %s, and does from %s to %s", d.tx.Commit, commit, end))
	}
	d.open, d.quarantine.rest = false, false
	if d.skip {
		return nil
	}
	d.tx.End = end
	if err := d.handler.Commit(d.tx); err != nil {
		return handled(err)
	}
	d.done = end
	return nil
}

func (d *decoder) insert(r *reader) error {
	t, err := d.table(r.u32())
	if err != nil {
		return err
	}
	d.change = Change{Op: Insert, Table: t}
	r.expect(r.u8() == 'N')
	d.change.New = r.tuple(t)
	return d.yield(r)
}

func (d *decoder) update(r *reader) error {
	t, err := d.table(r.u32())
	if err != nil {
		return err
	}
	d.change = Change{Op: Update, Table: t}
	kind := r.u8()
	if kind == 'K' || kind == 'O' {
		d.change.Old, d.change.OldKey = r.tuple(t), kind == 'K'
		kind = r.u8()
	}
	r.expect(kind == 'N')
	d.change.New = r.tuple(t)
	return d.yield(r)
}

func (d *decoder) delete(r *reader) error {
	t, err := d.table(r.u32())
	if err != nil {
		return err
	}
	kind := r.u8()
	r.expect(kind == 'K' || kind == 'O')
	d.change = Change{Op: Delete, Table: t, Old: r.tuple(t), OldKey: kind == 'K'}
	return d.yield(r)
}

// truncate makes one change of each table that one TRUNCATE names or reaches.
func (d *decoder) truncate(r *reader) error {
	n := r.u32()
	r.u8() // CASCADE, RESTART IDENTITY
	oids := r.take(4 * int64(n))
	if err := r.end(); err != nil {
		return err
	}
	if n == 0 {
		return malformed(errShort)
	}
	for rest := oids; len(rest) > 0; rest = rest[4:] { // all of them before the first is handed over
		if _, err := d.table(binary.BigEndian.Uint32(rest)); err != nil {
			return err
		}
	}
	for ; len(oids) > 0; oids = oids[4:] {
		t, err := d.table(binary.BigEndian.Uint32(oids))
		if err != nil {
			return err
		}
		d.change = Change{Op: Truncate, Table: t}
		if err := d.yield(r); err != nil {
			return err
		}
	}
	return nil
}

// emit is a message of pg_logical_emit_message. One that is not transactional may come though its transaction was rolled
// back, and has no place in the order of commits: it is refused.
func (d *decoder) emit(r *reader) error {
	flags := r.u8()
	r.expect(flags <= 1)
	r.u64() // its LSN
	prefix := r.cstring()
	content := r.take(int64(r.u32()))
	if flags == 0 {
		if err := r.end(); err != nil {
			return err
		}
		d.refuse(string(prefix))
		return nil
	}
	if !d.open && d.block == nil {
		return malformed(errOutside)
	}
	d.change = Change{Op: Emit, Prefix: string(prefix), Content: content}
	return d.yield(r)
}

// yield hands the change over, once its message was read to the end.
func (d *decoder) yield(r *reader) error {
	if err := r.end(); err != nil {
		return err
	}
	if d.block != nil {
		d.change.Ordinal = d.block.add(d.sub, d.change.Op)
		err := d.handler.Change(&d.change)
		if errors.Is(err, ErrLater) {
			return &wholeError{d.block.xid, err}
		}
		return handled(err)
	}
	d.change.Ordinal = d.next
	d.next++
	if d.skip {
		return nil
	}
	return handled(d.handler.Change(&d.change))
}

// table is the relation that a change names.
func (d *decoder) table(oid uint32) (t *Table, err error) {
	switch {
	case !d.open && d.block == nil:
		return nil, malformed(errOutside)
	case d.last != nil && d.last.OID == oid: // the ends of a block forget it
		return d.last, nil
	case d.block != nil:
		known := d.block.relations[oid]
		if known == nil {
			return nil, malformed(errRelation)
		}
		known.first = min(known.first, d.block.next)
		t = known.Table
	default:
		if t = d.relations[oid]; t == nil {
			return nil, malformed(errRelation)
		}
	}
	d.last = t
	return t, nil
}

// typ keeps the name of a type, for the case that the catalog does not know it any more.
func (d *decoder) typ(r *reader) error {
	oid, schema, name := r.u32(), r.cstring(), r.cstring()
	if err := r.end(); err != nil {
		return err
	}
	d.typeNames[oid] = TableName{Schema: string(schema), Name: string(name)}.String()
	return nil
}

// relation takes a table's description, and announces the table if it is new or differs from what the handler knows.
func (d *decoder) relation(ctx context.Context, r *reader) error {
	t, err := parseRelation(r)
	if err != nil {
		return err
	}
	if d.block != nil {
		return d.describe(ctx, t)
	}
	if _, err := d.fillTypes(ctx, t, d.tx.XID); err != nil {
		return err
	}
	for _, s := range d.streams {
		if old := s.relations[t.OID]; old != nil {
			old.passed = true
		}
	}
	d.last = nil
	delete(d.quarantine.relations, t.OID)
	return d.announce(t)
}

// parseRelation reads a Relation message. Its columns' types are OIDs alone.
func parseRelation(r *reader) (*Table, error) {
	t := &Table{OID: r.u32()}
	t.Schema, t.Name = string(r.cstring()), string(r.cstring())
	if t.Schema == "" { // pgoutput leaves pg_catalog out
		t.Schema = "pg_catalog"
	}
	identity, err := parseIdentity(string(r.take(1)))
	if err != nil {
		return nil, malformed(err)
	}
	t.Identity = identity
	for range r.u16() {
		var c Column
		c.Key = r.u8()&1 != 0
		c.Name = string(r.cstring())
		c.Type.OID = r.u32()
		r.u32() // the type's modifier: the text form does not depend on it
		if r.err != nil {
			break
		}
		t.Columns = append(t.Columns, c)
	}
	return t, r.end()
}

// announce makes a table the session's, and tells the handler of it if it is new or differs from what it knows.
func (d *decoder) announce(t *Table) error {
	if known := d.announced[t.OID]; known != nil && same(known, t) {
		d.relations[t.OID] = known
		return nil
	}
	if err := d.handler.Relation(t); err != nil {
		return handled(err)
	}
	d.relations[t.OID], d.announced[t.OID] = t, t
	return nil
}

func same(a, b *Table) bool { return a == b || bytes.Equal(a.Shape(), b.Shape()) }

// fillTypes resolves the types of a table's columns, as the transaction sees them that has just committed; 0: as everybody does now.
// Those that are not found are text under the name that a Type message gave.
func (d *decoder) fillTypes(ctx context.Context, t *Table, xid uint32) (all bool, err error) {
	var unknown []uint32
	for _, c := range t.Columns {
		if c.Type.OID >= firstUserOID {
			unknown = append(unknown, c.Type.OID)
		}
	}
	var types map[uint32]value.Type
	if len(unknown) > 0 {
		if types, err = d.resolve(ctx, xid, unknown); err != nil {
			return false, err
		}
	}
	return d.nameTypes(t, types), nil
}

// nameTypes gives a table's columns the types that are known, and says whether those are all.
func (d *decoder) nameTypes(t *Table, types map[uint32]value.Type) (all bool) {
	all = true
	for i := range t.Columns {
		typ := &t.Columns[i].Type
		resolved, ok := types[typ.OID]
		switch {
		case ok:
			*typ = resolved
		case typ.OID < firstUserOID:
			*typ = builtin(typ.OID)
		default: // dropped since, or not to be seen yet
			*typ = value.Type{OID: typ.OID, Base: typ.OID, Name: cmp.Or(d.typeNames[typ.OID], value.TypeName(typ.OID))}
			all = false
		}
	}
	return all
}
