package daemon

import "sync"

// mostRemembered bounds a memo. Rules that a program writes are thousands of the same few, and the others are not worth the memory.
const mostRemembered = 1000

// memo finds out once what is asked about several times, even at the same time. It forgets what it knows when that gets much. The zero
// memo knows nothing.
type memo[T any] struct {
	mu    sync.Mutex
	known map[string]func() (T, error)
}

// of is what is known of a key, errors included, or else what find finds.
func (m *memo[T]) of(key string, find func() (T, error)) (T, error) {
	m.mu.Lock()
	known, ok := m.known[key]
	if !ok {
		if m.known == nil || len(m.known) >= mostRemembered {
			m.known = make(map[string]func() (T, error))
		}
		known = sync.OnceValues(find)
		m.known[key] = known
	}
	m.mu.Unlock()
	return known()
}
