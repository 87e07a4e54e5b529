package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// How long connections to the relay live. SES, SendGrid and others ask that they are not kept for ever.
const (
	idleFor     = 30 * time.Second
	mostPerConn = 100 // messages
)

// lanes keeps connections to the relay open between messages. The one used last is used next, so that as few as the load
// needs stay warm. Safe for many goroutines.
type lanes struct {
	relay    Relay
	timeouts Timeouts

	mu     sync.Mutex
	idle   []*session
	open   int
	closed bool
	wg     sync.WaitGroup // of those saying QUIT
}

// get returns a session; kept: it was idle, and may have died since.
func (l *lanes) get(ctx context.Context) (s *session, kept bool, err error) {
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		s, l.idle = l.idle[n-1], l.idle[:n-1]
	}
	l.mu.Unlock()
	if s != nil {
		s.idle.Stop() // should it fire all the same, retire will not find the session among the idle
		return s, true, nil
	}
	s, err = l.dial(ctx)
	return s, false, err
}

func (l *lanes) dial(ctx context.Context) (*session, error) {
	s, err := connect(ctx, l.relay, l.timeouts)
	if err == nil {
		l.mu.Lock()
		l.open++
		l.mu.Unlock()
	}
	return s, err
}

// put keeps a session for the next message, or says good-bye when it served long enough.
func (l *lanes) put(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || s.sent >= mostPerConn {
		l.quit(s)
		return
	}
	l.idle = append(l.idle, s)
	s.idle = time.AfterFunc(idleFor, func() { l.retire(s) })
}

// drop forgets a session that is at its end.
func (l *lanes) drop(s *session) {
	s.cut()
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
}

// retire ends a session that was idle for too long.
func (l *lanes) retire(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.idle, s); i >= 0 {
		l.idle = slices.Delete(l.idle, i, i+1)
		l.quit(s)
	}
}

// quit is called with mu held.
func (l *lanes) quit(s *session) {
	l.open--
	l.wg.Go(s.quit)
}

// count is how many connections are open.
func (l *lanes) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// warm connects a lane ahead of its first message.
func (l *lanes) warm(ctx context.Context) error {
	s, err := l.dial(ctx)
	if err == nil {
		l.put(s)
	}
	return err
}

// close ends all idle sessions, and those in use when they are put back.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	for _, s := range l.idle {
		s.idle.Stop()
		l.quit(s)
	}
	l.idle = nil
	l.mu.Unlock()
	l.wg.Wait()
}

// reset drops all idle sessions: what made one fail has likely ended them all.
func (l *lanes) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.idle {
		s.idle.Stop()
		s.cut()
		l.open--
	}
	l.idle = nil
}
