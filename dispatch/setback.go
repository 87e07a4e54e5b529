package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
)

// Classes of errors, for Report: short, stable words.
const (
	classLookup     = "lookup"
	classTemplate   = "template"
	classRule       = "rule"
	classStore      = "store"
	classRelay      = "relay"
	classVisibility = "visibility"
)

// How long a transaction may stay invisible to look-ups before its match goes back to the store and people are told.
const (
	mostEarly  = time.Second // between two tries
	tooEarly   = 10 * time.Second
	mostBusy   = 5 * time.Minute // between two tries of a look-up that the database has no time for
	mostSorely = 12              // such tries: about half an hour
)

// setback decides what becomes of a task whose look-up or preparation failed.
func (d *Dispatcher) setback(ctx, hard context.Context, t *task, err error) {
	if ctx.Err() != nil {
		d.giveBack(t)
		return
	}
	if errors.Is(err, ErrRuleGone) {
		d.end(ctx, hard, t, outbox.MatchHeld, outbox.MessageHeld, err.Error())
		return
	}
	if errors.Is(err, ErrNotNow) {
		d.busy(ctx, hard, t, err)
		return
	}
	ask, ok := errors.AsType[*askError](err)
	if !ok {
		d.fail(ctx, hard, t, err, classRule)
		return
	}
	switch ask.kind {
	case early:
		d.early(ctx, hard, t, err)
	case lost:
		if d.asked.failed() {
			d.o.Report(ctx, fmt.Errorf("look-ups wait for their database: %w", err), "", classLookup)
		}
		t.tries++
		d.park(t, jittered(min(firstReconnect<<min(t.tries, 10), mostReconnect)))
	case busy:
		d.busy(ctx, hard, t, err)
	case wrong:
		d.fail(ctx, hard, t, err, classLookup)
	}
}

// early waits for a transaction to become visible, patiently: it has committed. Others go on meanwhile.
func (d *Dispatcher) early(ctx, hard context.Context, t *task, err error) {
	if t.since.IsZero() { // tries may come from a database that was not there
		t.tries, t.since = 0, time.Now()
	}
	if time.Since(t.since) < tooEarly {
		d.park(t, min(time.Millisecond<<min(t.tries, 10), mostEarly))
		t.tries++
		return
	}
	if d.seen.failed() {
		d.o.Report(ctx, fmt.Errorf("%w: does a synchronous standby lag behind, or LOOKUP_URL name a standby that does?", err), t.ruleName(), classVisibility)
	}
	d.postpone(ctx, hard, t, tooEarly, err)
}

// onTime notes that a look-up saw what it had to see.
func (d *Dispatcher) onTime() {
	if lasted, news := d.asked.worked(); news {
		d.o.Log.Info("look-ups have their database again", "after", lasted.Round(time.Millisecond))
	}
	if lasted, news := d.seen.worked(); news {
		d.o.Log.Info("commits are visible to look-ups in time again", "after", lasted.Round(time.Millisecond))
	}
}

// busy puts off a look-up that the database had no time for.
func (d *Dispatcher) busy(ctx, hard context.Context, t *task, err error) {
	if len(t.messages) > 0 {
		d.busyMessages(ctx, hard, t, err)
		return
	}
	n := t.match.Attempts
	if n+1 >= mostSorely {
		d.fail(ctx, hard, t, fmt.Errorf("given up after %d tries: %w", n+1, err), classLookup)
		return
	}
	d.postpone(ctx, hard, t, jittered(min(time.Second<<min(n, 20), mostBusy)), err)
}

// busyMessages puts off messages, whose attempts are those at the relay: by an eighth of their age, which grows as fast as pauses that double.
func (d *Dispatcher) busyMessages(ctx, hard context.Context, t *task, err error) {
	age := time.Since(t.messages[0].Created)
	if age > d.o.Retry.GiveUp {
		d.fail(ctx, hard, t, fmt.Errorf("given up after %s: %w", age.Round(time.Minute), err), classLookup)
		return
	}
	d.postpone(ctx, hard, t, jittered(min(max(time.Second, age/8), mostBusy)), err)
}

// postpone gives a task back to the store, to be tried again after a while.
func (d *Dispatcher) postpone(ctx, hard context.Context, t *task, wait time.Duration, err error) {
	due := time.Now().Add(wait)
	ask, _ := errors.AsType[*askError](err)
	if len(t.messages) == 0 {
		d.settleMatch(ctx, hard, t, expanded{Expansion: outbox.Expansion{
			Match: t.match.ID, State: outbox.MatchPending, Due: due, Reason: err.Error(), Early: ask != nil && ask.kind == early,
		}})
		return
	}
	for _, m := range t.messages {
		d.outcomes <- outcome{m, outbox.Outcome{Message: m.ID, State: outbox.MessageQueued, Due: due, Reason: err.Error()}}
	}
	d.left(t.via, pointers(t.messages)...)
	d.finished(t)
}

// fail ends a task for good; an operator may have it tried again.
func (d *Dispatcher) fail(ctx, hard context.Context, t *task, err error, class string) {
	d.o.Report(ctx, fmt.Errorf("%w\n  → it has failed for good: mend that, then postman outbox retry --rule %s --state failed", err, t.ruleName()), t.ruleName(), class)
	d.end(ctx, hard, t, outbox.MatchFailed, outbox.MessageFailed, err.Error())
}

// end gives a match, or messages, a state.
func (d *Dispatcher) end(ctx, hard context.Context, t *task, match outbox.MatchState, message outbox.MessageState, reason string) {
	if len(t.messages) == 0 {
		d.settleMatch(ctx, hard, t, expanded{Expansion: outbox.Expansion{Match: t.match.ID, State: match, Reason: reason, Due: time.Now()}})
		return
	}
	for _, m := range t.messages {
		d.outcomes <- outcome{m, outbox.Outcome{Message: m.ID, State: message, Reason: reason, Due: time.Now()}}
	}
	d.left(t.via, pointers(t.messages)...)
	d.finished(t)
}
