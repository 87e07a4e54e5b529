package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postman/cdc"
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
		for c, err := range s.Changes(h.table(w.t.Context())) {
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
// sensitive; and all of it is there as soon as it is confirmed, also after the table has changed.
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
	want = append(want, "4.0 insert visits kind=visit staff_id=4 extra=new", `5.0 message postman.visit {"a":1}`)
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
