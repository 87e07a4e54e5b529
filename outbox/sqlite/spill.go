package sqlite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"postman/outbox"
)

// Spill stores what is known of a transaction whose commit has not been read.
func (s *Store) Spill(ctx context.Context, key outbox.Spill, p outbox.Provisional) error {
	return s.write(ctx, fmt.Sprintf("spilling transaction %d", key.XID), func(w *writer) error {
		if src, ok := w.known.sources[key.Source]; !ok || src.Epoch != key.Epoch {
			return fmt.Errorf("source %d is not in epoch %d: %w", key.Source, key.Epoch, outbox.ErrCheckpoint)
		}
		tx, err := w.spillInto(key)
		if err != nil {
			return err
		}
		if err := w.addTexts(p.Texts); err != nil {
			return err
		}
		arrivals := make([]arrival, len(p.Matches))
		for i := range p.Matches {
			m := &p.Matches[i]
			arrivals[i] = arrival{NewMatch: m, tx: tx, state: m.State, reason: m.Reason}
		}
		if _, err := w.addMatches(arrivals, time.Now()); err != nil {
			return err
		}
		return w.addParts(tx, p.Parts)
	})
}

// spillInto returns the provisional transaction of a key, and makes it if there is none.
func (w *writer) spillInto(key outbox.Spill) (int64, error) {
	id, err := w.provisional(key)
	if err != nil || id != 0 {
		return id, err
	}
	id = w.next("transactions")
	w.known.provisional[id] = true
	_, err = w.exec(`INSERT INTO transactions (id, source, epoch, xid) VALUES (?, ?, ?, ?)`, id, key.Source, key.Epoch, key.XID)
	if err != nil {
		return 0, fmt.Errorf("making a provisional transaction: %w", err)
	}
	return id, nil
}

// provisional finds the provisional transaction of a key; 0: there is none.
func (w *writer) provisional(key outbox.Spill) (id int64, err error) {
	err = w.each(`SELECT id FROM transactions WHERE source = ? AND epoch = ? AND xid = ? AND lsn IS NULL`,
		func(scan scanner) error { return scan(&id) }, key.Source, key.Epoch, key.XID)
	if err != nil {
		return 0, fmt.Errorf("finding what transaction %d spilled: %w", key.XID, err)
	}
	return id, nil
}

// Unspill takes what was spilled from an ordinal on back.
func (s *Store) Unspill(ctx context.Context, key outbox.Spill, from uint64) error {
	return s.inSteps(ctx, "discarding spilled changes", func(w *writer) (more bool, err error) {
		id, err := w.provisional(key)
		if err != nil || id == 0 {
			return false, err
		}
		n, err := w.exec(`DELETE FROM matches WHERE id IN (SELECT id FROM matches WHERE tx = ? AND ordinal >= ? LIMIT ?)`, id, int64(from), stepRows)
		switch {
		case err != nil:
			return false, fmt.Errorf("discarding provisional matches: %w", err)
		case n == stepRows:
			return true, nil
		case from == 0:
			_, err := w.discard(id)
			return false, err
		}
		return false, w.cutParts(id, from)
	})
}

// stepRows is how many rows a step of a long work changes: a few milliseconds.
const stepRows = 1000

// inSteps does a long work in transactions of their own, between which others have their turn.
func (s *Store) inSteps(ctx context.Context, what string, step func(*writer) (more bool, err error)) error {
	for more := true; more; {
		err := s.write(ctx, what, func(w *writer) (err error) {
			more, err = step(w)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Settle has what a transaction spilled become what its commit makes of it.
func (s *Store) Settle(ctx context.Context, key outbox.Spill, z outbox.Settlement) error {
	var done int64 // the ordinal up to which it is
	return s.inSteps(ctx, fmt.Sprintf("settling what transaction %d spilled", key.XID), func(w *writer) (more bool, err error) {
		id, err := w.provisional(key)
		if err != nil {
			return false, err
		}
		if id == 0 {
			return false, fmt.Errorf("nothing was spilled of transaction %d in epoch %d: %w", key.XID, key.Epoch, outbox.ErrNotFound)
		}
		from, to := done, int64(math.MaxInt64)
		err = w.each(`SELECT ordinal FROM matches WHERE tx = ? AND ordinal >= ? ORDER BY ordinal LIMIT 1 OFFSET ?`,
			func(scan scanner) error { return scan(&to) }, id, from, stepRows)
		if err != nil {
			return false, err
		}
		if to == from { // more rules than that matched one change
			to++
		}
		done = to
		return to < math.MaxInt64, w.settleSpilled(id, from, to, z)
	})
}

// settleSpilled settles the matches from one ordinal up to another.
func (w *writer) settleSpilled(tx, from, to int64, z outbox.Settlement) error {
	const those = ` WHERE tx = ? AND ordinal >= ? AND ordinal < ?`
	if z.Muted != "" {
		_, err := w.exec(`UPDATE matches SET state = ?, reason = ?, change = coalesce(blanked, change), blanked = NULL`+those+` AND state IN `+openMatch,
			outbox.MatchMuted, z.Muted, tx, from, to)
		if err != nil {
			return fmt.Errorf("muting: %w", err)
		}
	}
	for rule, holds := range z.Hold {
		if z.Muted != "" {
			continue
		}
		for i := range slices.Backward(holds) { // the first that takes a match has the last word
			if err := w.holdSpilled(tx, from, to, rule, &holds[i]); err != nil {
				return fmt.Errorf("holding: %w", err)
			}
		}
	}
	for rule, t := range z.Expires {
		if _, err := w.exec(`UPDATE matches SET expires = ?`+those+` AND rule = ?`, micros(t), tx, from, to, rule); err != nil {
			return fmt.Errorf("noting when they expire: %w", err)
		}
	}
	return nil
}

// holdSpilled holds a rule's matches from one ordinal up to another.
func (w *writer) holdSpilled(tx, from, to int64, rule uint32, h *outbox.Hold) error {
	which, args := "", []any(nil)
	if h.Only != nil {
		first, _ := slices.BinarySearch(h.Only, uint64(from))
		last, _ := slices.BinarySearch(h.Only, uint64(to))
		if first == last {
			return nil
		}
		which, args = ` AND ordinal IN (SELECT value FROM json_each(?))`, []any{list(h.Only[first:last])}
	} else if from = max(from, int64(h.From)); from >= to {
		return nil
	}
	var source, epoch uint32
	if err := w.each(`SELECT source, epoch FROM transactions WHERE id = ?`, func(scan scanner) error { return scan(&source, &epoch) }, tx); err != nil {
		return err
	}
	batch, err := w.batch(h, rule, source, epoch, time.Now())
	if err != nil {
		return err
	}
	_, err = w.exec(`UPDATE matches SET state = ?, reason = ?, batch = ? WHERE tx = ? AND ordinal >= ? AND ordinal < ? AND rule = ? AND state IN `+openMatch+which,
		append([]any{outbox.MatchHeld, h.Why, idOrNull(batch), tx, from, to, rule}, args...)...)
	return err
}

func (w *writer) unspill(key *outbox.Spill) error {
	if key == nil {
		return nil
	}
	id, err := w.provisional(*key)
	if err != nil || id == 0 {
		return err
	}
	_, err = w.discard(id)
	return err
}

// discard deletes a provisional transaction and returns how many matches it had. Its journal goes with the next pruning: it may be long.
func (w *writer) discard(tx int64) (int, error) {
	n, err := w.exec(`DELETE FROM matches WHERE tx = ?`, tx)
	if err == nil {
		_, err = w.exec(`DELETE FROM transactions WHERE id = ?`, tx)
	}
	delete(w.known.provisional, tx)
	if err != nil {
		return 0, fmt.Errorf("discarding provisional matches: %w", err)
	}
	return n, nil
}

var insertMatches = newInsertion("matches", "(tx, ordinal, rule)", "id", "tx", "ordinal", "rule", "version", "shape", "op", "state", "reason", "due",
	"expires", "priority", "key", "hold_uncertain", "silent", "created", "change", "blanked", "begun", "undecided", "batch")

// addMatches stores matches and returns those that were not known, with their ids.
func (w *writer) addMatches(arrivals []arrival, now time.Time) ([]arrival, error) {
	values := make([]any, 0, len(arrivals)*insertMatches.columns)
	for i := range arrivals {
		a := &arrivals[i]
		version, shape, err := w.admit(a)
		if err != nil {
			return nil, fmt.Errorf("a match of rule %d, change %d: %w", a.Rule, a.Ordinal, err)
		}
		change, blanked := present(a.Change), any(nil)
		if a.Blanked != nil && a.state.Final() && !a.state.Retryable() {
			change = a.Blanked
		} else if a.Blanked != nil {
			blanked = a.Blanked
		}
		a.id = w.next("matches")
		values = append(values, a.id, a.tx, int64(a.Ordinal), a.Rule, version, shape, a.Op, a.state, a.reason, or(a.Due, now).UnixMicro(),
			micros(a.Expires), a.Priority, a.Key, truth(a.HoldUncertain), truth(a.Silent), now.UnixMicro(), change, blanked,
			truth(a.claim), truth(a.state == outbox.MatchFailed), idOrNull(a.batch))
	}
	n, err := w.insert(&insertMatches, values)
	if err != nil || n == len(arrivals) {
		return arrivals, err
	}
	return w.unknown(arrivals)
}

// admit refuses a match that the tables could not hold or that nobody could finish. It returns the ids of its texts.
func (w *writer) admit(a *arrival) (version int64, shape any, err error) {
	version, ok := w.known.texts[a.Version]
	if !ok {
		return 0, nil, fmt.Errorf("the text of its version %x was never brought: %w", a.Version[:6], outbox.ErrNotFound)
	}
	if a.Shape != (outbox.Hash{}) {
		if shape, ok = w.known.texts[a.Shape]; !ok {
			return 0, nil, fmt.Errorf("the text of its shape %x was never brought: %w", a.Shape[:6], outbox.ErrNotFound)
		}
	}
	switch {
	case w.known.rules[a.Rule] == "":
		return 0, nil, fmt.Errorf("the rule has no name: %w", outbox.ErrNotFound)
	case !a.state.CanBegin():
		return 0, nil, fmt.Errorf("it cannot begin as %s: %w", a.state, outbox.ErrState)
	case a.Priority > outbox.Bulk:
		return 0, nil, fmt.Errorf("there is no priority %d", a.Priority)
	}
	return version, shape, nil
}

// unknown returns the arrivals that were stored: the others have been there before, under other ids.
func (w *writer) unknown(arrivals []arrival) ([]arrival, error) {
	stored, err := w.present("matches", arrivals[0].id, arrivals[len(arrivals)-1].id)
	if err != nil {
		return nil, fmt.Errorf("finding which matches are new: %w", err)
	}
	return slices.DeleteFunc(arrivals, func(a arrival) bool { return !stored[a.id] }), nil
}

// present returns which ids of a range a table has.
func (w *writer) present(table string, first, last int64) (map[int64]bool, error) {
	stored := make(map[int64]bool)
	err := w.each(`SELECT id FROM `+table+` WHERE id BETWEEN ? AND ?`, func(scan scanner) error {
		var id int64
		err := scan(&id)
		stored[id] = true
		return err
	}, first, last)
	return stored, err
}
