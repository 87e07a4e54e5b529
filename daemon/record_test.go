package daemon

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

// told is a transaction with one message of so many bytes, for the journal.
func told(end position.LSN, bytes int) committed {
	tx := cdc.Tx{XID: uint32(end), Commit: end - 1, End: end, Time: time.Unix(int64(end), 0)}
	s := new(cdc.Section)
	s.Add(&cdc.Change{Op: cdc.Emit, Prefix: "p", Content: make([]byte, bytes)}, nil, nil)
	return committed{Transaction: outbox.Transaction{Tx: outbox.Tx{LSN: tx.Commit, End: end}}, tx: tx, section: s}
}

// commits are those of the transactions in unsealed blocks.
func commits(t *testing.T, blocks []outbox.Block) (all []position.LSN) {
	t.Helper()
	for _, b := range blocks {
		var of []position.LSN
		for s, err := range cdc.Sections(b.Data) {
			if err != nil {
				t.Fatal(err)
			}
			of = append(of, s.Commit)
		}
		if len(of) != b.Transactions || of[0] != b.First || of[len(of)-1] != b.Last {
			t.Errorf("a block that says %d transactions from %s to %s has %v", b.Transactions, b.First, b.Last, of)
		}
		all = append(all, of...)
	}
	return all
}

// TestGatheringKeepsTheJournal: the journal goes with the checkpoint that covers it, neither before nor behind; what matches takes all
// before it along; blocks end where a large transaction comes in between.
func TestGatheringKeepsTheJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{Checkpoint: 5})
		enter := func(c committed) {
			if err := g.add(c); err != nil {
				t.Fatal(err)
			}
		}
		next := func(want ...position.LSN) gathered {
			t.Helper()
			b, _ := g.next()
			if got := commits(t, b.Journal); fmt.Sprint(got) != fmt.Sprint(want) || got != nil && got[len(got)-1] >= b.Checkpoint {
				t.Errorf("up to %s the journal has %v; want %v", b.Checkpoint, got, want)
			}
			g.done(b.Checkpoint)
			return b
		}
		enter(told(10, 10))
		next(9)

		began := time.Now()
		enter(told(20, 10))
		enter(told(30, 10))
		next(19, 29)
		if waited := time.Since(began); waited != restEvery {
			t.Errorf("transactions that match nothing waited %v; want %v", waited, restEvery)
		}

		began = time.Now()
		enter(told(40, 10))
		match := told(50, 10)
		match.Matches = make([]outbox.NewMatch, 1)
		enter(match)
		enter(told(60, 10))
		if b := next(39, 49, 59); b.Checkpoint != 60 || time.Since(began) != 0 {
			t.Errorf("a match went to %s after %v", b.Checkpoint, time.Since(began))
		}

		enter(told(70, 10))
		large := told(80, 10)
		large.section, large.Spilled = nil, new(outbox.Spill)
		enter(large)
		enter(told(90, 10))
		if b := next(69, 89); len(b.Journal) != 2 {
			t.Errorf("%d blocks beside a transaction that was spilled in between; want 2", len(b.Journal))
		}

		began = time.Now()
		enter(told(100, restSize+1))
		if next(99); time.Since(began) != 0 {
			t.Errorf("much of the journal waited for %v", time.Since(began))
		}
		enter(told(110, blockSize))
		g.close()
		next(109) // what was read need not be read again
	})
}

// TestGatheringBoundsSpills: what is spilled waits for the store as everything does.
func TestGatheringBoundsSpills(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{})
		if err := g.spill(spilled{bytes: mostWeight + 1}); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() { second <- g.spill(spilled{bytes: 1}) }()
		b, ok := g.next()
		synctest.Wait()
		if len(second) > 0 || !ok || len(b.spills) != 1 || b.Checkpoint != 0 {
			t.Fatalf("%d were let in beside what is on its way to the store (%+v)", len(second), b)
		}
		g.unloaded(mostWeight + 1)
		if err := <-second; err != nil {
			t.Fatal(err)
		}
	})
}

// TestGatheringLendsTexts: a text comes along once, and of batch and spills either may be stored first.
func TestGatheringLendsTexts(t *testing.T) {
	t.Parallel()
	g := newGathering(outbox.Source{})
	texts := func(s string) map[outbox.Hash][]byte {
		return map[outbox.Hash][]byte{outbox.HashOf([]byte(s)): []byte(s)}
	}
	brought := ended(10, 1)
	brought.texts = texts("batch")
	if err := g.add(brought); err != nil {
		t.Fatal(err)
	}
	for _, s := range []spilled{{}, {Provisional: new(outbox.Provisional)}, {Provisional: &outbox.Provisional{Texts: texts("spill")}}} {
		if err := g.spill(s); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := g.next()
	if len(b.Texts) != 2 || len(b.spills[1].Texts) != 2 || b.spills[0].Provisional != nil {
		t.Errorf("the batch has %d texts, the first that is spilled %d; want both with both", len(b.Texts), len(b.spills[1].Texts))
	}
}

// TestGatheringClosesBehindABatch: a position that lies before a batch which is on its way is no reason for another one.
func TestGatheringClosesBehindABatch(t *testing.T) {
	t.Parallel()
	g := newGathering(outbox.Source{Checkpoint: 5})
	g.rested = time.Now()
	g.idle(20)
	add(t, g, 30, 1)
	if b, _ := g.next(); b.Checkpoint != 30 {
		t.Fatalf("the checkpoint is %s", b.Checkpoint)
	}
	g.close()
	if b, more := g.next(); more {
		t.Errorf("behind 30 came %s", b.Checkpoint)
	}
}
