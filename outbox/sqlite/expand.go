package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postman/outbox"
)

// Expand ends, defers or holds a claimed match and queues its messages.
func (s *Store) Expand(ctx context.Context, e outbox.Expansion) ([]outbox.Message, error) {
	var sending []outbox.Message
	var refused error
	err := s.write(ctx, fmt.Sprintf("expanding match %d", e.Match), func(w *writer) (err error) {
		sending, refused, err = w.expand(&e, time.Now())
		return err
	})
	if err == nil && refused != nil {
		err = fmt.Errorf("expanding match %d: %w", e.Match, refused)
	}
	if err != nil {
		return nil, err
	}
	return sending, nil
}

func (w *writer) expand(e *outbox.Expansion, now time.Time) (sending []outbox.Message, refused, err error) {
	if err := sound(e); err != nil {
		return nil, nil, err
	}
	held, claimed := w.claims.get(matches, e.Match)
	w.unclaim(matches, e.Match)
	moved := 0
	if claimed {
		if moved, err = w.moveMatch(e, held, now); err != nil {
			return nil, nil, err
		}
	}
	if moved == 0 {
		refused, err = w.refuse(matches, e.Match, e.State, claimed)
		return nil, refused, err
	}
	if e.Messages, err = w.bar(e.Messages); err != nil {
		return nil, nil, err
	}
	if sending, err = w.addMessages(e, held, now); err != nil {
		return nil, nil, err
	}
	if held.sensitive {
		err = w.blank(e.Match)
	}
	return sending, nil, err
}

// sound refuses an expansion that contradicts itself.
func sound(e *outbox.Expansion) error {
	if !outbox.MatchPending.CanBecome(e.State) {
		return fmt.Errorf("a pending match cannot become %s: %w", e.State, outbox.ErrState)
	}
	if e.State != outbox.MatchExpanded && len(e.Messages) > 0 {
		return fmt.Errorf("a match that becomes %s has no messages: %w", e.State, outbox.ErrState)
	}
	for i := range e.Messages {
		if m := &e.Messages[i]; !m.State.CanBegin() {
			return fmt.Errorf("a message cannot begin as %s: %w", m.State, outbox.ErrState)
		}
	}
	return nil
}

// moveMatch takes a claimed match to its next state, unless an operator was faster.
func (w *writer) moveMatch(e *outbox.Expansion, held claim, now time.Time) (int, error) {
	next, tries := held.key, 0
	switch {
	case e.State == outbox.MatchPending:
		next.due = or(e.Due, now).UnixMicro()
		if !e.Early {
			tries = 1
		}
		w.offer(held.line, next)
	case e.State == outbox.MatchHeld && !e.Due.IsZero():
		next.due = e.Due.UnixMicro()
	}
	n, err := w.exec(`UPDATE matches SET state = ?, reason = ?, due = ?, attempts = attempts + ?, begun = 0 WHERE id = ? AND state = ?`,
		int64(e.State), e.Reason, next.due, tries, e.Match, int64(outbox.MatchPending))
	if err != nil {
		return 0, fmt.Errorf("storing its state: %w", err)
	}
	w.cleared(matches, e.Match)
	return n, nil
}

var insertMessages = newInsertion("messages", "(match, address_key, resend)", "id", "match", "address", "address_key", "resend", "state", "reason",
	"due", "priority", "lease", "created", "finished", "recipient", "cc", "message_id", "subject", "body", "begun", "template", "rule")

// newcomer is a message that a match gets, under the id that it is to have.
type newcomer struct {
	*outbox.NewMessage
	id int64
}

// addMessages queues the messages of a match that are not known, and returns those that are sending.
func (w *writer) addMessages(e *outbox.Expansion, held claim, now time.Time) ([]outbox.Message, error) {
	var newcomers []newcomer
	values := make([]any, 0, len(e.Messages)*insertMessages.columns)
	for i := range e.Messages {
		m := newcomer{&e.Messages[i], w.next("messages")}
		newcomers = append(newcomers, m)
		values = append(values, m.values(held, now)...)
	}
	n, err := w.insert(&insertMessages, values)
	if err == nil && n < len(newcomers) {
		newcomers, err = w.unknownMessages(newcomers)
	}
	if err != nil {
		return nil, err
	}
	l := line{messages, held.priority, held.rule}
	var sending []outbox.Message
	for _, m := range newcomers {
		at := m.key(held, now)
		if m.State == outbox.MessageQueued {
			w.offer(l, at)
		}
		if m.State == outbox.MessageSending {
			w.claim(claim{line: l, key: at, sensitive: held.sensitive, hold: held.match.HoldUncertain, sending: true})
			sending = append(sending, m.message(held, now))
		}
	}
	return sending, nil
}

func (m newcomer) key(held claim, now time.Time) key {
	return key{due: or(m.Due, now).UnixMicro(), group: held.id, id: m.id}
}

// values are the message's row.
func (m newcomer) values(held claim, now time.Time) []any {
	address := outbox.AddressKey(m.Address)
	var body, finished any
	if keepsBody(m.State) {
		body = absent(m.Body)
	}
	if m.State.Final() {
		finished = now.UnixMicro()
	}
	return []any{
		m.id, held.id, m.Address, address[:], int64(m.Resend), int64(m.State), m.Reason, or(m.Due, now).UnixMicro(), int64(held.priority),
		micros(m.Lease), now.UnixMicro(), finished, absent(m.Recipient), list(m.CC), m.MessageID, m.Subject, body,
		truth(m.State == outbox.MessageSending), hashOrNull(m.Template), held.rule,
	}
}

// message is the message as it stands in the store.
func (m newcomer) message(held claim, now time.Time) outbox.Message {
	x := held.match
	return outbox.Message{
		ID: m.id, Match: x.ID, Position: x.Position, Rule: x.Rule, RuleName: x.RuleName, Address: m.Address, Resend: m.Resend,
		State: m.State, Reason: m.Reason, Due: rounded(or(m.Due, now)), Expires: x.Expires, Priority: x.Priority,
		HoldUncertain: x.HoldUncertain, Silent: x.Silent, Sensitive: held.sensitive, Recipient: m.Recipient, CC: m.CC,
		MessageID: m.MessageID, Subject: m.Subject, Body: m.Body, Template: m.Template, Committed: x.Tx.Time, Created: rounded(now),
	}
}

// unknownMessages returns the newcomers that were stored: the others were queued before, for the same address.
func (w *writer) unknownMessages(newcomers []newcomer) ([]newcomer, error) {
	stored, err := w.present("messages", newcomers[0].id, newcomers[len(newcomers)-1].id)
	if err != nil {
		return nil, fmt.Errorf("finding which messages are new: %w", err)
	}
	return slices.DeleteFunc(newcomers, func(m newcomer) bool { return !stored[m.id] }), nil
}

// keepsBody says whether a message in this state may need its rendered bytes again.
func keepsBody(s outbox.MessageState) bool { return !s.Final() || s.Retryable() }
