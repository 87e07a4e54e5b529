package dispatch

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postman/outbox"
)

// gate lets as many mails through to a relay as it can take, high priority first, and none while the relay is in trouble: it is also
// the circuit breaker (breaker.go). What waits before it is rendered. Safe for many goroutines.
type gate struct {
	limits  Limits
	changed func() // called, without the lock, when more may pass than before
	opened  chan struct{}

	mu     sync.Mutex
	news   sync.Cond // on mu: a mail came, or more may pass
	ready  [3][]*job // by priority
	asking [3]int    // goroutines in enter, by priority
	turn   int       // mails of normal priority since one of bulk had its turn

	climb      climb
	told       int           // connections that it was last said to take
	pipelining bool          // the relay pipelines: a connection may have a mail whose reply is awaited, and one whose envelope travels with it
	service    time.Duration // how long a connection has a mail, on average of late; 0: not known yet
	inside     int
	high       int            // of inside
	domains    map[string]int // of inside; kept where there is a limit to it
	tokens     *rate.Limiter  // nil: no rate
	due        *time.Timer    // when there is a token again
	quota      quota

	breaker
}

func newGate(limits Limits, changed func()) *gate {
	g := &gate{
		limits: limits, changed: changed, opened: make(chan struct{}, 1), climb: newClimb(limits.Connections), domains: make(map[string]int),
		quota: quota{most: limits.Monthly}, breaker: breaker{state: RelayUp, since: time.Now()},
	}
	g.news.L = &g.mu
	if r := limits.Rate; r.Mails > 0 { // within any such time no more than one mail above it
		burst := max(1, r.Mails/20)
		g.tokens = rate.NewLimiter(rate.Limit(r.perSecond()*float64(r.Mails+1-burst)/float64(r.Mails)), burst)
	}
	g.due = time.AfterFunc(time.Hour, g.wake)
	g.due.Stop()
	return g
}

// beginMonth sets how much of a month's quota is used.
func (g *gate) beginMonth(month string, used int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quota.begin(month, used)
}

// sent counts a mail against the quota, and says whether people should be told now.
func (g *gate) sent() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.quota.sent(time.Now())
}

// wake has those who wait look again.
func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.news.Broadcast()
}

// describe fills in the gate's part of a status.
func (g *gate) describe(s *RelayStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quota.roll(time.Now())
	s.State, s.Since, s.InFlight, s.Takes = g.state, g.since, g.inside, g.climb.now
	s.Month, s.Used, s.Quota = g.quota.month, g.quota.used, g.quota.most
	if g.cause != nil {
		s.LastError = g.cause.Error()
	}
	s.Refused, s.Refusal, s.Denies = g.refused, g.words, g.denials > 1
	if time.Now().Before(g.until) {
		s.Paused = g.until
	}
}

// connections is how many there may be for mails of a priority.
func (g *gate) connections(p outbox.Priority) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lanes(p)
}

// lanes is called with mu held.
func (g *gate) lanes(p outbox.Priority) int {
	if p == outbox.High {
		return g.climb.now + g.climb.reserve(time.Now())
	}
	return g.climb.now
}

// connected notes that a connection was made, and whether the relay takes commands ahead of its replies.
func (g *gate) connected(pipelines bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = time.Now()
	if g.pipelining = pipelines; pipelines {
		g.news.Broadcast()
	}
}

// What is `sending` in the store and waits for its connection, so that none waits for the store: as many mails as the connections say while
// a few commits last. A relay that takes its time has few, so that little is uncertain when the process dies, and no lease ends in waiting.
const (
	inReserve   = 100 * time.Millisecond
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
		least = 3
	}
	if g.service == 0 || g.tokens != nil { // where mails are counted out, none need to be ahead
		return least
	}
	return max(least, min(int(inReserve/g.service), mostReserve))
}

// limit is how many mails may be inside before one of a priority. Called with mu held.
func (g *gate) limit(p outbox.Priority) int {
	switch {
	case g.state == RelayUp && !time.Now().Before(g.until):
		return g.depth() * g.lanes(p)
	case g.state == RelayProbing:
		return g.old + 1
	}
	return 0
}

// left is how many mails of a priority may pass. High ones wait for one another alone: there may be far more inside than there would be let in by now, as
// where the relay throttles or gets slow. Called with mu held.
func (g *gate) left(p outbox.Priority) int {
	if p == outbox.High && g.state == RelayUp {
		return g.limit(p) - g.high
	}
	return g.limit(p) - g.inside
}

// capacity is how many messages may be inside while the relay is up.
func (g *gate) capacity() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.depth() * g.climb.now
}

// free is how many messages of a priority could pass now.
func (g *gate) free(p outbox.Priority) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.left(p))
}

// takes says whether mails of a priority can pass before long: the relay is not in trouble, does not throttle, and its quota is not at its end. One
// that is tried again takes one.
func (g *gate) takes(p outbox.Priority) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open(p) && (g.state == RelayUp || g.inside == g.old && g.idle())
}

// open is called with mu held.
func (g *gate) open(p outbox.Priority) bool {
	now := time.Now()
	return g.state != RelayDown && !now.Before(g.until) && !g.quota.ended(p, 0, now)
}

// place is what an address counts as under PerDomain; empty: nothing.
func (g *gate) place(address string) string {
	if g.limits.PerDomain == 0 {
		return ""
	}
	return strings.ToLower(domainOf(address))
}

// pass lets a mail through that may go now. Called with mu held.
func (g *gate) pass(p outbox.Priority, place string) bool {
	now := time.Now()
	if g.left(p) <= 0 || g.crowded(place) || g.quota.ended(p, int64(g.inside), now) || !g.token(now) {
		return false
	}
	g.inside++
	if p == outbox.High {
		g.high++
	}
	if place != "" {
		g.domains[place]++
	}
	g.count(p)
	return true
}

// crowded says whether a domain has all that it may have. Called with mu held.
func (g *gate) crowded(place string) bool {
	return place != "" && g.domains[place] >= g.limits.PerDomain
}

// token takes one; false: there is none, and those who wait are woken when there is. Called with mu held.
func (g *gate) token(now time.Time) bool {
	if g.tokens == nil || g.tokens.AllowN(now, 1) {
		return true
	}
	missing := 1 - g.tokens.TokensAt(now)
	g.due.Reset(time.Duration(missing / float64(g.tokens.Limit()) * float64(time.Second)))
	return false
}

// leave makes room for the next.
func (g *gate) leave(p outbox.Priority, place string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if p == outbox.High {
		g.high--
	}
	g.old = max(0, g.old-1)
	if place != "" {
		if g.domains[place]--; g.domains[place] == 0 {
			delete(g.domains, place)
		}
	}
	g.news.Broadcast()
}

// tryEnter passes when that is possible at once.
func (g *gate) tryEnter(p outbox.Priority, place string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.behind(p) && g.pass(p, place)
}

// behind says whether a mail of higher priority waits. Called with mu held.
func (g *gate) behind(p outbox.Priority) bool {
	for q := range p {
		if len(g.ready[q])+g.asking[q] > 0 {
			return true
		}
	}
	return false
}

// enter waits to pass until the context ends, or the domain has all that it may have: others must not wait behind one that waits for that.
func (g *gate) enter(ctx context.Context, p outbox.Priority, place string) bool {
	defer context.AfterFunc(ctx, g.wake)()
	g.mu.Lock()
	defer g.mu.Unlock()
	for ctx.Err() == nil && !g.crowded(place) {
		if !g.behind(p) && g.pass(p, place) {
			return true
		}
		g.asking[p]++
		g.news.Wait()
		g.asking[p]--
	}
	g.news.Broadcast() // those behind it may have been woken for what it does not take
	return false
}

// push has a job wait for its turn; false: the relay is in trouble, and it had better go elsewhere.
func (g *gate) push(j *job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := j.message.Priority
	if !g.open(p) {
		return false
	}
	g.ready[p] = append(g.ready[p], j)
	g.news.Broadcast()
	return true
}

// take waits until a job may go, and takes out all that may; none: the context ended.
func (g *gate) take(ctx context.Context) []*job {
	defer context.AfterFunc(ctx, g.wake)()
	g.mu.Lock()
	defer g.mu.Unlock()
	for ctx.Err() == nil {
		var jobs []*job
		for g.worth(len(jobs)) {
			j := g.next()
			if j == nil {
				break
			}
			jobs = append(jobs, j)
		}
		if len(jobs) > 0 {
			return jobs
		}
		g.news.Wait()
	}
	return nil
}

// worth says whether it is worth a commit to take jobs out, of which so many are already: while no connection is about to be without a mail, they wait
// until half of what is in reserve was used. High priority does not, nor does what a relay is tried with again. Called with mu held.
func (g *gate) worth(taken int) bool {
	limit := g.limit(outbox.Normal)
	said := g.climb.now * min(2, g.depth()) // or about to be
	return taken > 0 || g.state != RelayUp || len(g.ready[outbox.High]) > 0 || g.inside <= said+(limit-said)/2
}

// turns is how many mails of normal priority go before one of bulk does.
const turns = 7

// next takes out the next job that may go. Called with mu held.
func (g *gate) next() *job {
	order := [...]outbox.Priority{outbox.High, outbox.Normal, outbox.Bulk}
	if g.turn >= turns {
		order[1], order[2] = outbox.Bulk, outbox.Normal
	}
	for _, p := range order {
		if g.asked(p) {
			break
		}
		for i, j := range g.ready[p] {
			if g.limits.PerDomain == 0 && i > 0 {
				break // what keeps the first back keeps all of them
			}
			if g.pass(p, j.place) {
				g.ready[p] = slices.Delete(g.ready[p], i, i+1)
				return j
			}
		}
	}
	return nil
}

// asked says whether somebody asks for a place for a mail that goes first. Called with mu held.
func (g *gate) asked(p outbox.Priority) bool {
	for q := range p {
		if g.asking[q] > 0 && (q == outbox.High || g.turn < turns) {
			return true
		}
	}
	return false
}

// count keeps account of whose turn it is. Called with mu held.
func (g *gate) count(p outbox.Priority) {
	switch {
	case p == outbox.Normal && len(g.ready[outbox.Bulk]) > 0:
		g.turn++
	case p != outbox.High:
		g.turn = 0
	}
}

// drain takes out what waits; where shut is set, only what the gate does not let through any more.
func (g *gate) drain(shut bool) (all []*job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.ready {
		if !shut || !g.open(outbox.Priority(p)) {
			all, g.ready[p] = append(all, g.ready[p]...), nil
		}
	}
	return all
}

// bars says whether mails of a priority had better go elsewhere.
func (g *gate) bars(p outbox.Priority) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.open(p)
}

// idle says whether nothing waits. Called with mu held.
func (g *gate) idle() bool {
	return len(g.ready[0])+len(g.ready[1])+len(g.ready[2])+g.asking[0]+g.asking[1]+g.asking[2] == 0
}
