package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// TestGapsOfAllRulesStay: a gap of all rules is made up for only where all of them could decide on what it has.
func TestGapsOfAllRulesStay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(p *replayer)
		want   string // a part of why; empty: it is made up for
	}{
		"all decide":                {func(*replayer) {}, ""},
		"one is left out":           {func(p *replayer) { p.excluded["pay"] = "it reads new.iban" }, "rule pay is not replayed: it reads new.iban"},
		"one is broken":             {func(p *replayer) { p.live.broken = rules.Errors{{Rule: "pay"}} }, "rule pay does not decide at present"},
		"one does not fit":          {func(p *replayer) { p.unfit(1, 0x25, "pay", "no column iban") }, "1 change came in a shape that a rule does not fit: no column iban"},
		"does not fit elsewhere":    {func(p *replayer) { p.unfit(1, 0x31, "pay", "no column iban") }, ""},
		"in another epoch":          {func(p *replayer) { p.unfit(2, 0x25, "pay", "no column iban") }, ""},
		"something cannot be read":  {func(p *replayer) { p.unread(1, 0x20, errors.New("of a kind")) }, "1 change cannot be read yet: of a kind"},
		"one could not be decided":  {func(p *replayer) { p.undetermined(1, 0x20, "pay", "old.iban") }, ""},
		"cannot be read, elsewhere": {func(p *replayer) { p.unread(1, 0x1f, errors.New("of a kind")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := mending(outbox.Gap{Epoch: 1, From: 0x20, To: 0x30})
			c.change(p)
			s, stays, _ := p.staying(&p.covered[0])
			if stays != (c.want != "") || !strings.Contains(s.Why, c.want) {
				t.Errorf("it stays %v: %s; want %s", stays, s.Why, c.want)
			}
		})
	}
}

// mending is a replay that covers gaps.
func mending(gaps ...outbox.Gap) *replayer {
	r := &rules.Rule{Name: "pay", On: rules.On{Table: cdc.TableName{Schema: "public", Name: "bills"}, Ops: []cdc.Op{cdc.Insert}}}
	p := &replayer{
		set: &rules.Set{Rules: []*rules.Rule{r}}, excluded: make(map[string]string), naming: new(naming),
		live: &live{source: &rules.Source{Rules: []*rules.Rule{r}}, byName: map[string]*rules.Rule{"pay": r}},
	}
	for _, g := range gaps {
		p.covered = append(p.covered, coveredGap{Gap: g, missed: make(map[missedColumn]*undetermined)})
	}
	return p
}

// TestGapsKnowWhatTheyAreOf: a gap is made up for only where its rule is on what it was on then: the table, and each operation.
func TestGapsKnowWhatTheyAreOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		gap  outbox.Gap
		want string // a part of why; empty: it is made up for
	}{
		"the same":                  {outbox.Gap{Table: "bills", OID: 7, Ops: []string{"insert"}}, ""},
		"an operation less":         {outbox.Gap{Table: "bills", OID: 7, Ops: []string{"insert", "update"}}, "on insert, update then, and is on insert now"},
		"another table of the name": {outbox.Gap{Table: "bills", OID: 8, Ops: []string{"insert"}}, "another one has its name now"},
		"the table by another name": {outbox.Gap{Table: "invoices", OID: 7, Ops: []string{"insert"}}, ""},
		"another table":             {outbox.Gap{Table: "invoices", OID: 8, Ops: []string{"insert"}}, "on the table invoices then, and is on bills now"},
		"a message":                 {outbox.Gap{Ops: []string{"message"}}, "was on a message then"},
		"OIDs of another epoch":     {outbox.Gap{Epoch: 2, Table: "bills", OID: 8, Ops: []string{"insert"}}, ""},
		"nobody knows":              {outbox.Gap{}, "did not keep what the rule was on"},
	} {
		c.gap.Rule, c.gap.From, c.gap.To = "pay", 0x20, 0x30
		p := mending(c.gap)
		p.naming.known = []publishedOp{{Table: p.set.Rules[0].On.Table, OID: 7}}
		s, stays, _ := p.staying(&p.covered[0])
		if stays != (c.want != "") || !strings.Contains(s.Why, c.want) {
			t.Errorf("%s: it stays %v: %s; want %s", name, stays, s.Why, c.want)
		}
	}
}

// TestLossesAreOfOneGap: what a rule could not decide on is counted once, in the gap that has it, and nowhere else.
func TestLossesAreOfOneGap(t *testing.T) {
	t.Parallel()
	p := mending(outbox.Gap{Epoch: 1, Rule: "pay", From: 0x20, To: 0x30}, outbox.Gap{Epoch: 1, Rule: "pay", From: 0x28, To: 0x40}, outbox.Gap{Epoch: 1, Rule: "call", From: 0x10, To: 0x90})
	for _, at := range []spot{{1, 0x10}, {1, 0x20}, {1, 0x29}, {1, 0x38}, {1, 0x41}, {2, 0x29}} {
		p.undetermined(at.epoch, at.lsn, "pay", "old.iban")
	}
	loss := outbox.Gap{Epoch: 1, Rule: "pay", Lost: true, Reason: undeterminedReason + "old.iban"}
	first, second := loss, loss
	first.From, first.To, first.Count = 0x20, 0x29, 2
	second.From, second.To, second.Count = 0x38, 0x38, 1
	for i, want := range [][]outbox.Gap{{first}, {second}, nil} {
		if diff := cmp.Diff(want, p.covered[i].losses()); diff != "" {
			t.Errorf("of what is lost of gap %d: %s", i, diff)
		}
	}
}

// TestReasonsThatPass: why a gap stays is kept with it where only a change to the rule helps, and the command to try again is there either
// way.
func TestReasonsThatPass(t *testing.T) {
	t.Parallel()
	d := recording(t)
	for _, rule := range []string{"gone", "pay"} {
		if err := d.store.SaveGap(t.Context(), outbox.Gap{Source: d.source.ID, Epoch: d.source.Epoch, Rule: rule, From: 0x120, To: 0x130, Reason: brokenReason + "no column", Table: "bills", Ops: []string{"insert"}}); err != nil {
			t.Fatal(err)
		}
	}
	gaps := d.storedGaps(t)
	p := mending(gaps...)
	p.store = d.store
	p.unfit(gaps[0].Epoch, 0x125, "pay", "no column iban")
	done := new(ReplayDone)
	if err := p.mend(t.Context(), 1, done); err != nil || len(done.Mended) != 0 || len(done.Stays) != 2 {
		t.Fatalf("it did %+v (%v)", done, err)
	}
	for _, g := range StoreStatus(t.Context(), d.store).Gaps {
		if g.Mend == "" || (g.Stays != "") != (g.Rule == "pay") || (g.Accept != "") != (g.Rule == "pay") {
			t.Errorf("the status says %+v", g)
		}
	}
	note, err := noteOf([]*rules.Rule{p.set.Rules[0]})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.store.SaveNote(t.Context(), d.source.ID, rulesNote, note); err != nil {
		t.Fatal(err)
	}
	for _, g := range StoreStatus(t.Context(), d.store).Gaps {
		if gone := g.Rule == "gone"; (g.Mend == "") != gone || g.Accept == "" || gone && !strings.Contains(g.Stays, "no rule of that name") {
			t.Errorf("once a rule is gone the status says %+v", g)
		}
	}
}
