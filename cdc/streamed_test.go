package cdc

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

// pair streams one database twice: in parts, with hardly any memory on the server, and whole. What both hand over must be the same.
type pair struct {
	t            testing.TB
	url          string
	parts, whole *recorder
	seen         int // transactions that were compared
}

// parted are settings of a connection whose large transactions are streamed early: those that exceed 64 KiB, or all where the server can.
func parted(t testing.TB, url string) (settings []string) {
	t.Helper()
	settings = []string{"&logical_decoding_work_mem=64kB"}
	for _, name := range []string{"logical_replication_mode", "debug_logical_replication_streaming"} { // 16; 17 and later
		var there bool
		if err := pgtest.Connect(t, url).QueryRow(t.Context(), "select exists (select from pg_settings where name = $1)", name).Scan(&there); err != nil {
			t.Fatal(err)
		}
		if there {
			settings = append(settings, "&"+name+"=immediate")
		}
	}
	return settings
}

// newPair makes the tables, and one named ballast: rows of it fill the server's memory, and are not published.
func newPair(t testing.TB, settings string, needs []Need, statements ...string) *pair {
	t.Helper()
	p := &pair{t: t, url: pgtest.Database(t), parts: newRecorder(t), whole: newRecorder(t)}
	pgtest.Exec(t, p.url, append(statements, "create table ballast (x text)",
		"create function fill() returns void language sql as $$insert into ballast select repeat('x', 1000) from generate_series(1, 70)$$")...)
	slot, start := provide(t, p.url, needs...)
	run(t, Options{URL: p.url + settings, Slot: slot, Start: start}, p.parts)
	p.whole.whole = true
	second := "whole_" + slot
	publish(t, p.url, second, needs...)
	start, err := CreateSlot(t.Context(), p.url, second)
	if err != nil {
		t.Fatal(err)
	}
	run(t, Options{URL: p.url, Slot: second, Start: start}, p.whole)
	return p
}

// same compares what came up to a message that it emits itself, and returns that of the streamed one.
func (p *pair) same() []transaction {
	p.t.Helper()
	pgtest.Exec(p.t, p.url, "select pg_logical_emit_message(true, 'postman.end', '')")
	var got [2][]transaction
	for i, r := range []*recorder{p.parts, p.whole} {
		r.await("the end", func() bool {
			n := len(r.done)
			return n > p.seen && r.done[n-1].Changes[0].Prefix == "postman.end"
		})
		r.mu.Lock()
		got[i] = slices.Clone(r.done[p.seen:])
		r.mu.Unlock()
	}
	if diff := cmp.Diff(got[1], got[0]); diff != "" {
		p.t.Errorf("whole (-) and in parts (+) differ: %s", diff)
	}
	if p.parts.discarded+p.whole.discarded > 0 && p.parts.restarts == 1 {
		p.t.Error("something was discarded")
	}
	p.seen += len(got[0])
	return got[0][:len(got[0])-1]
}

// undisturbed checks that one session has read it all: what it does not understand is asked for again.
func (p *pair) undisturbed() {
	p.t.Helper()
	if p.parts.restarts != 1 {
		p.t.Errorf("%d sessions; nothing in this history calls for a second one", p.parts.restarts)
	}
}

// slowly runs statements on one connection, and waits after those that fill the server's memory until what came before them was
// streamed: what the server finds rolled back by then, it does not send at all.
func (p *pair) slowly(statements ...string) {
	p.t.Helper()
	conn := pgtest.Connect(p.t, p.url)
	changes := 0
	p.parts.await("", func() bool { changes = p.parts.changed; return true })
	for _, sql := range statements {
		if _, err := conn.Exec(p.t.Context(), sql); err != nil {
			p.t.Fatalf("%s: %v", sql, err)
		}
		changes += strings.Count(sql, "insert into") + strings.Count(sql, "emit_message")
		if strings.Contains(sql, "fill") {
			p.parts.await("the changes", func() bool { return p.parts.changed >= changes })
		}
	}
	p.parts.await("all changes", func() bool { return p.parts.changed >= changes })
}

// ids are those of the rows that a transaction's changes made.
func ids(tx transaction) (ids []int64) {
	for _, c := range tx.Changes {
		if id, ok := c.New["id"].(int64); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// forEachSetting runs a test with each way in which a server streams early, on each version.
func forEachSetting(t *testing.T, test func(t *testing.T, settings string)) {
	t.Helper()
	pgtest.Versions(t, func(t *testing.T) {
		for _, settings := range parted(t, pgtest.Database(t)) {
			t.Run(strings.Trim(settings, "&"), func(t *testing.T) {
				t.Parallel()
				test(t, settings)
			})
		}
	})
}

// T4 of the acceptance list, the half of it that one transaction shows: nested savepoints, some of them rolled back.
func TestStreamedSavepoints(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t"), "create table t (id int primary key)")
		pgtest.Exec(t, p.url,
			`begin; insert into t values (1); savepoint a; insert into t values (2); select fill(); savepoint b; insert into t values (3); select fill();
			 rollback to b; insert into t values (4); select fill(); release a; savepoint c; insert into t values (5); savepoint d; insert into t values (6); release d;
			 select fill(); rollback to c; select fill(); insert into t values (7); commit`,
			// The first change of the inner one comes before that of the outer, which has the lower number.
			`begin; savepoint a; savepoint b; insert into t values (10); release b; insert into t values (11); select fill(); rollback to a; insert into t values (12);
			 savepoint e; savepoint f; insert into t values (13); select fill(); release f; release e; select fill(); commit`,
			// The same, two savepoints deep: the server takes back the outer one of them first.
			`begin; insert into t values (14); savepoint z; savepoint a; savepoint b; insert into t values (15); release b; insert into t values (16); release a; select fill();
			 rollback to z; insert into t values (17); select fill(); commit`,
			// All of the first savepoint goes, and the transaction begins anew.
			`begin; savepoint a; insert into t values (20); select fill(); rollback to a; insert into t values (21); select fill(); commit`,
			// A block with an exception is a savepoint.
			`do $$ begin for n in 100 .. 300 loop begin
			   insert into t values (n); if n % 50 = 1 then perform fill(); end if;
			   if n % 3 = 0 then raise 'no'; end if;
			 exception when raise_exception then null; end; end loop; end $$`)
		got := p.same()
		want := [][]int64{{1, 2, 4, 7}, {12, 13}, {14, 17}, {21}, nil}
		for n := int64(100); n <= 300; n++ {
			if n%3 != 0 {
				want[4] = append(want[4], n)
			}
		}
		for i, tx := range got {
			if diff := cmp.Diff(want[i], ids(tx)); diff != "" {
				t.Errorf("transaction %d: %s", i, diff)
			}
		}
		p.undisturbed()
		if p.parts.blocks < 8 || p.parts.cuts < 4 || p.whole.blocks > 0 {
			t.Errorf("%d blocks, %d cuts; and %d blocks of what came whole", p.parts.blocks, p.parts.cuts, p.whole.blocks)
		}
	})
}

// T4 of the acceptance list, the other half: streams that are open at the same time.
func TestStreamedInterleaved(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t"), "create table t (id int primary key)")
		a, b, c := pgtest.Connect(t, p.url), pgtest.Connect(t, p.url), pgtest.Connect(t, p.url)
		do := func(conn *pgx.Conn, sql string) {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		for _, conn := range []*pgx.Conn{a, b, c} {
			do(conn, "begin")
		}
		for n := range 5 {
			do(a, fmt.Sprintf("insert into t values (%d); select fill(); savepoint s; insert into t values (%d); select fill()", n, 100+n))
			do(b, fmt.Sprintf("insert into t values (%d); select fill()", 200+n))
			do(a, "rollback to s")
			do(c, fmt.Sprintf("insert into t values (%d); select fill()", 300+n))
			pgtest.Exec(t, p.url, fmt.Sprintf("insert into t values (%d)", 400+n)) // a small one commits while they are open
		}
		do(b, "commit")
		do(c, "rollback")
		do(a, "commit")
		var got [][]int64
		for _, tx := range p.same() {
			got = append(got, ids(tx))
		}
		want := [][]int64{{400}, {401}, {402}, {403}, {404}, {200, 201, 202, 203, 204}, {0, 1, 2, 3, 4}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		p.undisturbed()
		if p.parts.blocks < 15 {
			t.Errorf("%d blocks", p.parts.blocks)
		}
		p.parts.mu.Lock()
		defer p.parts.mu.Unlock()
		if len(p.parts.streams) != 0 {
			t.Errorf("%d streams are left", len(p.parts.streams))
		}
	})
}

// TestStreamedDDL alters tables in a transaction that is streamed. Others see them as they were meanwhile.
func TestStreamedDDL(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t", "u"), "create type mood as enum ('sad')", "create table t (id int primary key, a text)", "create table u (id int primary key, m mood)",
			"insert into t values (0, 'before')")
		pgtest.Exec(t, p.url, "insert into t values (1, 'a')")
		conn := pgtest.Connect(t, p.url)
		do := func(sql string) {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		do("begin; insert into t values (2, 'a'); insert into u values (2, 'sad'); select fill()")
		do("alter table t add b numeric(6,2); insert into t values (3, 'a', 1.5); select fill()")
		pgtest.Exec(t, p.url, "insert into u values (3, 'sad')")
		do("savepoint s; alter table t rename a to c; insert into t values (4, 'c', 2); select fill(); rollback to s; insert into t values (5, 'a', 3); select fill()")
		// A type that nobody else sees before the commit. One that only looks like an int is text until then.
		do("create domain tall as int; create type size as enum ('S'); alter table u add h tall, add s size; insert into u values (4, 'sad', 180, 'S'); select fill(); insert into t values (6, 'a', 4); commit")
		pgtest.Exec(t, p.url, "insert into u values (5, 'sad', 190, 'S')", "insert into t values (7, 'a', 5)")

		pgtest.Exec(t, p.url, "select pg_logical_emit_message(true, 'postman.end', '')")
		for _, r := range []*recorder{p.parts, p.whole} {
			r.await("the end", func() bool { return len(r.done) > 0 && r.done[len(r.done)-1].Changes[0].Prefix == "postman.end" })
		}
		// In the transaction itself the domain's values are text.
		for i := range p.parts.done {
			for j := range p.parts.done[i].Changes {
				if c := &p.parts.done[i].Changes[j]; c.New["h"] == "180" {
					c.New["h"] = int64(180)
				}
			}
		}
		if diff := cmp.Diff(p.whole.done, p.parts.done); diff != "" {
			t.Error(diff)
		}
		p.undisturbed()
		if p.parts.blocks < 4 {
			t.Errorf("%d blocks", p.parts.blocks)
		}
		// Both know the same tables now.
		last := func(r *recorder) map[string]string {
			shapes := make(map[string]string)
			for _, table := range r.relations {
				shapes[table.Name] = string(table.Shape())
			}
			return shapes
		}
		if diff := cmp.Diff(last(p.whole), last(p.parts)); diff != "" {
			t.Error(diff)
		}
		if n := len(p.parts.relations); n > 5 { // t and u before; u is first told of by another; t and u after
			t.Errorf("%d tables were announced", n)
		}
	})
}

// TestStreamedDescribed rolls back the savepoint in which a table is first mentioned, or altered.
func TestStreamedDescribed(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t", "u"), "create table t (id int primary key)", "create table u (id int primary key, x text)")
		p.slowly("begin; insert into t values (1)", "select fill()", "savepoint s; insert into u values (1)", "select fill()", "rollback to s; insert into t values (2)", "commit",
			"insert into u values (2)",
			"alter table u add y int")
		p.slowly("begin; insert into t values (3)", "select fill()", "savepoint s; insert into u values (3)", "select fill()", "rollback to s", "commit",
			"insert into u values (4)")
		p.slowly("begin; savepoint s; alter table u drop y; insert into u values (5)", "select fill()", "rollback to s; insert into t values (5)", "select fill()", "commit",
			"insert into u values (6)")
		if got := p.same(); len(got) != 6 {
			t.Errorf("%d transactions", len(got))
		}
		p.undisturbed()
		if p.parts.cuts != 3 {
			t.Errorf("%d cuts", p.parts.cuts)
		}
		if len(p.parts.relations) != len(p.whole.relations) {
			t.Errorf("%d tables were announced, and %d of what came whole", len(p.parts.relations), len(p.whole.relations))
		}
	})
}

// TestStreamedTruncate rolls back a savepoint that truncated a table: some versions of Postgres cannot stream that, and try again for ever.
func TestStreamedTruncate(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t"), "create table t (id int primary key)")
		p.slowly("begin; insert into t values (1)", "select fill()", "savepoint s; truncate t; INSERT INTO t values (2); select FILL(); rollback to s; insert into t values (3)", "commit") // nobody waits for what is in capitals
		if got := p.same(); len(got) != 1 || len(got[0].Changes) != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// TestStreamedIdle: a position that the server tells in the middle of a block lies in the middle of what it has to send.
func TestStreamedIdle(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	x := &session{Stream: NewStream(Options{}), handler: r, decoder: decoder{block: &streamed{}}}
	for _, block := range []*streamed{{}, nil} {
		x.decoder.block = block
		if err := x.keepalive(pglogrepl.PrimaryKeepaliveMessage{ServerWALEnd: 5}); err != nil {
			t.Fatal(err)
		}
		if told := len(r.idle) > 0; told != (block == nil) || x.Status().Received > 0 != told {
			t.Errorf("block %v: told %v, status %+v", block, r.idle, x.Status())
		}
	}
}

// TestStreamedLater has the handler put a transaction off until its commit.
func TestStreamedLater(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	r.onChange = func(c *Change) error {
		if r.open == nil && c.Ordinal == 50 {
			return fmt.Errorf("rule 7: %w", ErrLater)
		}
		return nil
	}
	pgtest.Exec(t, url, "insert into t select n, repeat('x', 1000) from generate_series(1, 500) n", "insert into t values (0)")
	s, _ := run(t, Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: start}, r)
	onceEach(t, r, 2, 501)
	if !strings.Contains(s.Status().LastError, "rule 7") && !strings.Contains(s.Status().LastError, errWhole.Error()) || r.discarded != 1 {
		t.Errorf("status %+v, %d discarded", s.Status(), r.discarded)
	}
}

// TestWholly: what an error of a session says of the next one.
func TestWholly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want uint32
	}{
		"a doubt":                {&wholeError{7, errUnowned}, 7},
		"the server's own error": {&pgconn.PgError{Code: "XX000"}, anyTransaction},
		"a lost connection":      {io.ErrUnexpectedEOF, 0},
		"a shutdown":             {&pgconn.PgError{Code: "57P01"}, 0},
	} {
		s := NewStream(Options{InProgress: true})
		s.wholly(fmt.Errorf("receiving: %w", c.err))
		if off := s.streaming() == "streaming 'off'"; s.whole != c.want || off != (c.want != 0) {
			t.Errorf("%s: %d is read whole, %s", name, s.whole, s.streaming())
		}
	}
}

// TestStreamedMessages emits messages in savepoints that are rolled back. While it streams them, Postgres sends them as the
// top transaction's.
func TestStreamedMessages(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		p := newPair(t, settings, all("t"), "create table t (id int primary key)")
		emit := func(text string) string { return "select pg_logical_emit_message(true, 'postman.m', '" + text + "');" }
		pgtest.Exec(t, p.url, "begin;"+emit("first")+"insert into t values (1); select fill();"+emit("second")+
			"insert into t values (2); select fill(); savepoint a; insert into t values (3);"+emit("gone")+"select fill(); rollback to a;"+emit("third")+"commit")
		got := p.same()
		if p.parts.restarts != 1 || p.parts.blocks == 0 {
			t.Errorf("%d sessions and %d blocks; nothing of this leaves a doubt", p.parts.restarts, p.parts.blocks)
		}
		var texts []string
		for _, c := range got[0].Changes {
			texts = append(texts, c.Content)
		}
		if diff := cmp.Diff([]string{"first", "", "second", "", "third"}, texts); diff != "" {
			t.Error(diff)
		}

		pgtest.Exec(t, p.url,
			"begin; insert into t values (10);"+emit("before")+"savepoint a;"+emit("gone")+"insert into t values (11); select fill(); rollback to a; select fill(); insert into t values (12); commit",
			"begin; insert into t values (20); savepoint a;"+emit("gone")+"select fill(); rollback to a; select fill();"+emit("after")+"commit")
		p.same()
		if p.parts.restarts < 3 {
			t.Errorf("%d sessions: a message whose savepoint is not known was taken for granted", p.parts.restarts)
		}
		// The one that has to be read whole never commits.
		before, blocks := 0, 0
		p.parts.await("it to settle", func() bool { before = p.parts.restarts; return before%2 == 1 }) // it streams again
		p.slowly("begin; insert into t values (30); savepoint a;"+emit("gone"), "select fill()", "rollback to a", "rollback")
		p.parts.await("a session", func() bool {
			pgtest.Exec(t, p.url, "insert into ballast values ('x')") // so that the server tells where it is, and is heard
			blocks = p.parts.blocks
			return p.parts.restarts >= before+2
		})
		pgtest.Exec(t, p.url, "begin; insert into t values (40); select fill(); insert into t values (41); select fill(); commit")
		p.same()
		p.parts.await("large transactions to be streamed again", func() bool { return p.parts.blocks > blocks })
	})
}

// TestStreamedRandomly runs random histories of three sessions at once: their streamed reading is that of the whole transactions, rows and
// ordinals.
func TestStreamedRandomly(t *testing.T) {
	t.Parallel()
	forEachSetting(t, func(t *testing.T, settings string) {
		tables := []string{"t0", "t1", "t2"}
		var create []string
		for _, name := range tables {
			create = append(create, "create table "+name+" (id int primary key, x text)")
		}
		p := newPair(t, settings, all(append(tables, "shared")...), append(create, "create table shared (id int primary key)")...)
		var conns []*pgx.Conn
		for range tables {
			conns = append(conns, pgtest.Connect(t, p.url))
		}
		id, lives := 0, 0
		rapid.Check(t, func(rt *rapid.T) {
			if lives++; lives > 30 { // each takes a while, and all versions and settings together have more than a hundred
				return
			}
			actors := make([]*actor, len(conns))
			for i, conn := range conns {
				actors[i] = &actor{t: rt, conn: conn, table: tables[i]}
			}
			for range rapid.IntRange(10, 60).Draw(rt, "steps") {
				id++
				actors[rapid.IntRange(0, len(actors)-1).Draw(rt, "session")].step(id)
			}
			for _, a := range actors {
				a.end()
			}
			before := t.Failed()
			p.same()
			if t.Failed() && !before {
				rt.Fatal("differs")
			}
		})
		if p.parts.blocks < 60 || p.parts.cuts < 6 {
			t.Errorf("%d blocks and %d rollbacks were streamed: that shows little", p.parts.blocks, p.parts.cuts)
		}
	})
}

// actor is one session of a random history. Tables that it changes other than by inserting are its own: nobody waits for it.
type actor struct {
	t     *rapid.T
	conn  *pgx.Conn
	table string
	open  bool
	depth int
}

func (a *actor) do(sql string) {
	if _, err := a.conn.Exec(a.t.Context(), sql); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
}

func (a *actor) end() {
	if a.open {
		a.do(rapid.SampledFrom([]string{"commit", "commit", "commit", "rollback"}).Draw(a.t, "end"))
	}
	a.open, a.depth = false, 0
}

func (a *actor) step(id int) {
	if !a.open {
		a.do("begin")
		a.open = true
	}
	op := rapid.SampledFrom(strings.Fields("insert insert insert shared update delete fill fill fill savepoint savepoint release rollback rollback loop alter message truncate end")).Draw(a.t, "op")
	switch op {
	case "insert":
		a.do(fmt.Sprintf("insert into %s values (%d, 'x')", a.table, id))
	case "shared":
		a.do(fmt.Sprintf("insert into shared values (%d)", id))
	case "update":
		a.do(fmt.Sprintf("update %s set x = '%d' where id = (select max(id) from %[1]s)", a.table, id))
	case "delete":
		a.do(fmt.Sprintf("delete from %s where id = (select max(id) from %[1]s)", a.table))
	case "fill":
		a.do("select fill()")
	case "savepoint":
		a.depth++
		a.do(fmt.Sprintf("savepoint s%d", a.depth))
	case "release", "rollback":
		if a.depth == 0 {
			return
		}
		to := rapid.IntRange(1, a.depth).Draw(a.t, "depth")
		if op == "release" {
			a.do(fmt.Sprintf("release s%d", to))
			a.depth = to - 1
		} else {
			a.do(fmt.Sprintf("rollback to s%d", to))
			a.depth = to
		}
	case "loop":
		a.do(fmt.Sprintf("do $$ begin for n in 1 .. 4 loop begin insert into %s values (-%d * 10 - n); if n = 2 then perform fill(); end if; if n %% 2 = 0 then raise 'no'; end if; "+
			"exception when raise_exception then null; end; end loop; end $$", a.table, id))
	case "alter":
		a.do(fmt.Sprintf("alter table %s add c%d int default %[2]d", a.table, id))
	case "message":
		if rapid.IntRange(0, 9).Draw(a.t, "seldom") == 0 { // each one that leaves a doubt costs a new session
			a.do(fmt.Sprintf("select pg_logical_emit_message(true, 'postman.m', '%d')", id))
		}
	case "truncate":
		a.do("truncate " + a.table)
	case "end":
		a.end()
	}
}

// TestStreamedRollback streams a transaction that comes to nothing, and tells of idle positions while it is open.
func TestStreamedRollback(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)", "create table busy (x text)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	run(t, Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: start}, r)
	conn := pgtest.Connect(t, url)
	if _, err := conn.Exec(t.Context(), "begin; insert into t select n, repeat('x', 1000) from generate_series(1, 500) n"); err != nil {
		t.Fatal(err)
	}
	// Others go on, so that there is something to confirm.
	var end position.LSN
	r.await("a stream", func() bool {
		pgtest.Exec(t, url, "insert into busy values ('x')")
		return len(r.streams) == 1
	})
	_, end, err := WALEnd(t.Context(), pgtest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "insert into busy select repeat('x', 1000) from generate_series(1, 1000)")
	r.await("an idle position behind it", func() bool { return len(r.idle) > 0 && r.idle[len(r.idle)-1] > end })
	confirmedReaches(t, url, slot, end)
	if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "insert into t values (0)")
	got := r.transactions(1)
	if diff := cmp.Diff([]int64{0}, ids(got[0])); diff != "" {
		t.Error(diff)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.streams) != 0 || r.cuts != 1 || r.discarded != 0 {
		t.Errorf("%d streams are left, %d rollbacks, %d discarded", len(r.streams), r.cuts, r.discarded)
	}
}

// TestStreamedKilled breaks the connection and crashes the server while a transaction is streamed: a slot that was confirmed behind its
// first changes brings it again.
func TestStreamedKilled(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "create table t (id bigint primary key, x text)", "create table busy (x text)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	s, stop := run(t, Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: start}, r)
	large := pgtest.Connect(t, url)
	grow := func(from int) {
		t.Helper()
		if _, err := large.Exec(t.Context(), "insert into t select n, repeat('x', 1000) from generate_series($1::int, $1 + 499) n", from); err != nil {
			t.Fatal(err)
		}
	}
	streamed := func(do func()) {
		t.Helper()
		before := 0
		r.await("a count", func() bool {
			before = r.blocks
			return true
		})
		do()
		r.await("a stream", func() bool {
			pgtest.Exec(t, url, "insert into busy values ('x')")
			return r.blocks > before && len(r.streams) == 1
		})
	}
	if _, err := large.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	streamed(func() { grow(1) })
	pgtest.Exec(t, url, "insert into t values (-1)")
	confirmedReaches(t, url, slot, r.transactions(1)[0].End)
	streamed(func() {
		pgtest.Exec(t, url, "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '"+slot+"'")
		grow(501)
	})
	// A process that begins anew knows no more than its checkpoint.
	_ = stop()
	next := newRecorder(t)
	next.done, next.last = r.done, r.last
	r = next
	run(t, Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: s.Status().Confirmed}, r)
	streamed(func() { grow(1001) })
	if _, err := large.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	onceEach(t, r, 2, 1501)
	if r.discarded != 0 {
		t.Errorf("%d discarded by the second process", r.discarded)
	}

	// The server crashes with an open one, which it rolls back by itself.
	large = pgtest.Connect(t, url)
	if _, err := large.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	streamed(func() { grow(2001) })
	c.Kill()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "insert into t values (-2)")
	onceEach(t, r, 3, 1502)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.discarded != 1 {
		t.Errorf("%d streams were open when the server crashed; want 1", r.discarded)
	}
}

// TestStreamedUntold rolls back a savepoint of which Postgres sends the changes without taking them back: they were on its own disk, since the transaction
// was in progress when the session began, and it sends them but once.
func TestStreamedUntold(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id bigint primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	options := Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: start}
	r := newRecorder(t)
	s, stop := run(t, options, r)
	large := pgtest.Connect(t, url)
	do := func(statements ...string) {
		t.Helper()
		for _, sql := range statements {
			if _, err := large.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	do("begin", "insert into t values (0)", "savepoint s", "insert into t select n, repeat('x', 100) from generate_series(1, 5000) n")
	pgtest.Exec(t, url, "insert into t values (-1)")
	confirmedReaches(t, url, slot, r.transactions(1)[0].End)
	_ = stop()
	do("insert into t select n, repeat('x', 100) from generate_series(5001, 5050) n", "rollback to s", "insert into t values (6000)", "commit")

	next := newRecorder(t)
	next.done, next.last = r.done, r.last
	options.Start = s.Status().Confirmed
	s, _ = run(t, options, next)
	all := next.transactions(len(r.done) + 1)
	if diff := cmp.Diff([]int64{0, 6000}, ids(all[len(all)-1])); diff != "" {
		t.Error(diff)
	}
	if told := s.Status().LastError; told != "" && !strings.Contains(told, errUntold.Error()) && !strings.Contains(told, errWhole.Error()) {
		t.Error(told)
	}
}

// TestStreamedCuts holds the bookkeeping of savepoints against that of a transaction which knows the owner of each change.
func TestStreamedCuts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const top = ^uint32(0) - 20 // numbers wrap around
		s := &streamed{xid: top, relations: make(map[uint32]*described)}
		type change struct {
			owner   *savepoint
			message bool
		}
		var kept []change
		xid := uint32(top)
		stack := []*savepoint{{xid: top}}
		number := func() uint32 { // outer ones get theirs first
			for _, p := range stack {
				if p.xid == 0 {
					if xid++; xid < 3 { // reserved
						xid = 3
					}
					p.xid = xid
				}
			}
			return stack[len(stack)-1].xid
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			inner := stack[len(stack)-1]
			switch rapid.SampledFrom(strings.Fields("row row row message begin begin release rollback")).Draw(rt, "step") {
			case "row":
				if got := s.add(number(), Insert); got != uint64(len(kept)) {
					rt.Fatalf("ordinal %d of change %d", got, len(kept))
				}
				kept = append(kept, change{inner, false})
			case "message":
				number()
				s.add(top, Emit)
				kept = append(kept, change{inner, true})
			case "begin":
				p := &savepoint{parent: inner}
				stack = append(stack, p)
			case "release":
				if len(stack) > 1 {
					inner.parent.children = append(append(inner.parent.children, inner), inner.children...)
					inner.children = nil
					stack = stack[:len(stack)-1]
				}
			case "rollback":
				if len(stack) == 1 {
					continue
				}
				stack = stack[:len(stack)-1]
				gone := append(slices.Clone(inner.children), inner)
				slices.SortStableFunc(gone[:len(gone)-1], func(a, b *savepoint) int { return int(a.xid-top) - int(b.xid-top) })
				first := slices.IndexFunc(kept, func(c change) bool { return slices.Contains(gone, c.owner) })
				if first < 0 {
					first = len(kept)
				}
				doubtful := slices.ContainsFunc(kept[max(first-1, 0):], func(c change) bool { return c.message })
				sound := true
				for _, p := range gone {
					if p.xid != 0 { // else it did nothing, and nobody hears of it
						sound = s.cut(p.xid) && sound
					}
				}
				if inner.xid == 0 {
					continue
				}
				if !sound {
					if !doubtful {
						rt.Fatalf("a doubt where there is none")
					}
					return
				}
				kept = kept[:first]
				if s.next != uint64(len(kept)) {
					rt.Fatalf("%d are left; want %d", s.next, len(kept))
				}
			}
		}
	})
}

type savepoint struct {
	xid      uint32 // 0: it has not written
	parent   *savepoint
	children []*savepoint // that were released into it
}
