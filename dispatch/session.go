package dispatch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// Timeouts bound the phases of a conversation with the relay. Zero means the default.
type Timeouts struct {
	Dial    time.Duration // connecting, greeting, TLS and AUTH together; 30 s
	Command time.Duration // each of MAIL, RCPT, DATA; 1 min
	Body    time.Duration // sending the mail; 3 min
	Dot     time.Duration // from the final dot to its reply; 10 min (RFC 5321 §4.5.3.2.6: less makes duplicates)
}

// session is one connection to the relay, ready for a mail. One goroutine uses it at a time.
//
// go-mail makes the connection (dial, EHLO, TLS, AUTH); the mail transaction is said here: go-mail's takes no context,
// gives up its deadline after the first command, and needs four round trips.
type session struct {
	raw        net.Conn // below TLS: deadlines are set on it, and closing it cuts short whatever is going on
	text       *textproto.Conn
	timeouts   Timeouts
	pipelining bool
	size       bool
	dirty      bool // a transaction was begun and not finished: RSET comes first
	over       bool // it is of no use for another mail
	sent       int  // transactions so far
	idle       *time.Timer
}

// connect opens a session. Whatever goes wrong here is the relay's trouble and no message's.
func connect(ctx context.Context, r Relay, t Timeouts) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.Dial, fmt.Errorf("no answer within %s", t.Dial))
	defer cancel()
	s := &session{timeouts: t}
	stop := func() bool { return true }
	dial := func(inner context.Context, network, address string) (net.Conn, error) {
		conn, err := r.open(inner, network, address, s)
		if s.raw != nil { // from here on a context that ends cuts the handshake short, wherever it is
			stop = context.AfterFunc(ctx, s.cut)
		}
		return conn, err
	}
	client, err := mail.NewClient(r.Host, r.clientOptions(t.Dial, dial)...)
	if err != nil {
		return nil, err
	}
	c, err := client.DialToSMTPClientWithContext(ctx)
	if ended := !stop(); ended || ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.cut() // go-mail leaves the connection open when EHLO, STARTTLS or AUTH fail
		return nil, err
	}
	s.text = c.Text
	s.pipelining, _ = c.Extension("PIPELINING")
	s.size, _ = c.Extension("SIZE")
	return s, nil
}

func (r Relay) clientOptions(timeout time.Duration, dial mail.DialContextFunc) []mail.Option {
	policy := mail.NoTLS
	if r.Security == StartTLS {
		policy = mail.TLSMandatory
	}
	o := []mail.Option{
		mail.WithPort(r.Port), mail.WithTimeout(timeout), mail.WithTLSPolicy(policy), mail.WithTLSConfig(r.tlsConfig()),
		mail.WithDialContextFunc(dial),
	}
	if r.User != "" {
		o = append(o, mail.WithSMTPAuthCustom(&login{relay: r}))
	}
	return o
}

func (r Relay) tlsConfig() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.TLS != nil {
		c = r.TLS.Clone()
	}
	c.ServerName = r.Host
	return c
}

// open dials, and keeps the raw connection. go-mail leaves implicit TLS to whoever dials.
func (r Relay) open(ctx context.Context, network, address string, s *session) (net.Conn, error) {
	dial := r.dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext // sets TCP_NODELAY
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.raw = conn
	if r.Security != ImplicitTLS {
		return conn, nil
	}
	t := tls.Client(conn, r.tlsConfig())
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// login picks the mechanism when the relay has told what it offers. It serves one connection.
type login struct {
	relay  Relay
	chosen smtp.Auth
}

// Start is part of [smtp.Auth].
func (l *login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	user, password, host := l.relay.User, string(l.relay.Password), l.relay.Host
	switch {
	case slices.Contains(server.Auth, "SCRAM-SHA-256") && !server.TLS:
		l.chosen = smtp.ScramSHA256Auth(user, password)
	case slices.Contains(server.Auth, "CRAM-MD5") && !server.TLS:
		l.chosen = smtp.CRAMMD5Auth(user, password)
	case slices.Contains(server.Auth, "PLAIN"):
		l.chosen = smtp.PlainAuth("", user, password, host, false)
	case slices.Contains(server.Auth, "LOGIN"):
		l.chosen = smtp.LoginAuth(user, password, host, false)
	case slices.Contains(server.Auth, "SCRAM-SHA-256"):
		l.chosen = smtp.ScramSHA256Auth(user, password)
	case slices.Contains(server.Auth, "CRAM-MD5"):
		l.chosen = smtp.CRAMMD5Auth(user, password)
	default:
		return "", nil, fmt.Errorf("the relay offers no way to log in that is known here (AUTH %s)", strings.Join(server.Auth, " "))
	}
	return l.chosen.Start(server)
}

// Next is part of [smtp.Auth].
func (l *login) Next(fromServer []byte, more bool) ([]byte, error) {
	return l.chosen.Next(fromServer, more)
}

// cut ends the connection without a word: the only thing allowed once a mail's content has begun, and what cancels.
func (s *session) cut() {
	if s.raw != nil {
		s.raw.Close()
	}
}

// quit ends the connection politely.
func (s *session) quit() {
	_ = s.raw.SetDeadline(time.Now().Add(5 * time.Second))
	if s.text.PrintfLine("QUIT") == nil {
		_, _, _ = s.text.ReadResponse(221) // the answer changes nothing
	}
	s.cut()
}

// envelope is who a mail is from and to on the wire. All addresses were checked by parseAddress.
type envelope struct {
	from string
	to   string
	cc   []string
}

// errLate says that the lease was over before the dot.
var errLate = errors.New("no dot was begun in time")

// deliver says one mail and returns the reply that decides. The dot is not begun after the lease; when the context ends,
// the connection is cut. Afterwards the session may be over.
func (s *session) deliver(ctx context.Context, e envelope, body []byte, lease time.Time) reply {
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	s.sent++
	r := s.open(e, len(body))
	if r.phase == writing {
		refused := r.refused
		r = s.content(body, lease)
		r.refused = refused
	}
	if r.err != nil && ctx.Err() != nil {
		r.err = context.Cause(ctx)
	}
	if r.err != nil || r.code == 421 {
		s.end()
	}
	return r
}

// end cuts the connection for good.
func (s *session) end() {
	s.over = true
	s.cut()
}

// command is a line to the relay, and the phase that it belongs to.
type command struct {
	phase phase
	line  string
	copy  bool // RCPT of a copy
}

func (s *session) commands(e envelope, size int) []command {
	var list []command
	if s.dirty {
		list = append(list, command{mailing, "RSET", false})
	}
	from := "MAIL FROM:<" + e.from + ">"
	if s.size {
		from += " SIZE=" + strconv.Itoa(size)
	}
	list = append(list, command{mailing, from, false}, command{naming, "RCPT TO:<" + e.to + ">", false})
	for _, cc := range e.cc {
		list = append(list, command{naming, "RCPT TO:<" + cc + ">", true})
	}
	return append(list, command{opening, "DATA", false})
}

// open says MAIL, RCPT and DATA: in one flight where the relay offers PIPELINING (RFC 2920 §3.1: DATA comes last and
// every reply is read), one by one elsewhere. Its reply is in phase writing when the content may follow.
//
// A copy that is refused for good does not keep the mail from the one it is for; one that is put off does.
func (s *session) open(e envelope, size int) reply {
	commands := s.commands(e, size)
	flight := 1
	if s.pipelining {
		flight = len(commands)
	}
	s.dirty = true
	var refused []string
	verdict := reply{phase: writing}
	for some := range slices.Chunk(commands, flight) {
		_ = s.raw.SetDeadline(time.Now().Add(s.timeouts.Command))
		for _, c := range some {
			_, _ = s.text.W.WriteString(c.line + "\r\n") // Flush tells of a failure
		}
		if err := s.text.W.Flush(); err != nil {
			return reply{phase: some[0].phase, err: err}
		}
		for _, c := range some {
			r := s.read(c.phase)
			switch {
			case r.err != nil && verdict.phase == writing:
				return r
			case r.err != nil: // it hung up after saying why
				s.end()
				return verdict
			case c.phase == opening && r.code == 354:
				if verdict.phase != writing {
					// It waits for a mail that must not be sent. A lone dot might send an empty one to a copy.
					s.end()
				}
			case r.code/100 == 2 && c.phase != opening:
			case c.copy && r.code/100 == 5:
				refused = append(refused, strings.TrimPrefix(c.line, "RCPT TO:")+": "+r.String())
			case verdict.phase == writing:
				verdict = r
			}
		}
		if verdict.phase != writing {
			break
		}
	}
	verdict.refused = refused
	return verdict
}

// content sends the mail. What the dot-writer holds back until it is closed includes the end of the content, so the relay
// cannot have seen a dot before.
func (s *session) content(body []byte, lease time.Time) reply {
	_ = s.raw.SetDeadline(time.Now().Add(s.timeouts.Body))
	w := s.text.DotWriter() // makes CRLF of bare LF, doubles dots
	if _, err := w.Write(body); err != nil {
		return reply{phase: writing, err: err}
	}
	if !time.Now().Before(lease) {
		return reply{phase: writing, err: errLate}
	}
	_ = s.raw.SetDeadline(time.Now().Add(s.timeouts.Dot))
	if err := w.Close(); err != nil {
		return reply{phase: dotted, err: err}
	}
	r := s.read(dotted)
	s.dirty = r.err != nil
	return r
}

func (s *session) read(p phase) reply {
	code, text, err := s.text.ReadResponse(0)
	return reply{phase: p, code: code, text: text, err: err}
}
