package daemon

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// healthz asks as a load balancer does.
func (w *world) healthz(d *Daemon) (code int, healthy bool, trouble string) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + d.Addr().String() + "/healthz")
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	var body struct {
		Healthy bool
		Trouble []string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.t.Fatal(err)
	}
	return r.StatusCode, body.Healthy, strings.Join(body.Trouble, "\n")
}

// well waits until a daemon takes changes in, and says so everywhere.
func (w *world) well(d *Daemon) {
	w.t.Helper()
	w.eventually("it is well", func() bool {
		code, healthy, _ := w.healthz(d)
		return code == http.StatusOK && healthy && d.Status().Healthy
	})
}

// unwell waits until a daemon says everywhere that it does not take changes in, and why.
func (w *world) unwell(d *Daemon, why ...string) {
	w.t.Helper()
	says := func(text string) bool {
		for _, w := range why {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	}
	w.eventually("/healthz says "+strings.Join(why, ", "), func() bool {
		code, healthy, trouble := w.healthz(d)
		return code == http.StatusServiceUnavailable && !healthy && says(trouble)
	})
	w.eventually("the status says "+strings.Join(why, ", "), func() bool {
		s, err := w.ask()
		return err == nil && !s.Healthy && !s.Stream.Connected && says(strings.Join(s.Trouble, "\n")) && says(s.Stream.LastError)
	})
}

// T7 of the acceptance list, as operators see it: the network swallows everything, without a word to either end. Within wal_sender_timeout
// the daemon is unhealthy, and says why; and healthy again, by itself, once there is a network.
func TestSilentDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blind = true
	w.url += "&wal_sender_timeout=1000"
	network := w.unsound(nil)
	d := w.start()
	w.well(d)
	network.Hold()
	w.unwell(d, "nothing came from the server for 1s")
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	network.Release()
	w.subjects(1)
	w.well(d)
}

// T8 of the acceptance list, as operators see it: who holds the slot is told while that is waited for, and then it is taken over.
func TestHeldSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.blind = true
	d := w.start()
	w.well(d)
	w.stop(d)
	holder, err := pgconn.Connect(t.Context(), w.url+"&replication=database&application_name=somebody")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.WithoutCancel(t.Context()))
	if err := pglogrepl.StartReplication(t.Context(), holder, w.config.Slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + w.config.Slot + "_ins'"},
	}); err != nil {
		t.Fatal(err)
	}
	d = w.start()
	w.unwell(d, "is in use by the server's process", "(somebody, from 127.0.0.1:", "waiting for it")
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	if err := holder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.subjects(1)
	w.well(d)
}
