package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/value"
)

// told is what the journal has of changes, a line each: the transaction's number in order of commits, ordinal, and what was done.
func (w *world) journal(d *Daemon, from, to position.LSN) (lines []string, commits []position.LSN) {
	w.t.Helper()
	h := newHistory(d.store, d.source)
	for s, err := range h.read(w.t.Context(), from, to) {
		if err != nil {
			w.t.Fatal(err)
		}
		if len(commits) == 0 || commits[len(commits)-1] != s.Commit {
			commits = append(commits, s.Commit)
		}
		for c, err := range s.Changes(w.t.Context(), h.table(w.t.Context())) {
			if err != nil {
				w.t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%d.%d %s", len(commits), c.Ordinal, w.line(c)))
		}
	}
	return lines, commits
}

func (w *world) line(c *cdc.Change) string {
	if c.Op == cdc.Emit {
		return fmt.Sprintf("%s %s %.20s", c.Op, c.Prefix, c.Content)
	}
	texts := []string{c.Op.String(), c.Table.Name}
	for _, tuple := range []cdc.Tuple{c.New, c.Old} {
		datums, err := tuple.Datums(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, d := range datums {
			if name := c.Table.Columns[i].Name; d.State == value.Blanked {
				texts = append(texts, name+" blanked")
			} else if d.State == value.Present && name != "id" && len(d.Text) < 40 {
				texts = append(texts, name+"="+string(d.Text))
			}
		}
	}
	return strings.Join(texts, " ")
}

// TestJournalOfAStream: what the stream brought is in the journal, matching or not, large or small, muted or not, without what is
// sensitive, or may be as it is new to a table that has something sensitive; and all of it is there as soon as it is confirmed, also after
// the table has changed.
func TestJournalOfAStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.rules("sensitive: [visits.note, message.visit.token]\n" + worldRules + `
  - {name: told, about: You asked., on: {message: visit}, to: {address: a@example.com}, template: visit}
`)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id, note) values ('visit', 1, 'secret')`,
		`begin; insert into visits (kind, staff_id) values ('call', 2); savepoint s; insert into visits (kind, staff_id) values ('never', 2);
			rollback to s; insert into visits (kind, staff_id) values ('visit', 3);
			select pg_logical_emit_message(true, 'postman.mute', 'a migration'), pg_logical_emit_message(true, 'other', 'not for postman'); commit`,
		`insert into visits (kind, staff_id) select repeat(md5(g::text), 1000), g from generate_series(1, 150) g`, // more than a block holds
		`alter table visits add column extra text`,
		`insert into visits (kind, staff_id, extra) values ('visit', 4, 'new')`,
		`select pg_logical_emit_message(true, 'postman.visit', '{"token": "secret", "a": 1}')`)
	w.covered(d)

	want := []string{
		"1.0 insert visits kind=visit staff_id=1 note blanked",
		"2.0 insert visits kind=call staff_id=2", "2.1 insert visits kind=visit staff_id=3", "2.2 message postman.mute a migration", "2.3 message other ",
	}
	for i := range 150 {
		want = append(want, fmt.Sprintf("3.%d insert visits staff_id=%d", i, i+1))
	}
	want = append(want, "4.0 insert visits kind=visit staff_id=4 extra blanked", `5.0 message postman.visit {"a":1}`)
	got, commits := w.journal(d, 0, 0)
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Fatalf("the journal has\n%s\nwant\n%s", g, w)
	}
	if part, _ := w.journal(d, commits[1], commits[1]); len(part) != 4 {
		t.Errorf("of one transaction there is %q", part)
	}
	w.stop(d)
	d = w.start()
	if again, _ := w.journal(d, 0, 0); strings.Join(again, "\n") != strings.Join(want, "\n") {
		t.Errorf("after a restart there is %q", again)
	}
	span, err := d.store.JournalSpan(t.Context(), d.source.ID, d.source.Epoch)
	if err != nil || span.Oldest != commits[0] || span.Newest != commits[4] || time.Since(span.To) > time.Minute {
		t.Errorf("the span is %+v (%v), the commits are %v", span, err, commits)
	}
}

// TestJournalIsJoined: blocks of single transactions become one, and nobody who reads the journal notices.
func TestJournalIsJoined(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.rules(worldRules)
	d := w.start()
	pieces := func() (n int) {
		found, err := d.store.Journal(t.Context(), outbox.JournalQuery{Source: d.source.ID, Epoch: d.source.Epoch, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for i := range 20 {
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
		w.matches(d, i+1, outbox.MatchExpanded) // so that each has a block of its own
		if i == 9 {
			w.sql(`insert into visits (kind, staff_id) select repeat(md5(g::text), 1000), g from generate_series(1, 50) g`)
			w.covered(d)
		}
	}
	before, commits := w.journal(d, 0, 0)
	if n := pieces(); n < 21 {
		t.Fatalf("the journal has %d pieces; there was to be one for each match at least", n)
	}
	j := &joining{store: d.store, source: d.source}
	var read []position.LSN
	h := newHistory(d.store, d.source)
	for s, err := range h.read(t.Context(), 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if len(read) == 2 { // while somebody reads
			if err := j.join(t.Context(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if read = append(read, s.Commit); !s.final {
			read = read[:len(read)-1]
		}
	}
	if fmt.Sprint(read) != fmt.Sprint(commits) {
		t.Errorf("who read meanwhile saw %v; want %v", read, commits)
	}
	if after, _ := w.journal(d, 0, 0); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("joined, the journal has %q; before it had %q", after, before)
	}
	if n := pieces(); n > 5 {
		t.Errorf("the journal has %d pieces after joining", n)
	}
}

// TestJournalIsPruned: what is older than it is to be kept, or too much, goes; what is asked for from before is not there.
func TestJournalIsPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.rules(worldRules)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) select repeat(md5(g::text), 1000), g from generate_series(1, 50) g`)
	w.covered(d)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.matches(d, 1, outbox.MatchExpanded)
	_, commits := w.journal(d, 0, 0)
	d.config.Journal.Size = Size(d.Status().Sources[0].Journal.Bytes - 1)
	if err := d.prune(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, left := w.journal(d, 0, 0); fmt.Sprint(left) != fmt.Sprint(commits[1:]) {
		t.Errorf("over its size the journal keeps %v of %v", left, commits)
	}
	if err := d.prune(t.Context(), time.Now().Add(time.Duration(d.config.Journal.Keep)).Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if lines, _ := w.journal(d, 0, 0); len(lines) > 0 {
		t.Errorf("after its time the journal has %q", lines)
	}
	if s := d.Status().Sources[0].Journal; s.Oldest != "" || s.Bytes != 0 {
		t.Errorf("the status says %+v", s)
	}
}
