package outboxtest

import (
	"slices"
	"time"

	"postman/outbox"
)

// Who is next, as the oracle sees it: it looks at all that waits before each single one that it gives out.

// oracleTurns is what is remembered of the claims of one kind.
type oracleTurns struct {
	last   [outbox.Bulk + 1]uint32 // the rule that had the last turn of a priority
	normal int                     // that were given out since the last bulk one
}

// waiting is a match or a message that is free.
type waiting struct {
	match    *oracleMatch   // of a message, what it came of
	message  *oracleMessage // nil: the match is what waits
	priority outbox.Priority
	rule     uint32
	due      time.Time
	suspect  int
	claimed  *bool
}

// waitingMatches returns the matches that are free, in the order in which they are due.
func (o *oracle) waitingMatches() []waiting {
	var all []waiting
	for _, m := range o.matches {
		if m.State == outbox.MatchPending && !m.claimed {
			all = append(all, waiting{m, nil, m.Priority, m.Rule, m.Due, m.suspect, &m.claimed})
		}
	}
	return inOrder(all)
}

// waitingMessages returns the messages that are free, in the order in which they are due.
func (o *oracle) waitingMessages() []waiting {
	var all []waiting
	for _, n := range o.messages {
		if n.State == outbox.MessageQueued && !n.claimed {
			all = append(all, waiting{n.of, n, n.Priority, n.Rule, n.Due, n.suspect, &n.claimed})
		}
	}
	return inOrder(all)
}

func inOrder(all []waiting) []waiting {
	slices.SortStableFunc(all, func(a, b waiting) int { return a.due.Compare(b.due) })
	return all
}

// like says whether something else would be as good: what is due at the same moment has no order here.
func (n *waiting) like(p outbox.Priority, rule uint32, due time.Time) bool {
	return n.priority == p && n.rule == rule && n.due.Equal(due)
}

// claim gives out what comes next of what waits, and returns it in that order. Of what would be as good the one is taken that the store gave, which given
// tells by its place in the order: what may follow depends on whether it is a suspect.
func (o *oracle) claim(t *oracleTurns, all []waiting, c outbox.Claim, given func(at int, n *waiting) bool) []waiting {
	all = slices.DeleteFunc(all, func(n waiting) bool { return n.due.After(c.Now) || c.Of != nil && !c.Of(n.rule, n.priority) })
	var order []waiting
	for len(order) < c.Most {
		next := o.next(t, all, func(n *waiting) bool { return given(len(order), n) })
		if next < 0 {
			break
		}
		order = append(order, all[next])
		*all[next].claimed = true
		all = slices.Delete(all, next, next+1)
	}
	for _, n := range order { // by whom, is for the caller to see
		*n.claimed = false
	}
	return order
}

// next is which comes next; -1: none may. Of those that are as good it is the given one, if that is among them.
func (o *oracle) next(t *oracleTurns, all []waiting, given func(*waiting) bool) int {
	best := -1
	for i, n := range all {
		if o.admits(n.suspect) && (best < 0 || slices.Compare(t.rank(n), t.rank(all[best])) < 0) {
			best = i
		}
	}
	if best < 0 {
		return -1
	}
	first := all[best]
	for i := range all {
		if n := &all[i]; given(n) && n.like(first.priority, first.rule, first.due) && o.admits(n.suspect) {
			best = i
		}
	}
	t.had(all[best])
	return best
}

// had notes a turn.
func (t *oracleTurns) had(n waiting) {
	t.last[n.priority] = n.rule
	switch n.priority {
	case outbox.Normal:
		t.normal++
	case outbox.Bulk:
		t.normal = 0
	case outbox.High:
	}
}

// rank tells the turn of what waits: what has the least is next, and of those what is due first.
func (t *oracleTurns) rank(n waiting) []int {
	stage := map[outbox.Priority]int{outbox.High: 0, outbox.Normal: 2, outbox.Bulk: 3}[n.priority]
	if n.priority == outbox.Bulk && t.normal >= 7 {
		stage = 1
	}
	had := 0
	if n.rule <= t.last[n.priority] {
		had = 1
	}
	return []int{stage, had, int(n.rule)}
}
