package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postman/cdc"
	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
)

// away is a world whose database is a cluster of its own.
func away(t *testing.T) (*world, *pgcluster.Cluster) {
	t.Helper()
	c := pgtest.Own(t, nil)
	w := newWorld(t)
	w.url = c.URL("postgres")
	w.config.DatabaseURL = Secret(w.url)
	w.sql(worldSchema)
	return w, c
}

// begin starts a daemon beside the test.
func (w *world) begin(ctx context.Context) (d *Daemon, ended chan error) {
	w.t.Helper()
	d, err := w.build()
	if err != nil {
		w.t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- d.Start(ctx) }()
	w.t.Cleanup(func() { w.stop(d) }) //nolint:contextcheck // it comes after the end of the context
	return d, ended
}

// client talks to the daemon as the commands do.
func (w *world) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return DialSocket(ctx, w.config.StorePath()) },
	}}
}

// ask asks a daemon for its status as the command does: by its socket.
func (w *world) ask() (s Status, err error) {
	r, err := w.client().Get("http://postman/v1/status")
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// troubled waits until the daemon's status tells of something.
func (w *world) troubled(text string) {
	w.t.Helper()
	w.eventually("the status says "+text, func() bool {
		s, err := w.ask()
		return err == nil && !s.Healthy && strings.Contains(strings.Join(s.Trouble, "\n"), text)
	})
}

// A Postgres that is down, and comes up later, is waited for. Meanwhile the daemon says so, and the outbox can be looked at and acted on.
func TestStartWaitsForPostgres(t *testing.T) {
	t.Parallel()
	w, c := away(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) select 'visit', 1 from generate_series(1, 101)`)
	w.matches(d, 101, outbox.MatchHeld)
	w.stop(d)
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.config.HTTP = free.Addr().String()
	free.Close()
	c.Kill()
	d, ended := w.begin(t.Context())
	w.troubled("waiting for the database")
	if s, _ := w.ask(); !s.Starting || !s.Running {
		t.Errorf("status %+v", s)
	}
	r, err := http.Get("http://" + w.config.HTTP + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("healthz says %s", r.Status)
	}
	if r, err = w.client().Post("http://postman/v1/outbox/release", "application/json", strings.NewReader(`{"matches": [1, 2]}`)); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 3)
	w.eventually("healthy", func() bool { s, err := w.ask(); return err == nil && s.Healthy && !s.Starting })
}

// A Postgres that crashes in the middle of the start is waited for as well; what hangs is named.
func TestStartOutlivesPostgres(t *testing.T) {
	t.Parallel()
	w, c := away(t)
	open := pgtest.Connect(t, w.url)
	if _, err := open.Exec(t.Context(), "begin; insert into visits (kind) values ('call')"); err != nil {
		t.Fatal(err)
	}
	d, ended := w.begin(t.Context())
	w.troubled("waits for all transactions to end")
	c.Kill() // and with it the transaction
	w.troubled("waiting for the database")
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
}

// In a failover the server is a standby until it is promoted.
func TestStartWaitsForPromotion(t *testing.T) {
	t.Parallel()
	w, c := away(t)
	c.Kill()
	if err := os.WriteFile(filepath.Join(c.Dir, "data", "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, ended := w.begin(t.Context())
	w.troubled("this server is a standby")
	w.sql("select pg_promote()")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestStartCanBeStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.DatabaseURL = "postgres://127.0.0.1:1/crm"
	for range 2 { // the second time, the first has left nothing behind
		ctx, cancel := context.WithCancel(t.Context())
		_, ended := w.begin(ctx)
		w.troubled("database_url")
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it does not stop")
		}
	}
}

// What will not pass by itself ends the start at once.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	w, c := away(t)
	w.sql("create role known login password 'right'")
	hba := "host all known 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(c.Dir, "data", "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	w.sql("select pg_reload_conf()")
	for name, url := range map[string]string{
		"password": strings.Replace(w.url, "postgres@", "known:wrong@", 1),
		"role":     strings.Replace(w.url, "postgres@", "nobody_at_all@", 1),
		"database": strings.Replace(w.url, "/postgres?", "/nowhere?", 1),
	} {
		for _, setting := range []*Secret{&w.config.DatabaseURL, &w.config.LookupURL} {
			w.config.DatabaseURL, w.config.LookupURL = Secret(w.url), ""
			*setting = Secret(url)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := w.startIn(ctx)
			if cancel(); err == nil || cdc.Passing(err) || !strings.Contains(err.Error(), "SQLSTATE") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
