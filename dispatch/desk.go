package dispatch

import (
	"context"
	"sync"

	"postman/outbox"
)

// desk hands tasks to workers, high priority first, and divides the look-ups that may run at the same time among rules: one rule's
// slow query must not hold up the others. It is what switches do with a buffer that ports share (Choudhury and Hahne, "Dynamic
// queue length thresholds for shared-memory packet switches", 1998): a rule may begin one more while it has fewer than
// are left free. The last place is for high priority, though not for a rule's second look-up. Safe for many goroutines.
type desk struct {
	mu     sync.Mutex
	news   sync.Cond // on mu: a task came, or a place became free
	items  [3][]*task
	places int // look-ups at the same time
	busy   int
	rules  map[uint32]int // look-ups in progress
}

func newDesk(places int) *desk {
	q := &desk{places: places, rules: make(map[uint32]int)}
	q.news.L = &q.mu
	return q
}

func (q *desk) push(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := t.priority()
	q.items[p] = append(q.items[p], t)
	q.news.Signal()
}

// pop waits for a task whose look-up may begin, and gives it a place; false: the context ended.
func (q *desk) pop(ctx context.Context) (*task, bool) {
	defer context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.news.Broadcast()
	})()
	q.mu.Lock()
	defer q.mu.Unlock()
	for ctx.Err() == nil {
		if t := q.first(); t != nil {
			t.placed, t.rule = true, t.ruleID()
			q.busy++
			q.rules[t.rule]++
			q.news.Signal() // a place that became free may let more than one begin: each wakes the next
			return t, true
		}
		q.news.Wait()
	}
	return nil, false
}

// first takes out the first task that may begin. Called with mu held.
func (q *desk) first() *task {
	for p, list := range q.items {
		for i, t := range list {
			if q.may(outbox.Priority(p), q.rules[t.ruleID()]) {
				copy(list[1:i+1], list[:i]) // mostly i is 0
				list[0] = nil
				q.items[p] = list[1:]
				return t
			}
		}
	}
	return nil
}

// may says whether a rule that has n look-ups in progress may begin one more. Called with mu held.
func (q *desk) may(p outbox.Priority, n int) bool {
	free := q.places - q.busy
	if p == outbox.High {
		return free > 0 && (n == 0 || free > n)
	}
	return q.busy == 0 || free > n+1
}

// done gives a task's place back, if it has one: when its look-up has ended, and before anybody else may get the task.
func (q *desk) done(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !t.placed {
		return
	}
	t.placed = false
	q.busy--
	if q.rules[t.rule]--; q.rules[t.rule] == 0 {
		delete(q.rules, t.rule)
	}
	q.news.Signal()
}

// drain takes out all that is left.
func (q *desk) drain() (all []*task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p, list := range q.items {
		all, q.items[p] = append(all, list...), nil
	}
	return all
}

// waiting is how many tasks wait.
func (q *desk) waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range q.items {
		n += len(list)
	}
	return n
}
