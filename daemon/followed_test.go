package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestARenamedTableTakenOut: what a rule misses of a table that was renamed is lost where somebody takes that out of the publication, whoever
// notices: a look, a reload of the rule that has followed it, or the next start.
func TestARenamedTableTakenOut(t *testing.T) {
	t.Parallel()
	follow := func(w *world) { w.rules(strings.Replace(worldRules, "table: visits", "table: viewings", 1)) }
	for name, notice := range map[string]func(*world, *Daemon) *Daemon{
		"a look": func(w *world, d *Daemon) *Daemon {
			if err := d.look(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			return d
		},
		"a reload": func(w *world, d *Daemon) *Daemon {
			follow(w)
			if err := d.Reload(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			return d
		},
		"a start": func(w *world, d *Daemon) *Daemon { w.stop(d); return w.start() },
		"a start with a rule that has followed": func(w *world, d *Daemon) *Daemon {
			w.stop(d)
			follow(w)
			return w.start()
		},
		"a setup with a rule that has followed": func(w *world, d *Daemon) *Daemon {
			w.stop(d)
			follow(w)
			if _, err := Setup(w.t.Context(), w.config, SetupOptions{}); err != nil {
				w.t.Fatal(err)
			}
			return w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.t, w.config.Mode, w.blind = t, "dry-run", true
			w.stop(w.start())
			w.sql(`alter table visits rename to viewings`)
			d := w.start() // which knows of the old name from the last one alone
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := w.walEnd()
			w.sql(fmt.Sprintf(`alter publication %s_ins drop table viewings`, w.config.Slot), `insert into viewings (kind, staff_id) values ('visit', 1)`)
			away := w.walEnd()
			d = notice(w, d)
			i := slices.IndexFunc(d.Status().Gaps, func(g GapStatus) bool { return g.Rule == "visit" && g.Lost })
			if i < 0 {
				t.Fatalf("no gap says what is lost: %+v", d.Status().Gaps)
			}
			if diff := cmp.Diff([]string{"viewings"}, w.publications()["ins"]); diff != "" {
				t.Errorf("published: %s", diff)
			}
			rule := d.live.Load().named("visit")
			if rule == nil || strings.Contains(name, "setup") { // which has been published again by the time that this is noted
				return
			}
			known, err := readPublished(t.Context(), d.store, d.source)
			if err != nil {
				t.Fatal(err)
			}
			if told := notInJournal(known, rule.On, spot{1, before}, spot{1, away}); len(told) == 0 && rule.On.Table.Name == "viewings" {
				t.Errorf("it is taken for published before %s: %+v", away, known)
			}
		})
	}
}
