package dispatch

import (
	"context"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"postman/internal/smtptest"
)

// pipes is a real SMTP server behind pipes, for a synctest bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	hook  smtptest.Hook

	mu       sync.Mutex
	accepted []string // the first recipient of each mail
}

func pipeServer(t *testing.T, hook smtptest.Hook) *pipes {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{}), hook: hook}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &pipeSession{p: p}, nil }))
	server.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(p)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return p
}

func (p *pipes) mails() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.accepted)
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.done)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

type pipeSession struct {
	p  *pipes
	to string
}

func (s *pipeSession) Mail(string, *smtp.MailOptions) error { return nil }

func (s *pipeSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.p.hook(smtptest.Event{Stage: smtptest.To, Arg: to})
}

func (s *pipeSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if err := s.p.hook(smtptest.Event{Stage: smtptest.Dot}); err != nil {
		return err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.accepted = append(s.p.accepted, s.to)
	return nil
}

func (s *pipeSession) Reset()        {}
func (s *pipeSession) Logout() error { return nil }
