package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// StayingGap is a gap that a replay covers and does not make up for.
type StayingGap struct {
	Gap    int64  `json:"gap"`
	Why    string `json:"why"`
	Mend   string `json:"mend"`   // the command that tries it again, once that has changed
	Accept string `json:"accept"` // the command that ends it as it is
}

// coveredGap is a gap that lies wholly in what is replayed, and whose rules are asked for. It is made up for when all that it has
// was decided on.
type coveredGap struct {
	outbox.Gap
	unfit  int64  // changes that its rule cannot be known to have decided on
	why    string // the first could not
	unread int64  // changes that nobody can read
	defect string // why the first cannot
	missed map[missedColumn]*undetermined
}

// missedColumn is a column for want of which a rule could not decide.
type missedColumn struct{ rule, column string }

// covering finds the gaps that the replay covers.
func (p *replayer) covering(ctx context.Context) error {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	p.covered = nil
	for i := range gaps {
		if p.covers(&gaps[i]) {
			p.covered = append(p.covered, coveredGap{Gap: gaps[i], missed: make(map[missedColumn]*undetermined)})
		}
	}
	return nil
}

func (p *replayer) covers(g *outbox.Gap) bool {
	switch {
	case g.Source != p.source.ID || g.Lost || g.To == 0 || g.Settled():
		return false
	case len(p.request.Rules) > 0 && !slices.Contains(p.request.Rules, g.Rule):
		return false
	}
	return slices.ContainsFunc(p.parts, func(s stretch) bool {
		return s.epoch == g.Epoch && max(s.from, p.reach.spans[s.epoch].Since) <= g.From && g.To <= s.to
	})
}

// has says whether a commit lies in the gap.
func (g *coveredGap) has(epoch uint32, commit position.LSN) bool {
	return g.Epoch == epoch && g.From <= commit && commit <= g.To
}

// concerns says whether the gap is one of a rule, or of all.
func (g *coveredGap) concerns(rule string) bool { return g.Rule == "" || g.Rule == rule }

// unfit takes note of a change that a rule cannot be known to have decided on.
func (p *replayer) unfit(epoch uint32, commit position.LSN, rule, why string) {
	for i := range p.covered {
		if g := &p.covered[i]; g.concerns(rule) && g.has(epoch, commit) {
			if g.unfit++; g.unfit == 1 {
				g.why = why
			}
		}
	}
}

// unread takes note of a change that may concern any rule.
func (p *replayer) unread(epoch uint32, commit position.LSN, why error) {
	for i := range p.covered {
		if g := &p.covered[i]; g.has(epoch, commit) {
			g.unread++
			g.defect = cmp.Or(g.defect, why.Error())
		}
	}
}

// undetermined takes note of a change that a rule could not decide on. It is a loss of one gap, the first that has it.
func (p *replayer) undetermined(epoch uint32, commit position.LSN, rule, column string) {
	for i := range p.covered {
		if g := &p.covered[i]; g.concerns(rule) && g.has(epoch, commit) {
			note(g.missed, missedColumn{rule, column}, commit)
			return
		}
	}
}

// stays says why a covered gap is not made up for; empty: it is. What passes by itself, or by what the rule waits for anyway, is for now.
func (p *replayer) stays(g *coveredGap) (why string, forNow bool) {
	switch {
	case p.undecided(g) != "":
		return p.undecided(g), true
	case p.elsewhere(g) != "":
		return p.elsewhere(g), false
	case g.unfit > 0:
		return fmt.Sprintf("%s in a shape that %s: %s", counted(int(g.unfit), "change came", "changes came"),
			map[bool]string{true: "a rule does not fit", false: "the rule does not fit"}[g.Rule == ""], g.why), false
	case g.unread > 0:
		return fmt.Sprintf("%s cannot be read yet: %s", counted(int(g.unread), "change", "changes"), g.defect), true
	}
	return "", false
}

// undecided says which rule of a gap does not decide at present, and why; empty: all do.
func (p *replayer) undecided(g *coveredGap) string {
	decides := slices.ContainsFunc(p.set.Rules, func(r *rules.Rule) bool { return r.Name == g.Rule })
	switch {
	case g.Rule != "" && p.excluded[g.Rule] != "":
		return "the rule is not replayed: " + p.excluded[g.Rule]
	case g.Rule != "" && !decides:
		return "the rule does not decide at present: it is broken, or gone"
	case g.Rule != "":
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(p.excluded)) {
		return fmt.Sprintf("it is one of all rules, and rule %s is not replayed: %s", name, p.excluded[name])
	}
	for _, e := range p.live.broken {
		if e.Rule != "" {
			return fmt.Sprintf("it is one of all rules, and rule %s does not decide at present: it is broken", e.Rule)
		}
	}
	return ""
}

// elsewhere says what the rule of a gap was on, and is on no more; empty: it is, whatever the table was called.
func (p *replayer) elsewhere(g *coveredGap) string {
	r := p.live.named(g.Rule)
	if r == nil {
		return ""
	}
	now := p.live.aim(g.Rule)
	lacks := slices.DeleteFunc(slices.Clone(g.Ops), func(op string) bool { return slices.Contains(now.ops, op) })
	switch {
	case len(g.Ops) == 0:
		return "it was recorded by a postman that did not keep what the rule was on then"
	case g.Table == "" && r.On.Message == "":
		return fmt.Sprintf("the rule was on a message then, and is on the table %s now", r.On.Table)
	case g.Table == "":
		return ""
	case r.On.Message != "":
		return fmt.Sprintf("the rule was on the table %s then, and is on a message now", g.Table)
	case !p.same(g, r.On.Table) && g.Table == now.table:
		return fmt.Sprintf("the rule was on the table %s then, and another one has its name now", g.Table)
	case !p.same(g, r.On.Table):
		return fmt.Sprintf("the rule was on the table %s then, and is on %s now", g.Table, now.table)
	case len(lacks) > 0:
		return fmt.Sprintf("the rule was on %s then, and is on %s now", strings.Join(g.Ops, ", "), strings.Join(now.ops, ", "))
	}
	return ""
}

// same says whether the table of a gap is the one that has a name now. OIDs tell, but not across epochs, nor where one is not known.
func (p *replayer) same(g *coveredGap, name cdc.TableName) bool {
	now := p.naming.oid(name)
	if g.Epoch == p.naming.epoch && g.OID != 0 && now != 0 {
		return g.OID == now
	}
	return g.Table == name.String() || slices.ContainsFunc(p.naming.known, func(was publishedOp) bool {
		begins, ends := spot{was.Epoch, was.From}, spot{was.ToEpoch, was.To}
		return now != 0 && was.OID == now && was.Table.String() == g.Table && !(spot{g.Epoch, g.To}).before(begins) && (ends.epoch == 0 || !ends.before(spot{g.Epoch, g.From}))
	})
}

func (p *replayer) staying(g *coveredGap) (s StayingGap, stays, forNow bool) {
	why, forNow := p.stays(g)
	return StayingGap{Gap: g.ID, Why: why, Mend: replayCommand(g.ID), Accept: acceptCommand(g.ID)}, why != "", forNow
}

// mend notes which gaps a replay made up for, and why others stay. What its rules could not decide on there is a loss of its own, as it
// is in the stream.
func (p *replayer) mend(ctx context.Context, order int64, done *ReplayDone) error {
	pruned, err := p.pruned(ctx)
	if err != nil {
		return err
	}
	done.Notes = append(done.Notes, pruned...)
	for i := range p.covered {
		g := &p.covered[i]
		if s, stays, forNow := p.staying(g); stays {
			done.Stays = append(done.Stays, s)
			if forNow { // the status would tell it when it is over
				continue
			}
			if err := p.store.LeaveGap(ctx, g.Gap, s.Why); err != nil && !errors.Is(err, outbox.ErrState) { // somebody else settled it
				return err
			}
			continue
		}
		switch err := p.store.MendGap(ctx, g.Gap, order, g.losses()); {
		case errors.Is(err, outbox.ErrState): // it has taken more in meanwhile
			done.Notes = append(done.Notes, fmt.Sprintf("gap %d stays: it has grown since", g.ID))
			continue
		case err != nil:
			return err
		}
		done.Mended = append(done.Mended, g.ID)
	}
	return nil
}

// pruned drops the gaps of which the journal may have had no more all that it had when the replay began, and tells of that.
func (p *replayer) pruned(ctx context.Context) (notes []string, err error) {
	for _, s := range p.parts {
		span, err := p.store.JournalSpan(ctx, p.source.ID, s.epoch)
		if err != nil {
			return nil, err
		}
		if span.Since <= max(s.from, p.reach.spans[s.epoch].Since) {
			continue
		}
		p.covered = slices.DeleteFunc(p.covered, func(g coveredGap) bool { return g.Epoch == s.epoch && g.From < span.Since })
		notes = append(notes, fmt.Sprintf("the journal was pruned meanwhile, and begins at %s now: what lies before may not have been decided on", span.Since))
	}
	return notes, nil
}

// losses are what rules could not decide on in a gap.
func (g *coveredGap) losses() (all []outbox.Gap) {
	for _, m := range slices.SortedFunc(maps.Keys(g.missed), func(a, b missedColumn) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.column, b.column))
	}) {
		u := g.missed[m]
		all = append(all, outbox.Gap{Source: g.Source, Epoch: g.Epoch, Rule: m.rule, From: u.from, To: u.to, Count: u.n, Lost: true, Reason: undeterminedReason + m.column})
	}
	return all
}

// touches says whether a gap, of a rule that is asked about or of all, lies in what is replayed, in part at least.
func (p *replayer) touches(g *outbox.Gap) bool {
	if g.Source != p.source.ID || g.Settled() || g.Rule != "" && len(p.request.Rules) > 0 && !slices.Contains(p.request.Rules, g.Rule) {
		return false
	}
	return slices.ContainsFunc(p.parts, func(s stretch) bool {
		return s.epoch == g.Epoch && g.From <= s.to && (g.To == 0 || g.To >= s.from)
	})
}
