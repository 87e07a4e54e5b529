package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postman/outbox"
	"postman/position"
)

func committed(end position.LSN, matches int) outbox.Transaction {
	return outbox.Transaction{Tx: outbox.Tx{LSN: end - 1, End: end}, Matches: make([]outbox.NewMatch, matches)}
}

func add(t *testing.T, g *gathering, end position.LSN, matches int) {
	t.Helper()
	if err := g.add(committed(end, matches), nil, nil, 0); err != nil {
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
		if b.Checkpoint != 10 {
			t.Errorf("the checkpoint is %v beside a gathered transaction that ends at 10", b.Checkpoint)
		}
		g.idle(95) // the batch is out, and not durable
		g.done(10)
		if g.durable() != 10 {
			t.Errorf("durable is %v", g.durable())
		}
		g.idle(7) // behind
		time.Sleep(2 * idleEvery)
		g.idle(100)
		g.idle(110) // within a second: the next keepalive will do
		if b, _ := g.next(); b.Checkpoint != 100 || len(b.Transactions) != 0 {
			t.Errorf("idle gave %+v; want a checkpoint of 100 alone", b)
		}
	})
}

func TestGatheringWaitsWhenFullAndEndsWhenClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGathering(outbox.Source{})
		if err := g.add(committed(10, 1), nil, nil, mostWeight); err != nil {
			t.Fatal(err)
		}
		second := make(chan error)
		go func() { second <- g.add(committed(20, 1), nil, nil, 0) }()
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
		if err := g.add(committed(30, 1), nil, nil, 0); !errors.Is(err, errClosed) {
			t.Errorf("a closed gathering says %v", err)
		}
	})
}
