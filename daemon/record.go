package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"postman/cdc"
	"postman/outbox"
)

// How the journal is cut into pieces. One is unpacked whole by who reads it.
const (
	blockSize = 1 << 20 // bytes at which a block, or a part of a large transaction, is full
	// restSize is how much of the journal waits for transactions that match, or for the time when positions are stored that
	// brought nothing else. A mail that comes meanwhile waits until it is packed: a millisecond.
	restSize = 256 << 10
)

// record keeps a change for the journal, whether or not a rule is on its table: a rule may be mended later.
func (in *intake) record(c *cdc.Change) {
	t := in.open
	if t.streamed && t.section.Changes() == 0 {
		first := t.section.First()
		t.section, in.spare = in.spare, cdc.Section{}
		t.section.Reset(first)
	}
	t.section.Add(c, in.shape, in.blank(c))
}

// shape names a table's shape, and has its text go with the transaction.
func (in *intake) shape(t *cdc.Table) [32]byte {
	hash, ok := in.shapes[t]
	if !ok {
		hash = outbox.HashOf(t.Shape())
		in.shapes[t] = hash
	}
	in.text(hash, t.Shape)
	return hash
}

// blank says which values of a change are sensitive; nil: none.
func (in *intake) blank(c *cdc.Change) func(string) bool {
	t := in.open
	switch {
	case c.Table == nil && c.Err != nil:
		return t.set.source.HidesAny()
	case c.Table == nil:
		return t.set.source.HidesMessage(c.Prefix)
	}
	hides, ok := t.hides[c.Table]
	if !ok {
		hides = t.set.hides(c.Table)
		t.hides[c.Table] = hides
	}
	return hides
}

// spilled is something for the store of a transaction whose commit is not stored, in the order in which it came: what it says and more of
// it, or that what came from an ordinal on was rolled back, or what its commit makes of it.
type spilled struct {
	key   outbox.Spill
	fresh bool // what an earlier, broken-off reading of the transaction left behind goes first
	*outbox.Provisional
	from       uint64
	settlement *outbox.Settlement
	bytes      int
}

// spill hands what is known of the open transaction to the store, when it is much: nobody sees it there before the commit. Where all that
// are open take too much together, the one that takes most goes.
func (in *intake) spill() error {
	t := in.open
	if len(t.matches) >= spillOver || t.section.Len() >= blockSize {
		return in.spillAll(t)
	}
	if in.others+t.weight() < spillOverBytes {
		return nil
	}
	most := t
	for _, o := range in.streams {
		if o.weight() > most.weight() {
			most = o
		}
	}
	err := in.spillAll(most)
	in.turn(t)
	return err
}

func (in *intake) spillAll(t *transaction) error {
	s := spilled{fresh: t.spilled == nil, Provisional: &outbox.Provisional{Matches: t.matches, Texts: t.texts}, bytes: t.bytes + t.section.Len()}
	if t.spilled == nil {
		t.spilled = &outbox.Spill{Source: in.source.ID, Epoch: in.source.Epoch, XID: t.tx.XID}
	}
	s.key = *t.spilled
	if n := t.section.Changes(); n > 0 {
		s.Parts = []outbox.Part{{
			Ordinal: t.section.First(), Changes: n, Data: cdc.AppendBlock(emptyBlock(), cdc.Tx{XID: t.tx.XID}, "", &t.section),
		}}
		first := t.section.First() + uint64(n)
		if t.streamed { // there may be many of them: the next that has something to keep gets the memory
			in.spare, t.section = t.section, cdc.Section{}
		}
		t.section.Reset(first)
	}
	in.bring(t.texts)
	t.matches, t.texts, t.bytes = nil, nil, 0
	return in.batch.spill(s)
}

// bring notes that texts are on their way into the store, and need not go along again.
func (in *intake) bring(texts map[outbox.Hash][]byte) {
	for h := range texts {
		in.brought[h] = true
	}
}

// recorded adds a transaction to the journal of the batch that gathers. Called with mu held.
func (g *gathering) recorded(tx cdc.Tx, muted string, s *cdc.Section) {
	if s.Changes() == 0 {
		return
	}
	last := len(g.batch.Journal) - 1
	if last < 0 || g.sealed || len(g.batch.Journal[last].Data) >= blockSize {
		g.batch.Journal, last, g.sealed = append(g.batch.Journal, outbox.Block{First: tx.Commit, From: tx.Time, Data: emptyBlock()}), last+1, false
	}
	b := &g.batch.Journal[last]
	before := len(b.Data)
	b.Data = cdc.AppendBlock(b.Data, tx, muted, s)
	b.Last, b.To = tx.Commit, tx.Time
	b.Transactions++
	b.Changes += s.Changes()
	g.weight += len(b.Data) - before
	g.journal += len(b.Data) - before
}

// prune deletes what the journal keeps no longer.
func (d *Daemon) prune(ctx context.Context, now time.Time) error {
	before := now.Add(-time.Duration(d.config.Journal.Keep))
	for {
		p, err := d.store.PruneJournal(ctx, before, int64(d.config.Journal.Size))
		if err != nil || !p.More {
			return err
		}
	}
}

// packedBlocks are the memory of blocks that were packed: while the stream is behind, there are hundreds in a second.
var packedBlocks = sync.Pool{New: func() any { return new([]byte) }}

// emptyBlock is one to append to. seal takes its memory back.
func emptyBlock() []byte { return (*packedBlocks.Get().(*[]byte))[:0] }

// seal packs a block.
func seal(block []byte) []byte {
	sealed := cdc.SealBlock(block)
	if cap(block) <= 2*blockSize { // else a change was very large
		packedBlocks.Put(&block)
	}
	return sealed
}

// unspill carries out, one after the other, what was spilled.
func (c *committer) unspill(ctx context.Context, all []spilled) error {
	for i := range all {
		s := &all[i]
		if s.Provisional != nil {
			for j := range s.Parts {
				s.Parts[j].Data = seal(s.Parts[j].Data)
			}
		}
		if err := persist(ctx, c.trouble, func(ctx context.Context) error { return s.store(ctx, c.store) }); err != nil {
			return fmt.Errorf("spilling transaction %d: %w", s.key.XID, err)
		}
		s.Provisional = nil
		c.batch.unloaded(s.bytes)
	}
	return nil
}

// store may be called again after an error.
func (s *spilled) store(ctx context.Context, store outbox.Store) error {
	switch {
	case s.settlement != nil:
		return store.Settle(ctx, s.key, *s.settlement)
	case s.Provisional == nil:
		return store.Unspill(ctx, s.key, s.from)
	case s.fresh:
		if err := store.Unspill(ctx, s.key, 0); err != nil {
			return err
		}
		s.fresh = false
	}
	return store.Spill(ctx, s.key, *s.Provisional)
}
