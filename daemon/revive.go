package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
)

// ruleOf finds the rule that a match is finished by: the version that it was made with. A rule that is not live any more
// holds its matches.
func (d *Daemon) ruleOf(ctx context.Context, m outbox.Match) (*rules.Rule, error) {
	l := d.live.Load()
	r, ok := l.byID[m.Rule]
	switch {
	case ok && outbox.Hash(r.Version()) == m.Version:
		return r, nil
	case ok || l.isBroken(m.RuleName):
		return d.revived.get(m, func() (*rules.Rule, error) { return d.revive(ctx, m) })
	}
	return nil, dispatch.ErrRuleGone
}

// revivals keeps rules that were read back: a backlog of one version is many matches.
type revivals struct {
	mu    sync.Mutex
	rules map[[2]outbox.Hash]*rules.Rule
}

// mostRevived bounds the versions that are kept.
const mostRevived = 256

func (r *revivals) get(m outbox.Match, read func() (*rules.Rule, error)) (*rules.Rule, error) {
	key := [2]outbox.Hash{m.Version, m.Shape}
	r.mu.Lock()
	known, ok := r.rules[key]
	r.mu.Unlock()
	if ok {
		return known, nil
	}
	rule, err := read()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rules == nil || len(r.rules) >= mostRevived {
		r.rules = make(map[[2]outbox.Hash]*rules.Rule)
	}
	r.rules[key] = rule
	return rule, nil
}

// revive reads back the version of a rule that a match was made with.
func (d *Daemon) revive(ctx context.Context, m outbox.Match) (*rules.Rule, error) {
	source, err := d.text(ctx, m.Version)
	if err != nil {
		return nil, fmt.Errorf("reading version %s of rule %q: %w", shortHash(m.Version), m.RuleName, err)
	}
	var table *cdc.Table
	if m.Shape != (outbox.Hash{}) {
		shape, err := d.text(ctx, m.Shape)
		if err != nil {
			return nil, fmt.Errorf("reading the table's shape of match %d: %w", m.ID, err)
		}
		if table, err = cdc.ParseShape(shape); err != nil {
			return nil, fmt.Errorf("reading the table's shape of match %d: %w", m.ID, err)
		}
		for _, i := range primaryKey(table, d.catalog.Load()) { // which the stream does not tell, and a rule's thread may be by
			table.Columns[i].PK = true
		}
	}
	return rules.Revive(source, table)
}

// text reads a stored text. A store that fails for the moment is no reason to give a match up.
func (d *Daemon) text(ctx context.Context, h outbox.Hash) ([]byte, error) {
	text, err := d.store.Text(ctx, h)
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		err = fmt.Errorf("%w: %w", dispatch.ErrNotNow, err)
	}
	return text, err
}
