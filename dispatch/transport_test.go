package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/internal/smtptest"
	"postman/outbox"
)

// fakes are relays by name; the first has none.
func fakes(t *testing.T, o *Options, scripts ...smtptest.Script) (all []*smtptest.Fake) {
	for i, script := range scripts {
		fake := smtptest.NewFake(script)
		t.Cleanup(fake.Close)
		all = append(all, fake)
		r := Relay{Host: fmt.Sprintf("fake%d", i), Port: 25, Security: Plain, dial: fake.Dial}
		if i > 0 {
			r.Name = fmt.Sprintf("r%d", i)
		}
		if i == 0 {
			o.Relays = nil
		}
		o.Relays = append(o.Relays, r)
	}
	return all
}

// recipients are whom a relay got mails for, in order.
func recipients(f *smtptest.Fake) (to []string) {
	for _, m := range f.Mails() {
		to = append(to, strings.TrimSuffix(m.To[0], "@example.com"))
	}
	return to
}

// TestFailover takes the first relay away: mails go over the second, at once, and over the first again when it is back.
func TestFailover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var relays []*smtptest.Fake
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) {
			relays = fakes(t, o, smtptest.Script{}, smtptest.Script{}, smtptest.Script{})
			o.Relays[2].ByName = true
		}})
		send := func(to string) {
			w.emit("reset", reset(to+"@example.com"))
			w.settled()
		}
		send("a")
		relays[0].Play(smtptest.Script{Always: map[string]smtptest.Step{"CONNECT": smtptest.Drop, "MAIL": smtptest.Drop}})
		send("b")
		send("c")
		if took := w.messages()[2].Finished.Sub(w.messages()[2].Created); took > 100*time.Millisecond {
			t.Errorf("a mail waited %s although another relay is there", took)
		}
		if s := w.Status(); s.Relays[0].State != RelayDown || s.Relays[1].State != RelayUp {
			t.Errorf("%+v", s.Relays)
		}
		relays[0].Play(smtptest.Script{})
		sleep(t, 2*mostPause)
		send("d")
		if diff := cmp.Diff([][]string{{"a", "d"}, {"b", "c"}, nil}, [][]string{recipients(relays[0]), recipients(relays[1]), recipients(relays[2])}); diff != "" {
			t.Error(diff)
		}
		attempts := must(w.store.Attempts(t.Context(), w.messages()[2].ID))
		if len(attempts) != 1 || attempts[0].Relay != "r1 (fake1:25)" {
			t.Errorf("%+v", attempts)
		}
	})
}

// TestRoute has a rule name its relay: while that is away, its mails wait, and the others' do not.
func TestRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var relays []*smtptest.Fake
		var mu sync.Mutex
		names := map[string]string{"careful": "r1"}
		var w *world
		w = newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), stopped: true, tune: func(o *Options) {
			relays = fakes(t, o, smtptest.Script{}, smtptest.Script{Always: map[string]smtptest.Step{"CONNECT": smtptest.Drop}})
			o.Relays[1].ByName = true
			o.Route = func(rule uint32) string {
				ids := must(w.store.Rules(t.Context()))
				mu.Lock()
				defer mu.Unlock()
				for name, id := range ids {
					if id == rule {
						return names[name]
					}
				}
				return ""
			}
		}})
		w.run()
		for i := range 300 { // more than there is room for in memory
			w.emit("careful", reset(fmt.Sprintf("x%d@example.com", i)))
		}
		for i := range 30 {
			w.emit("reset", reset(fmt.Sprintf("y%d@example.com", i)))
		}
		w.eventually("those of the other relay are sent", func() bool { return len(relays[0].Mails()) == 30 })
		if n := must(w.store.Count(t.Context())).Messages[outbox.MessageQueued]; n != 300 {
			t.Errorf("%d wait", n)
		}
		mu.Lock()
		names["careful"] = "" // the rule is reloaded, without a relay
		mu.Unlock()
		w.Wake()
		w.settled()
		if n := len(relays[0].Mails()); n != 330 || len(relays[1].Mails()) != 0 {
			t.Errorf("%d over the first relay, %d over the other", n, len(relays[1].Mails()))
		}
	})
}

// TestStrayRelay: what was tried over a relay that is gone, for a rule that is gone, is held; a release sends it over the first.
func TestStrayRelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		route := ""
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"RCPT": {smtptest.Reply("451 4.3.0 later")}}})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) {
			o.Route = func(uint32) string {
				mu.Lock()
				defer mu.Unlock()
				return route
			}
		}})
		w.emit("reset", reset("kim@example.com"))
		w.eventually("it is put off", func() bool { return len(w.messages()) == 1 && w.messages()[0].Attempts == 1 })
		mu.Lock()
		route = "backup"
		mu.Unlock()
		w.eventually("it is held", func() bool { return w.messages()[0].State == outbox.MessageHeld })
		if m := w.messages()[0]; !strings.Contains(m.Reason, "relay backup, which it named, is there no more") || time.Since(m.Due) > time.Minute {
			t.Errorf("held since %s: %s", m.Due, m.Reason)
		}
		must(w.store.Act(t.Context(), outbox.Release, outbox.Filter{Address: "kim@example.com"}, "", time.Now()))
		w.Wake()
		if got := w.settled()["kim@example.com"]; got != "sent" {
			t.Error(got)
		}
	})
}

// TestRate counts out a relay's mails: never more in a time than it says, and no fewer.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Rate = Rate{20, time.Second} }})
		for i := range 100 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		w.settled()
		var at []time.Time
		for _, m := range w.messages() {
			at = append(at, must(w.store.Attempts(t.Context(), m.ID))[0].Started)
		}
		slices.SortFunc(at, time.Time.Compare)
		for i := range at {
			if j := i + 21; j < len(at) && at[j].Sub(at[i]) < time.Second {
				t.Fatalf("22 mails within %s", at[j].Sub(at[i]))
			}
		}
		if took := at[len(at)-1].Sub(at[0]); took > 5500*time.Millisecond {
			t.Errorf("100 mails took %s", took)
		}
	})
}

// TestQuota has a month's quota come to its end: people are told at 80 %, high priority has the last of it, and the next month all go on.
func TestQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Monthly = 40 }})
		send := func(n int, p outbox.Priority, name string) {
			for i := range n {
				c := message("reset", reset(fmt.Sprintf("%s%d@example.com", name, i)))
				c.tune = func(m *outbox.NewMatch) { m.Priority = p }
				w.take(c)
			}
			sleep(t, time.Minute)
		}
		send(30, outbox.Normal, "a")
		if len(w.reported()) != 0 {
			t.Errorf("%q", w.reported())
		}
		send(10, outbox.Normal, "b")
		if n := len(fake.Mails()); n != 38 {
			t.Errorf("%d mails, want 38 of 40", n)
		}
		if r := w.reported(); len(r) != 1 || !strings.Contains(r[0], "80 %") {
			t.Errorf("%q", r)
		}
		if s := w.Status().Relays[0].Trouble(); !strings.Contains(s, "38 of the month's 40") {
			t.Error(s)
		}
		send(5, outbox.High, "high")
		if n := len(fake.Mails()); n != 40 {
			t.Errorf("%d mails", n)
		}
		w.gate().mu.Lock()
		w.gate().quota.month = "1999-12" // it was the month before
		w.gate().mu.Unlock()
		sleep(t, time.Minute)
		if n := len(fake.Mails()); n != 45 {
			t.Errorf("%d mails in the month after", n)
		}
		w.check(w.countMonth(t.Context())) // as after a restart
		if used := w.Status().Used; used != 45 {
			t.Errorf("%d mails are known of", used)
		}
	})
}

// TestPerDomain has one domain be slow: no more of it than may at the same time, and the others go on beside it.
func TestPerDomain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := smtptest.Step{Reply: "250 ok", Wait: time.Minute}
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"DOT": {slow, slow}}})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits = Limits{Connections: 4, PerDomain: 2} }})
		for i := range 10 {
			w.emit("reset", reset(fmt.Sprintf("a%d@Slow.example", i)))
		}
		sleep(t, time.Second)
		for i := range 10 {
			w.emit("reset", reset(fmt.Sprintf("b%d@example.com", i)))
		}
		w.eventually("the others are sent", func() bool {
			n := 0
			for _, m := range w.messages() {
				if m.State == outbox.MessageSent {
					n++
				}
			}
			return n == 10
		})
		if n := w.Status().InFlight; n != 2 {
			t.Errorf("%d of the slow domain at the same time", n)
		}
		w.settled()
	})
}

// TestDenied: a relay that lets nobody send is in trouble, and no mail dies of it; a mail that it refuses while it takes others does.
func TestDenied(t *testing.T) {
	t.Parallel()
	denial := smtptest.Reply("550 5.7.60 client does not have permissions to send as this sender")
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"MAIL": denial}})
		w := newWorld(t, setup{fake: fake})
		for i := range 5 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		sleep(t, time.Hour)
		if r := w.reported(); len(r) != 1 || !strings.Contains(r[0], "send as this sender") {
			t.Errorf("%q", r)
		}
		fake.Play(smtptest.Script{})
		w.settled()
		if n := len(fake.Mails()); n != 5 {
			t.Errorf("%d mails", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"RCPT spam@example.com": denial}})
		w := newWorld(t, setup{fake: fake})
		w.emit("reset", reset("spam@example.com"))
		for i := range 60 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
			sleep(t, 20*time.Second)
		}
		if got := w.settled(); got["spam@example.com"] != "dead" || len(fake.Mails()) != 60 {
			t.Errorf("%v, %d mails", got["spam@example.com"], len(fake.Mails()))
		}
	})
}

// TestBulkMoves: of a queue of normal mails that does not end, bulk gets its share; high priority comes before both.
func TestBulkMoves(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{Connections: 1}, func() {})
	add := func(n int, p outbox.Priority) {
		for range n {
			g.push(&job{message: outbox.Message{Priority: p}})
		}
	}
	add(100, outbox.Normal)
	add(5, outbox.Bulk)
	var got []string
	for i := range 40 {
		if i == 20 {
			add(2, outbox.High)
		}
		for _, j := range g.take(t.Context()) {
			got = append(got, [...]string{"h", "n", "b"}[j.message.Priority])
			g.leave(outbox.Normal, "")
		}
	}
	if want := "nnnnnnnbnnnnnnnbnnnnhhnnnbnnnnnnnbnnnnnnn"; strings.Join(got, "") != want {
		t.Errorf("%s, want %s", strings.Join(got, ""), want)
	}
}

// TestHighHasAConnection: while all connections hang, a mail of high priority goes over one of its own.
func TestHighHasAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := smtptest.Step{Reply: "250 ok", Wait: 5 * time.Minute}
		fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Steps: map[string][]smtptest.Step{"DOT": {slow, slow}}})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Connections = 2 }})
		for i := range 10 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		sleep(t, time.Second)
		c := message("reset", reset("high@example.com"))
		c.tune = func(m *outbox.NewMatch) { m.Priority = outbox.High }
		started := time.Now()
		w.take(c)
		w.eventually("it is sent", func() bool {
			all := w.messages()
			return all[len(all)-1].State == outbox.MessageSent
		})
		if took := time.Since(started); took > 100*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		w.settled()
	})
}

func TestRateText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{"14/s": {14, time.Second}, "300/m": {300, time.Minute}, "1/h": {1, time.Hour}, "10000/d": {10000, 24 * time.Hour}} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want || r.String() != text {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "14", "0/s", "-1/s", "1.5/s", "14/", "14/w", "/s"} {
		if err := new(Rate).UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "one looks like") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestInternationalMail: the header names the recipient as the envelope does (RFC 6532), and in mode redirect nothing is left that is not ASCII.
func TestInternationalMail(t *testing.T) {
	t.Parallel()
	for mode, want := range map[Mode]string{
		Live:     "To: <김민수@xn--vf4b131b.example>",
		Redirect: "X-Postman-Original-To: =?utf-8?q?=EA=B9=80=EB=AF=BC=EC=88=98@xn--vf4b131b.example?=",
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := smtptest.NewFake(smtptest.Script{Extensions: []string{"SMTPUTF8", "8BITMIME"}})
			w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Mode, o.Redirect = mode, "dev@example.com" }})
			w.emit("reset", reset("김민수@회사.example"))
			w.settled()
			head, _, _ := strings.Cut(string(fake.Mails()[0].Data), "\n\n")
			if !strings.Contains(head, want) || mode == Redirect && !ascii(head) {
				t.Errorf("%s:\n%s", mode, head)
			}
		})
	}
}

// TestBreaksAtEveryDot: a relay that takes names and no mail is in trouble as well, though each conversation alone says nothing: mails take the other.
func TestBreaksAtEveryDot(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]smtptest.Step{"hangs up": smtptest.Drop, "hangs": {Hang: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var relays []*smtptest.Fake
				w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) {
					relays = fakes(t, o, smtptest.Script{Always: map[string]smtptest.Step{"DOT": step}}, smtptest.Script{})
				}})
				for i := range 20 {
					w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
				}
				w.settled()
				if r := w.reported(); len(r) == 0 || !strings.Contains(r[0], "the final dot") {
					t.Errorf("reported %q", r)
				}
				if n := len(relays[1].Mails()); n != 20 {
					t.Errorf("%d over the other relay", n)
				}
			})
		})
	}
}

// TestThrottlesForGood: a relay that throttles a single connection is left alone, ever longer, and nobody is called for that; mails take the other.
func TestThrottlesForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var relays []*smtptest.Fake
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) {
			relays = fakes(t, o, smtptest.Script{Always: map[string]smtptest.Step{"MAIL": smtptest.Reply("454 4.7.0 rate exceeded")}}, smtptest.Script{})
			o.Relays[0].Limits.Connections = 1
		}})
		var longest time.Duration
		for i := range 300 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
			if p := w.Status().Relays[0].Paused; !p.IsZero() {
				longest = max(longest, time.Until(p))
				if s := w.Status().Relays[0].Trouble(); !strings.Contains(s, "throttles") {
					t.Error(s)
				}
			}
			sleep(t, time.Second)
		}
		w.settled()
		if longest < time.Minute || len(w.reported()) != 0 || len(relays[1].Mails()) != 300 {
			t.Errorf("left alone for %s, reported %q, %d mails over the other", longest, w.reported(), len(relays[1].Mails()))
		}
		if n := len(relays[0].Commands()); n > 100 {
			t.Errorf("%d commands were said to it", n)
		}
	})
}

// TestProbedByOne: a relay that is tried again gets one mail, however many conversations from before the trouble still wait for an answer.
func TestProbedByOne(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{Connections: 4}, func() {})
	for range 3 {
		g.tryEnter(outbox.Normal, "")
	}
	g.trouble(errors.New("gone"))
	g.leave(outbox.Normal, "")
	g.probing()
	for i, want := range []bool{true, false} {
		if got := g.tryEnter(outbox.Normal, ""); got != want {
			t.Errorf("mail %d passes: %v", i, got)
		}
		if g.takes(outbox.High) {
			t.Error("others are sent its way while it is being tried")
		}
	}
	g.decided(true)
	if !g.takes(outbox.Normal) {
		t.Error("it works, and is not taken for it")
	}
}

// TestPushAtTheEndOfAMonth: what was rendered while the quota came to its end does not wait in memory for the next month.
func TestPushAtTheEndOfAMonth(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{Connections: 4, Monthly: 100}, func() {})
	g.beginMonth(monthOf(time.Now()), 95)
	for p, want := range map[outbox.Priority]bool{outbox.High: true, outbox.Normal: false, outbox.Bulk: false} {
		if got := g.push(&job{message: outbox.Message{Priority: p}}); got != want {
			t.Errorf("priority %d is taken: %v", p, got)
		}
	}
}
