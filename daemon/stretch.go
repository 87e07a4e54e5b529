package daemon

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"postman/outbox"
	"postman/position"
)

// spot is a place in the history of a source: LSNs recur from one epoch to another.
type spot struct {
	epoch uint32
	lsn   position.LSN
}

// stretch is a part of an epoch: all that committed at its ends and between.
type stretch struct {
	epoch    uint32
	from, to position.LSN
}

// reach is what the journal of a source can serve.
type reach struct {
	store  outbox.Store
	source outbox.Source // as it is stored now
	zone   *time.Location
	now    time.Time
	short  string                        // that the journal does not go back so long ago as was asked for; empty: it does
	flag   string                        // by which the caller names a place; empty: --from
	spans  map[uint32]outbox.JournalSpan // of the epochs that have one
	ends   map[uint32]position.LSN       // how far the stream is known to have come in former epochs, behind the last that was committed there
}

// newReach looks at the journal. Source may be as it was when somebody read it last.
func newReach(ctx context.Context, store outbox.Store, source outbox.Source, zone *time.Location) (*reach, error) {
	fresh, err := store.Source(ctx, source.SystemID, source.Database, source.Slot)
	if err != nil {
		return nil, err
	}
	r := &reach{store: store, source: fresh, zone: zone, now: time.Now(), spans: make(map[uint32]outbox.JournalSpan)}
	for e := uint32(1); e <= fresh.Epoch; e++ {
		span, err := store.JournalSpan(ctx, fresh.ID, e)
		if err != nil {
			return nil, err
		}
		if span.Since == 0 {
			span.Since, span.SinceTime = span.Oldest, span.From
		}
		if !span.From.IsZero() && span.From.Before(span.SinceTime) { // two clocks
			span.SinceTime = span.From
		}
		if span.Since != 0 {
			r.spans[e] = span
		}
	}
	if r.ends, err = formerEnds(ctx, store, fresh); err != nil {
		return nil, err
	}
	if len(r.spans) == 0 {
		return nil, badRequest{"nothing is in the journal yet: postman run begins it, with the slot"}
	}
	return r, nil
}

// formerEnds are the ends of the last gaps of single rules in former epochs: where the stream had come to, be it that the journal has nothing
// there.
func formerEnds(ctx context.Context, store outbox.Store, source outbox.Source) (map[uint32]position.LSN, error) {
	gaps, err := store.Gaps(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the gaps: %w", err)
	}
	ends := make(map[uint32]position.LSN)
	for i := range gaps {
		if g := &gaps[i]; g.Source == source.ID && g.Epoch < source.Epoch && g.Rule != "" {
			ends[g.Epoch] = max(ends[g.Epoch], g.To)
		}
	}
	return ends, nil
}

// end is where an epoch ends: all that the journal has of it lies before.
func (r *reach) end(epoch uint32) position.LSN {
	if epoch == r.source.Epoch {
		return r.source.Checkpoint
	}
	return max(r.spans[epoch].Newest, r.spans[epoch].Since, r.ends[epoch])
}

// oldest is the first place that can be served.
func (r *reach) oldest() (spot, outbox.JournalSpan) {
	for e := uint32(1); ; e++ {
		if span, ok := r.spans[e]; ok {
			return spot{e, span.Since}, span
		}
	}
}

// before is the error of a place that the journal does not reach back to.
func (r *reach) before(what string) error {
	first, span := r.oldest()
	return badRequest{fmt.Sprintf("%s lies before the journal, which begins at %s (%s); what is older is kept no longer, or never was in it"+
		"\n  → the oldest that can be served: %s %s", what, first.lsn, r.clock(span.SinceTime), cmp.Or(r.flag, "--from"), first.lsn)}
}

// clock is a time as operators read it: in the configured zone.
func (r *reach) clock(t time.Time) string { return t.In(r.zone).Format("2006-01-02 15:04:05 MST") }

// spanning is how long something lasts, in words.
func spanning(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return counted(int(d.Seconds()), "second", "seconds")
	case d < 2*time.Hour:
		return counted(int(d.Minutes()), "minute", "minutes")
	case d < 48*time.Hour:
		return counted(int(d.Hours()), "hour", "hours")
	}
	return counted(int(d.Hours()/24), "day", "days")
}

// locate resolves both ends, as people name them; an empty to is the end of what is stored.
func (r *reach) locate(ctx context.Context, from, to string) (first, last spot, err error) {
	if from == "" {
		return first, last, badRequest{"name where to begin: --from\n  → " + momentForms}
	}
	// Both are compared as they are asked for, too: one that lies before the journal is no place that could be.
	if a, err := parseMoment(from, r.zone, r.now); err == nil && to != "" && a.lsn == 0 {
		if b, err := parseMoment(to, r.zone, r.now); err == nil && b.lsn == 0 && b.at.Before(a.at) {
			return first, last, badRequest{fmt.Sprintf("--to %s (%s) lies before --from %s (%s)", to, r.clock(b.at), from, r.clock(a.at))}
		}
	}
	if first, err = r.first(ctx, from); err != nil {
		return first, last, err
	}
	if last, err = r.last(ctx, to); err != nil {
		return first, last, err
	}
	if last.epoch < first.epoch || last.epoch == first.epoch && last.lsn < first.lsn && to != "" {
		return first, last, badRequest{fmt.Sprintf("--to %s (%s) lies before --from %s (%s)", to, last.lsn, from, first.lsn)}
	}
	return first, last, nil
}

// exactly takes ends that were resolved before.
func (r *reach) exactly(from, to Moment) (first, last spot, err error) {
	first.epoch, last.epoch = from.Epoch, to.Epoch
	if first.lsn, err = position.ParseLSN(from.LSN); err == nil {
		last.lsn, err = position.ParseLSN(to.LSN)
	}
	if err != nil {
		return first, last, badRequest{err.Error()}
	}
	if span, ok := r.spans[first.epoch]; !ok || first.lsn < span.Since { // it was pruned since
		err = r.before(from.LSN)
	}
	return first, last, err
}

// skew is how far a commit may carry an earlier time than one that came before it.
const skew = time.Minute

func (r *reach) first(ctx context.Context, text string) (spot, error) {
	m, err := parseMoment(text, r.zone, r.now)
	if err != nil {
		return spot{}, err
	}
	if m.lsn != 0 {
		return r.find(m.lsn)
	}
	if first, span := r.oldest(); m.at.Before(span.SinceTime) && m.ago {
		r.short = fmt.Sprintf("the journal has %s, all there is: it begins at %s (%s), and not %s ago", spanning(r.now.Sub(span.SinceTime)), first.lsn, r.clock(span.SinceTime), text)
		return first, nil
	} else if m.at.Before(span.SinceTime) {
		return spot{}, r.before("--from " + text + " (" + r.clock(m.at) + ")")
	}
	for e := uint32(1); e <= r.source.Epoch; e++ {
		found, err := r.since(ctx, e, func(t time.Time) bool { return !t.Before(m.at) }, m.at)
		if err != nil || found != 0 {
			return spot{e, found}, err
		}
	}
	return spot{r.source.Epoch, r.end(r.source.Epoch)}, nil // nothing has been committed since
}

func (r *reach) last(ctx context.Context, text string) (spot, error) {
	if text == "" {
		return spot{r.source.Epoch, r.end(r.source.Epoch)}, nil
	}
	m, err := parseMoment(text, r.zone, r.now)
	if err != nil {
		return spot{}, err
	}
	if m.lsn != 0 {
		return r.find(m.lsn)
	}
	if _, span := r.oldest(); m.at.Before(span.SinceTime) {
		return spot{}, r.before("--to " + text + " (" + r.clock(m.at) + ")")
	}
	for e := r.source.Epoch; e > 0; e-- {
		span, ok := r.spans[e]
		if !ok || m.at.Before(span.SinceTime) {
			continue
		}
		behind, err := r.since(ctx, e, func(t time.Time) bool { return t.After(m.at) }, m.at)
		switch {
		case err != nil:
			return spot{}, err
		case behind != 0:
			return spot{e, behind - 1}, nil
		}
		return spot{e, r.end(e)}, nil
	}
	return spot{}, r.before("--to " + text)
}

// since is the first commit of an epoch whose time is late enough; 0: there is none.
func (r *reach) since(ctx context.Context, epoch uint32, late func(time.Time) bool, at time.Time) (position.LSN, error) {
	from, err := r.store.JournalAt(ctx, r.source.ID, epoch, at.Add(-skew))
	if err != nil || from == 0 {
		return 0, err
	}
	for s, err := range newHistory(r.store, r.inEpoch(epoch)).read(ctx, from, 0) {
		if err != nil {
			return 0, err
		}
		if late(s.Time) {
			return s.Commit, nil
		}
	}
	return 0, nil
}

func (r *reach) inEpoch(epoch uint32) outbox.Source {
	s := r.source
	s.Epoch = epoch
	return s
}

// find says in which epoch an LSN can be served: the latest one that has it.
func (r *reach) find(lsn position.LSN) (spot, error) {
	for e := r.source.Epoch; e > 0; e-- {
		if span, ok := r.spans[e]; ok && span.Since <= lsn && lsn <= r.end(e) {
			return spot{e, lsn}, nil
		}
	}
	end := r.end(r.source.Epoch)
	if lsn > end {
		return spot{}, badRequest{fmt.Sprintf("%s lies ahead of all that is stored, which ends at %s", lsn, end)}
	}
	if first, _ := r.oldest(); lsn > first.lsn {
		return spot{}, badRequest{fmt.Sprintf("%s is not in the journal: it lies between what is stored of two epochs\n  → the journal has %s", lsn, r.has())}
	}
	return spot{}, r.before(lsn.String())
}

// has tells what the journal has of each epoch.
func (r *reach) has() string {
	var parts []string
	for e := uint32(1); e <= r.source.Epoch; e++ {
		if span, ok := r.spans[e]; ok {
			parts = append(parts, fmt.Sprintf("%s to %s (epoch %d)", span.Since, r.end(e), e))
		}
	}
	return strings.Join(parts, ", ")
}

// stretches are what lies between two places, epoch by epoch.
func (r *reach) stretches(first, last spot) (all []stretch) {
	for e := first.epoch; e <= last.epoch; e++ {
		if _, ok := r.spans[e]; !ok {
			continue
		}
		s := stretch{epoch: e, to: r.end(e)}
		if e == first.epoch {
			s.from = first.lsn
		}
		if e == last.epoch {
			s.to = last.lsn
		}
		if s.from <= s.to {
			all = append(all, s)
		}
	}
	return all
}
