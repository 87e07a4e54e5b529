package chaos

import (
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// finish waits until the outbox is drained, has every gap mended, and judges.
func (w *world) finish() {
	if w.broken() {
		w.follow()
	}
	began := time.Now()
	w.stored()
	w.live() // though the last reload may have met a database that was away
	w.mend()
	w.drained()
	drained := time.Since(began)
	w.must(w.postman.stop())
	w.confirmed()
	history, err := w.postman.history()
	w.must(err)
	due := w.oracle.due(w.t.Context(), w.t, history)
	w.final(due)
	w.tell()
	v := judge(due, w.relay.server.Mails(), w.postman.kills, w.relay.broken)
	v.check(w.t, w.app, w.oracle)
	w.t.Logf("%d changes, of which %d were committed and told of, and %d muted; %d that a rule would match rolled back for certain, %d of no rule's interest; %d editions of the rules",
		w.app.changes.Load(), due.messages(), due.muted, len(w.app.rolledBack), len(w.app.unmatched), len(w.postman.editions))
	w.t.Logf("back after a fault of the network within %v; drained %v after the last change", w.slowest.Round(time.Millisecond), drained.Round(time.Millisecond))
	w.t.Logf("%d mails: %d lost, %d invented, %d duplicates (%d of them that no failure explains), %d wrong",
		v.mails, len(v.lost), len(v.invented), v.duplicates, len(v.unforced), len(v.wrong))
}

// drained waits until everything is stored and nothing waits to be sent.
func (w *world) drained() {
	w.t.Helper()
	end := w.lsn("select pg_current_wal_lsn()::text")
	w.await(w.size.patience, "the outbox to drain", func() (bool, string) {
		s := w.status()
		stored, err := position.ParseLSN(s.Stream.Stored)
		w.must(err)
		waiting := s.Outbox.Matches[outbox.MatchPending] + s.Outbox.Messages[outbox.MessageQueued] + s.Outbox.Messages[outbox.MessageSending]
		return stored >= end && waiting == 0 && s.Healthy,
			fmt.Sprintf("stored %s of %s, %v, healthy %t: %q", stored, end, s.Outbox, s.Healthy, s.Trouble)
	})
}

// final checks that each match and each message came to the end that it should, by what the store says.
func (w *world) final(due *dues) {
	s := w.status()
	matches := map[outbox.MatchState]int{outbox.MatchExpanded: due.messages(), outbox.MatchMuted: due.muted}
	for _, state := range outbox.MatchStates() {
		if n := s.Outbox.Matches[state]; n != matches[state] {
			w.t.Errorf("%d matches are %s; want %d", n, state, matches[state])
		}
	}
	messages := map[outbox.MessageState]int{outbox.MessageSent: due.messages()}
	for _, state := range outbox.MessageStates() {
		if n := s.Outbox.Messages[state]; n != messages[state] {
			w.t.Errorf("%d messages are %s; want %d", n, state, messages[state])
		}
	}
	for _, g := range s.Gaps {
		if g.Replay == 0 {
			w.t.Errorf("a gap was not mended: %+v", g)
			continue
		}
		w.mended++
	}
}
