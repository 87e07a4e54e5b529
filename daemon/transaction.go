package daemon

import (
	"fmt"
	"slices"
	"sort"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// transaction is what is known of a transaction whose commit has not been read. What counts its changes knows which ones: a savepoint
// of one in progress may take them back.
type transaction struct {
	tx       cdc.Tx // of one in progress: its number alone
	streamed bool   // it is in progress
	set      *live  // decides on it
	plans    map[*cdc.Table]bound
	hides    map[*cdc.Table]func(column string) bool

	matches []outbox.NewMatch // what is not spilled yet, as section
	bytes   int               // of matches
	texts   map[outbox.Hash][]byte
	section cdc.Section // for the journal
	spilled *outbox.Spill

	missed   map[miss]*ordinals // undetermined changes
	untaken  map[string]*ordinals
	failed   map[*rules.Rule]fault
	counts   map[uint32]*matched    // of each rule that hold_over counts
	expires  map[uint32]*rules.Rule // of one in progress: whose matches expire some time after its commit
	mutes    []mark
	renamed  []renaming  // tables that it renamed, if it is in progress
	early    *rules.Rule // asks for the time of the commit
	messages bool        // it carries some of postman's

	unread int // changes that the stream could not make out
	// unplaced are those of them of which it is not known what they are.
	unplaced int64
	blanked  bool // their bytes are not kept
}

// miss is why a rule's verdict on changes is undetermined.
type miss struct{ rule, column string }

// mark is a text with its place in the transaction.
type mark struct {
	ordinal uint64
	text    string
}

// fault is the first that a rule could not be tried on; each one is a failed match of its own.
type fault struct {
	ordinal uint64
	err     error
}

type renaming struct {
	table *cdc.Table
	was   cdc.TableName
}

// ordinals are numbers of changes, as runs: what bulk statements do comes one after the other.
type ordinals []run

type run struct{ from, to uint64 } // to is not part of it

func (o *ordinals) add(ordinal uint64) {
	if last := len(*o) - 1; last >= 0 && (*o)[last].to == ordinal {
		(*o)[last].to++
		return
	}
	*o = append(*o, run{ordinal, ordinal + 1})
}

// cut takes back those from a number on, and says whether any are left.
func (o *ordinals) cut(from uint64) bool {
	*o = (*o)[:sort.Search(len(*o), func(i int) bool { return (*o)[i].from >= from })]
	if last := len(*o) - 1; last >= 0 {
		(*o)[last].to = min((*o)[last].to, from)
	}
	return len(*o) > 0
}

func (o *ordinals) n() (n int64) {
	for _, r := range *o {
		n += int64(r.to - r.from)
	}
	return n
}

// matched is how many matches of a rule hold_over counts in a transaction.
type matched struct {
	rule  *rules.Rule
	n     int
	first []uint64 // their ordinals, up to one more than hold_over.transaction lets through
	rows  []uint64 // of first, by their primary keys; 0: it has none
	most  bool     // there may be fewer than n, since some were rolled back; but more than first has, or as many
}

func (c *matched) add(ordinal, row uint64) {
	c.n++
	if len(c.first) <= c.rule.HoldOver.Transaction {
		c.first, c.rows = append(c.first, ordinal), append(c.rows, row)
	}
}

// cut takes back those from an ordinal on, and says whether any are left.
func (c *matched) cut(from uint64) bool {
	left, _ := slices.BinarySearch(c.first, from)
	if c.most = left < c.n && left == len(c.first); !c.most {
		c.n = left
	}
	c.first, c.rows = c.first[:left], c.rows[:left]
	return left > 0
}

// waits is how many are held.
func (c *matched) waits(all []outbox.Hold) (n int) {
	if c.n > c.rule.HoldOver.Transaction {
		return c.n
	}
	for _, ordinal := range c.first {
		if slices.ContainsFunc(all, func(h outbox.Hold) bool { return h.Takes(ordinal) }) {
			n++
		}
	}
	return n
}

func (t *transaction) count(id uint32, r *rules.Rule, ordinal, row uint64) {
	if t.counts == nil {
		t.counts = make(map[uint32]*matched)
	}
	if t.counts[id] == nil {
		t.counts[id] = &matched{rule: r}
	}
	t.counts[id].add(ordinal, row)
}

// expiring notes that matches of a rule may expire.
func (t *transaction) expiring(id uint32, r *rules.Rule) {
	if r.Expires == (rules.Duration{}) {
		return
	}
	if t.expires == nil {
		t.expires = make(map[uint32]*rules.Rule)
	}
	t.expires[id] = r
}

func (t *transaction) misses(m miss, ordinal uint64) {
	if t.missed == nil {
		t.missed = make(map[miss]*ordinals)
	}
	if t.missed[m] == nil {
		t.missed[m] = new(ordinals)
	}
	t.missed[m].add(ordinal)
}

func (t *transaction) fails(r *rules.Rule, ordinal uint64, err error) {
	if t.failed == nil {
		t.failed = make(map[*rules.Rule]fault)
	}
	if _, again := t.failed[r]; !again {
		t.failed[r] = fault{ordinal, err}
	}
}

// muted is why the transaction is; empty: it is not.
func (t *transaction) muted() string {
	if len(t.mutes) == 0 {
		return ""
	}
	return t.mutes[len(t.mutes)-1].text
}

// weight is what the transaction takes of the memory that all have together.
func (t *transaction) weight() int { return t.bytes + 200*len(t.matches) + t.section.Len() }

// cut takes back what came from an ordinal on, and says whether some of that is in the store.
func (t *transaction) cut(from uint64) (stored bool) {
	keep := sort.Search(len(t.matches), func(i int) bool { return t.matches[i].Ordinal >= from })
	for _, m := range t.matches[keep:] {
		t.bytes -= len(m.Change) + len(m.Blanked)
	}
	clear(t.matches[keep:])
	t.matches = t.matches[:keep]
	t.mutes = t.mutes[:sort.Search(len(t.mutes), func(i int) bool { return t.mutes[i].ordinal >= from })]
	for m, o := range t.missed {
		if !o.cut(from) {
			delete(t.missed, m)
		}
	}
	for name, o := range t.untaken {
		if !o.cut(from) {
			delete(t.untaken, name)
		}
	}
	for id, c := range t.counts {
		if !c.cut(from) {
			delete(t.counts, id)
		}
	}
	for r, f := range t.failed {
		if f.ordinal >= from {
			delete(t.failed, r)
		}
	}
	if stored = from < t.section.First(); stored {
		t.section.Reset(from)
	} else {
		t.section.Cut(from)
	}
	return stored
}

// undetermined is the record of the transaction's changes that a rule could not decide on.
func (t *transaction) undetermined() (gaps []outbox.Gap) {
	for m, o := range t.missed {
		gaps = append(gaps, outbox.Gap{
			Rule: m.rule, From: t.tx.Commit, To: t.tx.Commit, Count: o.n(), Lost: true,
			Reason: undeterminedReason + m.column,
		})
	}
	return gaps
}

// undeterminedReason begins the reasons of what rules could not decide on; the column follows.
const undeterminedReason = "undetermined: the stream did not carry "

// place says in which transaction something happens.
func (t *transaction) place() string {
	if t.streamed && t.tx.Commit == 0 {
		return fmt.Sprintf("transaction %d, which is in progress", t.tx.XID)
	}
	return t.tx.Commit.String()
}

// streamed closes a transaction that came while it was in progress. The rules that are live now decide what commits from here on, and the
// transaction was decided by those that were live when it began to come.
func (in *intake) streamed(tx cdc.Tx) (*transaction, error) {
	in.swap(tx.Commit)
	t := in.streams[tx.XID]
	delete(in.streams, tx.XID)
	if t == nil { // nothing in it is published
		t = &transaction{set: in.current}
	}
	if in.origins.ignores(tx.Origin) {
		return &transaction{set: in.current}, in.forget(t)
	}
	t.tx = tx
	in.open = t
	for _, r := range t.renamed {
		in.renameTable(r.table, r.was)
	}
	for table, b := range t.plans {
		in.unfits(t, table, b)
	}
	in.gaps = append(in.gaps, in.overtaken(t)...)
	return t, nil
}

// unfits notes which rules a transaction that came in progress has passed, since they do not fit a table of it.
func (in *intake) unfits(t *transaction, table *cdc.Table, b bound) {
	var unfit []string
	for _, r := range in.astray(table) {
		unfit = append(unfit, r.Name)
	}
	for _, e := range b.errs {
		if in.current.has(t.set, e.Rule) { // else it has missed all of the transaction, which is recorded
			in.breaks(e)
			unfit = append(unfit, e.Rule)
		}
	}
	if len(unfit) > 0 {
		in.broken.misses(unfit, t.tx.Commit)
	}
}

// overtaken are gaps of the rules that were not, or not alike, in the set that decided on the transaction. Each transaction has its own: what
// lies between two of them was decided as it should be, perhaps by a version that thought otherwise.
func (in *intake) overtaken(t *transaction) (gaps []outbox.Gap) {
	if t.set == in.current {
		return nil
	}
	at := t.tx.Commit
	for _, r := range in.current.rules.Rules {
		if t.concerns(r) && !in.current.has(t.set, r.Name) {
			g := outbox.Gap{
				Rule: r.Name, From: at, To: at, Reason: fmt.Sprintf("the rule came while transaction %d was in progress, and the rules from before decide on that", t.tx.XID),
			}
			in.current.aim(r.Name).of(&g)
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// concerns says whether the transaction changed a rule's table, or carries a message: its name is not looked at.
func (t *transaction) concerns(r *rules.Rule) bool {
	for table := range t.plans {
		if r.On.Message == "" && table.TableName == r.On.Table {
			return true
		}
	}
	return r.On.Message != "" && t.messages
}
