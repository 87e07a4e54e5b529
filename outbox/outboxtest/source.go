package outboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/outbox"
)

func testIdentity(r *rig) {
	id := r.store.ID()
	if len(id) < 16 {
		r.Fatalf("the id %q is no identity", id)
	}
	r.reopen()
	r.equal("the id after a restart", r.store.ID(), id)
	secret := r.store.Secret()
	r.reopen()
	r.equal("the secret after a restart", r.store.Secret(), secret)
	other := r.open(r.T, r.TempDir())
	if other.ID() == id {
		r.Errorf("two stores have the id %q", id)
	}
	if len(secret) != 32 || bytes.Equal(other.Secret(), secret) {
		r.Errorf("two stores have the secret %x", secret)
	}
	r.ok(other.Close())
}

func testSources(r *rig) {
	_, err := r.store.Source(r.Context(), "7301", "crm", "another")
	if !errors.Is(err, outbox.ErrNotFound) {
		r.Fatalf("an unknown source gave %v", err)
	}
	second := outbox.Source{SystemID: "7301", Database: "crm", Slot: "another", Epoch: 1, State: outbox.SourceIntended}
	second, err = r.store.SaveSource(r.Context(), second)
	r.ok(err)
	if second.ID == r.source.ID || second.ID == 0 {
		r.Fatalf("the second source has id %d, the first %d", second.ID, r.source.ID)
	}
	second.State, second.Checkpoint, second.Verified, second.Armed = outbox.SourceStreaming, 0xFFFFFFFF00, 0xFFFFFFFF07, "db.example.com"
	second.Server = outbox.Server{Timeline: 1 << 30, Publications: "a:16385", Restart: 0xFFFFFFFF}
	saved, err := r.store.SaveSource(r.Context(), second)
	r.ok(err)
	r.equal("the changed source", saved, second)
	r.reopen()
	got, err := r.store.Source(r.Context(), "7301", "crm", "another")
	r.ok(err)
	r.equal("the source", got, second)
	second.Server = outbox.Server{Timeline: 2, Restart: 7}
	r.ok(r.store.SaveServer(r.Context(), second.ID, second.Server))
	second.Server.Timeline++
	second.Verified = second.Checkpoint
	r.ok(r.store.SaveServer(r.Context(), second.ID, second.Server))
	if err := r.store.SaveServer(r.Context(), 77, second.Server); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("the server of a source that is not there: %v", err)
	}
	r.reopen()
	all, err := r.store.Sources(r.Context())
	r.ok(err)
	r.equal("all sources", all, []outbox.Source{r.source, second})
}

func testSourceCheckpoints(r *rig) {
	save := func(change func(*outbox.Source)) error {
		src, err := r.store.Source(r.Context(), "7301", "crm", "postman")
		r.ok(err)
		change(&src)
		_, err = r.store.SaveSource(r.Context(), src)
		return err
	}
	if err := save(func(s *outbox.Source) { s.Checkpoint = 99 }); !errors.Is(err, outbox.ErrCheckpoint) {
		r.Errorf("a streaming source went back: %v", err)
	}
	if err := save(func(s *outbox.Source) { s.Epoch = 0 }); !errors.Is(err, outbox.ErrCheckpoint) {
		r.Errorf("an epoch went back: %v", err)
	}
	if err := save(func(s *outbox.Source) { s.ID = 77 }); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("a source that is not there was changed: %v", err)
	}
	if err := save(func(s *outbox.Source) { s.ID = 0 }); err == nil {
		r.Error("the same source was added twice")
	}
	if err := save(func(s *outbox.Source) { s.SystemID = "9999" }); err == nil {
		r.Error("a source became another system")
	}
	// A gap was accepted: a new epoch, then the place where the new slot starts, wherever that is.
	r.ok(save(func(s *outbox.Source) { s.Epoch, s.State = 2, outbox.SourceIntended }))
	r.ok(save(func(s *outbox.Source) { s.Checkpoint, s.State = 40, outbox.SourceStreaming }))
}

func testRuleIDs(r *rig) {
	id := func(name, was string) uint32 {
		ids, err := r.store.RuleIDs(r.Context(), outbox.RuleName{Name: name, Was: was})
		r.ok(err)
		return ids[0]
	}
	a, b := id("a", ""), id("b", "")
	if a == b || a == 0 || b == 0 {
		r.Fatalf("two rules have the ids %d and %d", a, b)
	}
	r.equal("a known name", id("a", ""), a)
	r.equal("a new name for a known rule", id("c", "a"), a)
	r.equal("the new name, with the old one still there to be read", id("c", "a"), a)
	if again := id("a", ""); again == a || again == b {
		r.Fatalf("a rule with the name that another rule once had got its id, %d", again)
	}
	r.equal("an unknown former name", id("d", "never"), id("d", ""))
	r.reopen()
	r.equal("a rule after a restart", id("c", ""), a)
	m := r.append(r.match(func(m *outbox.NewMatch) { m.Rule = a }))[0]
	r.equal("the rule of a match", m.RuleName, "c")
	id("e", "c")
	r.equal("the rule of a match, renamed", r.getMatch(m.ID).RuleName, "e")
}

// testRuleSets numbers many rules at once: in their order, as one by one, and all of them or none.
func testRuleSets(r *rig) {
	r.equal("no rules", len(r.ruleIDs()), 0)
	first := r.ruleIDs("a", "b", "c")
	r.equal("the same in another order", r.ruleIDs("c", "a", "b"), []uint32{first[2], first[0], first[1]})
	mixed, err := r.store.RuleIDs(r.Context(), outbox.RuleName{Name: "d"}, outbox.RuleName{Name: "e", Was: "b"}, outbox.RuleName{Name: "b"}, outbox.RuleName{Name: "a"})
	r.ok(err)
	r.equal("known and renamed ones among new ones", []uint32{mixed[1], mixed[3]}, []uint32{first[1], first[0]})
	all := append(slices.Clone(first), mixed[0], mixed[2])
	slices.Sort(all)
	if len(slices.Compact(all)) != 5 || slices.Contains(all, 0) {
		r.Fatalf("five rules have the ids %v and %v", first, mixed)
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprint("many ", i)
	}
	// A caller who has gone: either all have got their numbers, or none.
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	names := make([]outbox.RuleName, len(many))
	for i, name := range many {
		names[i].Name = name
	}
	if ids, err := r.store.RuleIDs(ctx, names...); err == nil || ids != nil {
		r.Fatalf("a cancelled call gave %d ids and %v", len(ids), err)
	}
	given := r.ruleIDs(many...)
	r.reopen()
	r.equal("many rules after a restart", r.ruleIDs(many...), given)
	r.equal("the rules from before", r.ruleIDs("a", "e", "c"), first)
}

func (r *rig) ruleIDs(names ...string) []uint32 {
	r.Helper()
	rules := make([]outbox.RuleName, len(names))
	for i, name := range names {
		rules[i].Name = name
	}
	ids, err := r.store.RuleIDs(r.Context(), rules...)
	r.ok(err)
	return ids
}

func testTexts(r *rig) {
	_, err := r.store.Text(r.Context(), outbox.HashOf(version))
	if !errors.Is(err, outbox.ErrNotFound) {
		r.Fatalf("a text that was never brought gave %v", err)
	}
	_, err = r.store.TextSince(r.Context(), outbox.HashOf(version))
	if !errors.Is(err, outbox.ErrNotFound) {
		r.Fatalf("a text that was never brought gave %v", err)
	}
	before := time.Now().Truncate(time.Microsecond)
	r.append(r.match())
	first := time.Now()
	r.append(r.match())
	r.reopen()
	r.append(r.match())
	for h, text := range texts {
		got, err := r.store.Text(r.Context(), h)
		r.ok(err)
		r.equal("a text", got, text)
		since, err := r.store.TextSince(r.Context(), h)
		r.ok(err)
		if since.Before(before) || since.After(first) {
			r.Errorf("a text that came between %v and %v is said to have come at %v", before, first, since)
		}
	}
}

func testGaps(r *rig) {
	undetermined := outbox.Gap{Rule: "notify", From: 300, To: 300, Lost: true, Reason: "undetermined: new.body"}
	broken := outbox.Gap{Rule: "never stored before", From: 400, Reason: "broken", Table: "public.visits", OID: 16384, Ops: []string{"insert", "update"}}
	b := r.batch(r.tx(r.match()))
	for _, g := range []outbox.Gap{undetermined, broken} {
		g.Source, g.Epoch = r.source.ID, 1
		b.Gaps = append(b.Gaps, g)
	}
	_, err := r.store.Append(r.Context(), b, 0)
	r.ok(err)
	// The same again, later; and one outside of a batch that has nothing to do with them.
	b = r.batch(r.tx(r.match()))
	undetermined.From, undetermined.To, undetermined.Source, undetermined.Epoch = 900, 950, r.source.ID, 1
	broken.From, broken.Source, broken.Epoch = 900, r.source.ID, 1
	b.Gaps = []outbox.Gap{undetermined, broken}
	_, err = r.store.Append(r.Context(), b, 0)
	r.ok(err)
	r.ok(r.store.SaveGap(r.Context(), outbox.Gap{Source: r.source.ID, Epoch: 2, From: 1000, To: 2000, Lost: true, Reason: "the slot is gone"}))

	gaps := func() []outbox.Gap {
		all, err := r.store.Gaps(r.Context())
		r.ok(err)
		return all
	}
	fields := cmpopts.IgnoreFields(outbox.Gap{}, "ID", "Created", "Closed")
	undetermined.From, undetermined.Count = 300, 2
	broken.From, broken.To, broken.Count = 400, 0, 2
	r.equal("the gaps", gaps(), []outbox.Gap{
		{Source: r.source.ID, Epoch: 2, From: 1000, To: 2000, Count: 1, Lost: true, Reason: "the slot is gone"}, broken, undetermined,
	}, fields)
	for _, g := range gaps() {
		if g.ID == 0 || time.Since(g.Created) > time.Hour || !g.Closed.IsZero() {
			r.Fatalf("a gap has no id, no time or is closed: %+v", g)
		}
	}

	stale := gaps()[1]
	r.ok(r.store.SaveGap(r.Context(), broken))
	if err := r.store.CloseGap(r.Context(), stale, 960); !errors.Is(err, outbox.ErrState) || !gaps()[1].Closed.IsZero() {
		r.Fatalf("a gap was closed with what it took in after it was read: %v", err)
	}
	g := gaps()[1]
	r.ok(r.store.CloseGap(r.Context(), g, 960))
	if err := r.store.CloseGap(r.Context(), g, 970); !errors.Is(err, outbox.ErrState) {
		r.Fatalf("a closed gap was closed again: %v", err)
	}
	if g := gaps()[1]; g.To != 960 || g.Closed.IsZero() {
		r.Fatalf("the closed gap is %+v", g)
	}
	// What comes after the close is a gap of its own.
	r.ok(r.store.SaveGap(r.Context(), broken))
	if all := gaps(); len(all) != 4 || all[0].Rule != "never stored before" || !all[0].Closed.IsZero() {
		r.Fatalf("after the close: %+v", all)
	}
}

func testNotes(r *rig) {
	note := func(source uint32, name string) string {
		text, err := r.store.Note(r.Context(), source, name)
		if errors.Is(err, outbox.ErrNotFound) {
			return "none"
		}
		r.ok(err)
		return string(text)
	}
	other, err := r.store.SaveSource(r.Context(), outbox.Source{SystemID: "2", Database: "crm", Slot: "postman", Epoch: 1})
	r.ok(err)
	r.equal("what was never noted", note(r.source.ID, "a"), "none")
	for _, text := range []string{"first", "second", ""} {
		r.ok(r.store.SaveNote(r.Context(), r.source.ID, "a", []byte(text)))
		r.equal("a note", note(r.source.ID, "a"), text)
	}
	r.ok(r.store.SaveNote(r.Context(), r.source.ID, "b", []byte("of another name")))
	r.ok(r.store.SaveNote(r.Context(), other.ID, "a", []byte("of another source")))
	r.reopen()
	r.equal("each by itself", []string{note(r.source.ID, "a"), note(r.source.ID, "b"), note(other.ID, "a"), note(other.ID, "b")},
		[]string{"", "of another name", "of another source", "none"})
	if err := r.store.SaveNote(r.Context(), 4711, "a", nil); !errors.Is(err, outbox.ErrNotFound) {
		r.Errorf("a note of no source: %v", err)
	}
}
