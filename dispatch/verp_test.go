package dispatch

import (
	"strings"
	"testing"

	"postman/bounce"
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
