package sqlite

import (
	"context"
	"fmt"
	"math"
	"time"

	"postman/outbox"
)

// page is how many entries of an index are read at once, when the first few did not suffice.
const page = 256

// The searches for what is due, in the order of claims: a priority, from a key on, up to a time.
var selectDue = [...]string{
	matches: fmt.Sprintf(`SELECT due, tx, id FROM matches INDEXED BY matches_due
		WHERE state = %d AND priority = ? AND (due, tx, id) > (?, ?, ?) AND due <= ? ORDER BY due, tx, id LIMIT ?`, outbox.MatchPending),
	messages: fmt.Sprintf(`SELECT due, match, id FROM messages INDEXED BY messages_due
		WHERE state = %d AND priority = ? AND (due, match, id) > (?, ?, ?) AND due <= ? ORDER BY due, match, id LIMIT ?`, outbox.MessageQueued),
}

// ClaimMatches claims up to n pending matches that are due.
func (s *Store) ClaimMatches(ctx context.Context, now time.Time, n int) ([]outbox.Match, error) {
	var claimed []outbox.Match
	err := s.write(ctx, "claiming matches", func(w *writer) error {
		claimed = claimed[:0]
		due, err := w.due(matches, now, n)
		if err != nil {
			return err
		}
		found, err := some(w, scanMatch, selectMatches, due)
		for i, f := range found {
			m := f.row
			claimed = append(claimed, m)
			m.Change = nil
			w.claim(matches, claim{key: due[i], priority: m.Priority, sensitive: f.sensitive, match: &m})
		}
		if err == nil {
			err = w.begun(matches, due)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// ClaimMessages claims up to n queued messages that are due.
func (s *Store) ClaimMessages(ctx context.Context, now time.Time, n int) ([]outbox.Message, error) {
	var claimed []outbox.Message
	err := s.write(ctx, "claiming messages", func(w *writer) error {
		due, err := w.due(messages, now, n)
		if err != nil {
			return err
		}
		found, err := some(w, scanMessage, claimMessages, due)
		for i, f := range found {
			claimed = append(claimed, f.row)
			w.claim(messages, claim{key: due[i], priority: f.row.Priority, sensitive: f.sensitive, hold: f.row.HoldUncertain})
		}
		if err == nil {
			err = w.begun(messages, due)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// Release gives up claims that came to nothing.
func (s *Store) Release(matchIDs, messageIDs []int64) {
	s.claims.free(matches, matchIDs...)
	s.claims.free(messages, messageIDs...)
}

// NextDue is when the next unclaimed match or message is due.
func (s *Store) NextDue(ctx context.Context) (time.Time, error) {
	next := int64(math.MaxInt64)
	err := s.write(ctx, "looking for what is due next", func(w *writer) error {
		l := w.claims.lineup()
		for k := range selectDue {
			for p := range outbox.Bulk + 1 {
				err := w.walk(kind(k), p, math.MaxInt64, 1, func(at key) visited {
					if alone := l; !alone.admit(kind(k), at.id) {
						next = min(next, max(at.due, time.Now().Add(again).UnixMicro()))
						return skipped
					}
					next = min(next, at.due)
					return stopped
				})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil || next == math.MaxInt64 {
		return time.Time{}, err
	}
	return time.UnixMicro(next).UTC(), nil
}

// due returns the first n of a kind that are due and free, in the order of claims.
func (w *writer) due(k kind, now time.Time, n int) ([]key, error) {
	var found []key
	l := w.claims.lineup()
	for p := range outbox.Bulk + 1 {
		err := w.walk(k, p, now.UnixMicro(), n-len(found)+1, func(at key) visited {
			switch {
			case len(found) >= n:
				return stopped
			case !l.admit(k, at.id):
				return skipped
			}
			found = append(found, at)
			return taken
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// visited is what a visit does to what it finds.
type visited uint8

const (
	taken   visited = iota // it is claimed
	skipped                // it is left for later, and the walk goes on
	stopped                // it is left, and the walk ends
)

// walk visits what is free of a kind and priority and due by a time, from the mark on, and moves the mark over all that is
// not free and all that visit takes, up to the first that it does not. First is how many it is likely to want.
func (w *writer) walk(k kind, p outbox.Priority, until int64, first int, visit func(key) visited) error {
	c := w.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	mark, left := c.marks[k][p], false
	for limit := min(first, page); ; limit = page {
		var read []key
		err := w.each(selectDue[k], func(scan scanner) error {
			var at key
			err := scan(&at.due, &at.group, &at.id)
			read = append(read, at)
			return err
		}, p, mark.due, mark.group, mark.id, until, limit)
		if err != nil {
			return fmt.Errorf("searching what is due: %w", err)
		}
		for _, at := range read {
			_, held := c.held[k][at.id]
			if hidden := k == matches && w.known.provisional[at.group]; !held && !hidden {
				switch visit(at) {
				case taken:
				case skipped:
					left = true
				case stopped:
					return nil
				}
			}
			if mark = at; !left {
				c.marks[k][p] = at
			}
		}
		if len(read) < limit {
			return nil
		}
	}
}

// claim takes or changes a claim, for as long as the transaction stands.
func (w *writer) claim(k kind, to claim) { w.claimed = append(w.claimed, w.claims.set(k, to.id, to)) }

// unclaim ends a claim, for as long as the transaction stands.
func (w *writer) unclaim(k kind, id int64) { w.claimed = append(w.claimed, w.claims.end(k, id)) }

// offer says, once it is durable, that something is due that nobody has claimed.
func (w *writer) offer(k kind, p outbox.Priority, at key) {
	w.after(func() { w.claims.offer(k, p, at) })
}
