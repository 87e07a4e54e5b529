package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// SaveBounce notes what came back of a message.
func (s *Store) SaveBounce(ctx context.Context, b outbox.Bounce, soft outbox.SoftLimit) (done outbox.Bounced, err error) {
	err = s.write(ctx, "noting a bounce", func(w *writer) (err error) {
		done, err = w.bounce(&b, soft)
		return err
	})
	if err != nil {
		return outbox.Bounced{}, err
	}
	return done, nil
}

func (w *writer) bounce(b *outbox.Bounce, soft outbox.SoftLimit) (done outbox.Bounced, err error) {
	key, message := outbox.AddressKey(b.Address), any(nil)
	if b.Message != 0 {
		message = b.Message
	}
	n, err := w.exec(`INSERT INTO bounces (event, message, key, address, kind, status, text, source, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (event) DO NOTHING`, b.Event[:], message, key[:], b.Address, int64(b.Kind), b.Status, b.Text, b.Source, b.At.UnixMicro())
	if err != nil || n == 0 {
		return outbox.Bounced{Known: n == 0}, err
	}
	if b.Address == "" {
		return done, nil
	}
	p := outbox.Suppression{Address: b.Address, Detail: b.Text, By: b.Source, Since: b.At}
	switch b.Kind {
	case outbox.BounceHard:
		p.Cause = outbox.HardBounce
	case outbox.BounceComplaint:
		p.Cause = outbox.Complaint
	case outbox.BounceSoft:
		if done.Days, err = w.softDays(key, b.At.Add(-soft.Within)); err != nil || done.Days < soft.Days {
			return done, err
		}
		p.Cause, p.Detail = outbox.SoftBounces, fmt.Sprintf("on %d days, lastly %s", done.Days, b.Text)
	case outbox.BounceBlocked, outbox.BounceUnsubscribe:
		return done, nil
	}
	if n, err = w.suppress([]outbox.Suppression{p}); err == nil && n > 0 {
		done.Suppressed = &p
	}
	return done, err
}

// softDays counts the days with soft bounces of an address since then, and since an operator last let mail go there.
func (w *writer) softDays(key [16]byte, since time.Time) (days int, err error) {
	err = w.each(`SELECT count(DISTINCT at / ?) FROM bounces WHERE key = ? AND kind = ? AND at >= ?
		AND at > coalesce((SELECT max(lifted) FROM suppressions p WHERE p.key = bounces.key), 0)`,
		func(scan scanner) error { return scan(&days) }, (24 * time.Hour).Microseconds(), key[:], int64(outbox.BounceSoft), since.UnixMicro())
	return days, err
}

// Bounces lists what came back of a message.
func (s *Store) Bounces(ctx context.Context, message int64) ([]outbox.Bounce, error) {
	found, err := rows(s.reading(ctx), func(scan scanner) (b outbox.Bounce, err error) {
		var event []byte
		var at sql.NullInt64
		if err = scan(&event, &b.Message, &b.Address, &b.Kind, &b.Status, &b.Text, &b.Source, &at); err == nil {
			b.Event, err = hashFrom(event)
		}
		b.At = moment(at)
		return b, err
	}, `SELECT event, message, address, kind, status, text, source, at FROM bounces WHERE message = ? ORDER BY id`, message)
	if err != nil {
		return nil, fmt.Errorf("listing what came back of message %d: %w", message, explain(err))
	}
	return found, nil
}

// selectByPlace looks in every source and epoch, of which there are few: LSNs alone are no key of transactions, nor ordinals' low bits of matches.
const selectByPlace = `SELECT g.id FROM messages g WHERE g.message_id = ? AND g.match IN (
	WITH RECURSIVE epochs (n) AS (SELECT coalesce(max(epoch), 0) FROM sources UNION ALL SELECT n - 1 FROM epochs WHERE n > 0)
	SELECT x.id FROM (SELECT id FROM sources UNION SELECT 0) s CROSS JOIN epochs e
		CROSS JOIN transactions t ON t.source = s.id AND t.epoch = e.n AND t.lsn = ? AND t.lsn IS NOT NULL
		CROSS JOIN matches x ON x.tx = t.id WHERE x.ordinal & 0xffffffff = ?) LIMIT 1`

// Find returns the message of a Message-ID.
func (s *Store) Find(ctx context.Context, at position.LSN, ordinal uint32, messageID string) (outbox.Message, error) {
	ids, err := rows(s.reading(ctx), func(scan scanner) (id int64, err error) { err = scan(&id); return id, err }, selectByPlace, messageID, int64(at), int64(ordinal))
	if err != nil {
		return outbox.Message{}, fmt.Errorf("looking for a Message-ID: %w", explain(err))
	}
	if len(ids) == 0 {
		return outbox.Message{}, outbox.ErrNotFound
	}
	found, err := s.Messages(ctx, outbox.Filter{Messages: ids})
	if err == nil && len(found) == 0 {
		err = outbox.ErrNotFound
	}
	if err != nil {
		return outbox.Message{}, err
	}
	return found[0], nil
}
