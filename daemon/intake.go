package daemon

import (
	"cmp"
	"context"
	"errors"
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
	batch  *gathering
	report func(ctx context.Context, err error, rule, class string)
	broken *breakages
	rebind *atomic.Bool // somebody has reason to believe that rules fit their tables again
	// decides is told from where on a set decides.
	decides    func(*live, position.LSN)
	mismatches *atomic.Int64 // of the rules' index
	origins    *Origins      // whose transactions are ignored
	tally      *tally

	current *live // decides the open transaction
	plans   map[uint32]bound
	shapes  map[*cdc.Table]shape
	hides   map[*cdc.Table]func(column string) bool // what is sensitive of a table
	brought map[outbox.Hash]bool                    // texts that are in the store, or on their way into it
	names   map[uint32]cdc.TableName                // of the tables, as the stream told them
	strays  map[uint32][]string                     // rules that know a table by a name that it had before
	open    transaction

	// Kept until a commit takes them along: a transaction that the stream brings again meets the plans as they are.
	gaps   []outbox.Gap
	mended []breakage
}

// transaction is what is known of the transaction whose commit has not been read yet.
type transaction struct {
	tx      cdc.Tx
	matches []outbox.NewMatch
	bytes   int
	texts   map[outbox.Hash][]byte
	missed  map[miss]int64      // undetermined changes
	failed  map[*rules.Rule]int // changes that a rule could not be tried on
	counts  map[uint32]int      // matches of each rule that hold_over counts
	passed  map[uint32]int      // of these, how many the minute let through
	most    map[uint32]int      // hold_over.transaction of these rules
	muted   string
	section cdc.Section // for the journal: what is not spilled yet
	spilled *outbox.Spill
	unread  int              // changes that the stream could not make out
	untaken map[string]int64 // messages, by name
	// unplaced are those of them of which it is not known what they are.
	unplaced int64
}

// bound is a table's plan, which is nil where no rule fits it, and the names of the rules that do not fit it.
type bound struct {
	plan  *rules.Plan
	unfit []string
}

// miss is why a rule's verdict on changes is undetermined.
type miss struct{ rule, column string }

// Restart forgets the transaction that was open: the stream broke off in it and will bring it again.
func (in *intake) Restart() error {
	in.takeBack(nil)
	in.begin(cdc.Tx{})
	return nil
}

// Begin opens a transaction.
func (in *intake) Begin(tx cdc.Tx) error {
	in.swap(tx.Commit)
	in.begin(tx)
	return nil
}

var errInProgress = errors.New("a transaction in progress came, and was not asked for")

// Stream is not called.
func (in *intake) Stream(uint32) error { return errInProgress }

// Rollback is not called.
func (in *intake) Rollback(uint32, uint64) error { return errInProgress }

// begin forgets the open transaction but for its memory.
func (in *intake) begin(tx cdc.Tx) {
	section := in.open.section
	section.Reset(0)
	in.open = transaction{tx: tx, section: section}
}

// Change tries the rules on one change.
func (in *intake) Change(c *cdc.Change) error {
	if in.origins.ignores(in.open.tx.Origin) {
		return nil
	}
	if c.Err != nil {
		return in.unread(c)
	}
	if c.Op == cdc.Emit {
		return in.message(c)
	}
	b, ok := in.plans[c.Table.OID]
	if !ok {
		b = in.bind(c.Table)
	}
	if len(b.unfit) > 0 {
		in.broken.misses(b.unfit, in.open.tx.Commit)
	}
	in.record(c)
	if b.plan == nil {
		return in.spill()
	}
	b.plan.Match(in.open.tx, c, func(r *rules.Rule, v rules.Verdict) { in.verdict(c, r, v) })
	return in.spill()
}

func (in *intake) message(c *cdc.Change) error {
	in.record(c)
	if c.Prefix == mutePrefix {
		in.open.muted = cmp.Or(string(c.Content), "no reason given")
		return nil
	}
	if !in.current.rules.MatchMessage(in.open.tx, c, func(r *rules.Rule, v rules.Verdict) { in.verdict(c, r, v) }) {
		in.untaken(c.Prefix)
	}
	return in.spill()
}

// verdict makes a match of what a rule says of a change: one that waits, or one that failed and says why.
func (in *intake) verdict(c *cdc.Change, r *rules.Rule, v rules.Verdict) {
	switch {
	case v.Err != nil:
		in.match(c, r, outbox.MatchFailed, v.Err.Error())
		in.fails(r, v.Err)
	case v.Truth == rules.True:
		in.match(c, r, outbox.MatchPending, "")
	case v.Truth == rules.Undetermined:
		if in.open.missed == nil {
			in.open.missed = make(map[miss]int64)
		}
		in.open.missed[miss{r.Name, v.Missing}]++
	}
}

// fails tells of the first failure of a rule in a transaction; each one is a failed match of its own.
func (in *intake) fails(r *rules.Rule, err error) {
	if in.open.failed == nil {
		in.open.failed = make(map[*rules.Rule]int)
	}
	in.open.failed[r]++
	if in.open.failed[r] == 1 {
		in.report(context.Background(), fmt.Errorf("trying the rule on a change of %s (it is recorded as a failed match): %w", in.open.tx.Commit, err), r.Name, "evaluation")
	}
}

// undetermined is the record of the transaction's changes that a rule could not decide on.
func (t *transaction) undetermined() (gaps []outbox.Gap) {
	for m, n := range t.missed {
		gaps = append(gaps, outbox.Gap{
			Rule: m.rule, From: t.tx.Commit, To: t.tx.Commit, Count: n, Lost: true,
			Reason: undeterminedReason + m.column,
		})
	}
	return gaps
}

// undeterminedReason begins the reasons of what rules could not decide on; the column follows.
const undeterminedReason = "undetermined: the stream did not carry "

func (in *intake) match(c *cdc.Change, r *rules.Rule, state outbox.MatchState, reason string) {
	known, tx := in.current.known[r], in.open.tx
	m := outbox.NewMatch{
		Ordinal: c.Ordinal, Rule: known.id, Version: known.version, Op: c.Op.String(),
		State: state, Reason: reason, Due: time.Now(), Expires: r.Deadline(tx.Time, in.zone),
		Priority: priority(r.Priority), HoldUncertain: r.HoldUncertain, Silent: in.silent,
		Change: c.AppendRest(nil, nil),
	}
	if len(r.Sensitive)+len(r.Reads) > 0 { // with which goes what the mails show
		m.Blanked = c.AppendRest(nil, r.Hides)
	}
	in.text(known.version, r.Source())
	if c.Table != nil {
		m.Shape = in.shape(c.Table)
	}
	if state == outbox.MatchPending {
		in.count(&m, r)
	}
	in.open.matches = append(in.open.matches, m)
	in.open.bytes += len(m.Change) + len(m.Blanked)
}

// count applies hold_over to one match.
func (in *intake) count(m *outbox.NewMatch, r *rules.Rule) {
	if in.open.counts == nil {
		in.open.counts, in.open.passed, in.open.most = make(map[uint32]int), make(map[uint32]int), make(map[uint32]int)
	}
	in.open.counts[m.Rule]++
	in.open.most[m.Rule] = r.HoldOver.Transaction
	if in.open.counts[m.Rule] > r.HoldOver.Transaction {
		m.State = outbox.MatchHeld // the commit holds the whole, with the final count as its reason
		return
	}
	if why := in.holds.minute(m.Rule, r.HoldOver.Minute, in.open.tx.Time); why != "" {
		m.State, m.Reason = outbox.MatchHeld, why
		return
	}
	in.open.passed[m.Rule]++
}

// held names the rules that had too many matches in the transaction, with the reason.
func (t *transaction) held() map[uint32]string {
	var held map[uint32]string
	for rule, n := range t.counts {
		if n <= t.most[rule] {
			continue
		}
		if held == nil {
			held = make(map[uint32]string)
		}
		held[rule] = fmt.Sprintf("%d matches of the rule in one transaction, over %d (hold_over.transaction); release or discard with postman outbox", n, t.most[rule])
	}
	return held
}

// takeBack gives the minute back what it counted for matches that do not pass: those of the rules in held, or all of
// them when held is nil.
func (in *intake) takeBack(held map[uint32]string) {
	for rule, n := range in.open.passed {
		if _, ok := held[rule]; ok || held == nil {
			in.holds.undo(rule, n)
		}
	}
	in.open.passed = nil
}

// shape is how a table looks, in the words that are stored and by their hash. Writing it down takes longer than trying a rule,
// and is done once.
type shape struct {
	hash outbox.Hash
	text []byte
}

// text adds a text to those that go with the transaction, unless the store has it.
func (in *intake) text(h outbox.Hash, text []byte) {
	if in.brought[h] {
		return
	}
	if in.open.texts == nil {
		in.open.texts = make(map[outbox.Hash][]byte)
	}
	in.open.texts[h] = text
}

// Commit closes the transaction and hands it to the batch that gathers.
func (in *intake) Commit(tx cdc.Tx) error {
	in.open.tx = tx
	t := &in.open
	if in.origins.ignores(tx.Origin) {
		in.tally.ignore(tx.Origin)
	}
	in.tellUntaken()
	if t.spilled != nil && t.section.Changes() > 0 { // the whole journal of it, or nothing, is in parts
		if err := in.spillAll(); err != nil {
			return err
		}
	}
	out := outbox.Transaction{
		Tx:      outbox.Tx{LSN: tx.Commit, End: tx.End, XID: tx.XID, Time: tx.Time, Muted: t.muted},
		Matches: t.matches, Spilled: t.spilled,
	}
	if t.muted != "" {
		in.takeBack(nil)
		mute(out.Matches, t.muted)
	} else {
		out.Hold = t.held()
		in.takeBack(orEmpty(out.Hold))
		hold(out.Matches, out.Hold)
	}
	err := in.batch.add(committed{
		Transaction: out, tx: tx, section: &t.section, texts: t.texts, gaps: slices.Concat(t.undetermined(), t.unreadGap(tx.Commit), in.gaps), mends: mendsAt(in.mended, tx.End), bytes: t.bytes,
	})
	in.bring(t.texts)
	in.begin(cdc.Tx{})
	in.gaps, in.mended = nil, nil
	return err
}

// orEmpty keeps "no rule" apart from "all rules".
func orEmpty(held map[uint32]string) map[uint32]string {
	if held == nil {
		return map[uint32]string{}
	}
	return held
}

func mute(matches []outbox.NewMatch, why string) {
	for i := range matches {
		if matches[i].State == outbox.MatchPending || matches[i].State == outbox.MatchHeld {
			matches[i].State, matches[i].Reason = outbox.MatchMuted, why
		}
	}
}

func hold(matches []outbox.NewMatch, held map[uint32]string) {
	for i := range matches {
		m := &matches[i]
		if why, ok := held[m.Rule]; ok && (m.State == outbox.MatchPending || m.State == outbox.MatchHeld) {
			m.State, m.Reason = outbox.MatchHeld, why
		}
	}
}

// Idle notes a position without a commit.
func (in *intake) Idle(lsn position.LSN) error {
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
