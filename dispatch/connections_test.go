package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// sockets counts connections that are open at the same time.
type sockets struct {
	mu        sync.Mutex
	now, most int
}

func (s *sockets) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += n
	s.most = max(s.most, s.now)
}

func (s *sockets) peak() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// countedConn is one of them.
type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// counted has connections counted from before they are dialled until they are closed.
func (s *sockets) counted(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		s.add(1)
		time.Sleep(10 * time.Millisecond)
		c, err := dial(ctx, network, address)
		if err != nil {
			s.add(-1)
			return nil, err
		}
		return &countedConn{c, sync.OnceFunc(func() { s.add(-1) })}, nil
	}
}

// TestConnectionsAreBounded: at no moment has the relay more connections than it may have: not at the start, not when some have served long enough and take
// their time to say QUIT, and not after trouble.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limits  Limits
		high    bool
		trouble bool
		most    int
	}{
		"one":          {Limits{Connections: 1, PerConnection: 2}, false, false, 1},
		"several":      {Limits{Connections: 3, PerConnection: 3}, false, false, 3},
		"with high":    {Limits{Connections: 2, PerConnection: 2}, true, false, 3},
		"with trouble": {Limits{Connections: 3, PerConnection: 5}, true, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := smtptest.Script{Extensions: pipelining, Always: map[string]smtptest.Step{
					"CONNECT": {Reply: "220 fake", Wait: 50 * time.Millisecond}, "QUIT": {Reply: "221 2.0.0 bye", Wait: 2 * time.Second, Close: true},
					"DOT": {Reply: "250 2.0.0 ok", Wait: 30 * time.Millisecond},
				}}
				fake := smtptest.NewFake(script)
				count := new(sockets)
				w := newWorld(t, setup{fake: fake, tune: func(o *Options) {
					o.Relays[0].Limits, o.Relays[0].dial = test.limits, count.counted(o.Relays[0].dial)
				}})
				for i := range 40 {
					c := message("reset", reset(fmt.Sprintf("a%d@example.com", i)))
					if test.high && i%10 == 0 {
						c.tune = func(m *outbox.NewMatch) { m.Priority = outbox.High }
					}
					w.take(c)
					switch {
					case test.trouble && i == 20:
						fake.Play(smtptest.Script{Extensions: pipelining, Always: map[string]smtptest.Step{"DOT": {Hang: true}, "CONNECT": smtptest.Drop}})
						sleep(t, 3*time.Second)
						fake.Cut()
					case test.trouble && i == 30:
						fake.Play(script)
						sleep(t, 2*mostPause)
					}
				}
				w.settled()
				if n := len(fake.Mails()); n < 40 || !test.trouble && n > 40 {
					t.Errorf("%d mails", n)
				}
				if n := count.peak(); n > test.most {
					t.Errorf("%d connections at the same time", n)
				}
			})
		})
	}
}

// TestHungRelay: a relay takes names and answers no mail. What waits for a connection to it is given back when its lease is over, and goes another way.
func TestHungRelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var relays []*smtptest.Fake
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), tune: func(o *Options) {
			relays = fakes(t, o, smtptest.Script{Extensions: pipelining, Always: map[string]smtptest.Step{"DOT": {Hang: true}}}, smtptest.Script{})
		}})
		const mails = 40
		for i := range mails {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		sleep(t, leaseFor+watchEvery+time.Second)
		hung := len(relays[0].Mails())
		if n := len(relays[1].Mails()); hung != 4 || n != mails-hung {
			t.Errorf("%d hang, and %d went over the other relay", hung, n)
		}
		for _, m := range w.messages() {
			if m.State == outbox.MessageSent && m.Attempts != 1 {
				t.Errorf("%s took %d attempts", m.Address, m.Attempts)
			}
		}
		// One that answers again is the first again.
		relays[0].Play(smtptest.Script{})
		relays[0].Cut()
		sleep(t, 2*mostPause)
		before := len(relays[0].Mails())
		w.emit("reset", reset("last@example.com"))
		w.settled()
		if n := len(relays[0].Mails()); n == before {
			t.Error("it is not used any more")
		}
	})
}

// TestHungAlone: where there is no other relay, mails wait in the queue, at no cost, and the connections that they are on are waited for.
func TestHungAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := smtptest.Step{Reply: "250 ok", Wait: 8 * time.Minute}
		fake := smtptest.NewFake(smtptest.Script{Extensions: pipelining, Steps: map[string][]smtptest.Step{"DOT": {slow, slow}}})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits.Connections = 2 }})
		for i := range 10 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		sleep(t, 4*time.Minute)
		if n := must(w.store.Count(t.Context())).Messages; n[outbox.MessageSending] < 2 || n[outbox.MessageSent] != 0 {
			t.Errorf("%v", n)
		}
		w.settled()
		for _, m := range w.messages() {
			if m.Attempts != 1 || len(must(w.store.Attempts(t.Context(), m.ID))) != 1 {
				t.Errorf("%s took %d attempts", m.Address, m.Attempts)
			}
		}
		if len(fake.Mails()) != 10 || len(w.reported()) != 0 {
			t.Errorf("%d mails, reported %q", len(fake.Mails()), w.reported())
		}
	})
}

// TestOneOfSeveralFails: a relay that cannot be reached a second time, and answers on the connection that it has, is not in trouble; when that fails too, it is.
func TestOneOfSeveralFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"DOT": {Reply: "250 2.0.0 ok", Wait: 100 * time.Millisecond}}})
		var mu sync.Mutex
		dials, most := 0, 1
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) {
			dial := o.Relays[0].dial
			o.Relays[0].dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				if dials++; dials > most {
					return nil, errors.New("no route to host")
				}
				return dial(ctx, network, address)
			}
		}})
		for i := range 200 {
			w.emit("reset", reset(fmt.Sprintf("a%d@example.com", i)))
		}
		w.settled()
		if len(w.reported()) != 0 || len(fake.Mails()) != 200 || w.Status().State != RelayUp {
			t.Errorf("%s, %d mails, reported %q", w.Status().State, len(fake.Mails()), w.reported())
		}
		if n := w.Status().Takes; n != 1 {
			t.Errorf("it is taken for one that takes %d connections", n)
		}
		mu.Lock()
		tried := dials
		mu.Unlock()
		if tried < 3 || tried > 20 {
			t.Errorf("it was tried %d times in 20 seconds", tried)
		}
		fake.Cut()
		w.emit("reset", reset("last@example.com"))
		sleep(t, time.Second)
		if r := w.reported(); len(r) != 1 || !strings.Contains(r[0], "no route to host") {
			t.Errorf("reported %q", r)
		}
		mu.Lock()
		most = 1000
		mu.Unlock()
		w.settled()
	})
}

// TestHighPassesWhatIsThere: there may be far more in memory than there would be by now, since the relay got slow, or throttles. High priority goes before all of it.
func TestHighPassesWhatIsThere(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{Connections: 4}, func() {})
	g.connected(true)
	g.took(time.Millisecond)
	for range 4 * mostReserve {
		if !g.tryEnter(outbox.Normal, "") {
			t.Fatal("there is no room to begin with")
		}
	}
	for range 100 {
		g.took(time.Second)
	}
	if g.tryEnter(outbox.Normal, "") || g.free(outbox.Normal) != 0 {
		t.Error("it is slow by now, and has room")
	}
	for range 5 * 3 { // three for each connection, and for the one of their own
		if !g.tryEnter(outbox.High, "") {
			t.Fatal("high priority waits for what is there")
		}
	}
	if g.tryEnter(outbox.High, "") {
		t.Error("high priority waits for nothing")
	}
	g.leave(outbox.High, "")
	if g.free(outbox.High) != 1 {
		t.Errorf("%d are free", g.free(outbox.High))
	}

	via := &transport{relay: Relay{Limits: Limits{Connections: 4}}, gate: g, room: newRoom(0)}
	d := &Dispatcher{transports: []*transport{via}}
	for range 1000 {
		via.room.enter(outbox.Normal, "")
	}
	if n, least := d.roomFor(via); n != mostMessages || least != outbox.High {
		t.Errorf("%d of priority %d can be claimed", n, least)
	}
	for range mostMessages {
		via.room.enter(outbox.High, "")
	}
	if n, _ := d.roomFor(via); n != 0 {
		t.Errorf("%d can be claimed", n)
	}
}

// TestUsedByName: a relay that has a name keeps what it took in a month when its address changes.
func TestUsedByName(t *testing.T) {
	t.Parallel()
	counted := map[string]int64{"a.example:25": 1, "marketing (a.example:25)": 10, "marketing (b.example:587)": 100, "marketing2 (a.example:25)": 1000}
	for want, r := range map[int64]Relay{1: {Host: "a.example", Port: 25}, 110: {Name: "marketing", Host: "c.example", Port: 25}, 0: {Host: "b.example", Port: 25}} {
		if got := r.used(counted); got != want {
			t.Errorf("%s: %d, want %d", r, got, want)
		}
	}
}
