package dispatch

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
	"postman/value"
)

const threadRules = `
rules:
  - name: booked
    on: {table: meetings, ops: [insert]}
    to: [{query: "select email from staff where id = @new.staff_id"}, {address: desk@example.com}]
    thread: pk
    template: told
  - name: moved
    on: {table: meetings, ops: [update]}
    to: {query: "select email from staff where id = @new.staff_id"}
    from: {address: news@news.example.com}
    thread: pk
    template: told
  - name: gone
    on: {table: meetings, ops: [delete]}
    to: {address: desk@example.com}
    thread: pk
    template: told
  - name: named
    on: {table: meetings, ops: [delete]}
    to: {address: desk@example.com}
    thread: [old.id]
    template: told
  - name: of-staff
    on: {table: meetings, ops: [insert]}
    to: {address: desk@example.com}
    thread: [new.staff_id]
    template: told
  - name: joined
    on: {table: staff, ops: [insert]}
    to: {address: desk@example.com}
    thread: pk
    template: told
  - name: titled
    on: {table: meetings, ops: [insert]}
    to: {address: desk@example.com}
    thread: [new.title]
    template: told
  - name: alone
    on: {table: meetings, ops: [insert]}
    to: {address: desk@example.com}
    template: told
  - name: said
    on: {message: said}
    to: message.email
    thread: [message.about]
    template: told
`

var toldTemplate = map[string]string{"told.html": `{{define "subject"}}{{.rule}}{{end}}{{define "body"}}<p>{{.op}}</p>{{end}}`}

// meeting is a change of a row of meetings.
func (w *world) meeting(rule string, op cdc.Op, id, staff, title string) change {
	row := []value.Datum{value.Of(id), value.Of(title), value.Of(staff), {}, {}}
	if title == "" {
		row[1] = value.Datum{State: value.Unavailable}
	}
	c := change{rule: rule, op: op, table: w.tableOf(rule)}
	if op == cdc.Delete {
		c.old = row
	} else {
		c.new = row
	}
	return c
}

// TestThread: mails about one row refer to one Message-ID, whichever rule they are of and whomever they go to, and others do not.
func TestThread(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm, rules: threadRules, templates: toldTemplate})
	for _, c := range []change{
		w.meeting("booked", cdc.Insert, "1", "1", "x"), w.meeting("moved", cdc.Update, "1", "2", "y"), w.meeting("gone", cdc.Delete, "1", "2", "y"),
		w.meeting("named", cdc.Delete, "1", "2", "y"), w.meeting("moved", cdc.Update, "2", "1", "y"), w.meeting("of-staff", cdc.Insert, "9", "1", "x"),
		{rule: "joined", op: cdc.Insert, table: w.tableOf("joined"), new: []value.Datum{value.Of("1"), {}, {}, {}, {}}},
		w.meeting("titled", cdc.Insert, "1", "1", "1"), w.meeting("titled", cdc.Insert, "77", "1", ""), w.meeting("alone", cdc.Insert, "1", "1", "x"),
		message("said", `{"email": "kim@example.com", "about": 1}`), message("said", `{"email": "ann@example.com", "about": 1.0}`),
		message("said", `{"email": "one@example.com", "about": "1"}`),
	} {
		w.take(c)
	}
	threads := make(map[string][]string)
	for _, m := range w.mails(14) {
		h := parsed(t, m.Data).Header
		root := h.Get("References")
		if got := h.Get("In-Reply-To"); got != root {
			t.Errorf("References %q and In-Reply-To %q", root, got)
		}
		if root != "" && (!strings.HasPrefix(root, "<thread.") || !strings.HasSuffix(root, "@example.com>") || len(root) != len("<thread.@example.com>")+32) {
			t.Errorf("the thread is called %s", root)
		}
		if root == h.Get("Message-Id") {
			t.Errorf("%s refers to itself", root)
		}
		threads[root] = append(threads[root], subject(t, h)+" "+m.To[0])
	}
	var got [][]string
	for root, mails := range threads {
		slices.Sort(mails)
		if root == "" {
			mails = append([]string{"-"}, mails...)
		}
		got = append(got, mails)
	}
	slices.SortFunc(got, slices.Compare)
	want := [][]string{
		{"-", "alone desk@example.com", "titled desk@example.com"},
		{"booked desk@example.com", "booked kim@example.com", "gone desk@example.com", "moved ann@example.com", "named desk@example.com"},
		{"joined desk@example.com"},
		{"moved kim@example.com"},
		{"of-staff desk@example.com"},
		{"said ann@example.com", "said kim@example.com"},
		{"said one@example.com"},
		{"titled desk@example.com"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w.settled()
	notes := 0
	for _, m := range w.messages() {
		if m.Reason != "" {
			notes++
			if want := "it stands in no thread: evaluating new.title: the value of new.title is not available"; m.Reason != want {
				t.Errorf("%s: %q, want %q", m.RuleName, m.Reason, want)
			}
		}
	}
	if notes != 1 {
		t.Errorf("%d messages say that they stand in no thread", notes)
	}
}

// TestThreadIsSecret: what a thread is called depends on the store's secret, and on nothing that changes when a mail is made again, elsewhere or
// redirected.
func TestThreadIsSecret(t *testing.T) {
	t.Parallel()
	root := func(secret string, tune func(*Options)) string {
		w := newWorld(t, setup{rules: threadRules[:strings.Index(threadRules, "  - name: booked")] + threadRules[strings.Index(threadRules, "  - name: said"):], templates: toldTemplate, tune: tune})
		if secret != "" {
			w.composer.secret = []byte(secret)
		}
		w.emit("said", `{"email": "kim@example.com", "about": 1}`)
		return parsed(t, w.mails(1)[0].Data).Header.Get("References")
	}
	first := root("a", nil)
	for name, c := range map[string]struct {
		secret string
		tune   func(*Options)
		same   bool
	}{
		"again":          {"a", nil, true},
		"redirected":     {"a", func(o *Options) { o.Mode, o.Redirect = Redirect, "test@example.com" }, true},
		"of its own":     {"", nil, false},
		"another secret": {"b", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := root(c.secret, c.tune); got == "" || (got == first) != c.same {
				t.Errorf("the thread is %s, and the first one's was %s", got, first)
			}
		})
	}
}
