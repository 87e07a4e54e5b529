package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"postman/outbox"
)

// heldLog is a log that tests read while daemons write it.
type heldLog struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen func(line string) // before it is kept; nil: nobody looks
}

func (l *heldLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen != nil {
		l.seen(string(p))
	}
	return l.text.Write(p)
}

func (l *heldLog) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// toldFirst looks that people are told of what expires while so many matches are held still: a process that dies behind that tells it again.
func (w *world) toldFirst(l *heldLog, d *Daemon, want int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = func(line string) {
		if !strings.Contains(line, "nobody released") {
			return
		}
		held, err := d.store.Matches(w.t.Context(), outbox.Filter{MatchStates: []outbox.MatchState{outbox.MatchHeld}})
		if err != nil || len(held) != want {
			w.t.Errorf("told while %d matches are held, want %d; %v", len(held), want, err)
		}
	}
}

const heldRules = `
rules:
  - {name: import, on: {table: visits, ops: [insert, update]}, when: new.kind == "import", to: {query: "select email from staff where id = @new.staff_id"}, template: visit, load: {who: "select name from staff where id = @new.staff_id"}}
  - {name: other, on: {table: visits, ops: [insert]}, when: new.kind == "other", to: {address: other@example.com}, template: visit, load: {who: "select 'x' as name"}}
`

// A transaction that matches far too often is one batch: one report, one mail to operators, and all else flows. A release looks at each row again.
func TestAStormIsOneThing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := new(heldLog)
	w.also, w.config.NotifyOps = log, "Ops <ops@example.com>"
	w.rules(heldRules)
	d := w.start()
	const n = 5000 // more than memory holds, so that most of it is spilled
	w.sql(fmt.Sprintf(`insert into visits (kind, staff_id) select 'import', 1 + i %% 2 from generate_series(1, %d) i`, n), `insert into visits (kind, staff_id) values ('other', 1)`)
	w.eventually("the mail to operators, and the other rule's", func() bool { return len(w.relay.Mails()) >= 2 })
	held, err := heldNow(t.Context(), d.store)
	if err != nil || len(held) != 1 || held[0].Held != n || held[0].Cause != outbox.HeldTransaction {
		t.Fatalf("held: %+v, %v", held, err)
	}
	d.heldMore() // and nobody is told again
	w.stop(d)
	d = w.start()
	var all strings.Builder
	for _, m := range w.relay.Mails() {
		if m.To[0] == "ops@example.com" {
			all.WriteString(header(m.Data, "Subject") + "\n" + string(m.Data))
		}
	}
	ops := all.String()
	for _, want := range []string{"postman holds 5000 mails of rule import", "postman outbox release b1", "kim@example.com"} {
		if !strings.Contains(strings.ReplaceAll(ops, "=\r\n", ""), want) {
			t.Errorf("the mail to operators has no %q:\n%s", want, ops)
		}
	}
	if n := log.count("class=held"); n != 1 {
		t.Errorf("reported %d times", n)
	}
	if status := d.Status(); len(status.Held) != 1 || !strings.Contains(strings.Join(status.Trouble, "\n"), "b1: 5000 matches of rule import are held") {
		t.Errorf("status: %+v", status)
	}

	// Most rows are gone, and some are nothing for the rule any more.
	w.sql(`delete from visits where id > 10`, `update visits set kind = 'done' where id <= 4`)
	a := &api{store: d.store, acted: d.wake, sampler: d.sampler, acting: &d.acting}
	var shown HeldShowView
	callAPI(t, a, http.MethodGet, "/v1/outbox/batches/1", "", &shown)
	if len(shown.Sample) != mostSampled || shown.Sample[0].Subject == "" || shown.Unchecked != "" {
		t.Errorf("shown: %+v", shown)
	}
	var moved ActedView
	callAPI(t, a, http.MethodPost, "/v1/outbox/release", `{"batches": [1], "reason": "it is right"}`, &moved)
	if moved.Matches != n {
		t.Errorf("released %+v", moved)
	}
	w.eventually("all of it ends", func() bool {
		c, err := d.store.Count(t.Context())
		return err == nil && c.Matches[outbox.MatchPending] == 0 && c.Messages[outbox.MessageSent] == 8
	})
	why := make(map[string]int)
	for _, m := range w.matches(d, n-6, outbox.MatchCancelled) {
		why[m.Reason]++
	}
	if why["checked again as it was released: its row is gone"] != n-10 || why["checked again as it was released: the rule does not match the row as it is now"] != 4 {
		t.Errorf("cancelled: %v", why)
	}
	if n := len(w.relay.Mails()); n != 2+6 {
		t.Errorf("%d mails", n)
	}
	for _, c := range []struct{ action, body, want string }{
		{"release", `{"batches": [1]}`, "release was ordered"},
		{"discard", `{"batches": [9]}`, "there is no batch b9"},
		{"cancel", `{"batches": [1]}`, "released or discarded"},
		{"discard", `{"batches": [1], "rule": "import"}`, "as a whole"},
	} {
		if text := callAPI(t, a, http.MethodPost, "/v1/outbox/"+c.action, c.body, nil); !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %s", c.action, c.body, text)
		}
	}
}

func callAPI(t *testing.T, a *api, method, path, body string, out any) string {
	t.Helper()
	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, w.Code, w.Body, err)
		}
	}
	return w.Body.String()
}

// What is too much is told as it begins, as it has grown a lot, and when it has calmed down; nobody is mailed twice. In dry-run the mail to
// operators ends as not-sent. A hold that nobody sees to expires.
func TestHeldIsToldAndExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := new(heldLog)
	w.also, w.config.NotifyOps, w.config.Mode = log, "ops@example.com", "dry-run"
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    hold_over: {minute: 1}", 1))
	d := w.start()
	one := `insert into visits (kind, staff_id) values ('visit', 1)`
	w.sql(one, one)
	w.matches(d, 1, outbox.MatchHeld)
	w.eventually("the first is told", func() bool { return log.count("class=held") == 1 })
	w.sql(one, one)
	w.matches(d, 3, outbox.MatchHeld)
	w.sql(`insert into visits (kind, staff_id) select 'visit', 1 from generate_series(1, 8)`) // at once: how much it has grown is told as it is seen
	w.matches(d, 11, outbox.MatchHeld)
	w.eventually("that it grew is told", func() bool { return log.count("class=held") == 2 })
	held, err := d.store.HeldBatches(t.Context())
	if err != nil || len(held) != 1 || held[0].Total != 11 {
		t.Fatalf("held: %+v, %v", held, err)
	}
	w.eventually("the mail to operators", func() bool { return len(w.messages(d, 2)) == 2 })
	for _, m := range w.messages(d, 2) {
		if m.State != outbox.MessageNotSent {
			t.Errorf("%s is %s", m.Address, m.State)
		}
	}
	w.stop(d)

	w.config.HoldExpires = 0
	d = w.start()
	w.toldFirst(log, d, 11)
	if err := d.lookAtHeld(t.Context(), time.Now().Add(8*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.matches(d, 11, outbox.MatchDiscarded) {
		if m.Reason != "its hold expired after 7 days" {
			t.Errorf("discarded: %s", m.Reason)
		}
	}
	if n := log.count("class=held"); n != 3 {
		t.Errorf("told %d times in all", n)
	}
	if n := log.count("nobody released it"); n != 1 {
		t.Errorf("told %d times that it expired", n)
	}
	if n := len(w.relay.Mails()); n != 0 {
		t.Errorf("%d mails went out in dry-run", n)
	}
}

// A row that comes again and again is held, and others of its rule are not.
func TestALoopIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(heldRules)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('import', 1), ('import', 2)`)
	for range 7 {
		w.sql(`update visits set note = clock_timestamp()::text where id = 1`)
	}
	w.sql(`update visits set note = 'once' where id = 2`)
	held := w.matches(d, 3, outbox.MatchHeld)
	if len(held) != 3 || !strings.Contains(held[0].Reason, "over 5 matches of the rule for one row") {
		t.Errorf("held: %+v", held)
	}
	if n := len(w.subjects(7)); n != 7 {
		t.Errorf("%d mails; want five of the one row and two of the other", n)
	}
	views, err := heldNow(t.Context(), d.store)
	if err != nil || len(views) != 1 || views[0].Cause != outbox.HeldRow || views[0].Held != 3 {
		t.Errorf("held: %+v, %v", views, err)
	}
}

// What is held by itself expires as a batch does, counted from when it was held, and is told of once.
func TestSingleHoldsExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := new(heldLog)
	w.also = log
	w.rules(`
rules:
  - {name: many, on: {table: visits, ops: [insert]}, to: {query: "select email from staff"}, max_recipients: 1, template: visit, load: {who: "select 'x' as name"}}
`)
	d := w.start()
	w.toldFirst(log, d, 2)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.matches(d, 2, outbox.MatchHeld)
	if err := d.lookAtHeld(t.Context(), time.Now().Add(6*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.matches(d, 2, outbox.MatchHeld)
	for range 2 {
		if err := d.lookAtHeld(t.Context(), time.Now().Add(8*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range w.matches(d, 2, outbox.MatchDiscarded) {
		if m.Reason != "its hold expired after 7 days" {
			t.Errorf("discarded: %s", m.Reason)
		}
	}
	if n := log.count("nobody released them"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
