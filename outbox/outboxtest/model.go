package outboxtest

import (
	"errors"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"postman/outbox"
	"postman/position"
)

// fewer asks for fewer lives, and longer ones, than is rapid's default, unless whoever runs the tests asks for others.
func fewer(r *rig) {
	few := map[string]string{"rapid.checks": "20", "rapid.steps": "50"}
	flag.Visit(func(f *flag.Flag) { delete(few, f.Name) })
	for name, value := range few {
		r.ok(flag.Set(name, value))
	}
}

// testModel leads random lives of a store beside the oracle: whatever is done in whatever order, they agree on every match
// and message, on who may go on with it, and on what is refused.
func testModel(r *rig) {
	fewer(r)
	rapid.Check(r.T, func(t *rapid.T) {
		m := newModel(t, r)
		defer func() { fatal(t, m.store.Close()) }()
		t.Repeat(map[string]func(*rapid.T){
			"":                m.agree,
			"append":          m.append,
			"append more":     m.append,
			"append stale":    m.appendStale,
			"spill":           m.spill,
			"unspill":         m.unspill,
			"commit a spill":  m.commitSpill,
			"claim matches":   m.claimMatches,
			"claim messages":  m.claimMessages,
			"expand":          m.expand,
			"expand more":     m.expand,
			"expand and more": m.expand,
			"start":           m.start,
			"record":          m.record,
			"record more":     m.record,
			"release claims":  m.release,
			"act":             m.act,
			"die":             m.dieAtWork,
			"replay":          m.replayAgain,
			"suppress":        m.suppress,
			"unsuppress":      m.unsuppress,
			"blank":           m.blank,
			"next due":        m.nextDue,
			"count":           m.agreeOnCounts,
			"usage":           m.agreeOnUsage,
		})
	})
}

// model drives a store and the oracle.
type model struct {
	oracle
	open   func() outbox.Store
	store  outbox.Store
	rules  [3]uint32
	names  map[uint32]string
	lsn    position.LSN
	before []outbox.Transaction // for replays
	change int                  // numbers the changes
}

func newModel(t *rapid.T, r *rig) *model {
	dir := r.TempDir()
	m := &model{open: func() outbox.Store { return r.open(r.T, dir) }, names: make(map[uint32]string), lsn: 100}
	m.store = m.open()
	m.spilled, m.usage, m.barred = make(map[uint32][]outbox.NewMatch), make(map[string]map[string]int64), make(map[[16]byte]bool)
	var err error
	m.source, err = m.store.SaveSource(t.Context(), outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 100})
	fatal(t, err)
	names := []outbox.RuleName{{Name: "notify"}, {Name: "careful"}, {Name: "third"}}
	ids, err := m.store.RuleIDs(t.Context(), names...)
	fatal(t, err)
	m.rules = [3]uint32(ids)
	for i, id := range ids {
		m.names[id] = names[i].Name
	}
	return m
}

func fatal(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// The moments that a life knows; the last one lies ahead of the clock.
var moments = []time.Time{past, past.Add(time.Second), past.Add(2 * time.Second), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}

func moment(t *rapid.T, what string) time.Time { return rapid.SampledFrom(moments).Draw(t, what) }

func (m *model) newMatch(t *rapid.T, ordinal int) outbox.NewMatch {
	rule := rapid.IntRange(0, len(m.rules)-1).Draw(t, "rule")
	m.change++
	n := outbox.NewMatch{
		Ordinal: uint64(ordinal), Rule: m.rules[rule], HoldUncertain: rule == 1, Version: outbox.HashOf(version), Shape: outbox.HashOf(shape),
		Op: "insert", Change: fmt.Appendf(nil, "change %d", m.change), Reason: "as it came",
		Due: moment(t, "due"), Priority: outbox.Priority(rapid.IntRange(0, 2).Draw(t, "priority")),
		// Most are pending.
		State: rapid.SampledFrom([]outbox.MatchState{
			outbox.MatchPending, outbox.MatchPending, outbox.MatchPending, outbox.MatchHeld, outbox.MatchFailed, outbox.MatchMuted, outbox.MatchExpired,
		}).Draw(t, "state"),
	}
	if rapid.Bool().Draw(t, "expires") {
		n.Expires = moment(t, "expiry")
	}
	n.Silent = rapid.Bool().Draw(t, "silent")
	if rapid.Bool().Draw(t, "sensitive") {
		n.Blanked = fmt.Appendf(nil, "blanked %d", m.change)
	}
	return n
}

func (m *model) newMatches(t *rapid.T, first int) []outbox.NewMatch {
	var all []outbox.NewMatch
	for i := range rapid.IntRange(0, 3).Draw(t, "matches") {
		all = append(all, m.newMatch(t, first+i))
	}
	return all
}

func (m *model) transaction(t *rapid.T, matches []outbox.NewMatch) outbox.Transaction {
	m.lsn += 100
	tx := outbox.Transaction{Tx: outbox.Tx{LSN: m.lsn - 50, End: m.lsn, XID: uint32(m.lsn), Time: past}, Matches: matches}
	switch rapid.IntRange(0, 5).Draw(t, "verdict") {
	case 0:
		tx.Muted = "a migration"
	case 1:
		tx.Hold = map[uint32]string{m.rules[0]: "too many"}
	}
	return tx
}

// take appends a batch whose transactions from the given one on are new.
func (m *model) take(t *rapid.T, txs []outbox.Transaction, fresh int) {
	claim := rapid.IntRange(0, 3).Draw(t, "claim")
	got, err := m.store.Append(t.Context(), outbox.Batch{
		Source: m.source.ID, Epoch: 1, Transactions: txs, Checkpoint: m.lsn, Texts: texts,
	}, claim)
	fatal(t, err)
	m.source.Checkpoint = m.lsn
	var want []outbox.Match
	for i := fresh; i < len(txs); i++ {
		inline := len(txs[i].Matches)
		all := m.commit(&txs[i], m.names, time.Now())
		for _, n := range all[max(0, len(all)-inline):] { // what was spilled is claimed by whoever asks
			if n.State == outbox.MatchPending && !n.Due.After(time.Now()) && len(want) < claim {
				n.claimed = true
				n.begun++
				want = append(want, n.Match)
			}
		}
	}
	m.oracle.blank(time.Time{})
	agree(t, "what Append claimed", got, want, cmpopts.IgnoreFields(outbox.Match{}, "ID"))
	m.before = append(m.before, txs[fresh:]...)
}

func (m *model) append(t *rapid.T) {
	var txs []outbox.Transaction
	if len(m.before) > 0 && rapid.Bool().Draw(t, "again") {
		txs = append(txs, pick(t, m.before))
		txs[0].Spilled = nil
	}
	fresh := len(txs)
	for range rapid.IntRange(0, 2).Draw(t, "transactions") {
		txs = append(txs, m.transaction(t, m.newMatches(t, 0)))
	}
	m.take(t, txs, fresh)
}

func (m *model) appendStale(t *rapid.T) {
	b := outbox.Batch{Source: m.source.ID, Epoch: 1, Transactions: []outbox.Transaction{m.transaction(t, m.newMatches(t, 0))}, Checkpoint: m.source.Checkpoint - 1, Texts: texts}
	if rapid.Bool().Draw(t, "epoch") {
		b.Epoch, b.Checkpoint = 2, m.lsn
	}
	if _, err := m.store.Append(t.Context(), b, 3); !errors.Is(err, outbox.ErrCheckpoint) {
		t.Fatalf("a stale batch gave %v", err)
	}
}

func (m *model) key(t *rapid.T) outbox.Spill {
	return outbox.Spill{Source: m.source.ID, Epoch: 1, XID: uint32(rapid.IntRange(1, 2).Draw(t, "xid"))}
}

func (m *model) spill(t *rapid.T) {
	k := m.key(t)
	matches := m.newMatches(t, len(m.spilled[k.XID]))
	fatal(t, m.store.Spill(t.Context(), k, outbox.Provisional{Matches: matches, Texts: texts}))
	m.spilled[k.XID] = append(m.spilled[k.XID], matches...)
}

func (m *model) unspill(t *rapid.T) {
	k := m.key(t)
	matches := m.spilled[k.XID]
	from := rapid.IntRange(0, len(matches)).Draw(t, "from")
	fatal(t, m.store.Unspill(t.Context(), k, uint64(from)))
	if from == 0 {
		delete(m.spilled, k.XID)
		return
	}
	m.spilled[k.XID] = matches[:from:from]
}

func (m *model) commitSpill(t *rapid.T) {
	k := m.key(t)
	matches, ok := m.spilled[k.XID]
	if !ok {
		t.Skip("nothing is spilled")
	}
	tx := m.transaction(t, m.newMatches(t, len(matches)))
	tx.XID, tx.Spilled = k.XID, &k
	z := outbox.Settlement{Muted: tx.Muted}
	for rule, why := range tx.Hold {
		z.Hold = map[uint32][]outbox.Hold{rule: {{From: uint64(rapid.IntRange(0, len(matches)).Draw(t, "from")), Why: why}}}
	}
	if rapid.Bool().Draw(t, "expires") {
		z.Expires = map[uint32]time.Time{m.rules[0]: moment(t, "expires at")}
	}
	fatal(t, m.store.Settle(t.Context(), k, z))
	m.settleSpilled(k.XID, z)
	m.take(t, []outbox.Transaction{tx}, 0)
}

// anyClaim asks for a few, of all rules, or of one and of all from a priority on.
func (m *model) anyClaim(t *rapid.T) outbox.Claim {
	c := outbox.Claim{Now: moment(t, "now"), Most: rapid.IntRange(0, 9).Draw(t, "n")}
	if of := rapid.IntRange(0, 3*len(m.rules)).Draw(t, "of"); of < len(m.rules) {
		least := rapid.SampledFrom([]outbox.Priority{outbox.High, outbox.Normal, outbox.Bulk, outbox.Bulk}).Draw(t, "least")
		c.Of = func(rule uint32, p outbox.Priority) bool { return rule == m.rules[of] || p < least }
	}
	return c
}

func (m *model) claimMatches(t *rapid.T) {
	c := m.anyClaim(t)
	got, err := m.store.ClaimMatches(t.Context(), c)
	fatal(t, err)
	want := m.claim(&m.turns[0], m.waitingMatches(), c, func(at int, n *waiting) bool {
		return at < len(got) && n.match == m.match(matchKey{got[at].Position, got[at].Rule})
	})
	if len(got) != len(want) {
		t.Fatalf("%d matches were claimed, not %d", len(got), len(want))
	}
	for i, one := range got {
		known := m.match(matchKey{one.Position, one.Rule})
		if known == nil || known.claimed || known.State != outbox.MatchPending || !want[i].like(one.Priority, one.Rule, one.Due) {
			t.Fatalf("claim %d of %d is %+v; it was to be like %+v", i, c.Most, one, want[i].match.Match)
		}
		agree(t, "the claimed match", one, known.Match)
		known.claimed = true
		known.begun++
	}
}

func (m *model) claimMessages(t *rapid.T) {
	c := m.anyClaim(t)
	got, err := m.store.ClaimMessages(t.Context(), c)
	fatal(t, err)
	want := m.claim(&m.turns[1], m.waitingMessages(), c, func(at int, n *waiting) bool {
		return at < len(got) && n.message.ID == got[at].ID
	})
	if len(got) != len(want) {
		t.Fatalf("%d messages were claimed, not %d", len(got), len(want))
	}
	for i, one := range got {
		known := m.message(one.ID)
		if known == nil || known.claimed || known.State != outbox.MessageQueued || !want[i].like(one.Priority, one.Rule, one.Due) {
			t.Fatalf("claim %d of %d is %+v; it was to be like %+v", i, c.Most, one, want[i].message.Message)
		}
		agree(t, "the claimed message", one, known.asRead())
		known.claimed = true
		known.begun++
	}
}

func (m *model) message(id int64) *oracleMessage {
	i := slices.IndexFunc(m.messages, func(n *oracleMessage) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return m.messages[i]
}

// agree compares all that the store lists with what the oracle has, and teaches the oracle the ids of what is new.
func (m *model) agree(t *rapid.T) {
	matches, err := m.store.Matches(t.Context(), outbox.Filter{})
	fatal(t, err)
	want := make([]outbox.Match, 0, len(m.matches))
	for _, got := range matches {
		known := m.match(matchKey{got.Position, got.Rule})
		if known == nil {
			t.Fatalf("the store made up %+v", got)
			return
		}
		if known.ID == 0 {
			known.ID = got.ID
		}
		if known.Reason == ownWords && got.Reason != "" {
			known.Reason = got.Reason
		}
		known.Created = got.Created
		want = append(want, known.Match)
	}
	agree(t, "the matches", matches, want)
	if len(matches) != len(m.matches) {
		t.Fatalf("of %d matches %d are listed", len(m.matches), len(matches))
	}
	m.agreeOnMessages(t)
}

func (m *model) agreeOnMessages(t *rapid.T) {
	list, err := m.store.Messages(t.Context(), outbox.Filter{})
	fatal(t, err)
	var messages []outbox.Message
	if len(list) > 0 {
		messages, err = m.store.Messages(t.Context(), outbox.Filter{Messages: ids(list, messageID)})
		fatal(t, err)
	}
	agree(t, "the list without bodies", list, messages, cmpopts.IgnoreFields(outbox.Message{}, "Body"))
	for _, got := range list {
		if got.Body != nil {
			t.Fatalf("message %d is listed with its body", got.ID)
		}
	}
	want := make([]outbox.Message, 0, len(m.messages))
	for i, got := range messages {
		at := slices.IndexFunc(m.messages, func(n *oracleMessage) bool {
			return n.of.ID == got.Match && n.Resend == got.Resend && outbox.AddressKey(n.Address) == outbox.AddressKey(got.Address)
		})
		if at < 0 {
			t.Fatalf("the store made up %+v", got)
		}
		known := m.messages[at]
		if known.ID == 0 {
			known.ID, known.Match = got.ID, got.Match
		}
		if known.Reason == ownWords && got.Reason != "" {
			known.Reason = got.Reason
		}
		if got.Finished.IsZero() == known.finished {
			t.Fatalf("a message that is %s finished at %v", got.State, got.Finished)
		}
		if known.Due.Equal(ownTime) {
			known.Due = got.Due
		}
		messages[i].Finished, known.Created = time.Time{}, got.Created
		want = append(want, known.asRead())
	}
	agree(t, "the messages", messages, want)
	if len(messages) != len(m.messages) {
		t.Fatalf("of %d messages %d are listed", len(m.messages), len(messages))
	}
}

func (m *model) agreeOnCounts(t *rapid.T) {
	got, err := m.store.Count(t.Context())
	fatal(t, err)
	want := outbox.Counts{Matches: make(map[outbox.MatchState]int), Messages: make(map[outbox.MessageState]int)}
	for _, n := range m.matches {
		want.Matches[n.State]++
	}
	for _, n := range m.messages {
		want.Messages[n.State]++
	}
	agree(t, "the counts", got, want)
}

func (m *model) agreeOnUsage(t *rapid.T) {
	for _, at := range moments {
		got, err := m.store.Usage(t.Context(), at)
		fatal(t, err)
		agree(t, "what relays took", got, m.usage[at.Format("2006-01")])
	}
}

// agree fails the life when two values differ, but for when they were made.
func agree(t *rapid.T, what string, got, want any, options ...cmp.Option) {
	if reflect.DeepEqual(got, want) { // much faster, and nearly always so
		return
	}
	options = append(options, same, cmpopts.IgnoreFields(outbox.Match{}, "Created"), cmpopts.IgnoreFields(outbox.Message{}, "Created"))
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}
