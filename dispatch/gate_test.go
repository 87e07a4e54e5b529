package dispatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
)

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{Connections: 2}, func() {})
		for i, want := range []bool{true, true, false} {
			if got := g.tryEnter(outbox.Normal, ""); got != want {
				t.Errorf("a gate of two lanes: message %d may pass: %v", i, got)
			}
		}
		var order []outbox.Priority
		var mu sync.Mutex
		for _, p := range []outbox.Priority{outbox.Bulk, outbox.Normal, outbox.High, outbox.Bulk} {
			go func() {
				if g.enter(t.Context(), p, "") {
					mu.Lock()
					order = append(order, p)
					mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		for range 4 {
			g.leave(outbox.Normal, "")
			synctest.Wait()
		}
		if diff := cmp.Diff([]outbox.Priority{outbox.High, outbox.Normal, outbox.Bulk, outbox.Bulk}, order); diff != "" {
			t.Error(diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if g.enter(ctx, outbox.Normal, "") {
			t.Error("a full gate lets through")
		}
		g.leave(outbox.Normal, "")
		g.leave(outbox.Normal, "")
		if g.free(outbox.Normal) != 2 {
			t.Errorf("%d are free: who gave up holds a lane", g.free(outbox.Normal))
		}
	})
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{Connections: 4}, func() {})
		var mu sync.Mutex
		down := true
		var times []time.Duration
		started := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.probe(ctx, func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				times = append(times, time.Since(started))
				if down {
					return errors.New("still down")
				}
				return nil
			})
		}()
		if !g.trouble(errors.New("gone")) || g.trouble(errors.New("gone, too")) {
			t.Error("only the first trouble is news")
		}
		if g.free(outbox.Normal) != 0 || g.tryEnter(outbox.Normal, "") {
			t.Error("an open breaker lets through")
		}
		if _, news := g.decided(true); news || !g.down() {
			t.Error("an answer from before the trouble closes the breaker")
		}
		sleep(t, 5*time.Minute)
		mu.Lock()
		tries := times
		down = false
		mu.Unlock()
		if len(tries) < 10 || len(tries) > 22 || tries[0] < firstPause/2 || tries[0] > firstPause || tries[len(tries)-1]-tries[len(tries)-2] < mostPause/2 {
			t.Errorf("tried to connect after %s", tries)
		}
		sleep(t, mostPause)
		if g.free(outbox.Normal) != 1 {
			t.Errorf("%d may pass while the relay is on probation", g.free(outbox.Normal))
		}
		if g.trouble(errors.New("again")) || !g.down() {
			t.Error("a relay that fails on probation is no news, but down")
		}
		sleep(t, mostPause)
		if lasted, news := g.decided(true); !news || lasted < 5*time.Minute || g.free(outbox.Normal) != 4 {
			t.Errorf("after %s: %v, %d free", lasted, news, g.free(outbox.Normal))
		}
		cancel()
		<-done
	})
}

// down says whether nothing can pass.
func (g *gate) down() bool { return !g.takes(outbox.High) }

// TestGateCrowd has many goroutines enter, give up and leave while the relay comes and goes.
func TestGateCrowd(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{Connections: 3}, func() {})
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%7)*100*time.Microsecond)
				if g.enter(ctx, outbox.Priority(1+i%2), "") {
					now := inside.Add(1)
					for {
						m := most.Load()
						if now <= m || most.CompareAndSwap(m, now) {
							break
						}
					}
					inside.Add(-1)
					g.leave(outbox.Normal, "")
				}
				cancel()
				if n%50 == i {
					g.trouble(errors.New("x"))
					g.probing()
					g.decided(true)
				}
			}
		})
	}
	wg.Wait()
	g.decided(true)
	if g.free(outbox.Normal) != 3 || most.Load() > 3 || most.Load() == 0 {
		t.Errorf("%d free, at most %d inside", g.free(outbox.Normal), most.Load())
	}
}

// TestGateBulkBesideThoseWhoAsk: however many normal mails ask for a place without an end, bulk gets one.
func TestGateBulkBesideThoseWhoAsk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{Connections: 1}, func() {})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for g.enter(ctx, outbox.Normal, "") {
					all.Go(func() {
						time.Sleep(time.Millisecond)
						g.leave(outbox.Normal, "")
					})
				}
			})
		}
		synctest.Wait()
		g.push(&job{message: outbox.Message{Priority: outbox.Bulk}})
		late, end := context.WithTimeout(ctx, time.Minute)
		defer end()
		jobs := g.take(late)
		if len(jobs) == 0 {
			t.Error("no bulk mail went in a minute")
		}
		for range jobs {
			g.leave(outbox.Bulk, "")
		}
		cancel()
		all.Wait()
	})
}

// TestGateCrowdedDomain: a mail of high priority to a domain that has all that it may have keeps nothing else back.
func TestGateCrowdedDomain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{Connections: 4, PerDomain: 1}, func() {})
		if !g.tryEnter(outbox.Normal, "slow.example") {
			t.Fatal("an empty gate lets nothing through")
		}
		ctx, cancel := context.WithTimeout(t.Context(), highPatience)
		defer cancel()
		go g.enter(ctx, outbox.High, "slow.example")
		synctest.Wait()
		if !g.tryEnter(outbox.Normal, "other.example") {
			t.Error("a mail to another domain waits behind it")
		}
		g.push(&job{message: outbox.Message{Priority: outbox.Bulk}, place: "third.example"})
		soon, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if len(g.take(soon)) != 1 {
			t.Error("what is ready waits behind it")
		}
	})
}

// TestGateTriedAgain: a relay that has mails from before the trouble is tried with one that waits all the same.
func TestGateTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Limits{Connections: 4}, func() {})
		g.connected(true)
		g.took(time.Millisecond)
		for range 40 {
			if !g.tryEnter(outbox.Normal, "") {
				t.Fatal("there is no room")
			}
		}
		g.trouble(errors.New("it hangs"))
		g.probing()
		if !g.push(&job{message: outbox.Message{Priority: outbox.Normal}}) {
			t.Fatal("a relay that is tried again takes nothing")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if n := len(g.take(ctx)); n != 1 {
			t.Errorf("%d mails went", n)
		}
	})
}
