package daemon

import (
	"context"
	"fmt"
	"slices"

	"postman/outbox"
)

// named fills in what a request names by a number: a gap, or a replay that was broken off. LSNs recur from one epoch to another, and of a rule's
// gaps several may overlap; a number is unambiguous. Without one, the places are zero.
func (p *replayer) named(ctx context.Context, q ReplayRequest) (_ ReplayRequest, first, last spot, err error) {
	switch {
	case q.Gap == 0 && q.GoOn == 0:
		return q, first, last, nil
	case q.From != "" || q.To != "" || len(q.Rules) > 0 || q.Gap != 0 && q.GoOn != 0:
		return q, first, last, badRequest{"a gap, or a replay, has a beginning, an end and rules of its own: name either its number or these"}
	case q.Gap != 0:
		return p.ofGap(ctx, q)
	}
	return p.goingOn(ctx, q)
}

// ofGap asks for a gap: its rule and its stretch.
func (p *replayer) ofGap(ctx context.Context, q ReplayRequest) (_ ReplayRequest, first, last spot, err error) {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return q, first, last, fmt.Errorf("reading the gaps: %w", err)
	}
	i := slices.IndexFunc(gaps, func(g outbox.Gap) bool { return g.ID == q.Gap && g.Source == p.source.ID })
	if i < 0 {
		return q, first, last, badRequest{fmt.Sprintf("there is no gap %d\n  → postman status lists the gaps", q.Gap)}
	}
	g := &gaps[i]
	if why := unmendable(g); why != "" {
		return q, first, last, badRequest{fmt.Sprintf("gap %d %s", g.ID, why)}
	}
	if g.Rule != "" {
		q.Rules = []string{g.Rule}
	}
	return q, spot{g.Epoch, g.From}, spot{g.Epoch, g.To}, nil
}

// kept is where what is named by a number begins as far as the journal has it.
func (p *replayer) kept(first, last spot) (spot, error) {
	span, ok := p.reach.spans[first.epoch]
	switch {
	case ok && span.Since <= first.lsn:
		return first, nil
	case p.request.Gap == 0: // one that goes on is the same from its beginning on
		return first, p.reach.before(first.lsn.String())
	case !ok || first.epoch == last.epoch && last.lsn < span.Since:
		return first, badRequest{fmt.Sprintf("gap %d is not in the journal any more, which has %s\n  → see to it by other means, then %s", p.request.Gap, p.reach.has(), acceptCommand(p.request.Gap))}
	}
	p.reach.short = fmt.Sprintf("gap %d begins at %s, and the journal at %s: what lies before is lost", p.request.Gap, first.lsn, span.Since)
	return spot{first.epoch, span.Since}, nil
}

// unmendable says why no replay can make up for a gap; empty: one may.
func unmendable(g *outbox.Gap) string {
	switch {
	case g.Settled():
		return unacceptable(g)
	case g.Lost && g.To != 0:
		return "is lost: nothing of it was streamed\n  → see to it by other means, then " + acceptCommand(g.ID)
	case g.To == 0:
		return unacceptable(g)
	}
	return ""
}

// goingOn asks for what a replay that was broken off has left undone.
func (p *replayer) goingOn(ctx context.Context, q ReplayRequest) (_ ReplayRequest, first, last spot, err error) {
	all, err := p.store.Replays(ctx)
	if err != nil {
		return q, first, last, fmt.Errorf("reading the replays: %w", err)
	}
	i := slices.IndexFunc(all, func(o outbox.Replay) bool { return o.ID == q.GoOn && o.From.Source == p.source.ID })
	switch {
	case i < 0:
		return q, first, last, badRequest{fmt.Sprintf("there is no replay %d", q.GoOn)}
	case !all[i].Ended.IsZero():
		return q, first, last, badRequest{fmt.Sprintf("replay %d has ended: there is nothing to go on with", q.GoOn)}
	}
	o := &all[i]
	q.Rules, q.Muted, q.Resend, q.Again, q.Why = o.Rules, o.Muted, o.Resend, o.YetAgain, o.Why
	return q, spot{o.From.Epoch, o.From.LSN}, spot{o.To.Epoch, o.To.LSN}, nil
}

// goOnCommand takes up a replay that was broken off.
func goOnCommand(replay int64) string { return fmt.Sprintf("postman replay --go-on %d", replay) }
