package dispatch

import (
	"context"
	"errors"
	"time"

	"postman/outbox"
)

// mostRecords bounds one commit of outcomes.
const mostRecords = 256

// record stores outcomes, one commit for as many as have gathered during the one before, until the channel is closed. It goes
// on for a while after hard has ended: what was said to the relay must not be forgotten for a hurry.
func (d *Dispatcher) record(hard context.Context) {
	ctx, end := context.WithCancel(context.WithoutCancel(hard))
	defer end()
	stop := context.AfterFunc(hard, func() {
		pause(ctx, recordFor)
		end()
	})
	defer stop()
	for first := range d.outcomes {
		batch := []outcome{first}
		for more := true; more && len(batch) < mostRecords; {
			select {
			case o, ok := <-d.outcomes:
				if more = ok; ok {
					batch = append(batch, o)
				}
			default:
				more = false
			}
		}
		d.recordAll(ctx, batch)
	}
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
	if d.o.Observe != nil {
		for _, o := range batch {
			d.o.Observe(o.message, o.Outcome)
		}
	}
	if later {
		d.Wake()
	}
}
