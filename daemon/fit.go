package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"postman/cdc"
	"postman/position"
	"postman/rules"
)

// swap takes up the live set, if it is another one than before: it decides all that commits at a position and after it.
func (in *intake) swap(at position.LSN) {
	if in.rebind.Swap(false) {
		clear(in.plans)
	}
	l := in.live.Load()
	if l == in.current {
		return
	}
	in.current = l
	clear(in.plans)
	clear(in.hides)
	l.from.Store(uint64(at))
	in.decides(l, at)
	for _, b := range in.broken.list() {
		r := l.named(b.rule)
		gone := r == nil && !l.isBroken(b.rule)
		asked := r != nil && r.On.Message != "" // no table tells whether it fits
		if gone || asked {
			in.mend(b.rule, byStream, byCatalog, byLoad)
		}
	}
}

// Relation notes that a table looks different from here on.
func (in *intake) Relation(t *cdc.Table) error {
	if was, known := in.names[t.OID]; known && was != t.TableName {
		in.renamed(t, was)
	}
	maps.DeleteFunc(in.names, func(_ uint32, name cdc.TableName) bool { return name == t.TableName }) // that one is gone, or has another name
	in.names[t.OID] = t.TableName
	delete(in.plans, t.OID)
	clear(in.shapes)
	clear(in.hides)
	return nil
}

// renamed breaks the rules on a table that has another name from here on.
func (in *intake) renamed(t *cdc.Table, was cdc.TableName) {
	if in.current == nil || in.open.tx.Commit == 0 { // in a transaction that was taken in before
		return
	}
	delete(in.strays, t.OID)
	for _, r := range in.current.rules.Rules {
		if r.On.Message == "" && r.On.Table == was {
			in.breaks(r.Mistake("PM401", r.Place, fmt.Sprintf("the table %s is called %s now", was, t.TableName), "name it so in the rule, or rename it back"))
			in.strays[t.OID] = append(in.strays[t.OID], r.Name)
		}
	}
}

// bind resolves the rules of a table. Those that its new shape broke are reported, with the gap that begins here; the gaps of those
// that fit it again end.
func (in *intake) bind(t *cdc.Table) bound {
	plan, err := in.current.rules.Bind(t)
	b := bound{plan: plan}
	for _, name := range in.strays[t.OID] {
		if r := in.current.named(name); r != nil && r.On.Table != t.TableName { // else the rule has followed, or is gone
			b.unfit = append(b.unfit, name)
		}
	}
	if errs, ok := errors.AsType[rules.Errors](err); ok {
		for _, e := range errs {
			in.breaks(e)
			b.unfit = append(b.unfit, e.Rule)
		}
	}
	for _, known := range in.broken.list() {
		r := in.current.named(known.rule)
		if r != nil && r.On.Message == "" && r.On.Table == t.TableName && !slices.Contains(b.unfit, known.rule) {
			in.mend(known.rule, byStream, byLoad)
		}
	}
	if plan != nil {
		plan.OnMismatch = in.mismatch
	}
	in.plans[t.OID] = b
	return b
}

func (in *intake) breaks(e *rules.Error) {
	b, news, worse := in.broken.breaks(breakage{rule: e.Rule, from: in.open.tx.Commit, why: e.Message, mistake: e, by: byStream})
	if news || worse {
		in.gaps = append(in.gaps, b.gap(in.source))
	}
	if news {
		in.report(context.Background(), b.told(), b.rule, "broken rule")
	}
}

// mend has the gap of a rule end with the transaction that is open: part of it the rule may have missed.
func (in *intake) mend(rule string, causes ...cause) {
	if b, ok := in.broken.mends(rule, causes...); ok {
		in.mended = append(in.mended, b)
	}
}

// mismatch takes note of what the index of the rules got wrong.
func (in *intake) mismatch(r *rules.Rule, err error) {
	name := ""
	if r != nil {
		name = r.Name
	}
	in.mismatches.Add(1)
	in.report(context.Background(), fmt.Errorf("a defect of postman, found in a sample: at %s, %w\n  → this change was decided without the index, and rightly; others may not have been: please report it with the rule", in.open.tx.Commit, err), name, "index")
}
