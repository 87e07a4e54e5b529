package outboxtest

import (
	"errors"
	"strings"
	"time"

	"pgregory.net/rapid"

	"postman/outbox"
)

// suppress keeps addresses from getting mail.
func (r *rig) suppress(addresses ...string) {
	r.Helper()
	var list []outbox.Suppression
	for _, a := range addresses {
		list = append(list, outbox.Suppression{Address: a, Cause: outbox.HardBounce, Detail: "550 5.1.1 no such user", Since: past})
	}
	_, err := r.store.Suppress(r.Context(), list)
	r.ok(err)
}

func (r *rig) suppressions(f outbox.SuppressionFilter) []outbox.Suppression {
	r.Helper()
	found, err := r.store.Suppressions(r.Context(), f)
	r.ok(err)
	return found
}

// why is how a message that was stopped tells of it.
const why = "the address is suppressed since 2026-03-01 09:00 UTC: hard bounce, 550 5.1.1 no such user"

func testSuppression(r *rig) {
	r.equal("at first", r.suppressions(outbox.SuppressionFilter{Addresses: []string{"kim@example.com"}}), []outbox.Suppression(nil))
	kim := outbox.Suppression{Address: "Kim@Example.com", Cause: outbox.Complaint, Detail: "abuse", By: "ann", Since: past}
	lee := outbox.Suppression{Address: "lee@example.com", Cause: outbox.Imported, Since: past.Add(time.Hour)}
	added, err := r.store.Suppress(r.Context(), []outbox.Suppression{kim, lee})
	r.ok(err)
	r.equal("added", added, 2)
	again := outbox.Suppression{Address: " kim@EXAMPLE.com", Cause: outbox.Manual, Since: past.Add(time.Hour)}
	added, err = r.store.Suppress(r.Context(), []outbox.Suppression{again, {Address: "oh@example.com", Since: past}})
	r.ok(err)
	r.equal("added beside one that is known", added, 1)
	for range 2 {
		all := r.suppressions(outbox.SuppressionFilter{})
		if len(all) != 3 {
			r.Fatalf("listed are %+v", all)
		}
		kim.ID, lee.ID = all[2].ID, all[1].ID
		r.equal("the first", all[2], kim)
		r.equal("by address", r.suppressions(outbox.SuppressionFilter{Addresses: []string{"KIM@example.com ", "none@example.com"}}), []outbox.Suppression{kim})
		r.equal("by cause", r.suppressions(outbox.SuppressionFilter{Causes: []outbox.Cause{outbox.Imported, outbox.Complaint}}), []outbox.Suppression{lee, kim})
		r.equal("a page", r.suppressions(outbox.SuppressionFilter{Before: lee.ID, Limit: 1}), []outbox.Suppression{kim})
		r.reopen()
	}

	r.ok(r.store.Unsuppress(r.Context(), "kim@example.com", "ann", "she asked for it", past))
	if err := r.store.Unsuppress(r.Context(), "kim@example.com", "ann", "again", past); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("lifting what is not there: %v", err)
	}
	r.equal("once lifted", len(r.suppressions(outbox.SuppressionFilter{Addresses: []string{"kim@example.com"}})), 0)
	r.suppress("kim@example.com")
	found := r.suppressions(outbox.SuppressionFilter{Addresses: []string{"kim@example.com"}})
	if len(found) != 1 || found[0].Cause != outbox.HardBounce {
		r.Errorf("suppressed anew: %+v", found)
	}
}

func testSuppressedAtExpand(r *rig) {
	r.suppress("b@EXAMPLE.com", "d@example.com")
	m := r.append(r.match())[0]
	queued := message("D@example.com", outbox.MessageQueued)
	messages := []outbox.NewMessage{message("a@example.com", outbox.MessageSending), message("B@example.com", outbox.MessageSending), message("c@example.com", outbox.MessageQueued), queued}
	sending, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: messages})
	r.ok(err)
	if len(sending) != 1 || sending[0].Address != "a@example.com" {
		r.Fatalf("sending are %+v", sending)
	}
	if messages[1].State != outbox.MessageSending {
		r.Error("the caller's messages were changed")
	}
	all := r.full(outbox.Filter{})
	r.equal("the states", r.states(all[3].ID, all[2].ID, all[1].ID, all[0].ID), "sending suppressed queued suppressed")
	r.equal("the reason", all[2].Reason, why)
	if all[2].Finished.IsZero() || len(all[2].Body) > 0 {
		r.Errorf("the suppressed message is %+v", all[2])
	}
}

func testSuppressedAtStart(r *rig) {
	all := r.queue(3)
	r.suppress("b@example.com")
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: all[0], Body: []byte("x")}, {Message: all[1], Body: []byte("x")}, {Message: all[2], Body: []byte("x")}})
	r.ok(err)
	r.equal("started", started, []int64{all[0], all[2]})
	r.equal("the states", r.states(all...), "sending suppressed sending")
	m := r.getMessage(all[1])
	if m.Reason != why || m.Finished.IsZero() || len(m.Body) > 0 {
		r.Errorf("the suppressed message is %+v", m)
	}
	_, again := r.claimed()
	r.equal("claimed again", len(again), 0)

	// What was sending, and is to be tried again, meets it as well.
	r.suppress("a@example.com")
	r.record(outbox.Outcome{Message: all[0], State: outbox.MessageQueued, Due: past})
	_, again = r.claimed()
	r.equal("claimed for the retry", again, []int64{all[0]})
	started, err = r.store.Start(r.Context(), []outbox.Start{{Message: all[0]}})
	r.ok(err)
	r.equal("started again", len(started), 0)
	r.equal("the state of the retry", r.states(all[0]), "suppressed")
	r.record(outbox.Outcome{Message: all[2], State: outbox.MessageSent}) // what was sending goes
}

func testSuppressedCopies(r *rig) {
	expand := func(g outbox.NewMessage) (sending []outbox.Message, match int64) {
		r.Helper()
		g.CC = []string{`"Oh, Sera" <Oh@example.com>`, "<kim@example.com>", "lee@example.com"}
		m := r.append(r.match())[0]
		sending, err := r.store.Expand(r.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{g}})
		r.ok(err)
		return sending, m.ID
	}
	rest := []string{"<kim@example.com>"}
	_, later := expand(message("b@example.com", outbox.MessageQueued))
	_, ids := r.claimed()
	r.suppress("oh@example.com", "lee@example.com")

	sending, now := expand(message("a@example.com", outbox.MessageSending))
	r.equal("the copies that go", sending[0].CC, rest)
	copies := r.messages(outbox.Filter{Matches: []int64{now}})
	r.equal("the copies that do not", r.states(copies[0].ID, copies[1].ID), "suppressed suppressed")
	r.equal("to whom", copies[1].Address, "Oh@example.com")
	r.equal("the copy's reason", copies[1].Reason, "cc: "+why)

	// One that is in hand with its copies is not begun: it comes again, without them.
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: ids[0], Body: []byte("x")}})
	r.ok(err)
	r.equal("started with copies that may not go", len(started), 0)
	again, err := r.store.ClaimMessages(r.Context(), outbox.Claim{Now: time.Now(), Most: 10})
	r.ok(err)
	if len(again) != 1 || again[0].ID != ids[0] {
		r.Fatalf("claimed again are %+v", again)
	}
	r.equal("the copies that are left", again[0].CC, rest)
	r.equal("its match's messages", len(r.messages(outbox.Filter{Matches: []int64{later}})), 3)
	started, err = r.store.Start(r.Context(), []outbox.Start{{Message: ids[0], Body: []byte("x")}})
	r.ok(err)
	r.equal("started without them", started, ids)

	// A mail that does not go says what else does not.
	r.suppress("c@example.com")
	_, match := expand(message("c@example.com", outbox.MessageSending))
	g := r.messages(outbox.Filter{Matches: []int64{match}})
	if len(g) != 1 || !strings.HasSuffix(g[0].Reason, `its copies were not sent either: "Oh, Sera" <Oh@example.com>, <kim@example.com>, lee@example.com`) {
		r.Errorf("the message that was stopped is %+v", g)
	}
}

func testSuppressedResend(r *rig) {
	r.suppress("a@example.com")
	g := r.expanded(r.notify, outbox.MessageSending)[0]
	r.ok(r.store.Unsuppress(r.Context(), "a@example.com", "ann", "a typo at the provider's", past))
	order := r.replay(func(o *outbox.Replay) { o.Resend = true })
	r.equal("sent once more", r.again(order, []int64{g.Match}).Resent, 1)
	_, ids := r.claimed()
	started, err := r.store.Start(r.Context(), []outbox.Start{{Message: ids[0], Body: []byte("x")}})
	r.ok(err)
	r.equal("started", started, ids)
}

// addresses are those that the lives of testModel send to.
var addresses = []string{"a@example.com", "B@example.com"}

func (m *model) suppress(t *rapid.T) {
	a := rapid.SampledFrom(addresses).Draw(t, "address")
	added, err := m.store.Suppress(t.Context(), []outbox.Suppression{{Address: a, Since: past}})
	fatal(t, err)
	if key := outbox.AddressKey(a); (added == 1) == m.barred[key] {
		t.Fatalf("%d of %s were added", added, a)
	}
	m.barred[outbox.AddressKey(a)] = true
}

func (m *model) unsuppress(t *rapid.T) {
	a := rapid.SampledFrom(addresses).Draw(t, "address")
	key := outbox.AddressKey(a)
	if err := m.store.Unsuppress(t.Context(), a, "ann", "", past); (err == nil) != m.barred[key] {
		t.Fatalf("lifting the suppression of %s: %v", a, err)
	}
	delete(m.barred, key)
}

func testBounces(r *rig) {
	g := r.expanded(r.notify, outbox.MessageSending)[0]
	r.record(outbox.Outcome{Message: g.ID, State: outbox.MessageSent})
	limit := outbox.SoftLimit{Days: 3, Within: 10 * 24 * time.Hour}
	n := byte(0)
	bounce := func(kind outbox.BounceKind, address string, day int) outbox.Bounce {
		n++
		return outbox.Bounce{
			Event: outbox.Hash{n}, Message: g.ID, Address: address, Kind: kind, Status: "5.1.1", Text: "no such user", Source: "a report", At: past.Add(time.Duration(day) * 24 * time.Hour),
		}
	}
	save := func(b outbox.Bounce) outbox.Bounced {
		r.Helper()
		done, err := r.store.SaveBounce(r.Context(), b, limit)
		r.ok(err)
		return done
	}
	cause := func(address string) string {
		r.Helper()
		found := r.suppressions(outbox.SuppressionFilter{Addresses: []string{address}})
		if len(found) == 0 {
			return ""
		}
		return found[0].Cause.String()
	}
	first := bounce(outbox.BounceHard, "A@example.com", 0)
	if done := save(first); done.Suppressed == nil || done.Known {
		r.Errorf("a hard bounce: %+v", done)
	}
	r.equal("after a hard bounce", cause("a@example.com"), "hard bounce")
	r.equal("the same report again", save(first), outbox.Bounced{Known: true})
	r.ok(r.store.Unsuppress(r.Context(), "a@example.com", "ann", "", past))
	r.equal("the same report, once its address was let go", save(first), outbox.Bounced{Known: true})
	r.equal("what it does then", cause("a@example.com"), "")

	save(bounce(outbox.BounceBlocked, "b@example.com", 0))
	save(bounce(outbox.BounceUnsubscribe, "b@example.com", 0))
	save(bounce(outbox.BounceHard, "", 0))
	r.equal("what is blocked or a wish suppresses nobody", cause("b@example.com")+cause(""), "")
	save(bounce(outbox.BounceComplaint, "b@example.com", 0))
	r.equal("after a complaint", cause("b@example.com"), "complaint")

	for i, day := range []int{0, 1, 1, 11, 12} { // the first two days are too old by then
		if done := save(bounce(outbox.BounceSoft, "c@example.com", day)); done.Days != []int{1, 2, 2, 2, 2}[i] || done.Suppressed != nil {
			r.Errorf("soft bounce %d: %+v", i, done)
		}
	}
	if done := save(bounce(outbox.BounceSoft, "C@example.com", 13)); done.Suppressed == nil || cause("c@example.com") != "soft bounces" {
		r.Errorf("on the third day: %+v", done)
	}
	r.ok(r.store.Unsuppress(r.Context(), "c@example.com", "ann", "emptied", past.Add(13*24*time.Hour+time.Minute)))
	if done := save(bounce(outbox.BounceSoft, "c@example.com", 14)); done.Days != 1 {
		r.Errorf("after it was let go: %+v", done)
	}
	r.reopen()
	all, err := r.store.Bounces(r.Context(), g.ID)
	r.ok(err)
	r.equal("how many came back", len(all), int(n))
	r.equal("the first", all[0], first)
	r.equal("the message", r.states(g.ID), "sent")
	all, err = r.store.Bounces(r.Context(), g.ID+1)
	r.ok(err)
	r.equal("of another message", len(all), 0)
}

func testFind(r *rig) {
	var all []outbox.Message
	for range 2 {
		all = append(all, r.expanded(r.notify, outbox.MessageSending, outbox.MessageSending)...)
	}
	for i, g := range all {
		got, err := r.store.Find(r.Context(), g.Position.LSN, uint32(g.Position.Ordinal), g.MessageID)
		r.ok(err)
		r.equal("the found message", got, g)
		other := all[(i+2)%len(all)] // of the other transaction, to the same address and so with the same id
		for what, find := range map[string]func() (outbox.Message, error){
			"another id":      func() (outbox.Message, error) { return r.store.Find(r.Context(), g.Position.LSN, 0, "<x@y>") },
			"another ordinal": func() (outbox.Message, error) { return r.store.Find(r.Context(), g.Position.LSN, 1, g.MessageID) },
			"no LSN":          func() (outbox.Message, error) { return r.store.Find(r.Context(), 1, 0, g.MessageID) },
		} {
			if got, err := find(); !errors.Is(err, outbox.ErrNotFound) {
				r.Errorf("%s: %+v, %v", what, got, err)
			}
		}
		if got, err := r.store.Find(r.Context(), other.Position.LSN, 0, g.MessageID); err != nil || got.ID != other.ID {
			r.Errorf("at another LSN: %+v, %v", got, err)
		}
	}
}
