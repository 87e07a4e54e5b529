package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestAcceptingAGapWhileTheSlotIsRead: a slot that serves no more and cannot be dropped, since somebody reads it, is not taken for the one
// that was to be made: the gap stays one until it can.
func TestAcceptingAGapWhileTheSlotIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	w.visit(d, 1)
	w.stop(d)
	w.sql(fmt.Sprintf(`drop publication "%s_ins"`, w.config.Slot), `insert into visits (kind, staff_id) values ('visit', 1)`)
	config, err := pgx.ParseConfig(w.url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	reader, err := pgconn.ConnectConfig(t.Context(), &config.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(t.Context())
	err = pglogrepl.StartReplication(t.Context(), reader, fmt.Sprintf("%q", w.config.Slot), 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", fmt.Sprintf("publication_names '%s_upd'", w.config.Slot)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Setup(t.Context(), w.config, SetupOptions{AcceptGap: true}); err == nil || !strings.Contains(err.Error(), "is active") {
			t.Fatalf("the slot is read, and setup says %v", err)
		}
	}
	if err := reader.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the reader has gone", func() bool { return w.inspect().Slot.ActivePID == 0 })
	w.refused("made again")
	d = w.accept(2)
	w.visit(d, 2)
}

// TestAcceptingTheSlotOfAnother: a store that did not make a slot takes it from nobody who reads it.
func TestAcceptingTheSlotOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	w.visit(d, 1)
	other := w.config
	other.StoreURL = "sqlite:" + filepath.Join(t.TempDir(), "other.db")
	if _, err := Setup(t.Context(), other, SetupOptions{AcceptGap: true}); err == nil || !strings.Contains(err.Error(), "another postman's") || !strings.Contains(err.Error(), "POSTMAN_SLOT") {
		t.Errorf("it says %v", err)
	}
	w.visit(d, 2)
}
