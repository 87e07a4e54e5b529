package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

// captureStreamed reads what a server sends of transactions in progress, in the form of testdata/streamed.hex.
func captureStreamed(t *testing.T) string {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create type mood as enum ('sad')", "create table t (id int primary key, m mood)", "create table ballast (x text)",
		"create function fill() returns void language sql as $$insert into ballast select repeat('x', 1000) from generate_series(1, 70)$$")
	slot, start := provide(t, url, all("t")...)
	conns := []*pgx.Conn{pgtest.Connect(t, url), pgtest.Connect(t, url), pgtest.Connect(t, url)}
	for _, step := range []struct {
		conn int
		sql  string
	}{
		{0, "begin; insert into t values (1, 'sad'); select fill()"},
		{1, "begin; insert into t values (10, 'sad'); select fill()"},
		{2, "begin; insert into t values (20, 'sad'); select fill(); rollback"},
		{2, "insert into t values (30, 'sad')"},
		{0, "savepoint a; insert into t values (2, 'sad'), (3, null); select fill(); savepoint b; update t set m = null where id = 2; select fill()"},
		{0, "rollback to b; delete from t where id = 3; select fill(); rollback to a; insert into t values (4, null); select fill()"},
		{1, "insert into t values (11, null); commit"},
		{0, "select pg_logical_emit_message(true, 'postman.m', 'text'); alter table t add x int; insert into t values (5, 'sad', 1); truncate t; select fill(); commit"},
	} {
		if _, err := conns[step.conn].Exec(t.Context(), step.sql); err != nil {
			t.Fatal(err)
		}
	}
	return receive(t, NewStream(Options{URL: url + "&logical_decoding_work_mem=64kB", Slot: slot, Start: start, InProgress: true}), 'c', 2)
}

// TestStreamedDecoder reads captured parts of transactions in progress.
func TestStreamedDecoder(t *testing.T) {
	t.Parallel()
	if *update {
		if err := os.WriteFile("testdata/streamed.hex", []byte(captureStreamed(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := new(teller)
	d := newDecoder(h)
	replayCapture(t, d, "streamed.hex", "SEAcRYIUDTMBC")
	if len(d.streams) != 0 || d.block != nil || d.open {
		t.Errorf("%d streams are left", len(d.streams))
	}
	h.golden(t, "testdata/streamed.txt")
}

// TestStreamedDecoderSkips has the server send a transaction that was handed over before.
func TestStreamedDecoderSkips(t *testing.T) {
	t.Parallel()
	whole, again := new(teller), new(teller)
	first, second := newDecoder(whole), newDecoder(again)
	for _, m := range captured(t, "streamed.hex") {
		if err := first.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	second.done = first.done
	for _, m := range captured(t, "streamed.hex") {
		if err := second.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(again.String(), "commit") || strings.Count(again.String(), "from 0") != strings.Count(whole.String(), "from 0")+2 {
		t.Errorf("told again:\n%s", again)
	}
}

// TestStreamedDecoderRefuses breaks a sound session at one message.
func TestStreamedDecoderRefuses(t *testing.T) {
	t.Parallel()
	messages := captured(t, "streamed.hex")
	find := func(kind byte) []byte {
		return messages[slices.IndexFunc(messages, func(m []byte) bool { return m[0] == kind })]
	}
	start, stop, insert, commit, begin := find('S'), find('E'), find('I'), find('c'), captured(t, "session.hex")[0]
	later := bytes.Clone(start)
	later[5] = 0
	for name, c := range map[string]struct {
		before [][]byte
		bad    []byte
		want   string
	}{
		"block in a block":             {[][]byte{start}, start, "within a transaction"},
		"block in a transaction":       {[][]byte{begin}, start, "within a transaction"},
		"transaction in a block":       {[][]byte{start}, begin, "within a transaction"},
		"first block again":            {[][]byte{start, stop}, start, "a first block"},
		"later block of nothing":       {nil, later, "a first block"},
		"stop outside":                 {nil, stop, "outside of a transaction"},
		"change after a block":         {[][]byte{start, stop}, insert, "outside of a transaction"},
		"commit in a block":            {[][]byte{start}, commit, "within a transaction"},
		"abort in a block":             {[][]byte{start}, []byte("A\x00\x00\x00\x01\x00\x00\x00\x01"), "within a transaction"},
		"relation of another":          {[][]byte{start}, insert, "not described"},
		"cut prefix":                   {[][]byte{start}, []byte("I\x00\x00"), "not described"},
		"long start":                   {nil, append(bytes.Clone(start), 0), "behind its end"},
		"another flag":                 {nil, append(bytes.Clone(start[:5]), 2), "unknown kind"},
		"commit that ends before it":   {nil, append(bytes.Clone(commit[:6]), make([]byte, 24)...), "commits from"},
		"abort with more than it has":  {nil, []byte("A\x00\x00\x00\x01\x00\x00\x00\x01\x00"), "behind its end"},
		"commit with less than it has": {nil, commit[:len(commit)-1], "cut short"},
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
			if !ok || broken.LSN != 0x16B374D848 || (broken.XID != 0) != (d.block != nil) {
				t.Fatalf("%v (%T)", err, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nlacks %q", err, c.want)
			}
		})
	}
}

// inBlock is a decoder in a block of a transaction that has described the captured relations.
func inBlock(t testing.TB, h Handler) *decoder {
	t.Helper()
	known, _ := loaded(t)
	d := newDecoder(h)
	d.block = &streamed{xid: 7, relations: make(map[uint32]*described)}
	d.streams[7] = d.block
	for oid, table := range known.relations {
		d.block.relations[oid] = &described{Table: table, first: unused}
	}
	return d
}

// prefix makes of a message of a transaction that comes whole one of a block.
func prefix(m []byte, xid uint32) []byte {
	if len(m) == 0 || !prefixed(m[0]) {
		return m
	}
	return append(binary.BigEndian.AppendUint32([]byte{m[0]}, xid), m[1:]...)
}

// TestStreamedDecoderAllocates nothing for a row, neither where each tenth belongs to a subtransaction of its own, but for
// the list of these.
func TestStreamedDecoderAllocates(t *testing.T) {
	d := inBlock(t, &teller{quiet: true})
	_, rows := loaded(t)
	var messages [][]byte
	for i, m := range rows {
		messages = append(messages, prefix(m, 7+uint32(i%2)))
	}
	allocs := testing.AllocsPerRun(100, func() {
		for _, m := range messages {
			if err := d.message(t.Context(), 1, m); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for %d rows", allocs, len(rows))
	}
}

// FuzzBlock reads any bytes as a message of a block, and the same without its number as one of a transaction that comes whole.
func FuzzBlock(f *testing.F) {
	for _, m := range captured(f, "session.hex") {
		f.Add(m, uint32(7))
		f.Add(m, uint32(8))
	}
	f.Fuzz(func(t *testing.T, message []byte, xid uint32) {
		if len(message) > 0 && !prefixed(message[0]) || bytes.HasPrefix(message, []byte("M\x00")) {
			return // not of a block
		}
		in, out := &checker{}, &checker{}
		block := inBlock(t, in)
		err := block.message(t.Context(), 1, prefix(message, xid))
		plain := newDecoder(out)
		known, _ := loaded(t)
		plain.relations, plain.tx, plain.open = maps.Clone(known.relations), known.tx, true
		other := plain.message(t.Context(), 1, message)
		if (err == nil) != (other == nil) {
			t.Fatalf("in a block: %v; without: %v", err, other)
		}
		if err != nil {
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Fatalf("%v (%T)", err, err)
			}
			return
		}
		relation := func(line string) bool { return message[0] == 'R' } // announced by the commit
		if diff := cmp.Diff(slices.DeleteFunc(out.told, relation), in.told, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if n := block.block.next; n != plain.next {
			t.Errorf("%d changes were counted in a block, %d without", n, plain.next)
		}
	})
}

// FuzzStream reads any bytes as what stands around blocks, and has another decoder read what ours accepts.
func FuzzStream(f *testing.F) {
	for _, m := range captured(f, "streamed.hex") {
		if strings.IndexByte("SEAc", m[0]) >= 0 {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) == 0 || strings.IndexByte("SEAc", message[0]) < 0 {
			return
		}
		h := &checker{}
		d := inBlock(t, h)
		if message[0] != 'E' {
			d.block = nil
		}
		if err := d.message(t.Context(), 1, message); err != nil {
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Fatalf("%v (%T)", err, err)
			}
			return
		}
		other, err := pglogrepl.ParseV2(message, message[0] == 'E')
		if err != nil {
			t.Fatalf("accepted, and refused by another: %v", err)
		}
		var want []string
		switch m := other.(type) {
		case *pglogrepl.StreamStartMessageV2:
			want = []string{fmt.Sprint("stream ", m.Xid)}
		case *pglogrepl.StreamCommitMessageV2:
			want = []string{fmt.Sprint("commit ", position.LSN(m.CommitLSN), position.LSN(m.TransactionEndLSN))}
		case *pglogrepl.StreamAbortMessageV2:
			if m.Xid == 7 && m.SubXid == 7 {
				want = []string{"rollback 7"}
			}
		}
		if diff := cmp.Diff(want, h.told); diff != "" {
			t.Fatalf("another reads it differently: %s", diff)
		}
	})
}

// FuzzStreamedSession reads captured messages in any order: what is accepted keeps the contract of Handler.
func FuzzStreamedSession(f *testing.F) {
	messages := captured(f, "streamed.hex")
	sound := make([]byte, len(messages))
	for i := range sound {
		sound[i] = byte(i)
	}
	f.Add(sound)
	f.Fuzz(func(t *testing.T, order []byte) {
		h := &contract{t: t, streams: make(map[uint32]uint64)}
		d := newDecoder(h)
		for _, i := range order {
			err := d.message(t.Context(), 1, messages[int(i)%len(messages)])
			if err == nil {
				continue
			}
			_, broken := errors.AsType[*DecodeError](err)
			_, whole := errors.AsType[*wholeError](err)
			if !broken && !whole {
				t.Fatalf("%v (%T)", err, err)
			}
			return
		}
	})
}

// contract is a Handler that counts changes.
type contract struct {
	t       *testing.T
	streams map[uint32]uint64 // how many each has
	current uint32
	open    bool
	next    uint64
}

func (h *contract) Restart() error { return nil }

func (h *contract) Begin(Tx) error {
	h.current, h.open, h.next = 0, true, 0
	return nil
}

func (h *contract) Stream(xid uint32) error {
	if h.open {
		h.t.Error("a block in a transaction")
	}
	h.current = xid
	return nil
}

func (h *contract) Change(c *Change) error {
	want := &h.next
	if !h.open {
		if h.current == 0 {
			h.t.Error("a change outside")
		}
		n := h.streams[h.current]
		defer func() { h.streams[h.current] = n + 1 }()
		want = new(n)
	}
	if c.Ordinal != *want {
		h.t.Errorf("ordinal %d; want %d", c.Ordinal, *want)
	}
	h.next++
	return nil
}

func (h *contract) Rollback(xid uint32, from uint64) error {
	if from > 0 && h.streams[xid] <= from {
		h.t.Errorf("rollback from %d of %d", from, h.streams[xid])
	}
	h.streams[xid], h.current = from, 0
	return nil
}

func (h *contract) Commit(tx Tx) error {
	delete(h.streams, tx.XID)
	h.open, h.current = false, 0
	return nil
}

func (h *contract) Relation(*Table) error   { return nil }
func (h *contract) Idle(position.LSN) error { return nil }
