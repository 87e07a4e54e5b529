package cdc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"postman/internal/netfault"
	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

// newProxy stands between the stream and the server.
func newProxy(t *testing.T, target string, tamper func([]byte)) *netfault.Proxy {
	t.Helper()
	p, err := netfault.Start(target, tamper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestKilledInTransaction ends the walsender in the middle of a transaction that is larger than all buffers.
func TestKilledInTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)")
	slot, start := provide(t, url, all("t")...)
	admin := pgtest.Connect(t, url)
	kill := sync.OnceFunc(func() {
		if _, err := admin.Exec(t.Context(), "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", slot); err != nil {
			t.Error(err)
		}
	})
	r := newRecorder(t)
	r.onChange = func(c *Change) error {
		if c.Ordinal == 100 {
			kill()
		}
		return nil
	}
	r.confirm = func(position.LSN) {} // what was handed over does not come again, though it is not durable yet
	pgtest.Exec(t, url, "insert into t values (0)", "insert into t select n, repeat('x', 1000) from generate_series(1, 20000) n", "insert into t values (-1)")
	s, _ := run(t, Options{URL: url, Slot: slot, Start: start}, r)
	onceEach(t, r, 3, 20_002)
	if r.discarded != 1 {
		t.Errorf("%d transactions were begun and begun again; want 1", r.discarded)
	}
	if st := s.Status(); !strings.Contains(st.LastError, "terminating connection") {
		t.Errorf("status %+v", st)
	}
}

// onceEach waits for n transactions and checks that they bring as many changes, no id twice.
func onceEach(t *testing.T, r *recorder, transactions, changes int) {
	t.Helper()
	got := r.changes(transactions)
	times := make(map[any]int)
	for _, c := range got {
		times[c.New["id"]]++
	}
	if len(got) != changes || len(times) != changes {
		t.Errorf("%d changes of %d rows; want %d of each", len(got), len(times), changes)
	}
}

// TestServerRestarts stops and crashes the server under a load.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, map[string]string{"max_prepared_transactions": "5"})
	url := c.URL("postgres")
	pgtest.Exec(t, url, "create table t (id bigint primary key)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	s, _ := run(t, Options{URL: url, Slot: slot, Start: start}, r)

	var load sync.WaitGroup
	var next atomic.Int64
	var enough atomic.Bool
	for range 2 {
		load.Go(func() { insert(t.Context(), url, &next, &enough) })
	}
	for _, crash := range []bool{false, true, false} {
		seen := len(r.transactions(0))
		r.transactions(seen + 50)
		if crash {
			c.Kill()
			for deadline := time.Now().Add(patience); !strings.Contains(s.Status().LastError, "refused"); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("status %+v", s.Status())
				}
			}
		}
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.transactions(len(r.transactions(0)) + 50)
	enough.Store(true)
	load.Wait()
	pgtest.Exec(t, url, "begin; insert into t values (-1); prepare transaction 'two'", "insert into t values (-2)", "commit prepared 'two'")

	conn := pgtest.Connect(t, url)
	rows, err := conn.Query(t.Context(), "select id from t order by id")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	r.await("all rows", func() bool { return len(r.done) >= len(stored) })
	var seen []int64
	for _, change := range r.changes(len(stored)) {
		seen = append(seen, change.New["id"].(int64))
	}
	if seen[len(seen)-1] != -1 || seen[len(seen)-2] != -2 {
		t.Errorf("the last are %v; want the prepared transaction where it was committed", seen[len(seen)-2:])
	}
	slices.Sort(seen)
	if !slices.Equal(stored, seen) {
		t.Errorf("the table has %d rows, %d were streamed, or others", len(stored), len(seen))
	}
	if st := s.Status(); !st.Connected || st.LastError == "" {
		t.Errorf("status %+v; want it connected again, and why it was not", st)
	}
}

// insert inserts rows, one a transaction, through all that happens to the server. It breaks no statement off, since
// that could be carried out later.
func insert(ctx context.Context, url string, next *atomic.Int64, enough *atomic.Bool) {
	var conn *pgx.Conn
	for !enough.Load() && ctx.Err() == nil {
		var err error
		if conn == nil {
			if conn, err = pgx.Connect(ctx, url); err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
		}
		if _, err = conn.Exec(ctx, "insert into t values ($1)", next.Add(1)); err != nil {
			_ = conn.Close(ctx)
			conn = nil
		}
	}
	if conn != nil {
		_ = conn.Close(ctx)
	}
}

// TestFailover finds a standby where the primary was, and waits for its promotion.
func TestFailover(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "create table t (id bigint primary key)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	s, _ := run(t, Options{URL: url, Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, "insert into t values (1)")
	r.transactions(1)
	c.Kill()
	if err := os.WriteFile(filepath.Join(c.Dir, "data", "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(s.Status().LastError, "standby"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", s.Status())
		}
	}
	db, err := Inspect(t.Context(), pgtest.Connect(t, url), slot)
	if err != nil {
		t.Fatal(err)
	}
	setupError(t, db.Ready(), "standby", "primary")
	pgtest.Exec(t, url, "select pg_promote()", "insert into t values (2)")
	onceEach(t, r, 2, 2)
}

// TestBlackHole has the network swallow everything, without a word to either end. T7 of the acceptance list: it is found out within
// wal_sender_timeout, and the status says so until the stream is there again.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	p := newProxy(t, url+"&wal_sender_timeout=1000", nil)
	r := newRecorder(t)
	s, _ := run(t, Options{URL: p.URL, Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, "insert into t values (1)")
	r.transactions(1)
	if got := s.patience(time.Second); got != time.Second {
		t.Errorf("the server may be silent for %s; want its wal_sender_timeout", got)
	}
	p.Freeze()
	pgtest.Exec(t, url, "insert into t values (2)")
	for deadline := time.Now().Add(patience); s.Status().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody notices")
		}
	}
	onceEach(t, r, 2, 2)
	if st := s.Status(); !strings.Contains(st.LastError, errSilence.Error()) {
		t.Errorf("status %+v", st)
	}
}

// TestSlowHandler holds the stream up for longer than the server's patience, with the server stuck in the middle of sending.
func TestSlowHandler(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key, x text)",
		"insert into t values (0)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	r.onChange = func(c *Change) error {
		if c.Ordinal == 100 {
			<-time.After(2500 * time.Millisecond)
		}
		return nil
	}
	pgtest.Exec(t, url, "insert into t select n, repeat('x', 1000) from generate_series(1, 20000) n")
	s, _ := run(t, Options{URL: url + "&wal_sender_timeout=1000", Slot: slot, Start: start}, r)
	onceEach(t, r, 1, 20_000)
	if st := s.Status(); st.LastError != "" || r.discarded != 0 {
		t.Errorf("the connection broke: %+v", st)
	}
}

// TestHeartbeat outlasts what would end the session if either end stopped answering the other.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout string        // the server's
		usual   time.Duration // what it is taken for
		beat    time.Duration
		silence time.Duration
		lasts   time.Duration
	}{
		"the server never speaks on its own": {"0", usualTimeout, 20 * time.Millisecond, time.Second, 1500 * time.Millisecond},
		"only the server asks":               {"500", 500 * time.Millisecond, time.Hour, time.Minute, 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			slot, start := provide(t, url)
			s := NewStream(Options{URL: url + "&wal_sender_timeout=" + c.timeout, Slot: slot, Start: start})
			config, err := replication(s.url)
			if err != nil {
				t.Fatal(err)
			}
			link := attach(config, &s.heard)
			conn, err := connect(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer hangUp(t.Context(), conn)
			timeout, err := s.start(t.Context(), conn)
			if err != nil || timeout != c.usual {
				t.Fatalf("the server's patience is %s, %v; want %s", timeout, err, c.usual)
			}
			x := &session{Stream: s, conn: conn, link: link, handler: newRecorder(t), silence: c.silence, asked: make(chan struct{}, 1)}
			ctx, cancel := context.WithTimeout(t.Context(), c.lasts)
			defer cancel()
			if err := x.run(ctx, c.beat); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it ended: %v", err)
			}
			if s.Status().LastMessage.IsZero() {
				t.Error("nothing was heard from the server")
			}
		})
	}
}

// TestConfirmCoalesces confirms without pause. The server must not be told each time, and must be told the last at the end.
func TestConfirmCoalesces(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	slot, start := provide(t, url)
	p := newProxy(t, url, nil)
	s, stop := run(t, Options{URL: p.URL, Slot: slot, Start: start}, newRecorder(t))
	for deadline := time.Now().Add(patience); !s.Status().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", s.Status())
		}
	}
	before, began, last := p.Sent(), time.Now(), start
	for range 300 {
		last++
		s.Confirm(last)
		time.Sleep(time.Millisecond)
	}
	_ = stop()
	statuses := p.Sent() - before
	if most := int64(time.Since(began)/coalesce) + 5; statuses > most || statuses < 1 {
		t.Errorf("%d messages to the server in %s; want %d at most", statuses, time.Since(began), most)
	}
	confirmedReaches(t, url, slot, last)
}

// TestNotice: since Postgres 18 a missing publication is only warned of.
func TestNotice(t *testing.T) {
	t.Parallel()
	x := &session{Stream: NewStream(Options{Slot: "s"})}
	if err := x.notice(&pgproto3.NoticeResponse{Severity: "WARNING", Code: "01000", Message: "mind the gap"}); err != nil {
		t.Error(err)
	}
	err := x.notice(&pgproto3.NoticeResponse{Severity: "WARNING", Code: codeUndefined, Message: `skipped loading publication "s_ins"`})
	setupError(t, err, "gone", "s_ins")
}

// TestAnotherServer: behind the same address another cluster answers.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	s := NewStream(Options{})
	if err := s.sameServer(t.Context(), nil, pglogrepl.IdentifySystemResult{SystemID: "1", XLogPos: 5}, 5); err != nil {
		t.Error(err)
	}
	setupError(t, s.sameServer(t.Context(), nil, pglogrepl.IdentifySystemResult{SystemID: "2", XLogPos: 5}, 5), "system 2 instead of 1")
	setupError(t, s.sameServer(t.Context(), nil, pglogrepl.IdentifySystemResult{SystemID: "1", XLogPos: 5}, 6), "ends before that, at 0/5")
}

// TestBusySlot: T8 of the acceptance list. Another walsender holds the slot.
func TestBusySlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	first := newRecorder(t)
	first.confirm = func(position.LSN) {}
	_, stop := run(t, Options{URL: url, Slot: slot, Start: start}, first)
	pgtest.Exec(t, url, "insert into t values (1)")
	end := first.transactions(1)[0].End

	// One with little patience gives up, and says what to do. One with more takes over.
	second := newRecorder(t)
	waiting, _ := run(t, Options{URL: url, Slot: slot, Start: end}, second)
	impatient := NewStream(Options{URL: url + "&wal_sender_timeout=500", Slot: slot, Start: end})
	setupError(t, impatient.Run(t.Context(), newRecorder(t)), "stays in use", "another postman", "(postman, from 127.0.0.1:", " UTC)", "pg_terminate_backend")
	for deadline := time.Now().Add(patience); !strings.Contains(waiting.Status().LastError, "in use"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", waiting.Status())
		}
	}
	_ = stop()
	pgtest.Exec(t, url, "insert into t values (2)")
	if got := second.changes(1); got[0].New["id"] != int64(2) {
		t.Errorf("after the take-over came %+v", got)
	}
}

// TestStolenSlot has another process read the slot and confirm: what it took is gone, and nobody shall wait for it.
func TestStolenSlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	thief := newRecorder(t)
	run(t, Options{URL: url, Slot: slot, Start: start}, thief)
	pgtest.Exec(t, url, "insert into t values (1)")
	confirmedReaches(t, url, slot, thief.transactions(1)[0].End)
	err := NewStream(Options{URL: url, Slot: slot, Start: start}).Run(t.Context(), newRecorder(t))
	setupError(t, err, "was moved to", "is read by the server's process")
}

// TestTypesNotYetVisible holds a commit back from everybody but the stream, as a synchronous standby that is slow does.
func TestTypesNotYetVisible(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	r := newRecorder(t)
	s, _ := run(t, Options{URL: url + "&wal_sender_timeout=1000", Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, "insert into t values (1)", "alter system set synchronous_standby_names = 'a_slow_one'", "select pg_reload_conf()")
	first := r.transactions(1)[0]

	var held sync.WaitGroup
	held.Go(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), "begin; create domain tall as int; alter table t add h tall; insert into t values (2, 180); commit"); err != nil {
			t.Error(err)
		}
	})
	// The stream has read the commit's messages and holds on, since it does not know the type. It says so, and stays connected.
	holds := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(patience); !strings.Contains(s.Status().Held, text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("status %+v; want %q", s.Status(), text)
			}
		}
	}
	holds("synchronous standby")
	if n := len(r.transactions(0)); n != 1 {
		t.Fatalf("%d transactions; the second cannot be handed over yet", n)
	}
	// Nobody can ask for types any more, neither.
	lock := pgtest.Connect(t, url)
	if _, err := lock.Exec(t.Context(), "begin; lock table pg_type in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	holds("timeout")
	if _, err := lock.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "set synchronous_commit = local", "alter system set synchronous_standby_names = ''", "select pg_reload_conf()")
	held.Wait()
	got := r.transactions(2)[1].Changes
	if len(got) != 1 || got[0].New["h"] != int64(180) {
		t.Errorf("the domain over int came as %+v", got)
	}
	if first.End > s.Status().Received {
		t.Error("the stream went back")
	}
	if st := s.Status(); !st.Connected || st.LastError != "" || st.Held != "" || r.discarded != 0 {
		t.Errorf("it did not stay connected, or is held still: %+v", st)
	}
}

// TestHandlerError: an error of the handler ends the stream, whichever call returns it.
func TestHandlerError(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	pgtest.Exec(t, url, "insert into t values (1)")
	for _, call := range []string{"Begin", "Relation", "Change", "Commit", "Idle"} {
		refusal := fmt.Errorf("no %s today", call)
		h := &refuser{call: call, err: refusal}
		if err := NewStream(Options{URL: url, Slot: slot, Start: start}).Run(t.Context(), h); err != refusal { //nolint:errorlint // the very error, not wrapped
			t.Errorf("%s: Run returned %v", call, err)
		}
	}
	r := newRecorder(t)
	run(t, Options{URL: url, Slot: slot, Start: start}, r)
	onceEach(t, r, 1, 1)
}

// refuser returns an error from one of its methods.
type refuser struct {
	call string
	err  error
}

func (h *refuser) at(call string) error {
	if call == h.call {
		return h.err
	}
	return nil
}

func (h *refuser) Restart() error                { return h.at("Restart") }
func (h *refuser) Begin(Tx) error                { return h.at("Begin") }
func (h *refuser) Stream(uint32) error           { return h.at("Stream") }
func (h *refuser) Rollback(uint32, uint64) error { return h.at("Rollback") }
func (h *refuser) Change(*Change) error          { return h.at("Change") }
func (h *refuser) Commit(Tx) error               { return h.at("Commit") }
func (h *refuser) Relation(*Table) error         { return h.at("Relation") }
func (h *refuser) Idle(position.LSN) error       { return h.at("Idle") }
