package outboxtest

import (
	"slices"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/outbox"
)

func testRecentMatches(r *rig) {
	at := func(when time.Time, matches ...outbox.NewMatch) {
		tx := r.tx(matches...)
		tx.Time = when
		_, err := r.store.Append(r.Context(), r.batch(tx), 0)
		r.ok(err)
	}
	careful := func(m *outbox.NewMatch) { m.Rule = r.careful }
	state := func(s outbox.MatchState) func(*outbox.NewMatch) { return func(m *outbox.NewMatch) { m.State = s } }
	at(past.Add(2*time.Second), r.match(), r.match())
	at(past, r.match(careful), r.match())
	at(past.Add(-time.Microsecond), r.match(), r.match(careful))
	at(past.Add(time.Second), r.match(state(outbox.MatchHeld)), r.match(state(outbox.MatchMuted)), r.match(state(outbox.MatchFailed)), r.match())
	r.spill(7, 0, 2)
	m := r.append(r.match())[0]
	r.expand(m.ID)
	got, err := r.store.RecentMatches(r.Context(), past)
	r.ok(err)
	want := map[uint32][]time.Time{
		r.notify:  {past, past, past.Add(time.Second), past.Add(2 * time.Second), past.Add(2 * time.Second)},
		r.careful: {past},
	}
	r.equal("recent", got, want)
}

func testLists(r *rig) {
	careful := func(m *outbox.NewMatch) { m.Rule = r.careful }
	held := func(m *outbox.NewMatch) { m.State = outbox.MatchHeld }
	r.leave(r.match(), r.match(careful), r.match(held), r.match(careful, held))
	a := r.expanded(r.notify, outbox.MessageQueued, outbox.MessageSending, outbox.MessageNoAddress)
	b := r.expanded(r.careful, outbox.MessageSending, outbox.MessageHeld)
	all := r.matches(outbox.Filter{})
	matches := ids(all, matchID)
	if len(all) != 6 || !slices.IsSortedFunc(all, func(x, y outbox.Match) int { return int(y.ID - x.ID) }) {
		r.Fatalf("the matches are %v", matches)
	}
	pick := func(from []int64, at ...int) []int64 {
		var some []int64
		for _, i := range at {
			some = append(some, from[i])
		}
		return some
	}
	for _, c := range []struct {
		what   string
		filter outbox.Filter
		want   []int64
	}{
		{"limit", outbox.Filter{Limit: 2}, pick(matches, 0, 1)},
		{"before", outbox.Filter{Before: matches[1]}, pick(matches, 2, 3, 4, 5)},
		{"page", outbox.Filter{Before: matches[1], Limit: 3}, pick(matches, 2, 3, 4)},
		{"rule", outbox.Filter{Rules: []string{"careful"}}, pick(matches, 0, 2, 4)},
		{"rules", outbox.Filter{Rules: []string{"careless", "careful", "notify"}, Limit: 3}, pick(matches, 0, 1, 2)},
		{"unknown rule", outbox.Filter{Rules: []string{"careless"}}, nil},
		{"state", outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchHeld}}, pick(matches, 2, 3)},
		{"states", outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchHeld, outbox.MatchPending}, Limit: 3}, pick(matches, 2, 3, 4)},
		{"states and rule", outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchPending, outbox.MatchExpanded}, Rules: []string{"careful"}}, pick(matches, 0, 4)},
		{"states of messages", outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageSent}, Limit: 1}, pick(matches, 0)},
		{"ids", outbox.Filter{Matches: pick(matches, 4, 0)}, pick(matches, 0, 4)},
		{"of messages", outbox.Filter{Messages: []int64{a[1].ID, a[0].ID}}, []int64{a[0].Match}},
		{"address", outbox.Filter{Address: " C@example.com"}, []int64{a[0].Match}},
	} {
		r.equal("matches by "+c.what, ids(r.matches(c.filter), matchID), c.want)
	}

	messages := []int64{b[1].ID, b[0].ID, a[2].ID, a[1].ID, a[0].ID}
	for _, c := range []struct {
		what   string
		filter outbox.Filter
		want   []int64
	}{
		{"nothing", outbox.Filter{}, messages},
		{"limit", outbox.Filter{Limit: 2}, pick(messages, 0, 1)},
		{"page", outbox.Filter{Before: messages[1], Limit: 2}, pick(messages, 2, 3)},
		{"rule", outbox.Filter{Rules: []string{"careful"}}, pick(messages, 0, 1)},
		{"rules", outbox.Filter{Rules: []string{"careful", "notify"}}, messages},
		{"unknown rule", outbox.Filter{Rules: []string{"careless"}}, nil},
		{"state", outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageSending}}, pick(messages, 1, 3)},
		{"states", outbox.Filter{
			MessageStates: []outbox.MessageState{outbox.MessageQueued, outbox.MessageNoAddress, outbox.MessageHeld}, Limit: 2,
		}, pick(messages, 0, 2)},
		{"states of matches", outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchPending}}, messages},
		{"ids", outbox.Filter{Messages: pick(messages, 3, 1)}, pick(messages, 1, 3)},
		{"match", outbox.Filter{Matches: []int64{a[0].Match}, MessageStates: []outbox.MessageState{outbox.MessageQueued}}, pick(messages, 4)},
		{"address", outbox.Filter{Address: "B@example.com "}, pick(messages, 0, 3)},
	} {
		r.equal("messages by "+c.what, ids(r.messages(c.filter), messageID), c.want)
	}
}

func testCount(r *rig) {
	want := outbox.Counts{Matches: map[outbox.MatchState]int{}, Messages: map[outbox.MessageState]int{}}
	for _, s := range outbox.MessageStates() {
		for range 1 + int(s)%3 {
			r.place(s)
			want.Messages[s]++
			want.Matches[outbox.MatchExpanded]++
		}
	}
	for _, s := range outbox.MatchStates() {
		for range 1 + int(s)%3 {
			r.placeMatch(s)
			want.Matches[s]++
		}
	}
	r.spill(7, 0, 3)
	got, err := r.store.Count(r.Context())
	r.ok(err)
	r.equal("the counts", got, want, cmpopts.EquateEmpty())
	r.equal("the matches that are listed", len(r.matches(outbox.Filter{})), sum(want.Matches))
	r.equal("the messages that are listed", len(r.messages(outbox.Filter{})), sum(want.Messages))
}

func sum[S comparable](counts map[S]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// testBlanking: what is sensitive is gone as soon as nothing can need it any more.
func testBlanking(r *rig) {
	sensitive := func(m *outbox.NewMatch) { m.Change, m.Blanked = []byte("secret"), []byte("blank") }
	change := func(id int64) string { return string(r.getMatch(id).Change) }

	m := r.append(r.match(sensitive))[0]
	r.equal("for whom it is claimed", string(m.Change), "secret")
	got := r.expand(m.ID, outbox.MessageSending, outbox.MessageQueued, outbox.MessageNoAddress)
	r.equal("with messages on their way", change(m.ID), "secret")
	r.record(outbox.Outcome{Message: got[0].ID, State: outbox.MessageSent})
	r.equal("with one queued", change(m.ID), "secret")
	r.claimed()
	r.record(outbox.Outcome{Message: got[1].ID, State: outbox.MessageDead})
	r.equal("with one dead", change(m.ID), "secret")
	r.equal("the recipient with one dead", string(r.getMessage(got[0].ID).Recipient), "{}")
	r.act(outbox.Retry, outbox.Filter{Messages: []int64{got[1].ID}})
	r.act(outbox.Cancel, outbox.Filter{Messages: []int64{got[1].ID}})
	r.equal("when all are final", change(m.ID), "blank")
	for i, address := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		g := r.getMessage(got[i].ID)
		if len(g.Recipient) > 0 || g.Subject != "" || len(g.Body) > 0 || g.Address != address || g.MessageID != got[i].MessageID {
			r.Errorf("blanked, the message is %+v", g)
		}
	}

	for _, state := range []outbox.MatchState{outbox.MatchNobody, outbox.MatchExpired, outbox.MatchFailed, outbox.MatchHeld, outbox.MatchPending} {
		m := r.append(r.match(sensitive))[0]
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: state, Due: past})
		r.ok(err)
		want := "blank"
		if state == outbox.MatchFailed || state == outbox.MatchHeld || state == outbox.MatchPending {
			want = "secret"
		}
		r.equal("a match that is "+state.String(), change(m.ID), want)
	}
	for _, state := range []outbox.MatchState{outbox.MatchMuted, outbox.MatchExpired, outbox.MatchFailed, outbox.MatchHeld} {
		r.leave(r.match(sensitive, func(m *outbox.NewMatch) { m.State = state }))
		want := "secret"
		if state == outbox.MatchMuted || state == outbox.MatchExpired {
			want = "blank"
		}
		r.equal("a match that began as "+state.String(), string(r.matches(outbox.Filter{Limit: 1})[0].Change), want)
	}
	r.act(outbox.Discard, outbox.Filter{})
	r.act(outbox.Cancel, outbox.Filter{})
	for _, m := range r.matches(outbox.Filter{}) {
		if string(m.Change) == "secret" && m.State != outbox.MatchFailed {
			r.Errorf("a match that is %s is not blanked", m.State)
		}
	}

	// A message that comes back from a restart needs its values, and is blanked like any other.
	m = r.append(r.match(sensitive))[0]
	got = r.expand(m.ID, outbox.MessageSending)
	r.reopen()
	_, err := r.store.Recover(r.Context(), past)
	r.ok(err)
	r.equal("after a restart", change(m.ID), "secret")
	r.equal("claimed after a restart", len(must(r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past, Most: 10}))), 1)
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: got[0].ID}})
	r.ok(err)
	r.equal("started after a restart", len(started), 1)
	r.record(outbox.Outcome{Message: got[0].ID, State: outbox.MessageSent})
	r.equal("sent after a restart", change(m.ID), "blank")
}

// testFailures: what has failed is listed by its rule, with the reason of the latest.
func testFailures(r *rig) {
	failed := func(rule uint32, reason string) {
		r.leave(r.match(func(m *outbox.NewMatch) { m.Rule, m.State, m.Reason = rule, outbox.MatchFailed, reason }))
	}
	failed(r.careful, "zebra")
	failed(r.careful, "aardvark")
	m := r.append(r.match())[0]
	g := r.expand(m.ID, outbox.MessageSending)[0]
	r.record(outbox.Outcome{Message: g.ID, State: outbox.MessageFailed, Reason: "no such column"})
	list := func() []outbox.Failure {
		all, err := r.store.Failures(r.Context())
		r.ok(err)
		return all
	}
	r.equal("the failures", list(), []outbox.Failure{{Rule: "careful", Matches: 2, Reason: "aardvark"}, {Rule: "notify", Messages: 1, Reason: "no such column"}})
	r.act(outbox.Discard, outbox.Filter{Rules: []string{"careful"}})
	r.equal("after what is held was discarded", len(list()), 2)
	r.act(outbox.Discard, outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchFailed}, MessageStates: []outbox.MessageState{outbox.MessageFailed}})
	r.equal("at last", len(list()), 0)

	many := make([]outbox.NewMatch, outbox.MostFailures+1)
	for i := range many {
		many[i] = r.match(func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchFailed, "poison" })
	}
	r.leave(many...)
	r.equal("of very many, the latest", list(), []outbox.Failure{{Rule: "notify", Matches: outbox.MostFailures, Reason: "poison"}})
}

// testDead: what died since a time is told, with the latest's reason; what is retried is dead no more.
func testDead(r *rig) {
	die := func(reason string) int64 {
		m := r.append(r.match())[0]
		g := r.expand(m.ID, outbox.MessageSending)[0]
		r.record(outbox.Outcome{Message: g.ID, State: outbox.MessageDead, Reason: reason})
		return g.ID
	}
	dead := func(since time.Time) outbox.Dead {
		d, err := r.store.Dead(r.Context(), since)
		r.ok(err)
		return d
	}
	before := time.Now().Add(-time.Hour)
	r.equal("of none", dead(before), outbox.Dead{})
	die("550 first")
	last := die("550 and last")
	got := dead(before)
	if got.Last.IsZero() {
		r.Error("nobody knows when the last died")
	}
	got.Last = time.Time{}
	r.equal("of two", got, outbox.Dead{Messages: 2, Rule: "notify", Reason: "550 and last"})
	r.equal("since later", dead(time.Now().Add(time.Hour)).Messages, 0)
	r.act(outbox.Retry, outbox.Filter{Messages: []int64{last}})
	r.equal("once one is retried", dead(before).Messages, 1)
}

func testBlankingAtExpiry(r *rig) {
	deadline := past.Add(time.Hour)
	sensitive := func(m *outbox.NewMatch) {
		m.Change, m.Blanked, m.Expires = []byte("secret"), []byte("blank"), deadline
	}
	plain := func(m *outbox.NewMatch) { m.Expires = deadline }
	fate := func(s outbox.MessageState, change func(*outbox.NewMatch)) outbox.Message {
		m := r.append(r.match(change, func(m *outbox.NewMatch) { m.HoldUncertain = true }))[0]
		g := r.expand(m.ID, outbox.MessageSending)[0]
		if s != outbox.MessageSending {
			r.record(outbox.Outcome{Message: g.ID, State: s, Due: past})
		}
		return g
	}
	blanked := []outbox.Message{fate(outbox.MessageDead, sensitive), fate(outbox.MessageFailed, sensitive), fate(outbox.MessageUncertain, sensitive)}
	kept := []outbox.Message{fate(outbox.MessageQueued, sensitive), fate(outbox.MessageSending, sensitive), fate(outbox.MessageDead, plain)}
	r.leave(r.match(sensitive, func(m *outbox.NewMatch) { m.State = outbox.MatchFailed }))
	failed := r.matches(outbox.Filter{Limit: 1})[0]
	for _, c := range []struct {
		now  time.Time
		want int
	}{{deadline.Add(-time.Microsecond), 0}, {deadline, 4}, {deadline.Add(time.Hour), 0}} {
		n, err := r.store.Blank(r.Context(), c.now)
		r.ok(err)
		r.equal("how many were blanked", n, c.want)
	}
	for _, g := range blanked {
		if got := r.getMessage(g.ID); len(got.Body)+len(got.Recipient)+len(got.Subject) > 0 || string(r.getMatch(g.Match).Change) != "blank" {
			r.Errorf("a message that is %s has the body %q, its match the change %q", got.State, got.Body, r.getMatch(g.Match).Change)
		}
	}
	for _, g := range kept {
		if got := r.getMessage(g.ID); len(got.Body) == 0 || got.Subject == "" || len(got.Recipient) == 0 || string(r.getMatch(g.Match).Change) == "blank" {
			r.Errorf("a message that is %s has the body %q, its match the change %q", got.State, got.Body, r.getMatch(g.Match).Change)
		}
	}
	r.equal("the failed match", string(r.getMatch(failed.ID).Change), "blank")
}
