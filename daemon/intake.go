package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// mutePrefix is of the message that mutes its transaction.
const mutePrefix = messagePrefix + "mute"

// messagePrefix begins the prefix of every message that is for postman.
const messagePrefix = "postman."

// spillOver bounds what one open transaction holds in memory; beyond, its matches go to the store as provisional.
const (
	spillOver      = 4096    // matches
	spillOverBytes = 8 << 20 // of their stored changes
)

// intake turns the stream into batches: it tries the rules on each change as it is read, and at the commit hands the
// transaction's matches to the batch that gathers. It implements cdc.Handler; all its methods run on the stream's goroutine.
type intake struct {
	store  outbox.Store
	source outbox.Source
	zone   *time.Location
	silent bool // the delivery mode lets nothing out
	live   *atomic.Pointer[live]
	holds  *holds
	rows   *rowHash
	batch  *gathering
	report func(ctx context.Context, err error, rule, class string)
	broken *breakages
	rebind *atomic.Bool // somebody has reason to believe that rules fit their tables again
	// decides is told from where on a set decides.
	decides    func(*live, position.LSN)
	reconnect  func(why string) // has the stream go on over a new connection
	mismatches *atomic.Int64    // of the rules' index
	origins    *Origins         // whose transactions are ignored
	tally      *tally

	current *live // decides what commits now
	plans   map[*cdc.Table]bound
	shapes  map[*cdc.Table]outbox.Hash
	hides   map[*cdc.Table]func(column string) bool // what is sensitive of a table
	brought map[outbox.Hash]bool                    // texts that are in the store, or on their way into it
	names   map[uint32]cdc.TableName                // of the tables, as the stream told them
	strays  map[uint32][]string                     // rules that know a table by a name that it had before
	open    *transaction                            // which the stream tells of; nil: none
	whole   transaction                             // the last one that came whole: its memory is used again
	spare   cdc.Section                             // the memory of one that was spilled
	streams map[uint32]*transaction                 // in progress, by their numbers
	others  int                                     // bytes that transactions in progress hold, but for the open one

	// Kept until a commit takes them along: a transaction that the stream brings again meets the plans as they are.
	gaps   []outbox.Gap
	mended []breakage
}

// bound is a table's plan, which is nil where no rule fits it, and the rules that do not fit it.
type bound struct {
	plan  *rules.Plan
	unfit []string
	errs  rules.Errors // of a transaction in progress: they are told of when it commits
}

// Restart forgets the transactions that are open: the stream broke off in them and will bring them again, if they commit.
func (in *intake) Restart() error {
	in.open = nil
	if in.whole.spilled != nil {
		if err := in.forget(&in.whole); err != nil {
			return err
		}
	}
	for _, t := range in.streams {
		if err := in.forget(t); err != nil {
			return err
		}
	}
	clear(in.streams)
	return nil
}

// forget takes back what a transaction spilled.
func (in *intake) forget(t *transaction) error {
	if t.spilled == nil {
		return nil
	}
	key := *t.spilled
	t.spilled = nil
	return in.batch.spill(spilled{key: key})
}

// Begin opens a transaction that comes whole.
func (in *intake) Begin(tx cdc.Tx) error {
	in.swap(tx.Commit)
	section := in.whole.section
	section.Reset(0)
	in.whole = transaction{tx: tx, set: in.current, plans: in.plans, hides: in.hides, section: section}
	in.turn(&in.whole)
	return nil
}

// Stream opens a transaction in progress. The set that is live at its first part decides on all of it: sensitive values are not kept
// anywhere, so that another set could not be tried on what came before it.
func (in *intake) Stream(xid uint32) error {
	t := in.streams[xid]
	if t == nil {
		t = &transaction{
			tx: cdc.Tx{XID: xid}, streamed: true, set: in.live.Load(),
			plans: make(map[*cdc.Table]bound), hides: make(map[*cdc.Table]func(string) bool),
		}
		in.streams[xid] = t
	}
	in.turn(t)
	return nil
}

// turn makes a transaction the open one.
func (in *intake) turn(t *transaction) {
	in.open, in.others = t, 0
	for _, o := range in.streams {
		if o != t {
			in.others += o.weight()
		}
	}
}

// Rollback takes back what a savepoint of a transaction in progress did, or all of it.
func (in *intake) Rollback(xid uint32, from uint64) error {
	in.open = nil
	t := in.streams[xid]
	switch {
	case t == nil:
		return nil
	case from == 0:
		delete(in.streams, xid)
		return in.forget(t)
	}
	if stored := t.cut(from); stored {
		return in.batch.spill(spilled{key: *t.spilled, from: from})
	}
	return nil
}

// Change tries the rules on one change.
func (in *intake) Change(c *cdc.Change) error {
	t := in.open
	if in.origins.ignores(t.tx.Origin) {
		return nil
	}
	if c.Err != nil {
		return in.unread(c)
	}
	if c.Op == cdc.Emit {
		return in.message(c)
	}
	b, ok := t.plans[c.Table]
	if !ok {
		b = in.bind(c.Table)
	}
	if len(b.unfit) > 0 {
		in.broken.misses(b.unfit, t.tx.Commit)
	}
	in.record(c)
	if b.plan != nil {
		b.plan.Match(t.tx, c, func(r *rules.Rule, v rules.Verdict) { in.verdict(c, r, v) })
	}
	return in.tried()
}

// tried ends a change.
func (in *intake) tried() error {
	if r := in.open.early; r != nil {
		return fmt.Errorf("rule %q asks for commit_time: %w", r.Name, cdc.ErrLater)
	}
	return in.spill()
}

func (in *intake) message(c *cdc.Change) error {
	in.record(c)
	t := in.open
	if c.Prefix == mutePrefix {
		in.mute(c, c.Ordinal)
		return nil
	}
	t.messages = true
	if !t.set.rules.MatchMessage(t.tx, c, func(r *rules.Rule, v rules.Verdict) { in.verdict(c, r, v) }) {
		in.untaken(c)
	}
	return in.tried()
}

// mute has the open transaction be muted.
func (in *intake) mute(c *cdc.Change, ordinal uint64) {
	in.open.mutes = append(in.open.mutes, mark{ordinal, cmp.Or(string(c.Content), "no reason given")})
}

// verdict makes a match of what a rule says of a change: one that waits, or one that failed and says why.
func (in *intake) verdict(c *cdc.Change, r *rules.Rule, v rules.Verdict) {
	t := in.open
	switch {
	case v.Early:
		t.early = r
	case v.Err != nil:
		in.match(c, r, outbox.MatchFailed, v.Err.Error())
		t.fails(r, c.Ordinal, v.Err)
	case v.Truth == rules.True:
		in.match(c, r, outbox.MatchPending, "")
	case v.Truth == rules.Undetermined:
		t.misses(miss{r.Name, v.Missing}, c.Ordinal)
	}
}

func (in *intake) match(c *cdc.Change, r *rules.Rule, state outbox.MatchState, reason string) {
	t := in.open
	id, version := t.set.ids[r], outbox.Hash(r.Version())
	m := outbox.NewMatch{
		Ordinal: c.Ordinal, Rule: id, Version: version, Op: c.Op.String(), State: state, Reason: reason, Due: time.Now(),
		Priority: priority(r.Priority), HoldUncertain: r.HoldUncertain, Silent: in.silent,
		Change: c.AppendRest(nil, nil),
	}
	if t.streamed {
		t.expiring(id, r)
	} else {
		m.Expires = r.Deadline(t.tx.Time, in.zone)
	}
	if hides := in.blank(c); hides != nil || len(r.Reads) > 0 { // with which goes what the mails show
		m.Blanked = c.AppendRest(nil, hides)
	}
	in.text(version, r.Source)
	if c.Table != nil {
		m.Shape = in.shape(c.Table)
	}
	if state == outbox.MatchPending {
		t.count(id, r, c.Ordinal, in.rows.of(c, t.set.catalog))
	}
	t.matches = append(t.matches, m)
	t.bytes += len(m.Change) + len(m.Blanked)
}

// text adds a text to those that go with the transaction, unless the store has it.
func (in *intake) text(h outbox.Hash, text func() []byte) {
	if _, there := in.open.texts[h]; there || in.brought[h] {
		return
	}
	if in.open.texts == nil {
		in.open.texts = make(map[outbox.Hash][]byte)
	}
	in.open.texts[h] = text()
}

// Commit closes the transaction and hands it to the batch that gathers.
func (in *intake) Commit(tx cdc.Tx) error {
	t := in.open
	if t != &in.whole {
		var err error
		if t, err = in.streamed(tx); err != nil {
			return err
		}
	}
	t.tx = tx
	if in.origins.ignores(tx.Origin) {
		in.tally.ignore(tx.Origin)
	}
	in.tell(t)
	if t.spilled != nil && t.section.Changes() > 0 { // the whole journal of it, or nothing, is in parts
		if err := in.spillAll(t); err != nil {
			return err
		}
	}
	settlement := in.settlement(t)
	settle(t.matches, settlement)
	if t.spilled != nil && (settlement.Muted != "" || len(settlement.Hold)+len(settlement.Expires) > 0) {
		if err := in.batch.spill(spilled{key: *t.spilled, settlement: &settlement}); err != nil {
			return err
		}
	}
	err := in.batch.add(committed{
		Transaction: outbox.Transaction{
			Tx:      outbox.Tx{LSN: tx.Commit, End: tx.End, XID: tx.XID, Time: tx.Time, Muted: t.muted()},
			Matches: t.matches, Spilled: t.spilled,
		},
		tx: tx, section: &t.section, texts: t.texts,
		gaps: slices.Concat(t.undetermined(), t.unreadGap(tx.Commit), in.gaps), mends: mendsAt(in.mended, tx.End), bytes: t.bytes, held: len(settlement.Hold) > 0,
	})
	in.bring(t.texts)
	in.open, in.whole.spilled = nil, nil
	in.gaps, in.mended = nil, nil
	return err
}

// tell reports what is wrong with a transaction that was committed.
func (in *intake) tell(t *transaction) {
	in.tellUntaken(t)
	for r, f := range t.failed {
		in.report(context.Background(), fmt.Errorf("trying the rule on a change of %s (it is recorded as a failed match): %w", t.tx.Commit, f.err), r.Name, "evaluation")
	}
}

// settlement is what the commit makes of the transaction's matches.
func (in *intake) settlement(t *transaction) (s outbox.Settlement) {
	for id, r := range t.expires {
		if s.Expires == nil {
			s.Expires = make(map[uint32]time.Time)
		}
		s.Expires[id] = r.Deadline(t.tx.Time, in.zone)
	}
	if s.Muted = t.muted(); s.Muted != "" {
		return s
	}
	tx := outbox.Tx{LSN: t.tx.Commit, XID: t.tx.XID, Time: t.tx.Time}
	for id, c := range t.counts {
		if all := in.holds.hold(id, c, tx); len(all) > 0 {
			if s.Hold == nil {
				s.Hold = make(map[uint32][]outbox.Hold)
			}
			s.Hold[id] = all
		}
	}
	return s
}

// settle has matches become what the commit makes of them, as the store does with those that were spilled.
func settle(matches []outbox.NewMatch, s outbox.Settlement) {
	for i := range matches {
		m := &matches[i]
		if t, ok := s.Expires[m.Rule]; ok {
			m.Expires = t
		}
		if m.State != outbox.MatchPending {
			continue
		}
		all := s.Hold[m.Rule]
		if s.Muted != "" {
			m.State, m.Reason = outbox.MatchMuted, s.Muted
		} else if i := slices.IndexFunc(all, func(h outbox.Hold) bool { return h.Takes(m.Ordinal) }); i >= 0 {
			m.State, m.Reason, m.Batch = outbox.MatchHeld, all[i].Why, &all[i]
		}
	}
}

// Idle notes a position without a commit.
func (in *intake) Idle(lsn position.LSN) error {
	in.open = nil
	in.swap(lsn)
	if len(in.gaps)+len(in.mended) == 0 {
		in.batch.idle(lsn)
		return nil
	}
	rest := committed{gaps: in.gaps, mends: mendsAt(in.mended, lsn)}
	rest.End = lsn
	in.gaps, in.mended = nil, nil
	return in.batch.add(rest)
}
