package daemon

import (
	"fmt"
	"time"

	"postman/outbox"
)

// holds decides which matches wait for an operator, since a mistake in a migration or an import is no reason to mail
// everybody: `hold_over` of a rule, per transaction, per minute of commit time, and for one row. It belongs to the stream's goroutine.
//
// Time is that of commits and not of the clock: after an hour's outage the backlog is judged as it happened.
type holds struct {
	recent map[uint32][]time.Time // by rule: commit times of matches that passed, oldest first, within a minute of the last
	rows   rowLog
	keep   time.Duration // after which what is held expires; 0: never
}

func newHolds(recent map[uint32][]time.Time, keep time.Duration) *holds {
	if recent == nil {
		recent = make(map[uint32][]time.Time)
	}
	return &holds{recent: recent, rows: newRowLog(), keep: keep}
}

// hold says which of a rule's matches in a transaction wait, and why; the first that takes a match does. The others pass, and are counted.
func (h *holds) hold(rule uint32, c *matched, tx outbox.Tx) []outbox.Hold {
	over := c.rule.HoldOver
	if c.n > over.Transaction {
		n := fmt.Sprint(c.n)
		if c.most {
			n = "more than " + fmt.Sprint(over.Transaction)
		}
		why := fmt.Sprintf("%s matches of the rule in one transaction, over %d (hold_over.transaction)", n, over.Transaction)
		return []outbox.Hold{h.held(outbox.HeldTransaction, tx, 0, why)}
	}
	var all []outbox.Hold
	loops := h.loops(rule, c, tx.Time)
	if len(loops) > 0 {
		one := h.held(outbox.HeldRow, tx, rowSpan, fmt.Sprintf("over %d matches of the rule for one row in ten minutes (hold_over.row)", over.Row))
		one.Only = loops
		all = append(all, one)
	}
	passed := h.minute(rule, c.n-len(loops), over.Minute, tx.Time)
	for _, ordinal := range c.first {
		switch {
		case len(loops) > 0 && loops[0] == ordinal:
			loops = loops[1:]
		case passed == 0:
			one := h.held(outbox.HeldMinute, tx, time.Minute, fmt.Sprintf("over %d matches of the rule in a minute (hold_over.minute)", over.Minute))
			one.From = ordinal
			return append(all, one)
		default:
			passed--
		}
	}
	return all
}

func (h *holds) held(cause outbox.HoldCause, tx outbox.Tx, calm time.Duration, why string) outbox.Hold {
	one := outbox.Hold{Cause: cause, Tx: tx, Calm: calm, Why: why}
	if h.keep > 0 {
		one.Expires = time.Now().Add(h.keep) // people need the time, so it is the clock's
	}
	return one
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

// loops are the ordinals of matches about a row that comes again and again: an application that updates it in answer to the mail, or a value
// that flaps. All of its matches count, held ones too, so that a loop waits until it has been calm.
func (h *holds) loops(rule uint32, c *matched, at time.Time) (over []uint64) {
	for i, row := range c.rows {
		if row != 0 && h.rows.again(rowKey{rule, row}, at, c.rule.HoldOver.Row) {
			over = append(over, c.first[i])
		}
	}
	return over
}
