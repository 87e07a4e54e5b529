package daemon

import (
	"strings"
	"testing"
)

// A table is renamed, and its rule follows, while what was committed under the old name is still to be read, in a session that has been told of
// the table by that name. What is read then is a gap, until the stream comes to the new name, and a replay makes up for it.
func TestRenamedUnderABacklog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.sql("create table parcels (id int primary key, kind text)")
	w.template("plain.html", `{{define "subject"}}x{{end}}{{define "body"}}x{{end}}`)
	rules := "rules:\n  - {name: shipped, on: {table: parcels, ops: [insert]}, to: {address: a@example.com}, template: plain}\n" + markRule
	w.rules(rules)
	d := w.start()
	w.sql("insert into parcels values (1, 'a')")
	w.mark(d)
	goOn := w.holdSender()
	w.sql("insert into parcels values (2, 'a')", "insert into parcels values (3, 'a')", "alter table parcels rename to freight", "insert into freight values (4, 'a')")
	w.rules(strings.Replace(rules, "parcels", "freight", 1))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	goOn()
	w.mark(d)
	if n := w.matchesOf(d, "shipped"); n != 2 {
		t.Errorf("%d changes matched; want the one before and the one behind", n)
	}
	gap := gapOf(d, "shipped")
	if gap.To == "" || !strings.Contains(gap.Reason, "the table freight is called parcels now") {
		t.Fatalf("the gap is %+v", gap)
	}
	_, done := w.replayed(d, ReplayRequest{From: gap.From, To: gap.To, Rules: []string{"shipped"}})
	if n := w.matchesOf(d, "shipped"); n != 4 || len(done.Mended) != 1 {
		t.Errorf("%d of 4 changes matched when the gap was made up for: %+v", n, done)
	}
}
