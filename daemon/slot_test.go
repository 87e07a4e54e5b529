package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 20: "3.0 MiB", 5 << 40: "5.0 TiB", 5 << 50: "5120.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q; want %q", n, got, want)
		}
	}
}

// A forecast goes by how the slot has done over the last looks.
func TestTrend(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	safe := func(n int64) *int64 { return &n }
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	type look struct {
		after    time.Duration
		retained int64
		safe     *int64
		status   string
	}
	for name, c := range map[string]struct {
		limit    int64
		looks    []look
		inactive time.Duration // since when, before the last look; 0: it is read
		idle     time.Duration
		level    SlotLevel
		lost     time.Duration // after the last look; 0: not foreseen
		note     string
	}{
		"nothing held back":     {limit: 100 * mib, looks: []look{{0, 0, safe(100 * mib), "reserved"}, {time.Minute, 0, safe(100 * mib), "reserved"}}, level: SlotOK},
		"the first look":        {limit: 100 * mib, looks: []look{{0, 10 * mib, safe(90 * mib), "reserved"}}, level: SlotOK},
		"lost in half an hour":  {limit: 100 * mib, looks: []look{{0, 10 * mib, safe(90 * mib), "reserved"}, {10 * time.Minute, 20 * mib, safe(80 * mib), "reserved"}}, level: SlotWarning, lost: 80 * time.Minute, note: "lost in 80 minutes at this rate"},
		"lost soon":             {limit: 100 * mib, looks: []look{{0, 10 * mib, safe(90 * mib), "reserved"}, {time.Minute, 20 * mib, safe(80 * mib), "reserved"}}, level: SlotCritical, lost: 8 * time.Minute, note: "lost in 8 minutes"},
		"lost in some days":     {limit: 100 * mib, looks: []look{{0, 10 * mib, safe(90 * mib), "reserved"}, {10 * time.Minute, 10*mib + 10_000, safe(90*mib - 10_000), "reserved"}}, level: SlotOK, lost: 1572*time.Hour + 41*time.Minute + 50*time.Second},
		"it gets on":            {limit: 100 * mib, looks: []look{{0, 40 * mib, safe(60 * mib), "extended"}, {time.Minute, 20 * mib, safe(80 * mib), "extended"}}, level: SlotOK},
		"half of it is gone":    {limit: 100 * mib, looks: []look{{0, 60 * mib, safe(40 * mib), "extended"}, {time.Minute, 60 * mib, safe(40 * mib), "extended"}}, level: SlotWarning, note: "leaves it 40.0 MiB"},
		"all of it is gone":     {limit: 100 * mib, looks: []look{{0, 101 * mib, safe(-mib), "unreserved"}}, level: SlotCritical, note: "at the next checkpoint"},
		"lost":                  {limit: 100 * mib, looks: []look{{0, 0, nil, "lost"}}, level: SlotCritical, note: "is lost"},
		"no limit, much":        {looks: []look{{0, 11 << 30, nil, "extended"}}, level: SlotWarning, note: "until the server's disk is full"},
		"no limit, little":      {looks: []look{{0, 1 << 30, nil, "extended"}, {time.Second, 2 << 30, nil, "extended"}}, level: SlotOK},
		"idle for too long":     {looks: []look{{0, 0, nil, "reserved"}}, inactive: time.Hour, idle: 90 * time.Minute, level: SlotCritical, lost: 30 * time.Minute, note: "idle_replication_slot_timeout"},
		"idle, and lost before": {limit: 100 * mib, looks: []look{{0, 10 * mib, safe(90 * mib), "reserved"}, {time.Minute, 20 * mib, safe(80 * mib), "reserved"}}, inactive: time.Minute, idle: time.Hour, level: SlotCritical, lost: 8 * time.Minute, note: "at this rate"},
		"what is long ago is no part": {limit: 100 * mib, looks: []look{
			{0, 0, safe(100 * mib), "reserved"}, {11 * time.Minute, 50 * mib, safe(50 * mib), "reserved"}, {12 * time.Minute, 50 * mib, safe(50 * mib), "reserved"},
		}, level: SlotOK},
	} {
		var tr trend
		var got SlotStatus
		for _, l := range c.looks {
			s := SlotStatus{Name: "postman", Limit: c.limit, Retained: l.retained, Safe: l.safe, WALStatus: l.status, Seen: start.Add(l.after)}
			if c.inactive != 0 {
				s.Inactive = s.Seen.Add(-c.inactive)
			}
			got = tr.add(s, c.idle)
		}
		var lost time.Duration
		if !got.LostAt.IsZero() {
			lost = got.LostAt.Sub(got.Seen)
		}
		if got.Level != c.level || (lost-c.lost).Abs() > time.Second || !strings.Contains(got.Note, c.note) || (got.Note == "") != (got.Level == SlotOK) {
			t.Errorf("%s: %s, lost after %s (rate %f), %q; want %s, %s, %q", name, got.Level, lost, got.Rate, got.Note, c.level, c.lost, c.note)
		}
	}
}

// What the slot holds back is told before it is lost: in the status, in the log and in /healthz, from the daemon and without it.
func TestSlotInDanger(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "160MB", "wal_keep_size": "0"})
	w := over(t, c)
	notes := new(notebook)
	w.also, w.blind = notes, true
	d := w.start()
	w.visit(d, 1)
	look := func() *SlotStatus {
		t.Helper()
		if err := d.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		return d.Status().Slot
	}
	if s := look(); s == nil || s.Level != SlotOK || !s.Active || s.Limit != 160<<20 || s.Safe == nil || s.WALStatus != "reserved" || s.Failover != (c.Version() >= 17) {
		t.Fatalf("%+v", s)
	}
	goOn := w.holdSender()
	w.sql("select pg_logical_emit_message(false, 'x', '')", "select pg_switch_wal()", "select pg_logical_emit_message(false, 'x', '')", "select pg_switch_wal()")
	s := look()
	if s.Retained < 16<<20 || s.Rate == 0 || s.LostAt.IsZero() || s.Level != SlotCritical || !strings.Contains(s.Note, "at this rate") {
		t.Errorf("%+v", s)
	}
	if status := d.Status(); status.Healthy || !strings.Contains(strings.Join(status.Trouble, "\n"), s.Note) {
		t.Errorf("healthy %v, %q", status.Healthy, status.Trouble)
	}
	if notes.count("about to be lost") != 1 {
		t.Error("it is not told in the log, once")
	}
	goOn()
	w.covered(d)
	w.stop(d)
	s = slotNow(t.Context(), w.config)
	if s == nil || s.Active || s.WALStatus == "" || s.Retained == 0 || (c.Version() >= 17) == s.Inactive.IsZero() {
		t.Errorf("without the daemon: %+v", s)
	}
	c.Kill()
	if s := slotNow(t.Context(), w.config); s == nil || !strings.Contains(s.Note, "cannot be asked") {
		t.Errorf("without the server: %+v", s)
	}
	w.config.DatabaseURL = ""
	if s := slotNow(t.Context(), w.config); s != nil {
		t.Errorf("of no database: %+v", s)
	}
}

// retained is how much of the log the server keeps for the slot, and how far it is confirmed.
func (w *world) retained() (n int64, confirmed position.LSN) {
	w.t.Helper()
	db := w.inspect()
	return distance(db.Slot.Restart, db.WALEnd), db.Slot.Confirmed
}

func (w *world) inspect() *cdc.Database {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(w.t.Context()))
	db, err := cdc.Inspect(w.t.Context(), conn, w.config.Slot)
	if err != nil || db.Slot == nil {
		w.t.Fatal(db, err)
	}
	return db
}

// T1 of the acceptance list: a gigabyte of the log that is of no interest, and a role that may only read: what the slot holds back stays
// within three segments of the log.
func TestIdlePublication(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, func(t *testing.T) {
		rounds := 2
		if strings.HasSuffix(t.Name(), "/usual") { // of the other versions, a quarter has to do
			rounds = 8
		}
		w := over(t, pgtest.Own(t, nil))
		w.sql("create table busy (x text)")
		w.stop(w.start()) // makes slot and publications, as a DBA does
		w.sql("create role reader login replication", "grant pg_read_all_data to reader", "alter role reader set default_transaction_read_only = on")
		w.config.DatabaseURL = Secret(strings.Replace(w.url, "postgres@", "reader@", 1))
		d := w.start()
		w.visit(d, 1)
		for range rounds {
			w.sql("insert into busy select repeat('x', 1000) from generate_series(1, 15000)") // a segment
			for range 7 {
				w.sql("select pg_switch_wal()", "insert into busy values ('x')")
			}
			w.sql("checkpoint")
			w.eventually("the slot lets go of the log", func() bool {
				n, _ := w.retained()
				return n < 48<<20
			})
		}
		w.visit(d, 2)
	})
}

// T2 of the acceptance list: whatever the log brings behind a match that is not durable, the slot does not pass it, and it comes again.
func TestUndurableMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql("create table busy (x text)")
	d := w.start()
	w.covered(d)
	if err := d.store.Close(); err != nil { // as by a disk that is gone
		t.Fatal(err)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	_, before := w.retained()
	w.sql("insert into busy select repeat('x', 1000) from generate_series(1, 30000)", "select pg_switch_wal()", "insert into busy values ('x')", "checkpoint")
	w.eventually("all of it has been read", func() bool { return d.stream.Status().Received+1<<20 > w.inspect().WALEnd })
	if _, now := w.retained(); now > before+1<<20 {
		t.Errorf("the slot went from %s to %s, past a match that nobody has stored", before, now)
	}
	w.stopHard(d)
	if d = w.start(); d.source.Checkpoint > before+1<<20 {
		t.Errorf("the store covers %s", d.source.Checkpoint)
	}
	w.subjects(1)
}

// stopHard stops a daemon whose store is gone, without waiting for it.
func (w *world) stopHard(d *Daemon) {
	w.t.Helper()
	d.stopping()
	d.aborting()
	w.stop(d)
}

// T10 of the acceptance list: a value that an update left where it was is not NULL. A rule that needs it says that it could not tell;
// one that can have it decides; one that never could is refused.
func TestUnchangedTOASTInARule(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testUnchangedTOASTInARule)
}

func testUnchangedTOASTInARule(t *testing.T) {
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.template("plain.html", `{{define "subject"}}x{{end}}{{define "body"}}x{{end}}`)
	rules := []string{"rules:\n"}
	for _, table := range []string{"d", "f", "n"} {
		w.sql("create table "+table+" (id int primary key, big text, small text)", "alter table "+table+" alter big set storage external")
		rules = append(rules, fmt.Sprintf("  - {name: %s, on: {table: %s, ops: [update]}, when: 'new.big == nil or len(new.big) > 5', to: {address: a@example.com}, template: plain}\n", table, table))
	}
	w.sql("alter table f replica identity full", "alter table n replica identity nothing")
	w.rules(strings.Join(rules, "") + markRule)
	d := w.start()
	for _, table := range []string{"d", "f", "n"} {
		w.sql("insert into "+table+" values (1, repeat('x', 10000), null)", "update "+table+" set small = 's'")
	}
	w.mark(d)
	for table, want := range map[string]int{"d": 0, "f": 1, "n": 0} {
		if got := w.matchesOf(d, table); got != want {
			t.Errorf("%s has %d matches; want %d", table, got, want)
		}
	}
	gaps, err := d.store.Gaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	why := make(map[string]outbox.Gap)
	for _, g := range gaps {
		why[g.Rule] = g
	}
	if g := why["d"]; g.Count != 1 || g.Reason != "undetermined: the stream did not carry new.big" {
		t.Errorf("of DEFAULT: %+v", g)
	}
	if g := why["n"]; !strings.Contains(g.Reason, "REPLICA IDENTITY") && !strings.Contains(g.Reason, "cannot be watched") {
		t.Errorf("of NOTHING: %+v", g)
	}
}
