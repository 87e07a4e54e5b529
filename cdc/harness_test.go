package cdc

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
	"postman/value"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Shared(m)) }

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// seen is a change as a recorder keeps it: copied and decoded.
type seen struct {
	Op      Op
	Ordinal uint64
	Table   string
	New     map[string]any // the datums' states stand for values that are not there
	Old     map[string]any
	OldKey  bool
	Prefix  string
	Content string
	Unread  string // the message of a change that could not be read
}

// transaction is one that was handed over whole.
type transaction struct {
	Tx
	Changes []seen
}

// recorder is a Handler that keeps what it is told, and checks that it is told so in the order of the contract.
type recorder struct {
	t testing.TB
	// onChange, if there is one, is called with each change; its error stops the stream.
	onChange func(*Change) error
	// confirm, if there is one, is called with each end of a commit and each idle position.
	confirm func(position.LSN)
	whole   bool // transactions are asked for once they have committed

	mu        sync.Mutex
	wake      chan struct{}
	open      *transaction            // that Begin opened
	streams   map[uint32]*transaction // in progress
	current   *transaction            // that changes belong to
	blocks    int                     // calls of Stream
	cuts      int                     // calls of Rollback
	restarts  int
	changed   int // calls of Change
	done      []transaction
	discarded int // transactions that began and were not seen to their end
	relations []*Table
	idle      []position.LSN
	last      position.LSN // end of the last commit, or idle position
}

func newRecorder(t testing.TB) *recorder { return &recorder{t: t, wake: make(chan struct{}, 1)} }

func (r *recorder) told() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recorder) Restart() error {
	defer r.told()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil {
		r.discarded++
	}
	r.discarded += len(r.streams)
	r.restarts++
	r.open, r.current, r.streams = nil, nil, make(map[uint32]*transaction)
	return nil
}

func (r *recorder) Begin(tx Tx) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if tx.Commit < r.last {
		r.t.Errorf("the transaction at %s begins after %s", tx.Commit, r.last)
	}
	if r.open != nil {
		r.t.Errorf("%d begins within %d", tx.XID, r.open.XID)
	}
	r.open = &transaction{Tx: tx}
	r.current = r.open
	return nil
}

func (r *recorder) Stream(xid uint32) error {
	r.mu.Lock()
	if r.open != nil {
		r.t.Errorf("%d is streamed within %d", xid, r.open.XID)
	}
	if r.streams[xid] == nil {
		r.streams[xid] = &transaction{Tx: Tx{XID: xid}}
	}
	r.current = r.streams[xid]
	r.blocks++
	r.mu.Unlock()
	r.told()
	return nil
}

func (r *recorder) Rollback(xid uint32, from uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts++
	r.current = nil
	if from == 0 {
		delete(r.streams, xid)
		return nil
	}
	t := r.streams[xid]
	if t == nil || uint64(len(t.Changes)) <= from {
		r.t.Errorf("rollback of %d from %d: %+v", xid, from, t)
		return nil
	}
	t.Changes = t.Changes[:from]
	return nil
}

func (r *recorder) Change(c *Change) error {
	s, err := look(c)
	if err != nil {
		r.t.Errorf("a change that cannot be read: %v", err)
	}
	r.mu.Lock()
	if t := r.current; t == nil {
		r.t.Error("a change outside of a transaction")
	} else {
		if s.Ordinal != uint64(len(t.Changes)) {
			r.t.Errorf("ordinal %d of change %d", s.Ordinal, len(t.Changes))
		}
		t.Changes = append(t.Changes, s)
	}
	r.changed++
	r.mu.Unlock()
	r.told()
	if r.onChange != nil {
		return r.onChange(c)
	}
	return nil
}

func (r *recorder) Commit(tx Tx) error {
	r.mu.Lock()
	t := r.open
	if t == nil {
		if t = r.streams[tx.XID]; t == nil {
			t = new(transaction)
		}
		delete(r.streams, tx.XID)
		t.Commit = tx.Commit
	}
	if t.Commit != tx.Commit || tx.End <= tx.Commit || tx.Commit < r.last || tx.Time.IsZero() {
		r.t.Errorf("commit %+v of %+v after %s", tx, t.Tx, r.last)
	} else {
		t.Tx = tx
		if len(t.Changes) > 0 { // Postgres 14 sends transactions in which nothing is published
			r.done = append(r.done, *t)
		}
	}
	r.open, r.current, r.last = nil, nil, tx.End
	r.mu.Unlock()
	r.told()
	if r.confirm != nil {
		r.confirm(tx.End)
	}
	return nil
}

func (r *recorder) Relation(t *Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relations = append(r.relations, t)
	return nil
}

func (r *recorder) Idle(lsn position.LSN) error {
	r.mu.Lock()
	if r.open != nil {
		r.t.Errorf("idle at %s within %d", lsn, r.open.XID)
	}
	r.current = nil // if a block is open, its next change is an error
	if lsn <= r.last {
		r.t.Errorf("idle at %s after %s", lsn, r.last)
	}
	r.idle, r.last = append(r.idle, lsn), lsn
	r.mu.Unlock()
	r.told()
	if r.confirm != nil {
		r.confirm(lsn)
	}
	return nil
}

// look copies and decodes a change.
func look(c *Change) (seen, error) {
	s := seen{Op: c.Op, Ordinal: c.Ordinal, OldKey: c.OldKey, Prefix: c.Prefix, Content: string(c.Content), Unread: string(c.Raw)}
	if c.Table == nil {
		return s, nil
	}
	s.Table = c.Table.String()
	var err error
	if s.New, err = decode(c.Table, c.New); err != nil {
		return s, err
	}
	s.Old, err = decode(c.Table, c.Old)
	return s, err
}

func decode(t *Table, tuple Tuple) (map[string]any, error) {
	if len(tuple) == 0 {
		return nil, nil
	}
	datums, err := tuple.Datums(nil)
	if err != nil {
		return nil, err
	}
	row := make(map[string]any)
	for i, d := range datums {
		c := t.Columns[i]
		if d.State != value.Present {
			row[c.Name] = d.State
			continue
		}
		v, err := value.Decode(c.Type.Base, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		if number, ok := v.(*value.Decimal); ok {
			v = number.String()
		}
		row[c.Name] = v
	}
	return row, nil
}

// await waits until the recorder has seen what is asked for.
func (r *recorder) await(what string, seen func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		ok := seen()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.wake:
		case <-deadline:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// transactions waits for the first n transactions and returns them.
func (r *recorder) transactions(n int) []transaction {
	r.t.Helper()
	r.await(fmt.Sprintf("%d transactions", n), func() bool { return len(r.done) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// changes is the changes of the first n transactions.
func (r *recorder) changes(n int) []seen {
	r.t.Helper()
	var all []seen
	for _, tx := range r.transactions(n) {
		all = append(all, tx.Changes...)
	}
	return all
}

// provide creates publications for the needs and a slot, named like the database, and returns where it starts.
func provide(t testing.TB, url string, needs ...Need) (slot string, start position.LSN) {
	t.Helper()
	slot = pgtest.Name(url)
	if slot == "postgres" {
		slot = "postman"
	}
	publish(t, url, slot, needs...)
	start, err := CreateSlot(t.Context(), url, slot)
	if err != nil {
		t.Fatal(err)
	}
	return slot, start
}

// publish makes the publications fit the needs.
func publish(t testing.TB, url, slot string, needs ...Need) {
	t.Helper()
	statements, err := plan(t, url, slot, needs...)
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), pgtest.Connect(t, url), statements); err != nil {
		t.Fatal(err)
	}
	if again, err := plan(t, url, slot, needs...); len(again) > 0 || err != nil {
		t.Fatalf("after\n%s\nthere is still to do\n%s (%v)", strings.Join(statements, "\n"), strings.Join(again, "\n"), err)
	}
}

func plan(t testing.TB, url, slot string, needs ...Need) ([]string, error) {
	t.Helper()
	conn := pgtest.Connect(t, url)
	tables := make(map[TableName]bool)
	for _, n := range needs {
		tables[n.Table] = true
	}
	catalog, err := LoadCatalog(t.Context(), conn, slices.Collect(maps.Keys(tables)))
	if err != nil {
		t.Fatal(err)
	}
	db, err := Inspect(t.Context(), conn, slot)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := PlanPublications(db, slot, needs, catalog)
	return plan.Statements(), err
}

// all needs every operation of the named tables of schema public.
func all(tables ...string) []Need {
	var needs []Need
	for _, name := range tables {
		needs = append(needs, Need{TableName{"public", name}, []Op{Insert, Update, Delete, Truncate}})
	}
	return needs
}

// run runs a stream until the test ends, or stop is called, which returns the stream's error.
func run(t testing.TB, o Options, h Handler) (s *Stream, stop func() error) {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, recording := h.(*recorder)
	o.InProgress = !recording || !r.whole
	s = NewStream(o)
	s.wholeFor = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	if recording && r.confirm == nil {
		r.confirm = s.Confirm
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, h) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return s, stop
}

// watch makes tables, publications and a slot in a database of its own, and streams it.
func watch(t testing.TB, needs []Need, statements ...string) (url string, r *recorder, s *Stream) {
	t.Helper()
	url = pgtest.Database(t)
	pgtest.Exec(t, url, statements...)
	slot, start := provide(t, url, needs...)
	r = newRecorder(t)
	s, _ = run(t, Options{URL: url, Slot: slot, Start: start}, r)
	return url, r, s
}
