package outboxtest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"postman/outbox"
	"postman/position"
)

// replay begins a replay.
func (r *rig) replay(change ...func(*outbox.Replay)) outbox.Replay {
	r.Helper()
	order := outbox.Replay{
		From: position.Position{Source: r.source.ID, Epoch: 1, LSN: 100}, To: position.Position{Source: r.source.ID, Epoch: 1, LSN: r.lsn}, By: "kim", Begun: past,
	}
	for _, f := range change {
		f(&order)
	}
	begun, err := r.store.SaveReplay(r.Context(), order)
	r.ok(err)
	return begun
}

// again has a replay decide on transactions, and returns what it did.
func (r *rig) again(order outbox.Replay, resend []int64, txs ...outbox.Transaction) outbox.Replayed {
	r.Helper()
	done, err := r.store.Replay(r.Context(), outbox.ReplayBatch{Replay: order.ID, Source: r.source.ID, Epoch: 1, Transactions: txs, Texts: texts, Resend: resend})
	r.ok(err)
	return done
}

// testReplay: a replay adds what is absent, be the transaction known or not, and takes up what has failed; it does so once.
func testReplay(r *rig) {
	known := r.tx(r.match(), r.match(func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchFailed, "evaluating" }))
	_, err := r.store.Append(r.Context(), r.batch(known), 0)
	r.ok(err)
	absent := r.tx(r.match())
	_, err = r.store.Append(r.Context(), r.batch(), 0) // covered, without a match
	r.ok(err)
	checkpoint := r.lsn

	newer := []byte("name: notify, mended")
	wider := known
	wider.Matches = []outbox.NewMatch{r.match(), r.match(), r.match(func(m *outbox.NewMatch) { m.State, m.Reason = outbox.MatchExpired, "too late" })}
	for i := range wider.Matches {
		wider.Matches[i].Ordinal, wider.Matches[i].Version = uint64(i), outbox.HashOf(newer)
	}
	order := r.replay()
	batch := outbox.ReplayBatch{
		Replay: order.ID, Source: r.source.ID, Epoch: 1, Transactions: []outbox.Transaction{wider, absent}, Texts: map[outbox.Hash][]byte{outbox.HashOf(newer): newer},
	}
	done, err := r.store.Replay(r.Context(), batch)
	r.ok(err)
	r.equal("what it did", done, outbox.Replayed{Added: 2, Again: 1})
	all := r.matches(outbox.Filter{})
	slices.Reverse(all)
	var got []string
	for _, m := range all {
		got = append(got, fmt.Sprintf("%d %s %v %v %v", m.Position.Ordinal, m.State, m.Version == outbox.HashOf(newer), m.Replay == order.ID, m.Undecided))
	}
	r.equal("the matches", got, []string{"0 pending false false false", "1 pending true true false", "2 expired true true false", "0 pending false true false"})
	r.equal("the transaction that was not known", all[3].Tx, absent.Tx)
	src, err := r.store.Source(r.Context(), "7301", "crm", "postman")
	r.ok(err)
	r.equal("the checkpoint", src.Checkpoint, checkpoint)
	matches, _ := r.claimed()
	r.equal("how many are due", len(matches), 3)

	done, err = r.store.Replay(r.Context(), batch)
	r.ok(err)
	r.equal("what it did the second time", done, outbox.Replayed{})
	r.reopen()
	order.Ended = past.Add(time.Hour)
	_, err = r.store.SaveReplay(r.Context(), order)
	r.ok(err)
	if _, err := r.store.Replay(r.Context(), batch); !errors.Is(err, outbox.ErrState) {
		r.Errorf("a replay that has ended gave %v", err)
	}
	replays, err := r.store.Replays(r.Context())
	r.ok(err)
	order.Replayed = outbox.Replayed{Added: 2, Again: 1}
	r.equal("the replays", replays, []outbox.Replay{order})
}

// testReplayMuted: what is muted is taken up only where that is ordered, and a mute stops nothing that a replay brings.
func testReplayMuted(r *rig) {
	muted := r.tx(r.match(func(m *outbox.NewMatch) { m.Blanked = []byte("blanked") }))
	muted.Muted = "a migration"
	_, err := r.store.Append(r.Context(), r.batch(muted), 0)
	r.ok(err)
	r.equal("of what is muted, nothing sensitive is kept", r.matches(outbox.Filter{})[0].Change, []byte("blanked"))
	muted.Matches = append(muted.Matches, r.match(func(m *outbox.NewMatch) { m.Rule = r.careful }))
	r.equal("what was not ordered", r.again(r.replay(), nil, muted), outbox.Replayed{Added: 1})
	r.equal("what was", r.again(r.replay(func(o *outbox.Replay) { o.Muted = true }), nil, muted), outbox.Replayed{Again: 1})
	for _, m := range r.matches(outbox.Filter{}) {
		if m.State != outbox.MatchPending || m.Tx.Muted != "a migration" {
			r.Errorf("a match of the muted transaction is %+v", m)
		}
	}
	recent, err := r.store.RecentMatches(r.Context(), past.Add(-time.Minute))
	r.ok(err)
	r.equal("what hold_over counts", len(recent), 0)
}

func testReplayRefuses(r *rig) {
	order := r.replay()
	for name, b := range map[string]outbox.ReplayBatch{
		"a replay that is not there":    {Replay: order.ID + 1, Source: r.source.ID, Epoch: 1},
		"a source that is not there":    {Replay: order.ID, Source: 77, Epoch: 1},
		"an epoch that is yet to come":  {Replay: order.ID, Source: r.source.ID, Epoch: 2},
		"a version without its text":    {Replay: order.ID, Source: r.source.ID, Epoch: 1, Transactions: []outbox.Transaction{r.tx(r.match())}},
		"a match that is not there":     {Replay: order.ID, Source: r.source.ID, Epoch: 1, Texts: texts, Transactions: []outbox.Transaction{r.tx(r.match(), r.match(func(m *outbox.NewMatch) { m.State = outbox.MatchNobody }))}},
		"a rule that has never a name ": {Replay: order.ID, Source: r.source.ID, Epoch: 1, Texts: texts, Transactions: []outbox.Transaction{r.tx(r.match(func(m *outbox.NewMatch) { m.Rule = 77 }))}},
	} {
		if done, err := r.store.Replay(r.Context(), b); err == nil || done != (outbox.Replayed{}) {
			r.Errorf("%s gave %+v, %v", name, done, err)
		}
		if n := len(r.matches(outbox.Filter{})); n != 0 {
			r.Fatalf("%s left %d matches behind", name, n)
		}
	}
	if _, err := r.store.SaveReplay(r.Context(), outbox.Replay{From: position.Position{Source: 77}}); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("a replay of no source gave %v", err)
	}
	if _, err := r.store.SaveReplay(r.Context(), outbox.Replay{ID: 77, From: position.Position{Source: r.source.ID}}); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("a replay that is not there gave %v", err)
	}
}

// testResend: each message that has ended is queued once more, with the next number, however often a replay that was broken off goes on;
// another replay does it again.
func testResend(r *rig) {
	first := r.expanded(r.notify, outbox.MessageSending, outbox.MessageNotSent, outbox.MessageQueued, outbox.MessageNoAddress, outbox.MessageHeld)
	r.record(outbox.Outcome{Message: first[0].ID, State: outbox.MessageSent, Burned: true})
	match := first[0].Match
	order := r.replay(func(o *outbox.Replay) { o.Resend, o.Why, o.Rules = true, "the relay lost them", []string{"notify"} })
	r.equal("what it did", r.again(order, []int64{match, match}), outbox.Replayed{Resent: 2})
	r.reopen()
	r.equal("what it did when it went on", r.again(order, []int64{match}), outbox.Replayed{})
	list := r.messages(outbox.Filter{Matches: []int64{match}})
	slices.Reverse(list)
	fresh := list[len(first):]
	if len(fresh) != 2 {
		r.Fatalf("there are %d messages more", len(fresh))
	}
	for i, m := range fresh {
		was := first[i]
		if m.Address != was.Address || m.Resend != 1 || m.State != outbox.MessageQueued || m.Replay != order.ID || m.MessageID != "" || string(m.Recipient) != string(was.Recipient) {
			r.Errorf("once more there is %+v of %+v", m, was)
		}
	}
	_, messages := r.claimed()
	r.equal("due", messages, []int64{first[2].ID, fresh[0].ID, fresh[1].ID})

	other := r.replay(func(o *outbox.Replay) { o.Resend = true })
	r.equal("what is on its way is not sent again", r.again(other, []int64{match}), outbox.Replayed{})
	r.record(outbox.Outcome{Message: fresh[0].ID, State: outbox.MessageCancelled}, outbox.Outcome{Message: fresh[1].ID, State: outbox.MessageNotSent})
	r.equal("what was sent once more is not", r.again(other, []int64{match}), outbox.Replayed{})
	if got := outbox.Resendable(r.messages(outbox.Filter{Matches: []int64{match}}), 0, false); len(got.Messages) != 0 || got.Before != 2 || got.By != order.ID {
		r.Errorf("those are sent once more: %+v", got)
	}
	yet, err := r.store.Replay(r.Context(), outbox.ReplayBatch{Replay: other.ID, Source: r.source.ID, Epoch: 1, Resend: []int64{match}, Again: true})
	r.ok(err)
	r.equal("what was stopped for a reason is not, and the rest is, when that is wanted", yet, outbox.Replayed{Resent: 1})
	r.equal("its number", r.messages(outbox.Filter{Matches: []int64{match}})[0].Resend, uint32(2))
}

// testResendSilent: what was made while nothing was let out would end as it did.
func testResendSilent(r *rig) {
	m := r.append(r.match(func(m *outbox.NewMatch) { m.Silent = true }))[0]
	g := r.expand(m.ID, outbox.MessageSending)[0]
	r.record(outbox.Outcome{Message: g.ID, State: outbox.MessageNotSent})
	if got := outbox.Resendable(r.messages(outbox.Filter{}), 0, true); len(got.Messages) != 0 || got.Silent != 1 {
		r.Errorf("those are sent once more: %+v", got)
	}
	r.equal("what it did", r.again(r.replay(), []int64{m.ID}), outbox.Replayed{})
}

// testResendErased: a message whose recipient was erased with sensitive values cannot be sent once more.
func testResendErased(r *rig) {
	m := r.append(r.match(func(m *outbox.NewMatch) { m.Blanked = []byte("blanked") }))[0]
	g := r.expand(m.ID, outbox.MessageSending)[0]
	r.record(outbox.Outcome{Message: g.ID, State: outbox.MessageSent})
	all := r.messages(outbox.Filter{})
	if got := outbox.Resendable(all, 0, false); len(got.Messages) != 0 || got.Erased != 1 {
		r.Errorf("of %+v, those are sent once more: %+v", all, got)
	}
	r.equal("what it did", r.again(r.replay(), []int64{m.ID}), outbox.Replayed{})
}

func testKnownMatches(r *rig) {
	one := r.tx(r.match(), r.match(func(m *outbox.NewMatch) { m.Rule = r.careful }))
	two := r.tx(r.match(func(m *outbox.NewMatch) { m.State = outbox.MatchFailed }))
	two.Matches[0].Ordinal = 1<<64 - 1
	_, err := r.store.Append(r.Context(), r.batch(one, two), 0)
	r.ok(err)
	all := r.matches(outbox.Filter{})
	key := func(lsn position.LSN, ordinal uint64, rule uint32) outbox.MatchKey {
		return outbox.MatchKey{LSN: lsn, Ordinal: ordinal, Rule: rule}
	}
	keys := []outbox.MatchKey{
		key(two.LSN, 1<<64-1, r.notify), key(one.LSN, 0, r.careful), key(one.LSN, 1, r.careful), key(one.LSN+1, 0, r.notify), key(one.LSN, 0, r.notify),
	}
	known, err := r.store.KnownMatches(r.Context(), r.source.ID, 1, keys)
	r.ok(err)
	r.equal("the known matches", known, []outbox.KnownMatch{{ID: all[0].ID, State: outbox.MatchFailed}, {}, {ID: all[1].ID}, {}, {ID: all[2].ID}})
	numbers, err := r.store.Rules(r.Context())
	r.ok(err)
	r.equal("the rules", numbers, map[string]uint32{"notify": r.notify, "careful": r.careful})
	known, err = r.store.KnownMatches(r.Context(), r.source.ID, 2, keys)
	r.ok(err)
	r.equal("of another epoch", known, make([]outbox.KnownMatch, len(keys)))
}

func testMendGap(r *rig) {
	gap := outbox.Gap{Source: r.source.ID, Epoch: 1, Rule: "notify", Table: "public.visits", From: 100, Reason: "the rule is broken: no column"}
	r.ok(r.store.SaveGap(r.Context(), gap))
	last := func() outbox.Gap {
		gaps, err := r.store.Gaps(r.Context())
		r.ok(err)
		return gaps[0]
	}
	order := r.replay()
	loss := outbox.Gap{Source: r.source.ID, Epoch: 1, Rule: "notify", From: 120, To: 130, Count: 2, Lost: true, Reason: "undetermined"}
	if err := r.store.MendGap(r.Context(), last(), order.ID, []outbox.Gap{loss}); !errors.Is(err, outbox.ErrState) {
		r.Errorf("a gap that is open gave %v", err)
	}
	r.equal("its table", last().Table, "public.visits") // and what is lost of a gap that is not made up for is not stored
	r.ok(r.store.CloseGap(r.Context(), last(), 200))
	r.ok(r.store.MendGap(r.Context(), last(), order.ID, []outbox.Gap{loss}))
	all, err := r.store.Gaps(r.Context())
	r.ok(err)
	if len(all) != 2 || all[1].Replay != order.ID || all[0].Count != 2 || all[0].From != 120 || !all[0].Lost {
		r.Errorf("made up for but for a loss, there is %+v", all)
	}
	gap.Lost = true
	r.ok(r.store.SaveGap(r.Context(), gap))
	r.ok(r.store.CloseGap(r.Context(), last(), 200))
	if err := r.store.MendGap(r.Context(), last(), order.ID, nil); !errors.Is(err, outbox.ErrState) {
		r.Errorf("a gap that is lost gave %v", err)
	}
}

func testAcceptGap(r *rig) {
	gap := outbox.Gap{Source: r.source.ID, Epoch: 1, Rule: "notify", From: 100, Reason: "undetermined"}
	r.ok(r.store.SaveGap(r.Context(), gap))
	last := func() outbox.Gap {
		gaps, err := r.store.Gaps(r.Context())
		r.ok(err)
		return gaps[0]
	}
	accept := func(g outbox.Gap) error {
		g.Accepted, g.By, g.Why = past, "kim", "known"
		return r.store.AcceptGaps(r.Context(), []outbox.Gap{g})
	}
	refused := func(what string, err error) {
		r.Helper()
		if !errors.Is(err, outbox.ErrState) {
			r.Errorf("%s gave %v", what, err)
		}
	}
	refused("accepting a gap that goes on", accept(last()))
	before := last()
	gap.To = 200
	r.ok(r.store.SaveGap(r.Context(), gap))
	refused("accepting a gap that has grown since", accept(before))
	r.ok(r.store.LeaveGap(r.Context(), last(), "it does not fit"))
	if g := last(); g.Left != "it does not fit" || g.Settled() {
		r.Errorf("left, the gap is %+v", g)
	}
	sound, stale := last(), last()
	stale.Count++
	refused("accepting a gap and one that has grown since", r.store.AcceptGaps(r.Context(), []outbox.Gap{sound, stale}))
	if g := last(); g.Settled() {
		r.Error("one of them was accepted")
	}
	r.ok(accept(last()))
	if g := last(); !g.Accepted.Equal(past) || g.By != "kim" || g.Why != "known" || g.Closed.IsZero() || !g.Settled() {
		r.Errorf("accepted, the gap is %+v", g)
	}
	refused("accepting it twice", accept(last()))
	refused("leaving it", r.store.LeaveGap(r.Context(), last(), "again"))
	refused("making up for it", r.store.MendGap(r.Context(), last(), r.replay().ID, nil))
	gap.From, gap.To = 300, 400
	r.ok(r.store.SaveGap(r.Context(), gap)) // what comes behind it is another
	if g := last(); g.From != 300 || g.Settled() {
		r.Errorf("behind it there is %+v", g)
	}
}

func testJournalTimes(r *rig) {
	at := func(b outbox.Block, minute int) outbox.Block {
		b.From, b.To = past.Add(time.Duration(minute)*time.Minute), past.Add(time.Duration(minute)*time.Minute+30*time.Second)
		return b
	}
	blocks := []outbox.Block{at(r.block(2, "one"), 0), at(r.block(2, "two"), 1), at(r.block(2, "three"), 2)}
	r.journal(blocks)
	for _, c := range []struct {
		after time.Duration
		want  position.LSN
	}{{-time.Hour, blocks[0].First}, {30 * time.Second, blocks[0].First}, {31 * time.Second, blocks[1].First}, {2 * time.Minute, blocks[2].First}, {time.Hour, 0}} {
		got, err := r.store.JournalAt(r.Context(), r.source.ID, 1, past.Add(c.after))
		r.ok(err)
		r.equal(fmt.Sprintf("the journal at %v", c.after), got, c.want)
	}
	span := func(epoch uint32) outbox.JournalSpan {
		span, err := r.store.JournalSpan(r.Context(), r.source.ID, epoch)
		r.ok(err)
		return span
	}
	r.equal("it begins with the source", span(1).Since, position.LSN(100))
	_, err := r.store.PruneJournal(r.Context(), past.Add(time.Minute), 1<<30)
	r.ok(err)
	r.equal("it begins behind what was pruned", span(1).Since, blocks[0].Last+1)
	src := r.source
	src.Epoch, src.State, src.Checkpoint = 2, outbox.SourceIntended, 0
	_, err = r.store.SaveSource(r.Context(), src)
	r.ok(err)
	r.equal("before a slot is there", span(2).Since, position.LSN(0))
	src.State, src.Checkpoint = outbox.SourceStreaming, 50
	_, err = r.store.SaveSource(r.Context(), src)
	r.ok(err)
	src.Checkpoint = 70
	_, err = r.store.SaveSource(r.Context(), src)
	r.ok(err)
	r.reopen()
	r.equal("in a new epoch", span(2).Since, position.LSN(50))
	r.equal("in the one before", span(1).Since, blocks[0].Last+1)
}

// replayAgain has a replay decide on a transaction from before, with matches that the stream brought, and others.
func (m *model) replayAgain(t *rapid.T) {
	if len(m.before) == 0 {
		t.Skip("nothing has been committed")
	}
	tx := pick(t, m.before)
	tx.Spilled = nil
	tx.Matches = append(slices.Clone(tx.Matches), m.newMatches(t, len(tx.Matches))...)
	for i := range tx.Matches {
		tx.Matches[i].State = rapid.SampledFrom([]outbox.MatchState{outbox.MatchPending, outbox.MatchPending, outbox.MatchFailed}).Draw(t, "state")
	}
	order, err := m.store.SaveReplay(t.Context(), outbox.Replay{From: position.Position{Source: m.source.ID, Epoch: 1}, Muted: rapid.Bool().Draw(t, "muted"), Begun: past})
	fatal(t, err)
	var resend []int64
	for _, n := range m.matches {
		if n.State == outbox.MatchExpanded && rapid.Bool().Draw(t, "resend") {
			resend = append(resend, n.ID)
		}
	}
	b := outbox.ReplayBatch{Replay: order.ID, Source: m.source.ID, Epoch: 1, Transactions: []outbox.Transaction{tx}, Texts: texts, Resend: resend, Again: rapid.Bool().Draw(t, "again")}
	got, err := m.store.Replay(t.Context(), b)
	fatal(t, err)
	agree(t, "what the replay did", got, m.replay(&order, &b, m.names))
}

// replay does what a replay is told to.
func (o *oracle) replay(order *outbox.Replay, b *outbox.ReplayBatch, names map[uint32]string) (done outbox.Replayed) {
	tx := &b.Transactions[0]
	for i := range tx.Matches {
		n := &tx.Matches[i]
		known := o.match(matchKey{position.Position{Source: o.source.ID, Epoch: o.source.Epoch, LSN: tx.LSN, Ordinal: n.Ordinal}, n.Rule})
		if known == nil {
			plain := *tx
			plain.Tx, plain.Hold, plain.Matches = tx.Tx, nil, []outbox.NewMatch{*n}
			plain.Muted = ""
			for _, m := range o.commit(&plain, names, time.Now()) {
				m.Tx, m.Replay = tx.Tx, order.ID
			}
			done.Added++
			continue
		}
		if takes := known.State == outbox.MatchFailed || order.Muted && known.State == outbox.MatchMuted; !takes || n.State != outbox.MatchPending {
			continue
		}
		done.Again++
		known.State, known.Reason, known.Due, known.Expires, known.Priority = n.State, n.Reason, n.Due, n.Expires, n.Priority
		known.HoldUncertain, known.Silent, known.Version = n.HoldUncertain, n.Silent, n.Version
		known.Released, known.Undecided, known.Attempts, known.begun, known.Replay = false, false, 0, 0, order.ID
	}
	for _, id := range b.Resend {
		done.Resent += o.resend(order, id, b.Again)
	}
	o.blank(time.Time{})
	return done
}

func (o *oracle) resend(order *outbox.Replay, match int64, again bool) (resent int) {
	latest, next := make(map[[16]byte]*oracleMessage), uint32(0)
	for _, n := range o.messages {
		if n.of.ID != match {
			continue
		}
		next = max(next, n.Resend+1)
		if at := latest[outbox.AddressKey(n.Address)]; at == nil || at.Resend < n.Resend {
			latest[outbox.AddressKey(n.Address)] = n
		}
	}
	for _, n := range latest {
		if n.Resend > 0 && !again || !words("sent dead uncertain failed not-sent suppressed")[n.State.String()] || n.of.Silent || len(n.Recipient) == 0 {
			continue
		}
		more := o.queue(n.of, outbox.NewMessage{Address: n.Address, Resend: next, State: outbox.MessageQueued, Reason: ownWords, Due: time.Now(), Recipient: n.Recipient, CC: n.CC}, time.Now())
		more.Replay, more.Due = order.ID, ownTime
		resent++
	}
	return resent
}

// ownTime stands for a time that the store takes from the clock.
var ownTime = time.Unix(1, 0)
