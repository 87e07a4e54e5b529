package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
)

// interrupted is the reason of a message whose process died.
const interrupted = "the process ended while it was being sent; whether the relay has it is not known"

// Recover discards what is provisional and gives up on the outcomes that a dead process did not record. The attempt counts:
// the relay may have had the mail.
func (s *Store) Recover(ctx context.Context, now time.Time) (outbox.Recovered, error) {
	var r outbox.Recovered
	err := s.write(ctx, "recovering", func(w *writer) (err error) {
		if !w.claims.empty() {
			return errors.New("something is claimed already: recovering comes first")
		}
		if r.Discarded, err = w.discardAll(); err != nil {
			return err
		}
		if r.GivenUp, err = w.giveUp(now); err != nil {
			return err
		}
		if r.Requeued, err = w.abandon(outbox.MessageQueued, now, nil, false); err != nil {
			return err
		}
		if r.Uncertain, err = w.abandon(outbox.MessageUncertain, now, now.UnixMicro(), true); err != nil {
			return err
		}
		w.after(w.claims.reset)
		return w.findSuspects()
	})
	if err != nil {
		return outbox.Recovered{}, err
	}
	return r, nil
}

func (w *writer) discardAll() (total int, err error) {
	for tx := range w.known.provisional {
		n, err := w.discard(tx)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// abandon takes messages that were sending, of rules that hold or do not hold what is uncertain, to a state.
func (w *writer) abandon(to outbox.MessageState, now time.Time, finished any, hold bool) (int, error) {
	n, err := w.exec(`UPDATE messages INDEXED BY messages_state SET state = ?, reason = ?, due = ?, attempts = attempts + 1, finished = ?, lease = NULL
		WHERE state <> 0 AND state = `+fmt.Sprint(int(outbox.MessageSending))+` AND (SELECT hold_uncertain FROM matches x WHERE x.id = match) = ?`,
		int64(to), interrupted, now.UnixMicro(), finished, truth(hold))
	if err != nil {
		return 0, fmt.Errorf("giving up on what was sending: %w", err)
	}
	return n, nil
}
