package daemon

import (
	"context"
	"fmt"
	"time"

	"postman/cdc"
	"postman/outbox"
)

// A transaction that matches goes into the journal at once, in a block of its own. Such blocks pack badly, and there are many: a
// little later they are joined.
const (
	joinAfter = time.Minute // that a transaction is left alone
	joinUnder = 32 << 10    // packed bytes, from which on a block is left as it is
)

// joining joins small blocks of the journal, from where the daemon began on.
type joining struct {
	store  outbox.Store
	source outbox.Source
	done   outbox.JournalPlace // all before is as it stays
	run    outbox.Block        // of blocks that were read one behind the other
	blocks int                 // how many
	block  []byte              // their content, unsealed
}

// join joins what committed before a time.
func (j *joining) join(ctx context.Context, before time.Time) error {
	j.forget()
	q := outbox.JournalQuery{Source: j.source.ID, Epoch: j.source.Epoch, After: j.done, Limit: 16}
	for {
		pieces, err := j.store.Journal(ctx, q)
		if err != nil {
			return err
		}
		for i := range pieces {
			p := &pieces[i]
			if !p.To.Before(before) {
				return j.close(ctx)
			}
			if err := j.add(ctx, p); err != nil {
				return err
			}
			q.After = p.Place
		}
		if len(pieces) < q.Limit {
			return j.close(ctx)
		}
	}
}

// add puts a piece into the run, or ends the run with it.
func (j *joining) add(ctx context.Context, p *outbox.Piece) error {
	if p.Tx != nil || len(p.Data) >= joinUnder {
		err := j.close(ctx)
		j.done = p.Place
		return err
	}
	block, err := cdc.UnsealBlock(nil, p.Data)
	if err != nil {
		return fmt.Errorf("reading the journal of %s: %w", p.Last, err)
	}
	if j.blocks == 0 {
		j.run = outbox.Block{First: p.First, From: p.From}
	}
	j.blocks++
	j.run.Last, j.run.To = p.Last, p.To
	j.run.Transactions, j.run.Changes = j.run.Transactions+p.Transactions, j.run.Changes+p.Changes
	j.block = cdc.JoinBlocks(j.block, block)
	if len(j.block) >= blockSize {
		return j.close(ctx)
	}
	return nil
}

// close stores the run, if it joins anything.
func (j *joining) close(ctx context.Context) error {
	if j.blocks == 0 {
		return nil
	}
	var err error
	if j.blocks > 1 {
		j.run.Data = cdc.SealBlock(j.block)
		err = j.store.JoinJournal(ctx, j.source.ID, j.source.Epoch, j.run)
	}
	if err == nil {
		j.done = outbox.JournalPlace{Commit: j.run.Last}
	}
	j.forget()
	return err
}

func (j *joining) forget() { j.run, j.blocks, j.block = outbox.Block{}, 0, nil }
