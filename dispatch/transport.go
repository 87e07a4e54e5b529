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

	claimed int // messages in memory that are to go this way and are not started yet; the dispatcher's mu guards it
}

func (d *Dispatcher) newTransports() {
	relays := d.o.Relays
	if len(relays) == 0 { // a dry run
		relays = []Relay{{}}
	}
	for _, r := range relays {
		r.Limits = r.Limits.Or(defaultLimits)
		via := &transport{relay: r, gate: newGate(r.Limits, d.Wake), patient: make(chan struct{}, mostPatient)}
		via.lanes = &lanes{
			relay: r, timeouts: d.o.Timeouts, connections: via.gate.connections, connected: via.gate.pipelines,
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
// must not be what it is tried with for ever.
func (d *Dispatcher) route(rule uint32, p outbox.Priority, fresh bool) (via *transport, ok bool) {
	if via := d.named(rule); via != nil {
		return via, via.gate.takes(p)
	}
	for _, via := range d.transports {
		switch {
		case via.relay.ByName || !via.gate.takes(p):
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
	d.giveUp(via.gate.drain(false)...)
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
		d.left(j.via, 1)
	}
	if len(jobs) > 0 {
		d.Wake() // they may go another way
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
		via.gate.beginMonth(monthOf(now), used[via.relay.String()])
	}
	return nil
}
