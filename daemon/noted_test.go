package daemon

import (
	"errors"
	"strings"
	"testing"

	"postman/cdc"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
	"postman/rules"
)

// TestNotInJournal: what a rule's table was not published for is told, for each part of a stretch.
func TestNotInJournal(t *testing.T) {
	t.Parallel()
	visits := cdc.TableName{Schema: "public", Name: "visits"}
	was := func(op cdc.Op, epoch uint32, from position.LSN, toEpoch uint32, to position.LSN) publishedOp {
		return publishedOp{Table: visits, Op: op, Epoch: epoch, From: from, ToEpoch: toEpoch, To: to}
	}
	known := []publishedOp{was(cdc.Insert, 1, 100, 0, 0), was(cdc.Update, 1, 100, 1, 200), was(cdc.Update, 2, 50, 0, 0)}
	for name, c := range map[string]struct {
		table    string
		ops      []cdc.Op
		from, to spot
		want     string // "": all of it can be there
	}{
		"all the time":           {"visits", []cdc.Op{cdc.Insert}, spot{1, 100}, spot{2, 900}, ""},
		"later":                  {"visits", []cdc.Op{cdc.Insert}, spot{1, 99}, spot{1, 300}, "since 0/64 only"},
		"never":                  {"visits", []cdc.Op{cdc.Delete}, spot{1, 100}, spot{1, 300}, "was not published then: nothing of it is in the journal (delete)"},
		"another table":          {"staff", []cdc.Op{cdc.Insert}, spot{1, 100}, spot{1, 300}, "the table staff was not published then"},
		"up to":                  {"visits", []cdc.Op{cdc.Update}, spot{1, 150}, spot{1, 300}, "up to 0/C8 only"},
		"between":                {"visits", []cdc.Op{cdc.Update}, spot{1, 250}, spot{2, 40}, "was not published then"},
		"with a hole":            {"visits", []cdc.Op{cdc.Update}, spot{1, 150}, spot{2, 100}, "since 0/32 only"},
		"again":                  {"visits", []cdc.Op{cdc.Update}, spot{2, 50}, spot{2, 100}, ""},
		"several for one reason": {"visits", []cdc.Op{cdc.Delete, cdc.Truncate}, spot{1, 100}, spot{1, 300}, "(delete, truncate)"},
	} {
		on := rules.On{Table: cdc.TableName{Schema: "public", Name: c.table}, Ops: c.ops}
		got := strings.Join(notInJournal(known, on, c.from, c.to), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
	if got := notInJournal(nil, rules.On{Table: visits, Ops: []cdc.Op{cdc.Insert}}, spot{1, 1}, spot{1, 2}); got != nil {
		t.Errorf("where nothing is noted, it says %q", got)
	}
}

// TestPublishedIsNoted: from where on a table is in the journal is known to later replays, as is which rules are live.
func TestPublishedIsNoted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.template("plain.html", plainTemplate)
	d := w.start()
	origin := w.origin(d)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into staff values (7, 'x@example.com', 'x')`)
	w.messages(d, 1)
	w.rules(worldRules + `
  - {name: hired, on: {table: staff, ops: [insert]}, to: {address: a@example.com}, template: plain}
`)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into staff values (8, 'y@example.com', 'y')`)
	w.messages(d, 2)
	plan := w.planned(d, ReplayRequest{From: origin})
	if r := plan.of("hired"); len(r.Unpublished) != 1 || !strings.Contains(r.Unpublished[0], "the table staff is known to be published since") || r.Matches != 1 {
		t.Errorf("of the new table it says %+v", r)
	}
	if r := plan.of("visit"); len(r.Unpublished) != 0 {
		t.Errorf("of the old one it says %+v", r)
	}
	live, err := readRules(t.Context(), d.store, d.source)
	if err != nil || len(live) != 2 || !strings.Contains(live[1].Source, "name: hired") {
		t.Errorf("the live rules are noted as %+v (%v)", live, err)
	}
	since := plan.of("hired").Unpublished
	w.stop(d)
	d = w.start()
	if again := w.planned(d, ReplayRequest{From: origin}).of("hired").Unpublished; strings.Join(again, "") != strings.Join(since, "") {
		t.Errorf("after a restart it says %q; before it said %q", again, since)
	}
}

func save(t *testing.T, store outbox.Store, source outbox.Source) error {
	_, err := store.SaveSource(t.Context(), source)
	return err
}

// TestPublishingFollowsRenames: a table is published from where on it was, whatever it is called; another one of its name is not.
func TestPublishingFollowsRenames(t *testing.T) {
	t.Parallel()
	name := func(name string) cdc.TableName { return cdc.TableName{Schema: "public", Name: name} }
	on := func(table string) *live {
		return &live{source: &rules.Source{Rules: []*rules.Rule{{On: rules.On{Table: name(table), Ops: []cdc.Op{cdc.Insert}}}}}}
	}
	are := func(known map[string]uint32, at position.LSN) publishedNow {
		return publishedNow{
			oid:    func(n cdc.TableName) uint32 { return known[n.Name] },
			member: func(n cdc.TableName, _ cdc.Op) string { return map[uint32]string{5: "5", 6: "6"}[known[n.Name]] },
			at:     spot{1, at}, looked: spot{1, at - 10}, now: at + 5,
		}
	}
	known := publishing(nil, on("visits"), are(map[string]uint32{"visits": 5}, 100))
	known = publishing(known, on("visits"), are(nil, 150)) // renamed, and the rule has not followed
	known = publishing(known, on("calls"), are(map[string]uint32{"calls": 5}, 200))
	known = publishing(known, on("visits"), are(map[string]uint32{"visits": 5}, 300))
	insert := []cdc.Op{cdc.Insert}
	if told := notInJournal(known, rules.On{Table: name("visits"), Ops: insert}, spot{1, 100}, spot{1, 400}); told != nil {
		t.Errorf("of a table that was renamed and renamed back it says %q", told)
	}
	known = publishing(known, on("visits"), are(map[string]uint32{"visits": 6}, 500))
	n := &naming{known: known, epoch: 1}
	if got := n.now(&cdc.Table{TableName: name("calls"), OID: 5}, 1); got != (cdc.TableName{}) || n.oid(name("visits")) != 6 {
		t.Errorf("the table that was replaced is called %v now, and visits is %d", got, n.oid(name("visits")))
	}
	if lost := n.lost(&rules.Set{Rules: on("visits").source.Rules}, &cdc.Table{TableName: name("calls"), OID: 5}, 1); len(lost) == 0 {
		t.Error("nobody misses the changes of the table that was replaced")
	}
}

// TestPublishingTellsBreaks: a table that kept its name, and left its publication for a while, is published up to the look before and from the one
// behind on.
func TestPublishingTellsBreaks(t *testing.T) {
	t.Parallel()
	visits := cdc.TableName{Schema: "public", Name: "visits"}
	on := rules.On{Table: visits, Ops: []cdc.Op{cdc.Insert}}
	l := &live{source: &rules.Source{Rules: []*rules.Rule{{On: on}}}}
	var known []publishedOp
	for at, member := range []string{"1.1.7", "1.1.7", "", "", "1.1.8"} {
		known = publishing(known, l, publishedNow{
			oid: func(cdc.TableName) uint32 { return 5 }, member: func(cdc.TableName, cdc.Op) string { return member },
			at: spot{1, position.LSN(100 * at)}, looked: spot{1, position.LSN(100*at - 50)}, now: position.LSN(100*at + 50),
		})
	}
	for between, want := range map[[2]position.LSN]string{
		{0, 150}: "", {100, 160}: "up to 0/96 only", {200, 300}: "was not published then", {300, 500}: "since 0/1C2 only", {450, 500}: "",
	} {
		got := strings.Join(notInJournal(known, on, spot{1, between[0]}, spot{1, between[1]}), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%v: %q; want %q", between, got, want)
		}
	}
}

// TestWhyAt: of any LSN it is told what was committed there, what a rule says of it, and what stood in its way.
func TestWhyAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1), ('call', 1)`,
		`begin; select pg_logical_emit_message(true, 'postman.mute', 'a migration'); insert into visits (kind, staff_id) values ('visit', 1); commit`,
		`select pg_logical_emit_message(true, 'postman.other', '{}')`)
	w.messages(d, 1)
	w.covered(d)
	_, commits := w.journal(d, 0, 0)
	at := func(lsn position.LSN) *WhyAtView {
		t.Helper()
		v, err := WhyAt(t.Context(), &w.config, WhyAtOptions{Rule: "visit", LSN: lsn.String()})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := at(commits[0])
	if len(v.Changes) != 2 || v.Changes[0].Condition.Verdict != "true" || v.Changes[0].State != "expanded" || v.Changes[1].Condition.Verdict != "false" || v.Transaction.Next {
		t.Errorf("of the first transaction it says %+v", v)
	}
	if in := at(commits[0] + 1); in.Transaction.Commit != commits[0].String() || in.Transaction.Next {
		t.Errorf("within a commit record it says %+v", in.Transaction)
	}
	if next := at(commits[1] - 1); next.Transaction.Commit != commits[1].String() || !next.Transaction.Next || len(next.Changes) != 1 {
		t.Errorf("before a commit it says %+v", next.Transaction)
	}
	muted := at(commits[1])
	if muted.Transaction.Muted != "a migration" || muted.Changes[0].State != "muted" || !strings.Contains(strings.Join(muted.Reasons, "\n"), "--muted") {
		t.Errorf("of the muted one it says %+v", muted)
	}
	other := at(commits[2])
	if len(other.Changes) != 0 || len(other.Others) != 1 || other.Others[0].Table != "postman.other" || !strings.Contains(strings.Join(other.Reasons, "\n"), "the table visits") {
		t.Errorf("of another message it says %+v", other)
	}
	w.rules(strings.ReplaceAll(worldRules, "ops: [insert]", "ops: [update]"))
	if v := at(commits[0]); !strings.Contains(v.Changes[0].Condition.Excluded, "update") {
		t.Errorf("of a rule on updates it says %+v", v.Changes[0].Condition)
	}
	// What lies between two epochs lies in the gap that was accepted, and not before the journal.
	between := d.batch.durable() + 0x1000
	source := d.source
	source.Epoch, source.Checkpoint = 2, between+0x1000
	w.stop(d)
	store, err := sqlite.Open(w.config.StorePath(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gap := outbox.Gap{Source: source.ID, Epoch: 1, From: between - 1, To: between + 1, Lost: true, Reason: "the slot is gone"}
	if err := errors.Join(store.SaveGap(t.Context(), gap), save(t, store, source), store.Close()); err != nil {
		t.Fatal(err)
	}
	if lost := strings.Join(at(between).Reasons, "\n"); !strings.Contains(lost, "it lies in gap 1") || !strings.Contains(lost, "is lost") {
		t.Errorf("in a gap between epochs it says %q", lost)
	}
	for lsn, want := range map[string]string{"0/1": "can be served: --lsn", (between - 2).String(): "between what is stored of two epochs", "FFFFFFFF/1": "ahead of all", "x": "not an LSN"} {
		if _, err := WhyAt(t.Context(), &w.config, WhyAtOptions{Rule: "visit", LSN: lsn}); err == nil || !Misconfigured(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v", lsn, err)
		}
	}
}
