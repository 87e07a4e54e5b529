package cdc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
)

func TestParseHistory(t *testing.T) {
	t.Parallel()
	got, err := parseHistory([]byte("1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/30001C0\tbefore 2026-11-22 # late\n"))
	if diff := cmp.Diff([]fork{{1, 0x3000148}, {2, 0x30001C0}}, got, cmp.AllowUnexported(fork{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, text := range []string{"1", "x\t0/1\ty", "1\tnowhere\ty"} {
		if got, err := parseHistory([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte("1\t0/3000148\tno recovery target specified\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		forks, err := parseHistory(b)
		if err != nil && forks != nil {
			t.Fatalf("%v beside %v", forks, err)
		}
	})
}

// awaitReplay waits until the standby has all of the primary's log.
func awaitReplay(t *testing.T, primary, standby *pgcluster.Cluster) {
	t.Helper()
	from, to := pgtest.Connect(t, primary.URL("postgres")), pgtest.Connect(t, standby.URL("postgres"))
	_, end, err := WALEnd(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		replayed, _, err := WALEnd(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if replayed >= end {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the standby has replayed up to %s; want %s", replayed, end)
		}
	}
}

func identify(t *testing.T, conn *pgx.Conn) (pglogrepl.IdentifySystemResult, error) {
	t.Helper()
	return pglogrepl.IdentifySystem(t.Context(), conn.PgConn())
}

// TestPromotedStandby loses the primary to a standby that keeps the slot, and goes on there by itself, with nothing missing.
func TestPromotedStandby(t *testing.T) {
	t.Parallel()
	bin := ""
	for major, dir := range pgcluster.Installed() {
		if major >= firstFailover && (bin == "" || dir < bin) {
			bin = dir
		}
	}
	if bin == "" {
		return // where it is not at hand, TestBranches shows what does not need it
	}
	primary, err := pgcluster.Start(t.Context(), pgcluster.Options{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Stop)
	url := primary.URL("postgres")
	pgtest.Exec(t, url, "create table t (id int primary key)", "select pg_create_physical_replication_slot('standby')")
	standby := pgtest.Standby(t, primary, map[string]string{
		"primary_slot_name": "standby", "hot_standby_feedback": "on", "sync_replication_slots": "on",
	})
	slot, start := provide(t, url, all("t")...)
	pgtest.Exec(t, url, "alter system set synchronized_standby_slots = 'standby'", "select pg_reload_conf()")
	var moved atomic.Int32
	r := newRecorder(t)
	s, _ := run(t, Options{
		URL: pgcluster.PrimaryOf(primary, standby), Slot: slot, Start: start,
		Moved: func(_ context.Context, timeline int32) error {
			if moved.Swap(timeline) == 0 {
				return errors.New("not now")
			}
			return nil
		},
	}, r)
	pgtest.Exec(t, url, "insert into t values (1)")
	r.transactions(1)
	conn := pgtest.Connect(t, standby.URL("postgres"))
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var ready bool
		err := conn.QueryRow(t.Context(), "select exists (select from pg_replication_slots where slot_name = $1 and failover and not temporary)", slot).Scan(&ready)
		if err != nil {
			t.Fatal(err)
		}
		if ready {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the standby does not keep the slot")
		}
		pgtest.Exec(t, url, "select pg_log_standby_snapshot()")
	}
	pgtest.Exec(t, url, "insert into t values (2)")
	awaitReplay(t, primary, standby)
	primary.Kill()
	pgtest.Exec(t, standby.URL("postgres"), "select pg_promote()", "insert into t values (3)")
	onceEach(t, r, 3, 3)
	if moved.Load() != 2 || !s.Status().Connected {
		t.Errorf("moved to %d; status %+v", moved.Load(), s.Status())
	}
}

// TestBranches meets servers that are another branch of the one that was streamed from. T14 of the acceptance list, for a stream
// that runs.
func TestBranches(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, nil)
	url := primary.URL("postgres")
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	standby := pgtest.Standby(t, primary, nil)
	awaitReplay(t, primary, standby)
	r := newRecorder(t)
	_, stop := run(t, Options{URL: url, Slot: slot, Start: start}, r)
	pgtest.Exec(t, url, "insert into t values (1)")
	first := r.transactions(1)[0]
	awaitReplay(t, primary, standby)
	pgtest.Exec(t, standby.URL("postgres"), "select pg_promote()")
	pgtest.Exec(t, url, "insert into t values (2)")
	second := r.transactions(2)[1]
	_ = stop()
	// It has written on for longer than the primary, so that the length of its log tells nothing.
	pgtest.Exec(t, standby.URL("postgres"), "select pg_switch_wal()", "insert into t select n from generate_series(2, 1000) n", "select pg_switch_wal()", "insert into t values (-1)")
	publish(t, standby.URL("postgres"), slot, all("t")...)
	if _, err := CreateSlot(t.Context(), standby.URL("postgres"), slot); err != nil {
		t.Fatal(err)
	}
	at, known, err := LeftAt(t.Context(), standby.URL("postgres"), slot, 1, 2)
	if err != nil || !known || at < first.End || at > second.Commit {
		t.Fatalf("timeline 2 left timeline 1 at %s, %v, %v; want it between %s and %s", at, known, err, first.End, second.Commit)
	}
	if _, known, err := LeftAt(t.Context(), standby.URL("postgres"), slot, 7, 2); known || err != nil {
		t.Errorf("timeline 2 came from timeline 7: %v", err)
	}
	if _, known, err := LeftAt(t.Context(), url, slot, 2, 1); known || err != nil {
		t.Errorf("timeline 1 came from timeline 2: %v", err)
	}
	for name, c := range map[string]struct {
		url   string
		start Options
		want  string
	}{
		"promoted without what was streamed": {standby.URL("postgres"), Options{Start: second.End, Timeline: 1}, "left timeline 1 at"},
		"the old primary, after a promotion": {url, Options{Start: second.End, Timeline: 2}, "did not come from timeline 2"},
		"another system":                     {url, Options{Start: second.End, SystemID: "7"}, "another one than before"},
	} {
		o := c.start
		o.URL, o.Slot = c.url, slot
		s := NewStream(o)
		conn := pgtest.Connect(t, c.url+"&replication=database&default_query_exec_mode=simple_protocol")
		system, err := identify(t, conn)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.sameServer(t.Context(), conn.PgConn(), system, o.Start); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Up to where it was left, the timeline is the same.
	s := NewStream(Options{URL: standby.URL("postgres"), Slot: slot, Start: first.End, Timeline: 1})
	conn := pgtest.Connect(t, standby.URL("postgres")+"&replication=database&default_query_exec_mode=simple_protocol")
	system, err := identify(t, conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.sameServer(t.Context(), conn.PgConn(), system, first.End); err != nil || s.timeline != 2 {
		t.Errorf("timeline %d, %v", s.timeline, err)
	}
}
