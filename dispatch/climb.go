package dispatch

import "time"

// climb finds how many connections a relay is worth: no more than it takes, and no more than bring mails faster. It climbs while the
// throughput does not fall, and steps back from where it does. A relay that throttles halves it, as congestion does in TCP (RFC 5681: additive
// increase, multiplicative decrease). It has no clock and no lock of its own.
type climb struct {
	most, now int

	began   time.Time // of the window in which answers are counted
	answers int
	idle    int     // of answers, those for which nothing waited
	before  float64 // answers a second in the window before the last step; 0: none was taken
	step    int     // the last one

	held   time.Time     // until then it does not grow
	full   time.Time     // until then the relay is known to take no more than it has
	pause  time.Duration // that the next refusal holds it for
	halved time.Time
}

const (
	// climbFrom is with how many connections it begins. A relay that has never heard of us is not met with all at once.
	climbFrom = 4
	// A window has so many answers of each connection, and lasts this long at least. Answers come in bursts, one of each connection a round trip, and a
	// window may begin and end in the middle of one: with fewer rounds that alone would look like a throughput that falls.
	windowAnswers = 25
	windowLeast   = 500 * time.Millisecond
	// worse is what a throughput has to fall to for a step to have been one too many.
	worse = 0.95
	// How long a relay that refuses a connection, or throttles, is left at what it takes. The pause doubles each time it does so again:
	// some mean it, and some only refuse one now and then.
	holdFirst  = 5 * time.Second
	holdMost   = 2 * time.Minute
	halveAfter = time.Second
	// plateau is how long it stays where one more did not help.
	plateau = 30 * time.Second
)

func newClimb(most int) climb { return climb{most: most, now: min(most, climbFrom)} }

// answered counts an answer to a mail; busy says that others wait for a connection. It says whether there may be more connections now.
func (c *climb) answered(at time.Time, busy bool) bool {
	if c.began.IsZero() {
		c.began = at
	}
	c.answers++
	if !busy {
		c.idle++
	}
	if c.answers < windowAnswers*c.now || at.Sub(c.began) < windowLeast {
		return false
	}
	rate, counts := float64(c.answers)/at.Sub(c.began).Seconds(), c.idle <= c.answers/2 // else fewer would do
	c.restart(at)
	if !counts || at.Before(c.held) {
		c.before = 0
		return false
	}
	if c.before > 0 && rate < worse*c.before {
		c.now -= c.step
		c.before, c.held = 0, at.Add(plateau)
		return false
	}
	c.before = rate
	c.step = min(max(1, c.now/2), c.most-c.now)
	c.now += c.step
	return c.step > 0
}

func (c *climb) restart(at time.Time) { c.began, c.answers, c.idle = at, 0, 0 }

// reserve is how many connections there may be beside, for mails of high priority: one, so that they wait behind nothing that hangs.
func (c *climb) reserve(at time.Time) int {
	if at.Before(c.full) {
		return 0
	}
	return 1
}

// refused notes that the relay takes no more than n connections.
func (c *climb) refused(at time.Time, n int) {
	c.now = max(1, min(n, c.now))
	c.hold(at)
}

// throttled notes that the relay said it is too much to a mail that began at a time, and halves. False: there is nothing to halve any more.
func (c *climb) throttled(at, began time.Time) bool {
	if began.Before(c.halved) || at.Sub(c.halved) < halveAfter { // it was under way already, or the others have not had their effect
		return true
	}
	if c.now == 1 {
		return false
	}
	c.now /= 2
	c.halved = at
	c.hold(at)
	return true
}

func (c *climb) hold(at time.Time) {
	if at.Sub(c.full) > 2*holdMost { // it has taken all for a while
		c.pause = 0
	}
	c.pause = min(max(holdFirst, 2*c.pause), holdMost)
	c.held, c.full, c.before = at.Add(c.pause), at.Add(c.pause), 0
	c.restart(at)
}
