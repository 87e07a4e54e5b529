package dispatch

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// distant puts a network between the client and the fake: what is written in one go arrives after half a trip.
func distant(fake *smtptest.Fake, trip time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		server, err := fake.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		client, near := net.Pipe()
		carry := func(from, to net.Conn) {
			type packet struct {
				data []byte
				due  time.Time
			}
			wire := make(chan packet, 100)
			go func() {
				defer to.Close()
				for p := range wire {
					time.Sleep(time.Until(p.due))
					if _, err := to.Write(p.data); err != nil {
						from.Close()
					}
				}
			}()
			defer close(wire)
			for {
				chunk := make([]byte, 64<<10)
				n, err := from.Read(chunk)
				if err != nil {
					return
				}
				wire <- packet{chunk[:n], time.Now().Add(trip / 2)}
			}
		}
		go carry(near, server)
		go carry(server, near)
		return client, nil
	}
}

// TestTrips counts the round trips of a mail: one where the relay pipelines, and one more for the first; four elsewhere.
func TestTrips(t *testing.T) {
	t.Parallel()
	const trip, mails = 20 * time.Millisecond, 50
	for name, test := range map[string]struct {
		extensions []string
		want       time.Duration
	}{
		"pipelining": {pipelining, (mails + 1) * trip},
		"plain":      {nil, 4 * mails * trip},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Extensions: test.extensions})
				d := scripted(t, fake, func(o *Options) { o.Relays[0].Limits.Connections, o.Relays[0].dial = 1, distant(fake, trip) })
				if err := d.lanes().warm(t.Context(), outbox.Normal); err != nil {
					t.Fatal(err)
				}
				jobs := make([]*job, mails)
				for i := range jobs {
					jobs[i] = aJob("kim@example.com")
				}
				started := time.Now()
				begin(t.Context(), d, jobs...)
				for range jobs {
					if o := <-d.outcomes; o.State != outbox.MessageSent {
						t.Errorf("%+v", o)
					}
				}
				if took := time.Since(started); took != test.want {
					t.Errorf("%s, want %s", took, test.want)
				}
			})
		})
	}
}

// TestBehind has the relay say anything to the envelope that travelled with the mail before: each mail ends by what was said of it.
func TestBehind(t *testing.T) {
	t.Parallel()
	usual := smtptest.Step{Usual: true}
	for name, test := range map[string]struct {
		steps map[string][]smtptest.Step
		want  string // of three mails
		conns int
		mails int
	}{
		"all well":                        {nil, "sent sent sent", 1, 3},
		"the one behind is refused":       {map[string][]smtptest.Step{"RCPT": {usual, smtptest.Reply("550 5.1.1 unknown")}, "DATA": {usual, smtptest.Reply("554 5.5.1 no valid recipients")}}, "sent dead sent", 1, 2},
		"it is refused, and then 354":     {map[string][]smtptest.Step{"RCPT": {usual, smtptest.Reply("550 5.1.1 unknown")}}, "sent dead sent", 2, 2},
		"it is put off":                   {map[string][]smtptest.Step{"MAIL": {usual, smtptest.Reply("451 4.3.0 later")}, "RCPT": {usual, smtptest.Reply("503 no")}, "DATA": {usual, smtptest.Reply("503 no")}}, "sent queued sent", 1, 2},
		"the first is refused at its dot": {map[string][]smtptest.Step{"DOT": {smtptest.Reply("554 5.6.0 spam")}}, "dead sent sent", 1, 3},
		"gone after the first dot":        {map[string][]smtptest.Step{"DOT": {smtptest.Drop}}, "uncertain sent sent", 2, 3},
		"gone at the one behind":          {map[string][]smtptest.Step{"MAIL": {usual, smtptest.Drop}}, "sent sent sent", 2, 3},
		"421 to the one behind":           {map[string][]smtptest.Step{"MAIL": {usual, {Reply: "421 4.4.2 enough", Close: true}}}, "sent sent sent", 2, 3},
		"452 to the one behind":           {map[string][]smtptest.Step{"MAIL": {usual, smtptest.Reply("452 4.3.0 enough")}, "RCPT": {usual, smtptest.Reply("503 no")}, "DATA": {usual, smtptest.Reply("503 no")}}, "sent sent sent", 2, 3},
		"452 to the one behind, then 354": {map[string][]smtptest.Step{"MAIL": {usual, smtptest.Reply("452 4.3.0 enough")}, "RCPT": {usual, smtptest.Reply("250 ok")}, "DATA": {usual, smtptest.Reply("354 go")}}, "sent sent sent", 2, 3},
		"gone at the content behind":      {map[string][]smtptest.Step{"DOT": {usual, smtptest.Drop}}, "sent uncertain sent", 2, 3},
		"half a reply":                    {map[string][]smtptest.Step{"DOT": {{Reply: "250-ok", Close: true}}}, "uncertain sent sent", 2, 3},
		"two replies to one dot":          {map[string][]smtptest.Step{"DOT": {{Reply: "250 ok\r\n250 again"}}}, "sent queued sent", 2, 2},
		"an endless line":                 {map[string][]smtptest.Step{"DOT": {{Reply: "250 " + strings.Repeat("x", 5000)}}}, "uncertain sent sent", 2, 3},
		"an endless reply":                {map[string][]smtptest.Step{"DOT": {{Reply: strings.Repeat("250-xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 3000) + "250 ok"}}}, "uncertain sent sent", 2, 3},
		"another code in the second line": {map[string][]smtptest.Step{"DOT": {{Reply: "250-ok\r\n550 no"}}}, "uncertain sent sent", 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Steps: test.steps})
				d := scripted(t, fake, func(o *Options) { o.Relays[0].Limits.Connections = 1 })
				var jobs []*job
				for i := range 3 {
					j := aJob("kim@example.com")
					j.message.ID, j.message.HoldUncertain = int64(i), true
					jobs = append(jobs, j)
				}
				begin(t.Context(), d, jobs...)
				got := make([]string, len(jobs))
				for range jobs {
					o := <-d.outcomes
					got[o.message.ID] = o.State.String()
				}
				if strings.Join(got, " ") != test.want || fake.Connections() != test.conns || len(fake.Mails()) != test.mails {
					t.Errorf("%s over %d connections, %d mails; %q", got, fake.Connections(), len(fake.Mails()), fake.Commands())
				}
			})
		})
	}
}

// TestSlowBehind has the relay take its time for a mail while the envelope of the next has been said: nobody gets the mail of another, and
// whatever happens to the connection, each mail comes to its end.
func TestSlowBehind(t *testing.T) {
	t.Parallel()
	usual := smtptest.Step{Usual: true}
	for name, test := range map[string]struct {
		steps map[string][]smtptest.Step
		lease time.Duration // of the second
		lanes int
		want  string
	}{
		"the lease ends behind the 354":     {map[string][]smtptest.Step{"DOT": {{Reply: "250 ok", Wait: 5 * time.Second}}}, 4 * time.Second, 1, "sent queued sent"},
		"slower than the lease of all":      {map[string][]smtptest.Step{"DOT": {{Reply: "250 ok", Wait: 61 * time.Second}}}, 50 * time.Second, 1, "sent queued sent"},
		"another connection takes the next": {map[string][]smtptest.Step{"DOT": {{Reply: "250 ok", Wait: 30 * time.Second}}}, time.Minute, 2, "sent sent sent"},
		"gone behind the 354":               {map[string][]smtptest.Step{"DATA": {usual, {Reply: "354 go", Close: true}}}, time.Minute, 1, "sent sent sent"},
		"a reply too early":                 {map[string][]smtptest.Step{"DATA": {usual, {Reply: "354 go\r\n250 queued already"}}}, time.Minute, 1, "sent sent sent"},
		"RSET refused":                      {map[string][]smtptest.Step{"RCPT": {smtptest.Reply("550 5.1.1 no")}, "DATA": {smtptest.Reply("554 none")}, "RSET": {smtptest.Reply("502 5.5.1 what")}}, time.Minute, 1, "dead sent sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Steps: test.steps})
				d := scripted(t, fake, func(o *Options) { o.Relays[0].Limits.Connections = test.lanes })
				var jobs []*job
				for i, to := range []string{"a@example.com", "b@example.com", "c@example.com"} {
					j := aJob(to)
					j.message.ID, j.lease = int64(i), time.Now().Add(time.Hour)
					j.letter.body = []byte("Subject: for " + to + "\r\n\r\n")
					jobs = append(jobs, j)
				}
				jobs[1].lease = time.Now().Add(test.lease)
				begin(t.Context(), d, jobs...)
				got := make([]string, len(jobs))
				for range jobs {
					o := <-d.outcomes
					got[o.message.ID] = o.State.String()
				}
				if strings.Join(got, " ") != test.want {
					t.Errorf("%s; %q", got, fake.Commands())
				}
				for _, m := range fake.Mails() {
					if len(m.To) != 1 || !bytes.Contains(m.Data, []byte("for "+m.To[0]+"\n")) {
						t.Errorf("to %q went %q", m.To, m.Data)
					}
				}
				d.sending.Wait()
			})
		})
	}
}

// TestEnvelopesAreKept holds that a session whose relay waits for one mail says no other.
func TestEnvelopesAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining})
		d := scripted(t, fake, nil)
		s, err := connect(t.Context(), d.o.Relays[0], d.o.Timeouts)
		if err != nil {
			t.Fatal(err)
		}
		a, b, c := aJob("a@example.com"), aJob("b@example.com"), aJob("c@example.com")
		for _, j := range []*job{a, b, c} {
			if err := d.address(j); err != nil {
				t.Fatal(err)
			}
		}
		if r, behind := s.deliver(t.Context(), a, func() *job { return b }, nil); r.class() != sent || behind != b {
			t.Fatalf("%s", r)
		}
		if r, _ := s.deliver(t.Context(), c, func() *job { return nil }, nil); !s.over || r.err == nil {
			t.Errorf("%s", r)
		}
		synctest.Wait()
		if n := len(fake.Mails()); n != 1 {
			t.Errorf("%d mails", n)
		}
	})
}

// FuzzReply reads any bytes as a reply: it is one by RFC 5321 §4.2, or an error, and takes bounded memory.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250\r\n", "25", "250-a\r\n", "354 \xff\r\n", "999 x\r\n", "250-a\r\n251 b\r\n", "250+x\r\n", "\r\n", strings.Repeat("2", 5000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		code, text, err := readReply(r)
		if err != nil {
			if code != 0 || text != "" {
				t.Fatalf("%d %q beside %v", code, text, err)
			}
			return
		}
		rest, _ := io.ReadAll(r)
		taken := in[:len(in)-len(rest)]
		lines := strings.Split(text, "\n")
		if code < 200 || code > 599 || len(text) > mostReply+mostReplyLine || bytes.Count(taken, []byte("\n")) != len(lines) {
			t.Fatalf("%q is %d %q", taken, code, text)
		}
	})
}

// FuzzAppendContent holds that nothing in a mail ends it, however a server takes bare CRs and LFs, and that nothing is lost but these.
func FuzzAppendContent(f *testing.F) {
	for _, s := range []string{"", ".", "\n.\n", "\r.\r", "\r\n.\r\n", "a\r\r\n.\n\r", "..", "a\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out := appendContent(nil, in)
		if bytes.Count(out, []byte("\r\n")) != bytes.Count(out, []byte("\r")) || bytes.Count(out, []byte("\r\n")) != bytes.Count(out, []byte("\n")) {
			t.Fatalf("%q has a bare CR or LF: %q", in, out)
		}
		var lines []string
		for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\r\n"), "\r\n") {
			if line == "." {
				t.Fatalf("%q ends in the middle: %q", in, out)
			}
			lines = append(lines, strings.TrimPrefix(line, "."))
		}
		want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(in))
		if got := strings.Join(lines, "\n"); got != strings.TrimSuffix(want, "\n") {
			t.Fatalf("%q became %q", want, got)
		}
	})
}
