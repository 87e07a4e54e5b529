package daemon

import (
	"strings"
	"testing"
	"time"

	"postman/rules"
)

func TestHoldMinuteSlidesOverCommitTimes(t *testing.T) {
	t.Parallel()
	h := newHolds(nil)
	start := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for i, c := range []struct {
		at   int
		held bool
	}{
		{0, false},
		{10, false},
		{20, false},  // three a minute pass
		{30, true},   // the fourth does not
		{59, true},   // and held ones do not count
		{60, false},  // the first is a minute old
		{61, true},   // the second is not
		{70, false},  // now it is
		{600, false}, // long after
	} {
		if passed := h.minute(7, 1, 3, at(c.at)); (passed == 0) != c.held {
			t.Errorf("step %d, second %d: %d passed; want held %v", i, c.at, passed, c.held)
		}
	}
	if h.minute(8, 1, 3, at(30)) == 0 {
		t.Error("another rule is held too")
	}
}

// What a transaction has too much of waits: all of it, over the transaction's measure, and the excess over the minute's.
func TestHoldOfATransaction(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rule := &rules.Rule{HoldOver: rules.HoldOver{Transaction: 5, Minute: 7}}
	h := newHolds(nil)
	for i, c := range []struct {
		matches int
		cut     uint64 // from here on they are rolled back
		again   int    // come after that
		from    uint64
		why     string // empty: nothing waits
	}{
		{6, 100, 0, 0, "6 matches of the rule in one transaction, over 5"},
		{6, 4, 0, 0, ""}, // four pass
		{5, 100, 0, 3, "over 7 matches of the rule in a minute"}, // three more pass
		{2, 100, 0, 0, "in a minute"},
		{9, 8, 0, 0, "more than 5 matches of the rule in one transaction"},
		{9, 5, 1, 0, "6 matches of the rule in one transaction"},
		{9, 2, 1, 0, "in a minute"},
	} {
		n := &matched{rule: rule}
		next := uint64(0)
		for range c.matches {
			n.add(next)
			next++
		}
		if c.cut < next {
			n.cut(c.cut)
			next = c.cut
		}
		for range c.again {
			n.add(next)
			next++
		}
		held, holds := h.hold(1, n, now)
		if holds != (c.why != "") || held.From != c.from || !strings.Contains(held.Why, c.why) {
			t.Errorf("transaction %d: %+v, %v; want it held from %d on, %q", i, held, holds, c.from, c.why)
		}
	}
}
