package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
)

// lostIn wants a gap of a rule, of what is lost, that has all that was committed between two positions.
func (w *world) lostIn(d *Daemon, rule, from, till string) {
	w.t.Helper()
	for _, g := range d.Status().Gaps {
		if g.Rule == rule && g.Lost && lsn(w.t, g.From) <= lsn(w.t, from) && (g.To == "" || lsn(w.t, g.To) >= lsn(w.t, till)) {
			return
		}
	}
	w.t.Errorf("rule %s has missed what was committed between %s and %s, and no gap says so: %+v", rule, from, till, d.Status().Gaps)
}

// A rule that was given another name while no daemon ran is the same one to the next: what it missed until then is lost all the same.
func TestMissedUnderAFormerName(t *testing.T) {
	t.Parallel()
	for name, notice := range map[string]func(w *world) *Daemon{
		"a start": func(w *world) *Daemon { return w.start() },
		"a setup": func(w *world) *Daemon {
			if _, err := Setup(w.t.Context(), w.config, SetupOptions{}); err != nil {
				w.t.Fatal(err)
			}
			return w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Mode, w.blind = "dry-run", true
			d := w.start()
			number := w.numbers(d)["visit"]
			w.stop(d)
			w.sql(`alter publication ` + w.config.Slot + `_ins drop table visits`)
			from := w.walEnd()
			w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
			till := w.walEnd()
			w.rules(strings.Replace(worldRules, "name: visit", "name: visited\n    was: visit", 1))
			d = notice(w)
			w.lostIn(d, "visited", from.String(), till.String())
			if diff := cmp.Diff(map[string]uint32{"visited": number}, w.numbers(d)); diff != "" {
				t.Errorf("the rules' numbers: %s", diff)
			}
		})
	}
}

// A rule that has another name, and does not fit its table any more either, keeps its number: its matches are known by that.
func TestBrokenUnderAnotherName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	d := w.start()
	before := w.numbers(d)["visit"]
	w.stop(d)
	w.sql(`alter table visits drop column kind`)
	w.rules(strings.Replace(worldRules, "name: visit", "name: visited\n    was: visit", 1))
	d = w.start()
	if diff := cmp.Diff(map[string]uint32{"visited": before}, w.numbers(d)); diff != "" || brokenRule(d, "visited") == nil {
		t.Errorf("the rules' numbers: %s; broken is %+v", diff, brokenRule(d, "visited"))
	}
}

// What a server was seen to publish holds for the one that takes over up to where both are the same: the standby may have lacked the rest, and
// its positions recur.
func TestLookedAtBeforeAFailover(t *testing.T) {
	t.Parallel()
	d := recording(t)
	source := d.source
	source.Checkpoint, source.Verified = 100, 100
	d.batch = newGathering(source)
	d.verify(200)
	if err := d.moved(t.Context(), 2); err != nil || d.batch.verified() != 100 {
		t.Errorf("it is taken for looked at up to %s (%v)", d.batch.verified(), err)
	}
}

// numbers are those that the rules have in the store.
func (w *world) numbers(d *Daemon) map[string]uint32 {
	w.t.Helper()
	all, err := d.store.Rules(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// A table that leaves its publication, and comes back, while a look alters the publication for another table and waits for who has locked
// that one: what was missed is a gap, whoever altered last.
func TestTakenOutWhileItIsAltered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.template("plain.html", plainTemplate)
	w.sql(`create table calls (id int primary key)`)
	w.rules(worldRules + "  - {name: call, on: {table: calls, ops: [delete]}, to: {address: a@example.com}, template: plain}\n")
	for name, alters := range map[string]func(ctx context.Context, d *Daemon) error{
		"a look":   func(ctx context.Context, d *Daemon) error { return d.look(ctx) },
		"a reload": func(ctx context.Context, d *Daemon) error { return d.Reload(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			d := w.start()
			defer w.stop(d)
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			before, beside := len(d.Status().Gaps), pgtest.Connect(t, w.url)
			w.sql(`alter publication ` + w.config.Slot + `_del drop table calls`)
			holder := pgtest.Connect(t, w.url)
			lock, err := holder.Begin(t.Context())
			if err == nil {
				_, err = lock.Exec(t.Context(), `lock table calls in share update exclusive mode`)
			}
			if err != nil {
				t.Fatal(err)
			}
			looked := make(chan error, 1)
			go func() { looked <- alters(t.Context(), d) }()
			w.eventually("it waits for the lock", func() bool {
				var waits bool
				err := beside.QueryRow(t.Context(), `select exists (select from pg_locks where not granted and relation = 'calls'::regclass)`).Scan(&waits)
				return err == nil && waits
			})
			from := w.walEnd()
			w.sql(`alter publication `+w.config.Slot+`_ins drop table visits`, `insert into visits (kind, staff_id) values ('visit', 1)`)
			till := w.walEnd()
			w.sql(`alter publication ` + w.config.Slot + `_ins add table only visits`)
			if err := lock.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-looked; err != nil {
				t.Fatal(err)
			}
			w.eventually("all is well", func() bool { return d.look(t.Context()) == nil && len(d.broken.list()) == 0 })
			w.lostIn(d, "visit", from.String(), till.String())
			if n := len(d.Status().Gaps) - before; n != 2 {
				t.Errorf("%d gaps more: %+v", n, d.Status().Gaps)
			}
		})
	}
}

// A commit is in the log before anybody sees it, with a synchronous standby that does not answer for as long as that takes. What such a commit
// takes out of a publication, or puts in the place of a table, is not streamed from there on, though a look sees the publication as it was: what
// was committed before the look, and behind that, is missed as well.
func TestMissedBehindACommitThatNobodySees(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.at(c)
	w.sql(worldSchema)
	d := w.start()
	for name, ddl := range map[string][]string{
		"taken out":           {`alter publication ` + w.config.Slot + `_ins drop table visits`},
		"published otherwise": {`alter publication ` + w.config.Slot + `_ins set (publish = 'delete')`},
		"replaced":            append([]string{`drop table visits`}, strings.Split(worldSchema, ";")[1], `insert into visits (kind, staff_id) values ('visit', 1)`),
	} {
		t.Run(name, func(t *testing.T) {
			w.eventually("all is well", func() bool { return d.look(t.Context()) == nil && len(d.broken.list()) == 0 })
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			beside := pgtest.Connect(t, w.url)
			w.sql("alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()")
			from := w.walEnd()
			done := make(chan error, 1)
			go func() {
				conn, err := pgx.Connect(context.Background(), w.url)
				if err == nil {
					_, err = conn.Exec(context.Background(), "begin; "+strings.Join(ddl, "; ")+"; commit")
					_ = conn.Close(context.Background())
				}
				done <- err
			}()
			w.eventually("the commit waits for the standby", func() bool {
				var waits bool
				err := beside.QueryRow(t.Context(), `select exists (select from pg_stat_activity where wait_event = 'SyncRep')`).Scan(&waits)
				return err == nil && waits
			})
			if name != "replaced" { // which is locked
				w.sql("set synchronous_commit = local", `insert into visits (kind, staff_id) values ('visit', 1)`)
			}
			till := w.walEnd()
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.sql("set synchronous_commit = local", "alter system reset synchronous_standby_names", "select pg_reload_conf()")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.lostIn(d, "visit", from.String(), till.String())
		})
	}
}

// A table that took another one's name keeps being followed as what it is when it is renamed in its turn: it stays published, and when it is back
// nothing was lost.
func TestRenamedBehindASwap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.sql(`create table a (id int primary key)`, `create table b (id int primary key)`)
	const rule = "  - {name: on_%s, on: {table: %[1]s, ops: [insert]}, to: {address: a@example.com}, template: plain}\n"
	w.rules(worldRules + markRule + fmt.Sprintf(rule, "a") + fmt.Sprintf(rule, "b"))
	d := w.start()
	well := func() {
		t.Helper()
		w.eventually("all is well", func() bool { return d.look(t.Context()) == nil && len(d.broken.list()) == 0 })
	}
	w.sql(`alter table a rename to c`, `alter table b rename to a`, `alter table c rename to b`)
	well()
	before := len(d.Status().Gaps)
	for range 2 {
		w.sql(`alter table a rename to c`)
		for range 2 {
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"b", "c", "visits"}, w.publications()["ins"]); diff != "" {
			t.Errorf("published: %s", diff)
		}
		w.sql(`insert into c values (1)`, `delete from c`, `alter table c rename to a`)
		well()
		w.mark(d)
	}
	for i, g := range d.Status().Gaps[:len(d.Status().Gaps)-before] {
		if g.Lost {
			t.Errorf("gap %d: %+v", i, g)
		}
	}
}

// A table that was renamed stays published, so that nothing of it is lost, also where a view has its name since.
func TestAViewInThePlaceOfATable(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"in one run": false, "with a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Mode, w.blind = "dry-run", true
			w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
			w.rules(worldRules + markRule)
			d := w.start()
			w.mark(d)
			w.sql(`begin; alter table visits rename to visits_v2; create view visits as select * from visits_v2; commit`)
			if restarts {
				w.stop(d)
				d = w.start()
			}
			for range 2 {
				if err := d.look(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff([]string{"visits_v2"}, w.publications()["ins"]); diff != "" {
				t.Errorf("published: %s", diff)
			}
			w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
			w.mark(d)
			w.rules(strings.Replace(worldRules, "table: visits", "table: visits_v2", 1) + markRule)
			if err := d.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.eventually("it decides again", func() bool {
				w.mark(d)
				return d.look(t.Context()) == nil && len(d.broken.list()) == 0 && len(d.Status().Gaps) == 1
			})
			gap := gapOf(d, "visit")
			if gap.Lost {
				t.Fatalf("gap %+v", gap)
			}
			if plan, done := w.replayed(d, ReplayRequest{Gap: gap.ID}); plan.Queue != 1 || done.Added != 1 || len(done.Mended) != 1 {
				t.Errorf("the plan is %+v, and done is %+v", plan, done)
			}
		})
	}
}

// A schema that gets another name gives its tables another one, of which older versions of Postgres say nothing in the stream.
func TestRenamedSchema(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, func(t *testing.T) {
		w := newWorld(t)
		w.config.Mode, w.blind = "dry-run", true
		w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
		w.sql(`create schema s`, `create table s.t (id int primary key)`)
		rules := worldRules + markRule + "  - {name: r, on: {table: s.t, ops: [insert]}, to: {address: a@example.com}, template: plain}\n"
		w.rules(rules)
		d := w.start()
		w.sql(`insert into s.t values (1)`)
		w.mark(d)
		w.sql(`alter schema s rename to z`, `insert into z.t values (2)`)
		w.mark(d)
		if err := d.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.rules(strings.Replace(rules, "s.t", "z.t", 1))
		if err := d.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, before := 2, w.matchesOf(d, "r")
		w.eventually("it decides", func() bool {
			n++
			w.sql(fmt.Sprintf(`insert into z.t values (%d)`, n))
			w.mark(d)
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			return len(d.broken.list()) == 0 && w.matchesOf(d, "r") > before
		})
		for _, g := range d.Status().Gaps {
			if g.Lost || g.To == "" {
				t.Errorf("gap %+v", g)
				continue
			}
			w.replayed(d, ReplayRequest{Gap: g.ID})
		}
		if after := w.matchesOf(d, "r"); after != n {
			t.Errorf("of %d changes %d are matches", n, after)
		}
	})
}
