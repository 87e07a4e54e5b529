package daemon

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
	"postman/position"
)

func ended(end position.LSN, matches int) committed {
	return committed{Transaction: outbox.Transaction{Tx: outbox.Tx{LSN: end - 1, End: end}, Matches: make([]outbox.NewMatch, matches)}}
}

func add(t *testing.T, g *gathering, end position.LSN, matches int) {
	t.Helper()
	if err := g.add(ended(end, matches)); err != nil {
		t.Fatal(err)
	}
}

func TestGatheringJoinsWhatWaits(t *testing.T) {
	t.Parallel()
	g := newGathering(outbox.Source{ID: 3, Epoch: 2})
	add(t, g, 10, 1)
	add(t, g, 20, 0) // no match: it only moves the checkpoint
	add(t, g, 30, 2)
	b, ok := g.next()
	if !ok || len(b.Transactions) != 2 || b.Checkpoint != 30 || b.Source != 3 || b.Epoch != 2 {
		t.Errorf("next: %v, %+v", ok, b)
	}
}

// An idle position must not overtake a transaction that is not durable yet: after a kill it would be lost.
func TestGatheringIdleNeverOvertakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{Checkpoint: 5})
		add(t, g, 10, 1)
		g.idle(90)
		b, _ := g.next()
		if b.Checkpoint != 90 || len(b.Transactions) != 1 {
			t.Errorf("the checkpoint is %v with %d transactions; want 90, with the one before it", b.Checkpoint, len(b.Transactions))
		}
		g.idle(95) // the batch is out, and not durable
		g.done(90)
		if b, _ := g.next(); b.Checkpoint != 95 || len(b.Transactions) != 0 {
			t.Errorf("the idle position that waited gave %+v; want a checkpoint of 95 alone", b)
		}
		g.done(95)
	})
}

// A server that shuts down waits until all that it sent is confirmed, and says each position once: none may be forgotten,
// and yet not each may cost a commit.
func TestGatheringSpacesWhatBringsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{Checkpoint: 5})
		took := func() position.LSN {
			b, _ := g.next()
			g.done(b.Checkpoint)
			return b.Checkpoint
		}
		g.idle(10)
		if got := took(); got != 10 {
			t.Errorf("the first position: %d", got)
		}
		began := time.Now()
		g.idle(20)
		add(t, g, 30, 0)
		g.idle(3) // behind
		if got := took(); got != 30 || time.Since(began) != restEvery {
			t.Errorf("%d after %v; want 30 after %v", got, time.Since(began), restEvery)
		}
		g.idle(40)
		add(t, g, 50, 1) // what brings something does not wait
		if got := took(); got != 50 {
			t.Errorf("a match: %d", got)
		}
		g.close()
	})
}

func TestGatheringWaitsWhenFullAndEndsWhenClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{})
		heavy := ended(10, 1)
		heavy.bytes = mostWeight
		if err := g.add(heavy); err != nil {
			t.Fatal(err)
		}
		second := make(chan error)
		go func() { second <- g.add(ended(20, 1)) }()
		synctest.Wait()
		select {
		case err := <-second:
			t.Fatalf("a full gathering let a transaction in: %v", err)
		default:
		}
		g.next()
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		g.close()
		if _, ok := g.next(); !ok {
			t.Error("what was let in before the close is lost")
		}
		if _, ok := g.next(); ok {
			t.Error("a closed and empty gathering gives a batch")
		}
		if err := g.add(ended(30, 1)); !errors.Is(err, errClosed) {
			t.Errorf("a closed gathering says %v", err)
		}
	})
}

// What was committed before the start is begun when it is durable that it is; what comes since may be begun ahead.
func TestBacklogIsNotBegunAhead(t *testing.T) {
	t.Parallel()
	dispatch := new(taker)
	c := &committer{
		store: appends{}, batch: newGathering(outbox.Source{}), dispatch: dispatch, confirm: func(position.LSN) {}, trouble: func(error) {},
		backlog: 200,
	}
	for _, end := range []position.LSN{150, 250} {
		add(t, c.batch, end, 1)
		b, _ := c.batch.next()
		if err := c.commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"took 1", "ahead", "took 1"}, dispatch.calls); diff != "" {
		t.Error(diff)
	}
}

// appends is a store that takes a batch and gives one match of it back.
type appends struct{ outbox.Store }

func (appends) Append(context.Context, outbox.Batch, int) ([]outbox.Match, error) {
	return make([]outbox.Match, 1), nil
}

// taker is a dispatcher that notes how it is given matches.
type taker struct{ calls []string }

func (k *taker) Room() int              { return 10 }
func (k *taker) Take(ms []outbox.Match) { k.calls = append(k.calls, fmt.Sprint("took ", len(ms))) }
func (k *taker) Wake()                  {}
func (k *taker) Ahead(*outbox.Batch) func([]outbox.Match) {
	k.calls = append(k.calls, "ahead")
	return k.Take
}
