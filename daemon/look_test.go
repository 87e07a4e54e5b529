package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
)

// A walsender that does not get on is no reason to believe that there is nothing to get on with.
func TestBehindIsTheServersWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql("create table bulk (x text)")
	w.covered(d)
	var sender int
	if err := pgtest.Connect(t, w.url).QueryRow(t.Context(), "select active_pid from pg_replication_slots where slot_name = $1", w.config.Slot).Scan(&sender); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(sender, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = syscall.Kill(sender, syscall.SIGCONT) }
	t.Cleanup(goOn)
	w.sql("insert into bulk select repeat('x', 1000) from generate_series(1, 3000)")
	if err := d.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.Status().Stream; s.Behind < 3_000_000 || time.Since(s.ServerSeen) > time.Minute {
		t.Errorf("%+v; want 3 MB behind", s)
	}
	goOn()
	w.covered(d)
	w.eventually("not behind", func() bool { return d.Status().Stream.Behind == 0 })
}

// What is broken stays known through a restart, is told once, and is whole again without anybody's reload when the database is.
func TestBreakagesOutliveTheProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also = notes
	w.config.Mode = "dry-run"
	d := w.start()
	w.sql(`alter table visits drop column kind`, `insert into visits (staff_id) values (1)`)
	w.eventually("the stream notices", func() bool { return brokenRule(d, "visit") != nil })
	w.covered(d)
	w.stop(d)
	for range 2 { // the catalog does not bear the rule; what the stream brings does not matter
		d = w.start()
		w.sql(`insert into visits (staff_id) values (1)`)
		w.covered(d)
		if err := d.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b := brokenRule(d, "visit"); b == nil || len(d.Status().Gaps) != 1 {
			t.Errorf("broken %+v, gaps %+v", b, d.Status().Gaps)
		}
		if diff := cmp.Diff([]string{"visits"}, w.publications()["ins"]); diff != "" {
			t.Errorf("what it misses is not published any more: %s", diff)
		}
		w.stop(d)
	}
	d = w.start()
	before := gapOf(d, "visit")
	w.sql(`alter table visits add column kind text`)
	w.eventually("whole again", func() bool { return d.look(t.Context()) == nil && brokenRule(d, "visit") == nil })
	after := gapOf(d, "visit")
	if after.From != before.From || after.To == "" || lsn(t, after.To) > w.walEnd() || len(d.Status().Gaps) != 1 {
		t.Errorf("gaps %+v; was %+v", d.Status().Gaps, before)
	}
	if n := notes.count(`rule \"visit\" is broken`); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
	// A rule that is broken and then deleted leaves no open gap behind.
	w.sql(`alter table visits drop column kind`, `insert into visits (staff_id) values (1)`)
	w.eventually("the stream notices", func() bool { return brokenRule(d, "visit") != nil })
	w.rules("rules: []\n")
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (staff_id) values (1)`)
	w.eventually("the gap ends with the rule", func() bool { return gapOf(d, "visit").To != "" && brokenRule(d, "visit") == nil })
}

// A reload says from where on a rule that is new or changed decides.
func TestNewRulesSayFromWhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also = notes
	w.sql("create table calls (id int primary key)")
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
	if fresh := d.Status().Rules.New; len(fresh) > 0 {
		t.Errorf("at the first start %v are new", fresh)
	}
	before := w.walEnd()
	w.rules(strings.Replace(worldRules, "name: visit", "name: visited\n    was: visit", 1) + `
  - {name: same, on: {table: visits, ops: [insert]}, to: {address: a@example.com}, template: plain}
  - {name: call, on: {table: calls, ops: [insert]}, to: {address: a@example.com}, template: plain}
`)
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	for range 2 { // the second time before anything has been decided by the first
		if err := d.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.sql(`insert into calls values (1)`)
	committed := w.walEnd()
	w.matches(d, 2, outbox.MatchExpanded)
	s := d.Status().Rules
	var names []string
	for _, n := range s.New {
		names = append(names, n.Rule)
		if from := lsn(t, n.From); from < before || from > committed {
			t.Errorf("rule %s decides from %s; that was to be between %s and %s", n.Rule, n.From, before, committed)
		}
		if notes.count("rule="+n.Rule+" from="+n.From) != 1 {
			t.Errorf("of rule %s the log says nothing", n.Rule)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"call", "same", "visited"}, names); diff != "" {
		t.Errorf("new rules: %s", diff)
	}
	again := s.New
	if err := d.Reload(t.Context()); err != nil { // of which nothing is news
		t.Fatal(err)
	}
	w.sql(`insert into calls values (2)`)
	w.matches(d, 3, outbox.MatchExpanded)
	if diff := cmp.Diff(again, d.Status().Rules.New); diff != "" {
		t.Errorf("another reload has changed what is new: %s", diff)
	}
	if n := notes.count("a rule is new or changed"); n != 3 { // and not visit, which was there before the slot was
		t.Errorf("%d rules were told to be new or changed", n)
	}
}

// A table that is made again, or taken out of its publication, while no daemon runs is noticed by the next one.
func TestMissedWhileAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also = notes
	w.sql(`create table calls (id int primary key)`, `create table quiet (id int primary key)`)
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	const others = `
  - {name: call, on: {table: calls, ops: [insert, delete]}, to: {address: a@example.com}, template: plain}
  - {name: quiet, on: {table: quiet, ops: [insert]}, to: {address: a@example.com}, template: plain}
`
	w.rules(worldRules + others)
	d := w.start()
	w.covered(d)
	w.stop(d)
	w.sql(`drop table visits`, strings.Split(worldSchema, ";")[1], `alter publication `+w.config.Slot+`_del drop table calls`)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into calls values (1)`, `delete from calls`)
	away := w.walEnd()
	// A rule that is new misses nothing, on whichever table.
	w.rules(worldRules + others + "  - {name: fresh, on: {table: quiet, ops: [insert, update]}, to: {address: a@example.com}, template: plain}\n")
	d = w.start()
	for _, rule := range []string{"visit", "call"} {
		gap := gapOf(d, rule)
		if !gap.Lost || notes.count(`rule \"`+rule+`\" is broken`) != 1 {
			t.Errorf("gap %+v of rule %s", gap, rule)
		}
		w.eventually("the gap ends", func() bool { return d.look(t.Context()) == nil && gapOf(d, rule).To != "" })
		if gap = gapOf(d, rule); lsn(t, gap.To) < away {
			t.Errorf("the gap %+v ends before %s", gap, away)
		}
	}
	if n := len(d.Status().Gaps); n != 2 {
		t.Errorf("gaps %+v", d.Status().Gaps)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into calls values (2)`, `delete from calls`)
	w.messages(d, 4) // the one insert of a call before the start was streamed
}

// What left its publication while a daemon ran that died before it looked again was missed from then on, however far the stream came since with
// other tables: the gap begins where the table was last seen to be published.
func TestMissedBeforeADeath(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.sql(`create type mood as enum ('good', 'bad')`, `create table calls (id int, mood mood)`)
	w.rules(worldRules + markRule + `
  - {name: call, on: {table: calls, ops: [insert]}, when: new.mood == "good", to: {address: a@example.com}, template: plain}
`)
	d := w.start()
	w.mark(d)
	if err := d.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mark(d) // which takes with it where that was
	before := w.walEnd()
	w.sql(`alter publication `+w.config.Slot+`_ins drop table visits`, `insert into visits (kind, staff_id) values ('visit', 1)`,
		`alter type mood rename value 'good' to 'fine'`, `insert into calls values (1, 'fine')`)
	w.mark(d)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	_ = d.Stop(now)
	d = w.start()
	for _, rule := range []string{"visit", "call"} {
		if gap := gapOf(d, rule); gap.From == "" || lsn(t, gap.From) > before || gap.Lost != (rule == "visit") {
			t.Errorf("the gap of %s is %+v; what it missed came behind %s", rule, gap, before)
		}
	}
}

// A table that is made again, and published again by whoever did so, has lost what happened in between all the same: while a daemon
// runs, and while none does.
func TestTableMadeAgainAndPublished(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "while it runs", false: "while none does"}[running], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.start()
			w.covered(d)
			if err := d.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.reloading.Lock() // no look comes in between
			held := sync.OnceFunc(d.reloading.Unlock)
			defer held()
			if !running {
				held()
				w.stop(d)
			}
			w.sql(`drop table visits`, strings.Split(worldSchema, ";")[1], `insert into visits (kind, staff_id) values ('visit', 1)`,
				`alter publication `+w.config.Slot+`_ins add table visits`)
			away := w.walEnd()
			if held(); !running {
				d = w.start()
			}
			w.eventually("the loss is recorded, and ends", func() bool {
				return d.look(t.Context()) == nil && len(d.Status().Gaps) == 1 && gapOf(d, "visit").To != ""
			})
			if gap := gapOf(d, "visit"); !gap.Lost || lsn(t, gap.To) < away {
				t.Errorf("gap %+v, and the table was published at %s", gap, away)
			}
			for range 2 { // once
				if err := d.look(t.Context()); err != nil || len(d.Status().Gaps) != 1 {
					t.Errorf("gaps %+v, %v", d.Status().Gaps, err)
				}
			}
			w.stop(d)
			if d = w.start(); len(d.Status().Gaps) != 1 {
				t.Errorf("after another start: gaps %+v", d.Status().Gaps)
			}
		})
	}
}

// A setup between two runs, which mends the publications, records what the rules have missed until then.
func TestSetupRecordsWhatWasMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.covered(d)
	w.stop(d)
	w.sql(`drop table visits`, strings.Split(worldSchema, ";")[1], `insert into visits (kind, staff_id) values ('visit', 1)`)
	away := w.walEnd()
	done, err := Setup(t.Context(), w.config, SetupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(done, func(line string) bool { return strings.HasPrefix(line, "rule visit has missed changes since") }) {
		t.Errorf("it said %q", done)
	}
	d = w.start()
	if gap := gapOf(d, "visit"); !gap.Lost || len(d.Status().Gaps) != 1 {
		t.Errorf("gaps %+v", d.Status().Gaps)
	}
	w.eventually("the gap ends", func() bool { return d.look(t.Context()) == nil && gapOf(d, "visit").To != "" })
	if gap := gapOf(d, "visit"); lsn(t, gap.To) < away {
		t.Errorf("the gap %+v ends before %s", gap, away)
	}
}

// A look by a role that may not alter the publications says what a DBA has to run, and notices all the same what else is new. What is
// missed until that is run has a gap from the last look on at which all was well, and nothing else is lost. No change came of the table that lost
// a column: what its rule misses begins with the look, or else with the first change that does not fit.
func TestALookThatMayNotAlter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also, w.blind = notes, true
	w.sql("create table calls (id int generated always as identity primary key, kind text)", "create table steady (id int)")
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.rules(worldRules + markRule + `
  - {name: call, on: {table: calls, ops: [insert]}, when: new.kind == "a", to: {address: a@example.com}, template: plain}
  - {name: steady, on: {table: steady, ops: [insert]}, to: {address: a@example.com}, template: plain}
`)
	w.meek()
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	d := w.start()
	if err := d.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	well := w.walEnd()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`) // is streamed, gap or not
	w.sql(`alter publication `+w.config.Slot+`_ins drop table visits`, `alter table calls drop column kind`)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
	away := w.walEnd()
	for range 2 {
		err := d.look(t.Context())
		looked := w.walEnd()
		want := fmt.Sprintf(`ALTER PUBLICATION "%s_ins" ADD TABLE ONLY "public"."visits";`, w.config.Slot)
		if run := w.asked(err); !slices.Equal(run, []string{want}) {
			t.Errorf("it asks for %q", run)
		}
		visit, call := brokenRule(d, "visit"), brokenRule(d, "call")
		if visit == nil || !visit.Lost || lsn(t, visit.From) > well {
			t.Fatalf("the rule that is not published: %+v; all was well at %s", visit, well)
		}
		if call == nil || call.Lost || !strings.Contains(call.Reason, "no column kind") || lsn(t, call.From) > looked {
			t.Fatalf("the rule that the catalog does not bear: %+v", call)
		}
		for _, rule := range []string{"visit", "call"} {
			if gap := gapOf(d, rule); gap.To != "" || notes.count(`rule \"`+rule+`\" is broken`) != 1 {
				t.Errorf("gap %+v; told %d times", gap, notes.count(`rule \"`+rule+`\" is broken`))
			}
		}
		w.sql(`insert into steady values (1)`, `insert into calls default values`)
	}
	d.lookNow(t.Context()) // as the daemon does by itself
	if s := d.Status(); !s.Healthy || !strings.Contains(strings.Join(s.Trouble, "\n"), "ALTER PUBLICATION") || notes.count("ADD TABLE ONLY") == 0 {
		t.Errorf("status: healthy %v, trouble %q", s.Healthy, s.Trouble)
	}
	w.mark(d)
	if visits, steady := w.matchesOf(d, "visit"), w.matchesOf(d, "steady"); visits != 1 || steady != 2 {
		t.Errorf("%d matches of the rule before it was broken, %d of another", visits, steady)
	}
	w.sql(w.asked(d.look(t.Context()))...)
	w.sql(`alter table calls add column kind text`)
	mended := w.walEnd()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into calls (kind) values ('a')`)
	w.eventually("all is well again", func() bool {
		w.mark(d)
		d.lookNow(t.Context())
		return d.Status().Healthy && len(d.broken.list()) == 0
	})
	for _, rule := range []string{"visit", "call"} {
		if gap := gapOf(d, rule); gap.Lost != (rule == "visit") || lsn(t, gap.To) < away || rule == "visit" && lsn(t, gap.To) < mended {
			t.Errorf("the gap %+v; what it missed was over at %s", gap, mended)
		}
	}
	if len(d.Status().Gaps) != 2 {
		t.Errorf("gaps %+v", d.Status().Gaps)
	}
	if visits, calls := w.matchesOf(d, "visit"), w.matchesOf(d, "call"); visits != 2 || calls != 1 {
		t.Errorf("%d visits, %d calls once all is well", visits, calls)
	}
}

// A rule follows its table to a new name: it decides again from there on, and what it missed between was published all the time.
func TestRuleFollowsItsTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `alter table visits rename to viewings`, `insert into viewings (kind, staff_id) values ('visit', 1)`)
	w.eventually("the stream notices", func() bool { return brokenRule(d, "visit") != nil })
	if err := d.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"viewings"}, w.publications()["ins"]); diff != "" {
		t.Errorf("published: %s", diff)
	}
	w.rules(strings.Replace(worldRules, "table: visits", "table: viewings", 1))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into viewings (kind, staff_id) values ('visit', 2)`)
	w.messages(d, 2)
	w.eventually("it is whole", func() bool { return brokenRule(d, "visit") == nil && gapOf(d, "visit").To != "" })
	if gap := gapOf(d, "visit"); gap.Lost || len(d.Status().Gaps) != 1 {
		t.Errorf("gaps %+v", d.Status().Gaps)
	}
}
