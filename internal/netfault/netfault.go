// Package netfault stands between a client and a server, and does to their connections what networks do: it goes silent without a
// word to either end, for a while or for good, breaks off with or without a good-bye, changes bytes. It is for tests.
package netfault

import (
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
)

// Proxy forwards TCP connections to a server. Any goroutine may use it.
type Proxy struct {
	// URL is the server's URL with the proxy's address in the place of the server's.
	URL string

	tamper func([]byte)
	to     string
	listen net.Listener
	all    sync.WaitGroup
	sent   atomic.Int64

	mu     sync.Mutex
	frozen chan struct{} // closed: the connections made so far carry nothing any more
	held   chan struct{} // closed: what comes is carried; else it waits for that
	closed bool
	conns  []net.Conn
}

// Start listens on loopback and forwards to the host of a URL. Tamper, if there is one, may change what comes from the server.
func Start(target string, tamper func([]byte)) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("reading the URL of the server: %w", err)
	}
	listen, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	p := &Proxy{to: u.Host, listen: listen, tamper: tamper, frozen: make(chan struct{}), held: make(chan struct{})}
	close(p.held)
	u.Host = listen.Addr().String()
	p.URL = u.String()
	p.all.Go(p.accept)
	return p, nil
}

// Sent is how often a client has written to the server.
func (p *Proxy) Sent() int64 { return p.sent.Load() }

// Freeze makes black holes of the connections there are. New ones work.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = make(chan struct{})
}

// Hold keeps back, until Release, whatever comes on any connection, new ones included: these are accepted, and get no answer. Nothing
// of it is lost, as where a network is away for a while and TCP sends again what did not arrive.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && isClosed(p.held) {
		p.held = make(chan struct{})
	}
}

// Release ends Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isClosed(p.held) {
		close(p.held)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// passes waits while everything is held.
func (p *Proxy) passes() {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	<-held
}

// Cut closes the connections there are, at both ends. New ones work.
func (p *Proxy) Cut() { p.end(func(net.Conn) {}) }

// Reset is as [Proxy.Cut], but with a RST instead of a FIN: what was under way is thrown away at both ends.
func (p *Proxy) Reset() {
	p.end(func(c net.Conn) {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails on a closed connection, which has ended otherwise
		}
	})
}

func (p *Proxy) end(prepare func(net.Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		prepare(c)
		_ = c.Close() // it may be closed already
	}
	p.conns = nil
}

// Close ends it all, and waits until nothing is carried any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listen.Close()
	p.Release()
	p.Cut()
	p.all.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			p.Cut() // what was accepted while it was closed
			return
		}
		server, err := net.Dial("tcp4", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		frozen := p.frozen
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.all.Go(func() { p.carry(client, server, frozen, func([]byte) { p.sent.Add(1) }) })
		p.all.Go(func() { p.carry(server, client, frozen, p.tamper) })
	}
}

// carry copies until an end closes, which it passes on; once frozen it swallows everything.
func (p *Proxy) carry(from, to net.Conn, frozen chan struct{}, tamper func([]byte)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.passes()
		select {
		case <-frozen:
			if err != nil {
				return
			}
			continue
		default:
		}
		if tamper != nil {
			tamper(buf[:n])
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_ = to.Close()
			return
		}
	}
}
