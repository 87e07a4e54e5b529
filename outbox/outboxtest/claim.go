package outboxtest

import (
	"fmt"
	"sync"
	"time"

	"postman/outbox"
)

func testClaimOrder(r *rig) {
	at := func(p outbox.Priority, due time.Duration) outbox.NewMatch {
		return r.match(func(m *outbox.NewMatch) { m.Priority, m.Due, m.Key = p, past.Add(due), fmt.Sprintf("%d %s", p, due) })
	}
	r.leave(at(outbox.Bulk, 0), at(outbox.Normal, 2*time.Microsecond), at(outbox.Normal, time.Second), at(outbox.High, time.Hour))
	r.leave(at(outbox.Normal, 0), at(outbox.Normal, time.Second), at(outbox.High, time.Minute))
	want := []string{"0 1m0s", "0 1h0m0s", "1 0s", "1 2µs", "1 1s", "1 1s", "2 0s"}
	var got []string
	for i, n := range []int{0, 1, 4, 1, 5} {
		ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: past.Add(time.Hour), Most: n})
		r.ok(err)
		if len(ms) != n && i != 4 {
			r.Fatalf("%d of %d were claimed", len(ms), n)
		}
		for _, m := range ms {
			got = append(got, m.Key)
			r.equal("the claimed match", m, r.getMatch(m.ID))
		}
	}
	r.equal("the order of matches", got, want)

	// Messages take their priority from their match.
	var messages []string
	for _, p := range []outbox.Priority{outbox.Bulk, outbox.High} {
		m := r.append(at(p, 0))[0]
		late, soon := message(fmt.Sprintf("late%d", p), outbox.MessageQueued), message(fmt.Sprintf("soon%d", p), outbox.MessageQueued)
		late.Due = past.Add(time.Minute)
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{late, soon}})
		r.ok(err)
	}
	for _, n := range []int{1, 2, 2} {
		ms, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past.Add(time.Hour), Most: n})
		r.ok(err)
		for _, m := range ms {
			messages = append(messages, m.Address)
			r.equal("the claimed message", m, r.getMessage(m.ID))
		}
	}
	r.equal("the order of messages", messages, []string{"soon0", "late0", "soon2", "late2"})
}

func testClaimsAreExclusive(r *rig) {
	r.leave(r.match(), r.match())
	m := r.append(r.match())[0]
	all := r.expand(m.ID, outbox.MessageQueued, outbox.MessageQueued)
	matches, messages := r.claimed()
	r.equal("claimed", len(matches)*10+len(messages), 22)
	again, againMessages := r.claimed()
	r.equal("claimed twice", len(again)*10+len(againMessages), 0)

	r.store.Release(matches[:1], messages[1:])
	again, againMessages = r.claimed()
	r.equal("claimed after the release", again, matches[:1])
	r.equal("claimed after the release", againMessages, messages[1:])
	r.store.Release(matches, messages)
	r.store.Release(matches, messages) // what is not claimed is not released
	again, againMessages = r.claimed()
	r.equal("all matches again", again, matches)
	r.equal("all messages again", againMessages, ids(all, messageID))

	// What is sending is not given to anybody else, not even when it is released.
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: messages[0]}})
	r.ok(err)
	r.equal("started", started, messages[:1])
	r.store.Release(nil, messages)
	_, againMessages = r.claimed()
	r.equal("claimed beside what is sending", againMessages, messages[1:])
	r.record(outbox.Outcome{Message: messages[0], State: outbox.MessageSent})

	r.reopen()
	again, againMessages = r.claimed()
	r.equal("matches claimed by a dead process", again, matches)
	r.equal("messages claimed by a dead process", againMessages, messages[1:])
}

func testNextDue(r *rig) {
	next := func() time.Time {
		at, err := r.store.NextDue(r.Context(), nil, nil)
		r.ok(err)
		return at
	}
	due := func(at time.Time, p outbox.Priority) outbox.NewMatch {
		return r.match(func(m *outbox.NewMatch) { m.Due, m.Priority = at, p })
	}
	r.equal("of nothing", next(), time.Time{})
	later := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	r.leave(due(later.Add(time.Second), outbox.High), due(later, outbox.Bulk))
	r.equal("the earliest of all priorities", next(), later)
	r.leave(due(past, outbox.Normal))
	r.equal("one that is overdue", next(), past)
	matches, _ := r.claimed()
	r.equal("what is claimed does not count", next(), later)
	r.store.Release(matches, nil)
	r.equal("what was released does", next(), past)
	r.claimed()
	_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: matches[0], State: outbox.MatchPending, Due: later.Add(-time.Minute)})
	r.ok(err)
	r.equal("a match that is tried again", next(), later.Add(-time.Minute))
	m := r.append(due(past, outbox.Normal))[0]
	soon := message("a", outbox.MessageQueued)
	soon.Due = later.Add(-time.Hour)
	_, err = r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{soon}})
	r.ok(err)
	r.equal("a message", next(), soon.Due)
	ms, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: later, Most: 1})
	r.ok(err)
	r.record(outbox.Outcome{Message: ms[0].ID, State: outbox.MessageQueued, Due: later.Add(-30 * time.Minute)})
	r.equal("a message that is tried again", next(), later.Add(-30*time.Minute))
}

// testManyAtATime has many goroutines fight for the same work: each match is expanded by one of them, and each of its
// messages goes out once.
func testManyAtATime(r *rig) {
	const n, workers = 120, 12
	for range n / 10 {
		var matches []outbox.NewMatch
		for range 10 {
			matches = append(matches, r.match())
		}
		r.leave(matches...)
	}
	var mu sync.Mutex
	expanded, sent := make(map[int64]int), make(map[int64]int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: time.Now(), Most: 7})
				if err != nil || len(ms) == 0 {
					r.check(err)
					return
				}
				for _, m := range ms {
					r.deliver(m, func(id int64) {
						mu.Lock()
						defer mu.Unlock()
						expanded[m.ID]++
						sent[id]++
					})
				}
			}
		})
	}
	wg.Wait()
	if len(expanded) != n || len(sent) != n {
		r.Fatalf("%d matches were expanded, %d messages sent; of %d", len(expanded), len(sent), n)
	}
	for id, times := range sent {
		if times != 1 {
			r.Errorf("message %d was sent %d times", id, times)
		}
	}
	counts, err := r.store.Count(r.Context())
	r.ok(err)
	r.equal("the counts", counts, outbox.Counts{
		Matches:  map[outbox.MatchState]int{outbox.MatchExpanded: n},
		Messages: map[outbox.MessageState]int{outbox.MessageSent: n},
	})
}

// deliver takes a claimed match the whole way.
func (r *rig) deliver(m outbox.Match, sent func(id int64)) {
	sending, err := r.store.Expand(r.Context(), outbox.Expansion{
		Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{message("a@example.com", outbox.MessageSending)},
	})
	r.check(err)
	for _, g := range sending {
		r.check(r.store.Record(r.Context(), []outbox.Outcome{{Message: g.ID, State: outbox.MessageSent}}))
		sent(g.ID)
	}
}

// check is ok for goroutines other than the test's.
func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Error(err)
	}
}
