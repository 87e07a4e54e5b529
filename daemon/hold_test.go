package daemon

import (
	"testing"
	"time"
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
		if why := h.minute(7, 3, at(c.at)); (why != "") != c.held {
			t.Errorf("step %d, second %d: held %q; want held %v", i, c.at, why, c.held)
		}
	}
	if why := h.minute(8, 3, at(30)); why != "" {
		t.Errorf("another rule is held too: %s", why)
	}
}

func TestHoldUndo(t *testing.T) {
	t.Parallel()
	h := newHolds(nil)
	now := time.Now()
	for range 3 {
		h.minute(1, 3, now)
	}
	h.undo(1, 2)
	for i := range 2 {
		if why := h.minute(1, 3, now); why != "" {
			t.Errorf("match %d after the undo is held: %s", i, why)
		}
	}
	if h.minute(1, 3, now) == "" {
		t.Error("the undo gave back more than it was asked for")
	}
	h.undo(9, 5) // a rule that never matched
}
