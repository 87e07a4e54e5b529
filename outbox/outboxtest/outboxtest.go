// Package outboxtest is the suite that every implementation of [outbox.Store] passes: one test for each promise of the
// interface, and a model-based test that drives a store and a naive one side by side through random lives.
package outboxtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/outbox"
	"postman/position"
)

// Open opens the store that lives in a folder, and makes it when there is none. The suite closes it, and opens the same
// folder again where it tests what survives.
type Open func(t *testing.T, dir string) outbox.Store

// Run puts an implementation through the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*rig){
		"identity":              testIdentity,
		"sources":               testSources,
		"source checkpoints":    testSourceCheckpoints,
		"rule ids":              testRuleIDs,
		"rule ids of a set":     testRuleSets,
		"notes":                 testNotes,
		"texts":                 testTexts,
		"gaps":                  testGaps,
		"append":                testAppend,
		"append refuses":        testAppendRefuses,
		"append passes over":    testAppendPassesOver,
		"append claims":         testAppendClaims,
		"mute and hold":         testMuteAndHold,
		"clock":                 testClock,
		"spill is hidden":       testSpillIsHidden,
		"spill is adopted":      testSpillIsAdopted,
		"spill is settled":      testSpillIsSettled,
		"settled in steps":      testSpillIsSettledInSteps,
		"spill is discarded":    testSpillIsDiscarded,
		"spill is cut":          testSpillIsCut,
		"journal":               testJournal,
		"journal refuses":       testJournalRefuses,
		"journal model":         testJournalModel,
		"journal times":         testJournalTimes,
		"replay":                testReplay,
		"replay of the muted":   testReplayMuted,
		"replay refuses":        testReplayRefuses,
		"resend":                testResend,
		"resend of the erased":  testResendErased,
		"failures":              testFailures,
		"the dead":              testDead,
		"resend silent":         testResendSilent,
		"known matches":         testKnownMatches,
		"mend gap":              testMendGap,
		"accept gap":            testAcceptGap,
		"claim order":           testClaimOrder,
		"claims are fair":       testClaimsAreFair,
		"claims of some rules":  testClaimsOfSomeRules,
		"turns go on":           testTurnsGoOn,
		"bulk moves on":         testBulkMovesOn,
		"claims are exclusive":  testClaimsAreExclusive,
		"next due":              testNextDue,
		"expand":                testExpand,
		"expand to each state":  testExpandToEachState,
		"expand knows messages": testExpandKnowsMessages,
		"expand refuses":        testExpandRefuses,
		"start":                 testStart,
		"record each outcome":   testRecordEachOutcome,
		"record refuses":        testRecordRefuses,
		"attempts":              testAttempts,
		"usage":                 testUsage,
		"held batches":          testHeldBatches,
		"held acts":             testHeldActs,
		"held and spilled":      testHeldSpilled,
		"held and told":         testHeldTold,
		"suppression":           testSuppression,
		"bounces":               testBounces,
		"find":                  testFind,
		"suppressed at once":    testSuppressedAtExpand,
		"suppressed later":      testSuppressedAtStart,
		"suppressed copies":     testSuppressedCopies,
		"suppressed is resent":  testSuppressedResend,
		"bodies":                testBodies,
		"blanking":              testBlanking,
		"blanking at expiry":    testBlankingAtExpiry,
		"act":                   testAct,
		"act selects":           testActSelects,
		"act and claims":        testActAndClaims,
		"act makes due":         testActMakesDue,
		"recover":               testRecover,
		"interrupted":           testInterrupted,
		"innocents":             testInnocents,
		"suspects wait":         testSuspectsWait,
		"undecided":             testUndecided,
		"recent matches":        testRecentMatches,
		"lists":                 testLists,
		"lists by error":        testListsByError,
		"lists by age":          testListsByAge,
		"affected":              testAffected,
		"count":                 testCount,
		"many at a time":        testManyAtATime,
		"model":                 testModel,
		"context":               testContext,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newRig(t, open))
		})
	}
}

// rig is a store under test with a source and two rules: "notify", and "careful", which holds what is uncertain.
type rig struct {
	*testing.T
	open            Open
	dir             string
	store           outbox.Store
	source          outbox.Source
	notify, careful uint32
	lsn             position.LSN
}

var (
	version = []byte("name: notify")
	shape   = []byte("schedules")
	texts   = map[outbox.Hash][]byte{outbox.HashOf(version): version, outbox.HashOf(shape): shape}
	// past is when what the rig appends is due and committed.
	past = time.Date(2026, 3, 1, 9, 0, 0, 123456000, time.UTC)
)

// The relations between values on their way into a store and out of it.
var same = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(time.Microsecond)}

func newRig(t *testing.T, open Open) *rig {
	t.Helper()
	r := &rig{T: t, open: open, dir: t.TempDir()}
	r.store = open(t, r.dir)
	t.Cleanup(func() { r.ok(r.store.Close()) })
	src, err := r.store.SaveSource(t.Context(), outbox.Source{
		SystemID: "7301", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 100,
	})
	r.ok(err)
	r.source, r.lsn = src, 100
	r.notify, r.careful = r.rule("notify"), r.rule("careful")
	return r
}

// ok fails the test on an error.
func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// equal fails the test when two values differ.
func (r *rig) equal(what string, got, want any, options ...cmp.Option) {
	r.Helper()
	if diff := cmp.Diff(want, got, append(slices.Clone(options), same)...); diff != "" {
		r.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// reopen closes the store and opens it again, as a new process would.
func (r *rig) reopen() {
	r.Helper()
	r.ok(r.store.Close())
	r.store = r.open(r.T, r.dir)
}

func (r *rig) rule(name string) uint32 {
	r.Helper()
	ids, err := r.store.RuleIDs(r.Context(), outbox.RuleName{Name: name})
	r.ok(err)
	return ids[0]
}

// match is a pending match of the rule notify, due in the past.
func (r *rig) match(change ...func(*outbox.NewMatch)) outbox.NewMatch {
	m := outbox.NewMatch{
		Rule: r.notify, Version: outbox.HashOf(version), Shape: outbox.HashOf(shape), Op: "insert", Change: []byte("a row"),
		Due: past, Priority: outbox.Normal,
	}
	for _, f := range change {
		f(&m)
	}
	return m
}

// tx is the next transaction, with matches that are numbered through.
func (r *rig) tx(matches ...outbox.NewMatch) outbox.Transaction {
	r.lsn += 100
	for i := range matches {
		matches[i].Ordinal = uint64(i)
	}
	return outbox.Transaction{Tx: outbox.Tx{LSN: r.lsn - 50, End: r.lsn, XID: uint32(r.lsn), Time: past}, Matches: matches}
}

// batch holds transactions and ends with them.
func (r *rig) batch(txs ...outbox.Transaction) outbox.Batch {
	return outbox.Batch{Source: r.source.ID, Epoch: r.source.Epoch, Transactions: txs, Checkpoint: r.lsn, Texts: texts}
}

// append stores one transaction and returns its matches that are due, claimed.
func (r *rig) append(matches ...outbox.NewMatch) []outbox.Match {
	r.Helper()
	claimed, err := r.store.Append(r.Context(), r.batch(r.tx(matches...)), len(matches))
	r.ok(err)
	return claimed
}

// leave stores one transaction and leaves its matches to whoever claims them.
func (r *rig) leave(matches ...outbox.NewMatch) {
	r.Helper()
	_, err := r.store.Append(r.Context(), r.batch(r.tx(matches...)), 0)
	r.ok(err)
}

// expanded expands a new match to messages with the given states, and returns all of them.
func (r *rig) expanded(rule uint32, states ...outbox.MessageState) []outbox.Message {
	r.Helper()
	m := r.append(r.match(func(m *outbox.NewMatch) { m.Rule, m.HoldUncertain = rule, rule == r.careful }))[0]
	return r.expand(m.ID, states...)
}

// expand queues messages of a match with the given states, and returns all of them, oldest first.
func (r *rig) expand(match int64, states ...outbox.MessageState) []outbox.Message {
	r.Helper()
	e := outbox.Expansion{Match: match, State: outbox.MatchExpanded}
	for i, s := range states {
		e.Messages = append(e.Messages, message(fmt.Sprintf("%c@example.com", 'a'+i), s))
	}
	_, err := r.store.Expand(r.Context(), e)
	r.ok(err)
	all := r.full(outbox.Filter{Matches: []int64{match}})
	slices.Reverse(all)
	return all
}

// message is a new message in a state, with what belongs to that.
func message(address string, s outbox.MessageState) outbox.NewMessage {
	m := outbox.NewMessage{Address: address, State: s, Due: past, Recipient: []byte("{}"), Reason: "for a test"}
	if s == outbox.MessageSending {
		m.MessageID, m.Subject, m.Body, m.Lease = "<"+address+">", "subject", []byte("body of "+address), past.Add(time.Minute)
	}
	return m
}

// claimed claims everything that is due, and returns the ids.
func (r *rig) claimed() (matches, messages []int64) {
	r.Helper()
	ms, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: time.Now(), Most: 1000})
	r.ok(err)
	gs, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: time.Now(), Most: 1000})
	r.ok(err)
	for _, m := range ms {
		matches = append(matches, m.ID)
	}
	for _, m := range gs {
		messages = append(messages, m.ID)
	}
	return matches, messages
}

func (r *rig) matches(f outbox.Filter) []outbox.Match {
	r.Helper()
	found, err := r.store.Matches(r.Context(), f)
	r.ok(err)
	return found
}

func (r *rig) messages(f outbox.Filter) []outbox.Message {
	r.Helper()
	found, err := r.store.Messages(r.Context(), f)
	r.ok(err)
	return found
}

// full lists messages with their bodies.
func (r *rig) full(f outbox.Filter) []outbox.Message {
	r.Helper()
	list := r.messages(f)
	if len(list) == 0 {
		return nil
	}
	return r.messages(outbox.Filter{Messages: ids(list, messageID)})
}

// getMatch reads one match.
func (r *rig) getMatch(id int64) outbox.Match {
	r.Helper()
	found := r.matches(outbox.Filter{Matches: []int64{id}})
	if len(found) != 1 {
		r.Fatalf("there are %d matches %d", len(found), id)
	}
	return found[0]
}

// getMessage reads one message.
func (r *rig) getMessage(id int64) outbox.Message {
	r.Helper()
	found := r.messages(outbox.Filter{Messages: []int64{id}})
	if len(found) != 1 {
		r.Fatalf("there are %d messages %d", len(found), id)
	}
	return found[0]
}

// states tells where the messages with these ids stand, as a person would read it.
func (r *rig) states(ids ...int64) string {
	r.Helper()
	var all []string
	for _, id := range ids {
		all = append(all, r.getMessage(id).State.String())
	}
	return strings.Join(all, " ")
}

// record records outcomes that must be possible.
func (r *rig) record(outcomes ...outbox.Outcome) {
	r.Helper()
	r.ok(r.store.Record(r.Context(), outcomes))
}

// act does what must be possible.
func (r *rig) act(a outbox.Action, f outbox.Filter) outbox.Acted {
	r.Helper()
	acted, err := r.store.Act(r.Context(), a, f, "an operator said so", past.Add(time.Hour))
	r.ok(err)
	return acted
}

func ids[T any](all []T, id func(T) int64) []int64 {
	var found []int64
	for _, one := range all {
		found = append(found, id(one))
	}
	return found
}

func matchID(m outbox.Match) int64     { return m.ID }
func messageID(m outbox.Message) int64 { return m.ID }
