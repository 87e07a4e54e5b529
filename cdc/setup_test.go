package cdc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

func setupError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if _, ok := errors.AsType[*SetupError](err); !ok {
		t.Errorf("%v (%T); want a SetupError", err, err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\nlacks %q", err, text)
		}
	}
}

func TestSetupErrors(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	ready := func(t *testing.T) (url, slot string, start position.LSN) {
		t.Helper()
		url = pgtest.Database(t)
		pgtest.Exec(t, url, "create table t (id int primary key)")
		slot, start = provide(t, url, all("t")...)
		return url, slot, start
	}
	as := func(url, role string) string { return strings.Replace(url, "postgres@", role+"@", 1) }
	pgtest.Exec(t, c.URL("postgres"), "create role meek login")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), c.URL("postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), "drop role meek"); err != nil {
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		options func(t *testing.T) Options
		texts   []string
	}{
		"no slot": {func(t *testing.T) Options {
			url := pgtest.Database(t)
			return Options{URL: url, Slot: pgtest.Name(url)}
		}, []string{"does not exist", "SELECT pg_create_logical_replication_slot('"}},
		"no replication": {func(t *testing.T) Options {
			url, slot, start := ready(t)
			return Options{URL: as(url, "meek"), Slot: slot, Start: start}
		}, []string{"may not replicate", "REPLICATION;"}},
		"no such role": {func(t *testing.T) Options {
			url, slot, start := ready(t)
			return Options{URL: as(url, "nobody_at_all"), Slot: slot, Start: start}
		}, []string{"does not let postman in", "nobody_at_all"}},
		"no such database": {func(*testing.T) Options {
			return Options{URL: c.URL("nowhere"), Slot: "postman"}
		}, []string{"does not exist", "DATABASE_URL"}},
		"no URL": {func(*testing.T) Options {
			return Options{URL: "postgres://[", Slot: "postman"}
		}, []string{"DATABASE_URL"}},
		"another database's slot": {func(t *testing.T) Options {
			_, slot, start := ready(t)
			return Options{URL: pgtest.Database(t), Slot: slot, Start: start}
		}, []string{"belongs to database"}},
		"a physical slot": {func(t *testing.T) Options {
			url := pgtest.Database(t)
			slot := pgtest.Name(url)
			pgtest.Exec(t, url, "select pg_create_physical_replication_slot('"+slot+"')")
			t.Cleanup(func() {
				conn, err := pgx.Connect(context.Background(), url)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = conn.Close(context.Background()) }()
				if _, err := conn.Exec(context.Background(), "select pg_drop_replication_slot($1)", slot); err != nil {
					t.Error(err)
				}
			})
			return Options{URL: url, Slot: slot}
		}, []string{"not one for pgoutput"}},
		"a publication is gone": {func(t *testing.T) Options {
			url, slot, start := ready(t)
			pgtest.Exec(t, url, "drop publication "+slot+"_upd")
			return Options{URL: url, Slot: slot, Start: start}
		}, []string{"_upd", "--accept-gap"}},
		"the slot was moved": {func(t *testing.T) Options {
			url, slot, start := ready(t)
			pgtest.Exec(t, url, "insert into t values (1)", "select pg_replication_slot_advance('"+slot+"', pg_current_wal_lsn())")
			return Options{URL: url, Slot: slot, Start: start}
		}, []string{"was moved to", "start again"}},
		"the server is behind": {func(t *testing.T) Options {
			url, slot, start := ready(t)
			return Options{URL: url, Slot: slot, Start: start + 1<<40}
		}, []string{"ends before that", "restored"}},
		"a bad name": {func(*testing.T) Options {
			return Options{URL: c.URL("postgres"), Slot: "Postman"}
		}, []string{`"Postman"`, "lower-case"}},
		"a name too long": {func(*testing.T) Options {
			return Options{URL: c.URL("postgres"), Slot: strings.Repeat("x", 60)}
		}, []string{"59"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			setupError(t, NewStream(c.options(t)).Run(ctx, newRecorder(t)), c.texts...)
		})
	}
}

func TestWALLevel(t *testing.T) {
	t.Parallel()
	url := pgtest.Own(t, map[string]string{"wal_level": "replica"}).URL("postgres")
	_, err := CreateSlot(t.Context(), url, "postman")
	setupError(t, err, "wal_level is replica", "ALTER SYSTEM SET wal_level = logical", "restart")
	setupError(t, NewStream(Options{URL: url, Slot: "postman"}).Run(t.Context(), newRecorder(t)), "wal_level is replica")
}

func TestCreateSlotRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	slot, _ := provide(t, url)
	_, err := CreateSlot(t.Context(), url, slot)
	setupError(t, err, "exists already", "SELECT pg_drop_replication_slot('"+slot+"');")
	if err := DropSlot(t.Context(), url, slot); err != nil {
		t.Error(err)
	}
	if err := DropSlot(t.Context(), url, slot); err == nil {
		t.Error("dropped a slot that does not exist")
	}
}

// TestLostSlot lets the server remove WAL that the slot needs.
func TestLostSlot(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testLostSlot)
}

func testLostSlot(t *testing.T) {
	url := pgtest.Own(t, map[string]string{"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0"}).URL("postgres")
	pgtest.Exec(t, url, "create table t (id int primary key)")
	slot, start := provide(t, url, all("t")...)
	for range 3 {
		pgtest.Exec(t, url, "select pg_logical_emit_message(false, 'x', '')", "select pg_switch_wal()")
	}
	pgtest.Exec(t, url, "checkpoint")
	db, err := Inspect(t.Context(), pgtest.Connect(t, url), slot)
	if err != nil {
		t.Fatal(err)
	}
	if !db.Slot.Lost() || !strings.Contains(db.Slot.Why(), "max_slot_wal_keep_size") {
		t.Errorf("slot %+v is not lost", db.Slot)
	}
	setupError(t, NewStream(Options{URL: url, Slot: slot, Start: start}).Run(t.Context(), newRecorder(t)), "invalidated", "max_slot_wal_keep_size")
}
