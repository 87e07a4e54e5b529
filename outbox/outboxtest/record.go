package outboxtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// queue returns n claimed messages.
func (r *rig) queue(n int) []int64 {
	r.Helper()
	r.expanded(r.notify, slices.Repeat([]outbox.MessageState{outbox.MessageQueued}, n)...)
	_, messages := r.claimed()
	if len(messages) != n {
		r.Fatalf("%d messages were claimed, not %d", len(messages), n)
	}
	return messages
}

func testStart(r *rig) {
	all := r.queue(4)
	released, cancelled := all[2], all[3]
	r.store.Release(nil, []int64{released})
	r.act(outbox.Cancel, outbox.Filter{Messages: []int64{cancelled}})
	start := func(id int64) outbox.Start {
		return outbox.Start{Message: id, MessageID: fmt.Sprintf("<%d@x>", id), Subject: "s", Body: []byte("b"), Template: outbox.Hash{2}, Lease: past}
	}
	started, err := r.store.Start(r.Context(), []outbox.Start{start(all[0]), start(released), start(4711), start(cancelled), start(all[1])})
	r.ok(err)
	r.equal("started", started, all[:2])
	r.equal("the states", r.states(all...), "sending sending queued cancelled")
	m := r.getMessage(all[0])
	if m.MessageID != fmt.Sprintf("<%d@x>", m.ID) || m.Subject != "s" || string(m.Body) != "b" || m.Template != (outbox.Hash{2}) {
		r.Errorf("the started message is %+v", m)
	}
	started, err = r.store.Start(r.Context(), []outbox.Start{start(all[0])})
	r.ok(err)
	r.equal("started twice", len(started), 0)

	// What an earlier attempt stored stays: a duplicate must carry the same Message-ID.
	r.record(outbox.Outcome{Message: all[0], State: outbox.MessageQueued, Due: past})
	_, messages := r.claimed()
	slices.Sort(messages)
	r.equal("claimed again", messages, []int64{all[0], released})
	_, err = r.store.Start(r.Context(), []outbox.Start{{Message: all[0], Lease: past}})
	r.ok(err)
	m.State, m.Reason = outbox.MessageSending, ""
	r.equal("the message, started again", r.getMessage(all[0]), m)
}

// outcomes are the states to which a message may be recorded, from queued and from sending.
var outcomes = map[string]string{
	"queued":  "queued dead failed digested suppressed limited repeated replaced expired cancelled not-sent no-address held",
	"sending": "queued sent dead uncertain failed expired not-sent",
}

func testRecordEachOutcome(r *rig) {
	for from, possible := range outcomes {
		for _, to := range outbox.MessageStates() {
			var id int64
			if from == "sending" {
				id = r.expanded(r.careful, outbox.MessageSending)[0].ID
			} else {
				id = r.queue(1)[0]
			}
			before := r.getMessage(id)
			due := past.Add(24 * time.Hour)
			err := r.store.Record(r.Context(), []outbox.Outcome{{Message: id, State: to, Reason: "why", Reply: "4.5.6", Due: due, Burned: true}})
			got := r.getMessage(id)
			if !slices.Contains(strings.Fields(possible), to.String()) {
				if !errors.Is(err, outbox.ErrState) || !strings.Contains(err.Error(), fmt.Sprint(id)) || !strings.Contains(err.Error(), from) {
					r.Errorf("%s → %s: %v", from, to, err)
				}
				r.equal("a refused message", got, before)
				r.record(outbox.Outcome{Message: id, State: outbox.MessageFailed}) // it is still ours to finish
				continue
			}
			if err != nil {
				r.Errorf("%s → %s: %v", from, to, err)
				continue
			}
			want := before
			want.State, want.Reason, want.Reply, want.Attempts, want.Body = to, "why", "4.5.6", 1, got.Body
			if to == outbox.MessageQueued || to == outbox.MessageHeld {
				want.Due = due
			}
			if got.Finished.IsZero() == to.Final() {
				r.Errorf("%s → %s finished at %v", from, to, got.Finished)
			}
			want.Finished = got.Finished
			r.equal(from+" → "+to.String(), got, want)
			if to != outbox.MessageQueued {
				continue
			}
			ms, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: due, Most: 1})
			r.ok(err)
			if len(ms) != 1 || ms[0].ID != id {
				r.Errorf("%s → queued: claimed %+v", from, ms)
			}
			r.record(outbox.Outcome{Message: id, State: outbox.MessageFailed})
		}
	}
	// Where nobody asked to hold it, an uncertain message goes out again.
	id := r.expanded(r.notify, outbox.MessageSending)[0].ID
	r.record(outbox.Outcome{Message: id, State: outbox.MessageUncertain, Due: past.Add(time.Minute), Burned: true, Reason: "cut after the dot"})
	got := r.getMessage(id)
	if got.State != outbox.MessageQueued || !got.Due.Equal(past.Add(time.Minute)) || got.Attempts != 1 || len(got.Body) == 0 || got.MessageID == "" {
		r.Errorf("an uncertain message became %+v", got)
	}
}

// testRecordRefuses: an outcome that cannot be does not cost the others theirs.
func testRecordRefuses(r *rig) {
	sending := r.expanded(r.notify, outbox.MessageSending, outbox.MessageSending)
	queued := r.queue(3)
	r.act(outbox.Cancel, outbox.Filter{Messages: queued[1:2]})
	r.store.Release(nil, queued[2:])
	err := r.store.Record(r.Context(), []outbox.Outcome{
		{Message: sending[0].ID, State: outbox.MessageSent},
		{Message: queued[0], State: outbox.MessageSent},
		{Message: queued[1], State: outbox.MessageExpired},
		{Message: queued[2], State: outbox.MessageExpired},
		{Message: 4711, State: outbox.MessageSent},
		{Message: sending[1].ID, State: outbox.MessageDead},
		{Message: sending[1].ID, State: outbox.MessageSent},
	})
	if !errors.Is(err, outbox.ErrState) {
		r.Fatalf("recording gave %v", err)
	}
	for _, part := range []string{
		fmt.Sprintf("message %d is queued and cannot become sent", queued[0]),
		fmt.Sprintf("message %d is cancelled and cannot become expired", queued[1]),
		fmt.Sprintf("message %d is queued and not claimed here, so it cannot become expired", queued[2]),
		"message 4711 does not exist",
		fmt.Sprintf("message %d is dead", sending[1].ID),
	} {
		if !strings.Contains(err.Error(), part) {
			r.Errorf("the error does not say %q: %v", part, err)
		}
	}
	r.equal("the states", r.states(append(queued, sending[0].ID, sending[1].ID)...), "queued cancelled queued sent dead")
}

func testAttempts(r *rig) {
	id := r.expanded(r.notify, outbox.MessageSending)[0].ID
	first := outbox.Attempt{Relay: "smtp.example.com:25", Started: past, Took: 1500 * time.Microsecond, Code: 451, Enhanced: "4.7.1", Text: "try later", Redirected: "me@example.com"}
	second := outbox.Attempt{Relay: "smtp.example.com:25", Started: past.Add(time.Minute), Took: time.Second, Text: "connection refused"}
	r.record(outbox.Outcome{Message: id, State: outbox.MessageQueued, Due: past, Burned: true, Attempt: &first})
	r.equal("where it went", r.getMessage(id).Redirected, first.Redirected)
	r.equal("claimed again", len(must(r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past, Most: 9}))), 1)
	r.record(outbox.Outcome{Message: id, State: outbox.MessageQueued, Due: past, Attempt: &second})
	r.equal("where it went at last", r.getMessage(id).Redirected, "")
	r.equal("claimed again", len(must(r.store.ClaimMessages(r.Context(), outbox.Claim{Now: past, Most: 9}))), 1)
	r.record(outbox.Outcome{Message: id, State: outbox.MessageExpired})
	got, err := r.store.Attempts(r.Context(), id)
	r.ok(err)
	r.equal("the attempts", got, []outbox.Attempt{first, second})
	r.equal("those that count", r.getMessage(id).Attempts, 1)
	none, err := r.store.Attempts(r.Context(), 4711)
	r.ok(err)
	r.equal("of a message that is not there", len(none), 0)
}

// testBodies: what is rendered is kept as long as it may be sent again, and no longer.
func testBodies(r *rig) {
	kept := "queued dead uncertain failed"
	for to := range strings.FieldsSeq(outcomes["sending"]) {
		id := r.expanded(r.careful, outbox.MessageSending)[0].ID
		var state outbox.MessageState
		r.ok(state.UnmarshalText([]byte(to)))
		r.record(outbox.Outcome{Message: id, State: state, Due: past.Add(48 * time.Hour)})
		m := r.getMessage(id)
		if want := slices.Contains(strings.Fields(kept), to); len(m.Body) > 0 != want {
			r.Errorf("after %s the body is %q", to, m.Body)
		}
		if m.Subject == "" || m.MessageID == "" {
			r.Errorf("after %s the message has no subject or id: %+v", to, m)
		}
	}
	for _, final := range []outbox.MessageState{outbox.MessageNotSent, outbox.MessageSuppressed, outbox.MessageFailed} {
		m := r.append(r.match())[0]
		g := message("a@example.com", final)
		g.Body = []byte("rendered")
		_, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{g}})
		r.ok(err)
		if got := r.full(outbox.Filter{Matches: []int64{m.ID}})[0]; len(got.Body) > 0 != (final == outbox.MessageFailed) {
			r.Errorf("a message that began as %s has the body %q", final, got.Body)
		}
	}
	id := r.expanded(r.notify, outbox.MessageSending)[0].ID
	r.record(outbox.Outcome{Message: id, State: outbox.MessageQueued, Due: past.Add(48 * time.Hour)})
	r.act(outbox.Cancel, outbox.Filter{Messages: []int64{id}})
	if m := r.getMessage(id); len(m.Body) > 0 {
		r.Errorf("a cancelled message has the body %q", m.Body)
	}
}

// must is for calls whose error the count beside it shows.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
