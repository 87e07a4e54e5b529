package dispatch

import (
	"strings"
	"testing"
	"time"

	"postman/outbox"
)

// TestUndecided retries matches on which their rule could not be tried: only one that it matches is worth a mail.
func TestUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{templates: plainTemplates, rules: `
rules:
  - name: reset
    about: A link to set a new password.
    on: {message: reset}
    when: message.wanted
    to: message.email
    template: reset
`})
	for _, content := range []string{
		`{"email": "kim@example.com", "token": "t", "wanted": true}`, `{"email": "lee@example.com", "token": "t", "wanted": false}`, `no JSON`,
	} {
		c := message("reset", content)
		c.tune = func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchFailed, "it could not be tried" }
		w.append(0, c)
	}
	must(w.store.Act(t.Context(), outbox.Retry, outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchFailed}}, "", time.Now()))
	w.Wake()
	w.eventually("all are settled", func() bool {
		for _, m := range w.matches() {
			if m.State == outbox.MatchPending {
				return false
			}
		}
		return true
	})
	for i, want := range []string{"expanded", "cancelled: tried again, the rule does not match", "failed: reading the change"} {
		m := w.matches()[i]
		if got := m.State.String() + ": " + m.Reason; !strings.HasPrefix(got, want) {
			t.Errorf("match %d is %s; want %s", i, got, want)
		}
	}
	if mails := w.mails(1); mails[0].To[0] != "kim@example.com" || len(w.relay.Mails()) != 1 {
		t.Errorf("mails %+v", mails)
	}
}
