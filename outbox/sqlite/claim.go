package sqlite

import (
	"context"
	"time"

	"postman/outbox"
)

// ClaimMatches claims pending matches that are due.
func (s *Store) ClaimMatches(ctx context.Context, c outbox.Claim) ([]outbox.Match, error) {
	var claimed []outbox.Match
	err := s.write(ctx, "claiming matches", func(w *writer) error {
		claimed = claimed[:0]
		due, err := w.due(matches, &c)
		if err != nil {
			return err
		}
		found, err := some(w, scanMatch, selectMatches, due)
		for i, f := range found {
			m := f.row
			claimed = append(claimed, m)
			m.Change = nil
			due[i].sensitive, due[i].match = f.sensitive, &m
			w.claim(due[i])
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

// ClaimMessages claims queued messages that are due.
func (s *Store) ClaimMessages(ctx context.Context, c outbox.Claim) ([]outbox.Message, error) {
	var claimed []outbox.Message
	err := s.write(ctx, "claiming messages", func(w *writer) error {
		due, err := w.due(messages, &c)
		if err != nil {
			return err
		}
		found, err := some(w, scanMessage, claimMessages, due)
		for i, f := range found {
			claimed = append(claimed, f.row)
			due[i].sensitive, due[i].hold = f.sensitive, f.row.HoldUncertain
			w.claim(due[i])
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
func (s *Store) NextDue(ctx context.Context, matchOf, messageOf func(rule uint32, p outbox.Priority) bool) (time.Time, error) {
	next := int64(never)
	err := s.write(ctx, "looking for what is due next", func(w *writer) error {
		w.claims.mu.Lock()
		defer w.claims.mu.Unlock()
		if err := w.survey(); err != nil {
			return err
		}
		l := w.claims.lineup()
		for k, of := range []func(uint32, outbox.Priority) bool{matches: matchOf, messages: messageOf} {
			for p := range outbox.Bulk + 1 {
				at, err := w.nextOf(kind(k), p, of, l)
				if err != nil {
					return err
				}
				next = min(next, at)
			}
		}
		return nil
	})
	if err != nil || next == never {
		return time.Time{}, err
	}
	return time.UnixMicro(next).UTC(), nil
}

// nextOf is when the next of a kind and priority is due. The lines that seem to be next are looked at, until one is.
func (w *writer) nextOf(k kind, p outbox.Priority, of func(rule uint32, p outbox.Priority) bool, l lineup) (int64, error) {
	queues := w.claims.rings[k][p].queues
	next := int64(never)
	late := make(map[uint32]bool) // of these, something waits for others to be done
	for {
		var least *queue
		for i := range queues {
			q := &queues[i]
			if q.next < next && (least == nil || q.next < least.next) && !late[q.rule] && (of == nil || of(q.rule, p)) {
				least = q
			}
		}
		if least == nil {
			return next, nil
		}
		r := w.reader(line{k, p, least.rule}, least, 1)
		at, found, err := r.find(never, func(at key) bool {
			if alone := l; alone.admit(k, at.id) {
				return true
			}
			next = min(next, max(at.due, time.Now().Add(again).UnixMicro()))
			return false
		})
		if err != nil {
			return 0, err
		}
		if late[least.rule] = r.left; found {
			next = min(next, at.due)
		}
	}
}

// due returns what comes next of a kind, of what is due and free.
func (w *writer) due(k kind, c *outbox.Claim) ([]claim, error) {
	w.claims.mu.Lock()
	defer w.claims.mu.Unlock()
	if err := w.survey(); err != nil {
		return nil, err
	}
	var found []claim
	now, l := c.Now.UnixMicro(), w.claims.lineup()
	admit := func(at key) bool { return l.admit(k, at.id) }
	var all [outbox.Bulk + 1]turns
	for p := range all {
		all[p] = w.turns(k, outbox.Priority(p), c)
	}
	for len(found) < c.Most {
		one, ok, err := w.claims.nextTurn(&all, now, admit)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		found = append(found, one)
	}
	return found, nil
}

// claim takes or changes a claim, for as long as the transaction stands.
func (w *writer) claim(to claim) { w.claimed = append(w.claimed, w.claims.set(to)) }

// unclaim ends a claim, for as long as the transaction stands.
func (w *writer) unclaim(k kind, id int64) { w.claimed = append(w.claimed, w.claims.end(k, id)) }

// offer says, once it is durable, that something is due that nobody has claimed.
func (w *writer) offer(l line, at key) {
	w.after(func() { w.claims.offer(l, at) })
}
