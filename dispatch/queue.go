package dispatch

import (
	"context"
	"slices"
	"sync"

	"postman/outbox"
)

// queue holds what waits for a goroutine, high priority first. Safe for many goroutines; how much goes in is bounded by
// who puts it in.
type queue[T any] struct {
	mu      sync.Mutex
	items   [3][]T // by priority
	waiters []chan T
}

func (q *queue[T]) push(p outbox.Priority, v T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) > 0 {
		q.waiters[0] <- v // has room for one
		q.waiters = q.waiters[1:]
		return
	}
	q.items[p] = append(q.items[p], v)
}

// pop waits for the next one; false: the context ended.
func (q *queue[T]) pop(ctx context.Context) (v T, ok bool) {
	if v, ok := q.tryPop(); ok || ctx.Err() != nil {
		return v, ok
	}
	waiter := make(chan T, 1)
	q.mu.Lock()
	if v, ok := q.first(); ok { // it came in between
		q.mu.Unlock()
		return v, true
	}
	q.waiters = append(q.waiters, waiter)
	q.mu.Unlock()
	select {
	case v = <-waiter:
		return v, true
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiters, waiter); i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
		return v, false
	}
	return <-waiter, true // it was handed over meanwhile
}

func (q *queue[T]) tryPop() (T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.first()
}

// first is called with mu held.
func (q *queue[T]) first() (v T, ok bool) {
	for p := range q.items {
		if list := q.items[p]; len(list) > 0 {
			v, list[0] = list[0], v // the array must not keep it alive
			q.items[p] = list[1:]
			return v, true
		}
	}
	return v, false
}

// drain takes out all that is left.
func (q *queue[T]) drain() (all []T) {
	for {
		v, ok := q.tryPop()
		if !ok {
			return all
		}
		all = append(all, v)
	}
}
