package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"postman/outbox"
	"postman/position"
)

// gathering is the batch that gathers while the one before it is being stored: the slower a commit of the store, the
// more transactions share the next one. No timer delays a transaction, and what waits is bounded.
type gathering struct {
	source, epoch uint32

	mu      sync.Mutex
	changed sync.Cond // on mu
	batch   outbox.Batch
	weight  int  // of batch, in bytes
	storing bool // a batch is out of here and not durable yet
	closed  bool
	stored  position.LSN // the last checkpoint that is durable
	idled   time.Time    // when an idle position was last taken in
}

// What may wait in memory before the stream has to.
const (
	mostWeight   = 16 << 20 // bytes
	mostPerBatch = 20_000   // matches
	// idleEvery spaces the commits that only move an idle position: each is an fsync, and Postgres loses nothing by
	// keeping a second of WAL longer.
	idleEvery = time.Second
)

func newGathering(s outbox.Source) *gathering {
	g := &gathering{source: s.ID, epoch: s.Epoch, stored: s.Checkpoint}
	g.changed.L = &g.mu
	return g
}

// add appends a committed transaction, waiting while too much is waiting already. Transactions without a match only move
// the checkpoint.
func (g *gathering) add(t outbox.Transaction, texts map[outbox.Hash][]byte, gaps []outbox.Gap, bytes int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.closed && (g.weight > mostWeight || len(g.batch.Transactions) > mostPerBatch) {
		g.changed.Wait()
	}
	if g.closed {
		return errClosed
	}
	if len(t.Matches) > 0 || t.Spilled != nil {
		g.batch.Transactions = append(g.batch.Transactions, t)
		g.weight += bytes + 200*len(t.Matches)
	}
	for h, text := range texts {
		if g.batch.Texts == nil {
			g.batch.Texts = make(map[outbox.Hash][]byte)
		}
		g.batch.Texts[h] = text
	}
	for _, gap := range gaps {
		gap.Source, gap.Epoch = g.source, g.epoch
		g.batch.Gaps = append(g.batch.Gaps, gap)
	}
	g.advance(t.End)
	return nil
}

// idle moves the checkpoint to a position before which nothing is open, unless something is on its way to the store: then
// that will move it.
func (g *gathering) idle(lsn position.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.storing || g.batch.Checkpoint != 0 || lsn <= g.stored || time.Since(g.idled) < idleEvery {
		return
	}
	g.idled = time.Now()
	g.advance(lsn)
}

// advance is called with mu held.
func (g *gathering) advance(lsn position.LSN) {
	g.batch.Checkpoint = max(g.batch.Checkpoint, lsn)
	g.changed.Broadcast()
}

// next waits for a batch and takes it out; false: closed, and nothing is left.
func (g *gathering) next() (outbox.Batch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.batch.Checkpoint == 0 && !g.closed {
		g.changed.Wait()
	}
	if g.batch.Checkpoint == 0 {
		return outbox.Batch{}, false
	}
	b := g.batch
	b.Source, b.Epoch = g.source, g.epoch
	g.batch, g.weight, g.storing = outbox.Batch{}, 0, true
	g.changed.Broadcast()
	return b, true
}

// done notes that the batch that next gave is durable.
func (g *gathering) done(lsn position.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stored, g.storing = lsn, false
}

// durable is the last checkpoint that is durable.
func (g *gathering) durable() position.LSN {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stored
}

// close lets nothing more in; next gives what is left.
func (g *gathering) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.changed.Broadcast()
}

// committer makes batches durable, confirms them and hands their matches on.
type committer struct {
	store    outbox.Store
	batch    *gathering
	dispatch interface {
		Room() int
		Take([]outbox.Match)
		Wake()
	}
	confirm func(position.LSN)
	trouble func(error) // reports what keeps the store from taking a batch; nil: it takes them again
}

// run stores batch after batch until the gathering is closed and empty, or the context ends. A store that fails is tried
// again, with back-off: the stream waits meanwhile and nothing is confirmed.
func (c *committer) run(ctx context.Context) error {
	for {
		b, ok := c.batch.next()
		if !ok {
			return nil
		}
		claimed, err := c.append(ctx, b)
		if err != nil {
			return err
		}
		c.batch.done(b.Checkpoint)
		c.confirm(b.Checkpoint)
		c.dispatch.Take(claimed)
		if count(b) > len(claimed) {
			c.dispatch.Wake() // the rest is in the store and due
		}
	}
}

func (c *committer) append(ctx context.Context, b outbox.Batch) ([]outbox.Match, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		claimed, err := c.store.Append(ctx, b, c.dispatch.Room())
		if err == nil {
			c.trouble(nil)
			return claimed, nil
		}
		if errors.Is(err, outbox.ErrCheckpoint) || ctx.Err() != nil {
			return nil, err
		}
		c.trouble(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func count(b outbox.Batch) int {
	n := 0
	for _, t := range b.Transactions {
		n += len(t.Matches)
		if t.Spilled != nil {
			n++
		}
	}
	return n
}
