package cdc

import (
	"context"

	"postman/value"
)

// Rest reads again what a transaction has from a message on of which it was not known how many changes it is: with the tables that the
// stream had described by then, and from that message's ordinal on, so that each change that can be read by now is in its place. From the
// first message on that still cannot, it is as it was. The zero Rest is ready.
type Rest struct {
	decoder *decoder // nil: nothing has been described yet
	begun   bool
	yield   func(*Change, error) bool
	over    bool // yield wants no more
}

// describe takes note of how a table looks from here on.
func (r *Rest) describe(t *Table) {
	r.prepare()
	r.decoder.relations[t.OID], r.decoder.announced[t.OID], r.decoder.last = t, t, nil
}

func (r *Rest) prepare() {
	if r.decoder == nil {
		r.decoder = rereading(func(c *Change) error {
			r.over = r.over || !r.yield(c, nil)
			return nil
		})
		r.decoder.quarantine.certain = true
	}
}

// has says whether a change at rest is part of it.
func (r *Rest) has(b []byte, t *Table) bool {
	return r.begun || t == nil && len(b) >= 2 && b[0] == restUnread && !counted(b[2:])
}

// read yields what a change at rest is by now: none, one or several. False: nothing more is wanted.
func (r *Rest) read(ctx context.Context, b []byte, ordinal uint64, yield func(*Change, error) bool) bool {
	r.prepare()
	if !r.begun {
		r.begun, r.decoder.next = true, ordinal
	}
	if len(b) < 2 || b[0] != restUnread || envelope(b[2:]) {
		yield(nil, errJournal)
		return false
	}
	r.yield, r.over = yield, false
	if err := r.decoder.message(ctx, 0, b[2:]); err != nil {
		yield(nil, err)
		return false
	}
	return !r.over
}

// rereading is a decoder of messages of a transaction that has been stored: it knows no types but Postgres' own, and those of the tables
// that it is given.
func rereading(change func(*Change) error) *decoder {
	return &decoder{
		handler: rereader{change: change}, open: true, refuse: func(string) {},
		announced: make(map[uint32]*Table), relations: make(map[uint32]*Table), typeNames: make(map[uint32]string),
		resolve:    func(context.Context, uint32, []uint32) (map[uint32]value.Type, error) { return nil, nil },
		rolledBack: func(context.Context, []uint32) (bool, error) { return false, nil }, // what is kept was looked at
	}
}

// rereader is a Handler of changes alone.
type rereader struct {
	Handler
	change func(*Change) error
}

func (h rereader) Change(c *Change) error { return h.change(c) }

// Relation has nothing to do: the decoder knows the table.
func (h rereader) Relation(*Table) error { return nil }
