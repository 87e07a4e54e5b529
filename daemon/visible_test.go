package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
)

// T13 of the acceptance list: under synchronous_commit = remote_apply the stream brings a commit long before anybody else sees it, where the
// standby is slow. What is looked up of it is not asked for before it is to be seen; others' mails do not wait for it.
func TestSlowStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, nil)
	standby := pgtest.Standby(t, primary, nil)
	w := newWorld(t)
	w.at(primary)
	w.sql(worldSchema)
	d := w.start()
	slow := pgtest.Connect(t, standby.URL("postgres"))
	if _, err := slow.Exec(t.Context(), "select pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	w.sql("alter system set synchronous_commit = 'remote_apply'", "alter system set synchronous_standby_names = 'walreceiver'", "select pg_reload_conf()")
	conn := pgtest.Connect(t, w.url)
	w.eventually("commits wait for the standby", func() bool {
		var state, commit string
		err := conn.QueryRow(t.Context(), "select sync_state, current_setting('synchronous_commit') from pg_stat_replication where application_name = 'walreceiver'").Scan(&state, &commit)
		return err == nil && state == "sync" && commit == "remote_apply"
	})
	committed := make(chan error, 1)
	go func() {
		own, err := pgx.Connect(context.Background(), w.url)
		if err == nil {
			_, err = own.Exec(context.Background(), `begin; insert into staff values (9, 'new@example.com', 'New'); insert into visits (kind, staff_id) values ('visit', 9); commit`)
			_ = own.Close(context.Background())
		}
		committed <- err
	}()
	early := w.matches(d, 1, outbox.MatchPending)[0]
	w.sql("set synchronous_commit = local", `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1) // that of the later commit
	if diff := cmp.Diff([]string{"kim@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
	time.Sleep(100 * time.Millisecond) // a few tries
	if m := w.matches(d, 1, outbox.MatchPending)[0]; m.ID != early.ID || m.Attempts != 0 {
		t.Errorf("it is %s after %d attempts: %s", m.State, m.Attempts, m.Reason)
	}
	select {
	case err := <-committed:
		t.Fatalf("the commit did not wait for the standby (%v)", err)
	default:
	}
	if _, err := slow.Exec(t.Context(), "select pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	w.subjects(2)
	if diff := cmp.Diff([]string{"kim@example.com", "new@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
}
