package dispatch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"postman/outbox"
)

// RelayState says whether the relay takes mail.
type RelayState string

// The states of the relay. It begins as up: the first conversation will tell.
const (
	RelayUp      RelayState = "up"
	RelayDown    RelayState = "down"    // nothing is sent; it is tried again by connecting
	RelayProbing RelayState = "probing" // it answers again; one message at a time until one was decided
)

// How long a relay in trouble is left alone. The pause doubles until a message was decided.
const (
	firstPause = 500 * time.Millisecond
	mostPause  = 30 * time.Second
)

// gate lets as many messages through to the relay as there are lanes, high priority first, and none while the relay is in
// trouble: it is also the circuit breaker. Safe for many goroutines.
type gate struct {
	changed func() // called, without the lock, when more may pass than before
	opened  chan struct{}

	mu         sync.Mutex
	most       int           // lanes there are
	lanes      int           // that the relay takes
	refused    time.Time     // when it last refused one
	widened    time.Time     // when one more was last tried
	told       int           // lanes that it was last said to take
	narrowed   time.Duration // how long it is left at what it takes
	pipelining bool          // the relay pipelines: a connection may have a mail whose reply is awaited, and one whose envelope travels with it
	service    time.Duration // how long a connection has a mail, on average of late; 0: not known yet
	inside     int
	waiting    [3][]chan struct{} // by priority; a closed channel is a ticket
	state      RelayState
	since      time.Time
	cause      error
	pause      time.Duration
}

func newGate(lanes int, changed func()) *gate {
	return &gate{changed: changed, opened: make(chan struct{}, 1), most: lanes, lanes: lanes, state: RelayUp, since: time.Now()}
}

// describe fills in the gate's part of a status.
func (g *gate) describe(s *Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.State, s.Since, s.InFlight = g.state, g.since, g.inside
	if g.cause != nil {
		s.LastError = g.cause.Error()
	}
}

// connections is how many the relay takes.
func (g *gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lanes
}

// pipelines notes that the relay takes commands ahead of its replies, or that it does not.
func (g *gate) pipelines(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pipelining = yes; yes {
		g.admit()
	}
}

// What is `sending` in the store and waits for its connection, so that none waits for the store: as many mails as the connections say while
// a few commits last. A relay that takes its time has few, so that little is uncertain when the process dies, and no lease ends in waiting.
const (
	inReserve   = 20 * time.Millisecond
	mostReserve = 16 // for each connection
)

// took notes how long a connection had a mail that the relay answered to.
func (g *gate) took(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.service == 0 {
		g.service = d
	}
	g.service = max(1, g.service-g.service/16+d/16)
}

// depth is how many mails a connection may have. Called with mu held.
func (g *gate) depth() int {
	least := 1
	if g.pipelining {
		least = 2
	}
	if g.service == 0 {
		return least
	}
	return max(least, min(int(inReserve/g.service), mostReserve))
}

// limit is called with mu held.
func (g *gate) limit() int {
	switch g.state {
	case RelayUp:
		return g.depth() * g.lanes
	case RelayProbing:
		return 1
	case RelayDown:
	}
	return 0
}

// capacity is how many messages may be inside while the relay is up.
func (g *gate) capacity() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.depth() * g.lanes
}

// free is how many messages could pass now.
func (g *gate) free() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.limit()-g.inside)
}

// down says whether nothing can pass for a while.
func (g *gate) down() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == RelayDown
}

// tryEnter passes when a lane is free at once.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside >= g.limit() {
		return false
	}
	g.inside++
	return true
}

// enter waits for a lane until the context ends.
func (g *gate) enter(ctx context.Context, p outbox.Priority) bool {
	if ctx.Err() != nil {
		return false
	}
	g.mu.Lock()
	if g.inside < g.limit() {
		g.inside++
		g.mu.Unlock()
		return true
	}
	ticket := make(chan struct{})
	g.waiting[p] = append(g.waiting[p], ticket)
	g.mu.Unlock()
	select {
	case <-ticket:
		return true
	case <-ctx.Done():
		return g.giveUp(p, ticket)
	}
}

// giveUp takes a ticket out of the line; true: it was handed over meanwhile.
func (g *gate) giveUp(p outbox.Priority, ticket chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting[p], ticket)
	if i < 0 {
		return true
	}
	g.waiting[p] = slices.Delete(g.waiting[p], i, i+1)
	return false
}

// leave makes room for the next.
func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	g.admit()
	g.mu.Unlock()
}

// admit hands out tickets while there is room; it is called with mu held.
func (g *gate) admit() {
	for p := range g.waiting {
		for len(g.waiting[p]) > 0 && g.inside < g.limit() {
			close(g.waiting[p][0])
			g.waiting[p] = g.waiting[p][1:]
			g.inside++
		}
	}
}

// trouble notes that the relay does not take mail; true: that is news.
func (g *gate) trouble(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == RelayDown {
		return false // the others that were inside fail for the same reason
	}
	news := g.state == RelayUp
	g.pause = min(max(firstPause, 2*g.pause), mostPause)
	if news {
		g.since = time.Now()
	}
	g.state, g.cause = RelayDown, err
	select {
	case g.opened <- struct{}{}:
	default:
	}
	return news
}

// How long a relay that takes fewer connections than there are lanes is left at that. The pause doubles each time it refuses one more again:
// some mean it, and some only refuse one now and then.
const (
	widenAfter = 5 * time.Second
	widenMost  = 2 * time.Minute
)

// narrow notes that the relay takes no more than n connections; true: that is news.
func (g *gate) narrow(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.refused) > 2*widenMost { // it had taken all for a while
		g.narrowed = 0
	}
	g.refused, g.narrowed = time.Now(), min(max(widenAfter, 2*g.narrowed), widenMost)
	g.lanes = max(1, min(n, g.lanes))
	news := g.told != g.lanes
	g.told = g.lanes
	return news
}

// decided notes that the relay answered to a message: it works. True: that is news.
func (g *gate) decided() (time.Duration, bool) {
	g.mu.Lock()
	if g.lanes < g.most && time.Since(g.refused) > g.narrowed && time.Since(g.widened) > g.narrowed {
		g.lanes++
		g.widened = time.Now() // one at a time
		g.admit()
	}
	if g.state != RelayProbing {
		g.mu.Unlock()
		return 0, false // up already; or down, and this answer is older than the trouble
	}
	lasted := time.Since(g.since)
	g.state, g.since, g.cause, g.pause = RelayUp, time.Now(), nil, 0
	g.admit()
	g.mu.Unlock()
	g.changed()
	return lasted, true
}

// probing lets one message through to a relay that could be connected to.
func (g *gate) probing() {
	g.mu.Lock()
	g.state = RelayProbing
	g.admit()
	g.mu.Unlock()
	g.changed()
}

// probe waits for trouble, and after a pause tries to connect, again and again, until that works. It returns when the
// context ends.
func (g *gate) probe(ctx context.Context, connect func(context.Context) error) {
	for {
		select {
		case <-g.opened:
		case <-ctx.Done():
			return
		}
		for {
			if !pause(ctx, g.nextPause()) {
				return
			}
			err := connect(ctx)
			if err == nil {
				break
			}
			g.failed(err)
		}
		g.probing()
	}
}

// nextPause is jittered, so that many processes do not come back at once.
func (g *gate) nextPause() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pause/2 + rand.N(g.pause/2)
}

func (g *gate) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cause = err
	g.pause = min(2*g.pause, mostPause)
}

// pause waits; false: the context ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
