package sqlite

import (
	"context"
	"fmt"
	"time"
)

// consumer is who used what in which month.
type consumer struct{ month, relay string }

// monthOf is how a month is stored.
func monthOf(t time.Time) string { return t.UTC().Format("2006-01") }

// use counts the mails that relays took.
func (w *writer) use(mails map[consumer]int) error {
	for c, n := range mails {
		if _, err := w.exec(`INSERT INTO usage (month, relay, mails) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET mails = mails + excluded.mails`, c.month, c.relay, n); err != nil {
			return fmt.Errorf("counting the mails of relay %q: %w", c.relay, err)
		}
	}
	return nil
}

// Usage counts the mails that each relay took in a month.
func (s *Store) Usage(ctx context.Context, month time.Time) (map[string]int64, error) {
	usage := make(map[string]int64)
	_, err := rows(s.reading(ctx), func(scan scanner) (relay string, err error) {
		var mails int64
		err = scan(&relay, &mails)
		usage[relay] = mails
		return relay, err
	}, `SELECT relay, mails FROM usage WHERE month = ?`, monthOf(month))
	if err != nil {
		return nil, fmt.Errorf("reading what relays took: %w", explain(err))
	}
	return usage, nil
}
