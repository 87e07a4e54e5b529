package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postman/outbox"
	"postman/rules"
	"postman/templates"
)

// live is one version of all that people edit: rules and templates that were checked together. It is immutable and
// swapped whole.
type live struct {
	rules     *rules.Set
	templates *templates.Set
	broken    rules.Errors // of rules that the catalog does not bear; at start only
	loaded    time.Time

	known map[*rules.Rule]known
	byID  map[uint32]*rules.Rule
}

// known is what the store calls a rule.
type known struct {
	id      uint32
	version outbox.Hash
}

// register has the store allot each rule's number.
func (l *live) register(ctx context.Context, store outbox.Store) error {
	l.known = make(map[*rules.Rule]known, len(l.rules.Rules))
	l.byID = make(map[uint32]*rules.Rule, len(l.rules.Rules))
	for _, r := range l.rules.Rules {
		id, err := store.RuleID(ctx, r.Name, r.Was)
		if err != nil {
			return fmt.Errorf("registering rule %q: %w", r.Name, err)
		}
		l.known[r] = known{id, outbox.HashOf(r.Source())}
		l.byID[id] = r
	}
	return nil
}

// sound says whether a rule of that name decides.
func (l *live) sound(name string) bool {
	return slices.ContainsFunc(l.rules.Rules, func(r *rules.Rule) bool { return r.Name == name })
}

// isBroken says whether there is a rule of that name that the catalog does not bear.
func (l *live) isBroken(name string) bool {
	return slices.ContainsFunc(l.broken, func(e *rules.Error) bool { return e.Rule == name })
}

func priority(p rules.Priority) outbox.Priority {
	switch p {
	case rules.High:
		return outbox.High
	case rules.Bulk:
		return outbox.Bulk
	case rules.Normal:
	}
	return outbox.Normal
}
