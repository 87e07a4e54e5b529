package outboxtest

import (
	"errors"
	"fmt"
	"time"

	"postman/outbox"
)

func testExpand(r *rig) {
	m := r.append(r.match(func(m *outbox.NewMatch) {
		m.Rule, m.HoldUncertain, m.Silent, m.Priority, m.Expires = r.careful, true, true, outbox.High, past.Add(time.Hour)
	}))[0]
	lease := past.Add(time.Minute)
	sending := outbox.NewMessage{
		Address: " Kim@Example.com", State: outbox.MessageSending, Due: past, Recipient: []byte(`{"email": "…"}`), CC: []string{"a@b", "c@d"},
		MessageID: "<1@x>", Subject: "안녕하세요", Body: []byte("a\x00b"), Template: outbox.Hash{1, 0, 255}, Lease: lease,
	}
	queued := outbox.NewMessage{Address: "lee@example.com", State: outbox.MessageQueued, Due: past.Add(time.Second), Recipient: []byte("{}")}
	final := outbox.NewMessage{Address: "", State: outbox.MessageNoAddress, Reason: "the address is NULL", Body: []byte("x")}
	before := time.Now().Truncate(time.Microsecond)
	got, err := r.store.Expand(r.Context(), outbox.Expansion{
		Match: m.ID, State: outbox.MatchExpanded, Reason: "3 recipients", Messages: []outbox.NewMessage{sending, queued, final},
	})
	r.ok(err)

	listed := r.full(outbox.Filter{})
	if len(got) != 1 || len(listed) != 3 {
		r.Fatalf("%d are sending, %d are listed", len(got), len(listed))
	}
	base := outbox.Message{
		Match: m.ID, Position: m.Position, Rule: r.careful, RuleName: "careful", Expires: m.Expires, Priority: outbox.High,
		HoldUncertain: true, Silent: true, Committed: past,
	}
	want := []outbox.Message{base, base, base}
	for i := range want {
		want[i].ID, want[i].Created = listed[i].ID, listed[i].Created
		if listed[i].Created.Before(before) {
			r.Errorf("message %d was created at %v", i, listed[i].Created)
		}
	}
	want[2].Address, want[2].State, want[2].Due, want[2].Recipient, want[2].CC = sending.Address, sending.State, past, sending.Recipient, sending.CC
	want[2].MessageID, want[2].Subject, want[2].Body, want[2].Template = sending.MessageID, sending.Subject, sending.Body, sending.Template
	want[1].Address, want[1].State, want[1].Due, want[1].Recipient = queued.Address, queued.State, queued.Due, queued.Recipient
	want[0].State, want[0].Reason, want[0].Due, want[0].Finished = final.State, final.Reason, listed[0].Due, listed[0].Finished
	if listed[0].Finished.Before(before) || listed[0].Due.Before(before) {
		r.Errorf("the final one is due at %v and finished at %v", listed[0].Due, listed[0].Finished)
	}
	r.equal("the listed messages", listed, want)
	claimed, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: queued.Due, Most: 10})
	r.ok(err)
	r.equal("the claimed messages", claimed, want[1:2])
	r.equal("the sending message", got[0], want[2])
	after := r.getMatch(m.ID)
	m.State, m.Reason = outbox.MatchExpanded, "3 recipients"
	r.equal("the match", after, m)
}

func testExpandToEachState(r *rig) {
	later := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	for _, state := range outbox.MatchStates() {
		m := r.append(r.match())[0]
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: state, Reason: "because", Due: later})
		switch state {
		case outbox.MatchMuted, outbox.MatchDiscarded:
			if !errors.Is(err, outbox.ErrState) {
				r.Errorf("a pending match was expanded to %s: %v", state, err)
			}
			continue
		case outbox.MatchPending:
			m.Due, m.Attempts = later, 1
		case outbox.MatchHeld:
			m.Due = later
		case outbox.MatchExpanded, outbox.MatchReplaced, outbox.MatchCancelled, outbox.MatchExpired, outbox.MatchNobody,
			outbox.MatchFailed:
		}
		r.ok(err)
		m.State, m.Reason = state, "because"
		r.equal("the match after "+state.String(), r.getMatch(m.ID), m)
	}
	ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: later, Most: 10})
	r.ok(err)
	if len(ms) != 1 || ms[0].Attempts != 1 {
		r.Fatalf("claimed again are %+v", ms)
	}
	_, err = r.store.Expand(r.Context(), outbox.Expansion{Match: ms[0].ID, State: outbox.MatchPending, Due: later, Early: true})
	r.ok(err)
	r.equal("tries, of which one came too early", r.getMatch(ms[0].ID).Attempts, 1)
}

func testExpandKnowsMessages(r *rig) {
	m := r.append(r.match())[0]
	expand := func(messages ...outbox.NewMessage) []outbox.Message {
		got, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: messages})
		r.ok(err)
		return got
	}
	resent := message("a@example.com", outbox.MessageSending)
	resent.Resend = 1
	got := expand(message("a@example.com", outbox.MessageSending), message("A@EXAMPLE.com ", outbox.MessageSending),
		message("b@example.com", outbox.MessageSending), resent)
	var addresses []string
	for _, g := range got {
		addresses = append(addresses, fmt.Sprint(g.Address, g.Resend))
	}
	r.equal("one address twice is one mail, a resend is another", addresses, []string{"a@example.com0", "b@example.com0", "a@example.com1"})
	if n := len(r.messages(outbox.Filter{})); n != 3 {
		r.Errorf("there are %d messages", n)
	}

	// The same match once more: failed, and retried.
	m = r.append(r.match())[0]
	_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchFailed})
	r.ok(err)
	r.act(outbox.Retry, outbox.Filter{Matches: []int64{m.ID}})
	r.claimed()
	if got = expand(message("a@example.com", outbox.MessageSending)); len(got) != 1 {
		r.Errorf("another match's message to the same address: %+v", got)
	}
}

func testExpandRefuses(r *rig) {
	e := func(id int64) error {
		_, err := r.store.Expand(r.Context(), outbox.Expansion{
			Match: id, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{message("a@example.com", outbox.MessageSending)},
		})
		return err
	}
	refused := func(what string, err error) {
		r.Helper()
		if !errors.Is(err, outbox.ErrState) {
			r.Errorf("%s: %v", what, err)
		}
	}
	refused("a match that is not there", e(4711))
	r.leave(r.match())
	free := r.matches(outbox.Filter{})[0]
	refused("a match that is not claimed", e(free.ID))
	cancelled := r.append(r.match())[0]
	r.act(outbox.Cancel, outbox.Filter{Matches: []int64{cancelled.ID}})
	refused("a match that was cancelled", e(cancelled.ID))
	m := r.append(r.match())[0]
	_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchNobody, Messages: []outbox.NewMessage{message("a", outbox.MessageQueued)}})
	refused("nobody with messages", err)
	_, err = r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{message("a", outbox.MessageSent)}})
	refused("a message that was never sending is sent", err)
	if n := len(r.messages(outbox.Filter{})); n != 0 {
		r.Fatalf("what was refused left %d messages", n)
	}
	r.ok(e(m.ID)) // what contradicted itself cost no claim
	refused("a match that is expanded", e(m.ID))
	r.equal("the free match", r.getMatch(free.ID), free)
	matches, _ := r.claimed()
	r.equal("only the free match is due", matches, []int64{free.ID})
}
