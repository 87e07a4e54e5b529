package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"postman/bounce"
	"postman/outbox"
)

// deliver brings a message that is `sending` in the store, and has passed the gate, to a lane.
func (d *Dispatcher) deliver(hard context.Context, j *job) {
	d.sending.Add(1)
	if err := d.address(j); err != nil {
		d.finish(hard, j, reply{phase: writing, err: err}, time.Now())
		return
	}
	d.label(j)
	j.via.lanes.give(hard, j)
}

// label names the mail to a provider that tells of it later. The bytes that are kept stay without: the next attempt may go another way.
func (d *Dispatcher) label(j *job) {
	if field := j.via.relay.TokenField; field != "" {
		j.body = slices.Concat([]byte(field+": "+bounce.Token(d.o.Store.Secret(), j.message.ID)+"\r\n"), j.body)
	}
}

// finish takes what a conversation came to.
func (d *Dispatcher) finish(hard context.Context, j *job, r reply, started time.Time) {
	o := d.judge(hard, j, r, started)
	if r.err == nil && r.phase == dotted {
		j.via.gate.took(time.Since(started))
	}
	d.outcomes <- outcome{j.message, o}
	j.via.gate.leave(j.message.Priority, j.place)
	d.sending.Done()
}

// refused says what it means that the relay could not be connected to. One that turns a connection down while it has others of ours, or that cannot be
// reached while it answers on these, is well: there are too many, and the mail goes over one of those (nil).
func (d *Dispatcher) refused(ctx context.Context, via *transport, err error, open int) *reply {
	r := &reply{phase: dialing, err: err}
	refusal, said := errors.AsType[*textproto.Error](err)
	if said {
		r.code, r.text, r.err = refusal.Code, refusal.Msg, nil
	}
	if open == 0 || ctx.Err() != nil || said && refusal.Code/100 != 4 || !said && via.gate.fails() {
		return r
	}
	if via.gate.narrow(open) {
		d.o.Log.InfoContext(ctx, "the relay takes fewer connections than it may have", "relay", via.relay.String(), "connections", open, "reply", r.String())
	}
	return nil
}

// stale says whether a reply on a connection that had mails before is about that connection, and about no mail: it broke before
// the dot, the relay closes it for having been idle, or it took as many mails as it takes over one (OpenSMTPD's 452 to MAIL).
func (r reply) stale() bool {
	if r.err != nil {
		return r.phase < dotted && !errors.Is(r.err, errLate)
	}
	return r.code == 421 && r.phase <= naming || r.code == 452 && r.phase == mailing && !r.own
}

// errAddress says that what the store has is no address. It was one when it was stored.
var errAddress = errors.New("the stored address is none")

// errSilent keeps the promise that a dry run sends nothing, should a way to here ever be left open.
var errSilent = errors.New("it must not be sent: " + notSent)

// address says whom the mail goes to: to one address for all in mode redirect.
func (d *Dispatcher) address(j *job) error {
	e := envelope{from: bounce.Sender(d.o.Bounce, d.o.Store.Secret(), j.message.ID)}
	if d.silent(j.message.Silent) {
		return errSilent
	}
	var err error
	if e.to, err = parseRecipient(j.message.Address); err != nil {
		return fmt.Errorf("%w: %w", errAddress, err)
	}
	for _, s := range j.message.CC {
		a, err := mailboxBy(parseRecipient, s)
		if err != nil {
			return fmt.Errorf("%w: %w", errAddress, err)
		}
		e.cc = append(e.cc, a.Address)
	}
	j.envelope, j.body, j.last = e, j.letter.body, d.last(&j.message)
	if len(j.body) == 0 {
		j.body = j.message.Body
	}
	if d.o.Mode == Redirect {
		j.envelope, j.body = envelope{from: e.from, to: d.o.Redirect}, redirected(j.body, d.o.Redirect, e)
	}
	return nil
}

// last says whether a mail that is put off now would not go out any more.
func (d *Dispatcher) last(m *outbox.Message) bool {
	wait, more := d.o.Retry.after(m.Attempts + 1)
	return !more || !m.Expires.IsZero() && time.Until(m.Expires) < max(wait, greylisted)*5/4 // a quarter is jitter
}

// judge says what a reply makes of the message, and tells the gate how the relay does.
func (d *Dispatcher) judge(ctx context.Context, j *job, r reply, started time.Time) outbox.Outcome {
	m := &j.message
	o := outbox.Outcome{Message: m.ID, Reply: r.text, Attempt: d.attempt(j.via, r, started)}
	switch {
	case errors.Is(r.err, errAddress), errors.Is(r.err, errSilent):
		o.State, o.Reason, o.Attempt = outbox.MessageFailed, r.err.Error(), nil
		return o
	case errors.Is(r.err, errLate):
		if r.phase > dialing {
			j.via.gate.moves()
		}
		return d.again(o, "no lane was free in time")
	case ctx.Err() != nil && r.err != nil && r.phase < dotted:
		return d.again(o, "postman was stopped before the final dot")
	}
	if r.err == nil {
		j.via.gate.heard()
	} else {
		j.via.gate.moves()
	}
	if c := r.class(); (c == permanent || c == denied) && !r.own {
		j.via.gate.refuses(r.String())
	}
	switch r.class() {
	case sent:
		o.State, o.Burned, o.Reason = outbox.MessageSent, true, j.letter.note
		if len(r.refused) > 0 {
			o.Reason = "the relay refused copies: " + strings.Join(r.refused, "; ")
		}
	case permanent:
		o.State, o.Burned, o.Reason = outbox.MessageDead, true, r.String()
	case temporary:
		d.retry(&o, m, r, outbox.MessageQueued)
	case unknown:
		d.retry(&o, m, r, outbox.MessageUncertain)
	case denied:
		if j.via.gate.denied() {
			d.trouble(ctx, j.via, r.String())
			d.spare(&o, m, r)
			return o
		}
		d.deny(&o, m, r)
	case trouble:
		if r.err == nil && m.Reply == r.text && j.via.gate.tookSince(m.Due) { // others went through since it was told the same: it is the mail's
			d.retry(&o, m, r, outbox.MessageQueued)
			return o
		}
		d.spare(&o, m, r)
		if r.err != nil && r.phase > dialing && j.via.lanes.count() > 0 && !j.via.gate.fails() { // it answers on others
			return o
		}
		if !d.slower(ctx, j, r, started, &o) {
			d.trouble(ctx, j.via, r.String())
		}
		return o
	}
	switch {
	case r.own:
		o.Attempt = nil
	case r.err == nil:
		d.works(ctx, j.via, o.State == outbox.MessageSent)
	case j.via.gate.broke(): // names are all that it takes
		d.trouble(ctx, j.via, r.String())
	}
	return o
}

func (d *Dispatcher) attempt(via *transport, r reply, started time.Time) *outbox.Attempt {
	if r.phase == dialing {
		return nil // nothing was said about this message
	}
	a := &outbox.Attempt{Relay: via.relay.String(), Started: started, Took: time.Since(started), Code: r.code, Text: r.String()}
	if d.o.Mode == Redirect {
		a.Redirected = d.o.Redirect
	}
	if r.err == nil {
		a.Enhanced, a.Text = r.enhanced(), oneLine(r.text)
	}
	return a
}

// again puts the message back as if nothing had been.
func (d *Dispatcher) again(o outbox.Outcome, reason string) outbox.Outcome {
	o.State, o.Due, o.Reason, o.Attempt = outbox.MessageQueued, time.Now(), reason, nil
	return o
}

// retry has the message tried again after its next pause. One that may have arrived (uncertain) waits for an operator where
// its rule says so. When there is no next pause it is dead.
func (d *Dispatcher) retry(o *outbox.Outcome, m *outbox.Message, r reply, state outbox.MessageState) {
	n := m.Attempts + 1
	wait, more := d.o.Retry.after(n)
	if r.greylists() {
		wait = max(wait, greylisted)
	}
	o.Burned, o.Reason = true, r.String()
	switch {
	case state == outbox.MessageUncertain && m.HoldUncertain:
		o.State = state
	case more:
		o.State, o.Due = outbox.MessageQueued, time.Now().Add(jittered(wait))
	default:
		o.State, o.Reason = outbox.MessageDead, fmt.Sprintf("given up after %d attempts: %s", n, r)
	}
}

// spare puts a message back without an attempt: what was wrong was the relay's. One that the relay has heard of waits for a
// while, so that others come first when the relay is tried again: it may be the mail that the relay stumbles over. Should the
// relay answer so for longer than a message is tried otherwise, it counts all the same: every message ends.
func (d *Dispatcher) spare(o *outbox.Outcome, m *outbox.Message, r reply) {
	if r.phase != dialing && time.Since(m.Created) > d.o.Retry.GiveUp {
		d.retry(o, m, r, outbox.MessageQueued)
		return
	}
	o.State, o.Reason, o.Due = outbox.MessageQueued, r.String(), time.Now()
	if r.phase != dialing {
		o.Due = o.Due.Add(jittered(d.o.Retry.Pauses[0]))
	}
}

// deny has a message tried again that the relay refused for what may be its own reasons. Where that was so the last time, too, and others went through
// meanwhile, it is the mail's.
func (d *Dispatcher) deny(o *outbox.Outcome, m *outbox.Message, r reply) {
	if last := (reply{text: m.Reply}); !last.policy() {
		d.retry(o, m, r, outbox.MessageQueued)
		return
	}
	o.State, o.Burned, o.Reason = outbox.MessageDead, true, r.String()
}

// slowDown is how long a mail waits that the relay found too much.
const slowDown = time.Second

// slower has a relay that throttles be given less; false: it has the least already, or it is other trouble.
func (d *Dispatcher) slower(ctx context.Context, j *job, r reply, started time.Time, o *outbox.Outcome) bool {
	via, m := j.via, &j.message
	if r.err != nil || r.phase == dialing || !throttles(r.phase, r.code) {
		return false
	}
	news, ok := via.gate.throttled(started, errors.New(r.String()))
	if news {
		d.o.Log.InfoContext(ctx, "the relay throttles: it gets fewer connections, or is left alone for a while", "relay", via.relay.String(), "connections", via.gate.connections(outbox.Normal), "reply", r.String())
	}
	if ok && !o.Burned {
		o.Due = time.Now().Add(jittered(slowDown))
		if _, another := d.route(m.Rule, m.Priority, false); !another { // others come first when it goes on: it may be this mail that it stumbles over
			o.Due = o.Due.Add(via.gate.pausedFor())
		}
	}
	d.turnAway(via, true)
	return ok
}

// works notes that the relay answered to a mail, and whether it took it.
func (d *Dispatcher) works(ctx context.Context, via *transport, taken bool) {
	if lasted, news := via.gate.decided(taken); news {
		d.o.Log.InfoContext(ctx, "the relay takes mail again", "relay", via.relay.String(), "after", lasted.Round(time.Millisecond))
	}
	if !taken {
		return
	}
	news := via.gate.sent()
	d.turnAway(via, true) // the rest of the month's quota may be for high priority
	if news {
		d.o.Report(ctx, fmt.Errorf("relay %s: 80 %% of the month's quota is used: postman status shows how much", via.relay), "", classRelay)
	}
}
