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
	err := s.write(ctx, "taking messages to sending", func(w *writer) (err error) {
		started, err = w.start(starts, time.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	return started, nil
}

var startRows = newRowwise(6, fmt.Sprintf(`UPDATE messages SET state = %d, lease = v.column2, message_id = coalesce(nullif(v.column3, ''), message_id),
	subject = coalesce(nullif(v.column4, ''), subject), body = coalesce(v.column5, body), template = coalesce(v.column6, template)
	FROM %%s WHERE messages.id = v.column1 AND messages.state = %d RETURNING messages.id`, outbox.MessageSending, outbox.MessageQueued))

func (w *writer) start(starts []outbox.Start, now time.Time) (started []int64, err error) {
	if starts, err = w.passing(starts, now); err != nil {
		return nil, err
	}
	held := make(map[int64]claim, len(starts))
	values := make([]any, 0, len(starts)*startRows.columns)
	for i := range starts {
		st := &starts[i]
		c, claimed := w.claims.get(messages, st.Message)
		if _, twice := held[st.Message]; !claimed || c.sending || twice {
			continue
		}
		held[st.Message] = c
		values = append(values, st.Message, micros(st.Lease), st.MessageID, st.Subject, absent(st.Body), hashOrNull(st.Template))
	}
	err = w.rowwise(&startRows, values, func(id int64) {
		c := held[id]
		delete(held, id)
		c.sending = true
		w.claim(c)
		started = append(started, id)
	})
	for id := range held { // it was cancelled meanwhile
		w.unclaim(messages, id)
	}
	return started, err
}

// Record stores what became of messages.
func (s *Store) Record(ctx context.Context, outcomes []outbox.Outcome) error {
	var refused []error
	err := s.write(ctx, "recording outcomes", func(w *writer) (err error) {
		refused, err = w.record(outcomes, time.Now())
		return err
	})
	if err == nil && refused != nil {
		err = fmt.Errorf("recording outcomes: %w", errors.Join(refused...))
	}
	return err
}

// Outcomes take messages that are still where their claims left them to their next states.
var (
	recordText = `UPDATE messages SET state = v.column3, reason = v.column4, reply = v.column5, due = v.column6, attempts = attempts + v.column7,
		finished = v.column8, lease = NULL, begun = 0%s FROM %%s WHERE messages.id = v.column1 AND messages.state = v.column2 RETURNING messages.id`
	keepBody = newRowwise(8, fmt.Sprintf(recordText, ""))
	dropBody = newRowwise(8, fmt.Sprintf(recordText, ", body = NULL"))

	attemptRows = newRowwise(8, `INSERT INTO attempts (message, number, relay, started, took, code, enhanced, text, redirected)
		SELECT v.column1, (SELECT coalesce(max(number), 0) + 1 FROM attempts a WHERE a.message = v.column1), v.column2, v.column3, v.column4, v.column5,
			v.column6, v.column7, v.column8 FROM %s WHERE true RETURNING message`)
)

// settling is an outcome of a message that is claimed.
type settling struct {
	*outbox.Outcome
	held     claim
	from, to outbox.MessageState
	next     key // what it is due by, if it is to be queued again
	moved    bool
}

// record stores outcomes; refused says why some cannot be.
func (w *writer) record(outcomes []outbox.Outcome, now time.Time) (refused []error, err error) {
	all := make(map[int64]*settling, len(outcomes))
	var order []*settling
	var late []*outbox.Outcome // or twice
	for i := range outcomes {
		o := &outcomes[i]
		if s := w.settling(o, now); s != nil && all[o.Message] == nil {
			all[o.Message], order = s, append(order, s)
			continue
		}
		late = append(late, o)
	}
	if err := w.settle(order, all, now); err != nil {
		return nil, err
	}
	for _, s := range order {
		if err := w.settled(s); err != nil {
			return nil, err
		}
		if !s.moved {
			late = append(late, s.Outcome)
		}
	}
	for _, o := range late {
		s := all[o.Message]
		_, claimed := w.claims.get(messages, o.Message)
		no, err := w.refuse(messages, o.Message, o.State, claimed || s != nil && !s.moved)
		if err != nil {
			return nil, err
		}
		refused = append(refused, no)
	}
	return refused, nil
}

// settling is what an outcome makes of a message; nil: it cannot be.
func (w *writer) settling(o *outbox.Outcome, now time.Time) *settling {
	held, claimed := w.claims.get(messages, o.Message)
	s := &settling{Outcome: o, held: held, from: outbox.MessageQueued, to: o.State, next: held.key}
	if held.sending {
		s.from = outbox.MessageSending
	}
	if !claimed || s.to == outbox.MessageSending || !s.from.CanBecome(s.to) {
		return nil
	}
	if s.to == outbox.MessageUncertain && !held.hold {
		s.to = outbox.MessageQueued
	}
	switch {
	case s.to == outbox.MessageQueued:
		s.next.due = or(o.Due, now).UnixMicro()
	case s.to == outbox.MessageHeld && !o.Due.IsZero():
		s.next.due = o.Due.UnixMicro()
	}
	return s
}

// settle writes outcomes, and notes which messages moved: not those with which an operator was faster.
func (w *writer) settle(order []*settling, all map[int64]*settling, now time.Time) error {
	var keep, drop, attempts []any
	for _, s := range order {
		var finished any
		if s.to.Final() {
			finished = now.UnixMicro()
		}
		values := []any{s.Message, int64(s.from), int64(s.to), s.Reason, s.Reply, s.next.due, truth(s.Burned), finished}
		if keepsBody(s.to) {
			keep = append(keep, values...)
		} else {
			drop = append(drop, values...)
		}
	}
	moved := func(id int64) { all[id].moved = true }
	if err := w.rowwise(&keepBody, keep, moved); err != nil {
		return err
	}
	if err := w.rowwise(&dropBody, drop, moved); err != nil {
		return err
	}
	used := make(map[consumer]int)
	for _, s := range order {
		if a := s.Attempt; s.moved && a != nil {
			if s.to == outbox.MessageSent {
				used[consumer{monthOf(a.Started.Add(a.Took)), a.Relay}]++
			}
			attempts = append(attempts, s.Message, a.Relay, a.Started.UnixMicro(), a.Took.Microseconds(), int64(a.Code), a.Enhanced, a.Text, a.Redirected)
		}
	}
	if err := w.rowwise(&attemptRows, attempts, func(int64) {}); err != nil {
		return err
	}
	return w.use(used)
}

// settled ends the claim of a message whose outcome was written.
func (w *writer) settled(s *settling) error {
	w.unclaim(messages, s.Message)
	w.cleared(messages, s.Message)
	if s.moved && s.to == outbox.MessageQueued {
		w.offer(s.held.line, s.next)
	}
	if s.moved && s.held.sensitive && s.to.Final() && !s.to.Retryable() {
		return w.blank(s.held.group)
	}
	return nil
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
