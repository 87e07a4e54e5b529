package daemon

import (
	"fmt"
	"time"

	"postman/outbox"
)

// holds decides which matches wait for an operator, since a mistake in a migration or an import is no reason to mail
// everybody: `hold_over` of a rule, per transaction and per minute of commit time. It belongs to the stream's goroutine.
//
// The minute slides over commit times and not over the clock: after an hour's outage the backlog is judged as it
// happened, and a replay is judged alike.
type holds struct {
	recent map[uint32][]time.Time // by rule: commit times of matches that passed, oldest first, within a minute of the last
}

func newHolds(recent map[uint32][]time.Time) *holds {
	if recent == nil {
		recent = make(map[uint32][]time.Time)
	}
	return &holds{recent: recent}
}

// hold says from which match on a rule's matches in a transaction wait, and why. Those before it pass, and are counted.
func (h *holds) hold(rule uint32, c *matched, at time.Time) (held outbox.Hold, holds bool) {
	if most := c.rule.HoldOver.Transaction; c.n > most {
		n := fmt.Sprint(c.n)
		if c.most {
			n = "more than " + fmt.Sprint(most)
		}
		return outbox.Hold{Why: fmt.Sprintf("%s matches of the rule in one transaction, over %d (hold_over.transaction): postman outbox release --rule %s, or discard", n, most, c.rule.Name)}, true
	}
	most := c.rule.HoldOver.Minute
	passed := h.minute(rule, c.n, most, at)
	if passed == c.n {
		return outbox.Hold{}, false
	}
	return outbox.Hold{
		From: c.first[passed],
		Why:  fmt.Sprintf("over %d matches of the rule in a minute (hold_over.minute): postman outbox release --rule %s, or discard", most, c.rule.Name),
	}, true
}

// minute says how many of n more matches of the rule at t pass, and counts these.
func (h *holds) minute(rule uint32, n, most int, t time.Time) (passed int) {
	recent := h.recent[rule]
	old := 0
	for old < len(recent) && t.Sub(recent[old]) >= time.Minute {
		old++
	}
	recent = recent[old:]
	passed = max(0, min(n, most-len(recent)))
	for range passed {
		recent = append(recent, t)
	}
	h.recent[rule] = recent
	return passed
}
