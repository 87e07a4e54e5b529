package sqlite

import (
	"fmt"
	"math"
	"time"

	"postman/outbox"
)

// A match or message that is claimed is counted as begun until it comes to its end. What a process ends with keeps its count, so
// that the next one knows what may have been the cause.

// suspect is what has been in hand at so many deaths in a row that it may be their cause. Once in two may be chance: a machine
// that goes down interrupts all that is in hand.
const suspect = 2

// company is how many that were in hand at n deaths may be in hand together: the cause is found by halving, and those beside
// it go free.
func company(n int) int {
	switch {
	case n < suspect:
		return math.MaxInt
	case n == suspect:
		return 16
	case n == suspect+1:
		return 4
	}
	return 1
}

// lineup says which suspects may be given out beside those that are in hand.
type lineup struct {
	suspects [2]map[int64]int
	n, most  int
}

// It is called with mu held.
func (c *claims) lineup() lineup {
	l := lineup{suspects: c.suspects, most: math.MaxInt}
	for k := range c.suspects {
		for id, n := range c.suspects[k] {
			if _, held := c.held[k][id]; held {
				l.n, l.most = l.n+1, min(l.most, company(n))
			}
		}
	}
	return l
}

// admit says whether something may be given out now.
func (l *lineup) admit(k kind, id int64) bool {
	deaths := l.suspects[k][id]
	if deaths < suspect {
		return true
	}
	most := min(l.most, company(deaths))
	if l.n >= most {
		return false
	}
	l.n, l.most = l.n+1, most
	return true
}

// again is when to look again for suspects that wait until others are done.
const again = 50 * time.Millisecond

// Statements on one match or message.
var (
	countBegun   = [...]string{`UPDATE matches SET begun = begun + 1 WHERE id IN (SELECT value FROM json_each(?))`, `UPDATE messages SET begun = begun + 1 WHERE id IN (SELECT value FROM json_each(?))`}
	discountOnce = [...]string{`UPDATE matches SET begun = max(begun - 1, 0) WHERE id = ?`, `UPDATE messages SET begun = max(begun - 1, 0) WHERE id = ?`}
)

// begun counts that work on some begins.
func (w *writer) begun(k kind, due []claim) error {
	if len(due) == 0 {
		return nil
	}
	if _, err := w.exec(countBegun[k], list(idsOf(due))); err != nil {
		return fmt.Errorf("counting what is begun: %w", err)
	}
	return nil
}

// discount takes the count of claims back that came to nothing, with whatever is committed next: no claim that follows is
// counted before. Should that be taken back, so is this.
func (w *writer) discount() error {
	w.discounted = w.claims.takeReleased()
	for k, ids := range w.discounted {
		for _, id := range ids {
			if _, err := w.exec(discountOnce[k], id); err != nil {
				w.claims.putBackReleased(w.discounted)
				return fmt.Errorf("taking back what was begun: %w", err)
			}
		}
	}
	return nil
}

func (c *claims) takeReleased() (released [2][]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	released, c.released = c.released, released
	return released
}

func (c *claims) putBackReleased(released [2][]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, ids := range released {
		c.released[k] = append(c.released[k], ids...)
	}
}

// cleared takes what came to an end off the suspects.
func (w *writer) cleared(k kind, id int64) {
	if w.claims.innocent(k, id) {
		return
	}
	w.after(func() {
		w.claims.mu.Lock()
		defer w.claims.mu.Unlock()
		delete(w.claims.suspects[k], id)
	})
}

func (c *claims) innocent(k kind, id int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspects[k][id] == 0
}

// The statements of a recovery.
var (
	giveUpMatches = fmt.Sprintf(`UPDATE matches INDEXED BY matches_begun SET state = ?, reason = ? WHERE begun > 1 AND begun >= %d AND state = %d`,
		outbox.MostInterrupted, outbox.MatchPending)
	// A message that was sending, and whose rule holds what is uncertain, waits for an operator anyway. Of any other that was sending at
	// one of those ends the reason must not read as if it had not been sent.
	giveUpMessages = fmt.Sprintf(`UPDATE messages INDEXED BY messages_begun
		SET state = ?, reason = CASE WHEN state = %[2]d OR reason = ? THEN ? ELSE ? END, finished = ?, lease = NULL, attempts = attempts + (state = %[2]d)
		WHERE begun > 1 AND begun >= %[3]d AND (state = %[1]d OR state = %[2]d AND NOT (SELECT hold_uncertain FROM matches x WHERE x.id = match))`,
		outbox.MessageQueued, outbox.MessageSending, outbox.MostInterrupted)
	selectSuspects = [...]string{
		matches:  fmt.Sprintf(`SELECT id, begun FROM matches INDEXED BY matches_begun WHERE begun > 1 AND state = %d`, outbox.MatchPending),
		messages: fmt.Sprintf(`SELECT id, begun FROM messages INDEXED BY messages_begun WHERE begun > 1 AND state = %d`, outbox.MessageQueued),
	}
)

// giveUp takes what too many processes ended with to failed, and returns how many that were.
func (w *writer) giveUp(now time.Time) (int, error) {
	reason := fmt.Sprintf("given up: %d processes in a row ended with this in hand, and it may be why; see their logs before you retry it", outbox.MostInterrupted)
	matches, err := w.exec(giveUpMatches, int64(outbox.MatchFailed), reason)
	if err != nil {
		return 0, fmt.Errorf("giving up matches: %w", err)
	}
	messages, err := w.exec(giveUpMessages, int64(outbox.MessageFailed), interrupted, reason+"; "+interrupted, reason, now.UnixMicro())
	if err != nil {
		return 0, fmt.Errorf("giving up messages: %w", err)
	}
	return matches + messages, nil
}

// findSuspects notes what is to be given out in small company.
func (w *writer) findSuspects() error {
	found := [2]map[int64]int{make(map[int64]int), make(map[int64]int)}
	for k, query := range selectSuspects {
		err := w.each(query, func(scan scanner) error {
			var id int64
			var n int
			err := scan(&id, &n)
			found[k][id] = n
			return err
		})
		if err != nil {
			return fmt.Errorf("looking for what was interrupted: %w", err)
		}
	}
	w.after(func() {
		w.claims.mu.Lock()
		defer w.claims.mu.Unlock()
		w.claims.suspects = found
	})
	return nil
}
