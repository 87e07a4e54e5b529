package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"postman/outbox"
	"postman/position"
)

// batch is the batch that a hold of a rule's matches goes into; 0: each waits for itself. What is too much goes with what was too much before,
// if that has not calmed down and nobody has given an order about it; a transaction has its own, also when it is stored a second time.
func (w *writer) batch(h *outbox.Hold, rule uint32, source, epoch uint32, now time.Time) (id int64, err error) {
	if h.Cause == "" {
		return 0, nil
	}
	find, args := ` AND lsn = ?`, []any{rule, string(h.Cause), source, epoch, int64(h.Tx.LSN)}
	if h.Calm > 0 {
		find, args[4] = ` AND action = '' AND last > ?`, h.Tx.Time.Add(-h.Calm).UnixMicro()
	}
	err = w.each(`SELECT id FROM batches WHERE rule = ? AND cause = ? AND finished IS NULL AND source = ? AND epoch = ?`+find+` ORDER BY id DESC LIMIT 1`,
		func(scan scanner) error { return scan(&id) }, args...)
	if err == nil && id != 0 {
		_, err = w.exec(`UPDATE batches SET last = max(last, ?) WHERE id = ?`, h.Tx.Time.UnixMicro(), id)
	} else if err == nil {
		id = w.next("batches")
		_, err = w.exec(`INSERT INTO batches (id, rule, cause, source, epoch, lsn, xid, time, last, why, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id, rule, string(h.Cause), source, epoch, int64(h.Tx.LSN), h.Tx.XID, micros(h.Tx.Time), micros(h.Tx.Time), h.Why, now.UnixMicro(), micros(h.Expires))
	}
	if err != nil {
		return 0, fmt.Errorf("finding the batch of what is held: %w", err)
	}
	return id, nil
}

// gatherHeld finds the batches of arrivals that are held together with others.
func (w *writer) gatherHeld(in *incoming, arrivals []arrival) error {
	type member struct {
		hold *outbox.Hold
		rule uint32
	}
	known := make(map[member]int64)
	for i := range arrivals {
		a := &arrivals[i]
		if a.Batch == nil || a.state != outbox.MatchHeld {
			continue
		}
		m := member{a.Batch, a.Rule}
		id, ok := known[m]
		if !ok {
			var err error
			if id, err = w.batch(a.Batch, a.Rule, in.batch.Source, in.batch.Epoch, in.now); err != nil {
				return err
			}
			known[m] = id
		}
		a.batch = id
	}
	return nil
}

// waits is true of a match that waits in a batch and is committed. Its words let SQLite go by the index of batches alone.
var waits = fmt.Sprintf(`m.state = %d AND m.tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL)`, outbox.MatchHeld)

var selectBatches = `SELECT * FROM (
	SELECT b.id, b.rule, r.name, b.cause, b.source, b.epoch, b.lsn, b.xid, b.time, b.last, b.why, b.created, b.expires, b.told, b.mailed, b.action, b.reason, b.ordered, b.finished,
		(SELECT count(*) FROM matches m INDEXED BY matches_batch WHERE m.batch = b.id AND ` + waits + `) AS held,
		(SELECT count(*) FROM matches m INDEXED BY matches_batch WHERE m.batch = b.id AND m.tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL)) AS total
	FROM batches b JOIN rules r ON r.id = b.rule WHERE %s
) WHERE total > 0 ORDER BY id DESC`

// HeldBatches lists batches.
func (s *Store) HeldBatches(ctx context.Context, ids ...int64) ([]outbox.HeldBatch, error) {
	which, args := `b.finished IS NULL`, []any(nil)
	if len(ids) > 0 {
		which, args = `b.id IN (SELECT value FROM json_each(?))`, []any{list(ids)}
	}
	all, err := rows(s.reading(ctx), scanBatch, fmt.Sprintf(selectBatches, which), args...)
	if err != nil {
		return nil, fmt.Errorf("listing what is held: %w", explain(err))
	}
	return all, nil
}

func scanBatch(scan scanner) (b outbox.HeldBatch, err error) {
	var lsn int64
	var at, last, created, expires, mailed, ordered, finished sql.NullInt64
	err = scan(&b.ID, &b.Rule, &b.RuleName, &b.Cause, &b.Source, &b.Epoch, &lsn, &b.Tx.XID, &at, &last, &b.Why, &created, &expires, &b.Told, &mailed,
		&b.Action, &b.Reason, &ordered, &finished, &b.Held, &b.Total)
	b.Tx.LSN, b.Tx.Time, b.Last, b.Created = position.LSN(lsn), moment(at), moment(last), moment(created)
	b.Expires, b.Mailed, b.Ordered, b.Finished = moment(expires), moment(mailed), moment(ordered), moment(finished)
	return b, err
}

// ActOnBatch orders what becomes of a batch, and carries it out in steps.
func (s *Store) ActOnBatch(ctx context.Context, id int64, a outbox.Action, reason string, now time.Time) (moved int, err error) {
	what := fmt.Sprintf("%s of batch b%d", a, id)
	if a != outbox.Release && a != outbox.Discard {
		return 0, fmt.Errorf("%s: what is held is released or discarded: %w", what, outbox.ErrState)
	}
	if err := s.write(ctx, what, func(w *writer) error { return w.order(id, a, reason, now) }); err != nil {
		return 0, err
	}
	err = s.inSteps(ctx, what, func(w *writer) (more bool, err error) {
		n, err := w.stepBatch(id, a, now)
		moved += n
		return n == stepRows, err
	})
	return moved, err
}

// order notes what is to become of a batch. The first order counts.
func (w *writer) order(id int64, a outbox.Action, reason string, now time.Time) error {
	var action outbox.Action
	found := false
	err := w.each(`SELECT action FROM batches WHERE id = ?`, func(scan scanner) error { found = true; return scan(&action) }, id)
	switch {
	case err != nil:
		return err
	case !found:
		return outbox.ErrNotFound
	case action == a:
		return nil
	case action != "":
		return fmt.Errorf("%s was ordered before: %w", action, outbox.ErrState)
	}
	_, err = w.exec(`UPDATE batches SET action = ?, reason = ?, ordered = ? WHERE id = ?`, string(a), reason, now.UnixMicro(), id)
	return err
}

// blankThese is blankFinal for some matches.
var blankThese = strings.Replace(blankFinal, ` RETURNING`, ` AND id IN (SELECT value FROM json_each(?)) RETURNING`, 1)

// stepBatch moves some of what waits in a batch, and returns how many.
func (w *writer) stepBatch(batch int64, a outbox.Action, now time.Time) (int, error) {
	m := matchMoves[a]
	var ids []int64
	err := w.each(fmt.Sprintf(`UPDATE matches SET state = ?, reason = (SELECT reason FROM batches WHERE id = ?)%s
		WHERE id IN (SELECT m.id FROM matches m INDEXED BY matches_batch WHERE m.batch = ? AND %s LIMIT ?) RETURNING id`, m.set, waits),
		func(scan scanner) error {
			var id int64
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, int64(m.to), batch, batch, stepRows)
	if err != nil {
		return 0, fmt.Errorf("moving matches: %w", err)
	}
	w.after(w.claims.reset) // some are due by now
	if m.to.Final() && len(ids) > 0 {
		if _, err := w.blankBy(blankThese, list(ids)); err != nil {
			return 0, fmt.Errorf("blanking them: %w", err)
		}
	}
	if len(ids) < stepRows {
		_, err = w.exec(`UPDATE batches SET finished = ? WHERE id = ?`, now.UnixMicro(), batch)
	}
	return len(ids), err
}

// TellBatches notes what people were told.
func (s *Store) TellBatches(ctx context.Context, batches []outbox.HeldBatch, mail *outbox.Notice) error {
	return s.write(ctx, "noting what was told of held matches", func(w *writer) error {
		now := time.Now()
		for i := range batches {
			b := &batches[i]
			var mailed any
			if mail != nil {
				mailed = now.UnixMicro()
			}
			// What came since is told of the next time.
			if _, err := w.exec(`UPDATE batches SET told = ?, mailed = coalesce(mailed, ?), finished = coalesce(finished, ?) WHERE id = ?`, b.Total, mailed, micros(b.Finished), b.ID); err != nil {
				return err
			}
		}
		if mail == nil {
			return nil
		}
		return w.notify(mail, now)
	})
}

// notify queues a mail to operators.
func (w *writer) notify(n *outbox.Notice, now time.Time) error {
	version := outbox.HashOf(n.Text)
	claimed, err := w.append(&outbox.Batch{
		Transactions: []outbox.Transaction{{Tx: n.Tx, Matches: []outbox.NewMatch{{
			Rule: n.Rule, Version: version, Op: "notice", Priority: outbox.High, Due: now, Silent: n.Silent,
		}}}},
		Texts: map[outbox.Hash][]byte{version: n.Text},
	}, 1)
	if err != nil {
		return err
	}
	if len(claimed) != 1 {
		return fmt.Errorf("the mail to operators at %s is there already: %w", n.Tx.LSN, outbox.ErrState)
	}
	_, refused, err := w.expand(&outbox.Expansion{Match: claimed[0].ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{n.Message}}, now)
	if err == nil {
		err = refused
	}
	return err
}
