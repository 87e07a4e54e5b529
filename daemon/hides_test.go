package daemon

import (
	"bytes"
	"testing"

	"postman/cdc"
	"postman/outbox"
)

// TestRenamedIsSensitive renames a table, and a column, that the files call sensitive: what they hold goes into the journal no more than
// before.
func TestRenamedIsSensitive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ rename, table string }{
		"not renamed":        {`select`, "vault"},
		"the table":          {`alter table vault rename to safe`, "safe"},
		"the column":         {`alter table vault rename column token to pin`, "vault"},
		"both":               {`alter table vault rename column token to pin; alter table vault rename to safe`, "safe"},
		"the table and back": {`alter table vault rename to safe; alter table safe rename to vault`, "vault"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sql(`create table vault (id int primary key, token text, shown text)`)
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
			var journal []byte
			w.eventually("both are in the journal", func() bool {
				journal = nil
				pieces, err := d.store.Journal(t.Context(), outbox.JournalQuery{Source: d.source.ID, Epoch: d.source.Epoch, Limit: 100})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pieces {
					block, err := cdc.UnsealBlock(nil, p.Data)
					if err != nil {
						t.Fatal(err)
					}
					journal = append(journal, block...)
				}
				return bytes.Contains(journal, []byte("open1")) && bytes.Contains(journal, []byte("open2"))
			})
			if bytes.Contains(journal, []byte("hunter")) {
				t.Errorf("the journal has what is sensitive: %q", journal)
			}
		})
	}
}
