package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postman/bounce"
	"postman/internal/smtptest"
)

// TestEnvelopeSenders: with a * in the bounce address each mail has an envelope sender of its own, and what comes back to it names the mail.
func TestEnvelopeSenders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ bounce, want string }{
		"one for all":      {"bounces@example.com", "bounces@example.com"},
		"one for each":     {"*@bounces.example.com", "@bounces.example.com"},
		"behind a mailbox": {"bounces+*@example.com", "@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{tune: func(o *Options) { o.Bounce = c.bounce }})
			w.emit("reset", reset("kim@example.com"))
			w.emit("reset", reset("ann@example.com"))
			of := make(map[int64]string)
			for _, m := range w.mails(2) {
				if !strings.HasSuffix(m.From, c.want) {
					t.Errorf("the envelope's sender is %s", m.From)
				}
				if n, ok := bounce.Message(w.store.Secret(), m.From); ok {
					of[n] = m.To[0]
				}
			}
			if !strings.Contains(c.bounce, "*") {
				if len(of) > 0 {
					t.Errorf("tokens in %v", of)
				}
				return
			}
			for _, m := range w.messages() {
				if of[m.ID] != m.Address {
					t.Errorf("message %d is to %s, and its sender's token was on a mail to %s", m.ID, m.Address, of[m.ID])
				}
			}
		})
	}
}

// TestTokenField: a mail over a provider with a field for that is named in it, once, and at each attempt, in whatever mode.
func TestTokenField(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]Mode{"live": Live, "redirect": Redirect} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said := make(chan string, 2)
			hook := func(e smtptest.Event) error {
				if e.Stage != smtptest.Dot {
					return nil
				}
				said <- string(e.Mail.Data)
				if len(said) == 1 {
					return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
				}
				return nil
			}
			w := newWorld(t, setup{relay: smtptest.Options{Hook: hook}, tune: func(o *Options) {
				o.Mode, o.Redirect, o.Relays[0].TokenField, o.Retry.Pauses = mode, "dev@example.com", "X-Named", []time.Duration{time.Millisecond}
			}})
			w.emit("reset", reset("kim@example.com"))
			w.mails(1)
			w.settled()
			m := w.messages()[0]
			for range 2 {
				mail := <-said
				first, _, _ := strings.Cut(mail, "\r\n")
				if n, ok := bounce.Message(w.store.Secret(), strings.TrimPrefix(first, "X-Named: ")); !ok || n != m.ID || strings.Count(mail, "X-Named") != 1 {
					t.Errorf("message %d is named so:\n%s", m.ID, mail)
				}
			}
		})
	}
}

// TestPlaceOf: a Message-ID tells its own store, and nobody else, where its change was.
func TestPlaceOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.emit("reset", reset("kim@example.com"))
	w.mails(1)
	w.settled()
	m := w.messages()[0]
	at, ordinal, ok := PlaceOf(w.store.ID(), strings.ToUpper(m.MessageID))
	if !ok || at != m.Position.LSN || ordinal != uint32(m.Position.Ordinal) {
		t.Errorf("%s is of %s, %d; it was made of %s", m.MessageID, at, ordinal, m.Position)
	}
	if found, err := w.store.Find(t.Context(), at, ordinal, m.MessageID); err != nil || found.ID != m.ID {
		t.Errorf("found %+v, %v", found, err)
	}
	if at, _, _ := PlaceOf("another store", m.MessageID); at == m.Position.LSN {
		t.Error("another store can read it")
	}
	for _, id := range []string{"", "<>", "<1@x>", "<20261123014041.987019E8389@mx.example.com>", "<" + strings.Repeat("a", 39) + "0@x>"} {
		if at, _, ok := PlaceOf(w.store.ID(), id); ok {
			t.Errorf("%q is of %s", id, at)
		}
	}
}
