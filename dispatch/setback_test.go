package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
	"postman/outbox"
)

// claimed is a task of a match that was claimed, in a dispatcher that does not run: what is put aside can be watched.
func claimed(t *testing.T) (*world, *task) {
	t.Helper()
	w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), stopped: true})
	return w, &task{match: w.append(1, message("reset", reset("kim@example.com")))[0]}
}

// TestEarlySetback waits for a transaction to become visible: soon at first, then every second, and after a while in the store.
func TestEarlySetback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, task := claimed(t)
		early := &askError{kind: early, err: errors.New("transaction 7 is not visible")}
		ctx, started := t.Context(), time.Now()
		var pauses []time.Duration
		for {
			before := time.Now()
			w.setback(ctx, ctx, task, early)
			again, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, ok := w.tasks.pop(again)
			w.tasks.done(task)
			cancel()
			if !ok {
				break
			}
			pauses = append(pauses, time.Since(before))
		}
		if pauses[0] != time.Millisecond || pauses[1] != 2*time.Millisecond || pauses[len(pauses)-1] != time.Second || time.Since(started) < tooEarly {
			t.Errorf("%s", pauses)
		}
		m := w.matches()[0]
		if m.State != outbox.MatchPending || !strings.Contains(m.Reason, "not visible") || !m.Due.After(started.Add(tooEarly)) {
			t.Errorf("%s until %s: %s", m.State, m.Due, m.Reason)
		}
		if r := w.reported(); len(r) != 1 || !strings.HasPrefix(r[0], "visibility reset") {
			t.Errorf("reported %q", r)
		}
		if free := must(w.store.ClaimMatches(ctx, outbox.Claim{Now: time.Now().Add(time.Hour), Most: 9})); len(free) != 1 {
			t.Error("its claim was not given back")
		}
		w.onTime()
		if lasted, news := w.seen.worked(); news {
			t.Errorf("it is told twice that it works again, after %s", lasted)
		}
	})
}

// TestLostSetback waits for a database that is not there for as long as it takes, and burns nothing.
func TestLostSetback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, task := claimed(t)
		for i := range 100 {
			before := time.Now()
			w.setback(t.Context(), t.Context(), task, &askError{kind: lost, err: errors.New("no route")})
			w.tasks.pop(t.Context())
			w.tasks.done(task)
			if took := time.Since(before); took > mostReconnect*5/4 || i > 10 && took < mostReconnect*3/4 {
				t.Errorf("pause %d is %s", i, took)
			}
		}
		if m := w.matches()[0]; m.State != outbox.MatchPending || m.Attempts != 0 {
			t.Errorf("%s after %d attempts", m.State, m.Attempts)
		}
		if r := w.reported(); len(r) != 1 || !strings.HasPrefix(r[0], "lookup :") {
			t.Errorf("reported %q", r)
		}
	})
}

// TestBusySetback tries a look-up that the database has no time for again, later and later, and gives up at last.
func TestBusySetback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, task := claimed(t)
		var last time.Duration
		started := time.Now()
		for task.match.State == outbox.MatchPending {
			before := time.Now()
			w.setback(t.Context(), t.Context(), task, &askError{kind: busy, what: "the query", err: errors.New("timeout")})
			if task.match = w.matches()[0]; task.match.State != outbox.MatchPending {
				break
			}
			pause := task.match.Due.Sub(before)
			if pause < last/2 || pause > mostBusy*5/4 {
				t.Errorf("pause %d is %s after %s", task.match.Attempts, pause, last)
			}
			last = pause
			time.Sleep(pause + time.Millisecond)
			if ms := must(w.store.ClaimMatches(t.Context(), outbox.Claim{Now: time.Now(), Most: 9})); len(ms) != 1 {
				t.Fatalf("%d are due", len(ms))
			}
		}
		m := task.match
		if m.State != outbox.MatchFailed || m.Attempts != mostSorely-1 || !strings.Contains(m.Reason, "given up after 12 tries: the query: timeout") {
			t.Errorf("%s after %d attempts: %s", m.State, m.Attempts, m.Reason)
		}
		if took := time.Since(started); took < 10*time.Minute || took > time.Hour {
			t.Errorf("it took %s", took)
		}
	})
}

// TestPreparingAgain has messages that wait in the queue look up what they show again: one that cannot be prepared fails alone,
// and the others of its match go.
func TestPreparingAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, stopped: true, tune: func(o *Options) { o.Relays[0].Limits.Connections = 1 }})
	_, err := w.conn.Exec(t.Context(), "insert into staff select i, 's' || i || '@example.com', 'S' || i from generate_series(10, 29) i")
	w.check(err)
	w.run()
	w.expand(t, 1, "", expandCase{rule: "loads"})
	states := w.settled()
	if len(states) != 22 {
		t.Errorf("%d messages", len(states))
	}
	for address, state := range states {
		if state != "sent" {
			t.Errorf("%s: %s", address, state)
		}
	}
	for _, m := range w.mails(22) {
		if to := m.To[0]; strings.HasPrefix(to, "s") {
			n := strings.TrimSuffix(strings.TrimPrefix(to, "s"), "@example.com")
			if got, want := textPart(t, m.Data), "|S"+n+"!|"; !strings.Contains(got, want) {
				t.Errorf("%s reads %q", to, got)
			}
		}
	}
}

// TestSilentServer stops all traffic in the middle of a look-up: the client keeps its own deadline.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	u := must(url.Parse(pgtest.Database(t)))
	p := stallable(t, u.Host)
	u.Host = p.listener.Addr().String()
	l := openLookup(t, u.String(), LookupOptions{Conns: 1, Timeout: 200 * time.Millisecond})
	if got, err := query(t, l, 1, "select 7"); got != "7" || err != nil {
		t.Fatal(got, err)
	}
	p.stalled.Store(true)
	started := time.Now()
	_, err := query(t, l, 1, "select 7")
	if ask, ok := errors.AsType[*askError](err); !ok || ask.kind != busy {
		t.Errorf("%v after %s", err, time.Since(started))
	}
	p.stalled.Store(false)
	if got, err := query(t, l, 1, "select 7"); got != "7" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// proxy forwards connections until it is stalled; from then on it swallows what they say.
type proxy struct {
	listener net.Listener
	stalled  atomic.Bool
}

func stallable(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go p.forward(client, server)
			go p.forward(server, client)
		}
	}()
	t.Cleanup(func() {
		p.listener.Close()
		<-done
	})
	return p
}

func (p *proxy) forward(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if p.stalled.Load() {
			continue
		}
		if _, err := io.Copy(to, strings.NewReader(string(buffer[:n]))); err != nil {
			return
		}
	}
}

// TestEarlyIsNoTry: a transaction that takes its time to become visible brings its match no closer to being given up.
func TestEarlyIsNoTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, task := claimed(t)
		for range 2 * mostSorely {
			task.since = time.Now().Add(-2 * tooEarly)
			w.setback(t.Context(), t.Context(), task, &askError{kind: early, err: errors.New("transaction 7 is not visible")})
			ms := must(w.store.ClaimMatches(t.Context(), outbox.Claim{Now: time.Now().Add(time.Hour), Most: 9}))
			task.match = ms[0]
		}
		w.setback(t.Context(), t.Context(), task, &askError{kind: busy, what: "the query", err: errors.New("timeout")})
		if m := w.matches()[0]; m.State != outbox.MatchPending || m.Attempts != 1 {
			t.Errorf("%s after %d attempts: %s", m.State, m.Attempts, m.Reason)
		}
	})
}

// TestBusyMessages: messages whose look-ups the database has no time for are tried later and later, whatever their match went through, and given up with
// all other mails of their age.
func TestBusyMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, task := claimed(t)
		_, err := w.store.Expand(t.Context(), outbox.Expansion{Match: task.match.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{{Address: "kim@example.com", State: outbox.MessageQueued}}})
		w.check(err)
		task.match.Attempts, task.via = mostSorely-1, w.transports[0]
		began := time.Now()
		var pauses []time.Duration
		for {
			ms := must(w.store.ClaimMessages(t.Context(), outbox.Claim{Now: time.Now(), Most: 9}))
			if task.messages = ms; len(ms) != 1 {
				t.Fatalf("%d are due", len(ms))
			}
			task.via.room.enter(outbox.Normal, "")
			w.setback(t.Context(), t.Context(), task, &askError{kind: busy, what: "the query", err: errors.New("timeout")})
			o := <-w.outcomes
			w.check(w.store.Record(t.Context(), []outbox.Outcome{o.Outcome}))
			if o.State != outbox.MessageQueued {
				if age := time.Since(began); o.State != outbox.MessageFailed || age < 24*time.Hour || age > 25*time.Hour || !strings.Contains(o.Reason, "given up after 24h") {
					t.Errorf("%s after %s: %s", o.State, age, o.Reason)
				}
				break
			}
			pauses = append(pauses, time.Until(o.Due))
			time.Sleep(time.Until(o.Due) + time.Millisecond)
		}
		if first, last := pauses[0], pauses[len(pauses)-1]; first > 2*time.Second || last < mostBusy*3/4 || last > mostBusy*5/4 || len(pauses) > 400 {
			t.Errorf("%d pauses, from %s to %s", len(pauses), first, last)
		}
	})
}
