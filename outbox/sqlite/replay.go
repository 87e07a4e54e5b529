package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// KnownMatches says how matches stand, in the order of their keys.
func (s *Store) KnownMatches(ctx context.Context, source, epoch uint32, keys []outbox.MatchKey) ([]outbox.KnownMatch, error) {
	known := make([]outbox.KnownMatch, len(keys))
	if len(keys) == 0 {
		return known, nil
	}
	asked := make([][3]int64, len(keys))
	for i, k := range keys {
		asked[i] = [3]int64{int64(k.LSN), int64(k.Ordinal), int64(k.Rule)}
	}
	type found struct {
		at int
		outbox.KnownMatch
	}
	all, err := rows(s.reading(ctx), func(scan scanner) (f found, err error) {
		err = scan(&f.at, &f.ID, &f.State)
		return f, err
	}, `SELECT k.key, m.id, m.state FROM json_each(?) k
		CROSS JOIN transactions t ON t.source = ? AND t.epoch = ? AND t.lsn = k.value ->> 0
		CROSS JOIN matches m ON m.tx = t.id AND m.ordinal = k.value ->> 1 AND m.rule = k.value ->> 2`, list(asked), source, epoch)
	if err != nil {
		return nil, fmt.Errorf("looking up matches: %w", explain(err))
	}
	for _, f := range all {
		known[f.at] = f.KnownMatch
	}
	return known, nil
}

// SaveReplay notes a replay that begins, or its stretch and end.
func (s *Store) SaveReplay(ctx context.Context, r outbox.Replay) (outbox.Replay, error) {
	err := s.write(ctx, "noting a replay", func(w *writer) error {
		if _, ok := w.known.sources[r.From.Source]; !ok {
			return fmt.Errorf("source %d: %w", r.From.Source, outbox.ErrNotFound)
		}
		var err error
		n := 1
		if r.ID == 0 {
			r.ID, r.Replayed = w.next("replays"), outbox.Replayed{}
			_, err = w.exec(`INSERT INTO replays (id, source, from_epoch, from_lsn, to_epoch, to_lsn, rules, muted, resend, yet_again, who, why, begun, ended)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				r.ID, r.From.Source, r.From.Epoch, int64(r.From.LSN), r.To.Epoch, int64(r.To.LSN), list(r.Rules), truth(r.Muted), truth(r.Resend), truth(r.YetAgain), r.By, r.Why,
				r.Begun.UnixMicro(), micros(r.Ended))
		} else {
			n, err = w.exec(`UPDATE replays SET from_epoch = ?, from_lsn = ?, to_epoch = ?, to_lsn = ?, ended = ? WHERE id = ?`,
				r.From.Epoch, int64(r.From.LSN), r.To.Epoch, int64(r.To.LSN), micros(r.Ended), r.ID)
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("replay %d: %w", r.ID, outbox.ErrNotFound)
		}
		return err
	})
	if err != nil {
		return outbox.Replay{}, err
	}
	return r, nil
}

// Replays lists the replays, newest first.
func (s *Store) Replays(ctx context.Context) ([]outbox.Replay, error) {
	all, err := rows(s.reading(ctx), scanReplay, `SELECT id, source, from_epoch, from_lsn, to_epoch, to_lsn, rules, muted, resend, yet_again, who, why,
		added, again, resent, begun, ended FROM replays ORDER BY id DESC`)
	if err != nil {
		return nil, fmt.Errorf("reading the replays: %w", explain(err))
	}
	return all, nil
}

func scanReplay(scan scanner) (r outbox.Replay, err error) {
	var from, to int64
	var names sql.NullString
	var begun, ended sql.NullInt64
	if err := scan(&r.ID, &r.From.Source, &r.From.Epoch, &from, &r.To.Epoch, &to, &names, &r.Muted, &r.Resend, &r.YetAgain, &r.By, &r.Why,
		&r.Added, &r.Again, &r.Resent, &begun, &ended); err != nil {
		return r, err
	}
	r.To.Source, r.From.LSN, r.To.LSN = r.From.Source, position.LSN(from), position.LSN(to)
	r.Begun, r.Ended = moment(begun), moment(ended)
	if names.Valid {
		err = json.Unmarshal([]byte(names.String), &r.Rules)
	}
	return r, err
}

// Replay makes one step of a replay durable.
func (s *Store) Replay(ctx context.Context, b outbox.ReplayBatch) (outbox.Replayed, error) {
	var done outbox.Replayed
	err := s.write(ctx, "replaying", func(w *writer) (err error) {
		done, err = w.replay(&b)
		return err
	})
	if err != nil {
		return outbox.Replayed{}, err
	}
	return done, nil
}

func (w *writer) replay(b *outbox.ReplayBatch) (done outbox.Replayed, err error) {
	r := replaying{ReplayBatch: b, now: time.Now()}
	if r.muted, err = w.underWay(b.Replay); err != nil {
		return done, err
	}
	if src, ok := w.known.sources[b.Source]; !ok || b.Epoch > src.Epoch {
		return done, fmt.Errorf("source %d has no epoch %d: %w", b.Source, b.Epoch, outbox.ErrNotFound)
	}
	if err = w.addTexts(b.Texts); err != nil {
		return done, err
	}
	if err = w.decideAgain(&r, &done); err != nil {
		return done, err
	}
	for _, match := range b.Resend {
		n, err := w.resend(&r, match)
		if err != nil {
			return done, fmt.Errorf("sending the messages of match %d once more: %w", match, err)
		}
		done.Resent += n
	}
	w.after(w.claims.reset) // some are due that searches have passed by
	_, err = w.exec(`UPDATE replays SET added = added + ?, again = again + ?, resent = resent + ? WHERE id = ?`, done.Added, done.Again, done.Resent, b.Replay)
	return done, err
}

// replaying is a step of a replay on its way into the tables.
type replaying struct {
	*outbox.ReplayBatch
	now   time.Time
	muted bool // what was muted is taken up, too
}

// underWay refuses a replay that has ended.
func (w *writer) underWay(replay int64) (muted bool, err error) {
	there := false
	err = w.each(`SELECT muted FROM replays WHERE id = ? AND ended IS NULL`, func(scan scanner) error {
		there = true
		return scan(&muted)
	}, replay)
	if err == nil && !there {
		err = fmt.Errorf("replay %d has ended, or never began: %w", replay, outbox.ErrState)
	}
	return muted, err
}

// decideAgain adds the matches that are absent, and takes up those that a replay takes.
func (w *writer) decideAgain(r *replaying, done *outbox.Replayed) error {
	in := incoming{batch: &outbox.Batch{Source: r.Source, Epoch: r.Epoch}, now: r.now}
	for i := range r.Transactions {
		in.accepted = append(in.accepted, accepted{&r.Transactions[i], w.next("transactions"), true})
	}
	if err := w.addTransactions(&in); err != nil {
		return err
	}
	var arrivals []arrival
	for _, t := range in.accepted {
		for i := range t.Matches {
			m := &t.Matches[i]
			arrivals = append(arrivals, arrival{NewMatch: m, tx: t.id, state: m.State, reason: m.Reason})
		}
	}
	if len(arrivals) == 0 {
		return nil
	}
	all := append([]arrival(nil), arrivals...) // addMatches keeps the new ones alone
	stored, err := w.addMatches(arrivals, r.now)
	if err != nil {
		return err
	}
	done.Added = len(stored)
	isNew := make(map[int64]bool, len(stored))
	for i := range stored {
		isNew[stored[i].id] = true
		if _, err := w.exec(`UPDATE matches SET replay = ? WHERE id = ?`, r.Replay, stored[i].id); err != nil {
			return fmt.Errorf("storing which replay made a match: %w", err)
		}
	}
	for i := range all {
		if a := &all[i]; !isNew[a.id] && a.state == outbox.MatchPending {
			n, err := w.takeUp(r, a)
			if err != nil {
				return fmt.Errorf("taking a match of rule %d up again: %w", a.Rule, err)
			}
			done.Again += n
		}
	}
	return nil
}

// takeUp has a match that failed, or is muted, wait again. Its change stays: the journal's may lack what is sensitive.
func (w *writer) takeUp(r *replaying, a *arrival) (int, error) {
	states := in(outbox.MatchStates(), func(s outbox.MatchState) bool { return outbox.KnownMatch{ID: 1, State: s}.Takes(r.muted) })
	return w.exec(`UPDATE matches SET state = ?, reason = ?, due = ?, expires = ?, priority = ?, hold_uncertain = ?, silent = ?, version = ?,
			released = 0, undecided = 0, attempts = 0, begun = 0, replay = ?
		WHERE tx = ? AND ordinal = ? AND rule = ? AND state IN `+states,
		int64(a.state), a.reason, or(a.Due, r.now).UnixMicro(), micros(a.Expires), a.Priority, truth(a.HoldUncertain), truth(a.Silent), w.known.texts[a.Version],
		r.Replay, a.tx, int64(a.Ordinal), a.Rule)
}

// resend queues the messages of a match once more.
func (w *writer) resend(r *replaying, match int64) (int, error) {
	found, err := rows(w.query, scanMessage, listMessages+` WHERE m.match = ?`, match)
	if err != nil {
		return 0, err
	}
	messages := make([]outbox.Message, len(found))
	for i := range found {
		messages[i] = found[i].row
	}
	again := outbox.Resendable(messages, r.Replay, r.Again).Messages
	if len(again) == 0 {
		return 0, nil
	}
	next, values := outbox.NextResend(messages), []any(nil)
	for _, m := range again {
		address := outbox.AddressKey(m.Address)
		values = append(values, w.next("messages"), match, m.Address, address[:], int64(next), int64(outbox.MessageQueued), "sent once more by replay "+fmt.Sprint(r.Replay),
			r.now.UnixMicro(), int64(m.Priority), r.now.UnixMicro(), m.Recipient, list(m.CC), "", "", r.Replay, m.Rule)
	}
	n, err := w.insert(&insertResent, values)
	if err == nil && n != len(again) {
		err = errors.New("another message has their number")
	}
	return n, err
}

var insertResent = newInsertion("messages", "(match, address_key, resend)", "id", "match", "address", "address_key", "resend", "state", "reason",
	"due", "priority", "created", "recipient", "cc", "message_id", "subject", "replay", "rule")
