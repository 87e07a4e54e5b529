package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postman/outbox"
)

// How long the feeder waits at most before it looks at the store.
const (
	pollIdle    = 15 * time.Second       // when nothing is due: another process may have put something there
	pollBlocked = time.Second            // when what is due cannot be taken now
	pollSoon    = 20 * time.Millisecond  // when something became due while it looked
	pollFailed  = 500 * time.Millisecond // when the store could not be asked
)

// feed claims from the store what did not come in memory: after a start, when there was no room, retries, due times. On the
// way of a fresh match it does nothing.
func (d *Dispatcher) feed(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(d.claim(ctx))
	}
}

// claim takes what there is room for, and returns when to look again.
func (d *Dispatcher) claim(ctx context.Context) time.Duration {
	matches := d.roomForMatches()
	full, err := d.claimMatches(ctx, matches)
	blocked := matches == 0
	for _, via := range d.transports {
		if err != nil {
			break
		}
		if err = d.callIn(ctx, via); err != nil {
			break
		}
		var more bool
		n, least := d.roomFor(via)
		more, err = d.claimMessages(ctx, via, n, least)
		full, blocked = full || more, blocked || least != outbox.Bulk
	}
	var due time.Time
	if err == nil {
		due, err = d.o.Store.NextDue(ctx, nil, d.goes)
	}
	if err != nil {
		if ctx.Err() == nil && d.storeUp.failed() {
			d.o.Report(ctx, fmt.Errorf("looking for what is due: %w", err), "", classStore)
		}
		return pollFailed
	}
	again := d.blocked(full, (full || blocked) && !due.IsZero())
	wait := time.Until(due)
	switch {
	case again: // what was claimed was finished before backlog was set: nobody will wake the feeder for it
		return 0
	case due.IsZero():
		return pollIdle
	case wait > 0:
		return min(wait, pollIdle)
	case full || blocked:
		return pollBlocked // at the latest: whoever makes room wakes the feeder
	}
	return pollSoon
}

// blocked notes whether the store may hold more that is due. It says whether what was claimed was finished before that was noted: nobody will wake
// the feeder for it.
func (d *Dispatcher) blocked(full, backlog bool) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backlog = backlog
	again = full && d.matches <= mostMatches/2
	for _, via := range d.transports {
		again = again && via.room.all <= via.most()/2
	}
	return again
}

// roomForMatches is how many may be claimed now. It waits until half of the room is free, so that a claim is worth its commit.
func (d *Dispatcher) roomForMatches() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.matches > mostMatches/2 {
		return 0
	}
	return mostMatches - d.matches
}

// roomFor is how many messages may be claimed for a relay now, likewise, and of which priority at least. Where those that are there take all room, there is
// some for high priority.
func (d *Dispatcher) roomFor(via *transport) (n int, least outbox.Priority) {
	d.mu.Lock()
	defer d.mu.Unlock()
	most, r := via.most(), &via.room
	switch {
	case r.away >= 2*mostAway:
		return 0, outbox.High
	case r.all <= most/2 && r.away < mostAway:
		return most - r.all, outbox.Bulk
	}
	// Far more may be there than there is room for by now: high priority waits for none of them.
	return max(0, most+mostMessages-r.all, mostMessages-r.high), outbox.High
}

// goes says whether a rule's messages of a priority can go any way now.
func (d *Dispatcher) goes(rule uint32, p outbox.Priority) bool {
	_, ok := d.route(rule, p, false)
	return ok
}

// claimMatches says whether there may be more.
func (d *Dispatcher) claimMatches(ctx context.Context, n int) (full bool, err error) {
	if n == 0 {
		return false, nil
	}
	ms, err := d.o.Store.ClaimMatches(ctx, outbox.Claim{Now: time.Now(), Most: n})
	if err != nil {
		return false, err
	}
	d.Take(ms)
	return len(ms) == n, nil
}

// claimMessages says whether there may be more.
func (d *Dispatcher) claimMessages(ctx context.Context, via *transport, n int, least outbox.Priority) (full bool, err error) {
	if n == 0 {
		return false, nil
	}
	ms, err := d.o.Store.ClaimMessages(ctx, outbox.Claim{Now: time.Now(), Most: n, Of: func(rule uint32, p outbox.Priority) bool {
		way, ok := d.route(rule, p, false)
		return ok && way == via && p <= least
	}})
	if err != nil {
		return false, err
	}
	full = len(ms) == n
	d.mu.Lock()
	ms = slices.DeleteFunc(ms, func(m outbox.Message) bool { return !via.room.take(m.ID, m.Priority, via.gate.place(m.Address)) })
	d.mu.Unlock()
	d.goOn(via, ms)
	return full, nil
}

// callIn has messages go on that stayed outside for their domain's sake, as far as others to it are gone.
func (d *Dispatcher) callIn(ctx context.Context, via *transport) error {
	d.mu.Lock()
	ids := via.room.call()
	d.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	ms, err := d.o.Store.Messages(ctx, outbox.Filter{Messages: ids, MessageStates: []outbox.MessageState{outbox.MessageQueued}})
	if err != nil {
		d.o.Store.Release(nil, ids)
		return err
	}
	slices.Reverse(ms) // the oldest first
	d.mu.Lock()
	for i := range ms {
		via.room.enter(ms[i].Priority, via.gate.place(ms[i].Address))
		ids = slices.DeleteFunc(ids, func(id int64) bool { return id == ms[i].ID })
	}
	d.mu.Unlock()
	d.o.Store.Release(nil, ids) // they were cancelled meanwhile
	d.goOn(via, ms)
	return nil
}

// goOn brings claimed messages to the gate: those that have their bytes at once, and the others when they are rendered, those of one match together.
func (d *Dispatcher) goOn(via *transport, ms []outbox.Message) {
	var unmade []*task
	byMatch := make(map[int64]*task)
	for _, m := range ms {
		if len(m.Body) > 0 {
			d.submitMade(via, m)
			continue
		}
		t, ok := byMatch[m.Match]
		if !ok {
			t = &task{via: via}
			byMatch[m.Match] = t
			unmade = append(unmade, t)
		}
		t.messages = append(t.messages, m)
	}
	for _, t := range unmade { // they have all of their messages
		d.tasks.push(t)
	}
}

// submitMade brings a message that has its bytes to a lane, unless nothing may go out, or nobody knows which way.
func (d *Dispatcher) submitMade(via *transport, m outbox.Message) {
	if d.silent(m.Silent) {
		d.done(via, m, outbox.Outcome{State: outbox.MessageNotSent, Reason: notSent})
		return
	}
	if name := d.stray(m.Rule); name != "" && !m.Released {
		d.done(via, m, outbox.Outcome{State: outbox.MessageHeld, Due: time.Now(), Reason: "its rule was deleted, and relay " + name + ", which it named, is there no more: a release sends it over the first"})
		return
	}
	d.submit(&job{message: m, via: via})
}

// prepare renders messages that were queued without their bytes.
func (d *Dispatcher) prepare(ctx, hard context.Context, t *task) {
	if d.dropExpired(t); len(t.messages) == 0 {
		d.tasks.done(t)
		d.finished(t)
		return
	}
	r, err := d.researchAgain(ctx, t)
	d.tasks.done(t)
	if err != nil {
		d.setback(ctx, hard, t, err)
		return
	}
	d.onTime()
	var broken error
	for i, m := range t.messages {
		l, _ := r.loads(i) // all were asked for
		made, err := d.composer.compose(r.draft, r.audience.to[i], m.CC, m.Resend, l)
		switch {
		case err != nil:
			broken = errors.Join(broken, err)
			d.done(t.via, m, outbox.Outcome{State: outbox.MessageFailed, Reason: err.Error()})
		case d.silent(m.Silent):
			d.done(t.via, m, outbox.Outcome{State: outbox.MessageNotSent, Reason: notSent})
		default:
			d.submit(&job{message: m, letter: made, via: t.via})
		}
	}
	if broken != nil {
		d.o.Report(ctx, broken, t.ruleName(), classTemplate)
	}
	d.finished(t)
}

// done ends a claimed message that was not started.
func (d *Dispatcher) done(via *transport, m outbox.Message, o outbox.Outcome) {
	o.Message = m.ID
	d.outcomes <- outcome{m, o}
	d.left(via, &m)
}

// dropExpired ends the messages that are too late.
func (d *Dispatcher) dropExpired(t *task) {
	kept := t.messages[:0]
	for _, m := range t.messages {
		if reason, over := expired(m.Expires); over {
			d.done(t.via, m, outbox.Outcome{State: outbox.MessageExpired, Reason: reason})
			continue
		}
		kept = append(kept, m)
	}
	t.messages = kept
}

// researchAgain asks what the mails of known recipients show.
func (d *Dispatcher) researchAgain(ctx context.Context, t *task) (*research, error) {
	if t.match.ID == 0 {
		ms, err := d.o.Store.Matches(ctx, outbox.Filter{Matches: []int64{t.messages[0].Match}})
		if err != nil {
			return nil, &askError{kind: busy, what: "reading the match", err: err}
		}
		if len(ms) != 1 {
			return nil, fmt.Errorf("match %d is not in the store", t.messages[0].Match)
		}
		t.match = ms[0]
	}
	draft, err := d.newDraft(ctx, &t.match)
	if err != nil {
		return nil, err
	}
	r := &research{draft: draft, match: &t.match, known: true, first: len(t.messages)}
	for _, m := range t.messages {
		to, err := decodeRecipient(m.Recipient)
		if err != nil {
			return nil, err
		}
		r.audience.to = append(r.audience.to, to)
	}
	if err := r.do(ctx, d.o.Lookup); err != nil {
		return nil, draft.veil(err)
	}
	return r, draft.veil(draft.show())
}

// startAll takes jobs that have passed the gate to sending, in one commit, and on to the lanes.
func (d *Dispatcher) startAll(ctx, hard context.Context, via *transport, jobs []*job) {
	var starts []outbox.Start
	var gone []*outbox.Message
	byID := make(map[int64]*job, len(jobs))
	lease := time.Now().Add(leaseFor)
	for _, j := range jobs {
		if reason, over := expired(j.message.Expires); over {
			via.gate.leave(j.message.Priority, j.place)
			d.done(via, j.message, outbox.Outcome{State: outbox.MessageExpired, Reason: reason})
			continue
		}
		j.lease = lease
		if len(j.letter.body) > 0 { // else the store has these of an earlier attempt
			j.message.MessageID, j.message.Subject = j.letter.messageID, j.letter.subject
		}
		byID[j.message.ID] = j
		gone = append(gone, &j.message)
		starts = append(starts, outbox.Start{
			Message: j.message.ID, MessageID: j.letter.messageID, Subject: j.letter.subject, Body: j.letter.body, Template: j.letter.template, Lease: lease,
		})
	}
	if len(starts) == 0 {
		return
	}
	var may []int64
	err := d.persist(ctx, func() (err error) {
		may, err = d.o.Store.Start(hard, starts)
		return err
	})
	if err != nil {
		may = nil
		for id := range byID {
			d.o.Store.Release(nil, []int64{id})
		}
	}
	for _, id := range may {
		d.deliver(hard, byID[id])
		delete(byID, id)
	}
	for _, j := range byID {
		via.gate.leave(j.message.Priority, j.place) // cancelled meanwhile, or suppressed
	}
	if len(byID) > 0 {
		d.Wake()
	}
	d.left(via, gone...)
}
