package outboxtest

import (
	"time"

	"postman/outbox"
)

// testListsByError: a part of the reason selects, and of what the relay said, character by character but for the case.
func testListsByError(r *rig) {
	r.leave(r.match(), r.match(func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchHeld, "Over 100% of the usual" }))
	held := r.matches(outbox.Filter{Limit: 1})[0].ID
	all := r.expanded(r.notify, outbox.MessageSending, outbox.MessageSending, outbox.MessageSending)
	r.record(
		outbox.Outcome{Message: all[0].ID, State: outbox.MessageDead, Reason: "refused", Reply: "552 5.2.2 Mailbox full"},
		outbox.Outcome{Message: all[1].ID, State: outbox.MessageDead, Reason: "the mailbox is full", Reply: "552 5.2.2"},
	)
	for _, c := range []struct {
		error             string
		messages, matches []int64
	}{
		{"over 100% OF", nil, []int64{held}},
		{"over 100_", nil, nil},
		{"mailbox full", []int64{all[0].ID}, nil},
		{"MAILBOX", []int64{all[1].ID, all[0].ID}, nil},
		{"5.2.2", []int64{all[1].ID, all[0].ID}, nil},
		{"5_2", nil, nil},
	} {
		r.equal("messages by "+c.error, ids(r.messages(outbox.Filter{Error: c.error}), messageID), c.messages)
		r.equal("matches by "+c.error, ids(r.matches(outbox.Filter{Error: c.error}), matchID), c.matches)
	}
	sending := []outbox.MessageState{outbox.MessageSending}
	r.equal("and by a state", len(r.messages(outbox.Filter{Error: "5.2.2", MessageStates: sending})), 0)
}

// testListsByAge: what came into the store at a time is after it, and no longer before it.
func testListsByAge(r *rig) {
	first, second := r.expanded(r.notify, outbox.MessageQueued)[0], r.expanded(r.notify, outbox.MessageQueued)[0]
	match := r.getMatch(second.Match)
	for _, c := range []struct {
		what              string
		filter            outbox.Filter
		messages, matches []int64
	}{
		{"since the message", outbox.Filter{Since: second.Created}, []int64{second.ID}, nil},
		{"until the message", outbox.Filter{Until: second.Created}, []int64{first.ID}, []int64{second.Match, first.Match}},
		{"since the match", outbox.Filter{Since: match.Created}, []int64{second.ID}, []int64{second.Match}},
		{"until the match", outbox.Filter{Until: match.Created}, []int64{first.ID}, []int64{first.Match}},
		{"between", outbox.Filter{Since: match.Created, Until: match.Created.Add(time.Microsecond)}, nil, []int64{second.Match}},
		{"at no time", outbox.Filter{Since: match.Created, Until: match.Created}, nil, nil},
	} {
		r.equal("messages "+c.what, ids(r.messages(c.filter), messageID), c.messages)
		r.equal("matches "+c.what, ids(r.matches(c.filter), matchID), c.matches)
	}
	acted := r.act(outbox.Cancel, outbox.Filter{Since: second.Created})
	r.equal("what was cancelled of that age", acted, outbox.Acted{Messages: 1})
}

// testAffected: what an action would move is told by rule and state, and nothing of it is moved.
func testAffected(r *rig) {
	held := func(m *outbox.NewMatch) { m.State = outbox.MatchHeld }
	failed := func(m *outbox.NewMatch) { m.State = outbox.MatchFailed }
	careful := func(m *outbox.NewMatch) { m.Rule = r.careful }
	r.leave(r.match(held), r.match(held, careful), r.match(failed, careful), r.match(held, careful))
	all := r.expanded(r.notify, outbox.MessageHeld, outbox.MessageFailed, outbox.MessageQueued, outbox.MessageSending)
	r.record(outbox.Outcome{Message: all[3].ID, State: outbox.MessageDead, Reply: "550 no such user"})
	message := func(rule string, s outbox.MessageState, n int) outbox.Group[outbox.MessageState] {
		return outbox.Group[outbox.MessageState]{Rule: rule, State: s, Count: n}
	}
	match := func(rule string, s outbox.MatchState, n int) outbox.Group[outbox.MatchState] {
		return outbox.Group[outbox.MatchState]{Rule: rule, State: s, Count: n}
	}
	type messages = []outbox.Group[outbox.MessageState]
	type matches = []outbox.Group[outbox.MatchState]
	for _, c := range []struct {
		action outbox.Action
		filter outbox.Filter
		want   outbox.Affected
	}{
		{outbox.Release, outbox.Filter{}, outbox.Affected{
			Messages: messages{message("notify", outbox.MessageHeld, 1)}, Matches: matches{match("careful", outbox.MatchHeld, 2), match("notify", outbox.MatchHeld, 1)},
		}},
		{outbox.Release, outbox.Filter{Rules: []string{"careful"}}, outbox.Affected{Matches: matches{match("careful", outbox.MatchHeld, 2)}}},
		{outbox.Release, outbox.Filter{Rules: []string{"careful"}, Limit: 1}, outbox.Affected{Matches: matches{match("careful", outbox.MatchHeld, 1)}}},
		{outbox.Retry, outbox.Filter{}, outbox.Affected{
			Messages: messages{message("notify", outbox.MessageDead, 1), message("notify", outbox.MessageFailed, 1)}, Matches: matches{match("careful", outbox.MatchFailed, 1)},
		}},
		{outbox.Retry, outbox.Filter{Error: "no such"}, outbox.Affected{Messages: messages{message("notify", outbox.MessageDead, 1)}}},
		{outbox.Cancel, outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchPending}}, outbox.Affected{}},
	} {
		for range 2 { // it moved nothing
			got, err := r.store.Affected(r.Context(), c.action, c.filter)
			r.ok(err)
			r.equal("of "+string(c.action), got, c.want)
		}
	}
	if _, err := r.store.Affected(r.Context(), outbox.Retry, outbox.Filter{Before: 1}); err == nil {
		r.Error("it took a filter that is for lists")
	}
	if _, err := r.store.Affected(r.Context(), "burn", outbox.Filter{}); err == nil {
		r.Error("it took an action that there is not")
	}
}
