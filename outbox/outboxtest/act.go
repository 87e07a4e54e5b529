package outboxtest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// place returns a message in a state, by the way that leads there.
func (r *rig) place(s outbox.MessageState) int64 {
	r.Helper()
	switch s {
	case outbox.MessageSent, outbox.MessageDead, outbox.MessageUncertain:
		id := r.expanded(r.careful, outbox.MessageSending)[0].ID
		r.record(outbox.Outcome{Message: id, State: s, Burned: true})
		return id
	case outbox.MessageReplaced, outbox.MessageCancelled:
		id := r.expanded(r.careful, outbox.MessageQueued)[0].ID
		_, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past, Most: 1000})
		r.ok(err)
		r.record(outbox.Outcome{Message: id, State: s})
		return id
	case outbox.MessageDiscarded:
		id := r.expanded(r.careful, outbox.MessageHeld)[0].ID
		r.act(outbox.Discard, outbox.Filter{Messages: []int64{id}})
		return id
	case outbox.MessageQueued, outbox.MessageSending, outbox.MessageFailed, outbox.MessageDigested, outbox.MessageSuppressed,
		outbox.MessageLimited, outbox.MessageRepeated, outbox.MessageExpired, outbox.MessageNotSent, outbox.MessageNoAddress, outbox.MessageHeld:
	}
	return r.expanded(r.careful, s)[0].ID
}

// placeMatch returns a match in a state.
func (r *rig) placeMatch(s outbox.MatchState) int64 {
	r.Helper()
	switch s {
	case outbox.MatchPending, outbox.MatchHeld, outbox.MatchMuted, outbox.MatchFailed:
		r.leave(r.match(func(m *outbox.NewMatch) { m.State = s }))
		return r.matches(outbox.Filter{Limit: 1})[0].ID
	case outbox.MatchDiscarded:
		id := r.placeMatch(outbox.MatchHeld)
		r.act(outbox.Discard, outbox.Filter{Matches: []int64{id}})
		return id
	case outbox.MatchExpanded, outbox.MatchReplaced, outbox.MatchCancelled, outbox.MatchExpired, outbox.MatchNobody:
	}
	m := r.append(r.match())[0]
	_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: s})
	r.ok(err)
	return m.ID
}

// moves are what each action does, as an operator knows it.
var moves = map[outbox.Action]struct{ messages, matches map[string]string }{
	outbox.Retry:   {map[string]string{"dead": "queued", "failed": "queued", "uncertain": "queued"}, map[string]string{"failed": "pending"}},
	outbox.Cancel:  {map[string]string{"queued": "cancelled"}, map[string]string{"pending": "cancelled"}},
	outbox.Release: {map[string]string{"held": "queued"}, map[string]string{"held": "pending"}},
	outbox.Discard: {map[string]string{"held": "discarded", "failed": "discarded"}, map[string]string{"held": "discarded", "failed": "discarded"}},
}

// testAct tries every action on every state.
func testAct(r *rig) {
	now := past.Add(time.Hour)
	for action, does := range moves {
		for _, state := range outbox.MessageStates() {
			id := r.place(state)
			before := r.getMessage(id)
			acted := r.act(action, outbox.Filter{Messages: []int64{id}})
			got := r.getMessage(id)
			to, moved := does.messages[state.String()]
			if !moved {
				r.equal("what the action does not apply to", got, before)
				r.equal("how many were moved", acted, outbox.Acted{})
				continue
			}
			want := before
			r.ok(want.State.UnmarshalText([]byte(to)))
			want.Reason, want.Finished = "an operator said so", time.Time{}
			switch action {
			case outbox.Retry:
				want.Attempts, want.Due = 0, now
			case outbox.Release:
				want.Released = true
			case outbox.Cancel, outbox.Discard:
				want.Finished, want.Body = now, nil
			}
			r.equal(string(action)+" of a message that is "+state.String(), got, want)
			r.equal("how many were moved", acted, outbox.Acted{Messages: 1})
		}
		for _, state := range outbox.MatchStates() {
			id := r.placeMatch(state)
			before := r.getMatch(id)
			acted := r.act(action, outbox.Filter{Matches: []int64{id}})
			got := r.getMatch(id)
			to, moved := does.matches[state.String()]
			if !moved {
				r.equal("what the action does not apply to", got, before)
				r.equal("how many were moved", acted, outbox.Acted{})
				continue
			}
			want := before
			r.ok(want.State.UnmarshalText([]byte(to)))
			want.Reason, want.Released = "an operator said so", action == outbox.Release
			if action == outbox.Retry {
				want.Due = now
			}
			r.equal(string(action)+" of a match that is "+state.String(), got, want)
			r.equal("how many were moved", acted, outbox.Acted{Matches: 1})
		}
	}
}

func testActSelects(r *rig) {
	prepare := func() (match int64, messages []int64) {
		m := r.append(r.match())[0]
		all := r.expand(m.ID, outbox.MessageHeld, outbox.MessageHeld)
		return r.placeMatch(outbox.MatchHeld), ids(all, messageID)
	}
	held, messages := prepare()
	held2, messages2 := prepare()
	r.append(r.match(func(m *outbox.NewMatch) { m.Rule, m.State = r.careful, outbox.MatchHeld }))
	parent := r.getMessage(messages[0]).Match
	for _, c := range []struct {
		what   string
		filter outbox.Filter
		want   outbox.Acted
	}{
		{"a state that the action does not take from", outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageQueued}}, outbox.Acted{}},
		{"an unknown rule", outbox.Filter{Rules: []string{"careless"}}, outbox.Acted{}},
		{"a message", outbox.Filter{Messages: messages[:1]}, outbox.Acted{Messages: 1}},
		{"an address, spelt otherwise", outbox.Filter{Address: "A@Example.COM", Matches: []int64{r.getMessage(messages2[0]).Match}}, outbox.Acted{Messages: 1}},
		{"a match and its messages", outbox.Filter{Matches: []int64{parent, held}}, outbox.Acted{Messages: 1, Matches: 1}},
		{"a rule", outbox.Filter{Rules: []string{"careful"}}, outbox.Acted{Matches: 1}},
		{"states of matches", outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchHeld, outbox.MatchPending}}, outbox.Acted{Matches: 1}},
		{"states of messages", outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageHeld}}, outbox.Acted{Messages: 1}},
		{"all", outbox.Filter{}, outbox.Acted{}},
	} {
		r.equal(c.what, r.act(outbox.Release, c.filter), c.want)
	}
	r.equal("the states", r.states(append(messages, messages2...)...), "queued queued queued queued")
	r.equal("the last match", r.getMatch(held2).State, outbox.MatchPending)
	r.equal("all that waits", r.act(outbox.Cancel, outbox.Filter{}), outbox.Acted{Messages: 4, Matches: 3})

	for _, f := range []outbox.Filter{{Before: 3}} {
		if _, err := r.store.Act(r.Context(), outbox.Retry, f, "", past); err == nil {
			r.Errorf("an action took the filter %+v", f)
		}
	}
	if _, err := r.store.Act(r.Context(), "destroy", outbox.Filter{}, "", past); err == nil || !strings.Contains(err.Error(), "destroy") {
		r.Errorf("an unknown action gave %v", err)
	}
}

// testActAndClaims: an operator is heard up to the moment when a message is sending, whoever has claimed it.
func testActAndClaims(r *rig) {
	m := r.append(r.match())[0]
	queued := r.queue(2)
	sending := r.expanded(r.notify, outbox.MessageSending)[0].ID
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: queued[1]}})
	r.ok(err)
	r.equal("started", len(started), 1)
	r.equal("cancelled", r.act(outbox.Cancel, outbox.Filter{}), outbox.Acted{Messages: 1, Matches: 1})
	r.equal("the states", r.states(queued[0], queued[1], sending), "cancelled sending sending")

	if _, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchNobody}); !errors.Is(err, outbox.ErrState) {
		r.Errorf("a cancelled match was expanded: %v", err)
	}
	started, err = r.store.Start(r.Context(), []outbox.Start{{Message: queued[0]}})
	r.ok(err)
	r.equal("a cancelled message was started", len(started), 0)
	r.record(outbox.Outcome{Message: queued[1], State: outbox.MessageSent}, outbox.Outcome{Message: sending, State: outbox.MessageDead})

	// A retry makes it due at once; whoever looks finds it.
	r.act(outbox.Retry, outbox.Filter{Messages: []int64{sending}})
	ms, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past.Add(time.Hour), Most: 10})
	r.ok(err)
	if len(ms) != 1 || ms[0].ID != sending || len(ms[0].Body) == 0 {
		r.Errorf("after the retry %+v were claimed", ms)
	}
}

// testActMakesDue: what an operator gives back is found, also where the search for what is due has been already.
func testActMakesDue(r *rig) {
	match, message := r.placeMatch(outbox.MatchFailed), r.place(outbox.MessageDead)
	heldMatch, heldMessage := r.placeMatch(outbox.MatchHeld), r.place(outbox.MessageHeld)
	late := past.Add(2 * time.Hour) // after what act makes due
	r.leave(r.match(func(m *outbox.NewMatch) { m.Due = late }))
	m := r.append(r.match())[0]
	g := messageAt(late)
	_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{g}})
	r.ok(err)
	matches, messages := r.claimed()
	r.equal("claimed before", len(matches)*10+len(messages), 11)
	for _, c := range []struct {
		action         outbox.Action
		match, message int64
	}{{outbox.Retry, match, message}, {outbox.Release, heldMatch, heldMessage}} {
		r.equal(string(c.action), r.act(c.action, outbox.Filter{}), outbox.Acted{Matches: 1, Messages: 1})
		matches, messages = r.claimed()
		r.equal("matches after "+string(c.action), matches, []int64{c.match})
		r.equal("messages after "+string(c.action), messages, []int64{c.message})
	}
}

func messageAt(due time.Time) outbox.NewMessage {
	g := message("late@example.com", outbox.MessageQueued)
	g.Due = due
	return g
}

func testRecover(r *rig) {
	resent := r.expanded(r.notify, outbox.MessageSending, outbox.MessageSending, outbox.MessageQueued)
	held := r.expanded(r.careful, outbox.MessageSending)
	r.record(outbox.Outcome{Message: resent[1].ID, State: outbox.MessageSent})
	m := r.append(r.match())[0]
	if _, err := r.store.Recover(r.Context(), past); err == nil {
		r.Error("Recover took messages away from those who are sending them")
	}
	r.reopen()
	now := past.Add(2 * time.Hour)
	got, err := r.store.Recover(r.Context(), now)
	r.ok(err)
	r.equal("recovered", got, outbox.Recovered{Requeued: 1, Uncertain: 1})

	again := r.getMessage(resent[0].ID)
	want := resent[0]
	want.State, want.Due, want.Attempts, want.Reason = outbox.MessageQueued, now, 1, again.Reason
	r.equal("what goes out again, with the same Message-ID and bytes", again, want)
	waits := r.getMessage(held[0].ID)
	want = held[0]
	want.State, want.Due, want.Attempts, want.Reason, want.Finished = outbox.MessageUncertain, now, 1, waits.Reason, now
	r.equal("what waits for an operator", waits, want)
	if again.Reason == "" || waits.Reason == "" {
		r.Errorf("the reasons are %q and %q", again.Reason, waits.Reason)
	}
	matches, messages := r.claimed()
	r.equal("due after the recovery", matches, []int64{m.ID})
	slices.Sort(messages)
	r.equal("due after the recovery", messages, []int64{resent[0].ID, resent[2].ID})
}
