package outboxtest

import (
	"fmt"
	"strings"
	"time"

	"postman/outbox"
)

// storm queues so many messages of a new match of a rule, due one after the other, and leaves so many more matches.
func (r *rig) storm(rule uint32, p outbox.Priority, n int) {
	r.Helper()
	of := func(m *outbox.NewMatch) { m.Rule, m.Priority = rule, p }
	e := outbox.Expansion{Match: r.append(r.match(of))[0].ID, State: outbox.MatchExpanded}
	var more []outbox.NewMatch
	for i := range n {
		m := message(fmt.Sprintf("%d@example.com", i), outbox.MessageQueued)
		m.Due = past.Add(time.Duration(i) * time.Microsecond)
		e.Messages = append(e.Messages, m)
		more = append(more, r.match(of))
	}
	_, err := r.store.Expand(r.Context(), e)
	r.ok(err)
	r.leave(more...)
}

// claimOf claims matches and as many messages, which must come to the same, and tells whose they are, a letter each: h, n and b by the
// priority, or a to z by the rule.
func (r *rig) claimOf(c outbox.Claim, letter func(rule uint32, p outbox.Priority) byte) string {
	r.Helper()
	ms, err := r.store.ClaimMatches(r.Context(), c)
	r.ok(err)
	gs, err := r.store.ClaimMessages(r.Context(), c)
	r.ok(err)
	var matches, messages []byte
	for _, m := range ms {
		matches = append(matches, letter(m.Rule, m.Priority))
	}
	for _, m := range gs {
		messages = append(messages, letter(m.Rule, m.Priority))
	}
	r.equal("the messages beside the matches", string(messages), string(matches))
	return string(matches)
}

// byRule is a for the first of some rules, and so on.
func byRule(rules ...uint32) func(uint32, outbox.Priority) byte {
	return func(rule uint32, _ outbox.Priority) byte {
		for i, id := range rules {
			if id == rule {
				return 'a' + byte(i)
			}
		}
		return '?'
	}
}

func byPriority(_ uint32, p outbox.Priority) byte { return "hnb"[p] }

// testClaimsAreFair: however many of one rule wait, and for however long, the next claim has something of every other.
func testClaimsAreFair(r *rig) {
	third := r.rule("third")
	letter := byRule(r.notify, r.careful, third)
	some := func(n int) outbox.Claim { return outbox.Claim{Now: past.Add(time.Second), Most: n} }
	r.storm(r.notify, outbox.Normal, 500)
	r.equal("of a storm alone", r.claimOf(some(4), letter), "aaaa")
	r.storm(r.careful, outbox.Normal, 2)
	r.equal("beside two others", r.claimOf(some(6), letter), "babaaa")
	r.storm(r.careful, outbox.Normal, 300)
	r.storm(third, outbox.Normal, 1)
	got := r.claimOf(some(601), letter)
	r.equal("shares", []int{strings.Count(got, "a"), strings.Count(got, "b"), strings.Count(got, "c")}, []int{300, 300, 1})
	r.equal("the rest", len(r.claimOf(some(601), letter)), 500-4-4-300)
}

// testTurnsGoOn: a claim that is smaller than there are rules begins with the rule behind the one that had the last turn, and an order
// that a rule's priority has does not disturb another's.
func testTurnsGoOn(r *rig) {
	rules := []uint32{r.notify, r.careful, r.rule("c"), r.rule("d"), r.rule("e")}
	for _, rule := range rules {
		r.storm(rule, outbox.Normal, 3)
	}
	var got []string
	for _, n := range []int{2, 2, 4, 1, 9} {
		got = append(got, r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: n}, byRule(rules...)))
	}
	r.equal("the turns", strings.Join(got, " "), "ab cd eabc d eabcde")
}

// testClaimsOfSomeRules: a rule that the caller has no use for is neither given out nor told of, and waits.
func testClaimsOfSomeRules(r *rig) {
	r.storm(r.notify, outbox.High, 2)
	r.storm(r.careful, outbox.Bulk, 2)
	careful := func(rule uint32, _ outbox.Priority) bool { return rule == r.careful }
	none := func(uint32, outbox.Priority) bool { return false }
	next := func(matchOf, messageOf func(uint32, outbox.Priority) bool) time.Time {
		at, err := r.store.NextDue(r.Context(), matchOf, messageOf)
		r.ok(err)
		return at
	}
	letter := byRule(r.notify, r.careful)
	r.equal("of one rule", r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: 9, Of: careful}, letter), "bb")
	r.equal("the next of that rule", next(careful, careful), time.Time{})
	r.equal("the next of the other's matches", next(nil, careful), past)
	r.equal("the next of none", next(none, none), time.Time{})
	r.equal("of none", r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: 9, Of: none}, letter), "")
	r.equal("of all", r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: 1}, letter), "a")
	r.equal("the next message", next(none, nil), past.Add(time.Microsecond))
	low := func(_ uint32, p outbox.Priority) bool { return p != outbox.High }
	r.equal("of those that are not high", r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: 9, Of: low}, letter), "")
	r.equal("the rest", r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: 9}, letter), "a")
}

// testBulkMovesOn: while there is no end of normal ones, one in eight is bulk; and high ones wait for neither.
func testBulkMovesOn(r *rig) {
	claim := func(n int) string { return r.claimOf(outbox.Claim{Now: past.Add(time.Second), Most: n}, byPriority) }
	r.storm(r.careful, outbox.Bulk, 40)
	r.storm(r.notify, outbox.Normal, 100)
	r.equal("the first", claim(8), "nnnnnnnb")
	for i, want := range "nnnnnnnb" {
		r.equal(fmt.Sprint("alone, claim ", i), claim(1), string(want))
	}
	r.equal("a claim of many", claim(20), "nnnnnnnbnnnnnnnbnnnn")
	r.storm(r.notify, outbox.High, 3)
	r.equal("high ones", claim(2), "hh")
	r.equal("the last high one, and those behind it", claim(6), "hnnnbn")
	for range 20 {
		r.storm(r.notify, outbox.Normal, 8)
		r.equal("one in eight", strings.Count(claim(8), "b"), 1)
	}
}
