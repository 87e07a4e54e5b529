package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// GapStatus is a stretch that was not covered.
type GapStatus struct {
	ID     int64     `json:"id"`
	Rule   string    `json:"rule,omitempty"`
	From   string    `json:"from"`
	To     string    `json:"to,omitempty"`
	Count  int64     `json:"count"`
	Lost   bool      `json:"lost"`
	Reason string    `json:"reason"`
	Mend   string    `json:"mend,omitempty"`
	Since  time.Time `json:"since"`
	Replay int64     `json:"replay,omitempty"` // that made up for it
	// JournalFrom is where the journal begins by now, if that is behind From: what the gap has before is lost, and Mend is of the rest.
	JournalFrom string `json:"journal_from,omitempty"`
	// Stays is why no replay makes up for it: the last that covered it could not, or there is no such rule any more.
	Stays string `json:"stays,omitempty"`
	// Accept is the command that ends it as it is, where there is nothing better to do.
	Accept   string       `json:"accept,omitempty"`
	Accepted *AcceptedGap `json:"accepted,omitempty"` // nil: nobody did
}

// AcceptedGap is who took a gap as it is, when and why.
type AcceptedGap struct {
	At  time.Time `json:"at"`
	By  string    `json:"by"`
	Why string    `json:"why"`
}

// AcceptGapAdvice is the way out of a gap of all rules that goes on.
const AcceptGapAdvice = "postman setup --accept-gap records it and goes on behind it; or point DATABASE_URL and STORE_URL at the right places (docs/slots.md)"

// Endless says whether it is one of all rules that goes on: nothing is streamed before an operator decides.
func (g *GapStatus) Endless() bool { return g.Rule == "" && g.To == "" && !g.Settled() }

// Settled says whether there is nothing more to do about it.
func (g *GapStatus) Settled() bool { return g.Replay != 0 || g.Accepted != nil }

// Changes is how many changes the gap is about; 0: nobody knows.
func (g *GapStatus) Changes() int64 {
	if strings.HasPrefix(g.Reason, undeterminedReason) || strings.HasPrefix(g.Reason, unreadReason) {
		return g.Count
	}
	return 0
}

func viewGap(g *outbox.Gap) GapStatus {
	view := GapStatus{
		ID: g.ID, Rule: g.Rule, From: g.From.String(), Count: g.Count, Lost: g.Lost, Reason: g.Reason, Since: g.Created, Replay: g.Replay,
	}
	if g.To != 0 {
		view.To = g.To.String()
	}
	switch {
	case !g.Accepted.IsZero():
		view.Accepted = &AcceptedGap{g.Accepted, g.By, g.Why}
	case g.Replay != 0:
	case g.Lost && g.To != 0:
		view.Accept = acceptCommand(g.ID)
	case g.Lost: // where it goes on, mending the rule comes first
	case g.Left != "":
		view.Stays, view.Accept = g.Left, acceptCommand(g.ID)
		view.Mend = replayCommand(g.ID) // the rule may have changed since
	case g.To == 0:
		view.Mend = "mend the rule or the table, then " + replayCommand(g.ID)
	case g.Reason == unreadReason:
		view.Mend = "once a version can read them: " + replayCommand(g.ID)
	default:
		view.Mend = replayCommand(g.ID)
	}
	return view
}

// viewing is viewGap with what has become of the gap since: the journal begins behind it, its rule is gone. What the store says of either is
// asked for once.
func viewing(ctx context.Context, store outbox.Store) func(*outbox.Gap) (GapStatus, error) {
	type epoch struct{ source, epoch uint32 }
	spans, rulesOf := make(map[epoch]outbox.JournalSpan), knownRules(ctx, store)
	return func(g *outbox.Gap) (v GapStatus, err error) {
		v = viewGap(g)
		if v.Mend == "" && v.Stays == "" {
			return v, nil
		}
		span, known := spans[epoch{g.Source, g.Epoch}]
		if !known {
			if span, err = store.JournalSpan(ctx, g.Source, g.Epoch); err != nil {
				return v, err
			}
			spans[epoch{g.Source, g.Epoch}] = span
		}
		v.outlived(g, span)
		live, err := rulesOf(g.Source)
		v.orphaned(live)
		return v, err
	}
}

// replayCommand makes up for a gap. It names the gap alone: that has a rule, both ends, and their epoch, which LSNs do not tell.
func replayCommand(gap int64) string { return fmt.Sprintf("postman replay --gap %d", gap) }

// acceptCommand ends a gap as it is.
func acceptCommand(gap int64) string { return fmt.Sprintf("postman gaps accept %d --reason TEXT", gap) }

// orphaned notes that no rule has the gap's name any more: a command that names it would be refused.
func (g *GapStatus) orphaned(live []liveRule) {
	if g.Rule == "" || g.Mend == "" || live == nil || slices.ContainsFunc(live, func(r liveRule) bool { return r.Name == g.Rule }) {
		return
	}
	g.Mend, g.Stays = "", cmp.Or(g.Stays, "there is no rule of that name any more")
	if g.To != "" {
		g.Accept = acceptCommand(g.ID)
	}
}

// outlived notes that the journal does not reach back to a gap any more: a command that begins there would be refused.
func (g *GapStatus) outlived(of *outbox.Gap, span outbox.JournalSpan) {
	since := cmp.Or(span.Since, span.Oldest)
	if g.Mend == "" && g.Stays == "" || since <= of.From {
		return
	}
	g.JournalFrom, g.Lost, g.Mend = since.String(), true, ""
	if of.To >= since { // of the rest
		g.Mend = replayCommand(of.ID)
	}
	if of.To != 0 {
		g.Accept = acceptCommand(of.ID)
	}
}

// GapsAccepted asks that gaps be taken as they are.
type GapsAccepted struct {
	Gaps []int64 `json:"gaps"`
	By   string  `json:"by"`
	Why  string  `json:"why"`
}

func (a *api) acceptGaps(w http.ResponseWriter, r *http.Request) {
	var q GapsAccepted
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&q); err != nil {
		reply(w, nil, badRequest{"reading which gaps to accept: " + err.Error()})
		return
	}
	accepted, err := a.accept(r.Context(), q)
	reply(w, accepted, err)
}

// accept ends gaps as they are: all of them, or none where one cannot be.
func (a *api) accept(ctx context.Context, q GapsAccepted) (accepted []GapStatus, err error) {
	if strings.TrimSpace(q.Why) == "" {
		return nil, badRequest{"say why, with --reason: it is kept with the gap"}
	}
	all, err := a.store.Gaps(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the gaps: %w", err)
	}
	var asked []outbox.Gap
	var wrong []string
	for n, id := range q.Gaps {
		if slices.Contains(q.Gaps[:n], id) {
			continue
		}
		i := slices.IndexFunc(all, func(g outbox.Gap) bool { return g.ID == id })
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("there is no gap %d", id))
		} else if why := unacceptable(&all[i]); why != "" {
			wrong = append(wrong, fmt.Sprintf("gap %d %s", id, why))
		} else {
			asked = append(asked, all[i])
		}
	}
	if len(wrong) > 0 {
		return nil, badRequest{strings.Join(wrong, "\n") + "\n  → nothing was changed; postman status lists the gaps"}
	}
	for i := range asked {
		asked[i].Accepted, asked[i].By, asked[i].Why = time.Now(), q.By, q.Why
		accepted = append(accepted, viewGap(&asked[i]))
	}
	if err := a.store.AcceptGaps(ctx, asked); errors.Is(err, outbox.ErrState) {
		return nil, badRequest{"one of the gaps has grown, or was settled, meanwhile: nothing was changed\n  → look at them again: postman status"}
	} else if err != nil {
		return nil, err
	}
	return accepted, nil
}

// unacceptable says why a gap cannot be taken as it is; empty: it can.
func unacceptable(g *outbox.Gap) string {
	switch {
	case g.Replay != 0:
		return fmt.Sprintf("was made up for by replay %d", g.Replay)
	case !g.Accepted.IsZero():
		return fmt.Sprintf("was accepted by %s already", g.By)
	case g.To == 0 && g.Rule == "":
		return "goes on: nothing is streamed; postman setup --accept-gap ends it"
	case g.To == 0:
		return fmt.Sprintf("goes on: rule %s is broken; mend the rule or the table first", g.Rule)
	}
	return ""
}
