package daemon

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
)

// TestMissedBeforeAGap: a table left its publication after the last look, the stream passed over that, and then the slot is gone, too. The gap of
// all rules begins where the stream was; what the rule missed before is a gap of its own.
func TestMissedBeforeAGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.rules(worldRules + markRule)
	w.template("plain.html", `{{define "subject"}}x{{end}}{{define "body"}}x{{end}}`)
	d := w.start()
	w.visit(d, 1)
	conn := pgtest.Connect(t, w.url)
	end := func() position.LSN {
		_, at, err := cdc.WALEnd(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	from := end()
	w.sql("alter publication "+w.config.Slot+"_ins drop table visits", `insert into visits (kind, staff_id) values ('visit', 1)`)
	till := end()
	w.mark(d)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = d.Stop(ctx)
	w.eventually("nobody reads the slot", func() bool { return w.inspect().Slot.ActivePID == 0 })
	w.sql(fmt.Sprintf("select pg_drop_replication_slot('%s')", w.config.Slot))
	d = w.accept(2)
	gaps, err := d.store.Gaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(gaps, func(g outbox.Gap) bool {
		return g.Rule == "visit" && g.Lost && g.Epoch == 1 && g.From <= from && g.To >= till
	}) {
		t.Errorf("what was committed between %s and %s is in none of the gaps %+v", from, till, gaps)
	}
	w.eventually("the rule decides again", func() bool { return d.look(t.Context()) == nil && len(d.broken.list()) == 0 })
	w.visit(d, 2)
}
