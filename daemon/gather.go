package daemon

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"postman/cdc"
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
	sealed  bool      // the last block of the batch takes no more: what commits behind it comes in between
	journal int       // bytes of the batch's blocks
	spills  []spilled // in the order in which they came; those of a transaction before its commit
	weight  int       // of batch and spills, in bytes
	storing bool      // a batch is out of here and not durable yet
	closed  bool
	stored  position.LSN // the last checkpoint that is durable
	out     position.LSN // the last that is, or is on its way
	seen    position.LSN // what outlook has as verified
	resting position.LSN // the newest position before which there is nothing to store but the journal
	rested  time.Time    // when one was last stored
	timer   *time.Timer  // stores the next one; nil: none waits
	mends   []mend       // of batch
	held    bool         // some of batch waits for an operator
}

// mend says that a rule that was broken decides again: its gap ends at a position.
type mend struct {
	breakage
	to position.LSN
}

func mendsAt(mended []breakage, to position.LSN) (mends []mend) {
	for _, b := range mended {
		mends = append(mends, mend{b, to})
	}
	return mends
}

// What may wait in memory before the stream has to.
const (
	mostWeight   = 16 << 20 // bytes
	mostPerBatch = 20_000   // transactions
	// restEvery spaces the commits that only move the checkpoint: each is an fsync, and Postgres loses nothing by keeping
	// a second of WAL longer.
	restEvery = time.Second
)

func newGathering(s outbox.Source) *gathering {
	g := &gathering{source: s.ID, epoch: s.Epoch, stored: s.Checkpoint, seen: s.Verified}
	g.changed.L = &g.mu
	return g
}

// committed is a transaction whose commit was read, and what goes into the store with it.
type committed struct {
	outbox.Transaction
	tx      cdc.Tx
	section *cdc.Section // nil: it has none
	texts   map[outbox.Hash][]byte
	gaps    []outbox.Gap
	mends   []mend
	bytes   int
	held    bool // some of its matches wait in a batch
}

// add takes a committed transaction in, waiting while too much is waiting already. One that brings nothing only moves the
// checkpoint.
func (g *gathering) add(t committed) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.room() {
		return errClosed
	}
	for h, text := range t.texts {
		if g.batch.Texts == nil {
			g.batch.Texts = make(map[outbox.Hash][]byte)
		}
		g.batch.Texts[h] = text
	}
	if t.section != nil {
		g.recorded(t.tx, t.Muted, t.section)
	}
	if len(t.Matches) == 0 && t.Spilled == nil && len(t.gaps)+len(t.mends) == 0 {
		g.rest(t.End)
		return nil
	}
	if len(t.Matches) > 0 || t.Spilled != nil {
		g.batch.Transactions = append(g.batch.Transactions, t.Transaction)
	}
	g.sealed = g.sealed || t.Spilled != nil
	g.weight += t.bytes + 200*(len(t.Matches)+len(t.gaps))
	for _, gap := range t.gaps {
		gap.Source, gap.Epoch = g.source, g.epoch
		g.batch.Gaps = append(g.batch.Gaps, gap)
	}
	g.mends, g.held = append(g.mends, t.mends...), g.held || t.held
	g.advance(t.End)
	return nil
}

// room waits while too much is waiting already; false: nothing more is let in. Called with mu held.
func (g *gathering) room() bool {
	for !g.closed && (g.weight > mostWeight || len(g.batch.Transactions) > mostPerBatch) {
		g.changed.Wait()
	}
	return !g.closed
}

// spill takes in what is to be stored before a commit is read.
func (g *gathering) spill(s spilled) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.room() {
		return errClosed
	}
	g.spills = append(g.spills, s)
	g.weight += s.bytes
	g.changed.Broadcast()
	return nil
}

// unloaded notes that something that was spilled takes no more memory.
func (g *gathering) unloaded(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.weight -= bytes
	g.changed.Broadcast()
}

// idle takes in a position before which every transaction has been added.
func (g *gathering) idle(lsn position.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rest(lsn)
}

// rest moves the checkpoint to a position before which there is nothing to store but the journal: at once, a while after the last
// such commit, or together with what is on its way to the store. It never forgets one: a server that shuts down waits until all
// that it sent is confirmed. Called with mu held.
func (g *gathering) rest(lsn position.LSN) {
	g.resting = max(g.resting, lsn)
	full := g.journal >= restSize
	if g.closed || g.timer != nil && !full || g.storing || g.batch.Checkpoint != 0 || g.resting <= g.stored {
		return // done looks again
	}
	if wait := restEvery - time.Since(g.rested); wait > 0 && !full {
		g.timer = time.AfterFunc(wait, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.timer = nil
			g.rest(0)
		})
		return
	}
	g.rested = time.Now()
	g.advance(g.resting)
}

// advance is called with mu held.
func (g *gathering) advance(lsn position.LSN) {
	g.batch.Checkpoint = max(g.batch.Checkpoint, lsn)
	g.changed.Broadcast()
}

// next waits for a batch, or for something that was spilled, and takes it out; false: closed, and nothing is left.
func (g *gathering) next() (gathered, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.batch.Checkpoint == 0 && len(g.spills) == 0 && !g.closed {
		g.changed.Wait()
	}
	if g.batch.Checkpoint == 0 && len(g.spills) == 0 {
		return gathered{}, false
	}
	b := gathered{spills: g.spills}
	g.spills = nil
	texts := b.lend(g.batch.Texts)
	if g.batch.Checkpoint == 0 {
		return b, true
	}
	b.Batch, b.mends, b.held = g.batch, g.mends, g.held
	b.Texts = texts
	b.Source, b.Epoch = g.source, g.epoch
	b.Verified = g.seen
	b.Checkpoint = max(b.Checkpoint, g.resting) // all before that is in here, its journal too
	g.out = b.Checkpoint
	g.batch, g.mends, g.held, g.sealed, g.journal, g.storing = outbox.Batch{}, nil, false, false, 0, true
	g.weight = 0
	for i := range b.spills {
		g.weight += b.spills[i].bytes
	}
	g.changed.Broadcast()
	return b, true
}

// gathered is a batch on its way to the store.
type gathered struct {
	outbox.Batch // without a checkpoint: none
	mends        []mend
	held         bool // some of it waits in a batch
	spills       []spilled
}

// lend has the texts of the batch go with the first that is spilled, too, and returns all: a text comes along once, and of batch and spills
// either may be stored first.
func (b *gathered) lend(texts map[outbox.Hash][]byte) map[outbox.Hash][]byte {
	all := maps.Clone(texts)
	var first *outbox.Provisional
	for i := range b.spills {
		p := b.spills[i].Provisional
		if p == nil {
			continue
		}
		first = cmp.Or(first, p)
		if all == nil && len(p.Texts) > 0 {
			all = make(map[outbox.Hash][]byte)
		}
		maps.Copy(all, p.Texts)
	}
	if first != nil {
		first.Texts = all
	}
	return all
}

// adopts says whether a transaction of the batch was spilled.
func (b *gathered) adopts() bool {
	return slices.ContainsFunc(b.Transactions, func(t outbox.Transaction) bool { return t.Spilled != nil })
}

// done notes that the batch that next gave is durable.
func (g *gathering) done(lsn position.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stored, g.storing = lsn, false
	g.rest(0)
}

// verify has the batches from now on say up to where the database was looked at.
func (g *gathering) verify(at position.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = at
}

// parted notes that the server is another one, which has in common with the one that was looked at what is stored, and perhaps no more: behind
// that, its log tells of something else.
func (g *gathering) parted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = min(g.seen, g.stored)
}

// verified is up to where that was.
func (g *gathering) verified() position.LSN {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
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
	if g.timer != nil {
		g.timer.Stop()
	}
	if g.resting > max(g.stored, g.out) { // what was read need not be read again
		g.batch.Checkpoint = max(g.batch.Checkpoint, g.resting)
	}
	g.changed.Broadcast()
}

// committer makes batches durable, confirms them and hands their matches on.
type committer struct {
	store    outbox.Store
	batch    *gathering
	dispatch interface {
		Room() int
		Take([]outbox.Match)
		Ahead(*outbox.Batch) (take func([]outbox.Match))
		Wake()
	}
	// backlog is what was committed before the start. The mails of that may be what ended the last process: they are begun when it
	// is durable that they are, and not ahead of it.
	backlog position.LSN
	mend    func(context.Context, mend)
	held    func() // is told that there is more that waits in batches
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
		if b.adopts() {
			if err := c.unspill(ctx, b.spills); err != nil {
				return err
			}
			b.spills = nil
		}
		if b.Checkpoint != 0 {
			if err := c.commit(ctx, b); err != nil {
				return err
			}
		}
		if err := c.unspill(ctx, b.spills); err != nil { // mails do not wait for these
			return err
		}
	}
}

// commit makes one batch durable.
func (c *committer) commit(ctx context.Context, b gathered) error {
	take := c.dispatch.Take
	if len(b.Transactions) > 0 && b.Transactions[0].LSN >= c.backlog {
		take = c.dispatch.Ahead(&b.Batch)
	}
	for i := range b.Journal {
		b.Journal[i].Data = seal(b.Journal[i].Data)
	}
	claimed, err := c.append(ctx, b.Batch)
	take(claimed)
	if err != nil {
		return err
	}
	for _, m := range b.mends {
		c.mend(ctx, m)
	}
	c.batch.done(b.Checkpoint)
	c.confirm(b.Checkpoint)
	if b.held {
		c.held()
	}
	if count(b.Batch) > len(claimed) {
		c.dispatch.Wake() // the rest is in the store and due
	}
	return nil
}

func (c *committer) append(ctx context.Context, b outbox.Batch) (claimed []outbox.Match, err error) {
	err = persist(ctx, c.trouble, func(ctx context.Context) error {
		claimed, err = c.store.Append(ctx, b, c.dispatch.Room())
		return err
	})
	return claimed, err
}

// persist makes a call to the store until it works, is refused for good, or the context ends.
func persist(ctx context.Context, trouble func(error), call func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := call(ctx)
		if err == nil {
			trouble(nil)
			return nil
		}
		if errors.Is(err, outbox.ErrCheckpoint) || ctx.Err() != nil {
			return err
		}
		trouble(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
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
