package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// redecision has rules decide on what the journal has, as the stream has them decide on what it brings. Rules are resolved against
// each table as it was then. One goroutine at a time.
type redecision struct {
	set   *rules.Set
	sees  sees
	bound map[*cdc.Table]*boundThen

	// What is being read, for the closure that the plans are given, which is made once.
	tx     *section
	change *cdc.Change
	yield  func(*rules.Rule, rules.Verdict)
	failed error // the first of verdict's
}

// sees is told what a redecision comes upon. What a change or a section holds is gone after the call.
type sees struct {
	transaction func(*section) error // before its changes; again for each part of a large one
	change      func(*cdc.Change)    // nil: of no interest
	verdict     func(*section, *cdc.Change, *rules.Rule, rules.Verdict) error
}

// boundThen is the rules of a table as it was.
type boundThen struct {
	plan    *rules.Plan // nil: no rule is on it, or none fits it
	unfit   rules.Errors
	changes int64 // that came with such a table
}

func newRedecision(set *rules.Set, s sees) *redecision {
	r := &redecision{set: set, sees: s, bound: make(map[*cdc.Table]*boundThen)}
	r.yield = func(rule *rules.Rule, v rules.Verdict) {
		if r.failed == nil {
			r.failed = s.verdict(r.tx, r.change, rule, v)
		}
	}
	return r
}

// run decides on a stretch of the journal.
func (r *redecision) run(ctx context.Context, h *history, s stretch) error {
	table := h.table(ctx)
	for tx, err := range h.read(ctx, s.from, s.to) {
		if err != nil {
			return err
		}
		r.tx = &tx
		if err := r.sees.transaction(&tx); err != nil {
			return err
		}
		for c, err := range tx.Changes(table) {
			if err != nil {
				return fmt.Errorf("reading the journal of %s: %w", tx.Commit, err)
			}
			if err := r.decide(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *redecision) decide(c *cdc.Change) error {
	r.change = c
	if r.sees.change != nil {
		r.sees.change(c)
	}
	switch {
	case c.Err != nil:
		r.unread(c)
		return r.failed
	case c.Op == cdc.Emit:
		if c.Prefix != mutePrefix {
			r.set.MatchMessage(r.tx.Tx, c, r.yield)
		}
		return r.failed
	}
	b, err := r.bind(c.Table)
	if err != nil {
		return err
	}
	b.changes++
	if b.plan != nil {
		b.plan.Match(r.tx.Tx, c, r.yield)
	}
	return r.failed
}

// unread has the rules fail that would have been tried on a change which cannot be read, as the stream does.
func (r *redecision) unread(c *cdc.Change) {
	if c.Table == nil {
		return
	}
	for _, rule := range r.set.Rules {
		if rule.On.Message == "" && rule.On.Table == c.Table.TableName && slices.Contains(rule.On.Ops, c.Op) {
			r.yield(rule, rules.Verdict{Truth: rules.Undetermined, Err: fmt.Errorf("the change could not be read: %w", c.Err)})
		}
	}
}

func (r *redecision) bind(t *cdc.Table) (*boundThen, error) {
	if b, ok := r.bound[t]; ok {
		return b, nil
	}
	plan, err := r.set.Bind(t)
	b := &boundThen{plan: plan}
	if unfit, ok := errors.AsType[rules.Errors](err); ok {
		b.unfit = unfit
	} else if err != nil {
		return nil, err
	}
	r.bound[t] = b
	return b, nil
}

// misfits tells of each rule how many changes came in a shape that it does not fit, and why.
func (r *redecision) misfits() map[string]misfit {
	all := make(map[string]misfit)
	for _, b := range r.bound {
		told := make(map[string]bool)
		for _, e := range b.unfit {
			if b.changes == 0 || told[e.Rule] {
				continue
			}
			told[e.Rule] = true
			m := all[e.Rule]
			m.changes, m.why = m.changes+b.changes, e
			all[e.Rule] = m
		}
	}
	return all
}

type misfit struct {
	changes int64
	why     *rules.Error
}

// found is a match that a redecision came upon.
type found struct {
	key   outbox.MatchKey
	tx    outbox.Tx
	rule  *rules.Rule
	match outbox.NewMatch
	table *cdc.Table // nil of a message
}

// matcher makes matches of verdicts, as the stream does. One goroutine at a time.
type matcher struct {
	ids    map[*rules.Rule]uint32 // as the store knows the rules
	zone   *time.Location
	silent bool // the delivery mode lets nothing out
	now    time.Time
	shapes map[*cdc.Table]outbox.Hash
}

// match makes the match of a rule that is true of a change, or could not be tried on it. What was committed too long ago enters as
// expired. Nothing is held: who has it replayed has seen how many there are.
func (m *matcher) match(tx *section, c *cdc.Change, r *rules.Rule, v rules.Verdict) found {
	id := m.ids[r]
	f := found{
		key: outbox.MatchKey{LSN: tx.Commit, Ordinal: c.Ordinal, Rule: id}, rule: r, table: c.Table,
		tx: outbox.Tx{LSN: tx.Commit, End: tx.End, XID: tx.XID, Time: tx.Time, Muted: tx.Muted},
		match: outbox.NewMatch{
			Ordinal: c.Ordinal, Rule: id, Version: outbox.Hash(r.Version()), Op: c.Op.String(), Due: m.now, Expires: r.Deadline(tx.Time, m.zone),
			Priority: priority(r.Priority), HoldUncertain: r.HoldUncertain, Silent: m.silent, Change: c.AppendRest(nil, nil),
		},
	}
	n := &f.match
	switch {
	case v.Err != nil:
		n.State, n.Reason = outbox.MatchFailed, v.Err.Error()
	case !n.Expires.IsZero() && !n.Expires.After(m.now):
		n.State, n.Reason = outbox.MatchExpired, "too late: it expired at "+n.Expires.UTC().Format(time.RFC3339)+", before the replay"
	}
	if len(r.Sensitive) > 0 { // what is called sensitive only now
		n.Blanked = c.AppendRest(nil, r.Hides)
	}
	if c.Table != nil {
		n.Shape = m.shape(c.Table)
	}
	return f
}

func (m *matcher) shape(t *cdc.Table) outbox.Hash {
	h, ok := m.shapes[t]
	if !ok {
		h = outbox.HashOf(t.Shape())
		m.shapes[t] = h
	}
	return h
}
