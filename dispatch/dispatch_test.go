package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"postman/internal/smtptest"
	"postman/outbox"
	"postman/templates"
	"postman/value"
)

func TestSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm})
	w.insert("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	m := w.mails(1)[0]
	if diff := cmp.Diff([]string{"kim@example.com"}, m.To); diff != "" || m.From != "bounce@example.com" {
		t.Errorf("envelope from %s to %s", m.From, diff)
	}
	if diff := cmp.Diff(map[string]string{"kim@example.com": "sent"}, w.settled()); diff != "" {
		t.Error(diff)
	}
	sent := w.messages()[0]
	if sent.MessageID != parsed(t, m.Data).Header.Get("Message-Id") || sent.Subject != "Meeting: Site visit" || sent.Attempts != 1 || sent.Reply == "" || len(sent.Body) > 0 {
		t.Errorf("%+v", sent)
	}
	a := must(w.store.Attempts(t.Context(), sent.ID))
	if len(a) != 1 || a[0].Code != 250 || a[0].Enhanced != "2.0.0" || a[0].Relay != w.relay.Addr() || a[0].Took <= 0 {
		t.Errorf("attempts %+v", a)
	}
	w.eventually("the outcome is observed", func() bool { return len(w.outcomesSeen()) == 1 })
	if o := w.outcomesSeen()[0]; o.State != outbox.MessageSent || o.message.ID != sent.ID || o.message.Committed.IsZero() {
		t.Errorf("observed %+v", o)
	}
	if s := w.Status(); s.State != RelayUp || s.Connections == 0 || s.InFlight != 0 || s.Matches != 0 || s.Messages != 0 || s.Most != 4 {
		t.Errorf("status %+v", s)
	}
}

// TestRetries follows one message through a relay that puts it off, is lost after a dot, and takes it at last.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Steps: map[string][]smtptest.Step{
			"RCPT": {smtptest.Reply("450 4.2.1 greylisted"), smtptest.Reply("451 4.3.0 later")},
			"DATA": {smtptest.Reply("503 5.5.1 no"), smtptest.Reply("503 5.5.1 no")},
			"DOT":  {smtptest.Drop},
		}})
		w := newWorld(t, setup{fake: fake})
		w.emit("reset", reset("kim@example.com"))
		if diff := cmp.Diff(map[string]string{"kim@example.com": "sent"}, w.settled()); diff != "" {
			t.Error(diff)
		}
		m := w.messages()[0]
		attempts := must(w.store.Attempts(t.Context(), m.ID))
		if len(attempts) != 4 || m.Attempts != 4 {
			t.Fatalf("%d attempts, %+v", m.Attempts, attempts)
		}
		for i, want := range []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute} {
			due := w.outcomesSeen()[i].Due
			if pause := due.Sub(attempts[i].Started); about(pause, want) != want {
				t.Errorf("attempt %d is due %s after the last, want %s", i+2, pause, want)
			}
			if late := attempts[i+1].Started.Sub(due); late < -time.Millisecond || late > 100*time.Millisecond {
				t.Errorf("attempt %d came %s after it was due", i+2, late)
			}
		}
		mails := fake.Mails()
		if len(mails) != 2 || string(mails[0].Data) != string(mails[1].Data) {
			t.Errorf("the second delivery has other bytes than the first, of %d", len(mails))
		}
	})
}

// TestUncertain loses the connection after the dot: held where the rule says so, until an operator has it tried again.
func TestUncertain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"DOT": {smtptest.Drop}}})
		w := newWorld(t, setup{fake: fake})
		c := message("careful", reset("kim@example.com"))
		c.tune = func(m *outbox.NewMatch) { m.HoldUncertain = true }
		w.take(c)
		if diff := cmp.Diff(map[string]string{"kim@example.com": "uncertain"}, w.settled()); diff != "" {
			t.Fatal(diff)
		}
		sleep(t, time.Hour)
		if n := len(fake.Mails()); n != 1 {
			t.Errorf("%d mails", n)
		}
		must(w.store.Act(t.Context(), outbox.Retry, outbox.Filter{Address: "kim@example.com"}, "", time.Now()))
		w.Wake()
		w.eventually("it is sent", func() bool { return w.messages()[0].State == outbox.MessageSent })
		mails := fake.Mails()
		if len(mails) != 2 || string(mails[0].Data) != string(mails[1].Data) {
			t.Error("the second delivery has other bytes than the first")
		}
	})
}

// TestOutage takes the relay away in the middle of things and brings it back: nothing lost, nothing twice, no attempt burned.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	const each = 20
	send := func(from int) {
		for i := range each {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", from+i)))
		}
	}
	send(0)
	w.mails(each)
	w.settled()
	w.relay.Close()
	send(each)
	w.holds("the breaker opens", func() bool { return w.Status().State == RelayDown })
	send(2 * each)
	w.eventually("all are expanded", func() bool { return len(w.messages()) == 3*each })
	w.check(w.relay.Restart())
	w.mails(3 * each)
	w.settled()
	seen := make(map[string]bool)
	for _, m := range w.relay.Mails() {
		if seen[m.To[0]] {
			t.Errorf("%s got it twice", m.To[0])
		}
		seen[m.To[0]] = true
	}
	for _, m := range w.messages() {
		if m.Attempts != 1 {
			t.Errorf("%s: %d attempts", m.Address, m.Attempts)
		}
	}
	if s := w.Status(); s.State != RelayUp || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
	if r := w.reported(); len(r) != 1 || !strings.HasPrefix(r[0], "relay :") || !strings.Contains(r[0], "refused") {
		t.Errorf("reported %q", r)
	}
}

// TestCrowded has more lanes than the relay takes connections: whoever finds no place goes on the other's, at once.
func TestCrowded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{
			Steps:  map[string][]smtptest.Step{"CONNECT": {{Usual: true}}, "DOT": {{Reply: "250 ok", Wait: time.Second}}},
			Always: map[string]smtptest.Step{"CONNECT": {Reply: "421 4.7.0 too many connections", Close: true}},
		})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Connections = 2 }})
		started := time.Now()
		for i := range 4 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		w.settled()
		if took := time.Since(started); len(fake.Mails()) != 4 || took > 3*time.Second || len(w.reported()) > 0 {
			t.Errorf("%d mails after %s, reported %q", len(fake.Mails()), took, w.reported())
		}
	})
}

// TestPoison has one message for which the relay always hangs up with 421: it must not keep the others waiting.
func TestPoison(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		relay := pipeServer(t, func(e smtptest.Event) error {
			if e.Stage == smtptest.To && strings.HasPrefix(e.Arg, "poison") {
				return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "oops"}
			}
			return nil
		})
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) {
			o.Relays[0].dial, o.Relays[0].Limits.Connections, o.Retry = relay.dial, 1, Retry{Pauses: []time.Duration{time.Minute}, GiveUp: 3 * time.Minute}
		}})
		w.emit("reset", reset("poison@example.com"))
		for i := range 10 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		started := time.Now()
		w.eventually("the others are sent", func() bool { return len(relay.mails()) == 10 })
		if took := time.Since(started); took > time.Minute {
			t.Errorf("the others waited for %s", took)
		}
		w.settled()
		if m := w.messages()[0]; m.State != outbox.MessageDead || time.Since(started) > 20*time.Minute {
			t.Errorf("%s after %s: %s", m.State, time.Since(started), m.Reason)
		}
	})
}

// TestPriority has high priority pass a newsletter that waits for the lanes.
func TestPriority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		relay := pipeServer(t, func(e smtptest.Event) error {
			if e.Stage == smtptest.Dot {
				time.Sleep(time.Second)
			}
			return nil
		})
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) { o.Relays[0].dial, o.Relays[0].Limits.Connections = relay.dial, 2 }})
		var bulk []change
		for i := range 80 {
			c := message("reset", reset(fmt.Sprintf("bulk%d@example.com", i)))
			c.tune = func(m *outbox.NewMatch) { m.Priority = outbox.Bulk }
			bulk = append(bulk, c)
		}
		w.take(bulk...)
		w.Wake()
		time.Sleep(10*time.Second + 300*time.Millisecond)
		high := message("reset", reset("high@example.com"))
		high.tune = func(m *outbox.NewMatch) { m.Priority = outbox.High }
		started := time.Now()
		w.take(high)
		w.eventually("it is sent", func() bool {
			return slices.ContainsFunc(w.messages(), func(m outbox.Message) bool { return m.Address == "high@example.com" && m.State == outbox.MessageSent })
		})
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("high priority waited for %s", took)
		}
		if n := len(relay.mails()); n > 30 {
			t.Errorf("%d mails were before it", n)
		}
		w.settled()
		if n := len(relay.mails()); n != 81 {
			t.Errorf("%d mails", n)
		}
	})
}

// TestBacklog brings far more than memory holds, in one commit.
func TestBacklog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	const n = mostMatches + 150
	changes := make([]change, n)
	for i := range changes {
		changes[i] = message("reset", reset(fmt.Sprintf("a%d@example.com", i)))
	}
	w.store.mu.Lock()
	w.store.before = func(string) {
		if s := w.Status(); s.Matches > mostMatches || s.Messages > 2*mostReserve*defaultLimits.Connections {
			t.Errorf("in memory: %+v", s)
		}
	}
	w.store.mu.Unlock()
	w.take(changes...)
	w.Wake()
	w.mails(n)
	w.settled()
	if len(w.relay.Mails()) != n {
		t.Errorf("%d mails", len(w.relay.Mails()))
	}
	w.holds("memory is empty again", func() bool { s := w.Status(); return s.Matches == 0 && s.Messages == 0 && s.InFlight == 0 })
}

// TestStoreFails lets each call fail for a while: nothing is sent that is not stored, nothing twice, and people are told once.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"expand", "start", "record"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				// The first reply brings each message back, so that it passes all three calls.
				fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"RCPT": {smtptest.Reply("450 4.2.1 later")}}})
				w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Connections = 1 }})
				var mu sync.Mutex
				failures := 0
				w.store.set(func(c string) error {
					mu.Lock()
					defer mu.Unlock()
					if c == call && failures < 5 {
						failures++
						return errStore
					}
					return nil
				})
				w.emit("reset", reset("kim@example.com"))
				if diff := cmp.Diff(map[string]string{"kim@example.com": "sent"}, w.settled()); diff != "" {
					t.Error(diff)
				}
				if n := len(fake.Mails()); n != 1 {
					t.Errorf("%d mails", n)
				}
				mu.Lock()
				defer mu.Unlock()
				if r := w.reported(); failures != 5 || len(r) != 1 || !strings.Contains(r[0], "disk full") {
					t.Errorf("%d failures, reported %q", failures, r)
				}
			})
		})
	}
}

// TestCancelled has an operator cancel what is claimed: neither match nor message goes out, and nothing gets stuck.
func TestCancelled(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"expand", "start"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"RCPT": {smtptest.Reply("450 4.2.1 later")}}})
				w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Connections = 1 }})
				var once sync.Once
				w.store.before = func(c string) {
					if c == call {
						once.Do(func() {
							must(w.store.Act(context.Background(), outbox.Cancel, outbox.Filter{Rules: []string{"reset"}}, "", time.Now()))
						})
					}
				}
				w.emit("reset", reset("kim@example.com"))
				w.settled()
				sleep(t, time.Hour)
				if len(fake.Mails()) != 0 {
					t.Error("a cancelled mail was sent")
				}
				w.emit("reset", reset("lee@example.com")) // the lane is free
				w.eventually("the next one is sent", func() bool { return len(fake.Mails()) == 1 })
				if s := w.Status(); s.Matches != 0 || s.Messages != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"RCPT": {smtptest.Reply("450 4.2.1 later")}}})
		w := newWorld(t, setup{fake: fake})
		c := message("reset", reset("kim@example.com"))
		c.tune = func(m *outbox.NewMatch) { m.Expires = time.Now().Add(10 * time.Second) }
		w.take(c)
		if diff := cmp.Diff(map[string]string{"kim@example.com": "expired"}, w.settled()); diff != "" {
			t.Error(diff)
		}
		if m := w.messages()[0]; !strings.Contains(m.Reason, "too late") || len(fake.Mails()) != 0 {
			t.Errorf("%s", m.Reason)
		}
	})
}

// TestDryRun sends nothing, not even what an earlier, live run left behind, and its end is final.
func TestDryRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"RCPT": smtptest.Reply("450 4.2.1 later")}})
		w := newWorld(t, setup{fake: fake, stopped: true})
		stop := w.run()
		w.emit("reset", reset("live@example.com"))
		w.eventually("it was tried", func() bool { m := w.messages(); return len(m) == 1 && m[0].Attempts == 1 })
		stop()
		said := len(fake.Commands())
		o := w.o
		o.Mode = DryRun
		w.Dispatcher = must(New(o))
		w.run()
		w.emit("reset", reset("dry@example.com"))
		if diff := cmp.Diff(map[string]string{"live@example.com": "not-sent", "dry@example.com": "not-sent"}, w.settled()); diff != "" {
			t.Error(diff)
		}
		for _, m := range w.messages() {
			if m.Subject != "Reset" || m.MessageID == "" || m.Reason != notSent {
				t.Errorf("%+v", m)
			}
		}
		w.eventually("both are observed", func() bool { return len(w.outcomesSeen()) >= 3 })
		sleep(t, time.Hour)
		if len(fake.Commands()) != said {
			t.Errorf("a dry run talks to the relay: %q", fake.Commands()[said:])
		}
	})
}

// TestSilent goes live after a dry run: what was made before ends as not-sent, at its expansion and out of the queue.
func TestSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{})
		w := newWorld(t, setup{fake: fake})
		c := message("reset", reset("before@example.com"))
		c.tune = func(m *outbox.NewMatch) { m.Silent = true }
		w.take(c)
		w.emit("reset", reset("after@example.com"))
		if diff := cmp.Diff(map[string]string{"before@example.com": "not-sent", "after@example.com": "sent"}, w.settled()); diff != "" {
			t.Error(diff)
		}
		for _, m := range w.messages() { // the two are expanded at the same time
			if m.State == outbox.MessageNotSent && m.Reason != notSent || len(fake.Mails()) != 1 {
				t.Errorf("%d mails; %s", len(fake.Mails()), m.Reason)
			}
		}
		for _, body := range []string{"", mailBody} {
			row := must(newRecipient(value.Row{textField(emailColumn, value.Of("queued@example.com"))}).encode())
			c := message("reset", reset("queued@example.com"))
			c.tune = func(m *outbox.NewMatch) { m.Silent, m.Due = true, time.Now().Add(time.Hour) }
			w.append(0, c)
			claimed := must(w.store.ClaimMatches(t.Context(), outbox.Claim{Now: time.Now().Add(2 * time.Hour), Most: 1}))
			must(w.store.Expand(t.Context(), outbox.Expansion{Match: claimed[0].ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{{
				Address: "queued@example.com", State: outbox.MessageQueued, Due: time.Now(), Recipient: row, Body: []byte(body),
			}}}))
			w.Wake()
			w.settled()
		}
		for _, m := range w.messages()[2:] {
			if m.State != outbox.MessageNotSent {
				t.Errorf("%s: %s", m.State, m.Reason)
			}
		}
		if len(fake.Mails()) != 1 {
			t.Errorf("%d mails", len(fake.Mails()))
		}
	})
}

func TestRedirectMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{tune: func(o *Options) { o.Mode, o.Redirect = Redirect, "dev@example.com" }})
	w.emit("reset", reset("kim@example.com"))
	m := w.mails(1)[0]
	h := parsed(t, m.Data).Header
	if m.To[0] != "dev@example.com" || h.Get("To") != "<dev@example.com>" || h.Get("X-Postman-Original-To") != "kim@example.com" || subject(t, h) != "[redirected] Reset" {
		t.Errorf("to %s: %v", m.To, h)
	}
}

// TestStop ends Run in the middle of a conversation: it is brought to its end, and what was claimed is given back.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"DOT": {{Reply: "250 ok", Wait: 5 * time.Second}}}})
		w := newWorld(t, setup{fake: fake, stopped: true, tune: func(o *Options) { o.Relays[0].Limits.Connections = 1 }})
		stop := w.run()
		w.emit("reset", reset("first@example.com"))
		w.eventually("it has begun", func() bool { synctest.Wait(); return len(fake.Mails()) == 1 })
		for i := range 100 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		started := time.Now()
		stop()
		if took := time.Since(started); took > 6*time.Second {
			t.Errorf("stopping took %s", took)
		}
		if m := w.messages()[0]; m.State != outbox.MessageSent {
			t.Errorf("%s", m.State)
		}
		if w.Room() != 0 {
			t.Error("there is room after the end")
		}
		w.Take(w.append(1, message("reset", reset("late@example.com"))))
		w.Dispatcher = must(New(w.o))
		w.run()
		w.settled()
		if n := len(fake.Mails()); n != 102 {
			t.Errorf("%d mails", n)
		}
	})
}

// TestAbort cuts at once: after the dot that is uncertain, before it nothing has been.
func TestAbort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"DOT": {Hang: true}}})
		w := newWorld(t, setup{fake: fake, stopped: true})
		stop := w.run()
		c := message("careful", reset("kim@example.com"))
		c.tune = func(m *outbox.NewMatch) { m.HoldUncertain = true }
		w.take(c)
		w.take(message("reset", reset("lee@example.com")))
		w.eventually("they wait for the relay", func() bool { synctest.Wait(); return len(fake.Mails()) == 2 })
		started := time.Now()
		w.Abort()
		stop()
		if took := time.Since(started); took > time.Second {
			t.Errorf("aborting took %s", took)
		}
		got := make(map[string]string)
		for _, m := range w.messages() {
			got[m.Address] = fmt.Sprintf("%s, %d attempts", m.State, m.Attempts)
		}
		if diff := cmp.Diff(map[string]string{"kim@example.com": "uncertain, 1 attempts", "lee@example.com": "queued, 1 attempts"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPanic has a template set that panics: one message's failure.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{})
		var mu sync.Mutex
		broken := true
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) {
			sound := o.Templates
			o.Templates = func() *templates.Set {
				mu.Lock()
				defer mu.Unlock()
				if broken {
					return nil
				}
				return sound()
			}
		}})
		w.emit("reset", reset("kim@example.com"))
		w.settled()
		mu.Lock()
		broken = false
		mu.Unlock()
		w.emit("reset", reset("lee@example.com"))
		if diff := cmp.Diff(map[string]string{"kim@example.com": "failed", "lee@example.com": "sent"}, w.settled()); diff != "" {
			t.Error(diff)
		}
		if m := w.messages()[0]; !strings.Contains(m.Reason, "panic in postman/templates.") {
			t.Error(m.Reason)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Mode: Redirect, From: "CRM <crm>", ReplyTo: "a b", Bounce: "<x@example.com>"})
	for _, want := range []string{"store, look-ups", "no relay", "from: ", "reply_to: ", "bounce: ", "POSTMAN_REDIRECT"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "POSTMAN_FROM") {
		t.Error(err)
	}
	for _, m := range []Mode{DryRun, Redirect, Live} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%s: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("dryrun"); err == nil {
		t.Error("dryrun is a mode")
	}
}
