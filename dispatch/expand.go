package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
	"postman/rules"
)

// work expands matches and renders messages, one task after the other, until ctx ends. What it brings to the store and to the
// relay is hard's.
func (d *Dispatcher) work(ctx, hard context.Context) {
	for {
		t, ok := d.tasks.pop(ctx)
		if !ok {
			return
		}
		d.handle(ctx, hard, t)
	}
}

func (d *Dispatcher) handle(ctx, hard context.Context, t *task) {
	switch {
	case (t.landed() || ctx.Err() != nil) && !t.await(): // it was to be made ahead, and is for nothing
		d.tasks.done(t)
	case ctx.Err() != nil:
		d.tasks.done(t)
		d.giveBack(t)
	case len(t.messages) > 0:
		d.prepare(ctx, hard, t)
	default:
		d.expand(ctx, hard, t)
	}
}

// expand asks who gets mails of a match, renders those for which a lane is free, and stores what became of it.
func (d *Dispatcher) expand(ctx, hard context.Context, t *task) {
	x, err := d.expansion(ctx, t)
	d.tasks.done(t)
	made := t.ahead != nil
	switch {
	case !t.await():
		d.drop(x)
	case made && (err != nil || x.late()):
		d.drop(x)
		d.tasks.push(t) // it is a match like others now
	case err != nil:
		d.setback(ctx, hard, t, err)
	default:
		x.Match = t.match.ID
		d.settleMatch(ctx, hard, t, x)
	}
}

// drop gives back the places of mails that will not go.
func (d *Dispatcher) drop(x expanded) {
	for _, j := range x.jobs {
		j.via.gate.leave(j.message.Priority, j.place)
	}
}

// expanded is an expansion, and those of its messages that are to go at once. Each of them has passed the gate.
type expanded struct {
	outbox.Expansion
	via    *transport        // of its mails
	jobs   map[[16]byte]*job // by the address's key
	lease  time.Time
	full   bool  // there is no room for the rest
	broken error // why a mail could not be rendered
}

// late says that the mails were made too long ago to go.
func (x *expanded) late() bool { return len(x.jobs) > 0 && time.Until(x.lease) < leaseFor/2 }

func (d *Dispatcher) expansion(ctx context.Context, t *task) (expanded, error) {
	m := &t.match
	x := expanded{Expansion: outbox.Expansion{Match: m.ID}}
	if reason, over := expired(m.Expires); over {
		x.State, x.Reason = outbox.MatchExpired, reason
		return x, nil
	}
	draft, err := d.newDraft(ctx, m)
	if err != nil {
		return x, err
	}
	if m.Undecided {
		if x.State, x.Reason, err = draft.decide(); err != nil || x.State != outbox.MatchPending {
			return x, draft.veil(err)
		}
	}
	if m.Released {
		if x.Reason, err = d.recheck(ctx, m, draft); err != nil {
			return x, draft.veil(err)
		}
		if x.Reason != "" {
			x.State = outbox.MatchCancelled
			return x, nil
		}
	}
	r := &research{draft: draft, match: m, limit: draft.rule.MaxRecipients, first: d.first(m)}
	if m.Released {
		r.limit = 0 // an operator has looked at it
	}
	err = r.do(ctx, d.o.Lookup)
	d.tasks.done(t) // what follows asks nothing
	if many, ok := errors.AsType[*tooMany](err); ok {
		x.State, x.Reason, x.Due = outbox.MatchHeld, many.Error(), time.Now()
		return x, nil
	}
	if err == nil {
		err = draft.show()
	}
	if err != nil {
		return x, draft.veil(err)
	}
	d.onTime()
	if len(r.audience.to) == 0 {
		x.State, x.Reason = outbox.MatchNobody, errNobody.Error()
		return x, nil
	}
	return x, d.write(ctx, m, r, &x)
}

// decide tries the rule on a change on which it could not be tried when that came. Only a change that it matches is worth a mail.
func (d *draft) decide() (outbox.MatchState, string, error) {
	v := d.rule.Decide(d.facts)
	switch {
	case v.Err != nil:
		return 0, "", fmt.Errorf("trying the rule again: %w", v.Err)
	case v.Truth == rules.Undetermined:
		return 0, "", fmt.Errorf("trying the rule again: the stream did not carry %s", v.Missing)
	case v.Truth == rules.False:
		return outbox.MatchCancelled, "tried again, the rule does not match this change", nil
	}
	return outbox.MatchPending, "", nil
}

// expired says whether a time is over.
func expired(at time.Time) (string, bool) {
	if at.IsZero() || time.Now().Before(at) {
		return "", false
	}
	return "too late: it expired at " + at.UTC().Format(time.RFC3339), true
}

// silent says whether nothing may go out: now, or when the match was made.
func (d *Dispatcher) silent(made bool) bool { return made || d.o.Mode == DryRun }

// first is how many messages of a match can be rendered now.
func (d *Dispatcher) first(m *outbox.Match) int {
	if d.silent(m.Silent) {
		return mostRows
	}
	via, _ := d.route(m.Rule, m.Priority, true)
	return max(1, via.gate.free(m.Priority))
}

// write makes the match's messages. Copies go with the first one that can be sent.
func (d *Dispatcher) write(ctx context.Context, m *outbox.Match, r *research, x *expanded) error {
	x.State, x.jobs, x.lease = outbox.MatchExpanded, make(map[[16]byte]*job), time.Now().Add(leaseFor)
	x.via, x.full = d.way(m)
	barred, err := d.barred(ctx, r.audience)
	if err != nil {
		return err
	}
	cc, lost := copies(r.audience.cc, barred)
	for i, to := range r.audience.to {
		row, err := to.encode()
		if err != nil {
			return err
		}
		n := outbox.NewMessage{Address: to.given(), Due: time.Now(), Recipient: row}
		if to.bad != nil {
			n.State, n.Reason = outbox.MessageNoAddress, to.bad.Error()
		} else if why := barred.why(to); why != "" {
			n.State, n.Reason = outbox.MessageSuppressed, why
		} else {
			n.CC, cc = cc, nil
			if err := d.render(ctx, m, r, i, &n, x); err != nil && x.broken == nil {
				x.broken = err
			}
		}
		x.Messages = append(x.Messages, n)
	}
	x.Messages = append(x.Messages, lost...)
	if len(cc) > 0 {
		x.Reason = noCopies
	}
	return nil
}

const noCopies = "no mail can go to anybody: the copies were not sent either"

// copies are the addresses for Cc. One that is none, or that no mail may go to, is a message of its own, which has ended: it must not get
// lost silently.
func copies(list []recipient, b barred) (cc []string, lost []outbox.NewMessage) {
	for _, r := range list {
		n := outbox.NewMessage{Address: r.given(), Due: time.Now()}
		if r.bad != nil {
			n.State, n.Reason = outbox.MessageNoAddress, "cc: "+r.bad.Error()
		} else if why := b.why(r); why != "" {
			n.State, n.Reason = outbox.MessageSuppressed, "cc: "+why
		} else {
			cc = append(cc, mailbox(r.address, r.text(nameColumn)).String())
			continue
		}
		lost = append(lost, n)
	}
	return cc, lost
}

// render decides what becomes of a message at once: it is rendered when a lane is free, and queued otherwise. A silent one ends
// here.
func (d *Dispatcher) render(ctx context.Context, m *outbox.Match, r *research, i int, n *outbox.NewMessage, x *expanded) error {
	n.State = outbox.MessageQueued
	l, ok := r.loads(i)
	if !ok || x.full {
		return nil
	}
	silent := d.silent(m.Silent)
	place := x.via.gate.place(n.Address)
	if !silent && !x.via.let(ctx, m.Priority, place, len(x.jobs) == 0) {
		x.full = true
		return nil
	}
	made, err := d.composer.compose(r.draft, r.audience.to[i], n.CC, n.Resend, l)
	switch {
	case err != nil:
		n.State, n.Reason = outbox.MessageFailed, err.Error()
	case silent:
		n.State, n.Reason = outbox.MessageNotSent, notSent
	default:
		n.State, n.Reason, n.Lease = outbox.MessageSending, made.note, x.lease
		x.jobs[outbox.AddressKey(n.Address)] = &job{message: outbox.Message{Priority: m.Priority}, letter: made, lease: x.lease, via: x.via, place: place}
	}
	if err != nil && !silent {
		x.via.gate.leave(m.Priority, place)
	}
	n.MessageID, n.Subject, n.Body, n.Template = made.messageID, made.subject, made.body, made.template
	return err
}

// way is where a match's mails go now; full: nowhere.
func (d *Dispatcher) way(m *outbox.Match) (via *transport, full bool) {
	via, ok := d.route(m.Rule, m.Priority, true)
	return via, !ok && !d.silent(m.Silent)
}

const notSent = "the delivery mode lets nothing out: dry-run, or none is named"

// How long an expansion waits for a lane for its first message. It saves the queue's two more commits when lanes are busy for a
// moment, and holds nothing up when they are for long. High priority gets the next lane that is free.
const (
	patience     = 20 * time.Millisecond
	highPatience = 5 * time.Second
	mostPatient  = 2
)

func (t *transport) let(ctx context.Context, p outbox.Priority, place string, first bool) bool {
	if t.gate.tryEnter(p, place) {
		return true
	}
	if !first || !t.gate.takes(p) {
		return false
	}
	wait := patience
	if p == outbox.High {
		select {
		case t.patient <- struct{}{}:
			defer func() { <-t.patient }()
			wait = highPatience
		default: // those that wait already are enough to be first in line, and others want to be expanded
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return t.gate.enter(ctx, p, place)
}

// settleMatch stores an expansion and sends what it stored as sending. A store that fails is tried again: a match is never
// dropped for that.
func (d *Dispatcher) settleMatch(ctx, hard context.Context, t *task, x expanded) {
	var sending []outbox.Message
	err := d.persist(ctx, func() (err error) {
		sending, err = d.o.Store.Expand(hard, x.Expansion)
		return err
	})
	for _, m := range sending {
		key := outbox.AddressKey(m.Address)
		j := x.jobs[key]
		delete(x.jobs, key)
		j.message = m
		d.deliver(hard, j)
	}
	d.drop(x) // what is known already, or all
	if err != nil {
		if !errors.Is(err, outbox.ErrState) { // else an operator has cancelled it
			d.o.Store.Release([]int64{t.match.ID}, nil)
		}
		d.finished(t)
		return
	}
	if x.broken != nil {
		d.o.Report(ctx, x.broken, t.ruleName(), classTemplate)
	}
	d.told(t, x)
	d.finished(t)
}

// told tells the observer of messages that ended with their expansion, and the feeder of what is left to do.
func (d *Dispatcher) told(t *task, x expanded) {
	later := x.State == outbox.MatchPending
	for _, n := range x.Messages {
		later = later || n.State == outbox.MessageQueued
		if d.o.Observe != nil && n.State.Final() {
			d.o.Observe(ended(&t.match, n), outbox.Outcome{State: n.State, Reason: n.Reason})
		}
	}
	if later {
		d.Wake()
	}
}

// ended is a message as the store has it, but for its number.
func ended(m *outbox.Match, n outbox.NewMessage) outbox.Message {
	return outbox.Message{
		Match: m.ID, Position: m.Position, Rule: m.Rule, RuleName: m.RuleName, Address: n.Address, Resend: n.Resend,
		State: n.State, Reason: n.Reason, Due: n.Due, Expires: m.Expires, Priority: m.Priority, HoldUncertain: m.HoldUncertain,
		Recipient: n.Recipient, CC: n.CC, MessageID: n.MessageID, Subject: n.Subject, Body: n.Body,
		Template: n.Template, Committed: m.Tx.Time, Created: n.Due, Finished: n.Due,
	}
}

// persist makes a call to the store until it works, a refusal is final, or the context ends. It tells once of a store that
// fails, and once when it works again.
func (d *Dispatcher) persist(ctx context.Context, call func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := call()
		if err == nil || errors.Is(err, outbox.ErrState) {
			if lasted, news := d.storeUp.worked(); news {
				d.o.Log.InfoContext(ctx, "the store works again", "after", lasted.Round(time.Millisecond))
			}
			return err
		}
		if d.storeUp.failed() {
			d.o.Report(ctx, fmt.Errorf("storing what became of a mail: %w", err), "", classStore)
		}
		if !pause(ctx, wait) {
			return err
		}
	}
}
