package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"postman/outbox"
)

// How long connections to the relay live. SES, SendGrid and others ask that they are not kept for ever.
const (
	idleFor = 30 * time.Second
	mostAge = 5 * time.Minute
)

// worn says whether the session has served long enough.
func (s *session) worn() bool { return s.sent >= s.most || time.Since(s.since) >= mostAge }

// lanes brings mails to the relay over connections that stay open between them. A connection has one goroutine while it has mails, which
// says one after the other. The connection used last is used next, so that as few as the load needs stay warm. Safe for many goroutines.
type lanes struct {
	relay    Relay
	timeouts Timeouts
	// connections is how many there may be for mails of a priority.
	connections func(outbox.Priority) int
	// connected is told whether a new connection pipelines.
	connected func(pipelines bool)
	// late is told that mails waited for a connection until their leases were over.
	late func()
	// refused says what a failure to connect, while so many connections are open, means for the mail; nil: it goes over one of these.
	refused func(ctx context.Context, err error, open int) *reply
	// finish is told what became of each mail, and from when on a connection had it.
	finish func(ctx context.Context, j *job, r reply, started time.Time)

	alone chan struct{} // has room for whoever opens the first connection

	mu      sync.Mutex
	idle    []*session
	waiting [3][]*job   // by priority
	watch   *time.Timer // of the leases of these; nil: none waits
	open    int         // connections
	dialing int         // connections that are being opened
	leaving int         // connections that say QUIT: the relay has them until they are closed
	busy    int         // goroutines that have mails
	closed  bool
	resets  int
	wg      sync.WaitGroup // of these, and of those saying QUIT
}

// give brings a mail to a connection. It does not wait.
func (l *lanes) give(ctx context.Context, j *job) {
	j.carry = func(s *session) { l.serve(ctx, s, j) }
	l.mu.Lock()
	defer l.mu.Unlock()
	p, s := j.message.Priority, l.pop()
	if s == nil && (l.busy >= l.most(p) || !l.room(p)) {
		l.waiting[p] = append(l.waiting[p], j)
		l.watchLeases()
		return
	}
	l.begin(s, j)
}

// begin has a goroutine say a mail, over a session or over a new one. Called with mu held.
func (l *lanes) begin(s *session, j *job) {
	l.busy++
	l.wg.Go(func() { j.carry(s) })
}

// room says whether the relay may have one more connection, for mails of a priority. Called with mu held.
func (l *lanes) room(p outbox.Priority) bool {
	most := max(1, l.relay.Limits.Connections)
	if p == outbox.High {
		most++
	}
	return l.open+l.dialing+l.leaving < most
}

// pump has mails go on that waited for room. Whoever has a mail looks for the next itself. Called with mu held.
func (l *lanes) pump() {
	for i := range l.waiting {
		p := outbox.Priority(i)
		for len(l.waiting[p]) > 0 && l.busy < l.most(p) && (len(l.idle) > 0 || l.room(p)) {
			j := l.first()
			l.begin(l.pop(), j)
		}
	}
}

// watchEvery is how often mails that wait for a connection are looked at: what was not said within its lease goes back to the queue, and perhaps
// another way. When nothing comes to an end, as where the relay hangs, nobody else would look at them.
const watchEvery = leaseFor / 12

// watchLeases is called with mu held.
func (l *lanes) watchLeases() {
	if l.watch == nil {
		l.watch = time.AfterFunc(watchEvery, l.endLeases)
	}
}

// endLeases takes out the mails that have waited until their leases were over.
func (l *lanes) endLeases() {
	now := time.Now()
	over := func(j *job) bool { return !now.Before(j.lease) }
	var late []*job
	l.mu.Lock()
	l.watch = nil
	for p, list := range l.waiting {
		for _, j := range list {
			if over(j) {
				late = append(late, j)
			}
		}
		if l.waiting[p] = slices.DeleteFunc(list, over); len(l.waiting[p]) > 0 {
			l.watchLeases()
		}
	}
	l.mu.Unlock()
	if len(late) > 0 {
		l.late()
	}
	for _, j := range late {
		l.finish(context.Background(), j, reply{phase: dialing, err: errLate}, now)
	}
}

// next is the next mail that waits, if there is one.
func (l *lanes) next() *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first()
}

// first is called with mu held.
func (l *lanes) first() *job {
	for p := range l.waiting {
		if list := l.waiting[p]; len(list) > 0 {
			j := list[0]
			list[0] = nil // the array must not keep it alive
			l.waiting[p] = list[1:]
			return j
		}
	}
	return nil
}

// serve says a mail, and those that wait behind it.
func (l *lanes) serve(ctx context.Context, s *session, j *job) {
	for j != nil {
		started := time.Now()
		t := l.say(ctx, s, j)
		s = t.session
		next, rested := t.next, false
		if next == nil && s != nil { // whoever hears of the mail finds the connection idle
			s, next = l.rest(s)
			rested = true
		}
		if t.reply != nil {
			l.finish(ctx, j, *t.reply, started)
		}
		if next == nil && !rested {
			s, next = l.rest(nil)
		}
		j = next
	}
}

// turn is what came of one mail's turn.
type turn struct {
	reply   *reply   // to the mail; nil: it is next again, or another goroutine's
	session *session // that is of use for another mail; nil: none
	next    *job     // that has to go over the session, or over a new one where there is none
}

// say says one mail over a session, or over a new one. A connection that was open before may have died since it was last used: then the
// mail has not met the relay, and is said on a new one.
func (l *lanes) say(ctx context.Context, s *session, j *job) turn {
	if !time.Now().Before(j.lease) {
		if s != nil && s.ahead != nil { // the relay waits for this mail's content, and must not get another's
			l.drop(s)
			s = nil
		}
		return turn{reply: &reply{phase: writing, err: errLate}, session: s}
	}
	if s == nil {
		var err error
		s, err = l.dial(ctx, j.message.Priority)
		switch {
		case errors.Is(err, errFull):
			l.putBack(j)
			return turn{}
		case err != nil:
			return turn{reply: l.unreachable(ctx, j, err)}
		}
	}
	r, behind := s.deliver(ctx, j, l.next, func(j *job) { l.give(ctx, j) })
	used := s.kept || s.sent > 1
	s.kept = false
	if s.over {
		l.drop(s)
		s = nil
	}
	if used && r.stale() && ctx.Err() == nil {
		if behind != nil { // the relay has heard nothing of it, either
			l.putBack(behind)
		}
		if s == nil {
			l.reset() // the others that were idle have died with it; so this ends
		} else {
			l.end(s)
		}
		return turn{next: j}
	}
	if s != nil && behind == nil && s.worn() {
		l.end(s)
		s = nil
	}
	return turn{&r, s, behind}
}

// putBack has a mail be the next of its priority.
func (l *lanes) putBack(j *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := j.message.Priority
	l.waiting[p] = slices.Insert(l.waiting[p], 0, j)
	l.watchLeases()
}

// unreachable says what becomes of a mail for which there is no connection; nil: the relay has others, over which it goes.
func (l *lanes) unreachable(ctx context.Context, j *job, err error) *reply {
	l.mu.Lock()
	others := l.open
	if others > 0 {
		others += l.dialing
	}
	l.mu.Unlock()
	r := l.refused(ctx, err, others)
	if r == nil {
		l.putBack(j)
	}
	return r
}

// rest is what a goroutine without a mail goes on with: one that waits, or nothing. Then its session is idle, or ends.
func (l *lanes) rest(s *session) (*session, *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	p := outbox.Normal
	if len(l.waiting[outbox.High]) > 0 {
		p = outbox.High
	}
	switch enough := l.busy >= l.most(p); {
	case s == nil && (enough || len(l.idle) == 0 && !l.room(p)): // pump goes on once there is room
		return nil, nil
	case s != nil && (enough || l.closed):
		l.quit(s)
		return nil, nil
	}
	j := l.first()
	switch {
	case j == nil && s != nil:
		l.keep(s)
		return nil, nil
	case j == nil:
		return nil, nil
	case s == nil:
		s = l.pop()
	}
	l.busy++
	return s, j
}

// most is how many connections may be busy: one at least, so that no mail waits for ever.
func (l *lanes) most(p outbox.Priority) int { return max(1, l.connections(p)) }

// pop is an idle connection; nil: there is none. Called with mu held.
func (l *lanes) pop() *session {
	n := len(l.idle)
	if n == 0 {
		return nil
	}
	s := l.idle[n-1]
	l.idle = l.idle[:n-1]
	s.idle.Stop() // should it fire all the same, retire will not find the session among the idle
	return s
}

// keep has a session wait for the next mail. Called with mu held.
func (l *lanes) keep(s *session) {
	s.kept = true
	l.idle = append(l.idle, s)
	s.idle = time.AfterFunc(idleFor, func() { l.retire(s) })
}

// dial opens a connection for mails of a priority, where there is room for it. The first is opened alone: a relay that takes fewer than are opened at
// once refuses some before it has taken the others.
func (l *lanes) dial(ctx context.Context, p outbox.Priority) (*session, error) {
	l.mu.Lock()
	if !l.room(p) {
		l.mu.Unlock()
		return nil, errFull
	}
	l.dialing++
	before := l.resets
	l.mu.Unlock()
	l.alone <- struct{}{}
	if l.count() > 0 {
		<-l.alone
	} else {
		defer func() { <-l.alone }()
	}
	s, err := l.connect(ctx, before)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialing--
	if err == nil {
		l.open++
	}
	return s, err
}

func (l *lanes) connect(ctx context.Context, troubles int) (*session, error) {
	if l.count() == 0 && l.troubles() != troubles { // of whoever was before in line
		return nil, errInTrouble
	}
	s, err := connect(ctx, l.relay, l.timeouts)
	if err == nil {
		l.connected(s.pipelining)
	}
	return s, err
}

// errFull says that the relay has as many connections of ours as it may.
var errFull = errors.New("all of its connections are in use")

// errInTrouble says that the relay got into trouble while a mail waited for the first connection to it.
var errInTrouble = errors.New("the relay does not answer")

// troubles counts how often all connections were given up.
func (l *lanes) troubles() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resets
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

// end ends a session politely.
func (l *lanes) end(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quit(s)
}

// quit is called with mu held.
func (l *lanes) quit(s *session) {
	l.open--
	l.leaving++
	l.wg.Go(func() {
		s.quit()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.leaving--
		l.pump()
	})
}

// count is how many connections are open.
func (l *lanes) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// warm connects a lane ahead of its first mail.
func (l *lanes) warm(ctx context.Context, p outbox.Priority) error {
	s, err := l.dial(ctx, p)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.pump()
	switch {
	case err != nil:
	case l.closed:
		l.quit(s)
	default:
		l.keep(s)
	}
	return err
}

// close ends all idle sessions, and those in use when they have no mail.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	for s := l.pop(); s != nil; s = l.pop() {
		l.quit(s)
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// reset drops all idle sessions: what made one fail has likely ended them all.
func (l *lanes) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resets++
	for s := l.pop(); s != nil; s = l.pop() {
		s.cut()
		l.open--
	}
}

// empty takes out the mails that wait.
func (l *lanes) empty() (left []*job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for j := l.first(); j != nil; j = l.first() {
		left = append(left, j)
	}
	return left
}
