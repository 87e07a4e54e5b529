package dispatch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
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
	utf8       bool // it takes addresses that are not ASCII (RFC 6531)
	limit      int  // of a mail's bytes, as SIZE has it (RFC 1870); 0: none is known
	most       int  // mails over it
	names      int  // recipients of one mail, as LIMITS RCPTMAX has it (RFC 9422); 0: none is known
	dirty      bool // a transaction was begun and not finished: RSET comes first
	over       bool // it is of no use for another mail
	kept       bool // it was idle, and may have died since
	slow       bool // it took long to take the last mail: the next is not begun before that is taken
	sent       int  // transactions so far
	since      time.Time
	idle       *time.Timer
	ahead      *said  // along with the mail before: the replies to it come next, and are about that mail alone
	flight     []byte // memory for what is written
	heard      *transcript
}

var errNoAnswer = errors.New("no answer")

// connect opens a session. Whatever goes wrong here is the relay's trouble and no message's.
func connect(ctx context.Context, r Relay, t Timeouts) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.Dial, fmt.Errorf("%w within %s", errNoAnswer, t.Dial))
	defer cancel()
	s := &session{timeouts: t, since: time.Now(), heard: r.heard}
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
	s.most = r.Limits.PerConnection
	s.extensions(c)
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
	if r.heard != nil {
		o = append(o, mail.WithDebugLog(), mail.WithLogger(r.heard))
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
	if r.heard != nil {
		c.VerifyConnection = r.heard.secured
	}
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
	r.heard.connected(conn)
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
	mechanism, first, err := l.chosen.Start(server)
	if l.relay.heard != nil && err == nil {
		l.relay.heard.mechanism = mechanism
	}
	return mechanism, first, err
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

// ascii says whether all of its addresses are.
func (e *envelope) ascii() bool {
	return ascii(e.to) && !slices.ContainsFunc(e.cc, func(s string) bool { return !ascii(s) })
}

// said is an envelope that was said.
type said struct {
	job      *job
	commands []command
}

// errStep says that the relay answers to something else than was said.
var errStep = errors.New("the relay is out of step")

// slowAfter is how long a mail's reply may take before the mail behind it is better off elsewhere: its lease would end in waiting.
const slowAfter = leaseFor / 10

// errLate says that the lease was over before the dot.
var errLate = errors.New("no dot was begun in time")

// deliver says one mail and returns the reply that decides. The dot is not begun after the lease; when the context ends, the connection
// is cut. Afterwards the session may be over.
//
// Where the relay offers PIPELINING, next is asked, once, when the content is about to go: the envelope of the mail that it gives travels
// in the same flight (RFC 2920 §3.1), and deliver takes no other mail next. So a mail takes one round trip. Where the reply is slow to come,
// the mail behind is given back, and the session is over.
func (s *session) deliver(ctx context.Context, j *job, next func() *job, back func(*job)) (r reply, behind *job) {
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	if r, unfit := s.unfit(j); unfit {
		return r, nil
	}
	s.sent++
	r = s.open(j)
	r.refused = append(r.refused, s.unnamed(j)...)
	if r.phase == writing {
		refused := r.refused
		r, behind = s.content(j, next, back)
		r.refused = refused
	}
	if r.err != nil && ctx.Err() != nil {
		r.err = context.Cause(ctx)
	}
	if r.err != nil || r.code == 421 || s.ahead == nil && s.text.R.Buffered() > 0 { // there is a reply too many
		s.end()
	}
	return r, behind
}

// unfit says whether the relay has said that it will not take such a mail: it is too large (RFC 1870), or an address is not ASCII (RFC 6531 §3.4,
// X.6.7 of §4.3). Then it hears nothing of it.
func (s *session) unfit(j *job) (reply, bool) {
	switch {
	case s.limit > 0 && len(j.body) > s.limit:
		return reply{own: true, phase: mailing, code: 552, text: fmt.Sprintf("5.3.4 the mail has %d bytes, and the relay takes %d (SIZE)", len(j.body), s.limit)}, true
	case !s.utf8 && !j.envelope.ascii():
		return reply{own: true, phase: mailing, code: 553, text: "5.6.7 what stands before the @ is not ASCII, and the relay does not take that (SMTPUTF8)"}, true
	}
	return reply{}, false
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
	copy  bool // RCPT of a copy,
	last  bool // without which the mail goes if that is put off, too: there is no later
}

func (s *session) commands(j *job, dirty bool) []command {
	list := make([]command, 0, 4+len(j.envelope.cc))
	if dirty {
		list = append(list, command{phase: mailing, line: "RSET"})
	}
	from := "MAIL FROM:<" + j.envelope.from + ">"
	if s.size {
		from += " SIZE=" + strconv.Itoa(len(j.body))
	}
	if !j.envelope.ascii() {
		from += " BODY=8BITMIME SMTPUTF8" // its header has the address, and so bytes above 127
	}
	list = append(list, command{phase: mailing, line: from}, command{phase: naming, line: "RCPT TO:<" + j.envelope.to + ">"})
	for _, cc := range j.envelope.cc[:s.copies(j)] {
		list = append(list, command{naming, "RCPT TO:<" + cc + ">", true, j.last})
	}
	return append(list, command{phase: opening, line: "DATA"})
}

// copies is how many of a mail's copies go with it.
func (s *session) copies(j *job) int {
	if s.names == 0 {
		return len(j.envelope.cc)
	}
	return min(len(j.envelope.cc), s.names-1)
}

// unnamed says which copies do not go.
func (s *session) unnamed(j *job) (refused []string) {
	for _, cc := range j.envelope.cc[s.copies(j):] {
		refused = append(refused, fmt.Sprintf("<%s>: it takes no more than %d addresses a mail (LIMITS RCPTMAX)", cc, s.names))
	}
	return refused
}

// open says MAIL, RCPT and DATA: in one flight where the relay offers PIPELINING (RFC 2920 §3.1: DATA comes last and
// every reply is read), one by one elsewhere. Its reply is in phase writing when the content may follow.
//
// A copy that is refused for good does not keep the mail from the one it is for; one that is put off does, as long as there is a later.
func (s *session) open(j *job) reply {
	if a := s.ahead; a != nil {
		s.ahead = nil
		if a.job != j {
			return reply{phase: mailing, err: errStep}
		}
		return s.hear(a.commands)
	}
	commands := s.commands(j, s.dirty)
	flight := 1
	if s.pipelining {
		flight = len(commands)
	}
	s.dirty = true
	verdict := reply{phase: writing}
	for some := range slices.Chunk(commands, flight) {
		if s.text.R.Buffered() > 0 { // a reply to what has not been said
			return reply{phase: some[0].phase, err: errStep}
		}
		s.flight = appendCommands(s.flight[:0], some)
		s.heard.commands(some)
		if _, err := s.write(s.flight, time.Now().Add(s.timeouts.Command)); err != nil {
			return reply{phase: some[0].phase, err: err}
		}
		heard := s.hear(some)
		verdict.refused = append(verdict.refused, heard.refused...)
		if heard.phase != writing {
			heard.refused = verdict.refused
			return heard
		}
	}
	return verdict
}

func appendCommands(flight []byte, commands []command) []byte {
	for _, c := range commands {
		flight = append(append(flight, c.line...), "\r\n"...)
	}
	return flight
}

// hear reads the replies to commands, each of which has one.
func (s *session) hear(commands []command) reply {
	s.patience(s.timeouts.Command)
	verdict := reply{phase: writing}
	for _, c := range commands {
		r := s.read(c.phase)
		if r.err == nil && c.line == "RSET" && r.code/100 != 2 { // that is about no mail
			r = reply{phase: c.phase, err: fmt.Errorf("%w: %d %s (to RSET)", errStep, r.code, oneLine(r.text))}
		}
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
		case c.phase == opening && r.code < 400: // its replies are to other commands than it is thought here: what it does next, nobody knows
			s.end()
			return r
		case r.code/100 == 2 && c.phase != opening:
		case c.copy && (r.code/100 == 5 || c.last && r.code/100 == 4 && !relays(naming, r.code)):
			verdict.refused = append(verdict.refused, strings.TrimPrefix(c.line, "RCPT TO:")+": "+r.String())
		case verdict.phase == writing:
			r.refused = verdict.refused
			verdict = r
		}
	}
	return verdict
}

// content sends the mail and its dot, and behind it the envelope of the next.
func (s *session) content(j *job, next func() *job, back func(*job)) (r reply, behind *job) {
	if s.text.R.Buffered() > 0 { // a reply to what has not been said
		return reply{phase: writing, err: errStep}, nil
	}
	flight := appendContent(s.flight[:0], j.body)
	content := len(flight)
	flight = append(flight, ".\r\n"...)
	if s.pipelining && !s.slow && !s.worn() {
		behind = next()
	}
	if behind != nil {
		flight = s.sayAhead(flight, behind)
	}
	if cap(flight) <= mostFlight {
		s.flight = flight
	}
	now := time.Now()
	deadline := now.Add(s.timeouts.Body)
	late := j.lease.Before(deadline)
	if late {
		deadline = j.lease
	}
	if !now.Before(deadline) {
		return reply{phase: writing, err: errLate}, behind
	}
	if s.heard != nil {
		s.heard.add("we", fmt.Sprintf("(the mail, %d bytes, and its dot)", len(j.body)))
	}
	switch n, err := s.write(flight, deadline); {
	case err != nil && n > content: // the relay may have seen the dot
		return reply{phase: dotted, err: err}, behind
	case err != nil && late && errors.Is(err, os.ErrDeadlineExceeded):
		return reply{phase: writing, err: errLate}, behind
	case err != nil:
		return reply{phase: writing, err: err}, behind
	}
	s.patience(s.timeouts.Dot)
	given := func() bool { return false }
	if behind != nil {
		given = after(slowAfter, func() { back(behind) })
	}
	r = s.read(dotted)
	s.slow = time.Since(now) > slowAfter
	s.dirty = r.err != nil || s.ahead != nil
	if given() { // its envelope was said, and its content will go elsewhere
		s.end()
		behind = nil
	}
	return r, behind
}

// sayAhead adds the envelope of the next mail to a flight, where the relay takes such a mail: the dot before ends a transaction, whatever becomes of it.
func (s *session) sayAhead(flight []byte, behind *job) []byte {
	if _, unfit := s.unfit(behind); unfit {
		return flight
	}
	s.ahead = &said{behind, s.commands(behind, false)}
	return appendCommands(flight, s.ahead.commands)
}

// after has something done after a while, unless done is called before; it says whether it was done.
func after(d time.Duration, f func()) (done func() bool) {
	ended := make(chan struct{})
	t := time.AfterFunc(d, func() {
		defer close(ended)
		f()
	})
	return func() bool {
		if t.Stop() {
			return false
		}
		<-ended
		return true
	}
}

// mostFlight is how much memory for flights a session keeps.
const mostFlight = 256 << 10

// write writes a flight, and says how much of it may have left.
func (s *session) write(flight []byte, deadline time.Time) (int, error) {
	_ = s.raw.SetWriteDeadline(deadline)
	n, err := s.text.W.Write(flight)
	if err == nil {
		err = s.text.W.Flush()
	}
	if err != nil {
		n = min(n, len(flight)-s.text.W.Buffered())
	}
	return n, err
}

// patience is how long the next replies may take, together.
func (s *session) patience(d time.Duration) { _ = s.raw.SetReadDeadline(time.Now().Add(d)) }

func (s *session) read(p phase) reply {
	code, text, err := readReply(s.text.R)
	r := reply{phase: p, code: code, text: text, err: err}
	s.heard.reply(r)
	return r
}

// extensions notes what the relay offers: PIPELINING (RFC 2920), SIZE (RFC 1870), and how many mails it takes over a connection, and recipients of a mail
// (RFC 9422).
func (s *session) extensions(c *smtp.Client) {
	s.pipelining, _ = c.Extension("PIPELINING")
	var limit, limits string
	s.size, limit = c.Extension("SIZE")
	s.limit, _ = strconv.Atoi(limit) // nothing, or 0: it says none
	s.utf8, _ = c.Extension("SMTPUTF8")
	_, limits = c.Extension("LIMITS")
	for word := range strings.FieldsSeq(limits) {
		name, number, _ := strings.Cut(word, "=")
		n, err := strconv.Atoi(number)
		switch {
		case err != nil || n <= 0:
		case name == "MAILMAX":
			s.most = min(s.most, n)
		case name == "RCPTMAX":
			s.names = n
		}
	}
}
