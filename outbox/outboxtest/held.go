package outboxtest

import (
	"errors"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

// hold is why matches of the next transaction are held together.
func (r *rig) hold(cause outbox.HoldCause, after, calm time.Duration) *outbox.Hold {
	tx := outbox.Tx{LSN: r.lsn + 50, XID: uint32(r.lsn + 100), Time: past.Add(after)}
	return &outbox.Hold{Cause: cause, Tx: tx, Calm: calm, Why: "too many", Expires: past.Add(time.Hour)}
}

// leaveHeld stores a transaction with n matches that are held together.
func (r *rig) leaveHeld(n int, h *outbox.Hold) {
	r.Helper()
	list := make([]outbox.NewMatch, n)
	for i := range list {
		list[i] = r.match(func(m *outbox.NewMatch) {
			m.State, m.Reason, m.Batch, m.Change, m.Blanked = outbox.MatchHeld, h.Why, h, []byte("secret"), []byte("blanked")
		})
	}
	r.leave(list...)
}

func (r *rig) heldBatches(ids ...int64) []outbox.HeldBatch {
	r.Helper()
	all, err := r.store.HeldBatches(r.Context(), ids...)
	r.ok(err)
	return all
}

// testHeldBatches: a transaction's matches are one batch, and what is too much goes on in one until it was calm, or somebody gave an order.
func testHeldBatches(r *rig) {
	r.leaveHeld(3, r.hold(outbox.HeldTransaction, 0, 0))
	r.leaveHeld(2, r.hold(outbox.HeldTransaction, 0, 0))
	for _, second := range []time.Duration{0, 40, 80, 141} { // the last comes after it was calm for a minute
		r.leaveHeld(1, r.hold(outbox.HeldMinute, second*time.Second, time.Minute))
	}
	r.leaveHeld(1, r.hold(outbox.HeldRow, 0, time.Minute))
	var got []string
	for _, b := range r.heldBatches() {
		got = append(got, fmt.Sprintf("%s %s %s %d of %d, %s", b.Name(), b.RuleName, b.Cause, b.Held, b.Total, b.Last.Sub(past)))
	}
	r.equal("batches", got, []string{
		"b5 notify row 1 of 1, 0s", "b4 notify minute 1 of 1, 2m21s", "b3 notify minute 3 of 3, 1m20s", "b2 notify transaction 2 of 2, 0s", "b1 notify transaction 3 of 3, 0s",
	})
	first := r.heldBatches(1)[0]
	r.equal("where it begins", first.Tx, outbox.Tx{LSN: 150, XID: 200, Time: past})
	r.equal("what is in it", len(r.matches(outbox.Filter{Batches: []int64{1}})), 3)
	r.equal("what is in none", len(r.matches(outbox.Filter{Apart: true})), 0)

	_, err := r.store.ActOnBatch(r.Context(), 4, outbox.Release, "", past)
	r.ok(err)
	r.leaveHeld(1, r.hold(outbox.HeldMinute, 142*time.Second, time.Minute))
	r.equal("after a release, another", r.heldBatches()[0].Name(), "b6")
	r.equal("the released one", r.heldBatches(4)[0].Held, 0)
}

// testHeldActs: a batch is moved in steps, the first order counts, and one that was broken off goes on.
func testHeldActs(r *rig) {
	const n = 2500 // more than two steps
	r.leaveHeld(n, r.hold(outbox.HeldTransaction, 0, 0))
	r.leaveHeld(2, r.hold(outbox.HeldTransaction, 0, 0))
	moved, err := r.store.ActOnBatch(r.Context(), 1, outbox.Release, "it is right", past)
	r.ok(err)
	r.equal("released", moved, n)
	claimed, err := r.store.ClaimMatches(r.Context(), outbox.Claim{Now: time.Now(), Most: 2 * n})
	r.ok(err)
	r.equal("due", len(claimed), n)
	for _, m := range claimed {
		if !m.Released || m.Reason != "it is right" || m.Batch != 1 {
			r.Fatalf("released: %+v", m)
		}
	}
	moved, err = r.store.ActOnBatch(r.Context(), 1, outbox.Release, "again", past)
	r.ok(err)
	r.equal("released again", moved, 0)
	if _, err := r.store.ActOnBatch(r.Context(), 1, outbox.Discard, "", past); !errors.Is(err, outbox.ErrState) {
		r.Errorf("another order: %v", err)
	}
	if _, err := r.store.ActOnBatch(r.Context(), 9, outbox.Discard, "", past); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("no such batch: %v", err)
	}
	if _, err := r.store.ActOnBatch(r.Context(), 2, outbox.Retry, "", past); !errors.Is(err, outbox.ErrState) {
		r.Errorf("a retry: %v", err)
	}
	moved, err = r.store.ActOnBatch(r.Context(), 2, outbox.Discard, "a mistake", past)
	r.ok(err)
	r.equal("discarded", moved, 2)
	r.reopen()
	for _, m := range r.matches(outbox.Filter{Batches: []int64{2}}) {
		r.equal("a discarded one", []string{m.State.String(), m.Reason, string(m.Change)}, []string{"discarded", "a mistake", "blanked"})
	}
	r.equal("left", len(r.heldBatches()), 0)
	b := r.heldBatches(2)[0]
	r.equal("kept", []string{string(b.Action), b.Reason, fmt.Sprint(b.Held, b.Total)}, []string{"discard", "a mistake", "0 2"})
}

// testHeldSpilled: what a transaction spilled is one batch with what it did not, and none before it is committed.
func testHeldSpilled(r *rig) {
	tx := r.tx(r.match(), r.match(), r.match(), r.match())
	key := outbox.Spill{Source: r.source.ID, Epoch: r.source.Epoch, XID: tx.XID}
	spilled, rest := tx.Matches[:3], tx.Matches[3:]
	hold := outbox.Hold{Cause: outbox.HeldTransaction, Tx: tx.Tx, Why: "too many"}
	loop := outbox.Hold{Cause: outbox.HeldRow, Tx: tx.Tx, Calm: time.Minute, Why: "a loop", Only: []uint64{1, 2}}
	for range 2 { // the first time the process ends in between
		r.ok(r.store.Spill(r.Context(), key, outbox.Provisional{Matches: spilled, Texts: texts}))
		r.ok(r.store.Settle(r.Context(), key, outbox.Settlement{Hold: map[uint32][]outbox.Hold{r.notify: {loop, hold}}}))
		r.equal("before the commit", len(r.heldBatches()), 0)
		r.reopen()
		_, err := r.store.Recover(r.Context(), time.Now())
		r.ok(err)
	}
	r.ok(r.store.Spill(r.Context(), key, outbox.Provisional{Matches: spilled, Texts: texts}))
	r.ok(r.store.Settle(r.Context(), key, outbox.Settlement{Hold: map[uint32][]outbox.Hold{r.notify: {loop, hold}}}))
	rest[0].State, rest[0].Reason, rest[0].Batch = outbox.MatchHeld, hold.Why, &hold
	tx.Matches, tx.Spilled = rest, &key
	_, err := r.store.Append(r.Context(), r.batch(tx), 0)
	r.ok(err)
	var got []string
	for _, b := range r.heldBatches() {
		got = append(got, fmt.Sprint(b.Cause, " ", b.Held))
	}
	r.equal("after the commit", len(got), 2)
	r.equal("a loop goes before", []int{len(r.matches(outbox.Filter{Error: "a loop"})), len(r.matches(outbox.Filter{Error: "too many"}))}, []int{2, 2})
}

// testHeldTold: what people were told is kept, and the mail that tells them is queued with that, once.
func testHeldTold(r *rig) {
	r.leaveHeld(3, r.hold(outbox.HeldTransaction, 0, 0))
	own := r.rule("postman/held")
	notice := outbox.Notice{
		Rule: own, Text: []byte("a mail of postman's own"), Tx: outbox.Tx{LSN: position.LSN(17), End: 17, Time: past},
		Message: outbox.NewMessage{Address: "ops@example.com", State: outbox.MessageQueued, Due: past, Recipient: []byte("{}"), MessageID: "<1@x>", Subject: "held", Body: []byte("body")},
	}
	r.ok(r.store.TellBatches(r.Context(), r.heldBatches(), &notice))
	if err := r.store.TellBatches(r.Context(), r.heldBatches(), &notice); !errors.Is(err, outbox.ErrState) {
		r.Errorf("the same mail once more: %v", err)
	}
	r.reopen()
	b := r.heldBatches()[0]
	r.equal("told", []any{b.Told, b.Mailed.IsZero()}, []any{3, false})
	got, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: time.Now(), Most: 10})
	r.ok(err)
	if len(got) != 1 || string(got[0].Body) != "body" || got[0].Priority != outbox.High || got[0].Address != "ops@example.com" {
		r.Errorf("queued: %+v", got)
	}
}
