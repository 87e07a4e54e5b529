package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postman/outbox"
	"postman/rules"
)

func TestHoldMinuteSlidesOverCommitTimes(t *testing.T) {
	t.Parallel()
	h := newHolds(nil, 0)
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
	rule := &rules.Rule{HoldOver: rules.HoldOver{Transaction: 5, Minute: 7, Row: 5}}
	h := newHolds(nil, 0)
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
			n.add(next, 0)
			next++
		}
		if c.cut < next {
			n.cut(c.cut)
			next = c.cut
		}
		for range c.again {
			n.add(next, 0)
			next++
		}
		var held outbox.Hold
		all := h.hold(1, n, outbox.Tx{Time: now})
		if len(all) > 0 {
			held = all[0]
		}
		if (len(all) == 1) != (c.why != "") || held.From != c.from || !strings.Contains(held.Why, c.why) {
			t.Errorf("transaction %d: %+v; want it held from %d on, %q", i, all, c.from, c.why)
		}
	}
}

// More matches for one row than may be, in ten minutes of commit time, are a loop until it has calmed down; other rows, and other rules, are not.
func TestHoldOfALoop(t *testing.T) {
	t.Parallel()
	h := newHolds(nil, 0)
	start := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	rule := &rules.Rule{HoldOver: rules.HoldOver{Transaction: 100, Minute: 100, Row: 2}}
	for i, c := range []struct {
		minute int
		rows   []uint64
		held   []uint64 // ordinals
	}{
		{0, []uint64{7, 8, 9}, nil},
		{1, []uint64{7, 7, 8, 9}, []uint64{1}},
		{2, []uint64{6, 7, 0, 0, 0}, []uint64{1}}, // 0 has no primary key
		{10, []uint64{7}, []uint64{0}},            // those that were held count as well
		{30, []uint64{7, 7, 7}, []uint64{2}},
		{41, []uint64{7}, nil},
	} {
		n := &matched{rule: rule}
		for ordinal, row := range c.rows {
			n.add(uint64(ordinal), row)
		}
		all := h.hold(1, n, outbox.Tx{Time: start.Add(time.Duration(c.minute) * time.Minute)})
		var held []uint64
		for ordinal := range uint64(len(c.rows)) {
			if slices.ContainsFunc(all, func(h outbox.Hold) bool { return h.Takes(ordinal) }) {
				held = append(held, ordinal)
			}
		}
		if !slices.Equal(held, c.held) || n.waits(all) != len(c.held) {
			t.Errorf("step %d: held are %v; want %v", i, held, c.held)
		}
	}
	other := &matched{rule: rule}
	other.add(0, 7)
	if all := h.hold(2, other, outbox.Tx{Time: start.Add(41 * time.Minute)}); len(all) > 0 {
		t.Errorf("another rule: %+v", all)
	}
}

// Where a loop and too much of a minute come together, a match of the loop is none of the minute's.
func TestHoldOfALoopBesideAMinute(t *testing.T) {
	t.Parallel()
	h := newHolds(nil, time.Hour)
	n := &matched{rule: &rules.Rule{HoldOver: rules.HoldOver{Transaction: 100, Minute: 3, Row: 1}}}
	for ordinal, row := range []uint64{5, 5, 6, 7, 8, 5} {
		n.add(uint64(ordinal), row)
	}
	all := h.hold(1, n, outbox.Tx{Time: time.Now()})
	if len(all) != 2 || !slices.Equal(all[0].Only, []uint64{1, 5}) || all[1].From != 4 || all[0].Expires.IsZero() {
		t.Errorf("held: %+v", all)
	}
}

// A log of rows forgets those that did not match for longest, and none that loops.
func TestRowLogIsBounded(t *testing.T) {
	t.Parallel()
	l := newRowLog()
	l.most = 10
	now := time.Now()
	for i := range uint64(1000) {
		over := l.again(rowKey{1, 1}, now, 5)
		if over != (i >= 5) {
			t.Fatalf("time %d: %v", i, over)
		}
		l.again(rowKey{1, 100 + i}, now, 5)
		if n := len(l.young) + len(l.old); n > 2*l.most {
			t.Fatalf("it holds %d rows", n)
		}
	}
	if n := len(l.young[rowKey{1, 1}].earlier); n > 5 {
		t.Errorf("it remembers %d times", n)
	}
}
