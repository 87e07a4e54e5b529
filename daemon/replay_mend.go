package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// StayingGap is a gap that a replay covers and does not make up for.
type StayingGap struct {
	Gap    int64  `json:"gap"`
	Why    string `json:"why"`
	Accept string `json:"accept"` // the command that ends it as it is
}

// coveredGap is a gap that lies wholly in what is replayed, and whose rules are asked for. It is made up for when all that it has
// was decided on.
type coveredGap struct {
	outbox.Gap
	unfit  int64  // changes that its rule cannot be known to have decided on
	why    string // the first could not
	unread int64  // changes that nobody can read
}

// covering finds the gaps that the replay covers.
func (p *replayer) covering(ctx context.Context) error {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	p.covered = nil
	for i := range gaps {
		if p.covers(&gaps[i]) {
			p.covered = append(p.covered, coveredGap{Gap: gaps[i]})
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

// unfit takes note of a change that a rule cannot be known to have decided on.
func (p *replayer) unfit(epoch uint32, commit position.LSN, rule, why string) {
	for i := range p.covered {
		if g := &p.covered[i]; g.Rule == rule && g.has(epoch, commit) {
			if g.unfit++; g.unfit == 1 {
				g.why = why
			}
		}
	}
}

// unread takes note of a change that may concern any rule.
func (p *replayer) unread(epoch uint32, commit position.LSN) {
	for i := range p.covered {
		if g := &p.covered[i]; g.has(epoch, commit) {
			g.unread++
		}
	}
}

// stays says why a covered gap is not made up for; empty: it is.
func (p *replayer) stays(g *coveredGap) string {
	decides := slices.ContainsFunc(p.set.Rules, func(r *rules.Rule) bool { return r.Name == g.Rule })
	switch {
	case g.Rule != "" && p.excluded[g.Rule] != "":
		return "the rule is not replayed: " + p.excluded[g.Rule]
	case g.Rule != "" && !decides:
		return "the rule does not decide at present: it is broken, or gone"
	case g.unfit > 0:
		return fmt.Sprintf("%s in a shape that the rule does not fit: %s", counted(int(g.unfit), "change came", "changes came"), g.why)
	case g.unread > 0:
		return counted(int(g.unread), "change", "changes") + " cannot be read yet"
	}
	return ""
}

func (p *replayer) staying(g *coveredGap) (s StayingGap, stays bool) {
	why := p.stays(g)
	return StayingGap{Gap: g.ID, Why: why, Accept: acceptCommand(g.ID)}, why != ""
}

// acceptCommand ends a gap as it is.
func acceptCommand(gap int64) string { return fmt.Sprintf("postman gaps accept %d --reason TEXT", gap) }

// mend notes which gaps a replay made up for, and why others stay. What its rules could not decide on there is a loss of its own, as it
// is in the stream.
func (p *replayer) mend(ctx context.Context, order int64, see *seen, done *ReplayDone) error {
	for i := range p.covered {
		g := &p.covered[i]
		if s, stays := p.staying(g); stays {
			done.Stays = append(done.Stays, s)
			if err := p.store.LeaveGap(ctx, g.Gap, s.Why); err != nil && !errors.Is(err, outbox.ErrState) { // somebody else settled it
				return err
			}
			continue
		}
		switch err := p.store.MendGap(ctx, g.Gap, order); {
		case errors.Is(err, outbox.ErrState): // it has taken more in meanwhile
			done.Notes = append(done.Notes, fmt.Sprintf("gap %d stays: it has grown since", g.ID))
			continue
		case err != nil:
			return err
		}
		done.Mended = append(done.Mended, g.ID)
		if err := p.losses(ctx, &g.Gap, see); err != nil {
			return err
		}
	}
	return nil
}

// losses records what a rule could not decide on in a gap.
func (p *replayer) losses(ctx context.Context, g *outbox.Gap, see *seen) error {
	rule := p.live.named(g.Rule)
	for _, column := range slices.Sorted(maps.Keys(see.missed[rule])) {
		u := see.missed[rule][column]
		loss := outbox.Gap{Source: g.Source, Epoch: g.Epoch, Rule: g.Rule, From: u.from, To: u.to, Count: u.n, Lost: true, Reason: undeterminedReason + column}
		if err := p.store.SaveGap(ctx, loss); err != nil {
			return fmt.Errorf("recording what rule %q could not decide on: %w", g.Rule, err)
		}
	}
	return nil
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
