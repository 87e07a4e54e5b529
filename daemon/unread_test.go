package daemon

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/cdc"
	"postman/internal/netfault"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
)

// unsound puts a network between the daemon and its database that changes what comes from it.
func (w *world) unsound(tamper func([]byte)) *netfault.Proxy {
	w.t.Helper()
	p, err := netfault.Start(w.url, tamper)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	w.config.DatabaseURL, w.config.LookupURL = Secret(p.URL), Secret(w.url)
	return p
}

// A change that cannot be read is put aside, with its bytes, and what comes around it is mailed about. Once it can be read, retrying it
// mails about it, too.
func TestUnreadChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(worldRules + "  - {name: other, on: {table: visits, ops: [insert, update]}, when: 'false', to: {address: a@example.com}, template: plain}\n" +
		"  - {name: staff, on: {table: staff, ops: [insert]}, to: {address: a@example.com}, template: plain}\n")
	w.template("plain.html", `{{define "subject"}}x{{end}}{{define "body"}}x{{end}}`)
	w.unsound(func(b []byte) {
		for at := bytes.Index(b, []byte("t\x00\x00\x00\x05visitt\x00\x00\x00\x012")); at >= 0; at = bytes.Index(b, []byte("t\x00\x00\x00\x05visitt\x00\x00\x00\x012")) {
			b[at] = 'q'
		}
	})
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1), ('visit', 2), ('visit', 1)`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 3)
	failed := w.matches(d, 2, outbox.MatchFailed)
	var rules []string
	for _, m := range failed {
		rules = append(rules, m.RuleName)
		if m.Position.Ordinal != 1 || !strings.Contains(m.Reason, "could not be read") || !bytes.Contains(m.Change, []byte("visitt")) {
			t.Errorf("%+v", m)
		}
	}
	if diff := cmp.Diff([]string{"visit", "other"}, rules); diff != "" {
		t.Error(diff)
	}
	if s := d.Status(); s.Stream.Unread != 1 || !s.Stream.Connected || len(s.Gaps) != 0 {
		t.Errorf("status %+v", s.Stream)
	}
	// As it is, it fails again.
	retry := func() {
		t.Helper()
		if _, err := d.store.Act(t.Context(), outbox.Retry, outbox.Filter{Matches: []int64{failed[0].ID}}, "", failed[0].Created); err != nil {
			t.Fatal(err)
		}
		d.dispatch.Wake()
	}
	retry()
	w.eventually("it fails again", func() bool {
		m, err := d.store.Matches(t.Context(), outbox.Filter{Matches: []int64{failed[0].ID}})
		return err == nil && m[0].State == outbox.MatchFailed && strings.Contains(m[0].Reason, "still cannot")
	})
}

// T12 of the acceptance list: a rule cannot be tried on one row, since a value of it does not parse. That is a failed match of that rule; the
// rule's other rows and the other rules' mails go out, and the slot moves on.
func TestRuleFailsOnARow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(worldRules + "  - {name: dear, on: {table: visits, ops: [insert]}, when: new.price > 5, to: {address: dear@example.com}, template: plain}\n")
	w.template("plain.html", plainTemplate)
	w.unsound(func(b []byte) {
		for at := bytes.Index(b, []byte("t\x00\x00\x00\x0513.13")); at >= 0; at = bytes.Index(b, []byte("t\x00\x00\x00\x0513.13")) {
			b[at+5] = 'x'
		}
	})
	d := w.start()
	_, before := w.retained()
	w.sql(`insert into visits (kind, staff_id, price) values ('visit', 1, 12.12), ('visit', 1, 13.13), ('visit', 1, 14.14)`, `insert into visits (kind, staff_id, price) values ('visit', 2, 15.15)`)
	w.messages(d, 6) // of visit, which prints the price, all but one; of dear likewise
	if diff := cmp.Diff([]string{"dear@example.com", "dear@example.com", "dear@example.com", "kim@example.com", "kim@example.com", "lee@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
	var failed []string
	for _, m := range w.matches(d, 2, outbox.MatchFailed) { // visit's when its mail was to be made
		failed = append(failed, fmt.Sprintf("%s %d", m.RuleName, m.Position.Ordinal))
		if !strings.Contains(m.Reason, "price: a value of 5 bytes is no numeric") {
			t.Errorf("it failed for %q", m.Reason)
		}
	}
	slices.Sort(failed)
	if diff := cmp.Diff([]string{"dear 1", "visit 1"}, failed); diff != "" {
		t.Error(diff)
	}
	w.covered(d)
	w.eventually("the slot moves", func() bool {
		_, now := w.retained()
		return now > before
	})
	if s := d.Status(); !s.Stream.Connected || s.Stream.Unread != 0 {
		t.Errorf("%+v", s.Stream)
	}
}

// A message of which nobody knows what it is puts the rest of its transaction aside, and is a gap of all rules.
func TestUnreadTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.unsound(func(b []byte) { // the length of a message's prefix and content follow its flags and LSN
		for at := bytes.Index(b, []byte("M\x01\x00\x00\x00\x00")); at >= 0; at = bytes.Index(b, []byte("M\x01\x00\x00\x00\x00")) {
			b[at] = '?'
		}
	})
	d := w.start()
	w.sql(`begin; insert into visits (kind, staff_id) values ('visit', 1); select pg_logical_emit_message(true, 'x', 'y');
		insert into visits (kind, staff_id) values ('visit', 2); commit`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.messages(d, 2)
	w.covered(d)
	if diff := cmp.Diff([]string{"kim@example.com", "kim@example.com"}, w.recipients()); diff != "" {
		t.Errorf("what comes behind the message has no place of its own: %s", diff)
	}
	s := d.Status()
	if len(s.Gaps) != 1 || s.Gaps[0].Rule != "" || s.Gaps[0].From != s.Gaps[0].To || s.Gaps[0].Count != 2 || !strings.Contains(s.Gaps[0].Mend, "postman replay --gap ") {
		t.Errorf("gaps %+v", s.Gaps)
	}
	if s.Stream.Unread != 2 || !s.Healthy {
		t.Errorf("%+v", s)
	}
}

// upgraded is a store as a postman sees it which knows the messages that came as ones of an unknown kind: in the journal they are truncates.
type upgraded struct {
	outbox.Store
	t *testing.T
}

func (u upgraded) Journal(ctx context.Context, q outbox.JournalQuery) ([]outbox.Piece, error) {
	page, err := u.Store.Journal(ctx, q)
	for i := range page {
		block, err := cdc.UnsealBlock(nil, page[i].Data)
		if err != nil {
			u.t.Error(err)
		}
		page[i].Data = cdc.SealBlock(bytes.ReplaceAll(block, []byte("?"+truncateOne), []byte("T"+truncateOne)))
	}
	return page, err
}

// truncateOne follows the kind of a Truncate message of one table, up to its OID.
const truncateOne = "\x00\x00\x00\x01\x00\x00\x00"

// TestUnreadIsReadLater: a truncate that the stream could not make out is a gap of all rules, as is what follows it. It stays as long as nobody
// can read it. A postman that can replays each change in its place, with the tables as they were then, mails about what was missed, once, and
// the gap is made up for. What was muted behind the truncate stays so, and where the bytes are not kept, the gap is lost.
func TestUnreadIsReadLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sql(`create table notes (id int primary key, text text)`)
	unreadRules := worldRules + "  - {name: emptied, on: {table: visits, ops: [truncate]}, to: {address: kim@example.com}, template: plain}\n" +
		"  - {name: note, on: {table: notes, ops: [insert]}, when: new.text == \"b\", to: {address: lee@example.com}, template: plain}\n"
	w.rules(unreadRules)
	w.template("plain.html", `{{define "subject"}}{{.rule}}{{end}}{{define "body"}}x{{end}}`)
	w.unsound(func(b []byte) {
		for at := bytes.Index(b, []byte("T"+truncateOne)); at >= 0; at = bytes.Index(b, []byte("T"+truncateOne)) {
			b[at] = '?'
		}
	})
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`) // the stream describes visits, and not again
	w.sql(`begin; insert into visits (kind, staff_id) values ('visit', 1); truncate visits; insert into visits (kind, staff_id) values ('visit', 2), ('call', 2);
		insert into notes values (1, 'a'), (2, 'b'); commit`)
	w.sql(`begin; truncate visits; insert into visits (kind, staff_id) values ('visit', 2); select pg_logical_emit_message(true, 'postman.mute', 'by hand'); commit`)
	w.sql(`insert into notes values (3, 'b')`)
	w.messages(d, 3)
	gaps := d.Status().Gaps
	if len(gaps) != 1 || gaps[0].Count != 8 || gaps[0].Lost || gaps[0].Mend != "once a version can read them: "+replayCommand(gaps[0].ID) {
		t.Fatalf("gaps %+v", gaps)
	}
	of := ReplayRequest{Gap: gaps[0].ID}
	if plan, done := w.replayed(d, of); plan.Queue+done.Added != 0 || len(done.Mended) != 0 || len(done.Stays) != 1 ||
		done.Stays[0].Why != `8 changes cannot be read yet: a message of the unknown kind '?'` {
		t.Errorf("as it is, the plan is %+v, and done is %+v", plan, done)
	}
	p, _, err := d.replayer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.store = upgraded{d.store, t}
	plan, err := p.makePlan(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	done, err := p.replay(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	muted := 0
	for i := range plan.Rules {
		muted += plan.Rules[i].Muted
	}
	if plan.Queue != 3 || muted != 2 || done.Added != 3 || !slices.Equal(done.Mended, []int64{gaps[0].ID}) || len(done.Stays) != 0 {
		t.Errorf("the plan is %+v, and done is %+v", plan, done)
	}
	w.messages(d, 6)
	if diff := cmp.Diff([]string{"kim@example.com", "kim@example.com", "kim@example.com", "lee@example.com", "lee@example.com", "lee@example.com"}, w.recipients()); diff != "" {
		t.Error(diff)
	}
	var places []string
	all, err := d.store.Matches(t.Context(), outbox.Filter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if from, err := position.ParseLSN(gaps[0].From); err == nil && m.Position.LSN == from {
			places = append(places, fmt.Sprintf("%d %s", m.Position.Ordinal, m.RuleName))
		}
	}
	slices.Sort(places)
	if diff := cmp.Diff([]string{"0 visit", "1 emptied", "2 visit", "5 note"}, places); diff != "" {
		t.Error(diff)
	}
	if again, err := p.replay(t.Context(), ReplayRequest{From: w.origin(d)}); err != nil || again.Added+again.Again != 0 {
		t.Errorf("replayed again: %+v, %v", again, err)
	}

	w.rules("sensitive: [staff.email]\n" + unreadRules)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`truncate visits`)
	w.eventually("it is lost, and trouble", func() bool {
		_, trouble := d.health(t.Context())
		return strings.Contains(strings.Join(trouble, "\n"), "is lost: "+unreadReason) &&
			slices.ContainsFunc(d.Status().Gaps, func(g GapStatus) bool {
				return g.Lost && g.Count == 1 && g.Accept != "" && strings.Contains(g.Reason, "their bytes are not kept")
			})
	})
}

// Transactions of an origin that is ignored make no matches, and are counted.
func TestIgnoredOrigins(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testIgnoredOrigins)
}

func testIgnoredOrigins(t *testing.T) {
	for name, c := range map[string]struct {
		ignore Origins // names without the prefix that keeps those of other tests apart
		want   map[string]int64
		to     []string
	}{
		"none":      {Origins{}, nil, []string{"kim@example.com", "kim@example.com", "lee@example.com"}},
		"one":       {Origins{Names: []string{"restore"}}, map[string]int64{"restore": 1}, []string{"kim@example.com", "lee@example.com"}},
		"any":       {Origins{Any: true}, map[string]int64{"restore": 1, "peer": 2}, []string{"lee@example.com"}},
		"of nobody": {Origins{Names: []string{"nobody"}}, nil, []string{"kim@example.com", "kim@example.com", "lee@example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.IgnoreOrigins.Any = c.ignore.Any
			for _, n := range c.ignore.Names {
				w.config.IgnoreOrigins.Names = append(w.config.IgnoreOrigins.Names, w.config.Slot+n)
			}
			d := w.start()
			w.from("restore", `begin; insert into visits (kind, staff_id) values ('visit', 1); savepoint s; insert into visits (kind) values ('call'); commit`)
			w.from("peer", `insert into visits (kind, staff_id) values ('visit', 1)`, `insert into visits (kind, staff_id) values ('call', 1)`)
			w.sql(`insert into visits (kind, staff_id) values ('visit', 2)`)
			w.messages(d, len(c.to))
			if diff := cmp.Diff(c.to, w.recipients()); diff != "" {
				t.Error(diff)
			}
			got := make(map[string]int64)
			for origin, n := range d.Status().Stream.Ignored {
				got[strings.TrimPrefix(origin, w.config.Slot)] = n
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A transaction of an ignored origin that the server sends while it is in progress tells of its origin as one that comes whole does: what was
// spilled of it goes, and nothing of it is in the journal.
func TestIgnoredOriginInProgress(t *testing.T) {
	t.Parallel()
	pgtest.Versions(t, testIgnoredOriginInProgress)
}

func testIgnoredOriginInProgress(t *testing.T) {
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.config.DatabaseURL = Secret(w.url + "&logical_decoding_work_mem=64kB")
	w.config.IgnoreOrigins.Names = []string{w.config.Slot + "restore"}
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    hold_over: {transaction: 5000, minute: 100000}", 1))
	d := w.start()
	const n = 300
	rows := fmt.Sprintf(`insert into visits (kind, staff_id, note) select 'visit', 99, repeat('x', 1000) from generate_series(1, %d);`, n)
	conn := pgtest.Connect(t, w.url)
	streamed := func() (times int) {
		t.Helper()
		w.eventually("the server's word", func() bool {
			w.sql(`insert into visits (kind) values ('other')`) // it tells of its statistics when it is done with something
			return conn.QueryRow(t.Context(), "select stream_txns from pg_stat_replication_slots where slot_name = $1", w.config.Slot).Scan(&times) == nil
		})
		return times
	}
	w.from("restore", `begin; `+rows+` savepoint s; `+rows+` rollback to s; `+rows+` commit`)
	w.from("peer", `begin; `+rows+` commit`)
	w.matches(d, n, outbox.MatchNobody)
	w.eventually("both were streamed in progress", func() bool { return streamed() >= 2 })
	if got := len(w.matches(d, n, outbox.MatchNobody)); got != n {
		t.Errorf("%d matches; want the %d of the other origin", got, n)
	}
	if diff := cmp.Diff(map[string]int64{w.config.Slot + "restore": 1}, d.Status().Stream.Ignored); diff != "" {
		t.Error(diff)
	}
	lines, _ := w.journal(d, 0, 0)
	visits := 0
	for _, line := range lines {
		if !strings.Contains(line, "other") {
			visits++
		}
	}
	if visits != n {
		t.Errorf("the journal has %d of them; want %d", visits, n)
	}
}

// from runs statements as what a replication origin has sent.
func (w *world) from(origin string, statements ...string) {
	w.t.Helper()
	origin = w.config.Slot + origin
	w.sql(fmt.Sprintf(`select pg_replication_origin_create('%s')`, origin))
	conn := pgtest.Connect(w.t, w.url)
	run := func(sql string, args ...any) {
		if _, err := conn.Exec(context.WithoutCancel(w.t.Context()), sql, args...); err != nil {
			w.t.Errorf("%s: %v", sql, err)
		}
	}
	run(`select pg_replication_origin_session_setup($1)`, origin)
	for _, s := range statements {
		run(s)
	}
	run(`select pg_replication_origin_session_reset()`)
	w.t.Cleanup(func() { run(`select pg_replication_origin_drop($1)`, origin) })
}

func TestConfigOrigins(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Origins{
		"ignore_origins: any":            {Any: true},
		"ignore_origins: [restore, any]": {Names: []string{"restore", "any"}},
		"ignore_origins: []":             {Names: []string{}},
		"slot: x":                        {},
	} {
		path := filepath.Join(t.TempDir(), "postman.yaml")
		write(t, path, text)
		c, err := LoadConfig(path, none)
		if diff := cmp.Diff(want, c.IgnoreOrigins); err != nil || diff != "" {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{"ignore_origins: restore", "ignore_origins: {a: b}", "ignore_origins: ['']", "ignore_origins: [[a]]"} {
		path := filepath.Join(t.TempDir(), "postman.yaml")
		write(t, path, text)
		if _, err := LoadConfig(path, none); err == nil || !strings.Contains(err.Error(), "or any") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
