// Package smtptest is a relay to send to, for tests and the demo.
//
// What it promises: [Server] is a whole SMTP server on loopback that keeps every mail it said 250 to, byte for byte,
// and can go away and come back on the same address. [Fake] plays a dialogue instead, with the failures that real
// servers have and none would play on demand. After Close their goroutines end.
package smtptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is a mail that was accepted.
type Mail struct {
	From string    // of the envelope
	To   []string  // of the envelope
	Data []byte    // as it came: dots unstuffed, lines ended by CRLF
	Time time.Time // when its final dot was read
	Conn int       // the connection it came on, counted from 1

	Reply string // to its dot, of a [Fake]
}

// Stage is a moment of a conversation at which a [Hook] is asked.
type Stage string

// The stages. Connect comes with EHLO. Dot comes when the whole mail was read, before it counts as accepted.
const (
	Connect Stage = "connect"
	From    Stage = "MAIL"
	To      Stage = "RCPT"
	Dot     Stage = "."
)

// Event is what a [Hook] is asked about.
type Event struct {
	Stage Stage
	Arg   string // the address of From and To
	Mail  *Mail  // of Dot
	Conn  int
}

// Hook decides whether the server goes on: a *smtp.SMTPError is its reply. It may also wait. Connections ask at the
// same time.
type Hook func(Event) error

// Options say how a server behaves. The zero value takes every mail, in clear text.
type Options struct {
	Hook Hook
	// TLS offers STARTTLS; with Implicit, a conversation begins with TLS.
	TLS      *tls.Config
	Implicit bool
	// User and Password, when set, have to be given (AUTH PLAIN) before a mail is taken.
	User, Password string
	// Accepted, when set, is told of each mail, one at a time, before the client hears its 250.
	Accepted func(Mail)
}

// Server is a real SMTP server on loopback.
type Server struct {
	o    Options
	addr string

	mu     sync.Mutex
	server *smtp.Server  // nil while it is down
	listen net.Listener  // of server
	served chan struct{} // closed when the server's listener has ended
	mails  []Mail
	conns  map[string]int // numbers of connections, by the client's address
	more   chan struct{}  // closed and replaced at each mail
}

// Start starts a server on a free port.
func Start(o Options) (*Server, error) {
	s := &Server{o: o, addr: "127.0.0.1:0", conns: make(map[string]int), more: make(chan struct{})}
	return s, s.Restart()
}

// Addr is the server's address, host:port. It stays the same over a restart.
func (s *Server) Addr() string { return s.addr }

// Restart brings the server back after [Server.Close]. The mails stay.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return errors.New("the SMTP server is running")
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listening for SMTP: %w", err)
	}
	s.addr = l.Addr().String()
	if s.o.Implicit {
		l = tls.NewListener(l, s.o.TLS)
	}
	server := smtp.NewServer(smtp.BackendFunc(s.connect))
	server.Domain, server.AllowInsecureAuth = "smtptest", true
	server.ErrorLog = log.New(io.Discard, "", 0) // connections that break off are what tests do
	if !s.o.Implicit {
		server.TLSConfig = s.o.TLS
	}
	served := make(chan struct{})
	s.server, s.listen, s.served = server, l, served
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends with its listener, which Close alone closes
	}()
	return nil
}

// Close cuts all connections and refuses new ones, as an outage does. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	server, listener, served := s.server, s.listen, s.served
	s.server = nil
	s.mu.Unlock()
	if server != nil {
		_ = listener.Close() // the server does not know it before Serve began, and would wait for it for ever
		_ = server.Close()   // cuts the connections
		<-served
	}
}

// Mails returns the mails accepted so far, oldest first.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Wait returns the mails as soon as there are n of them, or the context's cause.
func (s *Server) Wait(ctx context.Context, n int) ([]Mail, error) {
	for {
		s.mu.Lock()
		mails, more := slices.Clone(s.mails), s.more
		s.mu.Unlock()
		if len(mails) >= n {
			return mails, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return mails, fmt.Errorf("waiting for %d mails, %d came: %w", n, len(mails), context.Cause(ctx))
		}
	}
}

// Connections is how many connections were made so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Connection is the number of the connection that a client has from an address; 0: it has not said EHLO.
func (s *Server) Connection(from net.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[from.String()]
}

func (s *Server) ask(e Event) error {
	if s.o.Hook == nil {
		return nil
	}
	return s.o.Hook(e)
}

// connect begins a session: at each EHLO, so twice where STARTTLS comes in between.
func (s *Server) connect(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	client := c.Conn().RemoteAddr().String()
	n, known := s.conns[client]
	if !known {
		n = len(s.conns) + 1
		s.conns[client] = n
	}
	s.mu.Unlock()
	return &session{s: s, conn: n, trusted: s.o.User == ""}, s.ask(Event{Stage: Connect, Conn: n})
}

func (s *Server) accept(m Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
	close(s.more)
	s.more = make(chan struct{})
	if s.o.Accepted != nil {
		s.o.Accepted(m)
	}
}

// session is one connection, after its EHLO.
type session struct {
	s       *Server
	conn    int
	trusted bool
	mail    Mail
}

func (c *session) AuthMechanisms() []string {
	if c.s.o.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (c *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		c.trusted = user == c.s.o.User && password == c.s.o.Password
		if !c.trusted {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	if !c.trusted {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	if err := c.s.ask(Event{Stage: From, Arg: from, Conn: c.conn}); err != nil {
		return err
	}
	c.mail = Mail{From: from, Conn: c.conn}
	return nil
}

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := c.s.ask(Event{Stage: To, Arg: to, Conn: c.conn}); err != nil {
		return err
	}
	c.mail.To = append(c.mail.To, to)
	return nil
}

func (c *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err // the connection broke off before the dot
	}
	m := c.mail
	m.Data, m.Time = data, time.Now()
	if err := c.s.ask(Event{Stage: Dot, Mail: &m, Conn: c.conn}); err != nil {
		return err
	}
	c.s.accept(m)
	return nil
}

func (c *session) Reset()        { c.mail = Mail{Conn: c.conn} }
func (c *session) Logout() error { return nil }
