package dispatch

import (
	"context"
	"fmt"
	"time"

	"postman/outbox"
)

// transport is the way of mails to one relay: what waits for it, the gate that lets it through, and the connections.
type transport struct {
	relay Relay
	gate  *gate
	lanes *lanes

	patient chan struct{} // has room for expansions that wait long for a place

	room room // the dispatcher's mu guards it
}

func (d *Dispatcher) newTransports() {
	relays := d.o.Relays
	if len(relays) == 0 { // a dry run
		relays = []Relay{{}}
	}
	for _, r := range relays {
		r.Limits = r.Limits.Or(defaultLimits)
		via := &transport{relay: r, gate: newGate(r.Limits, d.Wake), patient: make(chan struct{}, mostPatient), room: newRoom(r.Limits.PerDomain)}
		via.lanes = &lanes{
			relay: r, timeouts: d.o.Timeouts, alone: make(chan struct{}, 1), connections: via.gate.connections, connected: via.gate.connected, late: func() { d.stuck(via) },
			refused: func(ctx context.Context, err error, open int) *reply { return d.refused(ctx, via, err, open) },
			finish: func(ctx context.Context, j *job, r reply, started time.Time) {
				d.finish(ctx, j, r, started)
			},
		}
		d.transports = append(d.transports, via)
	}
}

// most is how many messages for it are kept in memory.
func (t *transport) most() int {
	return max(mostMessages*t.relay.Limits.Connections, 2*t.gate.capacity())
}

// run brings what is ready to the lanes until ctx ends.
func (t *transport) run(ctx, hard context.Context, d *Dispatcher) {
	for {
		jobs := t.gate.take(ctx)
		if len(jobs) == 0 {
			return
		}
		d.startAll(ctx, hard, t, jobs)
	}
}

// route is the way of a rule's mails: the relay that the rule names, or else the first by preference that takes mails of this priority. When none does, ok is
// false, and it is the one that would be the first.
//
// A relay that is tried again after trouble gets a fresh mail; another that works comes first for all others: one that it may have stumbled over
// must not be what it is tried with for ever. One that hangs comes last.
func (d *Dispatcher) route(rule uint32, p outbox.Priority, fresh bool) (via *transport, ok bool) {
	if via := d.named(rule); via != nil {
		return via, via.gate.takes(p)
	}
	for _, via := range d.transports {
		switch {
		case via.relay.ByName || !via.gate.takes(p) || via.gate.hangs():
		case fresh || !via.gate.probed():
			return via, true
		}
	}
	for _, via := range d.transports {
		if !via.relay.ByName && via.gate.takes(p) {
			return via, true
		}
	}
	return d.transports[0], false
}

// named is the relay that a rule names; nil: none.
func (d *Dispatcher) named(rule uint32) *transport {
	if d.o.Route == nil {
		return nil
	}
	name := d.o.Route(rule)
	if name == "" {
		return nil
	}
	for _, via := range d.transports {
		if via.relay.Name == name {
			return via
		}
	}
	return nil
}

// stray is the relay that a rule named which is there no more. It is a rule that was deleted: others name relays that there are.
func (d *Dispatcher) stray(rule uint32) string {
	if d.o.Route == nil || d.named(rule) != nil {
		return ""
	}
	return d.o.Route(rule)
}

// trouble opens a relay's breaker and tells people, once. What waits for it goes another way, or waits in the store.
func (d *Dispatcher) trouble(ctx context.Context, via *transport, why string) {
	err := fmt.Errorf("relay %s: %s; nothing is sent over it until it answers, and no message is lost", via.relay, why)
	via.lanes.reset() // what they are worth now, a new one will tell
	if via.gate.trouble(err) && ctx.Err() == nil {
		d.o.Report(ctx, err, "", classRelay)
	}
	for _, j := range via.lanes.empty() { // the relay has heard of none of them
		d.finish(ctx, j, reply{phase: dialing, err: err}, time.Now())
	}
	d.turnAway(via, false)
}

// stuck notes that mails waited for connections to a relay until their leases were over. While it says nothing at all, those that may go another way do; its
// breaker opens when conversations break.
func (d *Dispatcher) stuck(via *transport) {
	if !via.gate.stuck() {
		return
	}
	d.o.Log.Warn("the relay answers none of the mails that it has: others go another way, where there is one", "relay", via.relay.String())
	for _, j := range via.gate.drain(false) {
		if way, _ := d.route(j.message.Rule, j.message.Priority, false); way != via || !via.gate.push(j) {
			d.giveUp(j)
		}
	}
}

// submit has a claimed message whose bytes are there wait for its relay.
func (d *Dispatcher) submit(j *job) {
	j.place = j.via.gate.place(j.message.Address)
	if !j.via.gate.push(j) {
		d.giveUp(j)
	}
}

// giveUp gives claimed messages that were not started back to the store.
func (d *Dispatcher) giveUp(jobs ...*job) {
	for _, j := range jobs {
		d.o.Store.Release(nil, []int64{j.message.ID})
		d.left(j.via, &j.message)
	}
	if len(jobs) > 0 {
		d.Wake() // they may go another way
	}
}

// turnAway gives back what waits for a relay; where shut is set, only what its gate does not let through any more.
func (d *Dispatcher) turnAway(via *transport, shut bool) {
	d.giveUp(via.gate.drain(shut)...)
	if via.relay.Limits.PerDomain == 0 {
		return
	}
	d.mu.Lock()
	ids := via.room.turnAway(func(p outbox.Priority) bool { return !shut || via.gate.bars(p) })
	d.mu.Unlock()
	if len(ids) > 0 {
		d.o.Store.Release(nil, ids)
		d.Wake()
	}
}

// countMonth learns what the relays took in this month.
func (d *Dispatcher) countMonth(ctx context.Context) error {
	now := time.Now()
	used, err := d.o.Store.Usage(ctx, now)
	if err != nil {
		return fmt.Errorf("reading what the relays took in this month: %w", err)
	}
	for _, via := range d.transports {
		via.gate.beginMonth(monthOf(now), via.relay.used(used))
	}
	return nil
}
