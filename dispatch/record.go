package dispatch

import (
	"context"
	"errors"
	"time"

	"postman/outbox"
)

const (
	// A commit of outcomes rewrites the same few pages whether it has one or fifty, and a relay that keeps what it takes on this disk waits for each.
	// So they rest after one for as long as restTimes it took, unless so many have gathered that the next is worth it. Whatever is recorded while little
	// goes on is so at once. A process that dies in a rest sends again what was answered in it, beside what was under way.
	restTimes   = 3
	restMost    = 20 * time.Millisecond
	worthRecord = 64
	// mostRecords bounds one commit.
	mostRecords = 256
)

// record stores outcomes, one commit for as many as have gathered since the one before, until the channel is closed. It goes
// on for a while after hard has ended: what was said to the relay must not be forgotten for a hurry.
func (d *Dispatcher) record(hard context.Context) {
	ctx, end := context.WithCancel(context.WithoutCancel(hard))
	defer end()
	stop := context.AfterFunc(hard, func() {
		pause(ctx, recordFor)
		end()
	})
	defer stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	for first := range d.outcomes {
		batch := d.gather(first, rest.C)
		started := time.Now()
		d.recordAll(ctx, batch)
		rest.Reset(min(restTimes*time.Since(started), restMost))
	}
	d.deaths.end()
}

// gather is the outcomes that come until the rest is over, and those that are there then.
func (d *Dispatcher) gather(first outcome, rested <-chan time.Time) []outcome {
	batch := []outcome{first}
	for over := false; len(batch) < mostRecords && (!over || len(d.outcomes) > 0); {
		select {
		case o, ok := <-d.outcomes:
			if !ok {
				return batch
			}
			batch = append(batch, o)
			over = over || len(batch) >= worthRecord
		case <-rested:
			over = true
		}
	}
	return batch
}

func (d *Dispatcher) recordAll(ctx context.Context, batch []outcome) {
	outcomes := make([]outbox.Outcome, len(batch))
	later := false
	for i, o := range batch {
		outcomes[i] = o.Outcome
		later = later || o.State == outbox.MessageQueued
	}
	started := time.Now()
	err := d.persist(ctx, func() error { return d.o.Store.Record(ctx, outcomes) })
	switch {
	case errors.Is(err, outbox.ErrState):
		// Somebody else has ended them: nothing is to be done, and nothing to be silent about.
		d.o.Log.WarnContext(ctx, "outcomes came too late", "error", err)
	case err != nil:
		// The messages stay `sending` in the store; the next start finds them, uncertain.
		d.o.Report(ctx, err, "", classStore)
		return
	}
	d.o.Log.DebugContext(ctx, "outcomes stored", "count", len(batch), "took", time.Since(started))
	for _, o := range batch {
		if o.State == outbox.MessageDead {
			d.deaths.note(&o)
		}
	}
	if d.o.Observe != nil {
		for _, o := range batch {
			d.o.Observe(o.message, o.Outcome)
		}
	}
	if later {
		d.Wake()
	}
}
