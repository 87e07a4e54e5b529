package dispatch

import (
	"cmp"
	"log/slog"
	"sync"
	"time"
)

// betweenDeaths is the least time between two lines about dead mails of a rule at a relay.
const betweenDeaths = time.Minute

// deaths tells people of mails that died: of the first of a rule at a relay at once, of those that follow by their number, once a minute. Safe for
// many goroutines.
type deaths struct {
	log *slog.Logger

	mu    sync.Mutex
	all   map[death]*toll
	ended bool
}

// death is what dead mails are told by.
type death struct{ rule, relay string }

// toll is what died since the last line.
type toll struct {
	mails int
	words string // why the last one did
	next  *time.Timer
}

// note takes note of a mail that has died, and is stored so.
func (d *deaths) note(o *outcome) {
	of := death{rule: o.message.RuleName}
	if o.Attempt != nil {
		of.relay = o.Attempt.Relay
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.all[of]; t != nil {
		t.mails++
		t.words = o.Reason
		return
	}
	t := &toll{mails: 1, words: o.Reason}
	d.tell(of, t)
	if d.ended {
		return
	}
	if d.all == nil {
		d.all = make(map[death]*toll)
	}
	d.all[of] = t
	t.next = time.AfterFunc(betweenDeaths, func() { d.again(of) })
}

// again tells what has died meanwhile, if anything has.
func (d *deaths) again(of death) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.all[of]
	switch {
	case t == nil:
	case t.mails == 0:
		delete(d.all, of)
	default:
		d.tell(of, t)
		t.next.Reset(betweenDeaths)
	}
}

// end tells what was to be told later.
func (d *deaths) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for of, t := range d.all {
		t.next.Stop()
		if t.mails > 0 {
			d.tell(of, t)
		}
	}
	d.all, d.ended = nil, true
}

// tell is called with mu held.
func (d *deaths) tell(of death, t *toll) {
	d.log.Warn("mails have died, see postman outbox list --state dead", "mails", t.mails, "rule", of.rule, "relay", cmp.Or(of.relay, "none"), "reason", t.words)
	t.mails = 0
}
