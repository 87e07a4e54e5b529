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
	in.lag(l)
	for _, b := range in.broken.list() {
		r := l.named(b.rule)
		gone := r == nil && !l.isBroken(b.rule)
		asked := r != nil && r.On.Message != "" // no table tells whether it fits
		if gone || asked {
			in.mend(b.rule, byStream, byCatalog, byLoad)
		}
	}
}

// lag notes the rules that know a table by a name that the stream has not come to: what it has told of under the former name still
// comes so, until it tells the new one.
func (in *intake) lag(l *live) {
	for oid, told := range in.names {
		name, known := l.nameOf(oid)
		if !known || name == told {
			continue
		}
		for _, r := range l.rules.Rules {
			if r.On.Message == "" && r.On.Table == name && !slices.Contains(in.strays[oid], r.Name) {
				in.strays[oid] = append(in.strays[oid], r.Name)
			}
		}
	}
}

// Relation notes that a table looks different from here on.
func (in *intake) Relation(t *cdc.Table) error {
	was, known := in.names[t.OID]
	if !known { // the stream has not told it yet: it may have got its name since the rules were loaded
		was, known = in.live.Load().nameOf(t.OID)
	}
	if known && was != t.TableName {
		in.renamed(t, was)
	}
	maps.DeleteFunc(in.names, func(_ uint32, name cdc.TableName) bool { return name == t.TableName }) // that one is gone, or has another name
	in.names[t.OID] = t.TableName
	maps.DeleteFunc(in.plans, func(old *cdc.Table, _ bound) bool { return old.OID == t.OID || len(in.strays[old.OID]) > 0 })
	clear(in.shapes)
	clear(in.hides)
	return nil
}

// renamed breaks the rules on a table that has another name from here on, or from the commit of a transaction in progress on.
func (in *intake) renamed(t *cdc.Table, was cdc.TableName) {
	switch {
	case in.open == nil: // in a transaction that was taken in before
	case in.open.streamed:
		in.open.renamed = append(in.open.renamed, renaming{t, was})
	default:
		in.renameTable(t, was)
	}
}

func (in *intake) renameTable(t *cdc.Table, was cdc.TableName) {
	delete(in.strays, t.OID)
	for _, r := range in.current.rules.Rules {
		if r.On.Message == "" && r.On.Table == was {
			in.breaks(strayed(r, t))
			in.strays[t.OID] = append(in.strays[t.OID], r.Name)
		}
	}
}

// strayed is the mistake of a rule whose table has another name.
func strayed(r *rules.Rule, t *cdc.Table) *rules.Error {
	return r.Mistake("PM401", r.Key("on"), fmt.Sprintf("the table %s is called %s now", r.On.Table, t.TableName), "name it so in the rule, or rename it back")
}

// astray are the rules that know a table by another name. One that has followed is not, nor one whose name the stream has told another table
// to have since.
func (in *intake) astray(t *cdc.Table) (all []*rules.Rule) {
	for _, name := range in.strays[t.OID] {
		r := in.current.named(name)
		if r == nil || r.On.Table == t.TableName {
			continue
		}
		borne := false
		for oid, name := range in.names {
			borne = borne || oid != t.OID && name == r.On.Table
		}
		if !borne {
			all = append(all, r)
		}
	}
	return all
}

// bind resolves the rules of a table. Those that its new shape broke are reported, with the gap that begins here; the gaps of those
// that fit it again end. A transaction in progress leaves that to its commit and to what comes behind it.
func (in *intake) bind(t *cdc.Table) bound {
	plan, err := in.open.set.rules.Bind(t)
	b := bound{plan: plan}
	b.errs, _ = errors.AsType[rules.Errors](err)
	if plan != nil {
		plan.OnMismatch = in.mismatch
	}
	if !in.open.streamed {
		in.fit(t, &b)
	}
	in.open.plans[t] = b
	return b
}

// fit notes which rules a table's shape broke, and which it mended.
func (in *intake) fit(t *cdc.Table, b *bound) {
	for _, r := range in.astray(t) {
		anew := in.breaks(strayed(r, t)) // a look has ended its gap that saw the table under its own name again
		if anew && oidIn(in.current.catalog, r.On.Table) == t.OID {
			in.reconnect(fmt.Sprintf("it calls the table %s by another name, as Postgres may until then of one that is partitioned, or whose schema has another name", r.On.Table))
		}
		b.unfit = append(b.unfit, r.Name)
	}
	for _, e := range b.errs {
		in.breaks(e)
		b.unfit = append(b.unfit, e.Rule)
	}
	for _, known := range in.broken.list() {
		r := in.current.named(known.rule)
		if r != nil && r.On.Message == "" && r.On.Table == t.TableName && !slices.Contains(b.unfit, known.rule) {
			in.mend(known.rule, byStream, byLoad)
		}
	}
}

// breaks notes that a rule does not decide, and says whether that is news.
func (in *intake) breaks(e *rules.Error) (news bool) {
	b, news, worse := in.broken.breaks(breakage{rule: e.Rule, on: in.current.aim(e.Rule), from: in.open.tx.Commit, why: e.Message, mistake: e, by: byStream})
	if news || worse {
		in.gaps = append(in.gaps, b.gap(in.source))
	}
	if news {
		in.report(context.Background(), b.told(), b.rule, "broken rule")
	}
	return news
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
	in.report(context.Background(), fmt.Errorf("a defect of postman, found in a sample: at %s, %w\n  → this change was decided without the index, and rightly; others may not have been: please report it with the rule", in.open.place(), err), name, "index")
}
