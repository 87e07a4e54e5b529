package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"
)

// Step is what a [Fake] does at a command instead of what is usual. The zero Step says nothing and goes on with the next command.
type Step struct {
	Reply string        // a line, or several with \r\n between; empty: none
	Raw   string        // bytes behind it, as they are
	Wait  time.Duration // before the reply
	Hang  bool          // say nothing, until the client gives up
	Close bool          // close after the reply
	Usual bool          // do what is usual: in a list, the command before the one that fails
}

// Drop closes the connection without a reply.
var Drop = Step{Close: true}

// Reply answers with a line and goes on.
func Reply(line string) Step { return Step{Reply: line} }

// Script says how a [Fake] answers. Commands are EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, RSET, QUIT, NOOP; CONNECT is the greeting
// and DOT the end of the mail. "RCPT kim@example.com" is one recipient's.
type Script struct {
	Extensions []string // of the EHLO reply, such as PIPELINING
	// TLS is begun with after a 220 to STARTTLS; it is offered where Extensions say so.
	TLS *tls.Config
	// Steps are used up one by one, over all connections, before what is usual; Always is never used up.
	Steps  map[string][]Step
	Always map[string]Step
}

// Fake plays a dialogue. It is reached over loopback ([Fake.Listen]) or over pipes ([Fake.Dial]).
type Fake struct {
	mu       sync.Mutex
	script   Script
	commands []string
	mails    []Mail
	conns    int
	open     map[net.Conn]bool
	listener net.Listener
	wg       sync.WaitGroup
}

// NewFake returns a fake that nobody can reach yet.
func NewFake(script Script) *Fake {
	return &Fake{script: script, open: make(map[net.Conn]bool)}
}

// Play changes the script, from the next command on.
func (f *Fake) Play(script Script) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

// Listen serves on loopback and returns the address.
func (f *Fake) Listen() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	f.listener = l
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(c)
		}
	})
	return l.Addr().String(), nil
}

// Dial returns the client's end of a new pipe: no network, so it works inside a synctest bubble.
func (f *Fake) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	f.serve(server)
	return client, nil
}

func (f *Fake) serve(c net.Conn) {
	f.mu.Lock()
	f.conns++
	f.open[c] = true
	n := f.conns
	f.mu.Unlock()
	f.wg.Go(func() {
		p := player{fake: f, conn: c, n: n, r: textproto.NewReader(bufio.NewReader(c))}
		p.play()
		c.Close()
		f.mu.Lock()
		delete(f.open, c)
		f.mu.Unlock()
	})
}

// Close ends all conversations and waits for them.
func (f *Fake) Close() {
	if f.listener != nil {
		f.listener.Close()
	}
	f.Cut()
	f.wg.Wait()
}

// Cut closes the connections that are open.
func (f *Fake) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.Close()
	}
}

// Commands lists what clients said so far, one line each.
func (f *Fake) Commands() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

// Mails lists the mails whose final dot was read, whatever was answered.
func (f *Fake) Mails() []Mail {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mails)
}

// Connections is how many connections were made so far.
func (f *Fake) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

// step says what to do at a command.
func (f *Fake) step(command string) Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.script.Steps[command]; len(s) > 0 {
		f.script.Steps[command] = s[1:]
		return s[0]
	}
	if s, ok := f.script.Always[command]; ok {
		return s
	}
	return Step{Usual: true}
}

// knows says whether there is a step for it.
func (f *Fake) knows(command string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, always := f.script.Always[command]
	return always || len(f.script.Steps[command]) > 0
}

// player is one conversation.
type player struct {
	fake *Fake
	conn net.Conn
	n    int
	r    *textproto.Reader
	mail Mail
	open bool // a transaction is
}

var errOver = errors.New("the conversation is over")

func (p *player) play() {
	if p.act("CONNECT", "220 fake ESMTP") != nil {
		return
	}
	for {
		line, err := p.r.ReadLine()
		if err != nil || p.command(line) != nil {
			return
		}
	}
}

func (p *player) command(line string) error {
	p.fake.mu.Lock()
	p.fake.commands = append(p.fake.commands, line)
	p.fake.mu.Unlock()
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	switch verb {
	case "EHLO":
		return p.act(verb, p.ehlo())
	case "MAIL":
		return p.from(arg)
	case "RSET":
		p.open = false
	case "RCPT":
		p.mail.To = append(p.mail.To, path(arg))
		if own := verb + " " + path(arg); p.fake.knows(own) {
			return p.act(own, "")
		}
	case "DATA":
		return p.data()
	case "STARTTLS":
		return p.secure()
	case "AUTH":
		return p.act(verb, "235 2.7.0 welcome")
	case "QUIT":
		return errors.Join(p.act(verb, "221 2.0.0 bye"), errOver)
	}
	return p.act(verb, "250 2.0.0 ok")
}

// from begins a transaction; one that is open has to be ended before (RFC 5321 §4.1.1.2).
func (p *player) from(arg string) error {
	if p.open {
		return p.act("MAIL", "503 5.5.1 nested MAIL")
	}
	reply, err := p.say("MAIL", "250 2.1.0 ok")
	p.open = strings.HasPrefix(reply, "250")
	p.mail = Mail{From: path(arg), Conn: p.n}
	return err
}

func (p *player) ehlo() string {
	p.fake.mu.Lock()
	lines := append([]string{"fake"}, p.fake.script.Extensions...)
	p.fake.mu.Unlock()
	for i := range lines {
		lines[i] = "250-" + lines[i]
	}
	last := len(lines) - 1
	lines[last] = "250 " + lines[last][4:]
	return strings.Join(lines, "\r\n")
}

// path is what stands between the angle brackets.
func path(arg string) string {
	_, arg, _ = strings.Cut(arg, "<")
	arg, _, _ = strings.Cut(arg, ">")
	return arg
}

func (p *player) data() error {
	reply, err := p.say("DATA", "354 go ahead")
	if err != nil || !strings.HasPrefix(reply, "354") {
		return err
	}
	data, err := io.ReadAll(p.r.DotReader())
	if err != nil {
		return err
	}
	p.open = false
	p.mail.Data, p.mail.Time = data, time.Now()
	p.fake.mu.Lock()
	n := len(p.fake.mails)
	p.fake.mails = append(p.fake.mails, p.mail)
	p.fake.mu.Unlock()
	reply, err = p.say("DOT", "250 2.0.0 queued as 4242")
	p.fake.mu.Lock()
	p.fake.mails[n].Reply = reply
	p.fake.mu.Unlock()
	return err
}

// secure goes on with TLS: what the client may have said behind its STARTTLS is forgotten.
func (p *player) secure() error {
	reply, err := p.say("STARTTLS", "220 2.0.0 go ahead")
	p.fake.mu.Lock()
	config := p.fake.script.TLS
	p.fake.mu.Unlock()
	if err != nil || !strings.HasPrefix(reply, "220 ") || config == nil {
		return err
	}
	p.conn = tls.Server(p.conn, config)
	p.r = textproto.NewReader(bufio.NewReader(p.conn))
	return nil
}

func (p *player) act(command, usual string) error {
	_, err := p.say(command, usual)
	return err
}

// say answers a command, and returns what it said.
func (p *player) say(command, usual string) (string, error) {
	s := p.fake.step(command)
	if s.Usual {
		s.Reply = usual
	}
	if s.Hang {
		_, _ = io.Copy(io.Discard, p.conn) // until the client closes
		return "", errOver
	}
	time.Sleep(s.Wait)
	if s.Reply != "" {
		if _, err := io.WriteString(p.conn, s.Reply+"\r\n"); err != nil {
			return "", err
		}
	}
	if s.Raw != "" {
		if _, err := io.WriteString(p.conn, s.Raw); err != nil {
			return "", err
		}
	}
	if s.Close {
		return s.Reply, errOver
	}
	return s.Reply, nil
}
