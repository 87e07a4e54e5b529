package daemon

import (
	"testing"

	"postman/position"
)

// TestRenamedBeforeItWasStreamed renames a table of which the stream has told nothing yet: what its rule misses is a gap from there on,
// and not only from where a look, or the next start, notices it.
func TestRenamedBeforeItWasStreamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	w.sql(`alter table visits rename to meetings`, `insert into meetings (kind, staff_id) values ('visit', 1)`)
	var missed position.LSN
	w.eventually("the change is in the journal", func() bool {
		_, commits := w.journal(d, 0, 0)
		if len(commits) == 1 {
			missed = commits[0]
		}
		return missed != 0
	})
	w.eventually("it is durable", func() bool { return d.batch.durable() > missed })
	w.stopHard(d) // before anybody has looked
	w.sql(`alter table meetings rename to visits`)
	d = w.start()
	gaps, err := d.store.Gaps(t.Context())
	if err != nil || len(gaps) != 1 || gaps[0].Rule != "visit" || gaps[0].From > missed || gaps[0].Lost {
		t.Fatalf("%+v (%v); want one from %s on", gaps, err, missed)
	}
	w.sql(`insert into visits (kind, staff_id) values ('call', 1)`)
	w.eventually("the gap has ended", func() bool {
		gaps, err := d.store.Gaps(t.Context())
		return err == nil && len(gaps) == 1 && gaps[0].To != 0
	})
	if _, done := w.replayed(d, ReplayRequest{From: w.origin(d), Rules: []string{"visit"}}); done.Added != 1 || len(done.Mended) != 1 {
		t.Errorf("the replay did %+v", done)
	}
}
