package netfault

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that says everything again, behind a proxy.
func echo(t *testing.T) *Proxy {
	t.Helper()
	listen, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listen.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the connection ends, however it does
			}()
		}
	}()
	p, err := Start("tcp://"+listen.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		listen.Close()
	})
	return p
}

type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{conn, t, bufio.NewReader(conn)}
}

func (c *client) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// hears waits for a line for some time.
func (c *client) hears(patience time.Duration) (string, error) {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	return c.r.ReadString('\n')
}

const soon, never = 10 * time.Second, 100 * time.Millisecond

func (c *client) answered(line string) {
	c.t.Helper()
	if got, err := c.hears(soon); got != line+"\n" {
		c.t.Errorf("heard %q, %v, instead of %q", got, err, line)
	}
}

func (c *client) silent() {
	c.t.Helper()
	got, err := c.hears(never)
	if e, ok := errors.AsType[net.Error](err); got != "" || !ok || !e.Timeout() {
		c.t.Errorf("heard %q, %v, instead of nothing", got, err)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	p := echo(t)
	old := dial(t, p)
	old.say("one")
	old.answered("one")
	p.Hold()
	p.Hold()
	fresh := dial(t, p)
	old.say("two")
	fresh.say("three")
	old.silent()
	fresh.silent()
	p.Release()
	p.Release()
	old.answered("two")
	fresh.answered("three")
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	p := echo(t)
	old := dial(t, p)
	old.say("one")
	old.answered("one")
	p.Freeze()
	old.say("two")
	old.silent()
	fresh := dial(t, p)
	fresh.say("three")
	fresh.answered("three")
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(*Proxy)
		want error
	}{
		"cut":   {(*Proxy).Cut, io.EOF},
		"reset": {(*Proxy).Reset, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := echo(t)
			c := dial(t, p)
			c.say("one")
			c.answered("one")
			test.end(p)
			if _, err := c.hears(soon); !errors.Is(err, test.want) {
				t.Errorf("the connection ended with %v, not with %v", err, test.want)
			}
			fresh := dial(t, p)
			fresh.say("two")
			fresh.answered("two")
		})
	}
}

// Closing ends what is held, too.
func TestCloseWhileHeld(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	c.say("one")
	c.answered("one")
	p.Hold()
	c.say("two")
	p.Close()
	got, err := c.hears(soon)
	if e, ok := errors.AsType[net.Error](err); err == nil || ok && e.Timeout() {
		t.Errorf("heard %q, %v: the connection outlived its proxy", got, err)
	}
}
