package outboxtest

import (
	"errors"
	"fmt"
	"time"

	"postman/outbox"
)

// spill stores n matches of a transaction that is not committed, numbered from first on.
func (r *rig) spill(xid uint32, first, n int, change ...func(*outbox.NewMatch)) outbox.Spill {
	r.Helper()
	key := outbox.Spill{Source: r.source.ID, Epoch: r.source.Epoch, XID: xid}
	var matches []outbox.NewMatch
	for i := range n {
		m := r.match(change...)
		m.Ordinal = uint64(first + i)
		matches = append(matches, m)
	}
	r.ok(r.store.Spill(r.Context(), key, outbox.Provisional{Matches: matches, Texts: texts}))
	return key
}

// commit appends the transaction of a spill with one more match.
func (r *rig) commit(key outbox.Spill, ordinal int, change ...func(*outbox.Transaction)) []outbox.Match {
	r.Helper()
	tx := r.tx(r.match())
	tx.Matches[0].Ordinal, tx.XID, tx.Spilled = uint64(ordinal), key.XID, &key
	for _, f := range change {
		f(&tx)
	}
	claimed, err := r.store.Append(r.Context(), r.batch(tx), 10)
	r.ok(err)
	return claimed
}

// nothing fails the test when anything of a spill is to be seen.
func (r *rig) nothing() {
	r.Helper()
	if n := len(r.matches(outbox.Filter{})) + len(r.matches(outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchPending, outbox.MatchHeld}})); n != 0 {
		r.Errorf("%d matches are listed", n)
	}
	counts, err := r.store.Count(r.Context())
	r.ok(err)
	for state, n := range counts.Matches {
		if n != 0 {
			r.Errorf("%d matches are counted as %s", n, state)
		}
	}
	recent, err := r.store.RecentMatches(r.Context(), past.Add(-time.Hour))
	r.ok(err)
	if len(recent) != 0 {
		r.Errorf("recent are %v", recent)
	}
	for _, a := range []outbox.Action{outbox.Cancel, outbox.Release, outbox.Discard, outbox.Retry} {
		if acted := r.act(a, outbox.Filter{}); acted != (outbox.Acted{}) {
			r.Errorf("%s moved %+v", a, acted)
		}
	}
	if n, err := r.store.Blank(r.Context(), past.Add(time.Hour)); n != 0 || err != nil {
		r.Errorf("%d were blanked (%v)", n, err)
	}
	// Last, so that the searches for what is due have passed it by.
	if matches, _ := r.claimed(); len(matches) != 0 {
		r.Errorf("%v were claimed", matches)
	}
	next, err := r.store.NextDue(r.Context(), nil, nil)
	r.ok(err)
	if !next.IsZero() {
		r.Errorf("something is due at %v", next)
	}
}

func testSpillIsHidden(r *rig) {
	r.spill(7, 0, 300)
	r.spill(7, 300, 3, func(m *outbox.NewMatch) { m.State = outbox.MatchHeld })
	r.spill(8, 0, 2, func(m *outbox.NewMatch) {
		m.State, m.Due, m.Expires, m.Blanked = outbox.MatchFailed, time.Now().Add(time.Hour), past, []byte("blanked")
	})
	r.nothing()
	bad := outbox.Spill{Source: r.source.ID, Epoch: 2, XID: 9}
	if err := r.store.Spill(r.Context(), bad, outbox.Provisional{Matches: []outbox.NewMatch{r.match()}, Texts: texts}); !errors.Is(err, outbox.ErrCheckpoint) {
		r.Errorf("a spill of another epoch gave %v", err)
	}
}

func testSpillIsAdopted(r *rig) {
	key := r.spill(7, 0, 300)
	r.spill(7, 300, 1, func(m *outbox.NewMatch) { m.Silent = true })
	r.nothing()
	other := r.spill(8, 0, 1) // stays hidden
	got := r.commit(key, 301)
	if len(got) != 1 || got[0].Position.Ordinal != 301 {
		r.Fatalf("claimed %+v", got)
	}
	matches, _ := r.claimed()
	if len(matches) != 301 {
		r.Fatalf("%d spilled matches were claimed after the commit", len(matches))
	}
	for i, m := range r.matches(outbox.Filter{}) {
		if m.Position.LSN != r.lsn-50 || m.Tx.End != r.lsn || !m.Tx.Time.Equal(past) || m.Position.Ordinal != uint64(301-i) {
			r.Fatalf("match %d of the list is at %s, committed at %v", i, m.Position, m.Tx.Time)
		}
	}
	for _, m := range r.matches(outbox.Filter{}) {
		if want := m.Position.Ordinal == 300; m.Silent != want {
			r.Errorf("that spilled match %d is silent: %v", m.Position.Ordinal, m.Silent)
		}
	}
	// Spilled again under the same number, it is another transaction.
	r.spill(7, 0, 1)
	r.commit(key, 1)
	r.commit(other, 1)
	if n := len(r.matches(outbox.Filter{})); n != 306 {
		r.Errorf("there are %d matches", n)
	}
	// A stream that starts again at the checkpoint brings the last one again, spills it, and is passed over.
	again := r.spill(8, 0, 1)
	r.lsn -= 100
	if claimed := r.commit(again, 1); len(claimed) != 0 {
		r.Errorf("claimed again were %+v", claimed)
	}
	if n := len(r.matches(outbox.Filter{})); n != 306 {
		r.Errorf("there are %d matches after the last transaction came again", n)
	}
}

func testSpillIsSettled(r *rig) {
	states := func() map[string]int {
		n := make(map[string]int)
		for _, m := range r.matches(outbox.Filter{}) {
			n[fmt.Sprintf("%s %s: %s", m.RuleName, m.State, m.Reason)]++
		}
		return n
	}
	prepare := func(xid uint32) outbox.Spill {
		r.spill(xid, 0, 3)
		r.spill(xid, 3, 2, func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchHeld, "minute" })
		r.spill(xid, 5, 1, func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchFailed, "evaluating" })
		return r.spill(xid, 6, 1, func(m *outbox.NewMatch) { m.Rule, m.Blanked = r.careful, []byte("blanked") })
	}
	settle := func(key outbox.Spill, z outbox.Settlement) outbox.Spill {
		r.ok(r.store.Settle(r.Context(), key, z))
		r.ok(r.store.Settle(r.Context(), key, z)) // as after an error
		return key
	}
	held := func(t *outbox.Transaction) { t.Hold = map[uint32]string{r.notify: "6 matches"} }
	key := settle(prepare(7), outbox.Settlement{Hold: map[uint32][]outbox.Hold{r.notify: {{Why: "6 matches"}}}})
	r.nothing()
	r.equal("claimed", len(r.commit(key, 7, held)), 0)
	want := map[string]int{"notify held: 6 matches": 6, "notify failed: evaluating": 1, "careful pending: ": 1}
	r.equal("held", states(), want)
	key = settle(prepare(8), outbox.Settlement{Muted: "a migration", Hold: map[uint32][]outbox.Hold{r.notify: {{Why: "6 matches"}}}})
	r.commit(key, 7, func(t *outbox.Transaction) { t.Muted = "a migration" })
	want["notify muted: a migration"], want["careful muted: a migration"] = 6, 1
	want["notify failed: evaluating"]++
	r.equal("muted", states(), want)
	if m := r.matches(outbox.Filter{Rules: []string{"careful"}})[0]; string(m.Change) != "blanked" {
		r.Errorf("a muted change is %q", m.Change)
	}
	// A released match is due.
	r.equal("released", r.act(outbox.Release, outbox.Filter{Rules: []string{"notify"}}), outbox.Acted{Matches: 6})
	if matches, _ := r.claimed(); len(matches) != 7 {
		r.Errorf("%d were claimed", len(matches))
	}
}

// testSpillIsSettledInSteps has more matches than one step takes.
func testSpillIsSettledInSteps(r *rig) {
	const n = 2500
	key := r.spill(7, 0, n)
	for i := range uint64(3) { // many rules of one change
		r.spill(7, int(n+i), 1, func(m *outbox.NewMatch) { m.Rule = r.careful })
	}
	later := past.Add(time.Hour)
	r.ok(r.store.Settle(r.Context(), key, outbox.Settlement{
		Hold: map[uint32][]outbox.Hold{r.notify: {{From: 1500, Why: "too many"}}}, Expires: map[uint32]time.Time{r.notify: later},
	}))
	r.nothing()
	r.commit(key, n+3)
	held := 0
	for _, m := range r.matches(outbox.Filter{Rules: []string{"notify"}}) {
		is := m.State == outbox.MatchHeld
		if is {
			held++
		}
		if spilled := m.Position.Ordinal < n; spilled && (is != (m.Position.Ordinal >= 1500) || !m.Expires.Equal(later)) {
			r.Fatalf("match %d is %s and expires %v", m.Position.Ordinal, m.State, m.Expires)
		}
	}
	r.equal("held", held, n-1500)
	for _, m := range r.matches(outbox.Filter{Rules: []string{"careful"}}) {
		if m.State != outbox.MatchPending || !m.Expires.IsZero() {
			r.Errorf("another rule's match is %s and expires %v", m.State, m.Expires)
		}
	}
	key = r.spill(8, 0, n)
	r.ok(r.store.Unspill(r.Context(), key, 1))
	r.commit(key, 1)
	if got := len(r.matches(outbox.Filter{})); got != n+3+1+2 {
		r.Errorf("%d matches", got)
	}
	if err := r.store.Settle(r.Context(), key, outbox.Settlement{}); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("settling what was adopted gave %v", err)
	}
}

func testSpillIsDiscarded(r *rig) {
	key := r.spill(7, 0, 5)
	r.ok(r.store.Unspill(r.Context(), key, 0))
	r.ok(r.store.Unspill(r.Context(), key, 0)) // of what is not there: nothing
	r.nothing()
	tx := r.tx(r.match())
	tx.Spilled = &key
	if _, err := r.store.Append(r.Context(), r.batch(tx), 10); !errors.Is(err, outbox.ErrNotFound) {
		r.Fatalf("adopting what was discarded gave %v", err)
	}
	// A transaction below the checkpoint is known, with all that it spilled.
	_, err := r.store.Append(r.Context(), outbox.Batch{Source: r.source.ID, Epoch: 1, Checkpoint: r.lsn + 1000}, 0)
	r.ok(err)
	r.spill(7, 0, 5)
	b := r.batch(tx)
	b.Checkpoint = r.lsn + 1000
	_, err = r.store.Append(r.Context(), b, 10)
	r.ok(err)
	r.nothing()
	recovered, err := r.store.Recover(r.Context(), past)
	r.ok(err)
	r.equal("nothing is left to discard", recovered, outbox.Recovered{})
	// A process that ends leaves nothing behind, either.
	r.spill(8, 0, 5)
	r.spill(9, 0, 2)
	r.reopen()
	r.nothing()
	recovered, err = r.store.Recover(r.Context(), past)
	r.ok(err)
	r.equal("discarded", recovered, outbox.Recovered{Discarded: 7})
}

// testSpillIsCut: what savepoints took back is gone, and its numbers are free again.
func testSpillIsCut(r *rig) {
	key := r.spill(9, 0, 6)
	r.ok(r.store.Unspill(r.Context(), key, 4))
	r.ok(r.store.Unspill(r.Context(), key, 4))
	r.spill(9, 4, 1, func(m *outbox.NewMatch) { m.Change = []byte("another") })
	r.commit(key, 5)
	var changes []string
	for _, m := range r.matches(outbox.Filter{}) {
		changes = append(changes, fmt.Sprintf("%d %s", m.Position.Ordinal, m.Change))
	}
	r.equal("what was left of the spill", changes, []string{"5 a row", "4 another", "3 a row", "2 a row", "1 a row", "0 a row"})
}
