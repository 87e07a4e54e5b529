package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

// schemaCase is what happens to a table while a rule of the same name watches it. In its SQL, T stands for the table, S for a schema
// and P for the publications' prefix.
type schemaCase struct {
	make []string // the table; plainTable
	ops  string   // of the rule; insert
	when string   // of the rule; new.kind == "a"
	row  string   // inserts a row that matches; plainRow

	alter   []string
	touch   string   // a change that follows: then the stream notices, and else the look
	broken  string   // why the rule is broken then; empty: it is not
	lost    bool     // what it misses is lost
	use     []string // what the application must be able to do then
	reload  string   // a condition that the rule gets then
	refused string   // why it could not have that before the table was altered

	mend []string // what mends it; empty, though broken: the look does
	cost bool     // it loses something all the same
	last string   // inserts a row that matches at last; row
}

var (
	plainTable = []string{"create table T (id int generated always as identity primary key, kind text, n int)"}
	enumTable  = []string{"create type T_kind as enum ('a', 'b')", "create table T (id int generated always as identity primary key, kind T_kind)"}
	partTable  = []string{"create table T (id int primary key, kind text) partition by range (id)", "create table T_1 partition of T for values from (0) to (10)"}
)

const (
	plainRow = "insert into T (kind, n) values ('a', 7)"
	kindRow  = "insert into T (kind) values ('a')"
	numRow   = "insert into T (n) values (7)"
)

var schemaCases = map[string]schemaCase{
	"add_column": {alter: []string{"alter table T add column extra text"}, touch: plainRow, reload: `new.extra == nil`, refused: "no column extra"},
	"drop_other": {alter: []string{"alter table T drop column n"}, touch: kindRow, last: kindRow},
	"drop_used": {
		alter: []string{"alter table T drop column kind"}, touch: numRow, broken: "no column kind",
		mend: []string{"alter table T add column kind text"},
	},
	"drop_unnoticed": {
		alter: []string{"alter table T drop column kind"}, broken: "no column kind",
		mend: []string{"alter table T add column kind text"},
	},
	"rename_column": {
		alter: []string{"alter table T rename column kind to sort"}, touch: numRow, broken: "no column kind",
		mend: []string{"alter table T rename column sort to kind"},
	},
	"type_fits": {when: "new.n > 5", alter: []string{"alter table T alter column n type bigint"}, touch: plainRow},
	"type_unfit": {
		when: "new.n > 5", alter: []string{"alter table T alter column n type text"}, touch: plainRow, broken: "new.n is text",
		mend: []string{"alter table T alter column n type int using n::int"},
	},
	"rename_table": {
		alter: []string{"alter table T rename to T_old"}, touch: "insert into T_old (kind) values ('a')", broken: "is called T_old now",
		mend: []string{"alter table T_old rename to T"},
	},
	"rename_quietly": {alter: []string{"alter table T rename to T_old"}, broken: "no table T", mend: []string{"alter table T_old rename to T"}},
	"move_schema": {
		alter: []string{"create schema S", "alter table T set schema S"}, touch: "insert into S.T (kind) values ('a')", broken: "is called S.T now",
		mend: []string{"alter table S.T set schema public"},
	},
	"enum_add": {
		make: enumTable, row: kindRow, alter: []string{"alter type T_kind add value 'c'"}, touch: kindRow,
		reload: `new.kind in ["a", "c"]`, refused: `"c" is no label`, last: "insert into T (kind) values ('c')",
	},
	"enum_rename": {
		make: enumTable, row: kindRow, alter: []string{"alter type T_kind rename value 'a' to 'z'"}, broken: `"a" is no label`,
		mend: []string{"alter type T_kind rename value 'z' to 'a'"},
	},
	"made_again": {alter: append([]string{"drop table T"}, plainTable...), broken: "was not published", lost: true},
	"made_anew": {
		alter: []string{"drop table T", "create table T (id int generated always as identity primary key, n int)"}, broken: "was not published", lost: true,
		mend: []string{"alter table T add column kind text"},
	},
	"dropped":     {alter: []string{"drop table T"}, broken: "no table T", mend: plainTable, cost: true},
	"unpublished": {alter: []string{"alter publication P_ins drop table T"}, broken: "was not published", lost: true},
	"identity": {
		make: append(slices.Clone(plainTable), "alter table T replica identity full"), ops: "insert, update", when: `old.kind == "a" or op == "insert"`,
		alter: []string{"alter table T replica identity default"}, touch: "update T set n = n + 1", broken: "old.kind",
		mend: []string{"alter table T replica identity full"},
	},
	"no_identity": {
		ops: "insert, update", alter: []string{"alter table T replica identity nothing"}, broken: "cannot be watched", lost: true,
		use: []string{"update T set n = n + 1"}, mend: []string{"alter table T replica identity default"},
	},
	"attached": {
		make: partTable, row: "insert into T values (1, 'a')", ops: "insert, update",
		alter: []string{"create table T_2 (id int primary key, kind text)", "alter table T attach partition T_2 for values from (10) to (20)"},
		last:  "insert into T values (11, 'a')",
	},
	"attached_bare": {
		make: partTable, row: "insert into T values (1, 'a')", ops: "insert, update",
		alter: []string{
			"create table T_2 (id int primary key, kind text)", "alter table T_2 replica identity nothing",
			"alter table T attach partition T_2 for values from (10) to (20)",
		},
		broken: "cannot be watched", lost: true, use: []string{"insert into T_2 values (12, 'b')", "update T set kind = 'c' where id = 12"},
		mend: []string{"alter table T_2 replica identity default"}, last: "insert into T values (13, 'a')",
	},
	"root_identity": { // harms nobody: the table stays published, and the rule decides again once old rows are told as they are
		make: partTable, row: "insert into T values (1, 'a')", ops: "insert, update", alter: []string{"alter table T replica identity full"},
		broken: "cannot be watched", mend: []string{"alter table T replica identity default"}, last: "insert into T values (2, 'a')",
	},
	"detached": {
		make: append(slices.Clone(partTable), "create table T_2 partition of T for values from (10) to (20)"), row: "insert into T values (1, 'a')",
		ops: "insert, update", alter: []string{"alter table T detach partition T_2"}, use: []string{"insert into T_2 values (12, 'a')"}, last: "insert into T values (2, 'a')",
	},
}

// TestSchemaChanges alters tables in every way while rules watch them, all in one database. Each rule must go on, or be broken alone,
// from where it is on, and decide again where it fits.
func TestSchemaChanges(t *testing.T) {
	t.Parallel()
	s := &schemaWorld{world: newWorld(t), rules: make(map[string]string)}
	s.config.Mode, s.also, s.blind = "dry-run", &s.notes, true
	s.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	for name, c := range schemaCases {
		if c.make == nil {
			c.make = plainTable
		}
		for _, statement := range c.make {
			s.sql(s.fill(name, statement))
		}
		s.rules[name] = schemaRule(name, c.ops, c.when)
	}
	s.sql("create table steady (id int)")
	s.rules["steady"] = schemaRule("steady", "", "true")
	s.rules["mark"] = markRule
	s.write()
	s.daemon = s.start()
	for _, name := range slices.Sorted(maps.Keys(schemaCases)) {
		t.Run(name, func(t *testing.T) {
			r := &schemaRun{schemaWorld: s, t: t, name: name, schemaCase: schemaCases[name]}
			r.row = cmp.Or(r.row, plainRow)
			r.run()
		})
	}
	if status := s.daemon.Status(); !status.Healthy || len(status.Rules.Broken) > 0 {
		t.Errorf("status at last: %v %+v", status.Trouble, status.Rules)
	}
}

// schemaWorld is the world of all cases, and its daemon.
type schemaWorld struct {
	*world
	daemon   *Daemon
	notes    notebook
	rules    map[string]string
	steady   int
	restarts bool // the daemon does, once a rule is broken and while that is mended
}

// notebook keeps what a daemon logs.
type notebook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(p)
}

func (n *notebook) count(text string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.text.String(), text)
}

func schemaRule(name, ops, when string) string {
	return fmt.Sprintf("  - {name: %[1]s, on: {table: %[1]s, ops: [%[2]s]}, when: '%[3]s', to: {address: a@example.com}, template: plain}\n",
		name, cmp.Or(ops, "insert"), cmp.Or(when, `new.kind == "a"`))
}

func (s *schemaWorld) write() {
	lines := []string{"rules:\n"}
	for _, name := range slices.Sorted(maps.Keys(s.rules)) {
		lines = append(lines, s.rules[name])
	}
	s.world.rules(strings.Join(lines, ""))
}

func (s *schemaWorld) fill(name, sql string) string {
	return strings.NewReplacer("T_", name+"_", "T", name, "S", name+"_schema", "P", s.config.Slot).Replace(sql)
}

// schemaRun is one case.
type schemaRun struct {
	*schemaWorld
	schemaCase
	t             *testing.T
	name          string
	before, after position.LSN // the altering
}

func (r *schemaRun) run() {
	r.sql(r.row)
	r.matched(1, "before anything happens")
	r.look()
	if r.refused != "" {
		r.refuses()
	}
	r.before = r.walEnd()
	r.sql(r.alter...)
	if r.touch != "" {
		r.sql(r.touch, r.touch)
		r.mark(r.daemon)
	}
	r.after = r.walEnd()
	if r.touch == "" {
		r.look()
		r.after = r.walEnd() // no change came that does not fit: the stream would have it begin earlier
	}
	r.sql(r.use...)
	seen := r.judge()
	r.sql("insert into steady values (1)")
	r.steady++
	if n := r.matches("steady"); n != r.steady {
		r.t.Errorf("%d matches of another rule; want %d", n, r.steady)
	}
	r.matched(seen, "once it was altered")
	r.sql(r.mend...)
	if r.reload != "" {
		r.reloads(r.reload, nil)
	}
	r.look()
	mended := r.walEnd()
	r.sql(cmp.Or(r.last, r.row))
	r.matched(seen+1, "at last")
	r.whole()
	if r.broken != "" {
		r.ended(mended)
	}
}

func (r *schemaRun) sql(statements ...string) {
	r.t.Helper()
	for _, s := range statements {
		pgtest.Exec(r.t, r.url, r.fill(r.name, s))
	}
}

func (r *schemaRun) look() {
	r.t.Helper()
	if err := r.daemon.look(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *schemaRun) matches(rule string) int {
	r.t.Helper()
	r.mark(r.daemon)
	return r.matchesOf(r.daemon, rule)
}

func (r *schemaRun) matched(want int, when string) {
	r.t.Helper()
	if n := r.matches(r.name); n != want {
		r.t.Fatalf("%d matches %s; want %d", n, when, want)
	}
}

// reloads gives the rule another condition.
func (r *schemaRun) reloads(when string, check func(error)) {
	r.t.Helper()
	r.rules[r.name] = schemaRule(r.name, r.ops, when)
	r.write()
	err := r.daemon.Reload(r.t.Context())
	if check != nil {
		check(err)
	} else if err != nil {
		r.t.Fatal(err)
	}
}

func (r *schemaRun) refuses() {
	r.t.Helper()
	r.reloads(r.reload, func(err error) {
		if err == nil || !strings.Contains(err.Error(), r.refused) {
			r.t.Errorf("the rule is reloaded before its time: %v", err)
		}
	})
	r.reloads(r.when, nil)
}

// judge looks at what is said of the rule after its table was altered, and returns how many matches it has to have by then.
func (r *schemaRun) judge() (matches int) {
	r.t.Helper()
	b := brokenRule(r.daemon, r.name)
	switch {
	case r.broken == "" && b != nil:
		r.t.Fatalf("it is broken: %+v", b)
	case r.broken == "" && r.touch != "":
		return 3
	case r.broken == "":
		return 1
	case r.mend == nil:
		return 1 // it may be whole again
	case b == nil:
		r.t.Fatalf("it is not broken; want %q", r.fill(r.name, r.broken))
	}
	if want := r.fill(r.name, r.broken); !strings.Contains(b.Reason, want) || b.Lost != r.lost {
		r.t.Errorf("it is broken: %+v; want %q, lost %v", b, want, r.lost)
	}
	from := lsn(r.t, b.From)
	if r.touch != "" && from <= r.before || from > r.after {
		r.t.Errorf("it is broken from %s; it was altered between %s and %s", from, r.before, r.after)
	}
	if gap := gapOf(r.daemon, r.name); gap.To != "" || gap.From != b.From || gap.Lost != r.lost {
		r.t.Errorf("gap %+v", gap)
	}
	if command := replayCommand(gapOf(r.daemon, r.name).ID); !r.lost && b.Mend != command {
		r.t.Errorf("%q is to mend it, and not %q", b.Mend, command)
	}
	r.look() // is no news
	if n := r.notes.count(fmt.Sprintf(`rule \"%s\" is broken`, r.name)); n != 1 {
		r.t.Errorf("it was told %d times", n)
	}
	return 1
}

// whole waits until nothing is said of the rule any more.
func (r *schemaRun) whole() {
	r.t.Helper()
	r.eventually("nothing is broken", func() bool { r.look(); return brokenRule(r.daemon, r.name) == nil })
}

// ended checks where the gap ends: behind all that was missed, and not behind what was not.
func (r *schemaRun) ended(mended position.LSN) {
	r.t.Helper()
	gap := gapOf(r.daemon, r.name)
	if to := lsn(r.t, gap.To); to <= r.before || r.touch != "" && to < r.after || to > r.walEnd() || gap.Lost != (r.lost || r.cost) {
		r.t.Errorf("gap %+v; it was altered at %s, and mended at %s", gap, r.after, mended)
	}
	if command := replayCommand(gap.ID); !gap.Lost && (gap.Mend != command || r.notes.count(`missed="`+command+`"`) != 1) {
		r.t.Errorf("the gap is mended by %q, and that was told %d times", gap.Mend, r.notes.count(command))
	}
}

func lsn(t *testing.T, text string) position.LSN {
	t.Helper()
	at, err := position.ParseLSN(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return at
}

func brokenRule(d *Daemon, rule string) *BrokenRule {
	for _, b := range d.Status().Rules.Broken {
		if b.Rule == rule {
			return &b
		}
	}
	return nil
}

// gapOf is the newest gap of a rule; none is a zero one.
func gapOf(d *Daemon, rule string) GapStatus {
	for _, g := range d.Status().Gaps {
		if g.Rule == rule {
			return g
		}
	}
	return GapStatus{}
}

func (w *world) walEnd() position.LSN {
	w.t.Helper()
	conn := pgtest.Connect(w.t, w.url)
	defer conn.Close(context.Background())
	var end string
	if err := conn.QueryRow(w.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		w.t.Fatal(err)
	}
	return lsn(w.t, end)
}
