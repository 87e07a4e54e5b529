package chaos

import (
	"fmt"
	"slices"
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
	w.final(len(due))
	w.tell()
	v := judge(due, w.relay.server.Mails(), w.failures())
	v.check(w.t, w.app)
	if most := lanes*(len(w.postman.kills)+len(w.relay.outages)) + len(w.relay.dropped) + len(w.relay.closings); v.duplicates > most {
		w.t.Errorf("%d duplicates; %d kills and %d outages of %d lanes and %d dropped replies explain %d at most",
			v.duplicates, len(w.postman.kills), len(w.relay.outages), lanes, len(w.relay.dropped), most)
	}
	w.t.Logf("%d changes, of which %d were committed and told of; %d that a rule would match rolled back for certain, %d of no rule's interest; %d editions of the rules",
		w.app.changes.Load(), len(due), len(w.app.rolledBack), len(w.app.unmatched), len(w.postman.editions))
	w.t.Logf("back after a fault of the network within %v; drained %v after the last change", w.slowest.Round(time.Millisecond), drained.Round(time.Millisecond))
	w.t.Logf("%d mails: %d lost, %d invented, %d duplicates (%d of them without a failure in between), %d with a wrong recipient or Message-ID",
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

// failures are what can explain a duplicate. A reply that was dropped was so after its mail had been read.
func (w *world) failures() (all []failure) {
	for _, at := range slices.Concat(w.postman.kills, w.relay.outages) {
		all = append(all, failure{at, time.Second})
	}
	for _, at := range w.relay.dropped {
		all = append(all, failure{at, 0})
	}
	// What is said to a relay that has closed the connection is answered with a reset, which takes with it what has arrived and was not
	// read: the reply to the mail before, if it was said in one flight with the envelope that was told 421.
	for _, at := range w.relay.closings {
		all = append(all, failure{at, time.Second})
	}
	return all
}

// final checks that each match and each message came to the end that it should, by what the store says.
func (w *world) final(due int) {
	s := w.status()
	for state, n := range s.Outbox.Matches {
		if n > 0 && state != outbox.MatchExpanded || state == outbox.MatchExpanded && n != due {
			w.t.Errorf("%d matches are %s; %d were due, and all should be expanded", n, state, due)
		}
	}
	for state, n := range s.Outbox.Messages {
		if n > 0 && state != outbox.MessageSent || state == outbox.MessageSent && n != due {
			w.t.Errorf("%d messages are %s; %d were due, and all should be sent", n, state, due)
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
