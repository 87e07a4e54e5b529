package outboxtest

import (
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"postman/outbox"
)

// What happens to matches and messages in the lives that testModel leads, once they are in the store.

// anyMatch picks a match, rather one that is claimed; nil: there is none.
func (m *model) anyMatch(t *rapid.T) *oracleMatch {
	if len(m.matches) == 0 {
		t.Skip("there is no match")
	}
	var claimed []*oracleMatch
	for _, n := range m.matches {
		if n.claimed {
			claimed = append(claimed, n)
		}
	}
	if len(claimed) > 0 && rapid.IntRange(0, 3).Draw(t, "claimed") > 0 {
		return pick(t, claimed)
	}
	return pick(t, m.matches)
}

func pick[T any](t *rapid.T, from []T) T { return from[rapid.IntRange(0, len(from)-1).Draw(t, "pick")] }

// anyMessages picks some messages, rather such as are claimed.
func (m *model) anyMessages(t *rapid.T) []*oracleMessage {
	if len(m.messages) == 0 {
		t.Skip("there is no message")
	}
	var claimed []*oracleMessage
	for _, n := range m.messages {
		if n.claimed {
			claimed = append(claimed, n)
		}
	}
	var some []*oracleMessage
	for range rapid.IntRange(1, 3).Draw(t, "how many") {
		from := m.messages
		if len(claimed) > 0 && rapid.IntRange(0, 3).Draw(t, "claimed") > 0 {
			from = claimed
		}
		some = append(some, pick(t, from))
	}
	return some
}

func (m *model) expand(t *rapid.T) {
	n := m.anyMatch(t)
	e := outbox.Expansion{
		Match: n.ID, Reason: "as it was expanded", Due: moment(t, "due"), Early: rapid.Bool().Draw(t, "early"),
		State: rapid.SampledFrom(append(outbox.MatchStates(), outbox.MatchExpanded, outbox.MatchExpanded, outbox.MatchExpanded, outbox.MatchPending)).Draw(t, "state"),
	}
	if e.State == outbox.MatchExpanded || rapid.IntRange(0, 9).Draw(t, "contradiction") == 0 {
		for range rapid.IntRange(0, 3).Draw(t, "messages") {
			e.Messages = append(e.Messages, newMessage(t))
		}
	}
	got, err := m.store.Expand(t.Context(), e)
	sending, ok := m.oracle.expand(n, &e, time.Now())
	m.oracle.blank(time.Time{})
	if !ok {
		if !errors.Is(err, outbox.ErrState) {
			t.Fatalf("an expansion that must be refused gave %v", err)
		}
		return
	}
	fatal(t, err)
	if len(got) != len(sending) {
		t.Fatalf("%d messages are sending, not %d", len(got), len(sending))
	}
	for i := range got {
		sending[i].ID, sending[i].Match = got[i].ID, got[i].Match
		agree(t, "a sending message", got[i], sending[i].asRead())
	}
}

func newMessage(t *rapid.T) outbox.NewMessage {
	g := message(rapid.SampledFrom([]string{"a@example.com", "A@Example.com ", "b@example.com", ""}).Draw(t, "address"),
		rapid.SampledFrom(append(outbox.MessageStates(), outbox.MessageSending, outbox.MessageQueued, outbox.MessageSending, outbox.MessageQueued)).Draw(t, "state"))
	if !messageBegins[g.State.String()] && rapid.IntRange(0, 5).Draw(t, "a good one") > 0 {
		g = message(g.Address, outbox.MessageSending)
	}
	g.Resend = uint32(rapid.IntRange(0, 1).Draw(t, "resend"))
	g.Due = moment(t, "due")
	return g
}

func (m *model) start(t *rapid.T) {
	var starts []outbox.Start
	var want []int64
	for _, n := range m.anyMessages(t) {
		s := outbox.Start{Message: n.ID, Lease: past}
		if len(n.Body) == 0 || rapid.Bool().Draw(t, "rendered again") {
			s.MessageID, s.Subject, s.Body, s.Template = fmt.Sprintf("<%d@x>", n.ID), "subject", []byte("rendered"), outbox.HashOf([]byte("template"))
		}
		starts = append(starts, s)
		if m.oracle.start(n, &s) {
			want = append(want, n.ID)
		}
	}
	got, err := m.store.Start(t.Context(), starts)
	fatal(t, err)
	agree(t, "what was started", got, want)
}

func (m *model) record(t *rapid.T) {
	var all []outbox.Outcome
	refused := false
	for _, n := range m.anyMessages(t) {
		states := append(outbox.MessageStates(), outbox.MessageSent, outbox.MessageSent, outbox.MessageSent, outbox.MessageDead)
		out := outbox.Outcome{
			Message: n.ID, State: rapid.SampledFrom(states).Draw(t, "state"), Reason: "as it was recorded", Reply: "250 ok",
			Due: moment(t, "due"), Burned: rapid.Bool().Draw(t, "burned"),
		}
		if relay := rapid.SampledFrom([]string{"", "first", "second"}).Draw(t, "relay"); relay != "" {
			out.Attempt = &outbox.Attempt{Relay: relay, Started: moment(t, "started")}
		}
		all = append(all, out)
		if !m.oracle.record(n, &out) {
			refused = true
		}
	}
	m.oracle.blank(time.Time{})
	err := m.store.Record(t.Context(), all)
	if refused != errors.Is(err, outbox.ErrState) || !refused && err != nil {
		t.Fatalf("recording gave %v; refused: %v", err, refused)
	}
}

func (m *model) release(t *rapid.T) {
	var matches, messages []int64
	if rapid.Bool().Draw(t, "of messages") {
		for _, n := range m.anyMessages(t) {
			messages = append(messages, n.ID)
			if n.claimed && !n.started {
				n.claimed = false
				n.begun--
			}
		}
	} else {
		n := m.anyMatch(t)
		if matches = []int64{n.ID}; n.claimed {
			n.claimed = false
			n.begun--
		}
	}
	m.store.Release(matches, messages)
}

func (m *model) act(t *rapid.T) {
	a := rapid.SampledFrom([]outbox.Action{outbox.Retry, outbox.Cancel, outbox.Release, outbox.Discard}).Draw(t, "action")
	f := m.filter(t)
	now := moment(t, "now")
	affected, err := m.store.Affected(t.Context(), a, f)
	fatal(t, err)
	agree(t, "what would be moved", affected, m.affected(a, &f))
	got, err := m.store.Act(t.Context(), a, f, "an operator", now)
	fatal(t, err)
	agree(t, "what was moved", got, m.oracle.act(a, &f, "an operator", now))
	m.oracle.blank(time.Time{})
}

func (m *model) filter(t *rapid.T) (f outbox.Filter) {
	if rapid.IntRange(0, 3).Draw(t, "by rule") == 0 {
		f.Rules = rapid.SliceOfN(rapid.SampledFrom([]string{"notify", "careful", "careless"}), 1, 2).Draw(t, "rules")
	}
	if rapid.IntRange(0, 5).Draw(t, "by time") == 0 {
		f.Due = moment(t, "due")
	}
	if rapid.IntRange(0, 5).Draw(t, "by error") == 0 {
		f.Error = rapid.SampledFrom([]string{"AS IT WAS", "250", "operator", "nowhere"}).Draw(t, "error")
	}
	switch rapid.IntRange(0, 7).Draw(t, "by") {
	case 0, 1:
		for _, n := range m.anyMessages(t) {
			f.Messages = append(f.Messages, n.ID)
		}
	case 2, 3:
		f.Matches = []int64{m.anyMatch(t).ID}
	case 4:
		f.MatchStates = rapid.SliceOfN(rapid.SampledFrom(outbox.MatchStates()), 1, 4).Draw(t, "match states")
	case 5:
		f.MessageStates = rapid.SliceOfN(rapid.SampledFrom(outbox.MessageStates()), 1, 6).Draw(t, "message states")
	case 6:
		f.Address = rapid.SampledFrom([]string{"A@EXAMPLE.com", "b@example.com", "c@example.com"}).Draw(t, "address")
	}
	return f
}

// die is a process that ends, and one that begins.
func (m *model) die(t *rapid.T) {
	fatal(t, m.store.Close())
	m.store = m.open()
	now := moment(t, "now")
	got, err := m.store.Recover(t.Context(), now)
	fatal(t, err)
	agree(t, "what was recovered", got, m.oracle.die(now))
	src, err := m.store.Source(t.Context(), m.source.SystemID, m.source.Database, m.source.Slot)
	fatal(t, err)
	agree(t, "the source", src, m.source)
}

// dieAtWork dies at any point between two calls, with what else it could lay hands on.
func (m *model) dieAtWork(t *rapid.T) {
	m.claimMatches(t)
	m.claimMessages(t)
	m.die(t)
}

func (m *model) blank(t *rapid.T) {
	now := moment(t, "now")
	got, err := m.store.Blank(t.Context(), now)
	fatal(t, err)
	if want := m.oracle.blank(now); got != want {
		t.Fatalf("%d matches were blanked, not %d", got, want)
	}
}

func (m *model) nextDue(t *rapid.T) {
	matches, messages := m.anyClaim(t), m.anyClaim(t)
	got, err := m.store.NextDue(t.Context(), matches.Of, messages.Of)
	fatal(t, err)
	var want time.Time
	now := time.Now()
	earlier := func(all []waiting, of func(uint32, outbox.Priority) bool) {
		for _, n := range all {
			at := n.due
			if !m.admits(n.suspect) && at.Before(now) {
				at = now // it has to wait for others: not for long
			}
			if (of == nil || of(n.rule, n.priority)) && (want.IsZero() || at.Before(want)) {
				want = at
			}
		}
	}
	earlier(m.waitingMatches(), matches.Of)
	earlier(m.waitingMessages(), messages.Of)
	if want.Equal(now) && got.After(now.Add(-time.Second)) && got.Before(now.Add(time.Second)) {
		return
	}
	agree(t, "what is due next", got, want)
}
