package sqlite

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"postman/outbox"
)

// kind is what can be claimed.
type kind uint8

const (
	matches kind = iota
	messages
)

// line is where something waits.
type line struct {
	kind     kind
	priority outbox.Priority
	rule     uint32
}

// key is a place in a line.
type key struct {
	due   int64 // microseconds
	group int64 // of a match its transaction, of a message its match: the order of positions
	id    int64
}

func (k key) before(other key) bool {
	return cmp.Or(cmp.Compare(k.due, other.due), cmp.Compare(k.group, other.group), cmp.Compare(k.id, other.id)) < 0
}

// claim is something that this process is about to finish, with what will be needed then.
type claim struct {
	line
	key
	sensitive bool          // something of its match is to be blanked
	match     *outbox.Match // of a match, without the change
	hold      bool          // of a message: an uncertain one waits for an operator
	sending   bool          // of a message: stored as sending
}

// change is what the open transaction did to a claim.
type change struct {
	kind   kind
	id     int64
	before claim
	held   bool // before
}

// claims holds what is claimed, whose turn it is, and how far the search for what is due need not look.
//
// The marks keep that search short while thousands are claimed: in each line, everything that is due up to the mark is
// claimed, gone or hidden. A search starts behind the mark and moves it on; whatever becomes free before it takes it back. A
// mark that lies too early costs time, one too late would lose a mail, so every doubt resets them.
type claims struct {
	mu     sync.Mutex
	held   [2]map[int64]claim
	rings  [2][outbox.Bulk + 1]ring
	normal [2]int // that were claimed since the last bulk one
	known  bool   // the rings hold every line in which something waits

	suspects [2]map[int64]int // what dead processes had in hand, and how many of them; since Recover
	released [2][]int64       // claims that came to nothing, and are still counted as begun
}

// ring is the lines of a kind and priority, which take turns.
type ring struct {
	queues []queue // by rule; one for each line in which something waits, or did
	last   uint32  // the rule that had the last turn
}

// queue is what is known of a line.
type queue struct {
	rule uint32
	mark key
	next int64 // nothing that is free is due before
}

// never is when nothing is due.
const never = math.MaxInt64

// start lies before everything.
var start = key{due: math.MinInt64}

func newClaims() *claims {
	return &claims{held: [2]map[int64]claim{make(map[int64]claim), make(map[int64]claim)}}
}

// reset has the next search look at everything.
func (c *claims) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
}

// forget is reset. It is called with mu held, as all that follow with a line are.
func (c *claims) forget() {
	c.known = false
	for k := range c.rings {
		for p := range c.rings[k] {
			c.rings[k][p].queues = nil
		}
	}
}

// queue returns what is known of a line.
func (c *claims) queue(l line) *queue {
	r := &c.rings[l.kind][l.priority]
	i, there := slices.BinarySearchFunc(r.queues, l.rule, func(q queue, rule uint32) int { return cmp.Compare(q.rule, rule) })
	if !there {
		r.queues = slices.Insert(r.queues, i, queue{rule: l.rule, mark: start, next: never})
	}
	return &r.queues[i]
}

// back has a line begin no later than with a key.
func (c *claims) back(l line, at key) {
	q := c.queue(l)
	q.next = min(q.next, at.due)
	at.id--
	if at.before(q.mark) {
		q.mark = at
	}
}

// get returns a claim.
func (c *claims) get(k kind, id int64) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, ok := c.held[k][id]
	return held, ok
}

// set stores a claim, or changes it.
func (c *claims) set(to claim) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, held := c.held[to.kind][to.id]
	c.held[to.kind][to.id] = to
	return change{to.kind, to.id, before, held}
}

// end forgets the claim on what goes on without us.
func (c *claims) end(k kind, id int64) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, held := c.held[k][id]
	delete(c.held[k], id)
	return change{k, id, before, held}
}

// free gives up a claim on what will be due at its key. What is sending is nobody's to take.
func (c *claims) free(k kind, ids ...int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if held, ok := c.held[k][id]; ok && !held.sending {
			delete(c.held[k], id)
			c.back(held.line, held.key)
			c.released[k] = append(c.released[k], id)
		}
	}
}

// offer says that something that nobody has claimed is due at a key.
func (c *claims) offer(l line, at key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.back(l, at)
}

// undo takes back what a transaction that was rolled back did. Where the marks stood before it is not known any more.
func (c *claims) undo(all []change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, was := range slices.Backward(all) {
		if was.held {
			c.held[was.kind][was.id] = was.before
		} else {
			delete(c.held[was.kind], was.id)
		}
	}
	c.forget()
}

// empty says whether nothing is claimed.
func (c *claims) empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held[matches])+len(c.held[messages]) == 0
}
