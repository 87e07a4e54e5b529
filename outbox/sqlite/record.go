package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
)

// Start takes claimed messages to sending and returns those that may go.
func (s *Store) Start(ctx context.Context, starts []outbox.Start) ([]int64, error) {
	var started []int64
	err := s.write(ctx, "taking messages to sending", func(w *writer) error {
		for i := range starts {
			ok, err := w.start(&starts[i])
			if err != nil {
				return fmt.Errorf("message %d: %w", starts[i].Message, err)
			}
			if ok {
				started = append(started, starts[i].Message)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return started, nil
}

func (w *writer) start(st *outbox.Start) (bool, error) {
	held, claimed := w.claims.get(messages, st.Message)
	if !claimed || held.sending {
		return false, nil
	}
	n, err := w.exec(`UPDATE messages SET state = ?, lease = ?, message_id = coalesce(nullif(?, ''), message_id),
		subject = coalesce(nullif(?, ''), subject), body = coalesce(?, body), template = coalesce(?, template) WHERE id = ? AND state = ?`,
		int64(outbox.MessageSending), micros(st.Lease), st.MessageID, st.Subject, absent(st.Body), hashOrNull(st.Template), st.Message, int64(outbox.MessageQueued))
	if err != nil {
		return false, err
	}
	if n == 0 {
		w.unclaim(messages, st.Message)
		return false, nil
	}
	held.sending = true
	w.claim(messages, held)
	return true, nil
}

// Record stores what became of messages.
func (s *Store) Record(ctx context.Context, outcomes []outbox.Outcome) error {
	var refused []error
	err := s.write(ctx, "recording outcomes", func(w *writer) error {
		now := time.Now()
		for i := range outcomes {
			no, err := w.record(&outcomes[i], now)
			if err != nil {
				return fmt.Errorf("message %d: %w", outcomes[i].Message, err)
			}
			if no != nil {
				refused = append(refused, no)
			}
		}
		return nil
	})
	if err == nil && refused != nil {
		err = fmt.Errorf("recording outcomes: %w", errors.Join(refused...))
	}
	return err
}

// An outcome takes a message that is still where its claim left it to its next state.
const (
	recordKeeping = `UPDATE messages SET state = ?, reason = ?, reply = ?, due = ?, attempts = attempts + ?, finished = ?, lease = NULL, begun = 0`
	recordAtState = ` WHERE id = ? AND state = ?`
	keepBody      = recordKeeping + recordAtState
	dropBody      = recordKeeping + `, body = NULL` + recordAtState
)

// record stores one outcome; refused says why it cannot be.
func (w *writer) record(o *outbox.Outcome, now time.Time) (refused, err error) {
	held, claimed := w.claims.get(messages, o.Message)
	from, to := outbox.MessageQueued, o.State
	if held.sending {
		from = outbox.MessageSending
	}
	if !claimed || to == outbox.MessageSending || !from.CanBecome(to) {
		return w.refuse(messages, o.Message, to, claimed)
	}
	if to == outbox.MessageUncertain && !held.hold {
		to = outbox.MessageQueued
	}
	next := held.key
	if to == outbox.MessageQueued {
		next.due = or(o.Due, now).UnixMicro()
	}
	moved, err := w.settle(o, from, to, next, now)
	if err != nil {
		return nil, err
	}
	w.unclaim(messages, o.Message)
	w.cleared(messages, o.Message)
	if moved == 0 {
		return w.refuse(messages, o.Message, to, claimed)
	}
	if to == outbox.MessageQueued {
		w.offer(messages, held.priority, next)
	}
	if held.sensitive && to.Final() && !to.Retryable() {
		err = w.blank(held.group)
	}
	return nil, err
}

// settle writes an outcome, and returns how many messages it moved: none, if an operator was faster.
func (w *writer) settle(o *outbox.Outcome, from, to outbox.MessageState, next key, now time.Time) (int, error) {
	statement := dropBody
	if keepsBody(to) {
		statement = keepBody
	}
	var finished any
	if to.Final() {
		finished = now.UnixMicro()
	}
	n, err := w.exec(statement, int64(to), o.Reason, o.Reply, next.due, truth(o.Burned), finished, o.Message, int64(from))
	if err != nil || n == 0 || o.Attempt == nil {
		return n, err
	}
	a := o.Attempt
	_, err = w.exec(`INSERT INTO attempts (message, number, relay, started, took, code, enhanced, text, redirected)
		VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM attempts WHERE message = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
		o.Message, a.Relay, a.Started.UnixMicro(), a.Took.Microseconds(), int64(a.Code), a.Enhanced, a.Text, a.Redirected)
	return n, err
}

// refuse explains why a match or message cannot go where it was told to.
func (w *writer) refuse(k kind, id int64, to fmt.Stringer, claimed bool) (refused, err error) {
	what, state := "match", fmt.Stringer(nil)
	var number int64 = -1
	scan := func(scan scanner) error { return scan(&number) }
	if k == matches {
		err = w.each(`SELECT state FROM matches WHERE id = ?`, scan, id)
		state = outbox.MatchState(number)
	} else {
		what = "message"
		err = w.each(`SELECT state FROM messages WHERE id = ?`, scan, id)
		state = outbox.MessageState(number)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading its state: %w", err)
	case number < 0:
		return fmt.Errorf("%s %d does not exist: %w", what, id, outbox.ErrState), nil
	case !claimed:
		return fmt.Errorf("%s %d is %s and not claimed here, so it cannot become %s: %w", what, id, state, to, outbox.ErrState), nil
	}
	return fmt.Errorf("%s %d is %s and cannot become %s: %w", what, id, state, to, outbox.ErrState), nil
}
