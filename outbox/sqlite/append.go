package sqlite

import (
	"context"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// Append makes a batch durable and returns up to claim of its pending matches that are due, claimed.
func (s *Store) Append(ctx context.Context, b outbox.Batch, claim int) ([]outbox.Match, error) {
	var claimed []outbox.Match
	err := s.write(ctx, "storing a batch", func(w *writer) (err error) {
		claimed, err = w.append(&b, claim)
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func (w *writer) append(b *outbox.Batch, claim int) ([]outbox.Match, error) {
	source, err := w.check(b)
	if err != nil {
		return nil, err
	}
	if err := w.addTexts(b.Texts); err != nil {
		return nil, err
	}
	in := incoming{batch: b, now: time.Now()}
	for i := range b.Transactions {
		t := &b.Transactions[i]
		switch {
		case b.Source != 0 && t.End <= source.Checkpoint:
			err = w.unspill(t.Spilled)
		case t.Spilled != nil:
			err = w.adopt(&in, t)
		default:
			in.accepted = append(in.accepted, accepted{t, w.next("transactions"), true})
		}
		if err != nil {
			return nil, err
		}
	}
	claimed, err := w.take(&in, claim)
	if err != nil {
		return nil, err
	}
	for i := range b.Gaps {
		if err := w.addGap(&b.Gaps[i], in.now); err != nil {
			return nil, err
		}
	}
	if err := w.addJournal(b, source.Checkpoint); err != nil {
		return nil, err
	}
	return claimed, w.advance(b)
}

// check refuses a batch that does not go on where the store stands. The clock has neither checkpoint nor epoch.
func (w *writer) check(b *outbox.Batch) (outbox.Source, error) {
	if b.Source == 0 {
		return outbox.Source{}, nil
	}
	src, ok := w.known.sources[b.Source]
	switch {
	case !ok:
		return src, fmt.Errorf("source %d: %w", b.Source, outbox.ErrNotFound)
	case b.Epoch != src.Epoch:
		return src, fmt.Errorf("%w: source %d is in epoch %d, the batch in %d", outbox.ErrCheckpoint, b.Source, src.Epoch, b.Epoch)
	case b.Checkpoint < src.Checkpoint:
		return src, fmt.Errorf("%w: source %d is at %s, the batch at %s", outbox.ErrCheckpoint, b.Source, src.Checkpoint, b.Checkpoint)
	}
	for i := range b.Transactions {
		if end := b.Transactions[i].End; end > b.Checkpoint {
			return src, fmt.Errorf("%w: the batch ends at %s, before its transaction at %s", outbox.ErrCheckpoint, b.Checkpoint, end)
		}
	}
	for i := range b.Journal {
		if last := b.Journal[i].Last; last >= b.Checkpoint {
			return src, fmt.Errorf("%w: the batch ends at %s, before its journal at %s", outbox.ErrCheckpoint, b.Checkpoint, last)
		}
	}
	return src, nil
}

func (w *writer) advance(b *outbox.Batch) error {
	src := w.known.sources[b.Source]
	if b.Source == 0 || b.Checkpoint == src.Checkpoint {
		return nil
	}
	src.Checkpoint, src.Verified = b.Checkpoint, max(src.Verified, b.Verified)
	w.known.sources[b.Source] = src
	if _, err := w.exec(`UPDATE sources SET checkpoint = ?, verified = ?, journal_bytes = ? WHERE id = ?`, int64(b.Checkpoint), int64(src.Verified), w.known.journal[b.Source], b.Source); err != nil {
		return fmt.Errorf("storing the checkpoint: %w", err)
	}
	return nil
}

// incoming is a batch on its way into the tables.
type incoming struct {
	batch    *outbox.Batch
	now      time.Time
	accepted []accepted // in the order of their commits
}

// accepted is a transaction that is not known yet.
type accepted struct {
	*outbox.Transaction
	id  int64
	row bool // it needs one: nothing of it was spilled
}

// arrival is a match that came in, and with what.
type arrival struct {
	*outbox.NewMatch
	transaction *outbox.Transaction // nil: not committed yet
	tx, id      int64
	state       outbox.MatchState
	reason      string
	claim       bool  // it is claimed as it comes
	batch       int64 // that it is held in; 0: none
}

// adopt makes the matches that a transaction spilled its own.
func (w *writer) adopt(in *incoming, t *outbox.Transaction) error {
	id, err := w.provisional(*t.Spilled)
	if err != nil {
		return err
	}
	if id == 0 {
		return fmt.Errorf("nothing was spilled of transaction %d in epoch %d: %w", t.Spilled.XID, t.Spilled.Epoch, outbox.ErrNotFound)
	}
	if _, err := w.exec(`UPDATE transactions SET lsn = ?, end_lsn = ?, time = ?, muted = ? WHERE id = ?`,
		int64(t.LSN), int64(t.End), micros(t.Time), t.Muted, id); err != nil {
		return fmt.Errorf("adopting what transaction %d spilled: %w", t.XID, err)
	}
	delete(w.known.provisional, id)
	w.after(w.claims.reset) // searches have passed these matches by
	in.accepted = append(in.accepted, accepted{t, id, false})
	if err := w.adoptJournal(in, t, id); err != nil {
		return fmt.Errorf("adopting the journal of transaction %d: %w", t.XID, err)
	}
	return nil
}

// take stores the accepted transactions and their matches, and claims the first that are due.
func (w *writer) take(in *incoming, most int) ([]outbox.Match, error) {
	if err := w.addTransactions(in); err != nil {
		return nil, err
	}
	var arrivals []arrival
	for _, t := range in.accepted {
		for i := range t.Matches {
			a := arrive(t, &t.Matches[i])
			if a.claim = most > 0 && a.state == outbox.MatchPending && !a.due(in.now).After(in.now); a.claim {
				most--
			}
			arrivals = append(arrivals, a)
		}
	}
	if err := w.gatherHeld(in, arrivals); err != nil {
		return nil, err
	}
	stored, err := w.addMatches(arrivals, in.now)
	if err != nil {
		return nil, err
	}
	return w.offerMatches(in, stored), nil
}

// arrive is a match as it enters the store, after what its transaction says of it.
func arrive(t accepted, m *outbox.NewMatch) arrival {
	a := arrival{NewMatch: m, transaction: t.Transaction, tx: t.id, state: m.State, reason: m.Reason}
	why, held := t.Hold[m.Rule]
	switch {
	case m.State.Final():
	case t.Muted != "":
		a.state, a.reason = outbox.MatchMuted, t.Muted
	case held:
		a.state, a.reason = outbox.MatchHeld, why
	}
	return a
}

var insertTransactions = newInsertion("transactions", "(source, epoch, lsn) WHERE lsn IS NOT NULL",
	"id", "source", "epoch", "lsn", "end_lsn", "xid", "time", "muted")

func (w *writer) addTransactions(in *incoming) error {
	var values []any
	for _, t := range in.accepted {
		if t.row {
			values = append(values, t.id, in.batch.Source, in.batch.Epoch, int64(t.LSN), int64(t.End), t.XID, micros(t.Time), t.Muted)
		}
	}
	n, err := w.insert(&insertTransactions, values)
	if err != nil || n == len(values)/insertTransactions.columns {
		return err
	}
	// Some were there before: rules that tick at the same time share a transaction.
	for i, t := range in.accepted {
		err := w.each(`SELECT id FROM transactions WHERE source = ? AND epoch = ? AND lsn = ?`,
			func(scan scanner) error { return scan(&in.accepted[i].id) }, in.batch.Source, in.batch.Epoch, int64(t.LSN))
		if err != nil {
			return fmt.Errorf("finding the transaction at %s: %w", t.LSN, err)
		}
	}
	return nil
}

// due is when the match is to be expanded.
func (a *arrival) due(now time.Time) time.Time { return rounded(or(a.Due, now)) }

// offerMatches claims those of the new matches that are for the caller, and leaves the others to whoever asks.
func (w *writer) offerMatches(in *incoming, stored []arrival) []outbox.Match {
	var claimed []outbox.Match
	for i := range stored {
		a := &stored[i]
		if a.state != outbox.MatchPending {
			continue
		}
		l, at := line{matches, a.Priority, a.Rule}, key{due: a.due(in.now).UnixMicro(), group: a.tx, id: a.id}
		if !a.claim {
			w.offer(l, at)
			continue
		}
		m := w.match(in, a)
		claimed = append(claimed, m)
		m.Change = nil
		w.claim(claim{line: l, key: at, sensitive: a.Blanked != nil, match: &m})
	}
	return claimed
}

// match is an arrival as it stands in the store.
func (w *writer) match(in *incoming, a *arrival) outbox.Match {
	t := a.transaction.Tx
	t.Time = rounded(t.Time)
	return outbox.Match{
		ID: a.id, Position: position.Position{Source: in.batch.Source, Epoch: in.batch.Epoch, LSN: t.LSN, Ordinal: a.Ordinal}, Tx: t,
		Rule: a.Rule, RuleName: w.known.rules[a.Rule], Version: a.Version, Shape: a.Shape, Op: a.Op, Change: a.Change,
		State: a.state, Reason: a.reason, Due: a.due(in.now), Expires: rounded(a.Expires), Priority: a.Priority, Key: a.Key,
		HoldUncertain: a.HoldUncertain, Silent: a.Silent, Created: rounded(in.now),
	}
}
