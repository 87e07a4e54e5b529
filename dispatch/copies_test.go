package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/internal/smtptest"
	"postman/outbox"
)

// TestLastCopies: what is put off because of a copy goes without it before it would not go at all, and says so; a relay gets no more recipients than it takes.
func TestLastCopies(t *testing.T) {
	t.Parallel()
	usual, later := smtptest.Step{Usual: true}, smtptest.Reply("450 4.2.1 later")
	for name, test := range map[string]struct {
		replies    []smtptest.Step
		extensions []string
		tune       func(*outbox.Message)
		state      outbox.MessageState
		reason     string
		to         []string
	}{
		"there is a later":       {[]smtptest.Step{usual, later, usual}, nil, func(m *outbox.Message) { m.Attempts = 5 }, outbox.MessageQueued, "450 4.2.1 later (at RCPT)", nil},
		"there is none":          {[]smtptest.Step{usual, later, usual}, nil, func(m *outbox.Message) { m.Attempts = 1000 }, outbox.MessageSent, "the relay refused copies: <park@example.com>: 450 4.2.1 later (at RCPT)", nil},
		"it expires before":      {[]smtptest.Step{usual, usual, later}, nil, func(m *outbox.Message) { m.Expires = time.Now().Add(time.Minute) }, outbox.MessageSent, "the relay refused copies: <lee@example.com>: 450 4.2.1 later (at RCPT)", nil},
		"it expires long after":  {[]smtptest.Step{usual, usual, later}, nil, func(m *outbox.Message) { m.Expires = time.Now().Add(time.Hour) }, outbox.MessageQueued, "450 4.2.1 later (at RCPT)", nil},
		"the recipient, at last": {[]smtptest.Step{later, usual, usual}, nil, func(m *outbox.Message) { m.Attempts = 1000 }, outbox.MessageDead, "given up after 1001 attempts: 450 4.2.1 later (at RCPT)", nil},
		"it goes away":           {[]smtptest.Step{usual, {Reply: "421 4.3.2 bye", Close: true}}, nil, func(m *outbox.Message) { m.Attempts = 1000 }, outbox.MessageQueued, "421 4.3.2 bye (at RCPT)", nil},
		"two recipients a mail":  {nil, []string{"LIMITS MAILMAX=9 RCPTMAX=2"}, func(*outbox.Message) {}, outbox.MessageSent, "the relay refused copies: <lee@example.com>: it takes no more than 2 addresses a mail (LIMITS RCPTMAX)", []string{"kim@example.com", "park@example.com"}},
		"one recipient a mail": {
			nil,
			[]string{"LIMITS RCPTMAX=1"},
			func(*outbox.Message) {}, outbox.MessageSent,
			"the relay refused copies: <park@example.com>: it takes no more than 1 addresses a mail (LIMITS RCPTMAX); <lee@example.com>: it takes no more than 1 addresses a mail (LIMITS RCPTMAX)",
			[]string{"kim@example.com"},
		},
		"many recipients a mail": {nil, []string{"LIMITS RCPTMAX=100"}, func(*outbox.Message) {}, outbox.MessageSent, "a note", []string{"kim@example.com", "park@example.com", "lee@example.com"}},
	} {
		for _, more := range [][]string{nil, pipelining} {
			t.Run(fmt.Sprintf("%s/%d extensions", name, len(more)), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					extensions := append(more[:len(more):len(more)], test.extensions...)
					fake := smtptest.NewFake(smtptest.Script{Extensions: extensions, Steps: map[string][]smtptest.Step{"RCPT": test.replies}})
					d := scripted(t, fake, nil)
					j := aJob("kim@example.com")
					j.message.CC = []string{"park@example.com", "lee@example.com"}
					test.tune(&j.message)
					o := say(d, j)
					if o.State != test.state || o.Reason != test.reason || (o.State == outbox.MessageSent) != (len(fake.Mails()) == 1) {
						t.Errorf("%s: %s, %d mails; %q", o.State, o.Reason, len(fake.Mails()), fake.Commands())
					}
					if test.to != nil {
						if diff := cmp.Diff(test.to, fake.Mails()[0].To); diff != "" {
							t.Error(diff)
						}
					}
				})
			})
		}
	}
}
