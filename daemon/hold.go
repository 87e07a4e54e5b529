package daemon

import (
	"fmt"
	"time"
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

// minute says why one more match of the rule at t is held, or "" and counts it as passed.
func (h *holds) minute(rule uint32, most int, t time.Time) string {
	passed := h.recent[rule]
	old := 0
	for old < len(passed) && t.Sub(passed[old]) >= time.Minute {
		old++
	}
	passed = passed[old:]
	if len(passed) >= most {
		h.recent[rule] = passed
		return fmt.Sprintf("over %d matches of the rule in a minute (hold_over.minute); release or discard with postman outbox", most)
	}
	h.recent[rule] = append(passed, t)
	return ""
}

// undo takes back what minute counted for a transaction that is held whole or muted.
func (h *holds) undo(rule uint32, n int) {
	passed := h.recent[rule]
	h.recent[rule] = passed[:max(0, len(passed)-n)]
}
