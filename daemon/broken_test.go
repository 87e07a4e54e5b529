package daemon

import (
	"path/filepath"
	"testing"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// recording is a daemon that does nothing but record breakages.
func recording(t *testing.T) *Daemon {
	t.Helper()
	c := DefaultConfig()
	c.DatabaseURL = "postgres://localhost/crm" // which is never asked
	d, err := New(Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	if d.store, err = sqlite.Open(filepath.Join(t.TempDir(), "postman.db"), sqlite.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.store.Close() })
	d.source, err = d.store.SaveSource(t.Context(), outbox.Source{
		SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.batch = newGathering(d.source)
	return d
}

func (d *Daemon) storedGaps(t *testing.T) []outbox.Gap {
	t.Helper()
	gaps, err := d.store.Gaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return gaps
}

// A change that fits a rule ends what was broken when the last run ended, unless changes were lost: it may be from before that.
func TestLossIsNotEndedByAChange(t *testing.T) {
	t.Parallel()
	d := recording(t)
	for rule, lost := range map[string]bool{"lost": true, "unfit": false} {
		b := breakage{rule: rule, from: 50, why: "of " + rule, lost: lost}
		if err := d.store.SaveGap(t.Context(), b.gap(d.source)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.remember(t.Context(), &live{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.broken.mends("unfit", byStream, byLoad); !ok {
		t.Error("a change fits the rule, and it is broken still")
	}
	if _, ok := d.broken.mends("lost", byStream, byLoad); ok {
		t.Error("a change has ended a loss")
	}
	d.broken.soundFrom("lost", 70)
	if mended, _ := d.broken.passed(position.LSN(70)); len(mended) != 1 || mended[0].why != "of lost" {
		t.Errorf("the stream has passed the loss: %+v", mended)
	}
}

// Nor does one end a loss that the stream has noticed, too.
func TestLossThatTheStreamNotices(t *testing.T) {
	t.Parallel()
	for _, first := range []cause{byStream, byCatalog} {
		bs := newBreakages()
		bs.breaks(breakage{rule: "r", from: 50, by: first, lost: first == byCatalog})
		bs.breaks(breakage{rule: "r", from: 60, by: byCatalog - first, lost: first != byCatalog})
		if _, ok := bs.mends("r", byStream, byLoad); ok {
			t.Errorf("noticed by %d first: a change has ended the loss", first)
		}
	}
}

// A rule that turns out to have been broken for longer has a gap that begins there.
func TestGapBeginsEarlier(t *testing.T) {
	t.Parallel()
	d := recording(t)
	for _, from := range []position.LSN{80, 60, 70} {
		if err := d.breaks(t.Context(), breakage{rule: "r", from: from, why: "no column kind", by: byCatalog}); err != nil {
			t.Fatal(err)
		}
	}
	gaps := d.storedGaps(t)
	if len(gaps) != 1 || gaps[0].From != 60 || d.broken.list()[0].from != 60 {
		t.Errorf("the breakage %+v, the gaps %+v", d.broken.list(), gaps)
	}
	if err := d.breaks(t.Context(), breakage{rule: "r", from: 90, why: "not published", by: byCatalog, lost: true}); err != nil {
		t.Fatal(err)
	}
	if gaps = d.storedGaps(t); len(gaps) != 1 || gaps[0].From != 60 || !gaps[0].Lost {
		t.Errorf("lost: the gaps %+v", gaps)
	}
}

// What the store did not take is saved when it is noticed again: as news, or as what has become worse.
func TestUnsavedBreakage(t *testing.T) {
	t.Parallel()
	bs := newBreakages()
	b := breakage{rule: "r", from: 10, by: byStream}
	bs.breaks(b)
	bs.unsaved(b, true)
	if _, news, _ := bs.breaks(b); !news {
		t.Error("the store does not have it, and it is no news")
	}
	b.lost = true
	bs.breaks(b)
	bs.unsaved(b, false)
	for _, want := range []bool{true, false} {
		if _, news, worse := bs.breaks(b); news || worse != want {
			t.Errorf("news %v, worse %v; want %v", news, worse, want)
		}
	}
}

// A rule that has broken again before its gap was ended has one gap, which stays open.
func TestBrokenAgainBeforeTheEnd(t *testing.T) {
	t.Parallel()
	d := recording(t)
	b := breakage{rule: "r", from: 10, why: "no column kind", by: byStream}
	for range 2 {
		if err := d.breaks(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		mended, _ := d.broken.mends("r", byStream)
		again := b
		again.from = 15
		d.broken.breaks(again)
		d.endGap(t.Context(), mend{mended, 20})
		if gaps := d.storedGaps(t); len(gaps) != 1 || gaps[0].To != 0 {
			t.Fatalf("broken again: the gaps %+v", gaps)
		}
	}
	mended, _ := d.broken.mends("r", byStream)
	d.endGap(t.Context(), mend{mended, 20})
	if gaps := d.storedGaps(t); len(gaps) != 1 || gaps[0].To != 20 {
		t.Errorf("whole: the gaps %+v", gaps)
	}
}
