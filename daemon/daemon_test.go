package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/dispatch"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
)

func TestChangeBecomesMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id, note, price) values ('visit', 1, '테헤란로', 1250000.50)`,
		`insert into visits (kind, staff_id) values ('call', 1)`,                   // does not match
		`begin; insert into visits (kind, staff_id) values ('visit', 1); rollback`, // did not happen
		`insert into visits (kind, staff_id, note) values ('visit', 2, null)`)
	got := w.subjects(2)
	want := []string{"Visit 1 for 김민준", "Visit 4 for 이서연"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, m := range w.messages(d, 2) {
		if m.State != outbox.MessageSent || m.MessageID == "" || m.Reply == "" {
			t.Errorf("message %+v", m)
		}
	}
	w.covered(d)
	w.stop(d)
	if diff := cmp.Diff([]string{"kim@example.com", "lee@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
	if from := w.relay.Mails()[0].From; from != "postman@example.com" {
		t.Errorf("the envelope's sender is %q", from)
	}
}

// What was committed while nobody listened is mailed about, once, by the next run.
func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop(w.start())
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.stop(func() *Daemon { d := w.start(); w.messages(d, 1); return d }())
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
	w.messages(d, 2)
	if n := len(w.relay.Mails()); n != 2 {
		t.Errorf("%d mails; want 2", n)
	}
}

func TestNobodyAndNoAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 99)`, `insert into visits (kind, staff_id) values ('visit', 3)`)
	if m := w.matches(d, 1, outbox.MatchNobody); m[0].Position.Ordinal != 0 {
		t.Errorf("match %+v", m[0])
	}
	if m := w.messages(d, 1); m[0].State != outbox.MessageNoAddress || m[0].Reason == "" {
		t.Errorf("message %+v", m[0])
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", "dry-run"} {
		t.Run("mode "+mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Mode = mode
			d := w.start()
			w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
			if m := w.messages(d, 1); m[0].State != outbox.MessageNotSent {
				t.Errorf("message %+v", m[0])
			}
			w.sql(`insert into visits (kind, staff_id) select 'visit', 1 from generate_series(1, 101)`)
			held := w.matches(d, 101, outbox.MatchHeld)
			w.stop(d)
			w.config.Mode = "live"
			d = w.start()
			if _, err := d.store.Act(t.Context(), outbox.Release, outbox.Filter{Matches: []int64{held[0].ID}}, "", time.Now()); err != nil {
				t.Fatal(err)
			}
			d.dispatch.Wake()
			w.messages(d, 2)
			w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
			w.messages(d, 3)
			if diff := cmp.Diff([]string{"lee@example.com"}, w.recipients()); diff != "" {
				t.Errorf("going live sent what was made before: %s", diff)
			}
		})
	}
	t.Run("redirect", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.config.Mode, w.config.Redirect = "redirect", "me@example.com"
		d := w.start()
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
		w.messages(d, 1)
		if diff := cmp.Diff([]string{"me@example.com"}, w.recipients()); diff != "" {
			t.Error(diff)
		}
		if to := header(w.relay.Mails()[0].Data, "To"); strings.Contains(to, "kim") {
			t.Errorf("To is %q", to)
		}
		w.stop(d)
		w.config.Mode = "live" // which is no reason to believe that the first mail went out
		d = w.start()
		w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
		told := func(m outbox.Message) (standing, gate, attempt string) {
			view, err := (&api{store: d.store}).explain(t.Context(), m.Match, m.ID, true)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(view.Gates, func(g GateView) bool { return g.Gate == "mode" })
			return view.Message.Standing(), view.Gates[i].Detail, view.Attempts[0].Redirected
		}
		all := w.messages(d, 2)
		if s, g, a := told(all[0]); s != "sent, redirected to me@example.com" || g != "redirect: the mail was for me@example.com instead" || a != "me@example.com" {
			t.Errorf("of the redirected mail it tells %q, %q, %q", s, g, a)
		}
		if s, g, a := told(all[1]); s != "sent" || g != "it let mails out" || a != "" {
			t.Errorf("of the other mail it tells %q, %q, %q", s, g, a)
		}
	})
}

func TestLiveIsArmedForOneDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop(w.start())
	original := w.config.DatabaseURL
	w.config.DatabaseURL = Secret(strings.Replace(w.url, "127.0.0.1", "localhost", 1))
	if w.config.DatabaseURL == original {
		t.Fatalf("%s is not on 127.0.0.1", w.url)
	}
	_, err := w.tryStart()
	if _, ok := errors.AsType[*ArmError](err); !ok || !strings.Contains(err.Error(), "postman setup --arm") {
		t.Fatalf("a copy under another host: %v", err)
	}
	w.config.Mode = "dry-run" // is nobody's danger
	w.stop(w.start())
	if _, err := Setup(t.Context(), w.config, SetupOptions{Arm: true}); err != nil {
		t.Fatal(err)
	}
	w.config.Mode = "live"
	w.start()
}

// A store that was armed for one database does not arm itself for another: that one may be a restored copy.
func TestLiveIsNotArmedForARestoredCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop(w.start())
	other := newWorld(t)
	w.config.DatabaseURL, w.config.Slot = other.config.DatabaseURL, other.config.Slot
	if _, err := w.tryStart(); err == nil || !strings.Contains(err.Error(), "armed for") {
		t.Errorf("another database beside the same store: %v", err)
	}
}

func TestGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop(w.start())
	w.sql(fmt.Sprintf(`select pg_drop_replication_slot('%s')`, w.config.Slot), `insert into visits (kind, staff_id) values ('visit', 1)`)
	_, err := w.tryStart()
	if _, ok := errors.AsType[*GapError](err); !ok || !strings.Contains(err.Error(), "postman setup --accept-gap") {
		t.Fatalf("the slot is gone: %v", err)
	}
	if _, err := Setup(t.Context(), w.config, SetupOptions{AcceptGap: true}); err != nil {
		t.Fatal(err)
	}
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
	w.messages(d, 1)
	s := d.Status()
	if len(s.Gaps) != 1 || !s.Gaps[0].Lost || s.Sources[0].Epoch != 2 {
		t.Errorf("gaps %+v, sources %+v; want one lost gap and the second epoch", s.Gaps, s.Sources)
	}
	if diff := cmp.Diff([]string{"lee@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyStoreBesideASlotIsAGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql(fmt.Sprintf(`select pg_create_logical_replication_slot('%s', 'pgoutput')`, w.config.Slot))
	if _, err := w.tryStart(); err == nil || !strings.Contains(err.Error(), "this store did not make it") {
		t.Errorf("a stranger's slot: %v", err)
	}
}

func TestHoldOverTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) select 'visit', 1 from generate_series(1, 101)`)
	held := w.matches(d, 101, outbox.MatchHeld)
	if !strings.Contains(held[0].Reason, "101 matches") {
		t.Errorf("reason %q", held[0].Reason)
	}
	if n := len(w.relay.Mails()); n != 0 {
		t.Errorf("%d mails went out of a transaction that is held whole", n)
	}
	acted, err := d.store.Act(t.Context(), outbox.Release, outbox.Filter{Matches: []int64{held[3].ID, held[7].ID}}, "these two", time.Now())
	if err != nil || acted.Matches != 2 {
		t.Fatalf("release: %+v, %v", acted, err)
	}
	d.dispatch.Wake()
	w.messages(d, 2)
}

func TestHoldOverMinuteHoldsTheExcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    hold_over: {minute: 3}", 1))
	d := w.start()
	for range 5 {
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	}
	w.matches(d, 2, outbox.MatchHeld)
	w.messages(d, 3)
	w.stop(d)
	d = w.start() // the count outlives the process
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.matches(d, 3, outbox.MatchHeld)
}

func TestMutedTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`begin; insert into visits (kind, staff_id) values ('visit', 1);
		select pg_logical_emit_message(true, 'postman.mute', 'migration 17'); insert into visits (kind, staff_id) values ('visit', 2); commit`)
	for _, m := range w.matches(d, 2, outbox.MatchMuted) {
		if m.Reason != "migration 17" {
			t.Errorf("reason %q", m.Reason)
		}
	}
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
	if n := len(w.relay.Mails()); n != 1 {
		t.Errorf("%d mails; want the one after the muted transaction", n)
	}
}

// A transaction with more matches than memory should hold goes through the store, and is one transaction all the same.
func TestSpilledTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    hold_over: {transaction: 130, minute: 100000}", 1))
	d := w.start()
	bulk := func(n int) string { // of rows of 100 kB each
		return fmt.Sprintf(`insert into visits (kind, staff_id, note) select 'visit', 99, repeat('x', 100000) from generate_series(1, %d)`, n)
	}
	const n = spillOverBytes/100_000 + 40
	w.sql(bulk(n))
	for i, m := range w.matches(d, n, outbox.MatchNobody) {
		if m.Position.Ordinal != uint64(i) {
			t.Fatalf("match %d has ordinal %d", i, m.Position.Ordinal)
		}
	}
	w.sql(bulk(131))
	if held := w.matches(d, 131, outbox.MatchHeld); len(held) != 131 {
		t.Errorf("%d held; want all 131 of the transaction, spilled ones too", len(held))
	}
	w.sql(`begin; ` + bulk(n) + `; select pg_logical_emit_message(true, 'postman.mute', 'import'); commit`)
	if muted := w.matches(d, n, outbox.MatchMuted); len(muted) != n {
		t.Errorf("%d muted; want %d", len(muted), n)
	}
}

func TestMessageRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(`
sensitive: [message.reset.token]
rules:
  - name: reset
    about: You asked for a new password.
    on: {message: reset}
    to: message.email
    priority: high
    expires: 15m
    template: reset
`)
	w.template("reset.html", `{{define "subject"}}Reset{{end}}{{define "body"}}<a href="https://example.com/{{.message.token}}">x</a>{{end}}`)
	d := w.start()
	w.sql(`select pg_logical_emit_message(true, 'postman.reset', '{"email": "a@example.com", "token": "s3cret"}')`,
		`select pg_logical_emit_message(false, 'postman.reset', '{"email": "b@example.com", "token": "s3cret"}')`, // not transactional
		`select pg_logical_emit_message(true, 'postman.reset', 'no json')`)
	w.messages(d, 1)
	failed := w.matches(d, 1, outbox.MatchFailed)
	if !strings.Contains(failed[0].Reason, "JSON") {
		t.Errorf("reason %q", failed[0].Reason)
	}
	mails := w.relay.Mails()
	if len(mails) != 1 || !strings.Contains(string(mails[0].Data), "s3cret") {
		t.Fatalf("%d mails, or one without the token", len(mails))
	}
	w.eventually("the token is blanked", func() bool {
		for _, m := range w.matches(d, 1, outbox.MatchExpanded) {
			if strings.Contains(string(m.Change), "s3cret") {
				return false
			}
		}
		return true
	})
	if d.Status().Stream.Refused != 1 {
		t.Errorf("refused %d; want the one that is not transactional", d.Status().Stream.Refused)
	}
}

// What a query reads of a sensitive column goes into the mail, is erased from the outbox once that is sent, and is told nowhere.
func TestSensitiveOfAnotherTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also = notes
	w.sql(`create table vault (token text)`, `insert into vault values ('hunter2')`)
	w.rules(`
sensitive: [vault.token]
rules:
  - name: shows
    on: {table: visits, ops: [insert]}
    to: {query: "select email, token from staff, vault where staff.id = 1"}
    template: shows
  - name: casts
    on: {table: visits, ops: [insert]}
    to: {query: "select email from staff, vault where token::int = staff.id"}
    template: plain
`)
	w.template("shows.html", `{{define "subject"}}{{.to.token}}{{end}}{{define "body"}}<p>{{.to.token}}</p>{{end}}`)
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1)
	failed := w.matches(d, 1, outbox.MatchFailed)
	if !strings.Contains(failed[0].Reason, "22P02") || strings.Contains(failed[0].Reason, "hunter2") || notes.count("hunter2") != 0 || notes.count("22P02") == 0 {
		t.Errorf("the failure is told: %s", failed[0].Reason)
	}
	if mails := w.relay.Mails(); len(mails) != 1 || header(mails[0].Data, "Subject") != "hunter2" {
		t.Errorf("%d mails, or one without the token", len(mails))
	}
	w.eventually("what was shown is erased", func() bool {
		m := w.messages(d, 1)[0]
		return len(m.Recipient) == 0 && len(m.Body) == 0 && m.Subject == ""
	})
}

func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	for name, c := range map[string]struct{ rules, want string }{
		"unknown column":    {strings.Replace(worldRules, "new.kind", "new.knd", 1), "did you mean kind"},
		"unknown table":     {strings.Replace(worldRules, "table: visits", "table: visit", 1), "visits"},
		"type mismatch":     {strings.Replace(worldRules, `"visit"`, `5`, 1), "new.kind is text"},
		"unknown key":       {strings.Replace(worldRules, "template:", "tempalte:", 1), "template"},
		"duplicate name":    {worldRules + strings.TrimPrefix(worldRules, "\nrules:\n"), "visit"},
		"custom tag":        {strings.Replace(worldRules, `new.kind == "visit"`, "!changed(new.kind)", 1), "not changed("},
		"missing template":  {strings.Replace(worldRules, "template: visit", "template: vist", 1), "vist"},
		"a stranger's from": {strings.Replace(worldRules, "template:", "from: {address: me@example.org}\n    template:", 1), "from_domains"},
		"broken query":      {strings.Replace(worldRules, "select email, name from staff", "select emial from staff", 1), "emial"},
	} {
		w.rules(c.rules)
		if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\n  want: %q", name, err, c.want)
		}
	}
	w.rules(worldRules)
	w.template("visit.html", strings.Replace(worldTemplates["visit.html"], ".who.name", ".who.nmae", 1))
	if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "nmae") {
		t.Errorf("an unknown variable: %v", err)
	}
	w.template("visit.html", worldTemplates["visit.html"])
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 1) // the live set is as it was
	if err := d.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if healthy, trouble := d.health(t.Context()); !healthy {
		t.Errorf("trouble after a good reload: %v", trouble)
	}
}

func TestRulesAndTemplatesAreWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	before := d.live.Load()
	w.template("visit.html", strings.Replace(worldTemplates["visit.html"], "Visit", "Besuch", 1))
	w.rules(strings.Replace(worldRules, `"visit"`, `"besuch"`, 1))
	w.eventually("a reload", func() bool { return d.live.Load() != before })
	w.eventually("the last edit is live", func() bool { return strings.Contains(string(d.live.Load().rules.Rules[0].Source()), "besuch") })
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into visits (kind, staff_id) values ('besuch', 1)`)
	if got := w.subjects(1); got[0] != "Besuch 2 for 김민준" {
		t.Errorf("subjects %q", got)
	}
}

// A reload that met a database which could not be asked is done once it can: nobody saves the files again for that.
func TestReloadIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	network := w.unsound(nil)
	d := w.start()
	network.Hold()
	w.rules(strings.Replace(worldRules, `"visit"`, `"besuch"`, 1))
	w.eventually("a reload that fails", func() bool {
		network.Cut() // whatever was connected by now, and waits for an answer
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.trouble["reload"] != ""
	})
	network.Release()
	w.eventually("the reload", func() bool { return reloaded(d) })
}

func reloaded(d *Daemon) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble["reload"] == "" && strings.Contains(string(d.live.Load().rules.Rules[0].Source()), "besuch")
}

// A look at the database on a connection that has died without a word is given up soon: a reload waits for it.
func TestLookIntoABlackHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	network := w.unsound(nil)
	d := w.start()
	d.glance()
	w.eventually("a look", func() bool {
		d.reloading.Lock()
		defer d.reloading.Unlock()
		return d.outlook.conn != nil
	})
	network.Freeze()
	d.glance()
	w.eventually("another look", func() bool {
		if !d.reloading.TryLock() {
			return true
		}
		d.reloading.Unlock()
		return false
	})
	w.rules(strings.Replace(worldRules, `"visit"`, `"besuch"`, 1))
	w.eventually("the reload", func() bool { return reloaded(d) })
}

// Mails come from allowed domains only, whatever a change says, and replies go where the rule says, or else the configuration.
func TestSenders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.ReplyTo, w.config.FromDomains = "Office <office@example.com>", []string{"example.net"}
	w.rules(strings.Replace(worldRules, "template:", "from: new.note\n    template:", 1))
	d := w.start()
	w.sql(`insert into visits (kind, staff_id, note) values ('visit', 1, 'Desk <desk@example.net>')`,
		`insert into visits (kind, staff_id, note) values ('visit', 1, 'me@example.org')`)
	var failed []string
	for _, m := range w.messages(d, 2) {
		if m.State == outbox.MessageFailed {
			failed = append(failed, m.Reason)
		}
	}
	if len(failed) != 1 || !strings.Contains(failed[0], "example.org") {
		t.Errorf("failed with %q", failed)
	}
	mail := w.relay.Mails()[0].Data
	if from, to := header(mail, "From"), header(mail, "Reply-To"); !strings.Contains(from, "desk@example.net") || !strings.Contains(to, "office@example.com") {
		t.Errorf("From %s, Reply-To %s", from, to)
	}
}

// A table without a primary key, watched for inserts: the application's UPDATE and DELETE go on working, through reloads
// that add and remove rules.
func TestTheApplicationNeverSuffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql(`create table clicks (page text)`)
	onClicks := worldRules + `
  - name: click
    on: {table: clicks, ops: [insert]}
    to: {address: a@example.com}
    template: click
`
	w.template("click.html", `{{define "subject"}}Click{{end}}{{define "body"}}<p>{{.new.page}}</p>{{end}}`)
	use := func() {
		t.Helper()
		w.sql(`insert into clicks values ('a')`, `update clicks set page = 'b'`, `delete from clicks where page = 'b'`, `truncate clicks`)
	}
	d := w.start()
	for _, text := range []string{worldRules, onClicks, worldRules, onClicks} {
		w.rules(text)
		if err := d.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		use()
	}
	w.rules(strings.Replace(onClicks, "table: clicks, ops: [insert]", "table: clicks, ops: [update]", 1))
	if err := d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "REPLICA IDENTITY") {
		t.Errorf("a rule on updates of a table without a key: %v", err)
	}
	use()
	w.messages(d, 3)
}

// A column that goes away breaks the rules that read it, and those alone, while running and at the next start. The gap ends
// where the mended rule decides again.
func TestBrokenRuleBreaksAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(worldRules + `
  - name: plain
    on: {table: visits, ops: [insert]}
    when: new.staff_id == 1
    to: {address: a@example.com}
    template: plain
`)
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p>{{.new.staff_id}}</p>{{end}}`)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('call', 1)`, `alter table visits drop column kind`, `insert into visits (staff_id) values (1)`)
	w.messages(d, 2)
	w.covered(d)
	open := func() []GapStatus {
		var gaps []GapStatus
		for _, g := range d.Status().Gaps {
			if g.Rule == "visit" && g.To == "" {
				gaps = append(gaps, g)
			}
		}
		return gaps
	}
	if gaps := open(); len(gaps) != 1 || !strings.HasSuffix(gaps[0].Mend, replayCommand(gaps[0].ID)) {
		t.Fatalf("gaps %+v", gaps)
	}
	w.stop(d)
	d = w.start()
	if s := d.Status(); len(s.Rules.Broken) != 1 || len(open()) != 1 {
		t.Errorf("after a restart: broken %+v, gaps %+v", s.Rules.Broken, s.Gaps)
	}
	w.sql(`alter table visits add column kind text default 'visit'`)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (staff_id) values (2)`)
	w.messages(d, 3)
	w.eventually("the gap ends", func() bool { return len(open()) == 0 }) // which is stored after the match is handed on
}

// A table that is dropped and made again leaves the publications without a word in the stream.
func TestTableMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	if err := d.look(t.Context()); err != nil || len(d.Status().Gaps) != 0 {
		t.Fatalf("what fits: %v, gaps %+v", err, d.Status().Gaps)
	}
	w.sql(`alter table visits rename to visits_old`, `create table visits (id int primary key, kind text not null, staff_id int, note text, price numeric(12,2))`,
		`insert into visits values (7, 'visit', 1)`)
	if err := d.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gaps := d.Status().Gaps; len(gaps) != 1 || gaps[0].Rule != "visit" || !gaps[0].Lost {
		t.Errorf("gaps %+v", gaps)
	}
	w.sql(`insert into visits values (8, 'visit', 2)`)
	if got := w.subjects(1); got[0] != "Visit 8 for 이서연" {
		t.Errorf("subjects %q", got)
	}
	// The application drops the key of a table whose updates are published: they must go on working.
	w.rules(strings.Replace(worldRules, "ops: [insert]", "ops: [insert, update]", 1))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`alter table visits drop constraint visits_pkey1`)
	if err := d.look(t.Context()); err != nil {
		t.Error(err)
	}
	w.sql(`update visits set note = 'x'`)
}

// A server that is asked to shut down waits for postman, which must let it: the positions of what it sent are confirmed, also
// those behind which there was nothing to store.
func TestPostgresShutsDown(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	w := newWorld(t)
	w.url = c.URL("postgres")
	w.config.DatabaseURL = Secret(w.url)
	w.sql(worldSchema, `create table unwatched (i int)`)
	w.start()
	for range 3 {
		w.sql(`insert into unwatched select generate_series(1, 100)`)
	}
	began := time.Now()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the server took %v to shut down and start", took)
	}
}

// A store that takes nothing any more must not keep the daemon from stopping.
func TestStopUnderAFailingStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (kind, staff_id, note) select 'visit', 1, repeat('x', 10000) from generate_series(1, 90)`,
		`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.eventually("trouble", func() bool { healthy, _ := d.health(t.Context()); return !healthy })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Stop(ctx) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it never stops")
	}
}

func TestPostgresRestartsInTheMiddle(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	w := newWorld(t)
	w.url = c.URL("postgres")
	w.config.DatabaseURL = Secret(w.url)
	w.sql(worldSchema)
	d := w.start()
	for i := range 3 {
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
		if i == 1 {
			c.Kill()
		}
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.messages(d, 3)
	if n := len(w.relay.Mails()); n != 3 {
		t.Errorf("%d mails; want 3", n)
	}
	w.eventually("healthy again", func() bool { healthy, _ := d.health(t.Context()); return healthy })
}

func TestRelayIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.relay.Close()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`, `insert into visits (kind, staff_id) values ('visit', 2)`)
	w.eventually("the relay is known to be away", func() bool { return d.dispatch.Status().State != dispatch.RelayUp })
	if err := w.relay.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.messages(d, 2) {
		if m.State != outbox.MessageSent || m.Attempts != 1 {
			t.Errorf("an outage burned attempts: %+v", m)
		}
	}
}

func TestSetupErrorsNameTheWayOut(t *testing.T) {
	t.Parallel()
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		c := pgtest.Own(t, map[string]string{"wal_level": "replica"})
		pgtest.Exec(t, c.URL("postgres"), worldSchema)
		w.config.DatabaseURL = Secret(c.URL("postgres"))
		if _, err := w.tryStart(); err == nil || !strings.Contains(err.Error(), "wal_level") || !strings.Contains(err.Error(), "logical") {
			t.Errorf("%v", err)
		}
	})
	t.Run("role without REPLICATION", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		role := "plain_" + w.config.Slot
		w.sql(fmt.Sprintf(`create role %s login`, role), fmt.Sprintf(`grant pg_read_all_data to %s`, role))
		w.config.DatabaseURL = Secret(w.url + "&user=" + role)
		if !strings.Contains(w.url, "?") {
			w.config.DatabaseURL = Secret(w.url + "?user=" + role)
		}
		if _, err := w.tryStart(); err == nil || !strings.Contains(strings.ToUpper(err.Error()), "REPLICATION") {
			t.Errorf("%v", err)
		}
	})
}

func TestHealthz(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.eventually("200", func() bool {
		r, err := http.Get("http://" + d.Addr().String() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode == http.StatusOK && strings.Contains(string(body), `"healthy":true`)
	})
	http.DefaultClient.CloseIdleConnections()
}
