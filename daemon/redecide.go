package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// redecision has rules decide on what the journal has, as the stream has them decide on what it brings. Rules are resolved against
// each table as it was then. One goroutine at a time.
type redecision struct {
	set    *rules.Set
	naming *naming
	sees   sees
	bound  map[*cdc.Table]*boundThen
	unfit  map[string]misfit // by the rule's name

	// What is being read, for the closure that the plans are given, which is made once.
	tx     *section
	change *cdc.Change
	yield  func(*rules.Rule, rules.Verdict)
	epoch  uint32
	failed error // the first of verdict's
}

// sees is told what a redecision comes upon. What a change or a section holds is gone after the call.
type sees struct {
	transaction func(*section) error // before its changes; again for each part of a large one
	change      func(*cdc.Change)    // nil: of no interest
	verdict     func(*section, *cdc.Change, *rules.Rule, rules.Verdict) error
	// unfit is told of a change that may concern a rule, and of which that cannot be known; nil: of no interest.
	unfit func(s *section, rule, why string)
}

// boundThen is a table as it was, with the rules that are on it.
type boundThen struct {
	by []binding
	// lost are the rules of which the table had the name once, when another one has it now: in its changes under yet another name,
	// nobody knows what they would have been to these rules.
	lost []lostName
}

// binding is the rules of a table under one name, that which it had or that which it has now.
type binding struct {
	table  *cdc.Table
	plan   *rules.Plan // nil: no rule is on it, or none fits it
	unfit  [cdc.Emit][]unfit
	labels []labelled
	row    []value.Datum
}

// unfit is a rule that does not fit a table as it was, and why.
type unfit struct{ rule, why string }

// misfit is how many changes came in a shape that a rule does not fit, and why the first did not.
type misfit struct {
	changes int64
	why     string
}

func newRedecision(set *rules.Set, n *naming, s sees) *redecision {
	r := &redecision{set: set, naming: n, sees: s, bound: make(map[*cdc.Table]*boundThen), unfit: make(map[string]misfit)}
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
		for c, err := range tx.Changes(ctx, table) {
			if err != nil {
				return fmt.Errorf("reading the journal of %s: %w", tx.Commit, err)
			}
			if err := r.decide(c, spot{s.epoch, tx.Commit}); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter begins with an epoch: what was known of tables is of the one before.
func (r *redecision) enter(epoch uint32) {
	if r.epoch != epoch {
		clear(r.bound)
	}
	r.epoch = epoch
}

func (r *redecision) decide(c *cdc.Change, at spot) error {
	r.enter(at.epoch)
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
	was := c.Table
	for i := range b.by {
		c.Table = b.by[i].table
		r.decideAs(&b.by[i], c)
	}
	c.Table = was
	for i := range b.lost {
		if l := &b.lost[i]; slices.Contains(l.ops, c.Op) && !l.until.before(at) {
			r.misses(l.rule, l.why)
		}
	}
	return r.failed
}

// decideAs decides on a change of a table under one of its names.
func (r *redecision) decideAs(b *binding, c *cdc.Change) {
	for _, u := range b.unfit[c.Op] {
		r.misses(u.rule, u.why)
	}
	for i := range b.labels {
		l := &b.labels[i]
		if len(l.rules[c.Op]) == 0 {
			continue
		}
		if why := b.strange(l, c); why != "" {
			for _, rule := range l.rules[c.Op] {
				r.misses(rule, why)
			}
		}
	}
	if b.plan != nil {
		b.plan.Match(r.tx.Tx, c, r.yield)
	}
}

// misses notes that a rule cannot be known to have decided on a change.
func (r *redecision) misses(rule, why string) {
	m := r.unfit[rule]
	m.changes, m.why = m.changes+1, cmp.Or(m.why, why)
	r.unfit[rule] = m
	if r.sees.unfit != nil {
		r.sees.unfit(r.tx, rule, why)
	}
}

// unread has the rules fail that would have been tried on a change which cannot be read, as the stream does.
func (r *redecision) unread(c *cdc.Change) {
	if c.Table == nil {
		return
	}
	now := r.naming.now(c.Table, r.epoch)
	for _, rule := range r.set.Rules {
		if rule.On.Message == "" && (rule.On.Table == c.Table.TableName || rule.On.Table == now) && slices.Contains(rule.On.Ops, c.Op) {
			r.yield(rule, rules.Verdict{Truth: rules.Undetermined, Err: fmt.Errorf("the change could not be read: %w", c.Err)})
		}
	}
}

// bind resolves the rules of a table: those on the name that it had, and those on the one that it has now.
func (r *redecision) bind(t *cdc.Table) (*boundThen, error) {
	if b, ok := r.bound[t]; ok {
		return b, nil
	}
	b := &boundThen{lost: r.naming.lost(r.set, t, r.epoch)}
	tables := []*cdc.Table{t}
	if now := r.naming.now(t, r.epoch); now != (cdc.TableName{}) && now != t.TableName {
		renamed := *t
		renamed.TableName = now
		tables = append(tables, &renamed)
	}
	for _, table := range tables {
		plan, err := r.set.Bind(table)
		mistakes, ok := errors.AsType[rules.Errors](err)
		if err != nil && !ok {
			return nil, err
		}
		if plan != nil || ok {
			by := binding{table: table, plan: plan, labels: r.naming.labels(r.set, table)}
			by.misfits(r.set, mistakes)
			b.by = append(b.by, by)
		}
	}
	r.bound[t] = b
	return b, nil
}

// misfits sorts the first mistake of each rule by the operations that the rule is on.
func (b *binding) misfits(set *rules.Set, mistakes rules.Errors) {
	first := byRule(mistakes)
	for _, rule := range set.Rules {
		e := first[rule.Name]
		if e == nil || rule.On.Table != b.table.TableName {
			continue
		}
		for _, op := range rule.On.Ops {
			b.unfit[op] = append(b.unfit[op], unfit{rule.Name, e.Message})
		}
	}
}

// found is a match that a redecision came upon.
type found struct {
	key   outbox.MatchKey
	tx    outbox.Tx
	rule  *rules.Rule
	match outbox.NewMatch
	table *cdc.Table // nil of a message
	row   uint64     // for hold_over, where somebody asks; 0: it has none
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
