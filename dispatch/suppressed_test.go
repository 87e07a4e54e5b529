package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/smtptest"
	"postman/outbox"
)

const suppressedRules = `
rules:
  - name: copies
    about: a
    class: transactional
    on: {table: notes, ops: [insert]}
    template: note
    to: [{address: team@example.com}, {address: lee@example.com}]
    cc: [{address: "Kim <kim@example.com>"}, {address: ann@example.com}]
`

func (w *world) suppress(addresses ...string) {
	w.Helper()
	for _, a := range addresses {
		must(w.store.Suppress(w.Context(), []outbox.Suppression{{Address: a, Cause: outbox.Complaint, Since: time.Now()}}))
	}
}

// TestSuppressed: whatever its class, no mail goes to who is suppressed, and copies go with the first mail that does.
func TestSuppressed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		suppressed []string
		settled    map[string]string
		mails      map[string][]string // by the first recipient of the envelope
		match      string              // why the match has come to what it has
	}{
		"one":            {[]string{"TEAM@Example.com"}, map[string]string{"team@example.com": "suppressed", "lee@example.com": "sent"}, map[string][]string{"lee@example.com": {"kim@example.com", "ann@example.com"}}, ""},
		"a copy":         {[]string{"kim@example.com"}, map[string]string{"team@example.com": "sent", "lee@example.com": "sent", "kim@example.com": "suppressed"}, map[string][]string{"team@example.com": {"ann@example.com"}, "lee@example.com": nil}, ""},
		"all but copies": {[]string{"team@example.com", "lee@example.com"}, map[string]string{"team@example.com": "suppressed", "lee@example.com": "suppressed"}, nil, noCopies},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{schema: expandSchema, rules: suppressedRules, templates: expandTemplates})
			w.suppress(c.suppressed...)
			w.insert("copies", "insert into notes (id) values (1)")
			w.eventually("it is expanded", func() bool { return len(w.messages()) > 0 })
			if diff := cmp.Diff(c.settled, w.settled()); diff != "" {
				t.Error(diff)
			}
			mails := make(map[string][]string)
			for _, m := range w.mails(len(c.mails)) {
				mails[m.To[0]] = m.To[1:]
				for _, a := range c.suppressed {
					if strings.Contains(strings.ToLower(parsed(t, m.Data).Header.Get("Cc")), strings.ToLower(a)) {
						t.Errorf("the header names %s", a)
					}
				}
			}
			if diff := cmp.Diff(c.mails, mails, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if got := w.matches()[0].Reason; got != c.match {
				t.Errorf("the match says %q", got)
			}
		})
	}
}

// TestSuppressedLater: a mail that waits for another try is stopped by what was suppressed meanwhile.
func TestSuppressedLater(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{}, 1)
	w := newWorld(t, setup{
		relay: smtptest.Options{Hook: func(e smtptest.Event) error {
			if e.Stage != smtptest.To {
				return nil
			}
			select {
			case refused <- struct{}{}:
			default:
			}
			return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "later"}
		}},
		tune: func(o *Options) { o.Retry.Pauses = []time.Duration{300 * time.Millisecond} },
	})
	w.emit("reset", reset("kim@example.com"))
	<-refused
	w.suppress("KIM@example.com")
	w.eventually("it is stopped", func() bool { return w.messages()[0].State == outbox.MessageSuppressed })
	if m := w.messages()[0]; !strings.Contains(m.Reason, "complaint") || m.Attempts == 0 {
		t.Errorf("the message is %+v", m)
	}
}
