package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"postman/outbox"
)

// mend notes the gaps that a replay made up for. What its rules could not decide on there is a loss of its own, as it is in the stream.
func (p *replayer) mend(ctx context.Context, order int64, r *redecision, see *seen, done *ReplayDone) error {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	misfits := r.misfits()
	for i := range gaps {
		g := &gaps[i]
		if !p.mends(g) {
			continue
		}
		if m, ok := misfits[g.Rule]; ok && g.Rule != "" {
			done.Notes = append(done.Notes, fmt.Sprintf("gap %d of rule %s stays: %d changes came in a shape that the rule does not fit (%s)", g.ID, g.Rule, m.changes, m.why.Message))
			continue
		}
		if g.Rule == "" && see.unread > 0 {
			done.Notes = append(done.Notes, fmt.Sprintf("gap %d stays: %d changes cannot be read yet", g.ID, see.unread))
			continue
		}
		switch err := p.store.MendGap(ctx, *g, order); {
		case errors.Is(err, outbox.ErrState): // it has taken more in meanwhile
			done.Notes = append(done.Notes, fmt.Sprintf("gap %d stays: it has grown since", g.ID))
			continue
		case err != nil:
			return err
		}
		done.Mended = append(done.Mended, g.ID)
		if err := p.losses(ctx, g, see); err != nil {
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

// mends says whether a replay as it is asked for covers a gap that can be made up for.
func (p *replayer) mends(g *outbox.Gap) bool {
	if g.Source != p.source.ID || g.Lost || g.To == 0 || g.Replay != 0 || g.Rule == "" && len(p.request.Rules) > 0 {
		return false
	}
	if g.Rule != "" {
		decides := false
		for _, r := range p.set.Rules {
			decides = decides || r.Name == g.Rule
		}
		if !decides {
			return false
		}
	}
	return slices.ContainsFunc(p.parts, func(s stretch) bool { return s.epoch == g.Epoch && s.from <= g.From && g.To <= s.to })
}

// touches says whether a gap, of a rule that is asked about or of all, lies in what is replayed, in part at least.
func (p *replayer) touches(g *outbox.Gap) bool {
	if g.Source != p.source.ID || g.Replay != 0 || g.Rule != "" && len(p.request.Rules) > 0 && !slices.Contains(p.request.Rules, g.Rule) {
		return false
	}
	return slices.ContainsFunc(p.parts, func(s stretch) bool {
		return s.epoch == g.Epoch && g.From <= s.to && (g.To == 0 || g.To >= s.from)
	})
}
