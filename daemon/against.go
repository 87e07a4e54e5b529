package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
)

// AgainstReport tells what rules that differ from the live ones would have made of the journal. Its JSON is a contract (docs/replay.md).
type AgainstReport struct {
	From    Moment        `json:"from"`
	To      Moment        `json:"to"`
	Changes int64         `json:"changes"`
	Notes   []string      `json:"notes,omitempty"`
	Same    int           `json:"same"` // rules that are as they are live
	Rules   []AgainstRule `json:"rules"`
}

// AgainstRule is a rule that came, changed or went.
type AgainstRule struct {
	Rule         string       `json:"rule"`
	What         string       `json:"what"` // new, changed or removed
	Before       int          `json:"before"`
	After        int          `json:"after"` // matches
	Added        AgainstMails `json:"added"` // by matches that only the rule as it is now makes
	Taken        AgainstMails `json:"taken"` // by matches that only the live one makes
	Stay         AgainstMails `json:"stay"`  // by those that both make: who is asked by one of them alone
	Hour         *BusyHour    `json:"fullest_hour,omitempty"`
	Held         int          `json:"held,omitempty"`         // matches that hold_over would hold
	Undetermined int64        `json:"undetermined,omitempty"` // changes that it could not decide on
	Unfit        int64        `json:"unfit,omitempty"`        // changes that came in a shape that it does not fit
	Misfit       string       `json:"misfit,omitempty"`
	Excluded     string       `json:"excluded,omitempty"` // why nothing can be said
	Unpublished  []string     `json:"unpublished,omitempty"`
}

// AgainstMails counts matches and, of those that were asked about, who gets mails of them.
type AgainstMails struct {
	Matches int `json:"matches"`
	Asked   int `json:"asked"` // fewer than matches: a sample, or no database is at hand
	Mails   int `json:"mails"`
	People  int `json:"people"`
	Fewer   int `json:"fewer,omitempty"` // of stay: mails that go to nobody any more
}

// mostCompared bounds whom is asked about, of each rule and kind.
const mostCompared = 200

// comparing is a rule as it is live, and as it is in the files.
type comparing struct {
	AgainstRule
	before, after *rules.Rule // nil: there is none
	hours         hours
	added, taken  []sampled
	stay          []sampled

	inTx *matched // matches in the transaction that is being read; nil: none
}

// against makes the comparison of an examination that found no errors.
type against struct {
	*examination
	source *rules.Source // of the files
	pairs  []*comparing
	of     map[*rules.Rule]*comparing
	store  outbox.Store
	src    outbox.Source
	holds  *holds
	rows   *rowHash
	report *AgainstReport
	naming *naming

	tx       cdc.Tx
	epoch    uint32
	old, new []found // of the change that is being decided on
}

// compareWith tells what the files' rules would have made of the journal since a moment.
func (e *examination) compareWith(ctx context.Context, source *rules.Source, set *rules.Set) (err error) {
	store, src, err := openView(ctx, &e.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a := &against{examination: e, source: source, of: make(map[*rules.Rule]*comparing), store: store, src: src, holds: newHolds(nil, 0), rows: newRowHash(), report: &AgainstReport{Rules: []AgainstRule{}}}
	if err := a.pair(ctx, set); err != nil {
		return err
	}
	if err := a.run(ctx); err != nil {
		if bad, ok := errors.AsType[badRequest](err); ok {
			return usage(strings.ReplaceAll(bad.what, "--from", "--against"))
		}
		return err
	}
	e.report.Against = a.report
	return nil
}

// pair finds the rules that differ from the live ones.
func (a *against) pair(ctx context.Context, set *rules.Set) error {
	live, err := readRules(ctx, a.store, a.src)
	if err != nil {
		return err
	}
	if live == nil {
		return usage(fmt.Sprintf("the store %s does not say which rules are live: let this version of postman run on it once", a.config.StorePath()))
	}
	byName := make(map[string]*liveRule)
	for i := range live {
		byName[live[i].Name] = &live[i]
	}
	for _, r := range set.Rules {
		old := byName[r.Name]
		if old == nil && r.Was != "" {
			old = byName[r.Was]
		}
		if old != nil {
			delete(byName, old.Name)
		}
		switch {
		case old == nil:
			a.add(&comparing{AgainstRule: AgainstRule{Rule: r.Name, What: "new"}, after: r})
		case outbox.HashOf([]byte(old.Source)) == outbox.Hash(r.Version()):
			a.report.Same++
		default:
			before, err := rules.ReadStored([]byte(old.Source))
			if err != nil {
				return err
			}
			a.add(&comparing{AgainstRule: AgainstRule{Rule: r.Name, What: "changed"}, before: before, after: r})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if slices.ContainsFunc(a.source.Rules, func(r *rules.Rule) bool { return r.Name == name }) {
			continue // it has mistakes, which are told
		}
		before, err := rules.ReadStored([]byte(byName[name].Source))
		if err != nil {
			return err
		}
		a.add(&comparing{AgainstRule: AgainstRule{Rule: name, What: "removed"}, before: before})
	}
	return nil
}

// add takes a pair in, unless the journal has not what one of the two reads.
func (a *against) add(c *comparing) {
	c.hours = make(hours)
	a.pairs = append(a.pairs, c)
	for _, r := range []*rules.Rule{c.after, c.before} {
		if r == nil {
			continue
		}
		bound := r
		if r == c.before && r.On.Message == "" {
			if t := a.checker.catalog.Tables[r.On.Table]; t != nil {
				bound, _ = rules.Revive(r.Source(), t)
			}
		}
		if bound != nil && len(bound.Secrets()) > 0 {
			c.Excluded = "it reads " + strings.Join(bound.Secrets(), ", ") + ", which is sensitive and not in the journal"
			return
		}
	}
	for _, r := range []*rules.Rule{c.after, c.before} {
		if r != nil {
			a.of[r] = c
		}
	}
}

func (a *against) run(ctx context.Context) error {
	zone, err := time.LoadLocation(a.config.Timezone)
	if err != nil {
		return usage("timezone: " + a.config.Timezone + " is no time zone; one looks like Asia/Seoul")
	}
	reach, err := newReach(ctx, a.store, a.src, zone)
	if err != nil {
		return err
	}
	first, last, err := reach.locate(ctx, a.options.Against, "")
	if err != nil {
		return err
	}
	a.naming = &naming{catalog: a.checker.catalog, epoch: reach.source.Epoch}
	if a.naming.known, err = readPublished(ctx, a.store, a.src); err != nil {
		return err
	}
	if reach.short != "" {
		a.report.Notes = append(a.report.Notes, reach.short)
	}
	var see seen
	r := a.both(&see, &matcher{zone: zone, now: time.Now(), shapes: make(map[*cdc.Table]outbox.Hash)})
	for _, part := range reach.stretches(first, last) {
		a.epoch = part.epoch
		if err := r.run(ctx, newHistory(a.store, reach.inEpoch(part.epoch)), part); err != nil {
			return err
		}
	}
	a.settle()
	a.endTransaction()
	a.report.From, a.report.To, a.report.Changes = Moment{first.lsn.String(), first.epoch, see.first.at}, Moment{last.lsn.String(), last.epoch, see.last.at}, see.changes
	return a.tell(ctx, r, first, last)
}

// both has the rules of the files decide and, before them on each change, the live ones.
func (a *against) both(see *seen, m *matcher) *redecision {
	var before, after rules.Set
	for _, c := range a.pairs {
		if c.before != nil && c.Excluded == "" {
			before.Rules = append(before.Rules, c.before)
		}
		if c.after != nil && c.Excluded == "" {
			after.Rules = append(after.Rules, c.after)
		}
	}
	into := func(list *[]found) func(*section, *cdc.Change, *rules.Rule, rules.Verdict) error {
		return func(s *section, c *cdc.Change, r *rules.Rule, v rules.Verdict) error {
			switch {
			case v.Err == nil && v.Truth == rules.True:
				f := m.match(s, c, r, v)
				f.row = a.rows.of(c, a.checker.catalog)
				*list = append(*list, f)
			case r == a.of[r].after:
				a.of[r].Undetermined++
			}
			return nil
		}
	}
	old := newRedecision(&before, a.naming, sees{verdict: into(&a.old)})
	return newRedecision(&after, a.naming, sees{
		transaction: func(s *section) error {
			a.settle()
			if s.Commit != a.tx.Commit {
				a.endTransaction()
			}
			a.tx, old.tx = s.Tx, s
			see.transaction(s, a.epoch)
			return nil
		},
		change: func(c *cdc.Change) {
			a.settle()
			see.changes++
			old.decide(c, spot{a.epoch, a.tx.Commit}) //nolint:errcheck // a table that cannot be bound is the other's error as well
		},
		verdict: into(&a.new),
	})
}

// tell fills in what the report says of each rule.
func (a *against) tell(ctx context.Context, r *redecision, first, last spot) error {
	for _, c := range a.pairs {
		if c.after != nil {
			c.Unfit, c.Misfit = r.unfit[c.Rule].changes, r.unfit[c.Rule].why
			c.Unpublished = notInJournal(a.naming.known, c.after.On, first, last)
		}
		if err := a.ask(ctx, c); err != nil {
			return err
		}
		c.Hour = c.hours.fullest()
		a.report.Rules = append(a.report.Rules, c.AgainstRule)
	}
	return nil
}

// settle compares what was decided on a change.
func (a *against) settle() {
	for i := range a.new {
		f := &a.new[i]
		c := a.of[f.rule]
		c.After++
		if c.inTx == nil {
			c.inTx = &matched{rule: c.after}
		}
		c.inTx.add(f.match.Ordinal, f.row)
		if j := slices.IndexFunc(a.old, func(o found) bool { return a.of[o.rule] == c }); j >= 0 {
			c.Before++
			c.Stay.Matches++
			c.stay = a.keep(c.stay, c.Stay.Matches, f)
			a.old = slices.Delete(a.old, j, j+1)
			continue
		}
		c.Added.Matches++
		c.hours.add(f.tx.Time, 1)
		c.added = a.keep(c.added, c.Added.Matches, f)
	}
	for i := range a.old {
		f := &a.old[i]
		c := a.of[f.rule]
		c.Before++
		c.Taken.Matches++
		c.taken = a.keep(c.taken, c.Taken.Matches, f)
	}
	a.old, a.new = a.old[:0], a.new[:0]
}

// keep has the first matches asked about, and of more than that each so-many-th in the place of another.
func (a *against) keep(list []sampled, n int, f *found) []sampled {
	s := sampled{found: *f, epoch: a.epoch}
	if len(list) < mostCompared {
		return append(list, s)
	}
	if n%(n/mostCompared+1) == 0 {
		list[(n/(n/mostCompared+1))%mostCompared] = s
	}
	return list
}

// endTransaction counts what hold_over would hold, as the stream does.
func (a *against) endTransaction() {
	for i, c := range a.pairs {
		if c.inTx == nil {
			continue
		}
		all := a.holds.hold(uint32(i), c.inTx, outbox.Tx{LSN: a.tx.Commit, XID: a.tx.XID, Time: a.tx.Time})
		c.Held += c.inTx.waits(all)
		c.inTx = nil
	}
}

// ask asks who gets the mails, where a database is at hand.
func (a *against) ask(ctx context.Context, c *comparing) error {
	if a.checker.lookup == nil || c.Excluded != "" {
		return nil
	}
	count := func(m *AgainstMails, list []sampled, r *rules.Rule) error {
		people := make(map[string]bool)
		for i := range list {
			to, err := a.audience(ctx, &list[i], r)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				continue // it would be a failed match
			}
			m.Asked++
			m.Mails += len(to)
			for _, address := range to {
				people[address] = true
			}
		}
		m.People = len(people)
		return nil
	}
	if err := errors.Join(count(&c.Added, c.added, c.after), count(&c.Taken, c.taken, c.before)); err != nil {
		return err
	}
	for i := range c.stay {
		now, err := a.audience(ctx, &c.stay[i], c.after)
		if err != nil {
			continue
		}
		then, err := a.audience(ctx, &c.stay[i], c.before)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			continue
		}
		c.Stay.Asked++
		for _, address := range now {
			if !slices.Contains(then, address) {
				c.Stay.Mails++
			}
		}
		for _, address := range then {
			if !slices.Contains(now, address) {
				c.Stay.Fewer++
			}
		}
	}
	return nil
}

// audience asks by a rule as it is resolved against the table as it was.
func (a *against) audience(ctx context.Context, s *sampled, r *rules.Rule) ([]string, error) {
	bound, err := rules.Revive(r.Source(), s.table)
	if err != nil {
		return nil, err
	}
	f, _, err := s.facts(cmp.Or(a.src.ID, 1))
	if err != nil {
		return nil, err
	}
	who, err := dispatch.Ask(ctx, bound, f, a.checker.lookup)
	return who.Addresses, err
}
