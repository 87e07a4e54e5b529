package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
	"postman/templates"
)

// live is one version of all that people edit: rules and templates that were checked together. But for from it is immutable, and it is
// swapped whole.
type live struct {
	source    *rules.Source // all of the rules, as they were read
	rules     *rules.Set    // those that decide
	templates *templates.Set
	broken    rules.Errors // of rules that the catalog does not bear; never after a reload
	// needs is what all of the rules need published, broken ones too: what these miss is to be there for a replay.
	needs   []cdc.Need
	catalog *cdc.Catalog             // that they were checked with
	strays  map[uint32]cdc.TableName // by OID, the tables of broken rules that have another name than there
	loaded  time.Time
	fresh   []newRule
	from    atomic.Uint64 // the LSN from which on it decides, commits there included; 0: it does not yet

	ids    map[*rules.Rule]uint32 // by which the store knows them
	byID   map[uint32]*rules.Rule
	byName map[string]*rules.Rule
	relays map[uint32]string // that rules name, broken ones too, and those that are gone: their mails that wait go nowhere else; empty: none is named
}

// newRule is a rule that came, or changed, since the daemon was started.
type newRule struct {
	name string
	// published is from where on its table's changes are streamed, when they were not before; 0: they were.
	published position.LSN
	from      position.LSN // from where on it decides; 0: as its set does, but not before published
}

// mostNew bounds how many of them are remembered.
const mostNew = 100

// newRules are the rules of a set that were not, or not alike, in the one before, and then those that were new to that one. Published
// says from where on the table of a rule is published that was not; nil: all of them were.
func newRules(before, after *live, published func(*rules.Rule) position.LSN) (fresh []newRule) {
	for _, r := range after.rules.Rules {
		n := newRule{name: r.Name}
		if published != nil {
			n.published = published(r)
		}
		if n.published != 0 || !after.has(before, r.Name) {
			fresh = append(fresh, n)
		}
	}
	for _, n := range before.fresh {
		again := slices.ContainsFunc(fresh, func(f newRule) bool { return f.name == n.name })
		if n.from = before.since(n); !again && after.has(before, n.name) {
			fresh = append(fresh, n)
		}
	}
	return fresh[:min(len(fresh), mostNew)]
}

// has says whether a rule is in a set as it was in another one, perhaps under another name.
func (l *live) has(before *live, name string) bool {
	r := l.named(name)
	if r == nil {
		return false
	}
	old := before.named(r.Name)
	if old == nil && r.Was != "" {
		old = before.named(r.Was)
	}
	return old != nil && old.Version() == r.Version()
}

// since is from where on a new rule decides; 0: that is not known yet.
func (l *live) since(n newRule) position.LSN {
	from := position.LSN(l.from.Load())
	if n.from != 0 || from == 0 {
		return n.from
	}
	return max(from, n.published)
}

// register has the store allot each rule's number, and know the rules that were renamed by their names, before anything is stored of them. It
// does so in one commit, however many rules there are.
func (l *live) register(ctx context.Context, store outbox.Store) error {
	all := append(slices.Clip(l.rules.Rules), l.away()...)
	names := make([]outbox.RuleName, len(all))
	for i, r := range all {
		names[i] = outbox.RuleName{Name: r.Name, Was: r.Was}
	}
	ids, err := store.RuleIDs(ctx, names...)
	if err != nil {
		return fmt.Errorf("registering the rules: %w", err)
	}
	l.relays = make(map[uint32]string)
	for i, r := range all {
		l.relays[ids[i]] = r.Relay
	}
	l.ids = make(map[*rules.Rule]uint32, len(l.rules.Rules))
	l.byID = make(map[uint32]*rules.Rule, len(l.rules.Rules))
	l.byName = make(map[string]*rules.Rule, len(l.rules.Rules))
	for i, r := range l.rules.Rules { // the first of all
		l.ids[r] = ids[i]
		l.byID[ids[i]], l.byName[r.Name] = r, r
	}
	return nil
}

// away are the broken rules.
func (l *live) away() (list []*rules.Rule) {
	if l.source == nil || len(l.broken) == 0 {
		return nil
	}
	decide := make(map[string]bool, len(l.rules.Rules))
	for _, r := range l.rules.Rules {
		decide[r.Name] = true
	}
	for _, r := range l.source.Rules {
		if !decide[r.Name] {
			list = append(list, r)
		}
	}
	return list
}

// nameOf is what a table was called when the rules were checked.
func (l *live) nameOf(oid uint32) (cdc.TableName, bool) {
	for name, t := range l.catalog.Tables {
		if t.OID == oid {
			return name, true
		}
	}
	return cdc.TableName{}, false
}

// named is the rule of that name that decides; nil: there is none.
func (l *live) named(name string) *rules.Rule { return l.byName[name] }

// aim is what a rule is on, as gaps keep it. The zero aim is that of a rule that is gone.
type aim struct {
	table string
	oid   uint32 // of the table; 0: it is not known
	ops   []string
}

// aim is that of a rule, broken or not.
func (l *live) aim(rule string) (a aim) {
	if l.source == nil {
		return a
	}
	i := slices.IndexFunc(l.source.Rules, func(r *rules.Rule) bool { return r.Name == rule })
	if i < 0 {
		return a
	}
	on := &l.source.Rules[i].On
	if on.Message != "" {
		return aim{ops: []string{cdc.Emit.String()}}
	}
	for _, op := range on.Ops {
		a.ops = append(a.ops, op.String())
	}
	a.table, a.oid = on.Table.String(), oidIn(l.catalog, on.Table)
	return a
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

// relaysNote is the note of which relay each rule named last, by its number.
const relaysNote = "relays"

// keepRelays has mails of rules that are gone stay with the relay that these named last. It comes before the set goes live.
func (d *Daemon) keepRelays(ctx context.Context, l *live) error {
	kept := make(map[uint32]string)
	text, err := d.store.Note(ctx, d.source.ID, relaysNote)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		return fmt.Errorf("reading which relays rules named: %w", err)
	}
	for rule, relay := range kept {
		if _, there := l.relays[rule]; !there {
			l.relays[rule] = relay
		}
	}
	named := maps.Clone(l.relays)
	maps.DeleteFunc(named, func(_ uint32, relay string) bool { return relay == "" })
	if text, err = json.Marshal(named); err != nil || len(named)+len(kept) == 0 {
		return err
	}
	if err := d.note(ctx, relaysNote, text); err != nil {
		return fmt.Errorf("noting which relays rules name: %w", err)
	}
	return nil
}

// relayOf is the relay that a rule names, as it is live: who moves a rule to another relay means the mails that wait as well.
func (d *Daemon) relayOf(rule uint32) string {
	l := d.live.Load()
	if l == nil {
		return ""
	}
	return l.relays[rule]
}
