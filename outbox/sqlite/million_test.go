package sqlite

import (
	"fmt"
	"testing"
	"time"

	"postman/outbox"
)

// BenchmarkMillion asks a store of a million matches and messages what daemon, dashboard and operators ask it.
func BenchmarkMillion(b *testing.B) {
	const total, waiting = 1_000_000, 100_000
	s, err := Open(b.TempDir()+"/postman.db", Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
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

// fill makes matches, the last ones pending and the others expanded to a message each that is sent; one in 10,000 is dead.
func fill(b *testing.B, s *Store, total, waiting int) {
	b.Helper()
	count := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)`, total)
	now := time.Now().Add(-time.Hour).UnixMicro()
	err := s.write(b.Context(), "filling", func(w *writer) error {
		if _, err := w.ruleID("notify", ""); err != nil {
			return err
		}
		if err := w.addTexts(map[outbox.Hash][]byte{{1}: {1}}); err != nil {
			return err
		}
		for _, statement := range []string{
			`INSERT INTO transactions (id, source, epoch, lsn, end_lsn, xid, time) ` + count + ` SELECT i, 1, 1, i * 100, i * 100 + 50, i, ?1 + i FROM n`,
			`INSERT INTO matches (id, tx, ordinal, rule, version, op, state, reason, due, priority, key, hold_uncertain, created, change) ` + count +
				fmt.Sprintf(` SELECT i, i, 0, 1, 1, 'insert', CASE WHEN i > %d THEN 0 ELSE 2 END, '', ?1 + i, 1, '', 0, ?1 + i, zeroblob(100) FROM n`, total-waiting),
			`INSERT INTO messages (id, match, address, address_key, resend, state, reason, due, priority, created, finished, recipient, message_id, subject, body) ` +
				`SELECT id, id, 'kim@example.com', randomblob(16), 0, CASE WHEN id % 10000 = 0 THEN 3 ELSE 2 END, '', due, 1, due, ?1, ` +
				`zeroblob(100), '<1@example.com>', 'subject', CASE WHEN id % 10000 = 0 THEN zeroblob(8000) END FROM matches WHERE state = 2`,
		} {
			if _, err := w.exec(statement, now); err != nil {
				return err
			}
		}
		return w.load()
	})
	if err != nil {
		b.Fatal(err)
	}
}
