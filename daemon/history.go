package daemon

import (
	"context"
	"fmt"
	"iter"
	"sync"

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

// How much of the journal is in memory at a time: pieces as the store has them, and unpacked ones that wait to be read.
const (
	atOnce = 4
	ahead  = 2
)

// unpacked is a piece that is ready to be read.
type unpacked struct {
	outbox.Piece
	from  position.LSN // what committed before was read already
	block []byte
	err   error
}

// read yields what committed at positions from one to another, 0 being the end, in the order of commits. A large transaction comes in
// several sections with the same envelope, of which the last one says so. They alias memory that is used again for later ones. The
// next pieces are read and unpacked meanwhile.
func (h *history) read(ctx context.Context, from, to position.LSN) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		pieces, used := make(chan unpacked, ahead), make(chan []byte, ahead+2)
		var reading sync.WaitGroup
		reading.Go(func() {
			defer close(pieces)
			h.readAhead(ctx, outbox.JournalQuery{Source: h.source.ID, Epoch: h.source.Epoch, From: from, To: to, Limit: atOnce}, pieces, used)
		})
		defer reading.Wait()
		defer cancel()
		var rest cdc.Rest
		for p := range pieces {
			if p.err != nil {
				yield(section{}, p.err)
				return
			}
			if !p.sections(to, &rest, yield) {
				return
			}
			used <- p.block // there is room for all that are on their way
		}
		if ctx.Err() != nil {
			yield(section{}, context.Cause(ctx))
		}
	}
}

// readAhead unpacks piece after piece, into memory that was used before where there is any.
func (h *history) readAhead(ctx context.Context, q outbox.JournalQuery, pieces chan<- unpacked, used <-chan []byte) {
	send := func(p unpacked) bool {
		select {
		case pieces <- p:
			return p.err == nil
		case <-ctx.Done():
			return false
		}
	}
	for {
		page, err := h.store.Journal(ctx, q)
		if err != nil {
			send(unpacked{err: err})
			return
		}
		if len(page) == 0 {
			return
		}
		for i := range page {
			p := unpacked{Piece: page[i], from: q.From}
			var memory []byte
			select {
			case memory = <-used:
			default:
			}
			if p.block, err = cdc.UnsealBlock(memory, p.Data); err != nil {
				p.err = fmt.Errorf("reading the journal of %s: %w", p.Last, err)
			}
			if p.Data = nil; !send(p) {
				return
			}
			if p.Tx == nil || p.Final {
				q.From = p.Last + 1 // blocks may be joined meanwhile: what was read does not come again
			}
		}
		q.After = page[len(page)-1].Place
	}
}

// section is a transaction in the journal, or a part of a large one.
type section struct {
	cdc.Recorded
	final bool // nothing of the transaction follows
}

// sections yields those of the piece; false: nothing more is wanted.
func (p *unpacked) sections(to position.LSN, rest *cdc.Rest, yield func(section, error) bool) bool {
	for r, err := range cdc.Sections(p.block) {
		if err != nil {
			yield(section{}, fmt.Errorf("reading the journal of %s: %w", p.Last, err))
			return false
		}
		s := section{Recorded: r, final: p.Tx == nil || p.Final}
		s.Rest = rest
		if p.Tx != nil {
			s.Tx = cdc.Tx{XID: p.Tx.XID, Commit: p.Tx.LSN, End: p.Tx.End, Time: p.Tx.Time}
			s.Muted, s.N, s.Part = p.Tx.Muted, p.Changes, false
		}
		if s.Commit < p.from || to != 0 && s.Commit > to {
			continue
		}
		if !yield(s, nil) {
			return false
		}
	}
	return true
}
