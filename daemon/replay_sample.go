package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// ReplayRecipients is who would get the mails.
type ReplayRecipients struct {
	Of        int          `json:"of"`     // matches that would wait for their mails
	Asked     int          `json:"asked"`  // of these, those whose recipients were asked for; fewer: a sample
	People    int          `json:"people"` // addresses, of those that were asked for and of what is sent once more
	Mails     int          `json:"mails"`  // to them
	Nobody    int          `json:"nobody,omitempty"`
	NoAddress int          `json:"no_address,omitempty"` // recipients whose address is NULL, or none
	Held      int          `json:"held,omitempty"`       // matches over max_recipients
	Failed    int          `json:"failed,omitempty"`
	Failure   string       `json:"failure,omitempty"` // why, of the first
	Biggest   []BigAddress `json:"biggest,omitempty"`
}

// BigAddress is an address and how many mails it would get.
type BigAddress struct {
	Address string `json:"address"`
	Mails   int    `json:"mails"`
}

// What a plan asks for: of more matches it takes a sample, as it does where that takes longer.
const (
	mostAsked   = 500
	askPatience = 20 * time.Second
	mostBiggest = 10
)

// sampled is a match of which a plan tells more.
type sampled struct {
	found
	epoch uint32
}

// pool keeps some of the matches that it is given, each as likely as any other (Vitter, "Random Sampling with a Reservoir", algorithm R).
type pool struct {
	kept  []sampled
	given int
	dice  *rand.Rand
}

// newPool has a die that falls alike for every plan: what is asked about the same journal twice has the same answer.
func newPool() *pool { return &pool{dice: rand.New(rand.NewPCG(1, 2))} }

func (p *pool) add(s sampled) {
	p.given++
	if len(p.kept) < mostAsked {
		p.kept = append(p.kept, s)
	} else if i := p.dice.IntN(p.given); i < mostAsked {
		p.kept[i] = s
	}
}

// facts reads a match's change as its mail would.
func (s *sampled) facts(source uint32) (*rules.Facts, *cdc.Change, error) {
	c, err := cdc.ParseRest(s.match.Change, s.table)
	if err != nil {
		return nil, nil, err
	}
	f, err := rules.NewFacts(cdc.Tx{XID: s.tx.XID, Commit: s.tx.LSN, End: s.tx.End, Time: s.tx.Time}, c)
	if err != nil {
		return nil, nil, err
	}
	f.Position = s.position(source)
	return f, c, nil
}

func (s *sampled) position(source uint32) position.Position {
	return position.Position{Source: source, Epoch: s.epoch, LSN: s.tx.LSN, Ordinal: s.match.Ordinal}
}

// ask asks who would get the mails.
func (l *planning) ask(ctx context.Context) error {
	w := &ReplayRecipients{Of: l.pool.given}
	people := maps.Clone(l.resent)
	if l.lookup != nil {
		if err := l.askAll(ctx, w, people); err != nil {
			return err
		}
	}
	if w.Of == 0 && len(people) == 0 {
		return nil
	}
	w.People = len(people)
	for address, n := range people {
		w.Mails += n
		w.Biggest = append(w.Biggest, BigAddress{address, n})
	}
	slices.SortFunc(w.Biggest, func(a, b BigAddress) int {
		return cmp.Or(cmp.Compare(b.Mails, a.Mails), cmp.Compare(a.Address, b.Address))
	})
	w.Biggest = w.Biggest[:min(len(w.Biggest), mostBiggest)]
	l.plan.Recipients = w
	return nil
}

func (l *planning) askAll(ctx context.Context, w *ReplayRecipients, people map[string]int) error {
	until := time.Now().Add(askPatience)
	for i := range l.pool.kept {
		if time.Now().After(until) {
			break
		}
		if l.replayer.tell != nil && i%32 == 0 {
			l.replayer.tell(Progress{Phase: "recipients", Done: float64(i) / float64(len(l.pool.kept)), Changes: l.see.changes, Matches: l.see.matches})
		}
		s := &l.pool.kept[i]
		a, err := l.audience(ctx, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.Asked++
		switch {
		case err != nil:
			w.Failed++
			w.Failure = cmp.Or(w.Failure, fmt.Sprintf("rule %s: %v", s.rule.Name, err))
		case a.State == outbox.MatchNobody:
			w.Nobody++
		case a.State == outbox.MatchHeld:
			w.Held++
		}
		w.NoAddress += a.Bad
		for _, address := range a.Addresses {
			people[address]++
		}
	}
	return nil
}

func (l *planning) audience(ctx context.Context, s *sampled) (dispatch.Audience, error) {
	f, _, err := s.facts(l.source.ID)
	if err != nil {
		return dispatch.Audience{}, err
	}
	return dispatch.Ask(ctx, s.rule, f, l.lookup)
}

// sample tells of one match.
func (l *planning) sample(s *sampled) ReplaySample {
	v := ReplaySample{Position: s.position(l.source.ID).String(), Committed: s.tx.Time}
	f, c, err := s.facts(l.source.ID)
	if err != nil {
		v.Note = err.Error()
		return v
	}
	v.Change = new(ViewChange(c, f, s.rule.Sensitive, Mask))
	return v
}
