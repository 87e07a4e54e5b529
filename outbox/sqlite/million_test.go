package sqlite

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postman/outbox"
)

// BenchmarkMillion asks a store of a million matches and messages what daemon, dashboard and operators ask it.
func BenchmarkMillion(b *testing.B) {
	const total, waiting = 1_000_000, 100_000
	s := openBench(b)
	fill(b, s, total, waiting)
	now := time.Now()
	if _, err := s.ClaimMatches(b.Context(), outbox.Claim{Now: now, Most: 10_000}); err != nil {
		b.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"claim and release 100": func() error {
			found, err := s.ClaimMatches(b.Context(), outbox.Claim{Now: now, Most: 100})
			var ids []int64
			for _, m := range found {
				ids = append(ids, m.ID)
			}
			s.Release(ids, nil)
			return err
		},
		"claim behind 10000": func() error {
			s.claims.reset()
			found, err := s.ClaimMatches(b.Context(), outbox.Claim{Now: now, Most: 1})
			if len(found) == 1 {
				s.Release([]int64{found[0].ID}, nil)
			}
			return err
		},
		"next due": func() error { _, err := s.NextDue(b.Context(), nil, nil); return err },
		"count":    func() error { _, err := s.Count(b.Context()); return err },
		"last 50":  func() error { _, err := s.Messages(b.Context(), outbox.Filter{Limit: 50}); return err },
		"last 50 dead or failed": func() error {
			_, err := s.Messages(b.Context(), outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageDead, outbox.MessageFailed}, Limit: 50})
			return err
		},
		"last 50 sent": func() error {
			_, err := s.Messages(b.Context(), outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageSent}, Limit: 50})
			return err
		},
		"by address": func() error {
			_, err := s.Messages(b.Context(), outbox.Filter{Address: "kim@example.com", Limit: 50})
			return err
		},
		"recent matches": func() error { _, err := s.RecentMatches(b.Context(), now.Add(-time.Minute)); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkClaim claims 100 messages and asks what is due next, as the dispatcher does, in stores that hold more and less than that.
func BenchmarkClaim(b *testing.B) {
	for _, c := range []struct {
		name                  string
		queued, future, rules int
	}{
		{"10000 queued", 10_000, 0, 20},
		{"1000000 queued", 1_000_000, 0, 20},
		{"10000 queued, 1000000 in the future", 10_000, 1_000_000, 20},
		{"10000 rules of one each", 10_000, 0, 10_000},
		{"10000 rules in the future", 10_000, 10_000, 20_000},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := openBench(b)
			fillQueue(b, s, c.queued, c.future, c.rules)
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				claimed, err := s.ClaimMessages(b.Context(), outbox.Claim{Now: start, Most: 100})
				if err != nil || len(claimed) != 100 {
					b.Fatal(len(claimed), err)
				}
				if _, err := s.NextDue(b.Context(), nil, nil); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				var ids []int64
				for _, m := range claimed {
					ids = append(ids, m.ID)
				}
				s.Release(nil, ids)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		})
	}
}

func openBench(tb testing.TB) *Store {
	tb.Helper()
	s, err := Open(tb.TempDir()+"/postman.db", Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// TestFill keeps the benchmarks from rotting.
func TestFill(t *testing.T) {
	t.Parallel()
	s := openBench(t)
	fill(t, s, 200, 10)
	counts, err := s.Count(t.Context())
	if err != nil || counts.Matches[outbox.MatchPending] != 10 || counts.Messages[outbox.MessageSent] != 190 {
		t.Errorf("there are %+v, %v", counts, err)
	}
	s = openBench(t)
	fillQueue(t, s, 100, 20, 7)
	claimed, err := s.ClaimMessages(t.Context(), outbox.Claim{Now: time.Now(), Most: 1000})
	if err != nil || len(claimed) != 100 || claimed[0].Rule != 1 || claimed[1].Rule != 2 {
		t.Errorf("%d were claimed, %v", len(claimed), err)
	}
}

// fillQueue makes messages that wait, of as many rules in turn, all of one match; some are due already, and others in a year.
func fillQueue(tb testing.TB, s *Store, queued, future, rules int) {
	tb.Helper()
	statements := []string{
		`INSERT INTO rules (id, name) ` + numbers(rules) + ` SELECT i, 'rule ' || i FROM n`,
		`INSERT INTO transactions (id, source, epoch, lsn, end_lsn, xid, time) VALUES (1, 1, 1, 100, 150, 1, ?1)`,
		`INSERT INTO matches (id, tx, ordinal, rule, version, op, state, reason, due, priority, key, hold_uncertain, silent, created, change) ` + numbers(rules) +
			` SELECT i, 1, i, i, 1, 'insert', 2, '', ?1, 1, '', 0, 0, ?1, zeroblob(100) FROM n`,
		`INSERT INTO messages (match, rule, address, address_key, resend, state, reason, due, priority, created, recipient, message_id, subject) ` + numbers(queued+future) +
			fmt.Sprintf(` SELECT 1 + i %% %d, 1 + i %% %[1]d, 'kim@example.com', randomblob(16), 0, 0, '', CASE WHEN i > %d THEN ?1 + 365 * 86400000000 ELSE ?1 END + i, 1, ?1,
				zeroblob(100), '', '' FROM n`, rules, queued),
	}
	fillWith(tb, s, statements)
}

// numbers is a table n with the numbers from 1 on.
func numbers(most int) string {
	return fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)`, most)
}

// fillWith runs statements whose parameter is an hour ago.
func fillWith(tb testing.TB, s *Store, statements []string) {
	tb.Helper()
	now := time.Now().Add(-time.Hour).UnixMicro()
	err := s.write(tb.Context(), "filling", func(w *writer) error {
		if err := w.addTexts(map[outbox.Hash][]byte{{1}: {1}}); err != nil {
			return err
		}
		for _, statement := range statements {
			if _, err := w.exec(statement, slices.Repeat([]any{now}, min(1, strings.Count(statement, "?1")))...); err != nil {
				return err
			}
		}
		w.after(w.claims.reset)
		return w.load()
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// fill makes matches, the last ones pending and the others expanded to a message each that is sent; one in 10,000 is dead.
func fill(tb testing.TB, s *Store, total, waiting int) {
	tb.Helper()
	fillWith(tb, s, []string{
		`INSERT INTO rules (id, name) VALUES (1, 'notify')`,
		`INSERT INTO transactions (id, source, epoch, lsn, end_lsn, xid, time) ` + numbers(total) + ` SELECT i, 1, 1, i * 100, i * 100 + 50, i, ?1 + i FROM n`,
		`INSERT INTO matches (id, tx, ordinal, rule, version, op, state, reason, due, priority, key, hold_uncertain, silent, created, change) ` + numbers(total) +
			fmt.Sprintf(` SELECT i, i, 0, 1, 1, 'insert', CASE WHEN i > %d THEN 0 ELSE 2 END, '', ?1 + i, 1, '', 0, 0, ?1 + i, zeroblob(100) FROM n`, total-waiting),
		`INSERT INTO messages (id, match, rule, address, address_key, resend, state, reason, due, priority, created, finished, recipient, message_id, subject, body) ` +
			`SELECT id, id, 1, 'kim@example.com', randomblob(16), 0, CASE WHEN id % 10000 = 0 THEN 3 ELSE 2 END, '', due, 1, due, ?1, ` +
			`zeroblob(100), '<1@example.com>', 'subject', CASE WHEN id % 10000 = 0 THEN zeroblob(8000) END FROM matches WHERE state = 2`,
	})
}
