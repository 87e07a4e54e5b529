package chaos

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"postman/internal/smtptest"
)

// relay is a real SMTP server behind a line that can be cut: all of it, as in an outage, or one connection right after
// a final dot, so that the server has the mail and the client never learns it.
type relay struct {
	server *smtptest.Server
	addr   string

	mu       sync.Mutex
	dice     *rand.Rand
	listener net.Listener // nil while the relay is away
	open     map[net.Conn]bool
	dropped  []time.Time // replies to a final dot that were cut off
	outages  []time.Time // when they began
	serving  sync.WaitGroup
}

// oneInDots is how rarely a reply to a final dot is cut off.
const oneInDots = 150

func startRelay(t *testing.T, seed uint64) *relay {
	t.Helper()
	server, err := smtptest.Start(smtptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{server: server, addr: "127.0.0.1:0", dice: rand.New(rand.NewPCG(seed, 1_000)), open: make(map[net.Conn]bool)}
	if err := r.comeBack(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.hangUp()
		r.serving.Wait()
		server.Close()
	})
	return r
}

// comeBack listens, again on the same port.
func (r *relay) comeBack() error {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		return fmt.Errorf("bringing the relay back: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listener, r.addr = l, l.Addr().String()
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it went away
			}
			r.serving.Go(func() { r.connect(conn) })
		}
	})
	return nil
}

// goAway refuses connections and cuts those that are open.
func (r *relay) goAway() {
	r.mu.Lock()
	r.outages = append(r.outages, time.Now())
	r.mu.Unlock()
	r.hangUp()
}

func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.Close()
		r.listener = nil
	}
	for conn := range r.open {
		conn.Close()
	}
}

// connect joins a client to the server until one of them, or an outage, ends it.
func (r *relay) connect(client net.Conn) {
	server, err := net.Dial("tcp", r.server.Addr())
	if err != nil || !r.hold(client, server) {
		client.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(server, client)         // it ends as the connection does, however that is
		_ = server.(*net.TCPConn).CloseWrite() // likewise
	})
	both.Go(func() {
		r.replies(client, server)
		client.Close()
	})
	both.Wait()
	server.Close()
	r.mu.Lock()
	delete(r.open, client)
	r.mu.Unlock()
}

// hold notes a client's connection; false: the relay went away meanwhile.
func (r *relay) hold(client, server net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener == nil {
		server.Close()
		return false
	}
	r.open[client] = true
	return true
}

// replies passes on what the server says, and now and then not that it took a mail.
func (r *relay) replies(client io.Writer, server io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := server.Read(buf)
		if err != nil || bytes.Contains(buf[:n], []byte("queued")) && r.drops() {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (r *relay) drops() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dice.IntN(oneInDots) > 0 {
		return false
	}
	r.dropped = append(r.dropped, time.Now())
	return true
}
