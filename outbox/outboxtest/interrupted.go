package outboxtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// recovered opens the store as the next process does.
func (r *rig) recovered() outbox.Recovered {
	r.Helper()
	r.reopen()
	got, err := r.store.Recover(r.Context(), past)
	r.ok(err)
	return got
}

// testInterrupted has one process after the other end with the same work in hand, until it is given up.
func testInterrupted(r *rig) {
	diesOf := func(what string, besides func(matches []int64)) {
		r.Helper()
		for deaths := 1; ; deaths++ {
			got := r.recovered()
			if got.GivenUp > 0 || deaths == outbox.MostInterrupted {
				r.equal("deaths of "+what, deaths, outbox.MostInterrupted)
				r.equal("given up", got, outbox.Recovered{GivenUp: 1})
				return
			}
			matches, messages := r.claimed()
			for _, id := range messages {
				_, err := r.store.Start(r.Context(), []outbox.Start{{Message: id}})
				r.ok(err)
			}
			besides(matches)
		}
	}
	m := r.append(r.match())[0]
	// What comes to its end, or is given back in good order, begins anew each time.
	again, back := r.append(r.match())[0], r.append(r.match())[0]
	diesOf("a match", func(matches []int64) {
		slices.Sort(matches)
		r.equal("claimed", matches, []int64{m.ID, again.ID, back.ID})
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: again.ID, State: outbox.MatchPending, Due: past})
		r.ok(err)
		r.store.Release([]int64{back.ID}, nil)
		// It is given back with whatever is committed next, and this is not.
		if _, err := r.store.Expand(r.Context(), outbox.Expansion{Match: again.ID, State: outbox.MatchMuted}); !errors.Is(err, outbox.ErrState) {
			r.Errorf("an expansion to muted gave %v", err)
		}
	})
	if m = r.getMatch(m.ID); m.State != outbox.MatchFailed || !strings.Contains(m.Reason, fmt.Sprint(outbox.MostInterrupted, " processes")) {
		r.Errorf("it is %s: %s", m.State, m.Reason)
	}
	for _, id := range []int64{again.ID, back.ID} {
		if state := r.getMatch(id).State; state != outbox.MatchPending {
			r.Errorf("another one is %s", state)
		}
	}
	r.act(outbox.Cancel, outbox.Filter{Matches: []int64{again.ID, back.ID}})

	sending := r.expanded(r.notify, outbox.MessageSending)[0]
	diesOf("a message", func([]int64) {})
	if sending = r.getMessage(sending.ID); sending.State != outbox.MessageFailed || sending.Attempts != outbox.MostInterrupted || sending.Finished.IsZero() {
		r.Errorf("it is %s after %d attempts, finished at %v", sending.State, sending.Attempts, sending.Finished)
	}
	if !strings.Contains(sending.Reason, "whether the relay has it is not known") {
		r.Errorf("its reason reads as if it had not been sent: %s", sending.Reason)
	}
	// An operator may have it tried again, as often as at first.
	r.act(outbox.Retry, outbox.Filter{Messages: []int64{sending.ID}})
	r.claimed()
	r.equal("given up at once", r.recovered().GivenUp, 0)
}

// testInnocents: one of many kills each process that has it in hand. The others are done, and it alone is given up.
func testInnocents(r *rig) {
	const n, culprit = 60, 37
	matches := make([]outbox.NewMatch, n)
	for i := range matches {
		matches[i] = r.match()
	}
	r.leave(matches...)
	deaths := 0
	for {
		got := r.recovered()
		if got.GivenUp > 0 {
			r.equal("given up", got.GivenUp, 1)
			break
		}
		if deaths++; deaths > outbox.MostInterrupted {
			r.Fatalf("the culprit is not given up: %+v", got)
		}
		for r.work(culprit) {
		}
	}
	r.equal("deaths", deaths, outbox.MostInterrupted)
	for r.work(culprit) {
	}
	counts, err := r.store.Count(r.Context())
	r.ok(err)
	r.equal("the counts", counts.Matches, map[outbox.MatchState]int{outbox.MatchNobody: n - 1, outbox.MatchFailed: 1})
}

// work does all that it can claim; false: nothing was left, or the culprit was in hand and everything has ended.
func (r *rig) work(culprit uint64) bool {
	r.Helper()
	ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: time.Now(), Most: 1000})
	r.ok(err)
	for _, m := range ms {
		if m.Position.Ordinal == culprit {
			return false
		}
	}
	for _, m := range ms {
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchNobody})
		r.ok(err)
	}
	return len(ms) > 0
}

// testSuspectsWait: what was in hand at two deaths is given out in small company, and the rest is told of as due soon.
func testSuspectsWait(r *rig) {
	const n, together = 20, 16
	matches := make([]outbox.NewMatch, n)
	for i := range matches {
		matches[i] = r.match()
	}
	r.leave(matches...)
	for range 2 {
		claimed, _ := r.claimed()
		r.equal("claimed", len(claimed), n)
		r.recovered()
	}
	claimed, _ := r.claimed()
	r.equal("claimed of the suspects", len(claimed), together)
	next, err := r.store.NextDue(r.Context(), nil, nil)
	r.ok(err)
	if wait := time.Until(next); wait < -time.Second || wait > time.Second {
		r.Errorf("the others are due in %v", wait)
	}
	r.leave(r.match(func(m *outbox.NewMatch) { m.Rule = r.careful }))
	next, err = r.store.NextDue(r.Context(), nil, nil)
	r.ok(err)
	r.equal("the next beside them", next, past)
	for _, id := range claimed {
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: id, State: outbox.MatchNobody})
		r.ok(err)
	}
	claimed, _ = r.claimed()
	r.equal("claimed when those were done", len(claimed), n-together+1)
}

// testUndecided: a match whose rule could not be tried is remembered as such, through retries.
func testUndecided(r *rig) {
	r.leave(r.match(func(m *outbox.NewMatch) { m.State = outbox.MatchFailed }), r.match())
	all := r.matches(outbox.Filter{})
	r.equal("undecided", []bool{all[1].Undecided, all[0].Undecided}, []bool{true, false})
	r.act(outbox.Retry, outbox.Filter{Matches: []int64{all[1].ID}})
	ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: time.Now(), Most: 10})
	r.ok(err)
	for _, m := range ms {
		r.equal("undecided, when it is claimed", m.Undecided, m.ID == all[1].ID)
	}
	r.equal("claimed", len(ms), 2)
}
