package dispatch

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/smtptest"
)

var testMail = &ProofMail{From: "CRM <crm@example.com>", Sender: "bounce@example.com", To: "kim@example.com", About: "From here."}

// TestProve meets a real server in each way of protection: the proof shows each step and no password, and says what to do.
func TestProve(t *testing.T) {
	t.Parallel()
	config, roots, err := smtptest.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	login := smtptest.Options{TLS: config, User: "kim", Password: "s3cret"}
	for name, test := range map[string]struct {
		server  smtptest.Options
		url     string
		trust   bool
		problem string
		advice  string
		lines   []string // parts of them, in order
	}{
		"STARTTLS and a login": {login, "smtp+starttls://kim:s3cret@%s", true, "", "", []string{
			"connected to 127.0.0.1", "EHLO", "STARTTLS", "TLS 1.3", "EHLO", "AUTH PLAIN (what logs in is not shown)", "235 ", "MAIL FROM:<bounce@example.com>", "RCPT TO:<kim@example.com>",
			"DATA", "354 ", "(the mail, ", "250 ", "QUIT",
		}},
		"implicit TLS":       {smtptest.Options{TLS: config, Implicit: true}, "smtps://%s", true, "", "", []string{"TLS 1.3", "EHLO", "MAIL FROM", "QUIT"}},
		"in clear":           {smtptest.Options{}, "smtp://%s", false, "", "", []string{"connected", "EHLO", "MAIL FROM", "250 "}},
		"a wrong password":   {login, "smtp+starttls://kim:wr0ng@%s", true, "535", "user and password", []string{"AUTH PLAIN", "535 "}},
		"no login":           {login, "smtp+starttls://%s", true, "530", "wants a login", []string{"MAIL FROM", "530 "}},
		"a stranger's":       {smtptest.Options{TLS: config}, "smtp+starttls://%s", false, "certificate", "does not trust", []string{"STARTTLS", "220 "}},
		"no STARTTLS":        {smtptest.Options{}, "smtp+starttls://%s", true, "STARTTLS", "?tls=off", []string{"EHLO"}},
		"no AUTH":            {smtptest.Options{}, "smtp://kim:s3cret@%s", true, "no way to log in", "leave user and password out", []string{"EHLO"}},
		"TLS where none is":  {smtptest.Options{}, "smtps://%s", true, "tls: first record", "take smtp+starttls://", []string{"connected"}},
		"TLS where there is": {smtptest.Options{TLS: config, Implicit: true}, "smtp+starttls://%s", true, "(at connecting)", "(smtps://)", []string{"connected"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := smtptest.Start(test.server)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			r, err := ParseRelay(fmt.Sprintf(test.url, server.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			if test.trust {
				r.TLS = &tls.Config{RootCAs: roots}
			}
			patience := 20 * time.Second
			if name == "TLS where there is" {
				patience = 100 * time.Millisecond
			}
			p, err := Prove(t.Context(), r, testMail, Timeouts{Dial: patience})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(p.Problem, test.problem) || !strings.Contains(p.Advice, test.advice) || p.OK() != (test.problem == "") || len(server.Mails()) != map[bool]int{true: 1}[p.OK()] {
				t.Errorf("%q → %q, %d mails", p.Problem, p.Advice, len(server.Mails()))
			}
			text, _ := json.Marshal(p)
			for _, hidden := range []string{"s3cret", "wr0ng", "AGtpbQBzM2NyZXQ", "AGtpbQB3cjBuZw"} { // the latter are PLAIN's
				if strings.Contains(string(text), hidden) {
					t.Errorf("the password is shown: %s", text)
				}
			}
			rest := p.Lines
			for _, want := range test.lines {
				i := slices.IndexFunc(rest, func(l Line) bool { return strings.Contains(l.Text, want) })
				if i < 0 {
					t.Fatalf("no %q in %+v", want, p.Lines)
				}
				rest = rest[i+1:]
			}
			if p.OK() {
				mail := string(server.Mails()[0].Data)
				for _, want := range []string{"Subject: [postman] test mail\r\n", "X-Postman-Test: yes\r\n", "Message-ID: " + p.MessageID, "From here.", "Auto-Submitted: auto-generated"} {
					if !strings.Contains(mail, want) {
						t.Errorf("no %q in %s", want, mail)
					}
				}
			}
		})
	}
}

// TestProveStrangeLogin: a relay that takes a login with another 2xx than RFC 4954's has not let us in, and is not said to refuse the machine.
func TestProveStrangeLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Extensions: []string{"AUTH PLAIN"}, Always: map[string]smtptest.Step{"AUTH": smtptest.Reply("250 2.0.0 Ok")}})
		defer fake.Close()
		p, err := Prove(t.Context(), Relay{Host: "127.0.0.1", Port: 25, Security: Plain, User: "kim", Password: "s3cret", dial: fake.Dial}, testMail, Timeouts{})
		if err != nil || !strings.Contains(p.Problem, "answered AUTH with 250 2.0.0 Ok, where 235 is due") || strings.Contains(p.Advice, "this machine") {
			t.Errorf("%v, %+v", err, p)
		}
	})
}

// TestProveRefused has the relay refuse at each step: the advice speaks of that, and nothing is said twice.
func TestProveRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps          map[string]smtptest.Step
		problem, ended string
	}{
		"greeting":    {map[string]smtptest.Step{"CONNECT": {Reply: "554 5.3.2 go away", Close: true}}, "554 5.3.2 go away", "let this machine in"},
		"busy":        {map[string]smtptest.Step{"CONNECT": {Reply: "421 4.3.2 busy", Close: true}}, "421 4.3.2 busy", "try again in a minute"},
		"mute":        {map[string]smtptest.Step{"CONNECT": {Hang: true}}, "(at connecting)", "says nothing"},
		"sender":      {map[string]smtptest.Step{"MAIL": smtptest.Reply("550 5.7.1 not verified")}, "550 5.7.1 not verified (at MAIL)", "verified with the provider"},
		"recipient":   {map[string]smtptest.Step{"RCPT": smtptest.Reply("554 5.7.1 relay access denied")}, "554 5.7.1 relay access denied (at RCPT)", "does not relay"},
		"greylisted":  {map[string]smtptest.Step{"RCPT": smtptest.Reply("450 4.7.1 greylisted")}, "450 4.7.1 greylisted", "second visit"},
		"content":     {map[string]smtptest.Step{"DOT": smtptest.Reply("554 5.6.0 spam")}, "554 5.6.0 spam", "refuses the mail itself"},
		"nobody says": {map[string]smtptest.Step{"DOT": smtptest.Drop}, "EOF (at the final dot)", "nobody knows"},
		"hangs up":    {map[string]smtptest.Step{"RCPT": smtptest.Drop}, "EOF (at RCPT)", "its own log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Always: test.steps})
				defer fake.Close()
				p, err := Prove(t.Context(), Relay{Host: "fake", Port: 25, Security: Plain, dial: fake.Dial}, testMail, Timeouts{})
				if err != nil || !strings.Contains(p.Problem, test.problem) || !strings.Contains(p.Advice, test.ended) || p.Advice == "" || fake.Connections() != 1 {
					t.Errorf("%v, %+v", err, p)
				}
			})
		})
	}
	for _, m := range []ProofMail{{From: "x", To: "kim@example.com"}, {From: testMail.From, To: "no"}, {From: testMail.From, To: testMail.To, Sender: "no"}, {From: testMail.From, To: testMail.To, ReplyTo: "no"}} {
		if _, err := Prove(t.Context(), Relay{}, &m, Timeouts{}); err == nil {
			t.Errorf("%+v is taken", m)
		}
	}
}
