package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

// over is a world whose database is a cluster of its own, and which sends nothing: nobody has to arm anything for a server that was moved.
func over(t *testing.T, c *pgcluster.Cluster) *world {
	t.Helper()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.at(c)
	w.sql(worldSchema)
	return w
}

// at moves the world to another server.
func (w *world) at(c *pgcluster.Cluster) {
	w.url = c.URL("postgres")
	w.config.DatabaseURL = Secret(w.url)
}

// refused starts a daemon that must not start, and checks why, and what the store remembers of it.
func (w *world) refused(why string) {
	w.t.Helper()
	_, err := w.tryStart()
	if _, ok := errors.AsType[*GapError](err); !ok || !strings.Contains(err.Error(), why) || !Misconfigured(err) {
		w.t.Fatalf("it started, or failed with %v; want %q", err, why)
	}
	for _, way := range []string{"postman setup --accept-gap", "point DATABASE_URL or STORE_URL at the right one"} {
		if !strings.Contains(err.Error(), way) {
			w.t.Errorf("%v\nlacks the way %q", err, way)
		}
	}
}

// accept accepts the gap, and checks that it is recorded with both ends, and that the stream goes on in a new epoch.
func (w *world) accept(epoch uint32) *Daemon {
	w.t.Helper()
	if _, err := Setup(w.t.Context(), w.config, SetupOptions{AcceptGap: true}); err != nil {
		w.t.Fatal(err)
	}
	d := w.start()
	gaps, err := d.store.Gaps(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range gaps {
		if g.Rule == "" && (g.To == 0 || g.To < g.From || g.Closed.IsZero() || !g.Lost) {
			w.t.Errorf("the gap %+v has not both ends", g)
		}
	}
	if len(gaps) == 0 || d.source.Epoch != epoch {
		w.t.Errorf("epoch %d, gaps %+v; want epoch %d", d.source.Epoch, gaps, epoch)
	}
	return d
}

// visit books one with a note, and wants it to be matched.
func (w *world) visit(d *Daemon, n int) {
	w.t.Helper()
	w.sql(`insert into visits (kind, staff_id, note) values ('visit', 1, 'seen')`)
	w.messages(d, n)
}

// T14 of the acceptance list: an older backup in the place of the server that the store covers.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, nil)
	w := over(t, primary)
	d := w.start()
	w.visit(d, 1)
	w.stop(d)
	short, long := pgtest.Backup(t, primary), pgtest.Backup(t, primary)
	before := w.inspect().Slot.Restart // as the copies have it
	d = w.start()
	w.visit(d, 2)
	w.sql("checkpoint")
	w.visit(d, 3)
	// The slot lets go of more of the log than it has in the copies, and two looks take note of that.
	w.eventually("the slot lets go of the log", func() bool {
		w.sql("select pg_switch_wal()", "checkpoint")
		if err := d.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d.server().Restart > before
	})
	w.covered(d)
	w.stop(d)
	for _, c := range []*pgcluster.Cluster{short, long} {
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.at(short)
	w.refused("log ends before")
	w.at(long) // as it is after some days: the length of its log tells nothing
	w.writeUntil(d.batch.durable())
	w.refused("older copy")
	w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`) // before anybody decides
	// The right server is there again: nothing was missed.
	w.at(primary)
	d = w.start()
	w.visit(d, 4)
	gaps, err := d.store.Gaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gaps {
		if g.Closed.IsZero() || g.From != g.To {
			t.Errorf("gap %+v; want one that was nothing", g)
		}
	}
	w.stop(d)
	w.at(long)
	d = w.accept(2)
	w.messages(d, 5) // what was committed there before anybody decided
	w.visit(d, 6)
}

// T14 of the acceptance list: a standby that was promoted without all that the store covers.
func TestPromotedBehind(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, nil)
	w := over(t, primary)
	d := w.start()
	w.visit(d, 1)
	standby := pgtest.Standby(t, primary, nil)
	standby.Kill()
	w.visit(d, 2)
	w.visit(d, 3)
	w.covered(d)
	w.stop(d)
	primary.Kill()
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.at(standby)
	w.sql("select pg_promote()")
	w.writeUntil(d.batch.durable())
	w.sql("insert into visits (kind, staff_id, note) values ('visit', 2, 'on the new one')")
	w.refused("lacks what lies between")
	d = w.accept(2)
	w.visit(d, 4)
	if s := d.server(); s.Timeline != 2 || s.Publications == "" {
		t.Errorf("the server is %+v", s)
	}
}

// writeUntil writes to the log until it has come past a position.
func (w *world) writeUntil(lsn position.LSN) {
	w.t.Helper()
	conn := pgtest.Connect(w.t, w.url)
	w.eventually("the log comes past "+lsn.String(), func() bool {
		w.sql("select pg_logical_emit_message(false, 'x', '')", "select pg_switch_wal()")
		_, end, err := cdc.WALEnd(w.t.Context(), conn)
		if err != nil {
			w.t.Fatal(err)
		}
		return end > lsn
	})
}

// A standby that keeps the slot takes over from a primary that is lost, and the daemon goes on with it, through the restart of itself
// too, with nothing missing.
func TestFailoverOfTheDaemon(t *testing.T) {
	t.Parallel()
	bin, ok := newestKeeping()
	if !ok {
		return // where it is not at hand, TestPromotedBehind shows what does not need it
	}
	primary, err := pgcluster.Start(t.Context(), pgcluster.Options{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Stop)
	w := over(t, primary)
	standby := w.keeping(primary)
	d := w.start()
	w.visit(d, 1)
	w.kept(standby)
	w.sql("alter system set synchronized_standby_slots = 'standby'", "select pg_reload_conf()")
	w.visit(d, 2)
	primary.Kill()
	w.url = standby.URL("postgres")
	w.sql("select pg_promote()")
	w.visit(d, 3)
	w.eventually("the new timeline is noted", func() bool { return d.server().Timeline == 2 })
	if err := d.look(t.Context()); err != nil {
		t.Error(err)
	}
	w.stop(d)
	w.visitUnseen()
	d = w.start()
	w.visit(d, 5)
	if gaps, err := d.store.Gaps(t.Context()); err != nil || len(gaps) != 0 || d.source.Epoch != 1 {
		t.Errorf("gaps %+v, %v, epoch %d", gaps, err, d.source.Epoch)
	}
}

// TestFailoverWithoutIdleLog: a standby that keeps the slot takes over, and lacks a part of the log that the store has covered. Nothing was
// committed there that is watched: the daemon ends, and the next one goes on in a new epoch, without a gap. Where something was, it is refused.
func TestFailoverWithoutIdleLog(t *testing.T) {
	t.Parallel()
	bin, ok := newestKeeping()
	if !ok {
		return // where it is not at hand, TestAdopt shows the decision
	}
	for name, committed := range map[string]bool{"idle": false, "a commit": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failoverBehind(t, bin, committed)
		})
	}
}

func failoverBehind(t *testing.T, bin string, committed bool) {
	primary, err := pgcluster.Start(t.Context(), pgcluster.Options{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Stop)
	w := over(t, primary)
	standby := w.keeping(primary)
	d := w.start()
	w.visit(d, 1)
	w.kept(standby)
	standby.Kill()
	w.sql("create table elsewhere (x int)", "insert into elsewhere select generate_series(1, 10000)")
	if committed {
		w.visit(d, 2)
	}
	w.covered(d)
	was := d.batch.durable()
	primary.Kill()
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.url = standby.URL("postgres")
	w.sql("select pg_promote()")
	if committed {
		w.ends(d, "lacks what lies between")
		w.refused("lacks what lies between")
		return
	}
	select {
	case err := <-d.Failed():
		if Misconfigured(err) || !strings.Contains(err.Error(), "start postman again: it goes on there, in a new epoch") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	w.stop(d)
	w.visitUnseen()
	d = w.start()
	w.visit(d, 3)
	if gaps, err := d.store.Gaps(t.Context()); err != nil || len(gaps) != 0 || d.source.Epoch != 2 || d.source.Checkpoint >= was || d.server().Timeline != 2 {
		t.Errorf("gaps %+v, %v, source %+v", gaps, err, d.source)
	}
	w.stop(d)
	d = w.start()
	w.visit(d, 4)
	if d.source.Epoch != 2 {
		t.Errorf("epoch %d", d.source.Epoch)
	}
}

// keeping is a standby that keeps the world's slot, and has the world use whichever of the two is the primary.
func (w *world) keeping(primary *pgcluster.Cluster) *pgcluster.Cluster {
	w.t.Helper()
	w.sql("select pg_create_physical_replication_slot('standby')")
	standby := pgtest.Standby(w.t, primary, map[string]string{"primary_slot_name": "standby", "hot_standby_feedback": "on", "sync_replication_slots": "on"})
	w.config.DatabaseURL = Secret(pgcluster.PrimaryOf(primary, standby))
	return standby
}

// kept waits until a standby keeps the slot.
func (w *world) kept(standby *pgcluster.Cluster) {
	w.t.Helper()
	conn := pgtest.Connect(w.t, standby.URL("postgres"))
	w.eventually("the standby keeps the slot", func() bool {
		w.sql("select pg_log_standby_snapshot()")
		var kept bool
		err := conn.QueryRow(w.t.Context(), "select exists (select from pg_replication_slots where slot_name = $1 and failover and not temporary)", w.config.Slot).Scan(&kept)
		return err == nil && kept
	})
}

// newestKeeping is the newest version at hand whose standbys can keep slots; the package cdc tests the oldest.
func newestKeeping() (bin string, ok bool) {
	installed := pgcluster.Installed()
	newest := slices.Max(append(slices.Collect(maps.Keys(installed)), 0))
	return installed[newest], newest >= 17
}

func (w *world) visitUnseen() {
	w.t.Helper()
	w.sql(`insert into visits (kind, staff_id, note) values ('visit', 1, 'while away')`)
}

// ends waits until the daemon has ended by itself, and checks why.
func (w *world) ends(d *Daemon, why string) {
	w.t.Helper()
	select {
	case err := <-d.Failed():
		if _, ok := errors.AsType[*GapError](err); !ok || !strings.Contains(err.Error(), why) {
			w.t.Errorf("it ended with %v; want %q", err, why)
		}
	case <-time.After(patience):
		w.t.Fatalf("it goes on; want %q", why)
	}
	if s := d.Status(); s.Healthy || len(s.Gaps) == 0 || s.Gaps[0].Rule != "" {
		w.t.Errorf("healthy %v, gaps %+v", s.Healthy, s.Gaps)
	}
	w.stop(d)
}

// T6 of the acceptance list: the slot is made anew, or advanced, while the daemon is away, and invalidated while it is there.
func TestLostSlots(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testLostSlots)
}

func testLostSlots(t *testing.T) {
	c := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "16MB", "wal_keep_size": "0", "wal_sender_timeout": "1s"})
	w := over(t, c)
	d := w.start()
	w.visit(d, 1)
	w.stop(d)
	w.visitUnseen()
	w.sql(fmt.Sprintf("select pg_drop_replication_slot('%s')", w.config.Slot))
	w.refused("slot is gone")
	w.sql(cdc.SlotSQL(w.config.Slot, c.Version()))
	w.refused("recreated or advanced")
	d = w.accept(2)
	w.visit(d, 2)
	w.stop(d)
	w.visitUnseen()
	w.sql(fmt.Sprintf("select pg_replication_slot_advance('%s', pg_current_wal_lsn())", w.config.Slot))
	w.refused("recreated or advanced")
	d = w.accept(3)
	w.visit(d, 3)
	// The walsender does not get on, the log does.
	goOn := w.holdSender()
	for range 4 {
		w.sql("select pg_logical_emit_message(false, 'x', '')", "select pg_switch_wal()")
	}
	checkpointed := make(chan error, 1)
	go func() { // it ends the walsender, which has to wake up for that
		conn, err := pgx.Connect(context.Background(), w.url)
		if err == nil {
			_, err = conn.Exec(context.Background(), "checkpoint")
			_ = conn.Close(context.Background())
		}
		checkpointed <- err
	}()
	time.AfterFunc(2*time.Second, goOn)
	w.ends(d, "invalidated")
	if err := <-checkpointed; err != nil {
		t.Error(err)
	}
	w.refused("invalidated")
	d = w.accept(4)
	w.visit(d, 4)
}

// holdSender stops the walsender of the slot until goOn is called.
func (w *world) holdSender() (goOn func()) {
	w.t.Helper()
	var pid int
	w.eventually("the slot is read", func() bool {
		pid = w.inspect().Slot.ActivePID
		return pid != 0
	})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	goOn = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	w.t.Cleanup(goOn)
	return goOn
}

// T9 of the acceptance list: publications that are dropped, or dropped and made again, with the daemon there and away, on the versions that
// are at hand: 18 and later only warn of it. Tables that leave their publications are in TestTableMadeAgain and TestPublicationsFollow.
func TestDroppedPublications(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, func(t *testing.T) {
		w := over(t, pgtest.Own(t, nil))
		d := w.start()
		w.visit(d, 1)
		name := w.config.Slot + "_ins"
		w.sql("drop publication "+name, `insert into visits (kind, staff_id) values ('visit', 1)`)
		w.ends(d, "was dropped")
		w.refused(name + " was dropped")
		d = w.accept(2)
		w.visit(d, 2)
		w.stop(d)
		w.sql("drop publication "+name, `insert into visits (kind, staff_id) values ('visit', 1)`, "create publication "+name+" for table visits with (publish = 'insert')")
		w.refused("made again")
		d = w.accept(3)
		w.visit(d, 3)
		// Nobody writes to a table of its: the look notices.
		w.sql("drop publication " + name)
		go func() { _ = d.look(context.WithoutCancel(t.Context())) }()
		w.ends(d, "was dropped")
	})
}
