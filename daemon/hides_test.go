package daemon

import (
	"bytes"
	"testing"

	"postman/cdc"
	"postman/outbox"
)

// TestRenamedWhileAway renames a sensitive table while nobody looks: the rules that postman starts with do not know it, and it hides of that
// what it did before, and no more.
func TestRenamedWhileAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql(`create table vault (id int primary key, token text, shown text)`)
	w.rules(worldRules + `
  - name: kept
    on: {table: vault, ops: [insert]}
    to: {query: "select email from staff where id = 1"}
    template: visit
sensitive: [vault.token]
`)
	w.template("visit.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.stop(w.start())
	w.sql(`alter table vault rename to safe`, `insert into safe values (1, 'hunter1', 'open2')`, `insert into visits (kind, note, staff_id) values ('visit', 'open1', 1)`)
	d := w.start()
	journal := w.unsealed(d, "open1")
	if !bytes.Contains(journal, []byte("open2")) {
		t.Errorf("the journal lacks what is not sensitive, and what the rule misses: %q", journal)
	}
	if bytes.Contains(journal, []byte("hunter")) {
		t.Errorf("the journal has what is sensitive: %q", journal)
	}
}

// unsealed is all that the journal has, once a text is in it.
func (w *world) unsealed(d *Daemon, text string) (journal []byte) {
	w.t.Helper()
	w.eventually("it is in the journal", func() bool {
		journal = nil
		pieces, err := d.store.Journal(w.t.Context(), outbox.JournalQuery{Source: d.source.ID, Epoch: d.source.Epoch, Limit: 100})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range pieces {
			block, err := cdc.UnsealBlock(nil, p.Data)
			if err != nil {
				w.t.Fatal(err)
			}
			journal = append(journal, block...)
		}
		return bytes.Contains(journal, []byte(text))
	})
	return journal
}

// TestRenamedIsSensitive renames a table, and a column, that the files call sensitive: what they hold goes into the journal no more than
// before.
func TestRenamedIsSensitive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ rename, table string }{
		"not renamed":            {`select`, "vault"},
		"another takes its name": {`alter table vault add column other text default 'none'; alter table vault rename column token to was; alter table vault rename column other to token`, "vault"},
		"two swap names":         {`alter table vault rename column token to x; alter table vault rename column note to token; alter table vault rename column x to note`, "vault"},

		"the table":          {`alter table vault rename to safe`, "safe"},
		"the column":         {`alter table vault rename column token to pin`, "vault"},
		"both":               {`alter table vault rename column token to pin; alter table vault rename to safe`, "safe"},
		"the table and back": {`alter table vault rename to safe; alter table safe rename to vault`, "vault"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sql(`create table vault (id int primary key, token text, shown text, note text)`)
			w.rules(`
sensitive: [vault.token]
rules:
  - name: kept
    on: {table: vault, ops: [insert]}
    when: new.id > 0
    to: {query: "select email from staff where id = 1"}
    template: plain
`)
			w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
			d := w.start()
			w.sql(`insert into vault (id, token, shown) values (1, 'hunter1', 'open1')`, c.rename, `insert into `+c.table+` values (2, 'hunter2', 'open2')`)
			journal := w.unsealed(d, "open2")
			if !bytes.Contains(journal, []byte("open1")) {
				t.Errorf("the journal lacks what is not sensitive: %q", journal)
			}
			if bytes.Contains(journal, []byte("hunter")) {
				t.Errorf("the journal has what is sensitive: %q", journal)
			}
		})
	}
}
