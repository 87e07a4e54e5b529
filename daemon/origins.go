package daemon

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"gopkg.in/yaml.v3"
)

// Origins says which replication origins are ignored: transactions that were replayed from one of them make no matches. It is written
// as a list of names, or as `any`.
type Origins struct {
	Any   bool
	Names []string
}

// UnmarshalYAML reads a list of names, or `any`.
func (o *Origins) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode && node.Value == "any" {
		*o = Origins{Any: true}
		return nil
	}
	*o = Origins{}
	if node.Kind != yaml.SequenceNode || node.Decode(&o.Names) != nil || slices.Contains(o.Names, "") {
		return errors.New("ignore_origins: it is a list of the names of replication origins (select roname from pg_replication_origin), or any")
	}
	return nil
}

// ignores says whether a transaction of this origin makes no matches; empty is the database's own.
func (o *Origins) ignores(origin string) bool {
	return origin != "" && (o.Any || slices.Contains(o.Names, origin))
}

// tally counts what the stream brought and no rule was tried on, since the start. Any goroutine may ask.
type tally struct {
	unread atomic.Int64 // changes

	mu      sync.Mutex
	ignored map[string]int64 // transactions, by their origin
	untaken map[string]int64 // messages that no rule takes, by name
}

func (t *tally) ignore(origin string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ignored == nil {
		t.ignored = make(map[string]int64)
	}
	t.ignored[origin]++
}

func (t *tally) byOrigin() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.ignored)
}
