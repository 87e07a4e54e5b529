package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// TestReachAcrossEpochs: LSNs recur from one epoch to another. One that several have is the latest's, one that a former epoch alone has is
// that one's, and a stretch of time goes through all of them.
func TestReachAcrossEpochs(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "postman.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx := t.Context()
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	at := func(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }
	src, err := store.SaveSource(ctx, outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 0x1000})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(lsn position.LSN, when time.Time) {
		t.Helper()
		var s cdc.Section
		block := cdc.SealBlock(cdc.AppendBlock(nil, cdc.Tx{XID: 7, Commit: lsn, End: lsn + 8, Time: when}, "", &s))
		_, err := store.Append(ctx, outbox.Batch{Source: src.ID, Epoch: src.Epoch, Checkpoint: lsn + 8, Journal: []outbox.Block{{
			First: lsn, Last: lsn, From: when, To: when, Transactions: 1, Data: block,
		}}}, 0)
		if err != nil {
			t.Fatal(err)
		}
	}
	commit(0x2000, at(0))
	commit(0x3000, at(10))
	// A rule was broken until the stream ended; the gap of all rules ends in the next epoch.
	for _, g := range []outbox.Gap{{Rule: "broken", From: 0x2500, To: 0x3500, Reason: "broken"}, {From: 0x3500, To: 0x9000, Reason: "the slot is gone", Lost: true}} {
		g.Source, g.Epoch = src.ID, 1
		if err := store.SaveGap(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	src.Epoch, src.Checkpoint = 2, 0x1800 // a backup was restored
	if src, err = store.SaveSource(ctx, src); err != nil {
		t.Fatal(err)
	}
	commit(0x1900, at(20))
	commit(0x2000, at(30))
	r, err := newReach(ctx, store, src, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(minutes int) string { return at(minutes).Format(time.RFC3339) }
	for _, c := range []struct{ from, to, want string }{
		{"0/2000", "", "[{2 0/2000 0/2008}]"},
		{"0/1000", "", "[{1 0/1000 0/3500} {2 0/0 0/2008}]"},
		{"0/3000", "0/1900", "[{1 0/3000 0/3500} {2 0/0 0/1900}]"},
		{stamp(0), stamp(10), "[{1 0/2000 0/3500}]"},
		{stamp(5), stamp(25), "[{1 0/3000 0/3500} {2 0/0 0/1FFF}]"},
		{stamp(15), "", "[{2 0/1900 0/2008}]"},
		{stamp(40), "", "[{2 0/2008 0/2008}]"},
		{"0/2500", "0/3500", "[{1 0/2500 0/3500}]"}, // the command of the gap
		{"0/800", "", "lies before the journal, which begins at 0/1000"},
		{"0/2000", "0/1900", "lies before --from"},
		{stamp(5), stamp(-100), "lies before --from"},
		{"0/4000", "", "ahead of all that is stored, which ends at 0/2008"},
	} {
		first, last, err := r.locate(ctx, c.from, c.to)
		var parts []string
		for _, s := range r.stretches(first, last) {
			parts = append(parts, fmt.Sprintf("{%d %s %s}", s.epoch, s.from, s.to))
		}
		got := fmt.Sprint(parts)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("from %s to %q: %s; want %s", c.from, c.to, got, c.want)
		}
		if p := (&replayer{store: store, source: src, reach: r}); c.from == "0/2500" {
			p.parts = r.stretches(first, last)
			if err := p.covering(ctx); err != nil || len(p.covered) != 1 {
				t.Errorf("the command of the gap covers %+v (%v)", p.covered, err)
			}
		}
	}
}
