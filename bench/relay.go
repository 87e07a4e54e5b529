package main

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// relay is the lightest SMTP server that is still one: it checks nothing and keeps nothing but the number in a mail's
// subject, so that what is measured is the sender. It offers PIPELINING (RFC 2920), and answers in one write whatever
// came in one read.
type relay struct {
	listener net.Listener
	accepted func(id int64, at time.Time) // one call at a time; at is the moment before the 250 is written

	mu      sync.Mutex
	open    map[net.Conn]bool
	serving sync.WaitGroup
}

// listen starts a relay on loopback.
func listen(accepted func(id int64, at time.Time)) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, accepted: accepted, open: make(map[net.Conn]bool)}
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.mu.Lock()
			r.open[conn] = true
			r.mu.Unlock()
			r.serving.Go(func() { r.serve(conn) })
		}
	})
	return r, nil
}

// addr is where the relay listens, host:port.
func (r *relay) addr() string { return r.listener.Addr().String() }

// close ends all conversations and waits for them.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	for conn := range r.open {
		conn.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
}

func (r *relay) serve(conn net.Conn) {
	c := conversation{relay: r, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriter(conn)}
	err := c.say("220 bench ESMTP")
	for err == nil {
		err = c.command()
	}
	conn.Close()
	r.mu.Lock()
	delete(r.open, conn)
	r.mu.Unlock()
}

// conversation is one connection.
type conversation struct {
	relay *relay
	in    *bufio.Reader
	out   *bufio.Writer
}

var errQuit = errors.New("quit")

// command answers one command.
func (c *conversation) command() error {
	if c.in.Buffered() == 0 { // the client waits
		if err := c.out.Flush(); err != nil {
			return err
		}
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	verb, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		return c.say("250-bench\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
	case "DATA":
		return c.data()
	case "QUIT":
		return errors.Join(c.say("221 2.0.0 bye"), c.out.Flush(), errQuit)
	case "HELO", "MAIL", "RCPT", "RSET", "NOOP":
		return c.say("250 2.0.0 ok")
	}
	return c.say("500 5.5.1 no such command")
}

func (c *conversation) say(reply string) error {
	_, err := c.out.WriteString(reply + "\r\n")
	return err
}

// data reads a mail up to its dot.
func (c *conversation) data() error {
	if err := errors.Join(c.say("354 go ahead"), c.out.Flush()); err != nil {
		return err
	}
	id := int64(-1)
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if string(line) == ".\r\n" {
			break
		}
		if id < 0 {
			id = subject(line)
		}
	}
	at := time.Now()
	if err := errors.Join(c.say("250 2.0.0 queued"), c.out.Flush()); err != nil {
		return err
	}
	c.relay.mu.Lock()
	defer c.relay.mu.Unlock()
	c.relay.accepted(id, at)
	return nil
}

// subject is the number in a subject's line "Subject: change 17"; -1 if the line is another one.
func subject(line []byte) int64 {
	number, ok := bytes.CutPrefix(line, []byte("Subject: change "))
	if !ok {
		return -1
	}
	id, err := strconv.ParseInt(string(bytes.TrimSpace(number)), 10, 64)
	if err != nil {
		return -1
	}
	return id
}
