package daemon

import (
	"context"
	"fmt"
	"iter"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

// history reads the journal of a source. It needs neither the database nor a daemon that streams. One goroutine at a time.
type history struct {
	store  outbox.Store
	source outbox.Source
	tables map[[32]byte]*cdc.Table // by their shapes: equal ones are one table, whoever binds rules to it
}

func newHistory(store outbox.Store, source outbox.Source) *history {
	return &history{store: store, source: source, tables: make(map[[32]byte]*cdc.Table)}
}

// table is the table of a shape that the journal names.
func (h *history) table(ctx context.Context) func([32]byte) (*cdc.Table, error) {
	return func(shape [32]byte) (*cdc.Table, error) {
		if t, ok := h.tables[shape]; ok {
			return t, nil
		}
		text, err := h.store.Text(ctx, shape)
		if err != nil {
			return nil, fmt.Errorf("reading the shape of a table in the journal: %w", err)
		}
		t, err := cdc.ParseShape(text)
		if err != nil {
			return nil, err
		}
		h.tables[shape] = t
		return t, nil
	}
}

// atOnce is how many pieces of the journal are in memory at a time.
const atOnce = 4

// read yields what committed at positions from one to another, 0 being the end, in the order of commits. A large transaction comes in
// several sections with the same envelope, of which the last one says so. They alias memory that the next one uses.
func (h *history) read(ctx context.Context, from, to position.LSN) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		q := outbox.JournalQuery{Source: h.source.ID, Epoch: h.source.Epoch, From: from, To: to, Limit: atOnce}
		var block []byte
		for {
			pieces, err := h.store.Journal(ctx, q)
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(section{}, err)
				return
			}
			if len(pieces) == 0 {
				return
			}
			for i := range pieces {
				var more bool
				p := &pieces[i]
				if block, more = h.piece(p, block, q, yield); !more {
					return
				}
				if p.Tx == nil || p.Final {
					q.From = p.Last + 1 // blocks may be joined meanwhile: what was read does not come again
				}
			}
			q.After = pieces[len(pieces)-1].Place
		}
	}
}

// section is a transaction in the journal, or a part of a large one.
type section struct {
	cdc.Recorded
	final bool // nothing of the transaction follows
}

// piece yields the sections of a piece, and returns the memory that it used.
func (h *history) piece(p *outbox.Piece, memory []byte, q outbox.JournalQuery, yield func(section, error) bool) (_ []byte, more bool) {
	block, err := cdc.UnsealBlock(memory, p.Data)
	if err != nil {
		return memory, yield(section{}, fmt.Errorf("reading the journal of %s: %w", p.Last, err)) && false
	}
	for r, err := range cdc.Sections(block) {
		if err != nil {
			return block, yield(section{}, fmt.Errorf("reading the journal of %s: %w", p.Last, err)) && false
		}
		s := section{Recorded: r, final: p.Tx == nil || p.Final}
		if p.Tx != nil {
			s.Tx = cdc.Tx{XID: p.Tx.XID, Commit: p.Tx.LSN, End: p.Tx.End, Time: p.Tx.Time}
			s.Muted, s.N, s.Part = p.Tx.Muted, p.Changes, false
		}
		if s.Commit < q.From || q.To != 0 && s.Commit > q.To {
			continue
		}
		if !yield(s, nil) {
			return block, false
		}
	}
	return block, true
}
