package dispatch

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// hostility is what a server does once, at one command, in the place of what is usual.
var hostility = []struct {
	name string
	step smtptest.Step
}{
	{"another 2xx", smtptest.Reply("252 2.0.0 perhaps")},
	{"a 3xx", smtptest.Reply("354 3.0.0 go on")},
	{"a 4xx", smtptest.Reply("451 4.3.0 later")},
	{"a 421 and the end", smtptest.Step{Reply: "421 4.3.2 bye", Close: true}},
	{"a 421 that goes on", smtptest.Reply("421 4.3.2 bye")},
	{"a 5xx", smtptest.Reply("550 5.1.0 never")},
	{"a 1xx", smtptest.Reply("150 hm")},
	{"garbage", smtptest.Reply("\x00\xff what? \x1b[31m")},
	{"half a line", smtptest.Step{Raw: "25", Close: true}},
	{"half a reply", smtptest.Step{Raw: "250-almost\r\n", Close: true}},
	{"an endless line", smtptest.Reply("250 " + strings.Repeat("x", 70_000))},
	{"an endless reply", smtptest.Reply(strings.Repeat("250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 3000) + "250 ok")},
	{"two codes in one reply", smtptest.Reply("250-yes\r\n550 no")},
	{"a reply too many", smtptest.Reply("250 2.0.0 ok\r\n250 2.0.0 ok")},
	{"a reply too few", smtptest.Step{}},
	{"a refusal behind the reply", smtptest.Reply("250 2.0.0 ok\r\n550 5.0.0 no")},
	{"a cut", smtptest.Drop},
	{"silence", smtptest.Step{Hang: true}},
	{"nine minutes", smtptest.Step{Usual: true, Wait: 9 * time.Minute}},
}

// ends are what becomes of the first of two mails, by the phase and what the server does there; "sent" where nothing is said. The second is sent. With
// PIPELINING, replies that shift by one cannot always be told from those that are meant: a refusal in the place of DATA's counts, and so does the 250 to
// the MAIL behind in the place of the dot's. Neither loses a mail that the server has not answered so.
var ends = map[string]map[string]string{
	"MAIL": {"a 5xx": "dead"},
	"RCPT": {"a 5xx": "dead", "a refusal behind the reply/pipelining": "dead"},
	"DATA": {"a 5xx": "dead"},
	"DOT": {
		"a 5xx": "dead", "a 3xx": "uncertain", "a 1xx": "uncertain", "garbage": "uncertain", "half a line": "uncertain", "half a reply": "uncertain", "an endless line": "uncertain",
		"a reply too few/pipelining": "sent",
		"an endless reply":           "uncertain", "two codes in one reply": "uncertain", "a reply too few": "uncertain", "a cut": "uncertain", "silence": "uncertain",
	},
	"RSET": {"": "dead"}, // its sender is refused, so that there is something to reset
}

// twoMails are given to a server.
type twoMails struct {
	fake *smtptest.Fake
	d    *Dispatcher
	jobs []*job
}

func newTwoMails(t *testing.T, script smtptest.Script, tune func(*Options)) *twoMails {
	h := &twoMails{fake: smtptest.NewFake(script)}
	h.d = scripted(t, h.fake, func(o *Options) {
		o.Relays[0].Limits.Connections = 1
		if tune != nil {
			tune(o)
		}
	})
	for i, to := range []string{"a@example.com", "b@example.com"} {
		j := aJob(to)
		j.message.ID, j.message.HoldUncertain = int64(i), true
		j.letter.body = []byte("Subject: for " + to + "\r\n\r\n" + strings.Repeat(".to "+to+"\r\n", 300) + "the end of " + to + "\r\n")
		h.jobs = append(h.jobs, j)
	}
	return h
}

// run gives both mails to the lanes, and again while they are queued, as the store would; each time has one outcome. It returns how they end.
func (h *twoMails) run(t *testing.T, times int) string {
	states := make([]string, len(h.jobs))
	again := slices.Clone(h.jobs)
	for n := 0; n < times && len(again) > 0; n++ {
		for _, j := range again {
			j.lease = time.Now().Add(leaseFor)
		}
		begin(t.Context(), h.d, again...)
		count := len(again)
		again = nil
		for range count {
			o := <-h.d.outcomes
			states[o.message.ID] = o.State.String()
			if o.State == outbox.MessageQueued {
				j := h.jobs[o.message.ID]
				if o.Burned {
					j.message.Attempts++
				}
				again = append(again, j)
			}
		}
		h.d.sending.Wait()
		synctest.Wait()
		if len(h.d.outcomes) > 0 {
			t.Error("a mail has two outcomes")
		}
	}
	h.check(t, states)
	return strings.Join(states, " ")
}

// check compares what was told with what the server has: whole mails, to whom they are for, and each one that counts as sent taken once.
func (h *twoMails) check(t *testing.T, states []string) {
	taken := make(map[string]int)
	for _, m := range h.fake.Mails() {
		if len(m.To) != 1 {
			t.Errorf("a mail to %q", m.To)
			continue
		}
		i := slices.IndexFunc(h.jobs, func(j *job) bool { return j.message.Address == m.To[0] })
		want := bytes.ReplaceAll(h.jobs[i].letter.body, []byte("\r\n"), []byte("\n")) // the fake's reader makes LF of CRLF
		if !bytes.Equal(want, m.Data) {
			t.Errorf("to %s went %d bytes of %d: %.60q", m.To, len(m.Data), len(want), m.Data)
		}
		if m.Reply == "" || strings.HasPrefix(m.Reply, "2") { // without a word it may have
			taken[m.To[0]]++
		}
	}
	for i, j := range h.jobs {
		n := taken[j.message.Address]
		if states[i] == "sent" && n != 1 || states[i] == "dead" && n != 0 || n > 1 {
			t.Errorf("%s is %s, and the server took it %d times", j.message.Address, states[i], n)
		}
	}
}

// TestHostile has a server do everything that it should not, at every phase of a conversation, with and without PIPELINING: two mails end in the right
// states, none lost, none truncated, none twice.
func TestHostile(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT", "RSET"} {
		for _, does := range hostility {
			for _, pipelines := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/pipelining=%v", phase, does.name, pipelines), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						script := smtptest.Script{Extensions: []string{"SIZE 10000000"}, Steps: map[string][]smtptest.Step{phase: {does.step}}}
						if pipelines {
							script.Extensions = pipelining
						}
						if phase == "RSET" {
							script.Steps["MAIL"] = []smtptest.Step{smtptest.Reply("550 5.1.8 no such sender")}
							script.Steps["RCPT"] = []smtptest.Step{smtptest.Reply("503 5.5.1 no MAIL")}
							script.Steps["DATA"] = []smtptest.Step{smtptest.Reply("503 5.5.1 no RCPT")}
							if !pipelines {
								delete(script.Steps, "RCPT")
								delete(script.Steps, "DATA")
							}
						}
						var tune func(*Options)
						if phase == "STARTTLS" || phase == "AUTH" {
							tune = protected(t, &script)
						}
						want := "sent"
						for _, name := range []string{"", does.name, does.name + "/pipelining"} {
							if s, ok := ends[phase][name]; ok && (pipelines || !strings.HasSuffix(name, "/pipelining")) {
								want = s
							}
						}
						h := newTwoMails(t, script, tune)
						if got := h.run(t, 6); got != want+" sent" {
							t.Errorf("%s, want %s sent; %q", got, want, h.fake.Commands())
						}
					})
				})
			}
		}
	}
}

// protected has a script and the relay use STARTTLS and AUTH.
func protected(t *testing.T, s *smtptest.Script) func(*Options) {
	config, roots, err := smtptest.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = config
	s.Extensions = append(slices.Clone(s.Extensions), "STARTTLS", "AUTH PLAIN")
	return func(o *Options) {
		r := &o.Relays[0]
		r.Host, r.Security, r.User, r.Password, r.TLS = "localhost", StartTLS, "kim", "s3cret", &tls.Config{RootCAs: roots}
	}
}

// TestHostileBeside has what takes more than one step.
func TestHostileBeside(t *testing.T) {
	t.Parallel()
	type steps = map[string][]smtptest.Step
	usual := smtptest.Step{Usual: true}
	no := smtptest.Reply("550 5.1.1 unknown")
	for name, test := range map[string]struct {
		steps steps
		want  string
	}{
		"354 after all recipients were refused":      {steps{"RCPT": {no}}, "dead sent"},
		"354 after the sender was refused":           {steps{"MAIL": {no}}, "dead sent"},
		"354 after the recipient was put off":        {steps{"RCPT": {smtptest.Reply("450 4.2.0 later")}}, "sent sent"},
		"354 to the one behind that was refused":     {steps{"RCPT": {usual, no}}, "sent dead"},
		"421 to the envelope behind, and on":         {steps{"MAIL": {usual, smtptest.Reply("421 4.7.0 slow down")}}, "sent sent"},
		"421 to DATA behind, and the end":            {steps{"DATA": {usual, {Reply: "421 4.7.0 slow down", Close: true}}}, "sent sent"},
		"421 to both dots":                           {steps{"DOT": {smtptest.Reply("421 4.3.0 no"), smtptest.Reply("421 4.3.0 no")}}, "sent sent"},
		"a cut behind the 354 of the one behind":     {steps{"DATA": {usual, {Reply: "354 go", Close: true}}}, "sent sent"},
		"the second dot has no answer":               {steps{"DOT": {usual, smtptest.Drop}}, "sent uncertain"},
		"the first is refused, the second uncertain": {steps{"DOT": {smtptest.Reply("554 5.6.0 spam"), smtptest.Drop}}, "dead uncertain"},
		"every connection is cut at MAIL, twice":     {steps{"MAIL": {smtptest.Drop, smtptest.Drop}}, "sent sent"},
		"busy, then gone, then garbage":              {steps{"CONNECT": {{Reply: "421 busy", Close: true}, smtptest.Drop, smtptest.Reply("hello?")}}, "sent sent"},
		"a reply before it is asked":                 {steps{"DATA": {smtptest.Reply("354 go\r\n250 queued")}}, "sent sent"},
		"replies to four commands at MAIL":           {steps{"MAIL": {smtptest.Reply("250 ok\r\n250 ok\r\n354 go\r\n250 queued")}}, "sent sent"},
	} {
		for _, extensions := range [][]string{nil, pipelining} {
			t.Run(fmt.Sprintf("%s/%d", name, len(extensions)), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					script := smtptest.Script{Extensions: extensions, Steps: make(steps)}
					for command, list := range test.steps {
						script.Steps[command] = slices.Clone(list)
					}
					h, began := newTwoMails(t, script, nil), time.Now()
					if got := h.run(t, 6); got != test.want {
						t.Errorf("%s, want %s; %q", got, test.want, h.fake.Commands())
					}
					if took := time.Since(began); strings.HasPrefix(name, "354") && took > time.Second {
						t.Errorf("something was said to a server that waited for a mail, and its answer awaited for %s", took)
					}
				})
			})
		}
	}
}

// TestStripped has somebody stand between postman and its relay: no mail, no address and no password leaves in clear text, and nothing that was said in
// clear text counts behind STARTTLS (CVE-2011-0411).
func TestStripped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*smtptest.Script)
		relay  func(*Relay)
		want   string
	}{
		"STARTTLS is not offered": {change: func(s *smtptest.Script) { s.Extensions = []string{"AUTH PLAIN"} }, want: "queued queued"},
		"STARTTLS is refused": {change: func(s *smtptest.Script) {
			s.Always = map[string]smtptest.Step{"STARTTLS": smtptest.Reply("454 4.7.0 not now")}
		}, want: "queued queued"},
		"EHLO is refused":               {change: func(s *smtptest.Script) { s.Always = map[string]smtptest.Step{"EHLO": smtptest.Reply("502 no")} }, want: "queued queued"},
		"no TLS behind the 220":         {change: func(s *smtptest.Script) { s.TLS = nil }, want: "queued queued"},
		"another one's certificate":     {relay: func(r *Relay) { r.TLS = nil }, want: "queued queued"},
		"a certificate of another name": {relay: func(r *Relay) { r.Host = "relay.example.com" }, want: "queued queued"},
		"replies injected behind the 220": {change: func(s *smtptest.Script) {
			s.Always = map[string]smtptest.Step{"STARTTLS": smtptest.Reply("220 go\r\n250-evil\r\n250 AUTH PLAIN LOGIN\r\n235 welcome\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken")}
		}, want: "sent sent"},
		"in order": {want: "sent sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := smtptest.Script{Extensions: pipelining}
				tune := protected(t, &script)
				if test.change != nil {
					test.change(&script)
				}
				h := newTwoMails(t, script, func(o *Options) {
					tune(o)
					if test.relay != nil {
						test.relay(&o.Relays[0])
					}
				})
				if got := h.run(t, 3); got != test.want {
					t.Errorf("%s, want %s; %q", got, test.want, h.fake.Commands())
				}
				all := strings.Join(h.fake.Commands(), "\n")
				if test.want == "queued queued" && (strings.Contains(all, "AUTH") || strings.Contains(all, "@example.com")) {
					t.Errorf("in clear text: %q", all)
				}
				if test.want == "sent sent" && len(h.fake.Mails()) != 2 {
					t.Errorf("%d mails; %q", len(h.fake.Mails()), all)
				}
			})
		})
	}
}
