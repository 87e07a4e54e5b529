package cdc

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/internal/pgcluster/pgtest"
)

// garble is a network that changes a message as often as times says, and counts.
func garble(mark string, times int64) (tamper func([]byte), garbled *atomic.Int64) {
	garbled = new(atomic.Int64)
	return func(b []byte) {
		for {
			at := bytes.Index(b, []byte("t\x00\x00\x00\x09"+mark))
			if at < 0 || garbled.Add(1) > times {
				return
			}
			b[at] = 'q'
		}
	}, garbled
}

// A message that was garbled on its way is asked for again, and nothing is missing or marked.
func TestGarbledOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	tamper, garbled := garble("tamper-me", 1)
	p := newProxy(t, url, tamper)
	pgtest.Exec(t, url, "insert into t values (1, 'fine')", "insert into t values (2, 'tamper-me')", "insert into t values (3, 'fine')")
	r := newRecorder(t)
	s, _ := run(t, Options{URL: p.URL, Slot: slot, Start: start}, r)
	onceEach(t, r, 3, 3)
	for _, c := range r.changes(3) {
		if c.Unread != "" {
			t.Errorf("%+v", c)
		}
	}
	if garbled.Load() < 2 || !strings.Contains(s.Status().LastError, "malformed tuple") {
		t.Errorf("it was not read twice: %+v", s.Status())
	}
}

// What the server says twice in the same way is handed over unread, and all else goes on around it, each in its place.
// T11 of the acceptance list: bytes that cannot be read.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	tamper, _ := garble("tamper-me", 1<<40)
	p := newProxy(t, url, tamper)
	pgtest.Exec(t, url, "insert into t values (1, 'fine')", "insert into t values (2, 'fine'), (3, 'tamper-me'), (4, 'tamper-me'), (5, 'fine')",
		"insert into t values (6, 'fine')")
	r := newRecorder(t)
	s, _ := run(t, Options{URL: p.URL, Slot: slot, Start: start}, r)
	got := r.transactions(3)
	if r.discarded != 1 {
		t.Errorf("%d transactions were begun and begun again; want 1", r.discarded)
	}
	var told []string
	for _, c := range got[1].Changes {
		if c.Ordinal == 1 || c.Ordinal == 2 {
			if c.Unread == "" || c.Unread[0] != 'I' || !strings.Contains(c.Unread, "tamper-me") || c.New != nil || c.Table != "t" || c.Op != Insert {
				t.Errorf("%+v", c)
			}
			told = append(told, "unread")
			continue
		}
		told = append(told, c.New["x"].(string))
	}
	if diff := cmp.Diff([]string{"fine", "unread", "unread", "fine"}, told); diff != "" {
		t.Error(diff)
	}
	confirmedReaches(t, url, slot, got[2].End)
	if !s.Status().Connected {
		t.Errorf("status %+v", s.Status())
	}
}

// A transaction that is streamed in progress is read again, whole, when one of its messages cannot be read.
func TestUndecodableInProgress(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t) + "&logical_decoding_work_mem=64kB"
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	tamper, garbled := garble("tamper-me", 1<<40)
	p := newProxy(t, url, tamper)
	r := newRecorder(t)
	run(t, Options{URL: p.URL, Slot: slot, Start: start, InProgress: true}, r)
	pgtest.Exec(t, url, "begin; insert into t select n, case n when 700 then 'tamper-me' else 'fine' end from generate_series(1, 2000) n;"+
		"savepoint s; insert into t values (-1, 'tamper-me'); rollback to s; insert into t values (0, 'fine'); commit", "insert into t values (2001, 'fine')")
	got := r.transactions(2)
	var unread []uint64
	for _, c := range got[0].Changes {
		if c.Unread != "" {
			unread = append(unread, c.Ordinal)
		}
	}
	if diff := cmp.Diff([]uint64{699}, unread); diff != "" || len(got[0].Changes) != 2001 || len(got[1].Changes) != 1 || garbled.Load() < 3 {
		t.Errorf("%d and %d changes, garbled %d times; unread: %s", len(got[0].Changes), len(got[1].Changes), garbled.Load(), diff)
	}
}

// Without its Commit nobody knows where a transaction ends: the stream stops before it, and confirms nothing of it.
func TestUndecodableEnvelope(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	var commits atomic.Int64
	p := newProxy(t, url, func(b []byte) { // CopyData, XLogData, and a Commit message of 26 bytes
		for head := []byte("d\x00\x00\x00\x37w"); ; b = b[1:] {
			at := bytes.Index(b, head)
			if at < 0 || at+31 > len(b) {
				return
			}
			if b = b[at:]; b[30] == 'C' && commits.Add(1) > 1 {
				b[32] ^= 0xFF // of its LSN
			}
		}
	})
	r := newRecorder(t)
	pgtest.Exec(t, url, "insert into t values (1, 'fine')")
	s := NewStream(Options{URL: p.URL, Slot: slot, Start: start})
	r.confirm = s.Confirm
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context(), r) }()
	first := r.transactions(1)[0]
	pgtest.Exec(t, url, "insert into t values (2, 'fine')")
	err := <-ended
	broken, ok := errors.AsType[*DecodeError](err)
	if !ok {
		t.Fatalf("%v; want a DecodeError", err)
	}
	if broken.LSN <= first.Commit || !strings.Contains(err.Error(), broken.LSN.String()) {
		t.Errorf("%v: its LSN does not lie behind the first commit", err)
	}
	if st := s.Status(); st.Connected || st.Confirmed < first.End || st.Confirmed > broken.LSN {
		t.Errorf("status %+v; want it confirmed up to %s", st, first.End)
	}
	// On a sound network it goes on with the very same transaction.
	_, stop := run(t, Options{URL: url, Slot: slot, Start: s.Status().Confirmed}, r)
	onceEach(t, r, 2, 2)
	_ = stop()
}

// TestQuarantine says of each kind of message what becomes of it, and of what follows, when it cannot be read.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	find := func(kind byte) []byte {
		return messages[slices.IndexFunc(messages, func(m []byte) bool { return m[0] == kind })]
	}
	begin, relation, insert, commit := find('B'), find('R'), find('I'), find('C')
	message := []byte("M\x01\x00\x00\x00\x00\x00\x00\x00\x00p\x00\x00\x00\x00\x00")
	table := string(new(teller).relation(t, begin, relation))
	cut := func(m []byte) []byte { return m[:len(m)-1] }
	unread := func(n, what string) string { return n + " " + what }
	for name, c := range map[string]struct {
		bad  []byte
		want []string // between Begin and Commit, with another insert behind the message
	}{
		"insert":           {cut(insert), []string{unread("0", "insert "+table), "1 insert"}},
		"insert of nobody": {[]byte("I\x00\x00\x00\x01N\x00\x00"), []string{unread("0", "insert"), "1 insert"}},
		"update":           {append([]byte("U"), cut(insert)[1:]...), []string{unread("0", "update "+table), "1 insert"}},
		"delete":           {append([]byte("D"), cut(insert)[1:]...), []string{unread("0", "delete "+table), "1 insert"}},
		"message":          {cut(message), []string{unread("0", "message"), "1 insert"}},
		"a type's name":    {[]byte("Y\x00"), []string{"0 insert"}},
		"truncate":         {[]byte("T\x00\x00\x00\x02\x00\x00\x00\x00\x01"), []string{"0 message . unread \"T\"", "1 message . unread \"I\""}},
		"a new kind":       {[]byte("?new"), []string{"0 message . unread \"?\"", "1 message . unread \"I\""}},
		"nothing":          {nil, []string{"0 message . unread \"\"", "1 message . unread \"I\""}},
		"a message of which nobody knows whether it is transactional": {[]byte("M"), []string{"0 message . unread \"M\"", "1 message . unread \"I\""}},
		"a table": {cut(relation), []string{"0 message . unread \"R\"", "1 message . unread \"I\""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := new(teller)
			d := newDecoder(h)
			d.quarantine.certain = true
			for _, m := range [][]byte{begin, relation, c.bad, insert, commit} {
				if err := d.message(t.Context(), 1, m); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for line := range strings.Lines(h.String()) {
				if line[0] >= '0' && line[0] <= '9' {
					got = append(got, line)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %q; want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("got %q; want %q", got[i], c.want[i])
				}
			}
			// The next transaction is read as any other, unless its table was lost.
			h.Reset()
			d.done = 0
			for _, m := range [][]byte{begin, relation, insert, commit} {
				if err := d.message(t.Context(), 1, m); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(h.String(), "unread") || !strings.Contains(h.String(), "0 insert") {
				t.Errorf("the next transaction: %s", h)
			}
		})
	}
}

// relation is the name of the table that a message describes.
func (h *teller) relation(t *testing.T, begin, relation []byte) string {
	t.Helper()
	d := newDecoder(h)
	for _, m := range [][]byte{begin, relation} {
		if err := d.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range d.relations {
		return table.String()
	}
	return ""
}

// A description that could not be read takes the one before it out of use: rows must not be read by a shape that they do not have.
func TestQuarantineForgetsShapes(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	find := func(kind byte) []byte {
		return messages[slices.IndexFunc(messages, func(m []byte) bool { return m[0] == kind })]
	}
	begin, relation, insert, commit := find('B'), find('R'), find('I'), find('C')
	h := new(teller)
	d := newDecoder(h)
	d.quarantine.certain = true
	for _, m := range [][]byte{begin, relation, insert, commit, begin, relation[:len(relation)-1], commit, begin, insert, commit} {
		d.done = 0
		if err := d.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(h.String(), "unread"); n != 2 {
		t.Errorf("%d were handed over unread; want the description, and the row behind it:\n%s", n, h)
	}
	if !strings.Contains(h.String(), "not described") {
		t.Error(h)
	}
}

// FuzzQuarantine has any bytes come twice in a transaction: the stream goes on behind them, unless they say what the transaction is, and
// whatever they are, they are handed over as a change that could be read, or unread and whole.
func FuzzQuarantine(f *testing.F) {
	var begin, commit []byte
	for _, m := range captured(f, "session.hex") {
		f.Add(m)
		switch m[0] {
		case 'B':
			begin = m
		case 'C':
			commit = m
		}
	}
	known, _ := loaded(f)
	f.Fuzz(func(t *testing.T, message []byte) {
		h := &unreadOnly{}
		d := newDecoder(h)
		d.relations, d.quarantine.certain = maps.Clone(known.relations), true
		if err := d.message(t.Context(), 1, begin); err != nil {
			t.Fatal(err)
		}
		err := d.message(t.Context(), 1, message)
		if err != nil {
			if _, ok := errors.AsType[*DecodeError](err); !ok || !envelope(message) {
				t.Fatalf("%q: %v", message, err)
			}
			return
		}
		for _, raw := range h.raw {
			if !bytes.Equal(raw, message) {
				t.Fatalf("%q was handed over as %q", message, raw)
			}
		}
		if d.open && d.tx.Commit == known.tx.Commit {
			if err := d.message(t.Context(), 1, commit); err != nil && !envelope(message) {
				t.Fatalf("behind %q: %v", message, err)
			}
		}
	})
}

// unreadOnly is a Handler that keeps what could not be read.
type unreadOnly struct {
	teller
	raw [][]byte
}

func (h *unreadOnly) Change(c *Change) error {
	if c.Err != nil {
		h.raw = append(h.raw, bytes.Clone(c.Raw))
	}
	return nil
}
