package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"postman/outbox"
	"postman/position"
)

func testAppend(r *rig) {
	full := outbox.NewMatch{
		Rule: r.careful, Version: outbox.HashOf(version), Shape: outbox.HashOf(shape), Op: "update", Change: []byte{0, 1, 0xFF},
		State: outbox.MatchPending, Reason: "a reason", Due: past, Expires: past.Add(time.Hour), Priority: outbox.High,
		Key: "key", HoldUncertain: true, Silent: true,
	}
	bare := outbox.NewMatch{Rule: r.notify, Version: outbox.HashOf(version), Op: "message", State: outbox.MatchFailed, Reason: "evaluating: …", Priority: outbox.Bulk}
	tx := r.tx(full, bare)
	tx.Matches[1].Ordinal = math.MaxUint64
	before := time.Now()
	claimed, err := r.store.Append(r.Context(), r.batch(tx), 10)
	r.ok(err)

	want := outbox.Match{
		ID: 1, Position: position.Position{Source: r.source.ID, Epoch: 1, LSN: tx.LSN}, Tx: tx.Tx, Rule: r.careful, RuleName: "careful",
		Version: full.Version, Shape: full.Shape, Op: "update", Change: full.Change, Reason: "a reason", Due: past,
		Expires: full.Expires, Priority: outbox.High, Key: "key", HoldUncertain: true, Silent: true,
	}
	if len(claimed) != 1 {
		r.Fatalf("%d matches were claimed", len(claimed))
	}
	want.ID, want.Created = claimed[0].ID, claimed[0].Created
	r.equal("the claimed match", claimed[0], want)
	if want.Created.Before(before.Truncate(time.Microsecond)) || time.Since(want.Created) > time.Minute {
		r.Errorf("it was created at %v", want.Created)
	}

	r.reopen()
	listed := r.matches(outbox.Filter{})
	if len(listed) != 2 {
		r.Fatalf("%d matches are listed", len(listed))
	}
	r.equal("the listed match", listed[1], want)
	got := listed[0]
	if got.Position.Ordinal != math.MaxUint64 || got.State != outbox.MatchFailed || got.Shape != (outbox.Hash{}) ||
		len(got.Change) != 0 || !got.Expires.IsZero() || got.Due.Before(before.Truncate(time.Microsecond)) {
		r.Errorf("the bare match is %+v", got)
	}
	src, err := r.store.Source(r.Context(), "7301", "crm", "postman")
	r.ok(err)
	r.equal("the checkpoint", src.Checkpoint, r.lsn)
}

// testAppendRefuses: what a batch must not do leaves nothing behind, not even of its sound half.
func testAppendRefuses(r *rig) {
	good := func() outbox.Transaction { return r.tx(r.match()) }
	for name, c := range map[string]struct {
		change func(*outbox.Batch)
		is     error
	}{
		"the checkpoint moves back":    {func(b *outbox.Batch) { b.Checkpoint, b.Transactions = 99, nil }, outbox.ErrCheckpoint},
		"the checkpoint lies within":   {func(b *outbox.Batch) { b.Checkpoint-- }, outbox.ErrCheckpoint},
		"another epoch":                {func(b *outbox.Batch) { b.Epoch = 2 }, outbox.ErrCheckpoint},
		"an unknown source":            {func(b *outbox.Batch) { b.Source = 77 }, outbox.ErrNotFound},
		"a version without its text":   {func(b *outbox.Batch) { b.Transactions[1].Matches[0].Version = outbox.HashOf([]byte("new")) }, outbox.ErrNotFound},
		"a shape without its text":     {func(b *outbox.Batch) { b.Transactions[1].Matches[0].Shape = outbox.HashOf([]byte("new")) }, outbox.ErrNotFound},
		"a rule that has no number":    {func(b *outbox.Batch) { b.Transactions[1].Matches[0].Rule = 77 }, outbox.ErrNotFound},
		"a state that cannot begin":    {func(b *outbox.Batch) { b.Transactions[1].Matches[0].State = outbox.MatchExpanded }, outbox.ErrState},
		"a priority that is not there": {func(b *outbox.Batch) { b.Transactions[1].Matches[0].Priority = 9 }, nil},
		"a spill that is not there": {func(b *outbox.Batch) {
			b.Transactions[1].Spilled = &outbox.Spill{Source: r.source.ID, Epoch: 1, XID: 7}
		}, outbox.ErrNotFound},
	} {
		before := r.lsn
		b := r.batch(good(), good())
		b.Checkpoint = r.lsn
		c.change(&b)
		claimed, err := r.store.Append(r.Context(), b, 10)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || len(claimed) != 0 {
			r.Errorf("%s: %v, %d claimed", name, err, len(claimed))
		}
		if n := len(r.matches(outbox.Filter{})); n != 0 {
			r.Fatalf("%s left %d matches behind", name, n)
		}
		src, err := r.store.Source(r.Context(), "7301", "crm", "postman")
		r.ok(err)
		r.equal("the checkpoint", src.Checkpoint, position.LSN(100))
		r.lsn = before
	}
	// The store has forgotten all of it and takes the next batch.
	if got := r.append(r.match()); len(got) != 1 {
		r.Fatalf("%d matches were claimed", len(got))
	}
}

// testAppendPassesOver: a stream that starts again behind the store brings nothing twice.
func testAppendPassesOver(r *rig) {
	first := r.batch(r.tx(r.match(), r.match()))
	_, err := r.store.Append(r.Context(), first, 10)
	r.ok(err)
	again := first
	again.Transactions = append(again.Transactions, r.tx(r.match()))
	again.Checkpoint = r.lsn
	claimed, err := r.store.Append(r.Context(), again, 10)
	r.ok(err)
	if len(claimed) != 1 || claimed[0].Position.LSN != r.lsn-50 {
		r.Errorf("claimed %+v", claimed)
	}
	if n := len(r.matches(outbox.Filter{})); n != 3 {
		r.Errorf("there are %d matches", n)
	}
	// A match that a transaction brings twice is one.
	twice := r.tx(r.match(), r.match())
	twice.Matches[1].Ordinal = 0
	claimed, err = r.store.Append(r.Context(), r.batch(twice), 10)
	r.ok(err)
	if n := len(r.matches(outbox.Filter{})); n != 4 || len(claimed) != 1 {
		r.Errorf("there are %d matches, %d were claimed", n, len(claimed))
	}
	// An idle position alone moves the checkpoint; so does the same one again.
	for range 2 {
		_, err = r.store.Append(r.Context(), outbox.Batch{Source: r.source.ID, Epoch: 1, Checkpoint: 9999, Verified: 9000}, 10)
		r.ok(err)
	}
	_, err = r.store.Append(r.Context(), outbox.Batch{Source: r.source.ID, Epoch: 1, Checkpoint: 10_000, Verified: 8000}, 10)
	r.ok(err)
	r.reopen()
	src, err := r.store.Source(r.Context(), "7301", "crm", "postman")
	r.ok(err)
	r.equal("the checkpoint", src.Checkpoint, position.LSN(10_000))
	r.equal("what was verified", src.Verified, position.LSN(9000)) // which does not go back
}

func testAppendClaims(r *rig) {
	later := func(m *outbox.NewMatch) { m.Due = time.Now().Add(time.Hour) }
	failed := func(m *outbox.NewMatch) { m.State = outbox.MatchFailed }
	b := r.batch(r.tx(r.match(later), r.match(failed), r.match()), r.tx(r.match(), r.match(), r.match()))
	b.Checkpoint = r.lsn
	claimed, err := r.store.Append(r.Context(), b, 3)
	r.ok(err)
	if len(claimed) != 3 {
		r.Fatalf("%d were claimed", len(claimed))
	}
	for i, ordinal := range []uint64{2, 0, 1} {
		r.equal("the claimed matches' ordinals", claimed[i].Position.Ordinal, ordinal)
	}
	rest, _ := r.claimed()
	if len(rest) != 1 || r.getMatch(rest[0]).Position.Ordinal != 2 {
		r.Errorf("the rest is %v", rest)
	}
	if more, _ := r.claimed(); len(more) != 0 {
		r.Errorf("claimed twice: %v", more)
	}
}

func testMuteAndHold(r *rig) {
	states := []func(*outbox.NewMatch){
		func(m *outbox.NewMatch) {},
		func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchHeld, "over the minute" },
		func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchFailed, "evaluating" },
		func(m *outbox.NewMatch) { m.Rule = r.careful },
	}
	stored := func(change func(*outbox.Transaction)) []string {
		var matches []outbox.NewMatch
		for _, s := range states {
			matches = append(matches, r.match(s))
		}
		tx := r.tx(matches...)
		change(&tx)
		claimed, err := r.store.Append(r.Context(), r.batch(tx), 10)
		r.ok(err)
		var got []string
		for _, m := range r.matches(outbox.Filter{Limit: len(states)}) {
			got = append(got, fmt.Sprintf("%s: %s", m.State, m.Reason))
			r.equal("the transaction's mute", m.Tx.Muted, tx.Muted)
		}
		slices.Reverse(got)
		return append(got, fmt.Sprint(len(claimed)))
	}
	r.equal("muted", stored(func(t *outbox.Transaction) {
		t.Muted, t.Hold = "a migration", map[uint32]string{r.notify: "101 matches"}
	}),
		[]string{"muted: a migration", "muted: a migration", "failed: evaluating", "muted: a migration", "0"})
	r.equal("held", stored(func(t *outbox.Transaction) { t.Hold = map[uint32]string{r.notify: "101 matches"} }),
		[]string{"held: 101 matches", "held: 101 matches", "failed: evaluating", "pending: ", "1"})
}

// testClock: rules that tick at the same moment share it, and each row of a tick is one match for ever.
func testClock(r *rig) {
	tick := func(rule uint32, ordinals ...uint64) int {
		t := outbox.Transaction{Tx: outbox.Tx{LSN: position.LSN(past.UnixMicro()), Time: past}}
		for _, o := range ordinals {
			t.Matches = append(t.Matches, r.match(func(m *outbox.NewMatch) { m.Rule, m.Ordinal = rule, o }))
		}
		claimed, err := r.store.Append(r.Context(), outbox.Batch{Epoch: 1, Transactions: []outbox.Transaction{t}, Texts: texts}, 100)
		r.ok(err)
		return len(claimed)
	}
	r.equal("new rows of a tick", tick(r.notify, 1, math.MaxUint64), 2)
	r.equal("new rows of another rule's tick", tick(r.careful, 1), 1)
	r.equal("new rows of the same tick", tick(r.notify, 1, 2, math.MaxUint64), 1)
	if n := len(r.matches(outbox.Filter{})); n != 4 {
		r.Errorf("there are %d matches", n)
	}
}

// testContext: an operation whose context has ended does nothing; a closed store says so.
func testContext(r *rig) {
	ctx, cancel := context.WithCancelCause(r.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := r.store.Append(ctx, r.batch(r.tx(r.match())), 1); !errors.Is(err, gone) && !errors.Is(err, context.Canceled) {
		r.Errorf("Append with an ended context gave %v", err)
	}
	if n := len(r.matches(outbox.Filter{})); n != 0 {
		r.Errorf("it stored %d matches", n)
	}
	r.ok(r.store.Close())
	if _, err := r.store.Append(r.Context(), r.batch(r.tx(r.match())), 1); err == nil {
		r.Error("a closed store took a batch")
	}
	if _, err := r.store.Matches(r.Context(), outbox.Filter{}); err == nil {
		r.Error("a closed store gave a list")
	}
	r.ok(r.store.Close()) // closing twice is closing
}
