package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"postman/outbox"
	"postman/rules"
)

// ReplayPlan is what a replay would do. Its JSON is a contract (docs/replay.md).
type ReplayPlan struct {
	From         Moment            `json:"from"` // as it is resolved; its time is that of the first transaction, if it was named by an LSN
	To           Moment            `json:"to"`
	Transactions int64             `json:"transactions"`
	Changes      int64             `json:"changes"`
	Queue        int               `json:"queue"`  // matches that would wait for their mails, anew or again
	Resend       int               `json:"resend"` // messages that would be queued once more
	Sent         int               `json:"sent"`   // messages of known matches that were sent
	Rules        []ReplayRule      `json:"rules"`  // those that found something, or have something to tell
	Silent       int               `json:"silent"` // rules that found nothing
	Hour         *BusyHour         `json:"fullest_hour,omitempty"`
	Recipients   *ReplayRecipients `json:"recipients,omitempty"`
	Redirect     string            `json:"redirect,omitempty"` // where all mails go instead, in mode redirect
	Before       []ResentBefore    `json:"before,omitempty"`   // what was sent once more, and is not again
	Gaps         []GapStatus       `json:"gaps,omitempty"`     // in the stretch
	Mends        []int64           `json:"mends,omitempty"`
	Stays        []StayingGap      `json:"stays,omitempty"` // gaps that it covers, and would not make up for
	Notes        []string          `json:"notes,omitempty"`
	GoesOn       int64             `json:"goes_on,omitempty"` // the replay that was broken off, and would go on
	Versions     map[string]string `json:"versions"`          // of the rules that decide
	Took         float64           `json:"took_ms"`           // to read the journal and decide
}

// ResentBefore is a replay that has sent messages once more which would be sent yet again.
type ResentBefore struct {
	Replay   int64     `json:"replay"`
	Messages int       `json:"messages"`
	By       string    `json:"by"`
	Why      string    `json:"why"`
	At       time.Time `json:"at"`
}

// Moment is a place in the history of a source, both ways.
type Moment struct {
	LSN   string    `json:"lsn"`
	Epoch uint32    `json:"epoch"`
	Time  time.Time `json:"time,omitzero"`
}

// ReplayRule is what a replay would do by one rule.
type ReplayRule struct {
	Rule         string         `json:"rule"`
	Version      string         `json:"version,omitempty"`
	Matches      int            `json:"matches"`                // that it finds
	Known        map[string]int `json:"known,omitempty"`        // that stand already, by state
	Queue        int            `json:"queue"`                  // that would wait for their mails
	Again        int            `json:"again,omitempty"`        // of these, those that had failed or were muted
	Unmuted      int            `json:"unmuted,omitempty"`      // of these, those that were muted
	Resend       int            `json:"resend,omitempty"`       // messages
	Sent         int            `json:"sent,omitempty"`         // messages
	Erased       int            `json:"erased,omitempty"`       // messages that cannot be sent again: their recipient was erased
	Silent       int            `json:"silent,omitempty"`       // messages that cannot be sent again: their match was made while nothing was let out
	Late         int            `json:"late,omitempty"`         // that would end as expired
	Muted        int            `json:"muted,omitempty"`        // that a mute stops
	Failed       int            `json:"failed,omitempty"`       // changes that it cannot be tried on
	Failure      string         `json:"failure,omitempty"`      // why, of the first
	Undetermined int64          `json:"undetermined,omitempty"` // changes that it could not decide on
	Unfit        int64          `json:"unfit,omitempty"`        // changes that came in a shape that it does not fit
	Misfit       string         `json:"misfit,omitempty"`
	Excluded     string         `json:"excluded,omitempty"` // why it does not decide
	Unpublished  []string       `json:"unpublished,omitempty"`
	Hour         *BusyHour      `json:"fullest_hour,omitempty"`
	Samples      []ReplaySample `json:"samples,omitempty"`
}

// BusyHour is the hour in which most was committed of what a replay would bring.
type BusyHour struct {
	Start   time.Time `json:"start"`
	Matches int       `json:"matches"`
}

// ReplaySample is a match that would be queued.
type ReplaySample struct {
	Position  string      `json:"position"`
	Committed time.Time   `json:"committed"`
	Change    *ChangeView `json:"change,omitempty"`
	To        []string    `json:"to,omitempty"`
	Note      string      `json:"note,omitempty"`
}

// planning makes a plan.
type planning struct {
	*replayer
	see     seen
	plan    *ReplayPlan
	tallies map[*rules.Rule]*tallied
	hours   hours
	pool    *pool
	resent  map[string]int // recipients of what is sent once more
	before  map[int64]int  // messages that were sent once more, by the replay
}

// tallied is what is counted of a rule.
type tallied struct {
	ReplayRule
	hours   hours
	samples []sampled
}

// hours counts by the hour of the commit.
type hours map[int64]int

func (h hours) add(t time.Time, n int) { h[t.Unix()/3600] += n }

func (h hours) fullest() *BusyHour {
	var best *BusyHour
	for _, at := range slices.Sorted(maps.Keys(h)) {
		if best == nil || h[at] > best.Matches {
			best = &BusyHour{time.Unix(at*3600, 0).UTC(), h[at]}
		}
	}
	return best
}

// mostSamples of a rule are shown.
const mostSamples = 3

// makePlan finds out what a request would do. It changes nothing.
func (p *replayer) makePlan(ctx context.Context, q ReplayRequest) (*ReplayPlan, error) {
	first, last, err := p.begin(ctx, q)
	if err != nil {
		return nil, err
	}
	l := &planning{replayer: p, plan: &ReplayPlan{Versions: p.versions()}, tallies: make(map[*rules.Rule]*tallied), hours: make(hours), pool: newPool(), resent: make(map[string]int), before: make(map[int64]int)}
	goesOn, others, err := p.brokenOff(ctx, p.asked(first, last))
	if err != nil {
		return nil, err
	}
	if goesOn != nil {
		l.plan.GoesOn = goesOn.ID
	}
	for i := range others {
		l.supersedes(&others[i])
	}
	begun := time.Now()
	r, err := p.scan(ctx, "plan", &l.see, func(epoch uint32, group []found, stand []outbox.KnownMatch) error {
		return l.take(ctx, epoch, group, stand)
	})
	if err != nil {
		return nil, err
	}
	l.plan.Took = float64(time.Since(begun).Microseconds()) / 1000
	l.plan.From, l.plan.To = l.moment(first, l.see.first), l.moment(last, l.see.last)
	l.plan.Transactions, l.plan.Changes = l.see.transactions, l.see.changes
	if err := l.ask(ctx); err != nil {
		return nil, err
	}
	l.tell(r, func(on rules.On) []string { return notInJournal(l.naming.known, on, first, last) })
	if err := l.notes(ctx, first, last); err != nil {
		return nil, err
	}
	l.plan.Hour = l.hours.fullest()
	return l.plan, nil
}

// supersedes tells of a replay that was broken off, and that this one does not go on with.
func (l *planning) supersedes(o *outbox.Replay) {
	if !o.Resend {
		return
	}
	l.plan.Notes = append(l.plan.Notes, fmt.Sprintf("replay %d of the same rules was broken off, and ends with this one; what goes on with it is: %s", o.ID, goOnCommand(o.ID)))
}

func (l *planning) moment(s spot, nearest commit) Moment {
	return Moment{LSN: s.lsn.String(), Epoch: s.epoch, Time: nearest.at}
}

func (l *planning) tally(r *rules.Rule) *tallied {
	t := l.tallies[r]
	if t == nil {
		t = &tallied{ReplayRule: ReplayRule{Rule: r.Name, Version: shortHash(r.Version())}, hours: make(hours)}
		l.tallies[r] = t
	}
	return t
}

// take counts a group of matches.
func (l *planning) take(ctx context.Context, epoch uint32, group []found, stand []outbox.KnownMatch) error {
	var expanded []int64
	of := make(map[int64]*found)
	for i := range group {
		f := &group[i]
		t := l.tally(f.rule)
		if f.match.State != outbox.MatchFailed {
			t.Matches++
		}
		switch l.fate(f, stand[i]) {
		case fateAgain:
			t.Again++
			if stand[i].State == outbox.MatchMuted {
				t.Unmuted++
			}
			l.queue(t, f, epoch)
		case fateQueue:
			l.queue(t, f, epoch)
		case fateLate:
			t.Late++
		case fateFails:
			t.Failed++
			t.Failure = cmp.Or(t.Failure, f.match.Reason)
		case fateMuted:
			t.Muted++
		case fateKnown:
			if t.Known == nil {
				t.Known = make(map[string]int)
			}
			if f.match.State != outbox.MatchFailed { // which is not among those that it finds
				t.Known[stand[i].State.String()]++
			}
			if stand[i].State == outbox.MatchExpanded {
				expanded = append(expanded, stand[i].ID)
				of[stand[i].ID] = f
			}
		}
	}
	return l.known(ctx, expanded, of)
}

func (l *planning) queue(t *tallied, f *found, epoch uint32) {
	t.Queue++
	l.plan.Queue++
	t.hours.add(f.tx.Time, 1)
	l.hours.add(f.tx.Time, 1)
	s := sampled{found: *f, epoch: epoch}
	if len(t.samples) < mostSamples {
		t.samples = append(t.samples, s)
	}
	l.pool.add(s)
}

// known looks at the messages of matches that became some.
func (l *planning) known(ctx context.Context, ids []int64, of map[int64]*found) error {
	if len(ids) == 0 {
		return nil
	}
	messages, err := l.store.Messages(ctx, outbox.Filter{Matches: ids})
	if err != nil {
		return err
	}
	byMatch := make(map[int64][]outbox.Message)
	for i := range messages {
		byMatch[messages[i].Match] = append(byMatch[messages[i].Match], messages[i])
	}
	for id, list := range byMatch {
		f := of[id]
		t := l.tally(f.rule)
		for i := range list {
			if list[i].State == outbox.MessageSent {
				t.Sent++
				l.plan.Sent++
			}
		}
		if !l.request.Resend {
			continue
		}
		once := outbox.Resendable(list, l.plan.GoesOn, l.request.Again)
		again := once.Messages
		t.Resend, t.Erased, l.plan.Resend = t.Resend+len(again), t.Erased+once.Erased, l.plan.Resend+len(again)
		t.Silent += once.Silent
		if once.Before > 0 {
			l.before[once.By] += once.Before
		}
		if len(again) > 0 {
			t.hours.add(f.tx.Time, len(again))
			l.hours.add(f.tx.Time, len(again))
		}
		for i := range again {
			l.resent[again[i].Address]++
		}
	}
	return nil
}

// tell fills in the rules: those that found something first, the most to do first.
func (l *planning) tell(r *redecision, unpublished func(rules.On) []string) {
	for rule, columns := range l.see.missed {
		for _, u := range columns {
			l.tally(rule).Undetermined += u.n
		}
	}
	for name, m := range r.unfit {
		t := l.tally(l.live.named(name))
		t.Unfit, t.Misfit = m.changes, m.why
	}
	for _, rule := range l.set.Rules {
		if at := unpublished(rule.On); len(at) > 0 {
			l.tally(rule).Unpublished = at
		}
	}
	for _, t := range l.tallies {
		t.Hour = t.hours.fullest()
		for i := range t.samples {
			t.Samples = append(t.Samples, l.sample(&t.samples[i]))
		}
		l.plan.Rules = append(l.plan.Rules, t.ReplayRule)
	}
	for name, why := range l.excluded {
		l.plan.Rules = append(l.plan.Rules, ReplayRule{Rule: name, Excluded: why})
	}
	slices.SortFunc(l.plan.Rules, func(a, b ReplayRule) int {
		return cmp.Or(cmp.Compare(b.Queue+b.Resend, a.Queue+a.Resend), cmp.Compare(b.Matches, a.Matches), cmp.Compare(a.Rule, b.Rule))
	})
	l.plan.Silent = len(l.set.Rules) - len(l.tallies)
}

// notes tells what else is to be known before anybody says yes.
func (l *planning) notes(ctx context.Context, first, last spot) error {
	note := func(format string, args ...any) { l.plan.Notes = append(l.plan.Notes, fmt.Sprintf(format, args...)) }
	gaps, err := l.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	for i := range l.covered {
		if s, stays, _ := l.staying(&l.covered[i]); stays {
			l.plan.Stays = append(l.plan.Stays, s)
		} else {
			l.plan.Mends = append(l.plan.Mends, l.covered[i].ID)
		}
	}
	for i := range gaps {
		if l.touches(&gaps[i]) {
			l.plan.Gaps = append(l.plan.Gaps, viewGap(&gaps[i]))
		}
	}
	if l.reach.short != "" {
		note("%s", l.reach.short)
	}
	if first.epoch < l.reach.source.Epoch {
		note("the stretch begins in epoch %d, before a gap that was accepted; now it is epoch %d", first.epoch, l.reach.source.Epoch)
	}
	if last.epoch < l.reach.source.Epoch {
		note("the stretch ends in epoch %d", last.epoch)
	}
	if l.see.unread > 0 {
		note("%s cannot be read by this postman, and nobody knows which rules they concern", counted(int(l.see.unread), "change", "changes"))
	}
	if !l.config.Sends() && l.plan.Queue+l.plan.Resend > 0 {
		note("the delivery mode lets nothing out: what is replayed now ends as not-sent, for good")
	}
	if l.wake == nil && l.plan.Queue+l.plan.Resend > 0 {
		note("no daemon runs: mails go out when the next one does")
	}
	if err := l.resentBefore(ctx); err != nil {
		return err
	}
	if l.config.Mode == "redirect" {
		l.plan.Redirect = l.config.Redirect
	}
	if l.plan.GoesOn != 0 {
		note("it goes on with replay %d, which was broken off: what that has sent is not sent again", l.plan.GoesOn)
	}
	return nil
}

// resentBefore tells by which replays messages were sent once more, the latest first.
func (l *planning) resentBefore(ctx context.Context) error {
	if len(l.before) == 0 {
		return nil
	}
	all, err := l.store.Replays(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		if n := l.before[all[i].ID]; n > 0 {
			l.plan.Before = append(l.plan.Before, ResentBefore{all[i].ID, n, all[i].By, all[i].Why, all[i].Begun})
		}
	}
	return nil
}
