package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// Suppress keeps addresses from getting mail. One that is suppressed already stays so for the reason that it has.
func (s *Store) Suppress(ctx context.Context, list []outbox.Suppression) (added int, err error) {
	err = s.write(ctx, "suppressing addresses", func(w *writer) (err error) {
		added, err = w.suppress(list)
		return err
	})
	if err != nil {
		return 0, err
	}
	return added, nil
}

func (w *writer) suppress(list []outbox.Suppression) (added int, err error) {
	for i := range list {
		p := &list[i]
		key := outbox.AddressKey(p.Address)
		n, err := w.exec(`INSERT INTO suppressions (key, address, cause, detail, who, since) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (key) WHERE lifted IS NULL DO NOTHING`, key[:], p.Address, int64(p.Cause), p.Detail, p.By, p.Since.UnixMicro())
		if err != nil {
			return 0, err
		}
		added += n
	}
	if added > 0 {
		w.suppresses.Store(true) // if all of this comes to nothing, load tells
	}
	return added, nil
}

// Unsuppress lets mail go to an address again.
func (s *Store) Unsuppress(ctx context.Context, address, by, why string, now time.Time) error {
	key := outbox.AddressKey(address)
	return s.write(ctx, "lifting a suppression", func(w *writer) error {
		n, err := w.exec(`UPDATE suppressions SET lifted = ?, lifted_by = ?, lifted_why = ? WHERE key = ? AND lifted IS NULL`,
			now.UnixMicro(), by, why, key[:])
		if err == nil && n == 0 {
			err = outbox.ErrNotFound
		}
		return err
	})
}

// Suppressions lists what is suppressed, newest first.
func (s *Store) Suppressions(ctx context.Context, f outbox.SuppressionFilter) ([]outbox.Suppression, error) {
	if len(f.Addresses) > 0 && s.ops != nil && !s.suppresses.Load() {
		return nil, nil // each mail asks
	}
	where, args := []string{`lifted IS NULL`}, []any(nil)
	if len(f.Addresses) > 0 {
		keys := make([]string, len(f.Addresses))
		for i, a := range f.Addresses {
			key := outbox.AddressKey(a)
			keys[i] = hex.EncodeToString(key[:])
		}
		text, err := json.Marshal(keys)
		if err != nil {
			return nil, fmt.Errorf("listing suppressions: %w", err)
		}
		where, args = append(where, `key IN (SELECT unhex(value) FROM json_each(?))`), append(args, text) // there may be more than a statement takes
	}
	if len(f.Causes) > 0 {
		where, args = append(where, `cause IN (SELECT value FROM json_each(?))`), append(args, wideList(f.Causes))
	}
	if f.Before != 0 {
		where, args = append(where, `id < ?`), append(args, f.Before)
	}
	text := `SELECT id, address, cause, detail, who, since FROM suppressions WHERE ` + strings.Join(where, " AND ") + ` ORDER BY id DESC`
	if f.Limit > 0 {
		text += fmt.Sprintf(` LIMIT %d`, f.Limit)
	}
	found, err := rows(s.reading(ctx), scanSuppression, text, args...)
	if err != nil {
		return nil, fmt.Errorf("listing suppressions: %w", explain(err))
	}
	return found, nil
}

// wideList is a JSON list of numbers, which bytes are not by themselves.
func wideList[T ~uint8](all []T) any {
	wide := make([]int, len(all))
	for i, n := range all {
		wide[i] = int(n)
	}
	return list(wide)
}

func scanSuppression(scan scanner) (p outbox.Suppression, err error) {
	var since sql.NullInt64
	err = scan(&p.ID, &p.Address, &p.Cause, &p.Detail, &p.By, &since)
	p.Since = moment(since)
	return p, err
}

// suppressed is the suppression of an address; nil: there is none.
func (w *writer) suppressed(key [16]byte) (p *outbox.Suppression, err error) {
	err = w.each(`SELECT id, address, cause, detail, who, since FROM suppressions WHERE key = ? AND lifted IS NULL`, func(scan scanner) error {
		found, err := scanSuppression(scan)
		p = &found
		return err
	}, key[:])
	if err != nil {
		return nil, fmt.Errorf("looking for a suppression: %w", err)
	}
	return p, nil
}

// bar ends those of a match's new messages that may not go, and makes messages of their own, which have ended, of copies that may not.
func (w *writer) bar(all []outbox.NewMessage) ([]outbox.NewMessage, error) {
	if !w.suppresses.Load() {
		return all, nil
	}
	all = slices.Clone(all)
	for i := range len(all) {
		m := &all[i]
		if m.State != outbox.MessageSending && m.State != outbox.MessageQueued {
			continue
		}
		p, err := w.suppressed(outbox.AddressKey(m.Address))
		if err != nil {
			return nil, err
		}
		if p != nil {
			m.State, m.Reason = outbox.MessageSuppressed, barred(p, m.CC)
			continue
		}
		kept, lost, err := w.barCopies(m.CC)
		if err != nil {
			return nil, err
		}
		for i := range lost {
			lost[i].Resend = m.Resend
		}
		m.CC = kept // before m may lie in another array
		all = append(all, lost...)
	}
	return all, nil
}

// barred is why a message does not go, and what else does not for that.
func barred(p *outbox.Suppression, cc []string) string {
	if len(cc) == 0 {
		return p.String()
	}
	return p.String() + "; its copies were not sent either: " + strings.Join(cc, ", ")
}

// barCopies divides copies into those that may go and those that may not, which are messages that have ended.
func (w *writer) barCopies(cc []string) (kept []string, lost []outbox.NewMessage, err error) {
	for _, c := range cc {
		p, err := w.suppressed(outbox.MailboxKey(c))
		if err != nil {
			return nil, nil, err
		}
		if p == nil {
			kept = append(kept, c)
			continue
		}
		address := c
		if m, err := mail.ParseAddress(c); err == nil {
			address = m.Address
		}
		lost = append(lost, outbox.NewMessage{Address: address, State: outbox.MessageSuppressed, Reason: "cc: " + p.String()})
	}
	return kept, lost, nil
}

// addressee is a queued message that is about to go.
type addressee struct {
	id, match int64
	address   string
	resend    uint32
	cc        []string
}

var selectAddressees = fmt.Sprintf(`SELECT m.id, m.match, m.address, m.resend, m.cc FROM messages m
	WHERE m.id IN (SELECT value FROM json_each(?)) AND m.state = %d
	AND (m.cc IS NOT NULL OR EXISTS (SELECT 1 FROM suppressions s WHERE s.key = m.address_key AND s.lifted IS NULL))`, outbox.MessageQueued)

// passing ends those of the messages to be started that may not go, and returns the rest. One that has copies which may not go loses these,
// and is free to be claimed again as it is now: whoever has it in hand knows it with them.
func (w *writer) passing(starts []outbox.Start, now time.Time) ([]outbox.Start, error) {
	if !w.suppresses.Load() {
		return starts, nil
	}
	var ids []int64
	for i := range starts {
		if c, claimed := w.claims.get(messages, starts[i].Message); claimed && !c.sending {
			ids = append(ids, starts[i].Message)
		}
	}
	if len(ids) == 0 {
		return starts, nil
	}
	found, err := rows(w.query, scanAddressee, selectAddressees, list(ids))
	if err != nil {
		return nil, fmt.Errorf("looking for suppressions: %w", err)
	}
	stopped := make(map[int64]bool)
	var ended []outbox.Outcome
	for i := range found {
		a := &found[i]
		p, err := w.suppressed(outbox.AddressKey(a.address))
		if err != nil {
			return nil, err
		}
		if p != nil {
			ended = append(ended, outbox.Outcome{Message: a.id, State: outbox.MessageSuppressed, Reason: barred(p, a.cc)})
			stopped[a.id] = true
		} else if stopped[a.id], err = w.strip(a, now); err != nil {
			return nil, err
		}
	}
	if _, err := w.record(ended, now); err != nil { // none is refused: they are claimed and queued
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(starts), func(s outbox.Start) bool { return stopped[s.Message] }), nil
}

func scanAddressee(scan scanner) (a addressee, err error) {
	var cc sql.NullString
	if err = scan(&a.id, &a.match, &a.address, &a.resend, &cc); err == nil && cc.Valid {
		err = json.Unmarshal([]byte(cc.String), &a.cc)
	}
	return a, err
}

// strip takes copies that may not go off a message; false: it has none.
func (w *writer) strip(a *addressee, now time.Time) (bool, error) {
	kept, lost, err := w.barCopies(a.cc)
	if err != nil || len(lost) == 0 {
		return false, err
	}
	if _, err := w.exec(`UPDATE messages SET cc = ? WHERE id = ?`, list(kept), a.id); err != nil {
		return false, fmt.Errorf("taking copies off message %d: %w", a.id, err)
	}
	held, _ := w.claims.get(messages, a.id)
	of := claim{line: held.line, key: key{id: a.match}}
	for i := range lost {
		lost[i].Resend = a.resend
		m := newcomer{&lost[i], w.next("messages")}
		if _, err := w.insert(&insertMessages, m.values(of, now)); err != nil {
			return false, err
		}
	}
	w.after(func() { w.claims.free(messages, a.id) })
	return true, nil
}
