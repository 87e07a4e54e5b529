package cdc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
	"postman/value"
)

var update = flag.Bool("update", false, "capture testdata/session.hex from a real server again, and write what is read from it")

// captured is what a server sent: every kind of message, or of those that are sent of transactions in progress.
func captured(t testing.TB, file string) [][]byte {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var messages [][]byte
	for lines := bufio.NewScanner(f); lines.Scan(); {
		b, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, b)
	}
	return messages
}

// capture reads a session's messages from a real server, in the form of testdata/session.hex.
func capture(t *testing.T) string {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create type mood as enum ('sad')", `create table "T" (id int primary key, n numeric, m mood, big text)`,
		"create table f (id int, x text)", "alter table f replica identity full", `alter table "T" alter big set storage external`)
	slot, start := provide(t, url, all("T", "f")...)
	pgtest.Exec(t, url, `insert into "T" values (1, 1.50, 'sad', repeat('x', 3000))`, `update "T" set n = null`, `update "T" set id = 2`, `delete from "T"`,
		"insert into f values (1, ''), (2, 'é')", "update f set x = null", "delete from f", `truncate "T", f cascade`,
		"select pg_logical_emit_message(true, 'postman.hello', '{}'), pg_logical_emit_message(false, 'loud', '')",
		"select pg_replication_origin_create('"+slot+"')",
		"begin; select pg_replication_origin_session_setup('"+slot+"'); select pg_replication_origin_xact_setup('0/1', now()); insert into f values (3, 'from elsewhere'); commit")
	return receive(t, NewStream(Options{URL: url, Slot: slot, Start: start}), 'C', 10)
}

// receive returns what a stream's server sends up to the n-th message of a kind.
func receive(t *testing.T, s *Stream, kind byte, n int) string {
	t.Helper()
	config, err := replication(s.url)
	if err != nil {
		t.Fatal(err)
	}
	attach(config, &s.heard)
	conn, err := connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), conn)
	if _, err := s.start(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for n > 0 {
		msg, err := conn.PgConn().ReceiveMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		copied, ok := msg.(*pgproto3.CopyData)
		if !ok || copied.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		data := copied.Data
		fmt.Fprintf(&out, "%x\n", data[25:])
		if data[25] == kind {
			n--
		}
	}
	return out.String()
}

// teller is a Handler that writes down what it is told.
type teller struct {
	bytes.Buffer
	changes int
	quiet   bool
}

func (h *teller) say(format string, args ...any) error {
	if !h.quiet {
		fmt.Fprintf(&h.Buffer, format+"\n", args...)
	}
	return nil
}

func (h *teller) Begin(tx Tx) error {
	if tx.Origin != "" {
		return h.say("begin %d, commits at %s, from %s", tx.XID, tx.Commit, tx.Origin)
	}
	return h.say("begin %d, commits at %s", tx.XID, tx.Commit)
}
func (h *teller) Commit(tx Tx) error      { return h.say("commit %d, ends at %s", tx.XID, tx.End) }
func (h *teller) Idle(position.LSN) error { return nil }
func (h *teller) Restart() error          { return h.say("restart") }
func (h *teller) Stream(xid uint32) error { return h.say("stream %d", xid) }
func (h *teller) Rollback(xid uint32, from uint64) error {
	return h.say("rollback %d from %d", xid, from)
}
func (h *teller) Relation(t *Table) error { return h.say("relation %s", t.Shape()) }
func (h *teller) Change(c *Change) error {
	h.changes++
	if h.quiet {
		return nil
	}
	if c.Err != nil {
		return h.say("%d %s %s unread %.1q: %v", c.Ordinal, c.Op, tableOf(c), c.Raw, c.Err)
	}
	old, oldErr := decode(tableOf(c), c.Old)
	row, newErr := decode(tableOf(c), c.New)
	if err := errors.Join(oldErr, newErr); err != nil {
		return h.say("%v", err)
	}
	return h.say("%d %s %s key=%t old=%v new=%v %q %q", c.Ordinal, c.Op, tableOf(c), c.OldKey, old, shorten(row), c.Prefix, c.Content)
}

func tableOf(c *Change) *Table {
	if c.Table == nil {
		return &Table{}
	}
	return c.Table
}

func shorten(row map[string]any) map[string]any {
	for k, v := range row {
		if s, ok := v.(string); ok && len(s) > 20 {
			row[k] = fmt.Sprintf("%s… (%d)", s[:5], len(s))
		}
	}
	return row
}

func newDecoder(h Handler) *decoder {
	return &decoder{
		handler: h, announced: make(map[uint32]*Table), relations: make(map[uint32]*Table),
		typeNames: make(map[uint32]string), streams: make(map[uint32]*streamed), refuse: func(string) {},
		resolve:    func(context.Context, uint32, []uint32) (map[uint32]value.Type, error) { return nil, nil },
		rolledBack: func(context.Context, []uint32) (bool, error) { return false, nil },
	}
}

func TestDecoder(t *testing.T) {
	t.Parallel()
	if *update {
		if err := os.WriteFile("testdata/session.hex", []byte(capture(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := new(teller)
	d := newDecoder(h)
	d.refuse = func(prefix string) { _ = h.say("refused %q", prefix) }
	replayCapture(t, d, "session.hex", "BCRYIUDTMO")
	h.golden(t, "testdata/session.txt")
}

// replayCapture has a decoder read what was captured, which has messages of all these kinds.
func replayCapture(t *testing.T, d *decoder, name, kinds string) {
	t.Helper()
	seen := make(map[byte]bool)
	for _, m := range captured(t, name) {
		seen[m[0]] = true
		if err := d.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []byte(kinds) {
		if !seen[kind] {
			t.Errorf("no message %q was captured", kind)
		}
	}
}

// golden compares what was told with a file.
func (h *teller) golden(t *testing.T, file string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, h.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(h.String(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// TestDecoderSkips reads a session whose first transactions were handed over before.
func TestDecoderSkips(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	whole := new(teller)
	d := newDecoder(whole)
	var ends []position.LSN
	for _, m := range messages {
		if err := d.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
		if m[0] == 'C' {
			ends = append(ends, d.done)
		}
	}
	relation := func(line string) bool { return strings.HasPrefix(line, "relation") || line == "" }
	told := slices.DeleteFunc(strings.Split(whole.String(), "\n"), relation)
	for n, end := range ends {
		h := new(teller)
		d := newDecoder(h)
		d.done = end
		for _, m := range messages {
			if err := d.message(t.Context(), 1, m); err != nil {
				t.Fatal(err)
			}
		}
		rest := told
		for range n + 1 {
			at := slices.IndexFunc(rest, func(line string) bool { return strings.HasPrefix(line, "commit") })
			rest = rest[at+1:]
		}
		got := slices.DeleteFunc(strings.Split(h.String(), "\n"), relation)
		if diff := cmp.Diff(rest, got); diff != "" {
			t.Errorf("behind transaction %d: %s", n, diff)
		}
	}
}

// TestDecoderRefuses breaks a sound session at one message.
func TestDecoderRefuses(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	find := func(kind byte) []byte {
		return messages[slices.IndexFunc(messages, func(m []byte) bool { return m[0] == kind })]
	}
	begin, relation, insert, commit := find('B'), find('R'), find('I'), find('C')
	patched := func(m []byte, at int, b byte) []byte {
		m = bytes.Clone(m)
		m[at] = b
		return m
	}
	for name, c := range map[string]struct {
		before [][]byte
		bad    []byte
		want   string
	}{
		"empty":                    {nil, nil, "cut short"},
		"unknown kind":             {nil, []byte("Zzz"), `unknown kind 'Z'`},
		"change outside":           {[][]byte{begin, relation, insert, commit}, insert, "outside of a transaction"},
		"commit outside":           {nil, commit, "outside of a transaction"},
		"message outside":          {nil, []byte("M\x01\x00\x00\x00\x00\x00\x00\x00\x00p\x00\x00\x00\x00\x00"), "outside of a transaction"},
		"nested":                   {[][]byte{begin}, begin, "within a transaction"},
		"another commit":           {[][]byte{begin}, patched(commit, 2, 1), "was to commit at"},
		"unknown relation":         {[][]byte{begin}, insert, "not described"},
		"cut":                      {[][]byte{begin, relation}, insert[:len(insert)-1], "malformed tuple"},
		"too long":                 {[][]byte{begin, relation}, append(bytes.Clone(insert), 0), "behind its end"},
		"another number of values": {[][]byte{begin, relation}, append(bytes.Clone(insert[:6]), 0, 1, 'n'), "not the columns"},
		"binary value":             {[][]byte{begin, relation}, patched(insert, 8, 'b'), "malformed tuple"},
		"blanked value":            {[][]byte{begin, relation}, patched(insert, 8, 'x'), "malformed tuple"},
		"no new row":               {[][]byte{begin, relation}, patched(insert, 5, 'K'), "unknown kind"},
		"replica identity":         {[][]byte{begin}, patched(relation, bytes.Index(relation, []byte("T\x00"))+2, 'z'), "no replica identity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(&teller{quiet: true})
			for _, m := range c.before {
				if err := d.message(t.Context(), 1, m); err != nil {
					t.Fatal(err)
				}
			}
			err := d.message(t.Context(), 0x16B374D848, c.bad)
			broken, ok := errors.AsType[*DecodeError](err)
			if !ok || broken.LSN != 0x16B374D848 || (broken.Commit != 0) != d.open {
				t.Fatalf("%v (%T)", err, err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "16/B374D848") {
				t.Errorf("%v\nlacks %q or the LSN", err, c.want)
			}
		})
	}
}

// TestDecoderCut, T11 of the acceptance list: a message of any kind that ends anywhere before its end is refused.
func TestDecoderCut(t *testing.T) {
	t.Parallel()
	d, _ := loaded(t)
	for _, m := range captured(t, "session.hex") {
		d.open = m[0] != 'B'
		for n := range min(len(m), 300) {
			err := d.message(t.Context(), 1, bytes.Clone(m[:n:n]))
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Fatalf("of a message %q of %d bytes, %d gave %v (%[4]T)", m[0], len(m), n, err)
			}
		}
	}
}

// TestDecoderAllocates nothing for a row: a million of them must not wake the garbage collector.
func TestDecoderAllocates(t *testing.T) {
	d, rows := loaded(t)
	allocs := testing.AllocsPerRun(100, func() {
		for _, m := range rows {
			if err := d.message(t.Context(), 1, m); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for %d rows", allocs, len(rows))
	}
}

// loaded is a decoder in a transaction that knows the captured relations, and the captured changes of rows.
func loaded(t testing.TB) (d *decoder, rows [][]byte) {
	t.Helper()
	d = newDecoder(&teller{quiet: true})
	for _, m := range captured(t, "session.hex") {
		if strings.IndexByte("BRY", m[0]) >= 0 {
			d.open = false // many transactions' beginnings, and no end
			if err := d.message(t.Context(), 1, m); err != nil {
				t.Fatal(err)
			}
		}
		if strings.IndexByte("IUD", m[0]) >= 0 {
			rows = append(rows, m)
		}
	}
	d.open = true
	return d, rows
}

// FuzzMessage reads any bytes as a message, and has another decoder read what ours accepts.
func FuzzMessage(f *testing.F) {
	for _, m := range captured(f, "session.hex") {
		f.Add(m)
	}
	known, _ := loaded(f)
	f.Fuzz(func(t *testing.T, message []byte) {
		h := &checker{}
		d := newDecoder(h)
		d.relations, d.tx = maps.Clone(known.relations), known.tx
		d.open = len(message) == 0 || message[0] != 'B'
		original := bytes.Clone(message)
		err := d.message(t.Context(), 1, message)
		if err == nil {
			err = d.begun(nil)
		}
		if !bytes.Equal(original, message) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Fatalf("%v (%T)", err, err)
			}
			return
		}
		other, err := pglogrepl.Parse(message)
		if err != nil {
			t.Fatalf("accepted, and refused by another: %v", err)
		}
		if diff := cmp.Diff(describe(other), h.told); diff != "" {
			t.Fatalf("another reads it differently: %s", diff)
		}
	})
}

// checker is a Handler that describes changes in the same words as describe.
type checker struct{ told []string }

func (h *checker) Begin(tx Tx) error {
	h.told = append(h.told, fmt.Sprint("begin ", tx.Commit, tx.XID))
	return nil
}

func (h *checker) Commit(tx Tx) error {
	h.told = append(h.told, fmt.Sprint("commit ", tx.Commit, tx.End))
	return nil
}
func (h *checker) Idle(position.LSN) error { return nil }
func (h *checker) Restart() error          { return nil }
func (h *checker) Stream(xid uint32) error {
	h.told = append(h.told, fmt.Sprint("stream ", xid))
	return nil
}

func (h *checker) Rollback(xid uint32, from uint64) error {
	h.told = append(h.told, fmt.Sprint("rollback ", xid))
	return nil
}

func (h *checker) Relation(t *Table) error {
	h.told = append(h.told, fmt.Sprint("relation ", t.OID, t.Schema, t.Name, t.Identity))
	for _, c := range t.Columns {
		h.told = append(h.told, fmt.Sprint(c.Name, c.Type.OID, c.Key))
	}
	return nil
}

func (h *checker) Change(c *Change) error {
	h.told = append(h.told, fmt.Sprint(c.Op, tableOf(c).OID, c.OldKey, c.Prefix, string(c.Content)))
	for _, t := range []Tuple{c.Old, c.New} {
		datums, err := t.Datums(nil)
		if err != nil {
			return err
		}
		for _, d := range datums {
			h.told = append(h.told, fmt.Sprintf("%d %s", d.State, d.Text))
		}
	}
	return nil
}

func describe(m pglogrepl.Message) (told []string) {
	say := func(args ...any) { told = append(told, fmt.Sprint(args...)) }
	tuple := func(t *pglogrepl.TupleData) {
		if t == nil {
			return
		}
		states := map[uint8]value.State{'n': value.Null, 'u': value.Unavailable, 't': value.Present}
		for _, c := range t.Columns {
			told = append(told, fmt.Sprintf("%d %s", states[c.DataType], c.Data))
		}
	}
	switch m := m.(type) {
	case *pglogrepl.BeginMessage:
		say("begin ", position.LSN(m.FinalLSN), m.Xid) // its time overflows in the year 2262
	case *pglogrepl.CommitMessage:
		say("commit ", position.LSN(m.CommitLSN), position.LSN(m.TransactionEndLSN))
	case *pglogrepl.RelationMessage:
		schema := m.Namespace
		if schema == "" {
			schema = "pg_catalog"
		}
		say("relation ", m.RelationID, schema, m.RelationName, Identity(m.ReplicaIdentity))
		for _, c := range m.Columns {
			say(c.Name, c.DataType, c.Flags&1 != 0)
		}
	case *pglogrepl.InsertMessage:
		say(Insert, m.RelationID, false, "", "")
		tuple(m.Tuple)
	case *pglogrepl.UpdateMessage:
		say(Update, m.RelationID, m.OldTupleType == 'K', "", "")
		tuple(m.OldTuple)
		tuple(m.NewTuple)
	case *pglogrepl.DeleteMessage:
		say(Delete, m.RelationID, m.OldTupleType == 'K', "", "")
		tuple(m.OldTuple)
	case *pglogrepl.TruncateMessage:
		for _, oid := range m.RelationIDs {
			say(Truncate, oid, false, "", "")
		}
	case *pglogrepl.LogicalDecodingMessage:
		if m.Transactional {
			say(Emit, 0, false, m.Prefix, string(m.Content))
		}
	}
	return told
}

func BenchmarkDecoder(b *testing.B) {
	d, rows := loaded(b)
	ctx := context.Background()
	insert := rows[slices.IndexFunc(rows, func(m []byte) bool { return m[0] == 'I' && len(m) < 100 })]
	b.ReportAllocs()
	b.SetBytes(int64(len(insert)))
	for b.Loop() {
		if err := d.message(ctx, 1, insert); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPgTime(t *testing.T) {
	t.Parallel()
	for micros, want := range map[int64]time.Time{
		0:                   time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		-1:                  time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		828_360_000_000_001: time.Date(2026, 4, 1, 12, 0, 0, 1000, time.UTC),
	} {
		if got := pgTime(uint64(micros)); !got.Equal(want) {
			t.Errorf("%d is %s; want %s", micros, got, want)
		}
	}
}
