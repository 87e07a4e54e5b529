package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"postman/outbox"
)

// TestThread: mails about one row stand together, whichever way they come: of another rule, sent again by a replay, after a restart, and finished by a version of
// the rule that is no longer live, of which only the catalog knows the primary key.
func TestThread(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	threaded := strings.Replace(worldRules, "template: visit", "thread: pk\n    template: visit", 1)
	changed := threaded + `
  - name: changed
    about: A visit of yours was changed.
    on: {table: visits, ops: [update]}
    to: {query: "select email, name from staff where id = @new.staff_id"}
    thread: pk
    template: plain
`
	w.rules(changed)
	w.template("plain.html", `{{define "subject"}}Visit {{.new.id}} changed{{end}}{{define "body"}}<p>{{.new.note}}</p>{{end}}`)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
	w.replayed(d, ReplayRequest{From: w.origin(d), Resend: true, By: "kim", Why: "a test"})
	w.messages(d, 2)
	w.sql(`insert into visits (kind, staff_id) select 'call', 2 from generate_series(1, 101)`, `update visits set note = 'x'`)
	held := w.matches(d, 102, outbox.MatchHeld)
	w.rules(strings.ReplaceAll(changed, "of yours", "of yours, too,"))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stop(d)
	d = w.start()
	for _, m := range held[:2] { // of the first row, and of another one
		if d.live.Load().byID[m.Rule] == nil || outbox.Hash(d.live.Load().byID[m.Rule].Version()) == m.Version {
			t.Fatal("the held match is of the live version")
		}
	}
	acted, err := d.store.Act(t.Context(), outbox.Release, outbox.Filter{Matches: []int64{held[0].ID, held[1].ID}}, "these two", time.Now())
	if err != nil || acted.Matches != 2 {
		t.Fatalf("release: %+v, %v", acted, err)
	}
	d.dispatch.Wake()
	w.messages(d, 4)
	threads := make(map[string][]string)
	for _, m := range w.relay.Mails() {
		root := header(m.Data, "References")
		threads[root] = append(threads[root], header(m.Data, "Subject"))
	}
	var all []string
	for root, subjects := range threads {
		slices.Sort(subjects)
		all = append(all, strings.Join(subjects, ", "))
		if root == "" {
			t.Errorf("in no thread: %s", subjects)
		}
	}
	slices.Sort(all)
	if want := []string{"Visit 1 changed, Visit 1 for 김민준, Visit 1 for 김민준", "Visit 2 changed"}; !slices.Equal(all, want) {
		t.Errorf("the threads are %q, want %q", all, want)
	}
}
