package daemon

import (
	"strings"
	"testing"

	"postman/outbox"
)

// TestExplainAMove: of an insert that an update of the partition key made it is told what it may be, and of another insert nothing.
func TestExplainAMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.template("plain.html", plainTemplate)
	w.sql("create table calls (id int, region int, n int, primary key (id, region)) partition by list (region)",
		"create table calls_1 partition of calls for values in (1)", "create table calls_2 partition of calls for values in (2)",
		"create table calls_3 partition of calls for values in (3)")
	w.rules("rules:\n" + callRule + "  - {name: gone, on: {table: calls, ops: [delete]}, when: 'false', to: {address: a@example.com}, template: other}\n")
	w.template("other.html", `{{define "subject"}}x{{end}}{{define "body"}}<p>x</p>{{end}}`)
	d := w.start()
	w.sql("insert into calls values (1, 1)", "update calls set region = 2 where id = 1",
		"begin; delete from calls where id = 1; insert into calls values (2, 3); commit")
	found := w.matches(d, 3, outbox.MatchExpanded)
	a := &api{store: d.store}
	for i, moved := range []bool{false, true, false} {
		v, err := a.explain(t.Context(), found[i].ID, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(v.Notes, "\n"); moved != strings.Contains(text, "moves a row to another partition") || !moved && text != "" || len(v.Unknown) > 0 {
			t.Errorf("of match %d it says %q, and that it does not know %q", i, text, v.Unknown)
		}
	}
}
