package daemon

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
)

// sorts are tables of every replica identity, each with one partition or child that shares its fate. The bare ones cannot be
// watched for more than inserts.
var sorts = map[string]struct {
	make []string
	bare bool
}{
	"keyed":   {make: []string{"create table keyed (id int primary key, n int)"}},
	"bare":    {make: []string{"create table bare (id int, n int)"}, bare: true},
	"whole":   {make: []string{"create table whole (id int, n int)", "alter table whole replica identity full"}},
	"nothing": {make: []string{"create table nothing (id int primary key, n int)", "alter table nothing replica identity nothing"}, bare: true},
	"indexed": {make: []string{"create table indexed (id int not null unique, n int)", "alter table indexed replica identity using index indexed_id_key"}},
	"parted":  {make: []string{"create table parted (id int primary key, n int) partition by range (id)", "create table parted_1 partition of parted for values from (0) to (9)"}},
	"loose":   {make: []string{"create table loose (id int, n int) partition by range (id)", "create table loose_1 partition of loose for values from (0) to (9)"}, bare: true},
	"spoilt": {make: []string{
		"create table spoilt (id int primary key, n int) partition by range (id)", "create table spoilt_1 partition of spoilt for values from (0) to (9)",
		"alter table spoilt_1 replica identity nothing",
	}, bare: true},
	"parent": {make: []string{"create table parent (id int primary key, n int)", "create table child () inherits (parent)"}},
}

// statements are what the application does to each table, and how many changes of each operation that makes.
var statements = []string{
	"insert into %s values (1, 1), (2, 2)", "update %s set n = 3 where id = 1", "update %s set id = 3 where id = 1", "delete from %s where id = 3", "truncate %s",
}

var changes = map[cdc.Op]int{cdc.Insert: 2, cdc.Update: 2, cdc.Delete: 1, cdc.Truncate: 1}

var ops = []cdc.Op{cdc.Insert, cdc.Update, cdc.Delete, cdc.Truncate}

// TestPublicationsFollow loads random sets of rules, one after the other, on an application that never pauses. The publications hold
// exactly what the rules need, each change is seen from the reload on, a set that cannot be watched is refused whole; and no statement
// of the application ever fails, or is planned otherwise, because of postman.
func TestPublicationsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	for _, s := range sorts {
		w.sql(s.make...)
	}
	w.rules(written(nil))
	a := &application{t: t, conn: pgtest.Connect(t, w.url), url: w.url}
	a.use()
	plans := a.plans()
	d := w.start()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const rounds = 20
	var live []drawn
	refused := 0
	for range rounds {
		set := draw(random)
		w.rules(written(set))
		pause := a.work()
		err := d.Reload(t.Context())
		pause()
		if want := slices.ContainsFunc(set, drawn.refused); want != (err != nil) || want && !strings.Contains(err.Error(), "REPLICA IDENTITY") && !strings.Contains(err.Error(), "PRIMARY KEY") {
			t.Fatalf("reloading\n%s: %v", written(set), err)
		}
		if err == nil {
			live = set
		} else {
			refused++
		}
		if diff := cmp.Diff(wanted(live), w.publications()); diff != "" {
			t.Fatalf("the publications, after reloading\n%s: %s", written(set), diff)
		}
		before := w.marked(d)
		a.use()
		after := w.marked(d)
		for _, r := range live {
			if got := after[r.name] - before[r.name]; got != r.changes() {
				t.Fatalf("rule %+v saw %d changes; want %d", r, got, r.changes())
			}
		}
		if diff := cmp.Diff(plans, a.plans()); diff != "" {
			t.Fatalf("the application's plans have changed: %s", diff)
		}
	}
	if refused == 0 || refused == rounds {
		t.Errorf("%d of %d sets were refused: too one-sided", refused, rounds)
	}
}

// drawn is a rule at random.
type drawn struct {
	name, table string
	ops         []cdc.Op
}

func (r drawn) refused() bool {
	return sorts[r.table].bare && slices.ContainsFunc(r.ops, func(op cdc.Op) bool { return op != cdc.Insert })
}

func (r drawn) changes() (n int) {
	for _, op := range r.ops {
		n += changes[op]
	}
	return n
}

const mostDrawn = 6

// draw makes a set of rules. Most can be watched.
func draw(random *rand.Rand) (set []drawn) {
	names := slices.Sorted(maps.Keys(sorts))
	for i := range random.IntN(mostDrawn + 1) {
		r := drawn{name: fmt.Sprintf("r%d", i), table: names[random.IntN(len(names))]}
		for _, op := range ops {
			if random.IntN(2) == 0 {
				r.ops = append(r.ops, op)
			}
		}
		if r.refused() && random.IntN(4) > 0 || len(r.ops) == 0 {
			r.ops = []cdc.Op{cdc.Insert}
		}
		set = append(set, r)
	}
	return set
}

// written are the rules, and one that tells when the stream has come to where it is asked.
func written(set []drawn) string {
	text := []string{"rules:\n", markRule}
	for _, r := range set {
		text = append(text, fmt.Sprintf("  - {name: %s, on: {table: %s, ops: [%s]}, to: {address: a@example.com}, template: plain}\n", r.name, r.table, list(r.ops)))
	}
	return strings.Join(text, "")
}

func list(ops []cdc.Op) string {
	var names []string
	for _, op := range ops {
		names = append(names, op.String())
	}
	return strings.Join(names, ", ")
}

// wanted are the tables in each of the publications.
func wanted(set []drawn) map[string][]string {
	want := map[string][]string{"ins": {}, "upd": {}, "del": {}}
	for _, r := range set {
		for _, op := range r.ops {
			which := map[cdc.Op]string{cdc.Insert: "ins", cdc.Update: "upd", cdc.Delete: "del", cdc.Truncate: "del"}[op]
			if !slices.Contains(want[which], r.table) {
				want[which] = append(want[which], r.table)
			}
		}
	}
	for _, tables := range want {
		slices.Sort(tables)
	}
	return want
}

func (w *world) publications() map[string][]string {
	w.t.Helper()
	db, err := cdc.Inspect(w.t.Context(), pgtest.Connect(w.t, w.url), w.config.Slot)
	if err != nil {
		w.t.Fatal(err)
	}
	got := make(map[string][]string)
	for name, p := range db.Publications {
		tables := []string{}
		for t := range p.Tables {
			tables = append(tables, t.String())
		}
		slices.Sort(tables)
		got[strings.TrimPrefix(name, w.config.Slot+"_")] = tables
	}
	return got
}

// marked waits until all that is committed now has been taken in, and counts the matches of each rule.
func (w *world) marked(d *Daemon) map[string]int {
	w.t.Helper()
	w.mark(d)
	byRule := make(map[string]int)
	for i := range mostDrawn {
		name := fmt.Sprintf("r%d", i)
		byRule[name] = w.matchesOf(d, name)
	}
	return byRule
}

// application writes to all tables.
type application struct {
	t    *testing.T
	conn *pgx.Conn
	url  string
}

func each(do func(statement string)) {
	for _, table := range slices.Sorted(maps.Keys(sorts)) {
		for _, s := range statements {
			do(fmt.Sprintf(s, table))
		}
	}
}

func (a *application) use() {
	a.t.Helper()
	each(func(s string) {
		if _, err := a.conn.Exec(a.t.Context(), s); err != nil {
			a.t.Fatalf("the application's %s: %v", s, err)
		}
	})
}

// work has the application work in the background, until it is told to pause.
func (a *application) work() (pause func()) {
	conn, err := pgx.Connect(a.t.Context(), a.url)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(a.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		defer conn.Close(context.WithoutCancel(ctx))
		for ctx.Err() == nil {
			each(func(s string) {
				if _, err := conn.Exec(context.WithoutCancel(ctx), s); err != nil {
					a.t.Errorf("the application's %s: %v", s, err)
				}
				time.Sleep(time.Millisecond) // it has users who think
			})
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// plans are how the application's statements are executed.
func (a *application) plans() map[string]string {
	a.t.Helper()
	plans := make(map[string]string)
	each(func(s string) {
		if strings.HasPrefix(s, "truncate") {
			return
		}
		rows, err := a.conn.Query(a.t.Context(), "explain (verbose, costs off) "+s)
		if err != nil {
			a.t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			a.t.Fatal(err)
		}
		plans[s] = strings.Join(lines, "\n")
	})
	return plans
}

// meek has daemons connect by a role that may read and stream, and may not alter the publications.
func (w *world) meek() {
	w.t.Helper()
	role := "meek_" + w.config.Slot
	w.sql("create role "+role+" login replication", "grant select on all tables in schema public to "+role)
	w.t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.url)
		if err == nil {
			_, err = conn.Exec(context.Background(), "drop owned by "+role+"; drop role "+role)
			conn.Close(context.Background())
		}
		if err != nil {
			w.t.Error(err)
		}
	})
	w.config.DatabaseURL = Secret(strings.Replace(w.url, "postgres@", role+"@", 1))
}

// asked is what an error asks a DBA to run.
func (w *world) asked(err error) (run []string) {
	w.t.Helper()
	if err == nil {
		w.t.Fatal("it may alter the publications")
	}
	_, sql, found := strings.Cut(err.Error(), "DBA")
	_, sql, _ = strings.Cut(sql, "\n\n")
	sql, _, _ = strings.Cut(sql, "\n\n")
	for line := range strings.Lines(sql) {
		if line = strings.TrimSpace(line); line != "" {
			run = append(run, line)
		}
	}
	if !found || len(run) == 0 {
		w.t.Fatalf("nothing for a DBA to run: %v", err)
	}
	return run
}

// A role that may not alter the publications says what a DBA has to run, at the start and at a reload, and the old rules stay live
// until that is done.
func TestADBAsPublications(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql("create table calls (id int primary key)")
	w.meek()
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	d := w.start()
	if gaps := d.Status().Gaps; len(gaps) != 0 {
		t.Errorf("what a DBA made as asked is a gap: %+v", gaps)
	}
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.rules(worldRules + "  - {name: call, on: {table: calls, ops: [insert, update]}, to: {address: a@example.com}, template: plain}\n")
	run := w.asked(d.Reload(t.Context()))
	if want := []string{
		fmt.Sprintf(`ALTER PUBLICATION "%s_ins" ADD TABLE ONLY "public"."calls";`, w.config.Slot), fmt.Sprintf(`ALTER PUBLICATION "%s_upd" ADD TABLE ONLY "public"."calls";`, w.config.Slot),
	}; !slices.Equal(run, want) {
		t.Errorf("the reload asks for %q", run)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into calls values (1)`)
	w.messages(d, 1)
	if n := d.Status().Rules.Rules; n != 1 {
		t.Errorf("%d rules are live; the reload was refused", n)
	}
	w.sql(run...)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into calls values (2)`)
	w.messages(d, 2)
}

// A gap of the whole stream ends the gaps of rules before it; those of rules that are still broken begin anew behind it.
func TestAnAcceptedGapEndsBreakages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`alter table visits drop column kind`, `insert into visits (staff_id) values (1)`)
	w.eventually("the stream notices", func() bool { return brokenRule(d, "visit") != nil })
	w.covered(d)
	w.stop(d)
	w.sql(fmt.Sprintf(`select pg_drop_replication_slot('%s')`, w.config.Slot), `alter table visits add column kind text`)
	if _, err := Setup(t.Context(), w.config, SetupOptions{AcceptGap: true}); err != nil {
		t.Fatal(err)
	}
	w.sql(`alter table visits drop column kind`)
	d = w.start()
	gaps := d.Status().Gaps
	if len(gaps) != 3 || gaps[0].Rule != "visit" || gaps[0].To != "" || gaps[1].Rule != "" || gaps[2].Rule != "visit" || gaps[2].To == "" {
		t.Errorf("gaps %+v", gaps)
	}
}
