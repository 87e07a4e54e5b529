package dispatch

import (
	"testing"
	"time"
)

// server answers like a relay that gets faster with connections up to a number of them, and slower again with more: congestion.
type server struct {
	each time.Duration // a connection needs for a mail
	best int           // connections
	cost float64       // what each one above costs of the throughput
}

// rate is its mails a second over n connections.
func (s server) rate(n int) float64 {
	useful := min(n, s.best)
	return float64(useful) / s.each.Seconds() * (1 - s.cost*float64(n-useful))
}

// run has a climb meet the server for a while, always with mails that wait.
func (s server) run(c *climb, at *time.Time, d time.Duration, busy bool) {
	for end := at.Add(d); at.Before(end); {
		*at = at.Add(time.Duration(float64(time.Second) / s.rate(c.now)))
		c.answered(*at, busy)
	}
}

func TestClimb(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server server
		most   int
		busy   bool
		least  int // connections after ten seconds
		max    int
	}{
		"far away":              {server{each: 20 * time.Millisecond, best: 1000}, 32, true, 32, 32},
		"a flat hill":           {server{each: time.Millisecond, best: 6}, 16, true, 6, 16},
		"a peak":                {server{each: 2 * time.Millisecond, best: 8, cost: 0.05}, 64, true, 6, 13},
		"few are allowed":       {server{each: time.Millisecond, best: 1000}, 2, true, 2, 2},
		"a slow one":            {server{each: 200 * time.Millisecond, best: 1000}, 8, true, 6, 8},
		"little to do":          {server{each: time.Millisecond, best: 1000}, 32, false, climbFrom, climbFrom},
		"one is worse than two": {server{each: time.Millisecond, best: 1, cost: 0.2}, 4, true, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, at := newClimb(test.most), time.Unix(0, 0)
			test.server.run(&c, &at, 10*time.Second, test.busy)
			if c.now < test.least || c.now > test.max {
				t.Errorf("%d connections, want %d to %d", c.now, test.least, test.max)
			}
		})
	}
}

// TestClimbDown has a relay throttle: half as many, at once, and more again after a pause, which grows while it throttles again.
func TestClimbDown(t *testing.T) {
	t.Parallel()
	c, at := newClimb(16), time.Unix(1000, 0)
	s := server{each: 10 * time.Millisecond, best: 1000}
	s.run(&c, &at, 10*time.Second, true)
	if c.now != 16 {
		t.Fatalf("%d connections", c.now)
	}
	if !c.throttled(at, at.Add(-time.Millisecond)) || c.now != 8 {
		t.Errorf("%d connections", c.now)
	}
	if c.reserve(at) != 0 {
		t.Error("one more is kept for high priority although there are too many")
	}
	if !c.throttled(at, at.Add(-time.Millisecond)) || c.now != 8 {
		t.Errorf("%d connections: what was under way counts once", c.now)
	}
	for want := 4; want > 0; want /= 2 {
		at = at.Add(halveAfter)
		if !c.throttled(at, at) || c.now != want {
			t.Errorf("%d connections, want %d", c.now, want)
		}
	}
	if at = at.Add(halveAfter); c.throttled(at, at) {
		t.Error("a single one is no trouble")
	}
	s.run(&c, &at, holdFirst, true)
	if c.now != 1 {
		t.Errorf("%d connections within the pause", c.now)
	}
	s.run(&c, &at, holdMost, true)
	if c.now != 16 || c.reserve(at) != 1 {
		t.Errorf("%d connections after a while", c.now)
	}
}

// TestClimbInBursts: answers that come all at once, a round trip apart, are no reason to step back.
func TestClimbInBursts(t *testing.T) {
	t.Parallel()
	c, at := newClimb(16), time.Unix(0, 0)
	for range 500 { // ten seconds
		at = at.Add(20 * time.Millisecond)
		for i := range c.now {
			c.answered(at.Add(time.Duration(i)*50*time.Microsecond), true)
		}
	}
	if c.now != 16 {
		t.Errorf("%d connections", c.now)
	}
}
