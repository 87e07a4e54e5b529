package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox/sqlite"
	"postman/rules"
)

const callRule = "  - {name: call, on: {table: calls, ops: [insert]}, to: {address: a@example.com}, template: plain}\n"

const noteRule = "  - {name: note, on: {table: visits, ops: [update]}, to: {address: a@example.com}, template: plain}\n"

// meekWorld has a table calls beside the visits, and a role for the daemon that owns neither them nor the publications.
func meekWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.sql("create table calls (id int primary key)")
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	w.meek()
	return w
}

func (w *world) dba(op, table string) string {
	return fmt.Sprintf(`ALTER PUBLICATION "%s_ins" %s TABLE ONLY "public"."%s";`, w.config.Slot, op, table)
}

// Removing the last rule of a table takes effect at once, and after a restart, whoever may alter the publications: a table that is
// published too many loses nothing.
func TestARemovedRuleIsGone(t *testing.T) {
	t.Parallel()
	w := meekWorld(t)
	w.rules(worldRules + callRule)
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	d := w.start()
	w.sql(`insert into calls values (1)`)
	w.messages(d, 1)
	w.rules(worldRules)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	still := func(d *Daemon) {
		t.Helper()
		w.eventually("the stream is connected", func() bool { return d.Status().Healthy })
		s := d.Status()
		if len(s.Trouble) > 0 || len(s.Gaps) > 0 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], w.dba("DROP", "calls")) {
			t.Errorf("status %+v", s)
		}
	}
	still(d)
	if err := d.look(t.Context()); err != nil {
		t.Error(err)
	}
	still(d)
	w.sql(`insert into calls values (2)`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	if all := w.messages(d, 2); all[1].RuleName != "visit" {
		t.Errorf("messages %+v", all)
	}
	w.stop(d)
	d = w.start()
	still(d)
	w.sql(w.dba("DROP", "calls"))
	if err := d.look(t.Context()); err != nil {
		t.Error(err)
	}
	if s := d.Status(); len(s.Warnings) > 0 || len(s.Gaps) > 0 {
		t.Errorf("after the DBA took the table out: %+v", s)
	}
}

// A reload that was refused for what is not published is done by itself once a DBA has done what it asked for, whatever else the DBA
// has taken out for rules that go by it; and that is no gap.
func TestARefusedReloadIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules string
		run   func(*world) []string
		want  int
	}{
		"a table more":    {worldRules + callRule, func(w *world) []string { return []string{w.dba("ADD", "calls")} }, 2},
		"another instead": {"rules:\n" + callRule, func(w *world) []string { return []string{w.dba("ADD", "calls"), w.dba("DROP", "visits")} }, 1},
		"another instead of one of two on a table": {"rules:\n" + noteRule + callRule, func(w *world) []string { return []string{w.dba("ADD", "calls"), w.dba("DROP", "visits")} }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := meekWorld(t)
			w.blind = true
			if strings.Contains(c.rules, noteRule) {
				w.rules(worldRules + noteRule)
			}
			_, err := w.tryStart()
			w.sql(w.asked(err)...)
			d := w.start()
			w.rules(c.rules)
			w.eventually("the file is noticed", func() bool { return d.Status().Rules.ReloadFail != "" }) // and not read again, unless it is asked for
			err = d.Reload(t.Context())
			if got := w.asked(err); len(got) != 1 || got[0] != w.dba("ADD", "calls") || !strings.Contains(err.Error(), "reloaded by itself") {
				t.Errorf("the reload says: %v", err)
			}
			if err := d.look(t.Context()); err != nil || d.Status().Rules.ReloadFail == "" {
				t.Errorf("before the DBA did anything: %v, %+v", err, d.Status())
			}
			w.sql(c.run(w)...)
			if err := d.look(t.Context()); err != nil {
				t.Error(err)
			}
			w.eventually("the daemon is healthy", func() bool { return d.Status().Healthy })
			if s := d.Status(); len(s.Trouble)+len(s.Gaps)+len(s.Warnings) > 0 || s.Rules.Rules != c.want {
				t.Errorf("status %+v", s)
			}
			w.sql(`insert into calls values (1)`)
			w.messages(d, 1)
		})
	}
}

// What a DBA was asked to publish is not too much, while the rest is being waited for, nor after a mistake in the rules since.
func TestWhatADBAWasAskedForIsNotTooMuch(t *testing.T) {
	t.Parallel()
	w := meekWorld(t)
	w.blind = true
	w.sql("create table agents (id int primary key)")
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	d := w.start()
	both := worldRules + callRule + strings.NewReplacer("call,", "agent,", "calls", "agents").Replace(callRule)
	reload := func(rules, want string) {
		t.Helper()
		before := d.Status().Rules.ReloadFail
		w.rules(rules)
		w.eventually("the file is noticed", func() bool { return d.Status().Rules.ReloadFail != before })
		if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the reload says: %v; want %s", err, want)
		}
	}
	look := func(when string) {
		t.Helper()
		if err := d.look(t.Context()); err != nil {
			t.Error(err)
		}
		if s := d.Status(); len(s.Warnings) > 0 || s.Rules.Rules != 1 {
			t.Errorf("%s: %q, with %d rules", when, s.Warnings, s.Rules.Rules)
		}
	}
	reload(both, `"agents"`)
	w.sql(w.dba("ADD", "agents"))
	look("with half of it done")
	reload(both+"  - nonsense\n", "nonsense")
	look("with a mistake since")
	w.rules(both)
	w.sql(w.dba("ADD", "calls"))
	w.eventually("the file is noticed", func() bool { return d.Reload(t.Context()) == nil })
	if s := d.Status(); len(s.Warnings) > 0 || s.Rules.Rules != 3 {
		t.Errorf("at last: %+v", s)
	}
	w.rules(worldRules)
	if err := d.Reload(t.Context()); err != nil || len(d.Status().Warnings) != 1 {
		t.Errorf("once they are not needed any more: %v, %q", err, d.Status().Warnings)
	}
}

// Behind a publication that was dropped nothing is given up before the role is known to do all of it; once a DBA has, the same command goes on.
func TestAcceptingAGapAsksFirst(t *testing.T) {
	t.Parallel()
	w := meekWorld(t)
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	d := w.start()
	w.stop(d)
	w.sql(fmt.Sprintf(`drop publication "%s_ins"`, w.config.Slot))
	lsns := func() (slots string) {
		t.Helper()
		conn := pgtest.Connect(t, w.url)
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), "select string_agg(restart_lsn::text, ',') from pg_replication_slots where slot_name = $1", w.config.Slot).Scan(&slots); err != nil {
			t.Fatal(err)
		}
		return slots
	}
	before := lsns()
	_, err = Setup(t.Context(), w.config, SetupOptions{AcceptGap: true})
	asked := w.asked(err)
	if len(asked) == 0 || strings.Contains(strings.Join(asked, " "), "slot") || !strings.Contains(err.Error(), "run postman setup --accept-gap again") {
		t.Errorf("it asks for %q: %v", asked, err)
	}
	if after := lsns(); after != before {
		t.Errorf("the slot was %s and is %s", before, after)
	}
	store, err := sqlite.Open(w.config.StorePath(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sources, err := store.Sources(t.Context())
	if err := errors.Join(err, store.Close()); err != nil || len(sources) != 1 || sources[0].Epoch != 1 {
		t.Errorf("the store has %+v (%v)", sources, err)
	}
	w.sql(asked...)
	done, err := Setup(t.Context(), w.config, SetupOptions{AcceptGap: true})
	if text := strings.Join(done, "\n"); err != nil || !strings.Contains(text, "the gap is recorded") || !strings.Contains(text, "is dropped, and is made anew") || !strings.Contains(text, "epoch 2") {
		t.Errorf("the second time it says %q (%v)", text, err)
	}
	w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1)
}

func TestSetupBesideADaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	if _, err := Setup(t.Context(), w.config, SetupOptions{}); err == nil || !strings.Contains(err.Error(), "setup --print") {
		t.Errorf("setup says %v", err)
	}
	if _, err := Setup(t.Context(), w.config, SetupOptions{Print: true}); err != nil {
		t.Error(err)
	}
}

// Check says beforehand what a DBA has to do, where the daemon could not do it itself.
func TestCheckTellsWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	w := meekWorld(t)
	told := func() string {
		t.Helper()
		report, err := Check(t.Context(), w.config, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(report.Findings, func(e *rules.Error) bool { return e.ID == unpublished })
		if i < 0 {
			return ""
		}
		return report.Findings[i].Error()
	}
	w.rules(worldRules + callRule)
	if got := told(); got != "" {
		t.Errorf("before setup: %s", got)
	}
	w.rules(worldRules)
	_, err := w.tryStart()
	w.sql(w.asked(err)...)
	w.rules(worldRules + callRule)
	if got := told(); !strings.Contains(got, "calls is not published") || !strings.Contains(got, w.dba("ADD", "calls")) || !strings.Contains(got, "rules.yaml:12:") {
		t.Errorf("it says %q", got)
	}
	meek := w.config
	w.config.DatabaseURL = Secret(w.url)
	if got := told(); got != "" {
		t.Errorf("of a role that may publish it: %s", got)
	}
	w.config = meek
	w.sql(w.dba("ADD", "calls"))
	if got := told(); got != "" {
		t.Errorf("of a table that is published: %s", got)
	}
}
