package cdc

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
	"postman/value"
)

// TestOperations: T11 of the acceptance list, with TestMessages, TestDDL, TestUndecodable, TestDecoder, TestDecoderRefuses, TestDecoderCut and
// FuzzMessage: every kind of message.
func TestOperations(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testOperations)
}

func testOperations(t *testing.T) {
	before := time.Now()
	url, r, s := watch(t, all("t", "u"),
		"create table t (id int primary key, name text)",
		"create table u (id int primary key, ref int references t)")
	pgtest.Exec(t, url,
		`insert into t values (1, 'one'), (2, null)`,
		`update t set name = 'uno' where id = 1`,
		`update t set id = 3 where id = 1`,
		`delete from t where id = 2`,
		`truncate t, u restart identity`,
		`select pg_logical_emit_message(true, 'postman.hello', '{"a": 1}')`)
	row := func(id int64, name any) map[string]any { return map[string]any{"id": id, "name": name} }
	want := []seen{
		{Op: Insert, Table: "t", New: row(1, "one")},
		{Op: Insert, Table: "t", New: row(2, value.Null), Ordinal: 1},
		{Op: Update, Table: "t", New: row(1, "uno")},
		{Op: Update, Table: "t", New: row(3, "uno"), Old: row(1, value.Null), OldKey: true},
		{Op: Delete, Table: "t", Old: row(2, value.Null), OldKey: true},
		{Op: Truncate, Table: "t"},
		{Op: Truncate, Table: "u", Ordinal: 1},
		{Op: Emit, Prefix: "postman.hello", Content: `{"a": 1}`},
	}
	if diff := cmp.Diff(want, r.changes(6)); diff != "" {
		t.Error(diff)
	}
	for i, tx := range r.transactions(6) {
		if tx.XID == 0 || tx.Time.Before(before.Add(-time.Second)) || tx.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("transaction %d: %+v", i, tx.Tx)
		}
	}
	st := s.Status()
	if !st.Connected || st.Received == 0 || st.Confirmed > st.Received || st.Received > st.ServerEnd || st.LastMessage.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// TestTypes streams every kind of type from a database whose own settings print values in other ways.
func TestTypes(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	name := pgtest.Name(url)
	pgtest.Exec(t, url,
		"alter database "+name+" set datestyle = 'German, DMY'", "alter database "+name+" set timezone = 'Asia/Seoul'",
		"alter database "+name+" set intervalstyle = 'iso_8601'", "alter database "+name+" set extra_float_digits = -15",
		"alter database "+name+" set bytea_output = 'escape'")
	pgtest.Exec(t, url,
		"create type mood as enum ('sad', 'ok', 'glad')", "create domain email as text check (value like '%@%')",
		"create domain cents as numeric(12,2)", "create domain fee as cents", "create domain happy as mood check (value <> 'sad')",
		"create domain many as int[]", "create type pair as (a int, b text)", "create type span as range (subtype = numeric)",
		`create table t (id int primary key, n numeric, n2 numeric(10,2), nan numeric, tz timestamptz, ts timestamp, d date, tm time, iv interval, ok bool,
		   u uuid, j json, jb jsonb, f8 float8, f4 float4, ints int[], texts text[], nums numeric[], m mood, ms mood[], e email, es email[], f fee, fs fee[], h happy, hs happy[],
		   xs many, b bytea, ip inet, net cidr, p pair, ps pair[], s span, pt point, c char(5), vc varchar(5), x xml, oid oid, big bigint, money money, vec tsvector)`)
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	run(t, Options{URL: url, Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, `insert into t values (1, 123456789012345678901234567890.1234567890, 1, 'NaN', '2026-03-29 01:30:00.5+09', '2026-03-29 01:30:00', '2026-12-31', '01:02:03',
		'1 day 2 hours', true, '6BA7B810-9DAD-11D1-80B4-00C04FD430C8', '{"a": 1.10}', '{"a": [1.10, null]}', 0.1::float8 + 0.2, 1.1, '{1,NULL}', '{"a,b",NULL}', '{1.50}',
		'glad', '{sad,ok}', 'a@b', '{a@b}', 1.5, '{1.5,2}', 'ok', '{ok}', '{1,2}', '\x00ff', '10.0.0.1', '10.0.0.0/8', '(1,"b c")', '{"(1,b)"}', '[1.5,2)', '(1,2)',
		'ab', 'abc', '<a/>', 4294967295, 9223372036854775807, 1.5, 'a b')`)
	want := map[string]any{
		"id": int64(1), "n": "123456789012345678901234567890.1234567890", "n2": "1.00", "nan": "NaN",
		"tz": time.Date(2026, 3, 28, 16, 30, 0, 5e8, time.UTC), "ts": value.LocalTime{Time: time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)},
		"d": value.Date{Time: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)}, "tm": "01:02:03", "iv": "1 day 02:00:00", "ok": true,
		"u": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "j": map[string]any{"a": "1.10"}, "jb": map[string]any{"a": []any{"1.10", nil}},
		"f8": 0.1 + math.Nextafter(0.2, 1), "f4": 1.1, "ints": []any{int64(1), nil}, "texts": []any{"a,b", nil}, "nums": []any{"1.50"},
		"m": "glad", "ms": []any{"sad", "ok"}, "e": "a@b", "es": []any{"a@b"}, "f": "1.50", "fs": []any{"1.50", "2.00"}, "h": "ok", "hs": []any{"ok"},
		"xs": []any{int64(1), int64(2)}, "b": []byte{0, 255}, "ip": "10.0.0.1", "net": "10.0.0.0/8", "p": `(1,"b c")`, "ps": `{"(1,b)"}`,
		"s": "[1.5,2)", "pt": "(1,2)", "c": "ab", "vc": "abc", "x": "<a/>", "oid": int64(4294967295), "big": int64(math.MaxInt64), "money": "$1.50", "vec": "'a' 'b'",
	}
	decimals := cmp.FilterValues(func(a, b any) bool {
		_, x := a.(*value.Decimal)
		_, y := b.(*value.Decimal)
		return x || y
	}, cmp.Comparer(func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }))
	if diff := cmp.Diff(want, r.changes(1)[0].New, decimals, cmpopts.EquateApprox(0, 1e-15)); diff != "" {
		t.Error(diff)
	}
	// The catalog says of each column what the stream says.
	catalog, err := LoadCatalog(t.Context(), pgtest.Connect(t, url), []TableName{{"public", "t"}})
	if err != nil {
		t.Fatal(err)
	}
	streamed := r.relations[len(r.relations)-1]
	for i, c := range catalog.Tables[TableName{"public", "t"}].Columns {
		s := streamed.Columns[i]
		if c.Name != s.Name || c.Type.OID != s.Type.OID || c.Type.Base != s.Type.Base || c.Key != s.Key || s.Type.Name == "" {
			t.Errorf("column %s: the catalog says %+v, the stream %+v", c.Name, c, s)
		}
	}
}

// TestUnchangedTOAST: T10 of the acceptance list, as the stream has it.
func TestUnchangedTOAST(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testUnchangedTOAST)
}

func testUnchangedTOAST(t *testing.T) {
	url, r, _ := watch(t, all("d", "f", "i"),
		"create table d (id int primary key, n int, big text, small text)",
		"create table f (id int primary key, n int, big text, small text)", "alter table f replica identity full",
		"create table i (id int primary key, n int not null unique, big text, small text)", "alter table i replica identity using index i_n_key",
		"alter table d alter big set storage external", "alter table f alter big set storage external", "alter table i alter big set storage external")
	big := strings.Repeat("x", 10_000)
	for _, table := range []string{"d", "f", "i"} {
		pgtest.Exec(t, url,
			"insert into "+table+" values (1, 1, repeat('x', 10000), null)",
			"update "+table+" set small = 's' where id = 1",
			"update "+table+" set n = 2 where id = 1",
			"update "+table+" set big = null where id = 1")
	}
	row := func(n int64, big, small any) map[string]any {
		return map[string]any{"id": int64(1), "n": n, "big": big, "small": small}
	}
	gone, null := value.Unavailable, value.Null
	want := []seen{
		{Op: Insert, Table: "d", New: row(1, big, null)},
		{Op: Update, Table: "d", New: row(1, gone, "s")},
		{Op: Update, Table: "d", New: row(2, gone, "s")},
		{Op: Update, Table: "d", New: row(2, null, "s")},

		// Under FULL the old row carries what the new one leaves out.
		{Op: Insert, Table: "f", New: row(1, big, null)},
		{Op: Update, Table: "f", New: row(1, gone, "s"), Old: row(1, big, null)},
		{Op: Update, Table: "f", New: row(2, gone, "s"), Old: row(1, big, "s")},
		{Op: Update, Table: "f", New: row(2, null, "s"), Old: row(2, big, "s")},

		{Op: Insert, Table: "i", New: row(1, big, null)},
		{Op: Update, Table: "i", New: row(1, gone, "s")},
		{Op: Update, Table: "i", New: row(2, gone, "s"), Old: map[string]any{"id": null, "n": int64(1), "big": null, "small": null}, OldKey: true},
		{Op: Update, Table: "i", New: row(2, null, "s")},
	}
	if diff := cmp.Diff(want, r.changes(12)); diff != "" {
		t.Error(diff)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testMessages)
}

func testMessages(t *testing.T) {
	url, r, s := watch(t, all("t"), "create table t (id int primary key)")
	pgtest.Exec(t, url,
		"select pg_logical_emit_message(false, 'postman.loud', 'refused')",
		"begin; insert into t values (1); select pg_logical_emit_message(false, 'postman.loud', 'refused'); "+
			"select pg_logical_emit_message(true, 'postman.mute', 'why'); insert into t values (2); commit",
		"begin; select pg_logical_emit_message(true, 'postman.gone', 'rolled back'); select pg_logical_emit_message(false, 'postman.loud', 'refused'); rollback",
		`select pg_logical_emit_message(true, 'postman.bytes', '\x00ff'::bytea)`)
	want := []seen{
		{Op: Insert, Table: "t", New: map[string]any{"id": int64(1)}},
		{Op: Emit, Prefix: "postman.mute", Content: "why", Ordinal: 1},
		{Op: Insert, Table: "t", New: map[string]any{"id": int64(2)}, Ordinal: 2},
		{Op: Emit, Prefix: "postman.bytes", Content: "\x00\xff"},
	}
	if diff := cmp.Diff(want, r.changes(2)); diff != "" {
		t.Error(diff)
	}
	if got := s.Status().Refused; got != 3 {
		t.Errorf("%d messages were refused; want 3", got)
	}
}

func TestSavepoints(t *testing.T) {
	t.Parallel()
	url, r, _ := watch(t, all("t"), "create table t (id int primary key)")
	pgtest.Exec(t, url, `begin; insert into t values (1); savepoint a; insert into t values (2); savepoint b; insert into t values (3);
		rollback to b; insert into t values (4); release a; savepoint c; insert into t values (5); rollback to c; insert into t values (6); commit`,
		"begin; insert into t values (7); rollback",
		"insert into t values (8)")
	var ids []any
	for _, c := range r.changes(2) {
		ids = append(ids, c.New["id"])
	}
	if diff := cmp.Diff([]any{int64(1), int64(2), int64(4), int64(6), int64(8)}, ids); diff != "" {
		t.Error(diff)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testPartitions)
}

func testPartitions(t *testing.T) {
	url, r, _ := watch(t, all("t"),
		"create table t (id int, at int, name text, primary key (id, at)) partition by range (at)",
		"create table t_low partition of t for values from (0) to (10)",
		// Another order of columns, and one that was dropped: rows come in the root's form all the same.
		"create table t_high (gone int, name text, at int not null, id int not null)", "alter table t_high drop gone",
		"alter table t attach partition t_high for values from (10) to (20)")
	pgtest.Exec(t, url,
		"insert into t values (1, 5, 'low'), (2, 15, 'high')",
		"update t set name = 'raised', at = 16 where id = 1", // moves to the other partition
		"update t set id = 3 where id = 2",
		"delete from t_high where id = 3",
		"create table t_more partition of t for values from (20) to (30)",
		"insert into t values (4, 25, 'later')",
		"truncate t")
	row := func(id, at int64, name any) map[string]any {
		return map[string]any{"id": id, "at": at, "name": name}
	}
	want := []seen{
		{Op: Insert, Table: "t", New: row(1, 5, "low")},
		{Op: Insert, Table: "t", New: row(2, 15, "high"), Ordinal: 1},
		{Op: Delete, Table: "t", Old: row(1, 5, value.Null), OldKey: true},
		{Op: Insert, Table: "t", New: row(1, 16, "raised"), Ordinal: 1},
		{Op: Update, Table: "t", New: row(3, 15, "high"), Old: row(2, 15, value.Null), OldKey: true},
		{Op: Delete, Table: "t", Old: row(3, 15, value.Null), OldKey: true},
		{Op: Insert, Table: "t", New: row(4, 25, "later")},
		{Op: Truncate, Table: "t"},
	}
	if diff := cmp.Diff(want, r.changes(6)); diff != "" {
		t.Error(diff)
	}
}

// TestPartitionsIdentity holds what the refusal of another replica identity than the default rests on: an old row holds what the
// partition's identity says, and is announced by that of the table.
func TestPartitionsIdentity(t *testing.T) {
	t.Parallel()
	url, r, _ := watch(t, all("t"),
		"create table t (id int primary key, name text) partition by range (id)",
		"create table t_low partition of t for values from (0) to (10)", "alter table t_low replica identity full",
		"create table t_high partition of t for values from (10) to (20)")
	pgtest.Exec(t, url, "insert into t values (1, 'low'), (2, 'low'), (11, 'high')", "delete from t where id = 1",
		"alter table t replica identity full", "delete from t where id = 2", "delete from t where id = 11")
	row := func(id int64, name any) map[string]any { return map[string]any{"id": id, "name": name} }
	want := []seen{
		{Op: Insert, Table: "t", New: row(1, "low")},
		{Op: Insert, Table: "t", New: row(2, "low"), Ordinal: 1},
		{Op: Insert, Table: "t", New: row(11, "high"), Ordinal: 2},
		{Op: Delete, Table: "t", Old: row(1, "low"), OldKey: true}, // more than the key: of that nothing is read
		{Op: Delete, Table: "t", Old: row(2, "low")},
		{Op: Delete, Table: "t", Old: row(11, value.Null)}, // a NULL that is none
	}
	if diff := cmp.Diff(want, r.changes(4)); diff != "" {
		t.Error(diff)
	}
}

func TestQuotedNames(t *testing.T) {
	t.Parallel()
	odd := TableName{`Sh"op`, "Order, \"Line\"\\ é"}
	url, r, _ := watch(t, []Need{{odd, []Op{Insert, Update, Delete, Truncate}}},
		`create schema "Sh""op"`, "create table "+odd.quoted()+` ("Buyer ""Id""" int primary key, "select" text)`)
	pgtest.Exec(t, url, "insert into "+odd.quoted()+" values (1, 'x')", "truncate "+odd.quoted())
	want := []seen{
		{Op: Insert, Table: odd.String(), New: map[string]any{`Buyer "Id"`: int64(1), "select": "x"}},
		{Op: Truncate, Table: odd.String()},
	}
	if diff := cmp.Diff(want, r.changes(2)); diff != "" {
		t.Error(diff)
	}
}

func TestDDL(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testDDL)
}

func testDDL(t *testing.T) {
	url, r, _ := watch(t, all("t"), "create type mood as enum ('sad')", "create table t (id int primary key, a text, m mood)")
	slot := pgtest.Name(url)
	pgtest.Exec(t, url,
		"insert into t values (1, 'a', 'sad')",
		"insert into t values (2, 'a', 'sad')",
		"analyze t", // makes the server describe the table again; it is no other
		"insert into t values (3, 'a', 'sad')",
		"alter type mood add value 'glad'",
		"insert into t values (4, 'a', 'glad')",
		"alter table t add b numeric default 1.5",
		"insert into t values (5, 'a', 'sad', 2)",
		"alter table t rename a to c",
		"update t set c = 'c' where id = 5",
		"alter table t drop c",
		"delete from t where id = 5",
		"alter table t alter b type text",
		"insert into t values (6, 'sad', 'b')",
		"alter table t replica identity full",
		"delete from t where id = 6",
		"begin; create type size as enum ('S'); create domain tall as int; alter table t add s size default 'S', add h tall; insert into t values (7, 'sad', 'b', 'S', 180); commit",
		"drop table t",
		"create table t (id int primary key)",
		"alter publication "+slot+"_ins add table t",
		"insert into t values (8)",
	)
	null := value.Null
	want := []seen{
		{Op: Insert, New: map[string]any{"id": int64(1), "a": "a", "m": "sad"}},
		{Op: Insert, New: map[string]any{"id": int64(2), "a": "a", "m": "sad"}},
		{Op: Insert, New: map[string]any{"id": int64(3), "a": "a", "m": "sad"}},
		{Op: Insert, New: map[string]any{"id": int64(4), "a": "a", "m": "glad"}},
		{Op: Insert, New: map[string]any{"id": int64(5), "a": "a", "m": "sad", "b": "2"}},
		{Op: Update, New: map[string]any{"id": int64(5), "c": "c", "m": "sad", "b": "2"}},
		{Op: Delete, Old: map[string]any{"id": int64(5), "m": null, "b": null}, OldKey: true},
		{Op: Insert, New: map[string]any{"id": int64(6), "m": "sad", "b": "b"}},
		{Op: Delete, Old: map[string]any{"id": int64(6), "m": "sad", "b": "b"}},
		{Op: Insert, New: map[string]any{"id": int64(7), "m": "sad", "b": "b", "s": "S", "h": int64(180)}},
		{Op: Insert, New: map[string]any{"id": int64(8)}},
	}
	if diff := cmp.Diff(want, r.changes(11), cmpopts.IgnoreFields(seen{}, "Table")); diff != "" {
		t.Error(diff)
	}
	// Announced: the first, and after each of: add, rename, drop, alter type, identity, two new types, recreate.
	var shapes []string
	for _, table := range r.relations {
		shapes = append(shapes, string(table.Shape()))
	}
	if len(shapes) != 8 {
		t.Errorf("%d tables were announced; want 8:\n%s", len(shapes), strings.Join(shapes, "\n"))
	}
}

// TestIdle writes to a table that is not watched. The slot must move along, though the role may write nothing.
func TestIdle(t *testing.T) {
	t.Parallel()
	url, r, s := watch(t, all("t"), "create table t (id int primary key)", "create table busy (x text)")
	slot := pgtest.Name(url)
	pgtest.Exec(t, url, "insert into busy select repeat('x', 1000) from generate_series(1, 10000)", "select pg_switch_wal()")
	conn := pgtest.Connect(t, url)
	var end string
	if err := conn.QueryRow(t.Context(), "select pg_current_wal_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	target, err := position.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	r.await("an idle position behind the load", func() bool { return len(r.idle) > 0 && r.idle[len(r.idle)-1] >= target })
	confirmedReaches(t, url, slot, target)
	if got := s.Status(); got.Received < target || got.Confirmed < target {
		t.Errorf("status %+v; want everything at %s at least", got, target)
	}
	// The next session begins behind the idle position that was confirmed, which is no gap.
	if _, err := conn.Exec(t.Context(), "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", slot); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "insert into t values (1)")
	if got := r.changes(1); len(got) != 1 || got[0].Op != Insert {
		t.Errorf("changes of an unwatched table came: %+v", got)
	}
}

// confirmedReaches waits until the slot is confirmed up to the LSN.
func confirmedReaches(t *testing.T, url, slot string, lsn position.LSN) {
	t.Helper()
	conn := pgtest.Connect(t, url)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, err := inspectSlot(t.Context(), conn, slot)
		if err != nil {
			t.Fatal(err)
		}
		if got.Confirmed >= lsn {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the slot is confirmed up to %s; want %s", got.Confirmed, lsn)
		}
	}
}

// TestUndurable holds one transaction back. Whatever comes behind it, the slot must not pass it.
func TestUndurable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)", "create table busy (x text)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	r.confirm = func(position.LSN) {}
	s, stop := run(t, Options{URL: url + "&wal_sender_timeout=1000", Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, "insert into t values (1)", "insert into t values (2)")
	held := r.transactions(2)
	s.Confirm(held[0].End)
	confirmedReaches(t, url, slot, held[0].End)
	s.Confirm(start) // an older one changes nothing
	pgtest.Exec(t, url, "insert into busy select repeat('x', 1000) from generate_series(1, 10000)", "insert into t values (3)")
	r.transactions(3)
	// Several idle positions and statuses pass by.
	r.mu.Lock()
	idle := len(r.idle)
	r.mu.Unlock()
	pgtest.Exec(t, url, "insert into busy values ('x')")
	r.await("an idle position", func() bool { return len(r.idle) > idle })
	if err := stop(); err == nil {
		t.Error("a stopped stream returned nil")
	}
	slotNow, err := inspectSlot(t.Context(), pgtest.Connect(t, url), slot)
	if err != nil {
		t.Fatal(err)
	}
	if slotNow.Confirmed != held[0].End {
		t.Fatalf("the slot is confirmed up to %s; only %s is durable", slotNow.Confirmed, held[0].End)
	}
	// What was not durable comes again, from the checkpoint.
	r = newRecorder(t)
	run(t, Options{URL: url, Slot: slot, Start: held[0].End}, r)
	if got := r.changes(2); got[0].New["id"] != int64(2) || got[1].New["id"] != int64(3) {
		t.Errorf("after a restart came %+v", got)
	}
}

// TestStart begins behind the slot's position: what the caller has already must not come again.
func TestStart(t *testing.T) {
	t.Parallel()
	url, r, _ := watch(t, all("t"), "create table t (id int primary key)")
	pgtest.Exec(t, url, "insert into t values (1)", "insert into t values (2)")
	first := r.transactions(2)[0]
	slot := "second_" + pgtest.Name(url)
	publish(t, url, slot, all("t")...)
	start, err := CreateSlot(t.Context(), url, slot)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "insert into t values (3)", "insert into t values (4)")
	third := r.transactions(4)[2]
	// In this order: a start is durable, and moves the slot along.
	for _, c := range []struct {
		name string
		from position.LSN
		want []int64
	}{
		{"from where the slot is", 0, []int64{3, 4}},
		{"from the slot's start", start, []int64{3, 4}},
		{"at a commit", third.Commit, []int64{3, 4}},
		{"behind a commit", third.End, []int64{4}},
	} {
		again := newRecorder(t)
		again.confirm = func(position.LSN) {}
		_, stop := run(t, Options{URL: url, Slot: slot, Start: c.from}, again)
		var got []int64
		for _, change := range again.changes(len(c.want)) {
			got = append(got, change.New["id"].(int64))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		_ = stop()
	}
	if first.End >= start {
		t.Errorf("the slot starts at %s, before %s", start, first.End)
	}
}
