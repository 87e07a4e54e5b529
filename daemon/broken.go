package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"postman/outbox"
	"postman/position"
)

// breakages are the rules that do not decide at present. Each has an open gap in the store, which ends where the rule decides
// again. Any goroutine may use them.
type breakages struct {
	mu   sync.Mutex
	all  map[string]*breakage // by the rule's name
	last map[string]int64     // the number of the last breakage of each rule, mended ones too
	n    int64                // how many have been numbered
}

// breakage is a rule that does not decide.
type breakage struct {
	rule string
	on   aim // when it broke; its operations, those of all the time since
	from position.LSN
	why  string
	// mistake is why, with its place and the way out; nil where only the store remembers.
	mistake error
	by      cause
	lost    bool // what the rule misses is not even streamed
	// missed is the last transaction that the stream is known to have brought past the rule; 0: none.
	missed position.LSN
	// sound is from where on, at the latest, the catalog bears the rule; 0: it does not, or nobody has looked since.
	sound position.LSN
	// unsaved says that the store does not have the last that was noted of it; untold, that people have not been told for that reason.
	unsaved, untold bool
	nth             int64 // the number of what was noted last
}

// cause is who noticed that a rule is broken.
type cause uint8

const (
	byStream  cause = iota // a change came in a shape that the rule does not fit
	byCatalog              // the catalog says what the stream cannot, or not yet
	byLoad                 // the catalog did not bear the rule when the live set was loaded, which leaves it out
)

func newBreakages() *breakages {
	return &breakages{all: make(map[string]*breakage), last: make(map[string]int64)}
}

// breaks notes that a rule does not decide from a position on. It returns what is known of that now: the first reason stays. News is
// that the rule is broken, worse that what it misses is lost, too, or is more than was known. Either is to be stored.
func (bs *breakages) breaks(b breakage) (known breakage, news, worse bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.n++
	b.nth, bs.last[b.rule] = bs.n, bs.n
	before, ok := bs.all[b.rule]
	if !ok {
		bs.all[b.rule] = &b
		return b, true, false
	}
	more := before.on.widen(b.on)
	news, worse = before.untold, more || before.unsaved || b.lost && !before.lost || b.from < before.from
	before.unsaved, before.untold, before.nth = false, false, b.nth
	before.sound, before.lost, before.from = 0, before.lost || b.lost, min(before.from, b.from)
	if before.by = min(before.by, b.by); before.lost { // else the stream will tell when the rule fits again
		before.by = byCatalog // a change that fits it may be from before the loss
	}
	return *before, news, worse
}

// widen takes operations in that the rule has come to be on meanwhile, and says whether there are any.
func (a *aim) widen(now aim) (more bool) {
	for _, op := range now.ops {
		if !slices.Contains(a.ops, op) {
			a.ops, more = append(slices.Clone(a.ops), op), true
		}
	}
	return more
}

// unsaved notes that the store did not take what breaks returned: it is worse again the next time, and news again where it was.
func (bs *breakages) unsaved(b breakage, news bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	known := bs.all[b.rule]
	if known == nil { // it has been mended, and there is no gap yet that could end
		known = &b
		bs.all[b.rule] = known
	}
	known.unsaved, known.untold = true, known.untold || news
}

// anew says whether a rule has broken anew since it was taken off the list, be it that it was mended anew as well.
func (bs *breakages) anew(b *breakage) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.last[b.rule] != b.nth
}

// keep puts a rule back on the list whose gap could not be ended, unless it has broken anew: then another end is to come, or has come.
func (bs *breakages) keep(b breakage) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.last[b.rule] == b.nth {
		bs.all[b.rule] = &b
	}
}

// mends takes a rule off the list, unless it is there for another cause.
func (bs *breakages) mends(rule string, causes ...cause) (b breakage, ok bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	known, ok := bs.all[rule]
	if !ok || !slices.Contains(causes, known.by) {
		return breakage{}, false
	}
	delete(bs.all, rule)
	return *known, true
}

// soundFrom notes that the catalog bears a rule, unless it has been noted before.
func (bs *breakages) soundFrom(rule string, at position.LSN) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.all[rule]; b != nil && b.sound == 0 {
		b.sound = at
	}
}

// misses notes that the stream brings a transaction past rules.
func (bs *breakages) misses(names []string, commit position.LSN) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, name := range names {
		if b := bs.all[name]; b != nil {
			b.missed = commit
		}
	}
}

// passed takes off the list what the catalog bears from a position on that the stream has passed without a word to the contrary.
// Waiting says that there is more for which it has yet to come so far.
func (bs *breakages) passed(at position.LSN) (mended []breakage, waiting bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for rule, b := range bs.all {
		switch {
		case b.sound == 0:
		case b.missed >= b.sound:
			b.sound = 0 // the stream knows better
		case b.sound <= at:
			mended = append(mended, *b)
			delete(bs.all, rule)
		default:
			waiting = true
		}
	}
	return mended, waiting
}

// list is all of them, by name.
func (bs *breakages) list() []breakage {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	all := make([]breakage, 0, len(bs.all))
	for _, rule := range slices.Sorted(maps.Keys(bs.all)) {
		all = append(all, *bs.all[rule])
	}
	return all
}

// brokenReason begins the reasons of these gaps.
const brokenReason = "the rule is broken: "

// gap is the breakage as the store keeps it.
func (b *breakage) gap(source outbox.Source) outbox.Gap {
	g := outbox.Gap{Source: source.ID, Epoch: source.Epoch, Rule: b.rule, From: b.from, Lost: b.lost, Reason: brokenReason + b.why}
	b.on.of(&g)
	return g
}

// of has a gap say what its rule is on.
func (a aim) of(g *outbox.Gap) { g.Table, g.OID, g.Ops = a.table, a.oid, a.ops }

// told is the breakage for people.
func (b *breakage) told() error {
	rest := "what it misses until then is lost"
	if !b.lost {
		rest = "postman status then names the command that makes up for what it has missed"
	}
	return fmt.Errorf("rule %q is broken from %s on: %w\n  → mend the rule or the table; %s", b.rule, b.from, cmp.Or(b.mistake, errors.New(b.why)), rest)
}

// breaks records and reports that a rule does not decide. Of one that is known to be broken there is nothing to tell.
func (d *Daemon) breaks(ctx context.Context, b breakage) error {
	if l := d.live.Load(); l != nil {
		b.on = l.aim(b.rule)
	}
	b.on.oid = cmp.Or(b.on.oid, d.watched[b.rule].OID)
	b, news, worse := d.broken.breaks(b)
	if !news && !worse {
		return nil
	}
	if err := d.store.SaveGap(ctx, b.gap(d.source)); err != nil {
		d.broken.unsaved(b, news)
		return fmt.Errorf("recording the gap of rule %q: %w", b.rule, err)
	}
	if news {
		d.report.report(ctx, b.told(), b.rule, "broken rule")
	}
	return nil
}

// mended ends the gap of a rule that decides again. One that has broken anew since it was taken off the list has its gap go on: the
// store may have that as a part of it.
func (d *Daemon) mended(ctx context.Context, b breakage, to position.LSN) error {
	gaps, err := d.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	if d.broken.anew(&b) { // asked only now: what is noted later is stored later, and a gap that has taken that in refuses to end
		return nil
	}
	var ended []outbox.Gap
	var errs []error
	for _, g := range gaps {
		if ofRule(&g, d.source) && g.Rule == b.rule && g.From <= to {
			errs = append(errs, d.store.CloseGap(ctx, g, to))
			ended = append(ended, g)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ending the gap of rule %q at %s: %w", b.rule, to, err)
	}
	for i := range ended {
		if g := &ended[i]; g.Lost {
			d.log.Info("a rule decides again; what it missed is lost", "rule", b.rule, "from", g.From, "to", to, "gap", g.ID)
		} else {
			d.log.Info("a rule decides again", "rule", b.rule, "from", to, "missed", replayCommand(g.ID))
		}
	}
	return nil
}

// ofRule says whether a gap is that of a rule that is broken.
func ofRule(g *outbox.Gap, source outbox.Source) bool {
	return g.Source == source.ID && g.Epoch == source.Epoch && g.Rule != "" && g.To == 0 && g.Closed.IsZero()
}
