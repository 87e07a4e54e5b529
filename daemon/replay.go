package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// ReplayRequest is what an operator asks of a replay. Its JSON is the operators' interface's.
type ReplayRequest struct {
	From   string   `json:"from"`
	Gap    int64    `json:"gap,omitempty"`   // instead of From, To and Rules: those of the gap
	GoOn   int64    `json:"go_on,omitempty"` // instead of all but By: those of a replay that was broken off
	To     string   `json:"to,omitempty"`    // empty: the end of what is stored
	Rules  []string `json:"rules,omitempty"`
	Muted  bool     `json:"muted,omitempty"`
	Resend bool     `json:"resend,omitempty"`
	Again  bool     `json:"again,omitempty"` // with Resend: what was sent once more before, too
	By     string   `json:"by,omitempty"`
	Why    string   `json:"why,omitempty"`
	// Resolved and Versions are those of the plan that the operator has seen: where it begins and ends, and the rules. Other rules are refused.
	Resolved []Moment          `json:"resolved,omitempty"`
	Versions map[string]string `json:"versions,omitempty"`
}

// ReplayDone is what a replay did.
type ReplayDone struct {
	Replay int64        `json:"replay"` // its number; 0: there was nothing to do
	Added  int          `json:"added"`
	Again  int          `json:"again"`
	Resent int          `json:"resent"`
	Mended []int64      `json:"mended,omitempty"` // gaps that it made up for
	Stays  []StayingGap `json:"stays,omitempty"`  // that it covers, and did not
	Notes  []string     `json:"notes,omitempty"`
}

// Progress says how far a replay, or its plan, has come.
type Progress struct {
	Phase   string  `json:"phase"`            // plan, recipients or replay
	Replay  int64   `json:"replay,omitempty"` // its number, when it begins
	Done    float64 `json:"done"`             // of 1
	Changes int64   `json:"changes"`
	Matches int64   `json:"matches"`
}

// replayer carries replays out: of a daemon that runs, or of a command that has the store to itself.
type replayer struct {
	store   outbox.Store
	source  outbox.Source
	live    *live
	zone    *time.Location
	config  *Config
	catalog *cdc.Catalog   // as the database is now
	lookup  dispatch.Asker // nil: recipients are not asked for
	wake    func()         // has dispatch look at the store
	tell    func(Progress)
	log     *slog.Logger // nil: nobody reads along
	busy    *sync.Mutex  // held while one is carried out
	step    int          // how many matches are stored at once; 0: flushAt

	// Of the one that is being planned, or carried out.
	request  ReplayRequest
	reach    *reach
	parts    []stretch
	set      *rules.Set // of those that decide
	naming   *naming
	covered  []coveredGap
	excluded map[string]string
	told     time.Time
}

// flushAt is how many matches are looked up, and stored, at once; and flushBytes how long their changes are together.
const (
	flushAt    = 1000
	flushBytes = 4 << 20
)

// begin resolves a request: the stretch, and who decides.
func (p *replayer) begin(ctx context.Context, q ReplayRequest) (first, last spot, err error) {
	if q, first, last, err = p.named(ctx, q); err != nil {
		return first, last, err
	}
	p.request = q
	if q.Resend && strings.TrimSpace(q.Why) == "" {
		return first, last, badRequest{"--resend sends mails again that people have: say why, with --why, and it is kept with them"}
	}
	if q.Again && !q.Resend {
		return first, last, badRequest{"--again goes with --resend: it sends yet again what was sent once more"}
	}
	if err := p.choose(); err != nil { // a name that is misspelt comes before what else is wrong
		return first, last, err
	}
	if p.reach, err = newReach(ctx, p.store, p.source, p.zone); err != nil {
		return first, last, err
	}
	switch {
	case first != (spot{}):
		first, err = p.kept(first, last)
	case len(q.Resolved) == 2:
		first, last, err = p.reach.exactly(q.Resolved[0], q.Resolved[1])
	default:
		first, last, err = p.reach.locate(ctx, q.From, q.To)
	}
	if err != nil {
		return first, last, err
	}
	p.parts = p.reach.stretches(first, last)
	p.naming = &naming{catalog: p.catalog, epoch: p.reach.source.Epoch}
	if p.naming.known, err = readPublished(ctx, p.store, p.source); err != nil {
		return first, last, err
	}
	return first, last, p.covering(ctx)
}

// choose picks the rules that decide, and says why others do not.
func (p *replayer) choose() error {
	all := p.live.rules.Rules
	if names := p.request.Rules; len(names) > 0 {
		all = nil
		for _, name := range names {
			r := p.live.named(name)
			if r == nil {
				return p.unknown(name)
			}
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	p.excluded = make(map[string]string)
	for _, r := range all {
		if secrets := p.live.secrets(r); len(secrets) > 0 {
			p.excluded[r.Name] = "it reads " + strings.Join(secrets, ", ") + ", which is sensitive and not in the journal"
		}
	}
	sound := slices.DeleteFunc(slices.Clone(all), func(r *rules.Rule) bool { return p.excluded[r.Name] != "" })
	p.set = &rules.Set{Rules: sound}
	return p.unchanged()
}

// unchanged refuses to carry out with other rules what was planned with these.
func (p *replayer) unchanged() error {
	if p.request.Versions == nil {
		return nil
	}
	now := p.versions()
	for name, version := range p.request.Versions {
		if now[name] != version {
			return badRequest{fmt.Sprintf("rule %q has changed since the plan was made\n  → look at the plan again: postman replay …", name)}
		}
	}
	if len(now) != len(p.request.Versions) {
		return badRequest{"the rules have changed since the plan was made\n  → look at the plan again: postman replay …"}
	}
	return nil
}

func (p *replayer) versions() map[string]string {
	all := make(map[string]string, len(p.set.Rules))
	for _, r := range p.set.Rules {
		all[r.Name] = shortHash(r.Version())
	}
	return all
}

func (p *replayer) unknown(name string) error {
	if p.live.isBroken(name) {
		return badRequest{fmt.Sprintf("rule %q is broken: it does not fit its table as it is now\n  → mend the rule or the table first; postman check tells", name)}
	}
	var names []string
	for _, r := range p.live.rules.Rules {
		names = append(names, r.Name)
	}
	hint := rules.Nearest(name, names)
	if hint == "" {
		hint = "postman status tells which are live; one that was only written needs a reload first, or postman check --against"
	}
	return badRequest{fmt.Sprintf("there is no live rule %q\n  → %s", name, hint)}
}

// fate is what becomes of a match that was found.
type fate uint8

const (
	fateQueue fate = iota // it is absent, and will wait for its mails
	fateAgain             // it has failed, or is muted, and will wait again
	fateLate              // it is absent, and expired
	fateFails             // it is absent, and the rule cannot be tried on its change
	fateMuted             // its transaction is muted, and that is respected
	fateKnown             // it stands as it stands
)

func (p *replayer) fate(f *found, k outbox.KnownMatch) fate {
	switch {
	case !k.Takes(p.request.Muted):
		if k.State == outbox.MatchMuted {
			return fateMuted
		}
		return fateKnown
	case f.tx.Muted != "" && !p.request.Muted && k.ID == 0:
		return fateMuted
	case k.ID != 0 && f.match.State == outbox.MatchPending:
		return fateAgain
	case k.ID != 0:
		return fateKnown
	}
	if f.match.State == outbox.MatchFailed {
		return fateFails
	}
	if f.match.State == outbox.MatchExpired {
		return fateLate
	}
	return fateQueue
}

// scan decides on all of the stretches, and hands the matches that it finds on in groups, with how they stand.
func (p *replayer) scan(ctx context.Context, phase string, see *seen, take func(epoch uint32, group []found, stand []outbox.KnownMatch) error) (*redecision, error) {
	m := &matcher{ids: p.live.ids, zone: p.zone, silent: !p.config.Sends(), now: time.Now(), shapes: make(map[*cdc.Table]outbox.Hash)}
	var group []found
	var bytes int
	var epoch uint32
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		keys := make([]outbox.MatchKey, len(group))
		for i := range group {
			keys[i] = group[i].key
		}
		stand, err := p.store.KnownMatches(ctx, p.source.ID, epoch, keys)
		if err == nil {
			err = take(epoch, group, stand)
		}
		group, bytes = group[:0], 0
		return err
	}
	r := newRedecision(p.set, p.naming, sees{
		transaction: func(s *section) error {
			see.transaction(s, epoch)
			p.progress(phase, see, spot{epoch, s.Commit})
			return nil
		},
		change: func(c *cdc.Change) {
			see.changes++
			if c.Err != nil && c.Table == nil {
				see.unread++
				p.unread(epoch, see.last.lsn, c.Err)
			}
		},
		unfit: func(s *section, rule, why string) { p.unfit(epoch, s.Commit, rule, why) },
		verdict: func(s *section, c *cdc.Change, r *rules.Rule, v rules.Verdict) error {
			if v.Err == nil && v.Truth == rules.Undetermined {
				see.undetermined(r, v.Missing, s.Commit)
				p.undetermined(epoch, s.Commit, r.Name, v.Missing)
				return nil
			}
			f := m.match(s, c, r, v)
			group, bytes = append(group, f), bytes+len(f.match.Change)
			see.matches++
			if len(group) < cmp.Or(p.step, flushAt) && bytes < flushBytes {
				return nil
			}
			return flush()
		},
	})
	for _, part := range p.parts {
		epoch = part.epoch
		h := newHistory(p.store, p.reach.inEpoch(epoch))
		if err := r.run(ctx, h, part); err != nil {
			return nil, err
		}
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// seen is what a scan came upon.
type seen struct {
	first, last           commit
	transactions, changes int64
	matches, unread       int64
	missed                map[*rules.Rule]map[string]*undetermined
}

type commit struct {
	spot
	at time.Time
}

// undetermined is on how many changes a rule could not decide, and where.
type undetermined struct {
	n        int64
	from, to position.LSN
}

func (s *seen) transaction(t *section, epoch uint32) {
	at := commit{spot{epoch, t.Commit}, t.Time}
	if s.first.lsn == 0 {
		s.first = at
	}
	if s.last.spot != at.spot {
		s.transactions++
	}
	s.last = at
}

func (s *seen) undetermined(r *rules.Rule, column string, at position.LSN) {
	if s.missed == nil {
		s.missed = make(map[*rules.Rule]map[string]*undetermined)
	}
	if s.missed[r] == nil {
		s.missed[r] = make(map[string]*undetermined)
	}
	note(s.missed[r], column, at)
}

// note counts a change.
func note[K comparable](all map[K]*undetermined, of K, at position.LSN) {
	u := all[of]
	if u == nil {
		u = &undetermined{from: at}
		all[of] = u
	}
	u.n++
	u.to = at
}

// progress tells how far a scan is, a few times a second.
func (p *replayer) progress(phase string, s *seen, at spot) {
	if s.transactions%256 != 0 || p.tell == nil || time.Since(p.told) < 200*time.Millisecond {
		return
	}
	p.told = time.Now()
	var behind, all float64
	for _, part := range p.parts {
		length := float64(part.to-max(part.from, p.reach.spans[part.epoch].Oldest)) + 1
		all += length
		switch {
		case part.epoch < at.epoch:
			behind += length
		case part.epoch == at.epoch && at.lsn > max(part.from, p.reach.spans[part.epoch].Oldest):
			behind += float64(at.lsn - max(part.from, p.reach.spans[part.epoch].Oldest))
		}
	}
	p.tell(Progress{Phase: phase, Done: behind / max(all, 1), Changes: s.changes, Matches: s.matches})
}

var errReplaying = errors.New("another replay is being carried out\n  → wait until it is done")

// replay carries a request out. What it did before an error stays done, and is not done again when it is ordered again.
func (p *replayer) replay(ctx context.Context, q ReplayRequest) (*ReplayDone, error) {
	if !p.busy.TryLock() {
		return nil, errReplaying
	}
	defer p.busy.Unlock()
	first, last, err := p.begin(ctx, q)
	if err != nil {
		return nil, err
	}
	order, err := p.order(ctx, first, last)
	if err != nil {
		return nil, err
	}
	if p.tell != nil {
		p.tell(Progress{Phase: "replay", Replay: order.ID})
	}
	log := p.logOf(&order)
	log.Info("a replay begins", "why", order.Why)
	var see seen
	done := &ReplayDone{Replay: order.ID}
	_, err = p.scan(ctx, "replay", &see, func(epoch uint32, group []found, stand []outbox.KnownMatch) error {
		return p.keep(ctx, order.ID, epoch, group, stand, done)
	})
	if err != nil {
		return nil, err
	}
	if err := p.mend(ctx, order.ID, done); err != nil {
		return nil, err
	}
	order.Ended = time.Now()
	_, err = p.store.SaveReplay(ctx, order)
	log.Info("a replay has ended", "matches", done.Added, "again", done.Again, "resent", done.Resent, "gaps", len(done.Mended), "took", order.Ended.Sub(order.Begun).Round(time.Millisecond))
	return done, err
}

// logOf is the log of a replay: each line says which it is, who ordered it, and of what.
func (p *replayer) logOf(o *outbox.Replay) *slog.Logger {
	return cmp.Or(p.log, slog.New(slog.DiscardHandler)).With("replay", o.ID, "by", o.By, "from", o.From.LSN, "to", o.To.LSN,
		"rules", cmp.Or(strings.Join(o.Rules, ", "), "all"), "resend", o.Resend)
}

// order notes the replay in the store. One that sends again and was broken off goes on where it is ordered again as it was: what it has sent
// is not sent twice. Another order of the same rules ends it.
func (p *replayer) order(ctx context.Context, first, last spot) (outbox.Replay, error) {
	o := p.asked(first, last)
	goesOn, others, err := p.brokenOff(ctx, o)
	if err != nil {
		return o, err
	}
	for _, other := range others {
		other.Ended = o.Begun
		if _, err := p.store.SaveReplay(ctx, other); err != nil {
			return o, err
		}
	}
	if goesOn != nil {
		o.ID, o.Begun = goesOn.ID, goesOn.Begun
	}
	return p.store.SaveReplay(ctx, o)
}

// asked is the replay that the request is for.
func (p *replayer) asked(first, last spot) outbox.Replay {
	return outbox.Replay{
		From: position.Position{Source: p.source.ID, Epoch: first.epoch, LSN: first.lsn}, To: position.Position{Source: p.source.ID, Epoch: last.epoch, LSN: last.lsn},
		Rules: slices.Sorted(slices.Values(p.request.Rules)), Muted: p.request.Muted, Resend: p.request.Resend, YetAgain: p.request.Again,
		By: p.request.By, Why: p.request.Why, Begun: time.Now(),
	}
}

// brokenOff finds the replay that another one goes on with, nil where there is none, and others of the same rules that were broken off.
func (p *replayer) brokenOff(ctx context.Context, o outbox.Replay) (goesOn *outbox.Replay, others []outbox.Replay, err error) {
	all, err := p.store.Replays(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i := range all {
		b := &all[i]
		switch {
		case b.From.Source != o.From.Source || !b.Ended.IsZero() || b.Resend != o.Resend || b.Muted != o.Muted || !slices.Equal(b.Rules, o.Rules):
		case goesOn == nil && o.Resend && b.YetAgain == o.YetAgain && b.From == o.From && b.To == o.To:
			goesOn = b
		default:
			others = append(others, *b)
		}
	}
	return goesOn, others, nil
}

// keep makes one group durable.
func (p *replayer) keep(ctx context.Context, order int64, epoch uint32, group []found, stand []outbox.KnownMatch, done *ReplayDone) error {
	b := outbox.ReplayBatch{Again: p.request.Again, Replay: order, Source: p.source.ID, Epoch: epoch, Texts: make(map[outbox.Hash][]byte)}
	for i := range group {
		f := &group[i]
		switch p.fate(f, stand[i]) {
		case fateQueue, fateAgain, fateLate, fateFails:
			if b.Texts[f.match.Version] == nil {
				b.Texts[f.match.Version] = f.rule.Source()
			}
			if f.table != nil && b.Texts[f.match.Shape] == nil { // under another name than it has in the journal
				b.Texts[f.match.Shape] = f.table.Shape()
			}
			last := len(b.Transactions) - 1
			if last < 0 || b.Transactions[last].LSN != f.tx.LSN {
				b.Transactions = append(b.Transactions, outbox.Transaction{Tx: f.tx})
				last++
			}
			b.Transactions[last].Matches = append(b.Transactions[last].Matches, f.match)
		case fateKnown:
			if p.request.Resend && stand[i].State == outbox.MatchExpanded {
				b.Resend = append(b.Resend, stand[i].ID)
			}
		case fateMuted:
		}
	}
	if len(b.Transactions)+len(b.Resend) == 0 {
		return nil
	}
	n, err := p.store.Replay(ctx, b)
	if err != nil {
		return err
	}
	done.Added, done.Again, done.Resent = done.Added+n.Added, done.Again+n.Again, done.Resent+n.Resent
	if p.wake != nil {
		p.wake()
	}
	return nil
}
