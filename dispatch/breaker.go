package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
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

// breaker is the part of a gate that knows whether the relay works.
type breaker struct {
	state   RelayState
	since   time.Time
	cause   error
	rest    time.Duration // before it is tried again
	denials int           // mails in a row that were refused for what may be our fault with the relay, see denied
	refused int           // mails in a row that it refused for good, or with a policy, since it took one
	words   string        // its words to the last of these
	taken   time.Time     // when it took a mail last
	broken  int           // conversations in a row that broke or hung after the relay had taken the names

	answered time.Time // when it was heard last: of a mail, or as a connection was made
	failures int       // connections in a row, without a word of a mail between, that could not be made or broke while others were open
	hung     bool      // mails waited for connections until their leases were over, and nothing has come to an end since

	until time.Time // it throttles a single connection: nothing passes before
	old   int       // of inside, those from before the trouble, while it is probing
}

// trouble notes that the relay does not take mail; true: that is news.
func (g *gate) trouble(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == RelayDown {
		return false // the others that were inside fail for the same reason
	}
	news := g.state == RelayUp
	g.rest = min(max(firstPause, 2*g.rest), mostPause)
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

// narrow notes that the relay takes no more than n connections; true: that is news.
func (g *gate) narrow(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.climb.refused(time.Now(), n)
	return g.fewer()
}

// throttled notes that the relay finds a mail that began at a time too much: it gets half as many connections. Once it has one only, it is left alone
// for a while. False: it is in trouble already, or tried again.
func (g *gate) throttled(began time.Time, err error) (news, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != RelayUp {
		return false, false
	}
	now := time.Now()
	if g.climb.throttled(now, began) {
		return g.fewer(), true
	}
	g.climb.hold(now)
	news = g.cause == nil
	g.until, g.cause = now.Add(g.climb.pause), err
	time.AfterFunc(g.climb.pause, func() {
		g.wake()
		g.changed()
	})
	return news, true
}

// pausedFor is how long nothing passes, since it throttles, and a while more; 0: it is not so.
func (g *gate) pausedFor() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if left := time.Until(g.until); left > 0 {
		return left + 5*slowDown
	}
	return 0
}

// mostBroken is after how many conversations in a row that broke after the relay had taken the names it is in trouble.
const mostBroken = 3

// broke notes that a conversation broke, or that its reply did not come in time, after the relay had taken the names. True: it does so again and again.
func (g *gate) broke() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken++
	return g.broken >= mostBroken
}

// wellFor is how long ago a relay was heard at most that is well. A connection that fails then is no sign of trouble, as long as others are open.
const wellFor = 10 * time.Second

// fails notes that a connection could not be made, or broke before the relay had heard more than names, while others were open. True: it is the relay
// that is in trouble, since nothing was heard of it for a while, or since it does so again and again and no mail is answered.
func (g *gate) fails() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failures++
	return g.failures >= mostBroken || time.Since(g.answered) > wellFor
}

// stuck notes that mails waited for connections until their leases were over. True: nothing was heard of the relay meanwhile, and that is news.
func (g *gate) stuck() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	news := !g.hung && time.Since(g.answered) > leaseFor/2
	g.hung = g.hung || news
	return news
}

// moves notes that a conversation came to an end, whatever that was.
func (g *gate) moves() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hung = false
}

// hangs says whether the relay has all it takes, and is silent about it.
func (g *gate) hangs() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hung
}

// tookSince says whether it took a mail since.
func (g *gate) tookSince(t time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken.After(t)
}

// heard notes that the relay answered at all.
func (g *gate) heard() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken, g.failures, g.hung, g.answered = 0, 0, false, time.Now()
}

// fewer says whether it is news how many connections the relay takes. Called with mu held.
func (g *gate) fewer() bool {
	news := g.told != g.climb.now
	g.told = g.climb.now
	return news
}

// denied notes that the relay refused a mail for a reason that may be no mail's fault: it does not let us send, or not as this sender. What tells
// is whether it takes others: true when it took none since it denied the last one.
func (g *gate) denied() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.denials++
	return g.denials > 1
}

// refuses notes that the relay refused a mail in words that end it, or may.
func (g *gate) refuses(words string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	g.words = words
}

// decided notes that the relay answered to a message, and whether it took it: it works. True: that is news.
func (g *gate) decided(taken bool) (time.Duration, bool) {
	g.mu.Lock()
	if taken {
		g.denials, g.refused, g.words, g.taken = 0, 0, "", time.Now()
		if g.state == RelayUp {
			g.cause = nil
		}
	}
	if g.climb.answered(time.Now(), g.inside > g.climb.now || !g.idle()) {
		g.news.Broadcast()
	}
	if g.state != RelayProbing {
		g.mu.Unlock()
		return 0, false // up already; or down, and this answer is older than the trouble
	}
	lasted := time.Since(g.since)
	g.state, g.since, g.cause, g.rest, g.old = RelayUp, time.Now(), nil, 0, 0
	g.news.Broadcast()
	g.mu.Unlock()
	g.changed()
	return lasted, true
}

// probed says whether it is tried again.
func (g *gate) probed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == RelayProbing
}

// probing lets one message through to a relay that could be connected to.
func (g *gate) probing() {
	g.mu.Lock()
	g.state, g.old = RelayProbing, g.inside
	g.news.Broadcast()
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
	return g.rest/2 + rand.N(g.rest/2)
}

func (g *gate) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !errors.Is(err, errFull) { // conversations from before the trouble hang
		g.cause = err
	}
	g.rest = min(2*g.rest, mostPause)
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
