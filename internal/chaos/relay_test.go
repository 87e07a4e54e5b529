package chaos

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postman/internal/smtptest"
)

// relay is a real SMTP server that has its moods, behind a line that can be cut: all of it, as in an outage; one connection right after
// a final dot, so that the server has the mail and the client never learns it; or one in the middle of a mail.
type relay struct {
	server *smtptest.Server
	addr   string

	mu       sync.Mutex
	dice     *rand.Rand
	listener net.Listener          // nil while the relay is away
	open     map[net.Conn]net.Conn // of a client, and on to the server
	broken   []breakage
	counts   map[string]int
	serving  sync.WaitGroup
}

// breakage is the end of a connection that may have taken the reply to its last mail with it: that was cut off; or the relay went away; or
// it closed the connection behind a 421, so that what is said to it is answered with a reset, which takes with it what has arrived
// and was not read, such as the reply to the mail before, if that was said in one flight with the envelope that was told 421.
type breakage struct {
	at   time.Time
	conn int // as the server numbers it
}

// breaks notes that a connection breaks. Only with the lock.
func (r *relay) breaks(server net.Conn) {
	r.broken = append(r.broken, breakage{time.Now(), r.server.Connection(server.LocalAddr())})
}

// mood is something that a relay does now and then.
type mood struct {
	name  string
	oneIn int // how rarely, of the occasions that there are
	stage smtptest.Stage
	reply *smtp.SMTPError // nil: it takes its time, and goes on
}

// The replies are those of RFC 5321, section 4.2.2, and RFC 3463.
var moods = []mood{
	{"421 at MAIL", 2000, smtptest.From, &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "closing"}},
	{"451 at MAIL", 200, smtptest.From, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "not now"}},
	{"450 at RCPT", 150, smtptest.To, &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "mailbox busy"}},
	{"452 after the dot", 150, smtptest.Dot, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "no room"}},
	{"slow to answer RCPT", 300, smtptest.To, nil},
	{"slow to answer the dot", 300, smtptest.Dot, nil},
}

// How rarely a line is cut, or a connection refused with 421.
const (
	oneInDots    = 150
	oneInData    = 200
	oneInGreeted = 1500
)

const (
	dotDropped = "relay: reply to the final dot cut off"
	dataCut    = "relay: connection cut in the middle of a mail"
	turnedAway = "relay: 421 on connect"
)

// hook has a mood now and then.
func (r *relay) hook(e smtptest.Event) error {
	for _, m := range moods {
		if m.stage != e.Stage || !r.now("relay: "+m.name, m.oneIn) {
			continue
		}
		if m.reply != nil {
			return m.reply
		}
		time.Sleep(slow)
	}
	return nil
}

const slow = 400 * time.Millisecond

// now says whether something happens that does so rarely, and counts it.
func (r *relay) now(what string, oneIn int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dice.IntN(oneIn) > 0 {
		return false
	}
	r.counts[what]++
	return true
}

func (r *relay) counted() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}

func startRelay(t *testing.T, seed uint64) *relay {
	t.Helper()
	r := &relay{addr: "127.0.0.1:0", dice: rand.New(rand.NewPCG(seed, 1_000)), open: make(map[net.Conn]net.Conn), counts: make(map[string]int)}
	server, err := smtptest.Start(smtptest.Options{Hook: r.hook})
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
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

// hangUp refuses connections and cuts those that are open.
func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.Close()
		r.listener = nil
	}
	for client, server := range r.open {
		r.breaks(server)
		client.Close()
	}
}

// connect joins a client to the server until one of them, or an outage, ends it.
func (r *relay) connect(client net.Conn) {
	if r.now(turnedAway, oneInGreeted) {
		_, _ = io.WriteString(client, "421 4.3.2 try later\r\n") // it may have gone
		client.Close()
		return
	}
	server, err := net.Dial("tcp", r.server.Addr())
	if err != nil || !r.hold(client, server) {
		client.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		r.mails(server, client)
		_ = server.(*net.TCPConn).CloseWrite() // likewise
	})
	both.Go(func() {
		if r.replies(client, server) {
			r.mu.Lock()
			r.breaks(server)
			r.mu.Unlock()
		}
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
	r.open[client] = server
	return true
}

// mails passes on what the client says, and now and then only the beginning of a mail.
func (r *relay) mails(server io.Writer, client net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if at := bytes.Index(buf[:n], []byte("\r\nSubject: ")); at >= 0 && r.now(dataCut, oneInData) {
			_, _ = server.Write(buf[:at]) // it is cut off anyway
			client.Close()
			return
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// replies passes on what the server says, and now and then not that it took a mail. After 421 it closes (RFC 5321, section 3.8). It says
// whether it is the relay that has ended the conversation.
func (r *relay) replies(client io.Writer, server io.Reader) (ended bool) {
	buf := make([]byte, 4096)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return false
		}
		if bytes.Contains(buf[:n], []byte("queued")) && r.now(dotDropped, oneInDots) {
			return true
		}
		if _, err = client.Write(buf[:n]); err != nil {
			return false
		}
		if bytes.Contains(buf[:n], []byte("421 4.3.2 closing")) {
			return true
		}
	}
}
