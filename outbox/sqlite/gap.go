package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// SaveGap records a gap outside of a batch.
func (s *Store) SaveGap(ctx context.Context, g outbox.Gap) error {
	return s.write(ctx, "recording a gap", func(w *writer) error { return w.addGap(&g, time.Now()) })
}

// addGap stores a gap, or extends the open one that it goes on with.
func (w *writer) addGap(g *outbox.Gap, now time.Time) error {
	var rule any
	if g.Rule != "" {
		id, err := w.ruleID(g.Rule, "")
		if err != nil {
			return fmt.Errorf("numbering the rule %q of a gap: %w", g.Rule, err)
		}
		rule = id
	}
	_, err := w.exec(`
		INSERT INTO gaps (source, epoch, rule, on_table, table_oid, ops, from_lsn, to_lsn, count, lost, reason, created, closed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (source, epoch, coalesce(rule, 0), reason) WHERE closed IS NULL DO UPDATE SET
			from_lsn = min(from_lsn, excluded.from_lsn),
			to_lsn = max(to_lsn, excluded.to_lsn),
			count = count + excluded.count,
			lost = max(lost, excluded.lost),
			ops = coalesce(excluded.ops, ops)`,
		g.Source, g.Epoch, rule, g.Table, g.OID, list(g.Ops), int64(g.From), int64(g.To), max(g.Count, 1), truth(g.Lost), g.Reason,
		or(g.Created, now).UnixMicro(), micros(g.Closed))
	if err != nil {
		return fmt.Errorf("storing a gap: %w", err)
	}
	return nil
}

// Gaps lists the gaps, newest first.
func (s *Store) Gaps(ctx context.Context) ([]outbox.Gap, error) {
	found, err := rows(s.reading(ctx), scanGap, `
		SELECT g.id, g.source, g.epoch, coalesce(r.name, ''), g.on_table, g.table_oid, g.ops, g.from_lsn, g.to_lsn, g.count, g.lost, g.reason, g.created, g.closed, coalesce(g.replay, 0),
			g.stays, g.accepted, g.who, g.why
		FROM gaps g LEFT JOIN rules r ON r.id = g.rule ORDER BY g.id DESC`)
	if err != nil {
		return nil, fmt.Errorf("reading the gaps: %w", explain(err))
	}
	return found, nil
}

func scanGap(scan scanner) (g outbox.Gap, err error) {
	var from, to int64
	var created, closed, accepted sql.NullInt64
	var ops sql.NullString
	err = scan(&g.ID, &g.Source, &g.Epoch, &g.Rule, &g.Table, &g.OID, &ops, &from, &to, &g.Count, &g.Lost, &g.Reason, &created, &closed, &g.Replay,
		&g.Left, &accepted, &g.By, &g.Why)
	g.From, g.To, g.Created, g.Closed, g.Accepted = position.LSN(from), position.LSN(to), moment(created), moment(closed), moment(accepted)
	if err == nil && ops.Valid {
		err = json.Unmarshal([]byte(ops.String), &g.Ops)
	}
	return g, err
}

// CloseGap ends an open gap that has not changed since it was read: whatever it takes in raises its count.
func (s *Store) CloseGap(ctx context.Context, g outbox.Gap, to position.LSN) error {
	return s.write(ctx, fmt.Sprintf("closing gap %d", g.ID), func(w *writer) error {
		n, err := w.exec(`UPDATE gaps SET to_lsn = ?, closed = ? WHERE id = ? AND count = ? AND closed IS NULL`, int64(to), time.Now().UnixMicro(), g.ID, g.Count)
		if err == nil && n == 0 {
			err = fmt.Errorf("it is not open any more, or has taken more in: %w", outbox.ErrState)
		}
		return err
	})
}

// MendGap notes that a replay made up for a gap, and what of it is lost.
func (s *Store) MendGap(ctx context.Context, g outbox.Gap, replay int64, losses []outbox.Gap) error {
	return s.write(ctx, fmt.Sprintf("noting that gap %d is made up for", g.ID), func(w *writer) error {
		n, err := w.exec(`UPDATE gaps SET replay = ?, closed = coalesce(closed, ?) WHERE id = ? AND count = ? AND to_lsn <> 0 AND lost = 0 AND accepted IS NULL`,
			replay, time.Now().UnixMicro(), g.ID, g.Count)
		if err == nil && n == 0 {
			err = fmt.Errorf("it has not ended, is lost or accepted, or has taken more in: %w", outbox.ErrState)
		}
		for i := 0; err == nil && i < len(losses); i++ {
			err = w.addGap(&losses[i], time.Now())
		}
		return err
	})
}

// LeaveGap notes why a replay could not make up for a gap.
func (s *Store) LeaveGap(ctx context.Context, g outbox.Gap, why string) error {
	return s.write(ctx, fmt.Sprintf("noting why gap %d stays", g.ID), func(w *writer) error {
		n, err := w.exec(`UPDATE gaps SET stays = ? WHERE id = ? AND replay IS NULL AND accepted IS NULL`, why, g.ID)
		if err == nil && n == 0 {
			err = fmt.Errorf("it is settled: %w", outbox.ErrState)
		}
		return err
	})
}

// AcceptGaps notes that an operator takes gaps as they are.
func (s *Store) AcceptGaps(ctx context.Context, gaps []outbox.Gap) error {
	return s.write(ctx, "accepting gaps", func(w *writer) error {
		for i := range gaps {
			g := &gaps[i]
			at := g.Accepted.UnixMicro()
			n, err := w.exec(`UPDATE gaps SET accepted = ?, who = ?, why = ?, closed = coalesce(closed, ?)
				WHERE id = ? AND count = ? AND to_lsn <> 0 AND replay IS NULL AND accepted IS NULL`, at, g.By, g.Why, at, g.ID, g.Count)
			if err == nil && n == 0 {
				err = fmt.Errorf("it goes on, is settled, or has taken more in: %w", outbox.ErrState)
			}
			if err != nil {
				return fmt.Errorf("gap %d: %w", g.ID, err)
			}
		}
		return nil
	})
}
