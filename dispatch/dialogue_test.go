package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/internal/smtptest"
	"postman/outbox"
)

// noStore is for conversations alone, which ask it for nothing but what signs their envelopes.
type noStore struct{ outbox.Store }

func (noStore) Secret() []byte { return nil }

// scripted is a dispatcher without a store, in front of a scripted relay.
func scripted(t testing.TB, fake *smtptest.Fake, tune func(*Options)) *Dispatcher {
	t.Helper()
	o := Options{
		Store: noStore{}, Mode: Live, From: "crm@example.com", Bounce: "bounce@example.com", Redirect: "dev@example.com",
		Relays: []Relay{{Host: "fake", Port: 25, Security: Plain, dial: fake.Dial, Limits: defaultLimits}},
	}
	if tune != nil {
		tune(&o)
	}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.defaults()
	d := &Dispatcher{o: o, outcomes: make(chan outcome, 100)}
	d.newTransports()
	t.Cleanup(fake.Close)
	t.Cleanup(d.transports[0].lanes.close)
	return d
}

// gate and lanes are those of the only relay.
func (d *Dispatcher) gate() *gate   { return d.transports[0].gate }
func (d *Dispatcher) lanes() *lanes { return d.transports[0].lanes }

const mailBody = "Subject: hi\r\n\r\n.a line that begins with a dot\r\nthe end\r\n"

func aJob(address string) *job {
	return &job{
		message: outbox.Message{ID: 1, Address: address, Created: time.Now(), Priority: outbox.Normal},
		letter:  letter{body: []byte(mailBody), note: "a note"}, lease: time.Now().Add(leaseFor),
	}
}

// say has one conversation and judges it.
func say(d *Dispatcher, j *job) outbox.Outcome {
	return sayIn(context.Background(), d, j)
}

func sayIn(ctx context.Context, d *Dispatcher, j *job) outbox.Outcome {
	begin(ctx, d, j)
	return (<-d.outcomes).Outcome
}

// begin gives a job to the lanes, past the gate.
func begin(ctx context.Context, d *Dispatcher, jobs ...*job) {
	d.gate().mu.Lock()
	d.gate().inside += len(jobs)
	d.gate().mu.Unlock()
	for _, j := range jobs {
		j.via = d.transports[0]
		d.deliver(ctx, j)
	}
}

// verdict is what a dialogue came to.
type verdict struct {
	State  string
	Burned bool
	Code   int           // of the attempt; -1: no attempt was recorded
	Wait   time.Duration // until it is due again, at the middle of the jitter's range
	Relay  RelayState
	Mails  int // whose dot the relay read
}

var pipelining = []string{"PIPELINING", "SIZE 10000000", "ENHANCEDSTATUSCODES"}

func TestDialogues(t *testing.T) {
	t.Parallel()
	type steps = map[string][]smtptest.Step
	one := func(command string, s smtptest.Step) steps { return steps{command: {s}} }
	const first, behind = 30 * time.Second, 30 * time.Second
	for name, test := range map[string]struct {
		steps  steps
		always map[string]smtptest.Step
		tune   func(*Options, *job)
		want   verdict
	}{
		"accepted":                   {want: verdict{State: "sent", Burned: true, Code: 250, Relay: RelayUp, Mails: 1}},
		"accepted with 251 and text": {steps: one("DOT", smtptest.Reply("251-thanks\r\n251 forwarded")), want: verdict{State: "sent", Burned: true, Code: 251, Relay: RelayUp, Mails: 1}},
		"slow to accept":             {steps: one("DOT", smtptest.Step{Reply: "250 ok", Wait: 9 * time.Minute}), want: verdict{State: "sent", Burned: true, Code: 250, Relay: RelayUp, Mails: 1}},

		"MAIL refused":           {steps: one("MAIL", smtptest.Reply("550 5.1.8 no such sender")), want: verdict{State: "dead", Burned: true, Code: 550, Relay: RelayUp}},
		"MAIL put off":           {steps: one("MAIL", smtptest.Reply("451 4.3.0 later")), want: verdict{State: "queued", Burned: true, Code: 451, Wait: first, Relay: RelayUp}},
		"RCPT refused":           {steps: one("RCPT", smtptest.Reply("550 5.1.1 unknown")), want: verdict{State: "dead", Burned: true, Code: 550, Relay: RelayUp}},
		"RCPT put off":           {steps: one("RCPT", smtptest.Reply("450 4.2.1 greylisted")), want: verdict{State: "queued", Burned: true, Code: 450, Wait: first, Relay: RelayUp}},
		"mailbox full":           {steps: one("RCPT", smtptest.Reply("452 4.2.2 full")), want: verdict{State: "queued", Burned: true, Code: 452, Wait: first, Relay: RelayUp}},
		"DATA refused":           {steps: one("DATA", smtptest.Reply("554 5.5.0 no")), want: verdict{State: "dead", Burned: true, Code: 554, Relay: RelayUp}},
		"DATA denied":            {steps: one("DATA", smtptest.Reply("554 5.7.1 no")), want: verdict{State: "queued", Burned: true, Code: 554, Wait: first, Relay: RelayUp}},
		"denied again":           {steps: one("DATA", smtptest.Reply("554 5.7.1 no")), tune: func(_ *Options, j *job) { j.message.Reply = "5.7.1 no" }, want: verdict{State: "dead", Burned: true, Code: 554, Relay: RelayUp}},
		"daily quota":            {steps: one("DOT", smtptest.Reply("550 5.4.5 daily user sending limit exceeded")), want: verdict{State: "queued", Burned: true, Code: 550, Wait: first, Relay: RelayUp, Mails: 1}},
		"greylisted":             {steps: one("RCPT", smtptest.Reply("451 4.7.1 greylisted, come back later")), want: verdict{State: "queued", Burned: true, Code: 451, Wait: greylisted, Relay: RelayUp}},
		"DATA put off":           {steps: one("DATA", smtptest.Reply("451 4.3.0 later")), want: verdict{State: "queued", Burned: true, Code: 451, Wait: first, Relay: RelayUp}},
		"content refused":        {steps: one("DOT", smtptest.Reply("554 5.6.0 spam")), want: verdict{State: "dead", Burned: true, Code: 554, Relay: RelayUp, Mails: 1}},
		"content put off":        {steps: one("DOT", smtptest.Reply("452 4.3.1 disk full")), want: verdict{State: "queued", Burned: true, Code: 452, Wait: first, Relay: RelayUp, Mails: 1}},
		"a code nobody knows":    {steps: one("RCPT", smtptest.Reply("299 9.9.9 what")), want: verdict{State: "sent", Burned: true, Code: 250, Relay: RelayUp, Mails: 1}},
		"DATA answered with 250": {steps: one("DATA", smtptest.Step{Reply: "250 ok", Close: true}), want: verdict{State: "queued", Burned: true, Code: 250, Wait: first, Relay: RelayUp}},

		"421 as greeting":    {always: map[string]smtptest.Step{"CONNECT": {Reply: "421 4.3.2 busy", Close: true}}, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"554 as greeting":    {always: map[string]smtptest.Step{"CONNECT": {Reply: "554 5.3.2 go away", Close: true}}, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"dropped at once":    {always: map[string]smtptest.Step{"CONNECT": smtptest.Drop}, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"no greeting":        {always: map[string]smtptest.Step{"CONNECT": {Hang: true}}, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"EHLO refused":       {always: map[string]smtptest.Step{"EHLO": smtptest.Reply("502 5.5.1 no"), "HELO": smtptest.Reply("502 5.5.1 no")}, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"EHLO unknown, HELO": {always: map[string]smtptest.Step{"EHLO": smtptest.Reply("502 5.5.1 no")}, want: verdict{State: "sent", Burned: true, Code: 250, Relay: RelayUp, Mails: 1}},
		"421 at MAIL":        {steps: one("MAIL", smtptest.Step{Reply: "421 4.7.0 too many", Close: true}), want: verdict{State: "queued", Code: 421, Wait: slowDown, Relay: RelayUp}},
		"421 at RCPT":        {steps: one("RCPT", smtptest.Step{Reply: "421 4.7.0 too many", Close: true}), want: verdict{State: "queued", Code: 421, Wait: slowDown, Relay: RelayUp}},
		"421 at DATA":        {steps: one("DATA", smtptest.Step{Reply: "421 4.7.0 too many", Close: true}), want: verdict{State: "queued", Code: 421, Wait: slowDown, Relay: RelayUp}},
		"421 at the dot":     {steps: one("DOT", smtptest.Step{Reply: "421 4.7.0 bye", Close: true}), want: verdict{State: "queued", Code: 421, Wait: slowDown, Relay: RelayUp, Mails: 1}},
		"throttled at MAIL":  {steps: one("MAIL", smtptest.Reply("454 4.7.0 rate exceeded")), want: verdict{State: "queued", Code: 454, Wait: slowDown, Relay: RelayUp}},
		"throttled at dot":   {steps: one("DOT", smtptest.Reply("454 4.7.0 rate exceeded")), want: verdict{State: "queued", Code: 454, Wait: slowDown, Relay: RelayUp, Mails: 1}},
		"no room for anyone": {steps: one("MAIL", smtptest.Reply("452 4.3.1 disk full")), want: verdict{State: "queued", Code: 452, Wait: slowDown, Relay: RelayUp}},
		"login wanted":       {steps: one("MAIL", smtptest.Reply("530 5.7.0 log in")), want: verdict{State: "queued", Code: 530, Wait: behind, Relay: RelayDown}},
		"gone at MAIL":       {steps: one("MAIL", smtptest.Drop), want: verdict{State: "queued", Wait: behind, Relay: RelayDown}},
		"gone at RCPT":       {steps: one("RCPT", smtptest.Drop), want: verdict{State: "queued", Wait: behind, Relay: RelayDown}},
		"hangs at RCPT":      {steps: one("RCPT", smtptest.Step{Hang: true}), want: verdict{State: "queued", Wait: behind, Relay: RelayDown}},

		// A connection that breaks before the dot counts as 451 once the relay has heard the whole envelope.
		"gone at DATA":               {steps: one("DATA", smtptest.Drop), want: verdict{State: "queued", Burned: true, Wait: first, Relay: RelayUp}},
		"gone after the dot":         {steps: one("DOT", smtptest.Drop), want: verdict{State: "queued", Burned: true, Wait: first, Relay: RelayUp, Mails: 1}},
		"gone after the dot, hold":   {steps: one("DOT", smtptest.Drop), tune: func(_ *Options, j *job) { j.message.HoldUncertain = true }, want: verdict{State: "uncertain", Burned: true, Relay: RelayUp, Mails: 1}},
		"silent after the dot, hold": {steps: one("DOT", smtptest.Step{Hang: true}), tune: func(_ *Options, j *job) { j.message.HoldUncertain = true }, want: verdict{State: "uncertain", Burned: true, Relay: RelayUp, Mails: 1}},
		"nonsense after the dot":     {steps: one("DOT", smtptest.Step{Reply: "what?", Close: true}), tune: func(_ *Options, j *job) { j.message.HoldUncertain = true }, want: verdict{State: "uncertain", Burned: true, Relay: RelayUp, Mails: 1}},
		"354 after the dot":          {steps: one("DOT", smtptest.Step{Reply: "354 more?"}), tune: func(_ *Options, j *job) { j.message.HoldUncertain = true }, want: verdict{State: "uncertain", Burned: true, Code: 354, Relay: RelayUp, Mails: 1}},

		"the last attempt":            {steps: one("RCPT", smtptest.Reply("450 4.2.1 greylisted")), tune: func(_ *Options, j *job) { j.message.Attempts = 1000 }, want: verdict{State: "dead", Burned: true, Code: 450, Relay: RelayUp}},
		"uncertain for the last time": {steps: one("DOT", smtptest.Drop), tune: func(_ *Options, j *job) { j.message.Attempts = 1000 }, want: verdict{State: "dead", Burned: true, Relay: RelayUp, Mails: 1}},
		"throttled for days":          {steps: one("MAIL", smtptest.Reply("454 4.7.0 rate")), tune: func(_ *Options, j *job) { j.message.Created = time.Now().Add(-48 * time.Hour) }, want: verdict{State: "queued", Burned: true, Code: 454, Wait: first, Relay: RelayUp}},
		"down for days":               {always: map[string]smtptest.Step{"CONNECT": smtptest.Drop}, tune: func(_ *Options, j *job) { j.message.Created = time.Now().Add(-48 * time.Hour) }, want: verdict{State: "queued", Code: -1, Relay: RelayDown}},
		"the lease is over":           {tune: func(_ *Options, j *job) { j.lease = time.Now() }, want: verdict{State: "queued", Code: -1, Relay: RelayUp}},
		"dry run":                     {tune: func(o *Options, _ *job) { o.Mode = DryRun }, want: verdict{State: "failed", Code: -1, Relay: RelayUp}},
	} {
		for _, extensions := range [][]string{nil, pipelining} {
			t.Run(fmt.Sprintf("%s/%d extensions", name, len(extensions)), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					fake := smtptest.NewFake(smtptest.Script{Extensions: extensions, Steps: maps.Clone(test.steps), Always: test.always})
					j := aJob("kim@example.com")
					d := scripted(t, fake, func(o *Options) {
						if test.tune != nil {
							test.tune(o, j)
						}
					})
					o := say(d, j)
					got := verdict{State: o.State.String(), Burned: o.Burned, Code: -1, Relay: RelayUp, Mails: len(fake.Mails())}
					if d.gate().down() {
						got.Relay = RelayDown
					}
					if o.Attempt != nil {
						got.Code = o.Attempt.Code
					}
					if !o.Due.IsZero() {
						got.Wait = about(time.Until(o.Due), test.want.Wait)
					}
					if diff := cmp.Diff(test.want, got); diff != "" {
						t.Errorf("%s\n%+v\n%q", diff, o, fake.Commands())
					}
					if o.State != outbox.MessageSent && o.Reason == "" {
						t.Error("no reason is given")
					}
				})
			})
		}
	}
}

// about is want when got is as near to it as jitter allows.
func about(got, want time.Duration) time.Duration {
	if got >= want-want/4 && got <= want+want/4 {
		return want
	}
	return got
}

// TestContent checks what the relay reads: dots are doubled, bare line feeds mended, nothing else touched.
func TestContent(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, pipelining} {
		synctest.Test(t, func(t *testing.T) {
			fake := smtptest.NewFake(smtptest.Script{Extensions: extensions})
			d := scripted(t, fake, nil)
			j := aJob("kim@example.com")
			j.letter.body = []byte("Subject: a\r\n\r\n.\r\n..\r\nbare\nlines\r\n" + strings.Repeat("long ", 3000) + "\r\nno end")
			j.message.CC = []string{`"Park, J" <park@example.com>`, "lee@example.com"}
			if o := say(d, j); o.State != outbox.MessageSent || o.Reason != "a note" {
				t.Fatalf("%+v", o)
			}
			m := fake.Mails()[0]
			if diff := cmp.Diff([]string{"kim@example.com", "park@example.com", "lee@example.com"}, m.To); diff != "" || m.From != "bounce@example.com" {
				t.Error(m.From, diff)
			}
			// The fake's reader makes LF of CRLF.
			want := strings.ReplaceAll(string(j.letter.body), "\r\n", "\n") + "\n"
			if diff := cmp.Diff(want, string(m.Data)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKeptOpen sends several messages on one connection, around refusals, and a new one when it has served long enough.
func TestKeptOpen(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, pipelining} {
		synctest.Test(t, func(t *testing.T) {
			no := smtptest.Reply("550 5.1.1 unknown")
			fake := smtptest.NewFake(smtptest.Script{Extensions: extensions, Steps: map[string][]smtptest.Step{
				"RCPT": {{Usual: true}, no, {Usual: true}},
				// As servers do that know they have nobody to send to; a pipelined DATA is said all the same.
				"DATA": {{Usual: true}, smtptest.Reply("554 5.5.1 no valid recipients")},
			}})
			if extensions == nil {
				fake = smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"RCPT": {{Usual: true}, no}}})
			}
			d := scripted(t, fake, nil)
			var got []string
			for range defaultLimits.PerConnection + 1 {
				got = append(got, say(d, aJob("kim@example.com")).State.String())
			}
			if got[0] != "sent" || got[1] != "dead" || got[2] != "sent" || got[defaultLimits.PerConnection] != "sent" {
				t.Error(got)
			}
			if n := fake.Connections(); n != 2 {
				t.Errorf("%d connections", n)
			}
			time.Sleep(idleFor)
			synctest.Wait()
			commands := fake.Commands()
			if last := commands[len(commands)-1]; last != "QUIT" || d.lanes().count() != 0 {
				t.Errorf("the idle connection is not closed: %s, %d open", last, d.lanes().count())
			}
		})
	}
}

// TestStale breaks the connection while it is idle: the message has not met the relay, and goes on a new one.
func TestStale(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]smtptest.Step{
		"dropped":          smtptest.Drop,
		"421 for idling":   {Reply: "421 4.4.2 idle", Close: true},
		"452 for too many": smtptest.Reply("452 4.3.0 Too many messages sent"),
		"hangs":            {Hang: true},
		"dropped at DATA":  {Usual: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				steps := map[string][]smtptest.Step{"MAIL": {{Usual: true}, step}}
				if step.Usual {
					steps = map[string][]smtptest.Step{"DATA": {{Usual: true}, smtptest.Drop}}
				}
				fake := smtptest.NewFake(smtptest.Script{Steps: steps})
				d := scripted(t, fake, nil)
				for i := range 2 {
					j := aJob("kim@example.com")
					j.lease = time.Now().Add(time.Hour)
					if o := say(d, j); o.State != outbox.MessageSent {
						t.Errorf("message %d: %+v", i, o)
					}
				}
				if d.gate().down() || fake.Connections() != 2 || len(fake.Mails()) != 2 {
					t.Errorf("%d connections, %d mails", fake.Connections(), len(fake.Mails()))
				}
			})
		})
	}
}

// TestStaleAfterDot breaks a kept connection after the dot: that is no stale connection, and must not be said again silently.
func TestStaleAfterDot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{"DOT": {{Usual: true}, smtptest.Drop}}})
		d := scripted(t, fake, nil)
		say(d, aJob("kim@example.com"))
		j := aJob("lee@example.com")
		j.message.HoldUncertain = true
		if o := say(d, j); o.State != outbox.MessageUncertain || len(fake.Mails()) != 2 {
			t.Errorf("%+v, %d mails", o, len(fake.Mails()))
		}
	})
}

// TestCopies refuses copies: for good, which must not keep the mail from its recipient, and for now, which puts all of it off.
func TestCopies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		replies []smtptest.Step
		state   outbox.MessageState
		reason  string
		mails   int
	}{
		"a copy refused":          {[]smtptest.Step{{Usual: true}, smtptest.Reply("550 5.1.1 unknown"), {Usual: true}}, outbox.MessageSent, "the relay refused copies: <park@example.com>: 550 5.1.1 unknown (at RCPT)", 1},
		"a copy put off":          {[]smtptest.Step{{Usual: true}, {Usual: true}, smtptest.Reply("450 4.2.1 later")}, outbox.MessageQueued, "450 4.2.1 later (at RCPT)", 0},
		"the recipient refused":   {[]smtptest.Step{smtptest.Reply("550 5.1.1 unknown"), {Usual: true}, {Usual: true}}, outbox.MessageDead, "550 5.1.1 unknown (at RCPT)", 0},
		"all of them are refused": {[]smtptest.Step{smtptest.Reply("550 5.1.1 a"), smtptest.Reply("550 5.1.1 b"), smtptest.Reply("550 5.1.1 c")}, outbox.MessageDead, "550 5.1.1 a (at RCPT)", 0},
	} {
		for _, extensions := range [][]string{nil, pipelining} {
			t.Run(fmt.Sprintf("%s/%d extensions", name, len(extensions)), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					fake := smtptest.NewFake(smtptest.Script{Extensions: extensions, Steps: map[string][]smtptest.Step{"RCPT": test.replies}})
					d := scripted(t, fake, nil)
					j := aJob("kim@example.com")
					j.message.CC = []string{"park@example.com", "lee@example.com"}
					o := say(d, j)
					if o.State != test.state || o.Reason != test.reason || len(fake.Mails()) != test.mails {
						t.Errorf("%s: %s, %d mails; %q", o.State, o.Reason, len(fake.Mails()), fake.Commands())
					}
					// Whatever it was: the next one goes.
					fake.Play(smtptest.Script{Extensions: extensions})
					if o := say(d, aJob("next@example.com")); o.State != outbox.MessageSent {
						t.Errorf("the next one: %+v; %q", o, fake.Commands())
					}
				})
			})
		}
	}
}

// TestCut ends the context during a conversation: at once, and with the outcome that is true.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		at   string
		want outbox.MessageState
	}{
		"before the dot": {"RCPT", outbox.MessageQueued},
		"after the dot":  {"DOT", outbox.MessageUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Steps: map[string][]smtptest.Step{test.at: {{Hang: true}}}})
				d := scripted(t, fake, nil)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(errors.New("stop")) })
				started := time.Now()
				j := aJob("kim@example.com")
				j.message.HoldUncertain = true
				o := sayIn(ctx, d, j)
				if o.State != test.want || time.Since(started) != time.Second || o.Burned != (test.want == outbox.MessageUncertain) {
					t.Errorf("%+v after %s", o, time.Since(started))
				}
				if d.gate().down() {
					t.Error("our own stop opened the breaker")
				}
			})
		})
	}
}

func TestRedirectedMail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{})
		d := scripted(t, fake, func(o *Options) { o.Mode = Redirect })
		j := aJob("kim@example.com")
		j.message.CC = []string{"park@example.com"}
		j.letter.body = []byte("To: Kim\r\n <kim@example.com>\r\nSubject: =?utf-8?b?7JWI64WV?=\r\nCC: park@example.com\r\nReply-to: a@example.com\r\nX-A: b\r\n\r\nTo: stays\r\n")
		if o := say(d, j); o.State != outbox.MessageSent {
			t.Fatalf("%+v", o)
		}
		m := fake.Mails()[0]
		if diff := cmp.Diff([]string{"dev@example.com"}, m.To); diff != "" {
			t.Error(diff)
		}
		want := "Subject: [redirected] =?utf-8?b?7JWI64WV?=\nX-A: b\nTo: <dev@example.com>\nReply-To: <dev@example.com>\n" +
			"X-Postman-Original-To: kim@example.com,\n park@example.com\n\nTo: stays\n"
		if diff := cmp.Diff(want, string(m.Data)); diff != "" {
			t.Error(diff)
		}
		if !bytes.Contains(j.letter.body, []byte("To: Kim")) {
			t.Error("the bytes that are kept were changed")
		}
	})
}

// TestTooBig: what the relay has said that it will not take is not said to it, nor along with the mail before it.
func TestTooBig(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{{"SIZE 100"}, {"SIZE 100", "PIPELINING"}} {
		synctest.Test(t, func(t *testing.T) {
			fake := smtptest.NewFake(smtptest.Script{Extensions: extensions})
			d := scripted(t, fake, func(o *Options) { o.Relays[0].Limits.Connections = 1 })
			big, small := aJob("big@example.com"), aJob("kim@example.com")
			big.letter.body = make([]byte, 101)
			begin(t.Context(), d, small, big, aJob("kim@example.com"))
			got := make(map[string]int)
			for range 3 {
				got[fmt.Sprint((<-d.outcomes).State)]++
			}
			if diff := cmp.Diff(map[string]int{"sent": 2, "dead": 1}, got); diff != "" || slices.ContainsFunc(fake.Commands(), func(s string) bool { return strings.Contains(s, "big@") || s == "RSET" }) {
				t.Errorf("%s %q", diff, fake.Commands())
			}
		})
	}
}

// TestInternational: an address that is not ASCII goes to a relay that takes it, and is dead at one that does not, which hears nothing of it.
func TestInternational(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		extensions []string
		want       outbox.MessageState
		mail       string
	}{
		"taken":            {[]string{"SMTPUTF8", "8BITMIME", "SIZE"}, outbox.MessageSent, "MAIL FROM:<bounce@example.com> SIZE=56 BODY=8BITMIME SMTPUTF8"},
		"taken, pipelined": {[]string{"SMTPUTF8", "8BITMIME", "PIPELINING"}, outbox.MessageSent, "MAIL FROM:<bounce@example.com> BODY=8BITMIME SMTPUTF8"},
		"not offered":      {[]string{"PIPELINING"}, outbox.MessageDead, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Extensions: test.extensions})
				d := scripted(t, fake, nil)
				j := aJob("김민수@회사.example")
				o := say(d, j)
				heard := strings.Join(fake.Commands(), "\n")
				if o.State != test.want || !strings.Contains(heard, test.mail) || strings.Contains(heard, "MAIL") != (test.mail != "") {
					t.Errorf("%+v\n%s", o, heard)
				}
				if test.mail != "" && !strings.Contains(heard, "RCPT TO:<김민수@xn--vf4b131b.example>") {
					t.Error(heard)
				}
			})
		})
	}
}
