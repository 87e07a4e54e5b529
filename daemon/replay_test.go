package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
	"postman/position"
)

// replayed orders a replay, first its plan and then that it is carried out as planned.
func (w *world) replayed(d *Daemon, q ReplayRequest) (*ReplayPlan, *ReplayDone) {
	w.t.Helper()
	plan := w.planned(d, q)
	q.Resolved, q.Versions = []Moment{plan.From, plan.To}, plan.Versions
	result, err := w.tryReplay(d, q)
	if err != nil {
		w.t.Fatal(err)
	}
	return plan, result
}

func (w *world) tryReplay(d *Daemon, q ReplayRequest) (*ReplayDone, error) {
	w.t.Helper()
	p, done, err := d.replayer(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer done()
	return p.replay(w.t.Context(), q)
}

func (w *world) planned(d *Daemon, q ReplayRequest) *ReplayPlan {
	w.t.Helper()
	plan, err := w.tryPlan(d, q)
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

func (w *world) tryPlan(d *Daemon, q ReplayRequest) (*ReplayPlan, error) {
	w.t.Helper()
	p, done, err := d.replayer(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer done()
	return p.makePlan(w.t.Context(), q)
}

// origin is where the journal of a daemon begins.
func (w *world) origin(d *Daemon) string {
	w.t.Helper()
	span, err := d.store.JournalSpan(w.t.Context(), d.source.ID, d.source.Epoch)
	if err != nil {
		w.t.Fatal(err)
	}
	return span.Since.String()
}

// ruleOf is what a plan says of a rule.
func (p *ReplayPlan) of(rule string) ReplayRule {
	if i := slices.IndexFunc(p.Rules, func(r ReplayRule) bool { return r.Rule == rule }); i >= 0 {
		return p.Rules[i]
	}
	return ReplayRule{}
}

const callsRule = `
  - {name: call, about: Somebody called., on: {table: visits, ops: [insert]}, when: new.kind == "call", to: {query: select email from staff where id = @new.staff_id}, template: plain}
`

var plainTemplate = `{{define "subject"}}{{.rule}} {{.new.id}}{{end}}{{define "body"}}<p>x</p>{{end}}`

// TestReplayOfANewRule: a rule that was written later is tried on what was, and its mails are sent once, however often that is ordered.
func TestReplayOfANewRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.template("plain.html", plainTemplate)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1), ('call', 1), ('call', 2), ('call', 3)`)
	w.subjects(1)
	w.rules(worldRules + callsRule)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.covered(d)
	q := ReplayRequest{From: w.origin(d)}
	plan, done := w.replayed(d, q)
	call, visit := plan.of("call"), plan.of("visit")
	if call.Matches != 3 || call.Queue != 3 || len(call.Samples) != 3 || call.Hour.Matches != 3 || visit.Matches != 1 || visit.Queue != 0 || visit.Known["expanded"] != 1 || visit.Sent != 1 {
		t.Errorf("the plan says %+v and %+v", call, visit)
	}
	if who := plan.Recipients; who.Of != 3 || who.Asked != 3 || who.People != 2 || who.Mails != 2 || who.NoAddress != 1 || who.Biggest[0] != (BigAddress{"kim@example.com", 1}) {
		t.Errorf("the recipients are %+v", who)
	}
	if plan.Changes != 4 || plan.Transactions != 1 || plan.Queue != 3 || plan.From.LSN != q.From || time.Since(plan.From.Time) > time.Minute {
		t.Errorf("the plan is %+v", plan)
	}
	if done.Added != 3 {
		t.Errorf("the replay did %+v", done)
	}
	if got := w.subjects(3); fmt.Sprint(got) != "[Visit 1 for 김민준 call 2 call 3]" {
		t.Errorf("the mails are %q", got)
	}
	for _, m := range w.matches(d, 3, outbox.MatchExpanded) {
		if m.RuleName == "call" && m.Replay != done.Replay || m.RuleName == "visit" && m.Replay != 0 {
			t.Errorf("match %d of %s is of replay %d", m.ID, m.RuleName, m.Replay)
		}
	}
	again, done := w.replayed(d, q)
	if again.Queue != 0 || done.Added+done.Again+done.Resent != 0 {
		t.Errorf("the second time it did %+v, as %+v", done, again)
	}
}

// TestReplayRules: what keeps a rule from being replayed, or a match, is told: sensitive values, mutes, expiry, a shape that does not fit.
func TestReplayRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.template("plain.html", plainTemplate)
	w.template("noted.html", `{{define "subject"}}{{.rule}}{{end}}{{define "body"}}<p>{{.new.note}}</p>{{end}}`)
	w.rules(worldRules)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('soon', 1)`,
		`begin; select pg_logical_emit_message(true, 'postman.mute', 'a migration'); insert into visits (kind, staff_id) values ('soon', 1), ('soon', 2); commit`,
		`alter table visits rename column kind to sort`,
		`insert into visits (sort, staff_id) values ('soon', 1), ('soon', 1)`,
		`alter table visits rename column sort to kind`,
		`insert into visits (kind, staff_id) values ('soon', 1)`)
	w.covered(d)
	w.rules(`
sensitive: [visits.note]
rules:
  - {name: reads, on: {table: visits, ops: [insert]}, when: new.kind == "soon" and new.note == nil, to: {address: a@example.com}, template: plain}
  - {name: shows, on: {table: visits, ops: [insert]}, when: new.kind == "soon", to: {address: a@example.com}, template: noted}
  - {name: soon, on: {table: visits, ops: [insert]}, when: new.kind == "soon", to: {address: a@example.com}, template: plain}
  - {name: late, on: {table: visits, ops: [insert]}, when: new.kind == "soon", to: {address: a@example.com}, template: plain, expires: 1s}
`)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // what expires, expires by the clock
	q := ReplayRequest{From: w.origin(d)}
	plan := w.planned(d, q)
	for rule, what := range map[string]string{"reads": "it reads new.note,", "shows": "it reads new.note,"} {
		if got := plan.of(rule).Excluded; !strings.HasPrefix(got, what) {
			t.Errorf("of rule %s it says %q", rule, got)
		}
	}
	if r := plan.of("soon"); r.Queue != 2 || r.Muted != 2 || r.Unfit != 2 || !strings.Contains(r.Misfit, "kind") {
		t.Errorf("of soon it says %+v", r)
	}
	if r := plan.of("late"); r.Queue != 0 || r.Late != 2 || r.Muted != 2 {
		t.Errorf("of late it says %+v", r)
	}
	q.Muted = true
	plan, done := w.replayed(d, q)
	if r := plan.of("soon"); r.Queue != 4 || r.Muted != 0 || done.Added != 8 {
		t.Errorf("with what is muted it says %+v and does %+v", r, done)
	}
	w.matches(d, 4, outbox.MatchExpired)
	w.messages(d, 4)
	if !slices.ContainsFunc(plan.Notes, func(n string) bool { return strings.Contains(n, "not-sent") }) {
		t.Errorf("the notes are %q", plan.Notes)
	}
}

// TestReplayRanges, T15 of the acceptance list: a stretch is named by LSN or time, is told both ways, and is never clamped in silence.
func TestReplayRanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	var times []time.Time
	for i := range 3 {
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
		w.messages(d, i+1)
		times = append(times, time.Now())
		time.Sleep(20 * time.Millisecond)
	}
	_, commits := w.journal(d, 0, 0)
	found := func(from, to string) int {
		t.Helper()
		return w.planned(d, ReplayRequest{From: from, To: to}).of("visit").Matches
	}
	stamp := func(at time.Time) string { return at.Format(time.RFC3339Nano) }
	for _, c := range []struct {
		from, to string
		want     int
	}{
		{commits[0].String(), "", 3},
		{commits[1].String(), "", 2},
		{commits[1].String(), commits[1].String(), 1},
		{(commits[0] + 1).String(), (commits[2] - 1).String(), 1},
		{stamp(times[0]), "", 2},
		{stamp(times[0]), stamp(times[1]), 1},
		{stamp(times[2]), "", 0},
		{w.origin(d), stamp(times[1]), 2},
	} {
		if got := found(c.from, c.to); got != c.want {
			t.Errorf("from %s to %s there are %d; want %d", c.from, c.to, got, c.want)
		}
	}
	short := w.planned(d, ReplayRequest{From: "7d"})
	if short.of("visit").Matches != 3 || short.From.LSN != w.origin(d) || !slices.ContainsFunc(short.Notes, func(n string) bool { return strings.Contains(n, "all there is: it begins at "+w.origin(d)) }) {
		t.Errorf("of more than there is it takes %+v", short)
	}
	if _, err := w.tryPlan(d, ReplayRequest{From: "0/1", Rules: []string{"visit2"}}); err == nil || !strings.Contains(err.Error(), "did you mean visit") {
		t.Errorf("a misspelt rule is told as %v", err)
	}
	oldest := "the oldest that can be served: --from " + w.origin(d)
	for _, c := range []struct{ from, to, want string }{
		{"0/1", "", oldest},
		{"0/1", "7d", oldest},
		{"2020-01-01T00:00:00Z", "", oldest},
		{"FFFFFFFF/0", "", "ahead of all that is stored"},
		{commits[2].String(), commits[0].String(), "lies before --from"},
		{"", "", "--from"},
		{"2h30", "", "neither a time nor an LSN"},
		{"0/xyz", "", "not an LSN"},
		{"2100-01-01T00:00:00Z", "", "future"},
	} {
		_, err := w.tryPlan(d, ReplayRequest{From: c.from, To: c.to})
		if _, usage := err.(badRequest); err == nil || !usage || !strings.Contains(err.Error(), c.want) { //nolint:errorlint // the kind itself
			t.Errorf("from %s to %s gave %v; want %q", c.from, c.to, err, c.want)
		}
	}
	for rule, want := range map[string]string{"visit2": "did you mean visit", "zzz": "postman status"} {
		if _, err := w.tryPlan(d, ReplayRequest{From: w.origin(d), Rules: []string{rule}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", rule, err, want)
		}
	}
	planned := ReplayRequest{From: "7d", Resolved: []Moment{short.From, short.To}, Versions: short.Versions}
	if err := d.prune(t.Context(), time.Now().Add(365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tryReplay(d, planned); !wrongly(err) || !strings.Contains(err.Error(), "the oldest that can be served: --from "+(commits[2]+1).String()) {
		t.Errorf("what was pruned between its plan and its replay gave %v", err)
	}
	if orders, err := d.store.Replays(t.Context()); len(orders) > 0 || err != nil {
		t.Errorf("a replay was begun that cannot be as it was planned: %+v (%v)", orders, err)
	}
	if _, err := w.tryPlan(d, ReplayRequest{From: commits[2].String()}); err == nil || !strings.Contains(err.Error(), (commits[2]+1).String()) {
		t.Errorf("what is pruned gave %v", err)
	}
}

// TestResend: what was sent is sent once more under another Message-ID, with who and why; a replay that was broken off goes on and
// sends nothing twice.
func TestResend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	notes := new(notebook)
	w.also = notes
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1), ('visit', 2), ('visit', 1)`)
	w.subjects(3)
	w.messages(d, 3)
	q := ReplayRequest{From: w.origin(d), Resend: true, By: "kim"}
	defer func() {
		for _, what := range []string{"a replay begins", "a replay has ended"} {
			if n := notes.count(`msg="` + what + `" replay=1 by=kim`); n != 1 {
				t.Errorf("the log says %q %d times", what, n)
			}
		}
	}()
	if _, err := w.tryPlan(d, q); err == nil || !strings.Contains(err.Error(), "--why") {
		t.Errorf("without why: %v", err)
	}
	q.Why = "the relay lost them"
	// One of them was sent once more, and then the process died.
	p, _, err := d.replayer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, last, err := p.begin(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	order, err := p.order(t.Context(), first, last)
	if err != nil {
		t.Fatal(err)
	}
	one := w.matches(d, 3, outbox.MatchExpanded)[0]
	if _, err := d.store.Replay(t.Context(), outbox.ReplayBatch{Replay: order.ID, Source: d.source.ID, Epoch: 1, Resend: []int64{one.ID}}); err != nil {
		t.Fatal(err)
	}
	d.wake()
	w.subjects(4)
	w.messages(d, 4)

	q.To = last.lsn.String()
	q.Again = true
	if plan := w.planned(d, q); plan.GoesOn != 0 || !strings.Contains(strings.Join(plan.Notes, "\n"), goOnCommand(order.ID)) {
		t.Errorf("another order is taken for the one that was broken off, or nothing told of that: %+v", plan)
	}
	q.Again = false
	plan, done := w.replayed(d, ReplayRequest{GoOn: order.ID, By: "kim"}) // wherever the end of what is stored is by now
	if plan.Resend != 2 || plan.GoesOn != order.ID || done.Resent != 2 || done.Replay != order.ID || plan.Recipients.People != 2 {
		t.Errorf("it goes on with %+v, and did %+v", plan, done)
	}
	w.subjects(6)
	messages := w.messages(d, 6)
	ids := make(map[string]bool)
	for _, m := range messages {
		ids[m.MessageID] = true
		if (m.Resend == 1) != (m.Replay == order.ID) || m.State != outbox.MessageSent {
			t.Errorf("there is %+v", m)
		}
	}
	if len(ids) != 6 {
		t.Errorf("six mails have %d Message-IDs", len(ids))
	}
	orders, err := d.store.Replays(t.Context())
	if err != nil || len(orders) != 1 || orders[0].By != "kim" || orders[0].Why != q.Why || orders[0].Ended.IsZero() || orders[0].Resent != 3 {
		t.Errorf("the replays are %+v (%v)", orders, err)
	}
	for _, refused := range []ReplayRequest{{GoOn: order.ID}, {GoOn: 77}, {GoOn: order.ID, From: q.From}, {Gap: 77}, {Gap: 1, Rules: []string{"visit"}}} {
		if _, err := w.tryPlan(d, refused); !wrongly(err) {
			t.Errorf("%+v gave %v", refused, err)
		}
	}
	plan, done = w.replayed(d, q)
	if before := plan.Before; done.Resent != 0 || plan.Resend != 0 || len(before) != 1 || before[0].Replay != order.ID || before[0].Messages != 3 || before[0].Why != q.Why || before[0].By != "kim" {
		t.Errorf("ordered twice, it did %+v, as %+v", done, plan)
	}
	q.Again = true
	if plan, done := w.replayed(d, q); plan.Resend != 3 || len(plan.Before) != 0 || done.Resent != 3 || done.Replay == order.ID {
		t.Errorf("ordered yet again, it did %+v, as %+v", done, plan)
	}
	w.subjects(9)
	w.messages(d, 9)
	// A later order of the same rules is one of its own, and ends what was broken off.
	if order, err = p.order(t.Context(), first, last); err != nil { // without --again
		t.Fatal(err)
	}
	if plan, done := w.replayed(d, q); plan.GoesOn != 0 || done.Replay == order.ID {
		t.Errorf("ordered with --again, it went on with one without: %+v, %+v", plan, done)
	}
	orders, err = d.store.Replays(t.Context())
	if err != nil || slices.ContainsFunc(orders, func(o outbox.Replay) bool { return o.Ended.IsZero() }) || !orders[0].YetAgain {
		t.Errorf("the replays are %+v (%v)", orders, err)
	}
}

// TestReplayMendsGaps: the command that a gap names is one that works, makes up for it, and closes it.
func TestReplayMendsGaps(t *testing.T) {
	t.Parallel()
	const missed = `insert into visits (sort, staff_id) values ('visit', 2)`
	for name, notice := range map[string]func(w *world, d *Daemon){
		"the stream notices": func(w *world, d *Daemon) {
			w.sql(missed)
			w.eventually("the rule is broken", func() bool { return len(d.broken.list()) > 0 })
			w.looked(d)
		},
		"a look notices": func(w *world, d *Daemon) {
			w.looked(d)
			if len(d.broken.list()) == 0 {
				w.t.Error("the look has not found the rule broken")
			}
			w.sql(missed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mendsGap(t, notice)
		})
	}
}

// looked has the daemon look at the database, once.
func (w *world) looked(d *Daemon) {
	w.t.Helper()
	if err := d.look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// mendsGap has a rule broken, noticed somehow and mended. What it matched before the change is no part of the gap: the mended rule does not
// fit it, so that no replay could make up for a gap which had it in it.
func mendsGap(t *testing.T, notice func(*world, *Daemon)) {
	t.Helper()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1)
	w.sql(`alter table visits rename column kind to sort`)
	notice(w, d)
	w.rules(strings.ReplaceAll(worldRules, "new.kind", "new.sort"))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`insert into visits (sort, staff_id) values ('visit', 1)`)
	w.subjects(2)
	var gap GapStatus
	w.eventually("the gap has ended", func() bool {
		gaps := StoreStatus(t.Context(), d.store).Gaps
		if len(gaps) == 1 {
			gap = gaps[0]
		}
		return gap.To != ""
	})
	if gap.Mend != fmt.Sprintf("postman replay --gap %d", gap.ID) {
		t.Fatalf("the gap is mended by %q", gap.Mend)
	}
	plan, done := w.replayed(d, ReplayRequest{Gap: gap.ID})
	if fmt.Sprint(plan.Mends, done.Mended) != fmt.Sprintf("[%d] [%d]", gap.ID, gap.ID) || plan.Queue != 1 || done.Added != 1 || len(plan.Gaps) != 1 {
		t.Errorf("the plan is %+v, and done is %+v", plan, done)
	}
	w.subjects(3)
	if gap = StoreStatus(t.Context(), d.store).Gaps[0]; gap.Replay != done.Replay || gap.Mend != "" {
		t.Errorf("afterwards the gap is %+v", gap)
	}
}

// TestGapBeforeTheJournal: once the journal does not reach back to a gap, the status names no command that would be refused.
func TestGapBeforeTheJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	d := w.start()
	for i := range 3 {
		w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
		w.messages(d, i+1)
	}
	_, commits := w.journal(d, 0, 0)
	for _, g := range []outbox.Gap{
		{Rule: "visit", From: commits[0], To: commits[0], Reason: "before"},
		{Rule: "visit", From: commits[1], To: commits[2] + 1, Reason: "in part"},
		{From: commits[2] + 2, To: commits[2] + 2, Reason: "behind"},
	} {
		g.Source, g.Epoch, g.Count, g.Closed = d.source.ID, d.source.Epoch, 1, time.Now()
		if err := d.store.SaveGap(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	told := func() (lines []string) {
		for _, g := range StoreStatus(t.Context(), d.store).Gaps {
			lines = append(lines, fmt.Sprintf("%s %v %q %q", g.Reason, g.Lost, g.JournalFrom, g.Mend))
			if _, err := w.tryPlan(d, ReplayRequest{Gap: g.ID}); (err == nil) != (g.Mend != "") {
				t.Errorf("%q: %v", g.Mend, err)
			}
		}
		return lines
	}
	for _, line := range told() {
		if strings.Contains(line, "true") || strings.Contains(line, `""  ""`) {
			t.Errorf("at first: %s", line)
		}
	}
	if err := d.prune(t.Context(), time.Now().Add(365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	since := w.origin(d)
	want := []string{
		fmt.Sprintf(`before true %q ""`, since),
		fmt.Sprintf(`in part true %q "postman replay --gap 2"`, since),
		`behind false "" "postman replay --gap 3"`,
	}
	got := told()
	slices.SortFunc(got, func(a, b string) int { return slices.Index(want, a) - slices.Index(want, b) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestReplayTakesUpWhatFailed: a match on which the rule could not be tried is decided anew, by the version that is live.
func TestReplayTakesUpWhatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1)
	w.rules(worldRules + callsRule)
	w.template("plain.html", plainTemplate)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sql(`alter table staff rename to people`, `insert into visits (kind, staff_id) values ('call', 2)`)
	match := w.matches(d, 1, outbox.MatchFailed)[0]
	w.sql(`alter table people rename to staff`)
	plan, done := w.replayed(d, ReplayRequest{From: w.origin(d)})
	if r := plan.of("call"); r.Queue != 1 || r.Again != 1 || done.Again != 1 || done.Added != 0 {
		t.Errorf("the plan is %+v, and done is %+v", r, done)
	}
	w.subjects(2)
	if got := w.matches(d, 2, outbox.MatchExpanded)[1]; got.ID != match.ID || got.Replay != done.Replay {
		t.Errorf("there is %+v", got)
	}
}

func TestParseMoment(t *testing.T) {
	t.Parallel()
	seoul, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		text string
		zone *time.Location
		want string // an LSN, a time, or what the error says
	}{
		{"16/B374D848", seoul, "16/B374D848"},
		{"2026-11-22T14:00:00+09:00", berlin, "2026-11-22T05:00:00Z"},
		{"2026-11-22 14:00", seoul, "2026-11-22T05:00:00Z"},
		{"2026-11-22 14:00:30", seoul, "2026-11-22T05:00:30Z"},
		{"2026-11-22", seoul, "2026-11-21T15:00:00Z"},
		{"2h", seoul, "2026-11-22T10:00:00Z"},
		{"1h30m", seoul, "2026-11-22T10:30:00Z"},
		{"7d", seoul, "2026-11-15T12:00:00Z"},
		{"1w1d", seoul, "2026-11-14T12:00:00Z"},
		{"28d", berlin, "2026-10-25T12:00:00Z"},
		{"29d", berlin, "2026-10-24T11:00:00Z"}, // noon was at one then
		{"2026-03-29 02:30", berlin, "no time that clocks in Europe/Berlin have shown"},
		{"2026-11-22 23:00", seoul, "lies in the future"},
		{"0/0", seoul, "is not an LSN"},
		{"16/B374D848x", seoul, "is not an LSN"},
		{"100000000/1", seoul, "is not an LSN"},
		{"", seoul, "neither a time nor an LSN"},
		{"0h", seoul, "is no time ago"},
		{"h", seoul, "neither a time nor an LSN"},
		{"-2h", seoul, "neither a time nor an LSN"},
		{"2 h", seoul, "neither a time nor an LSN"},
		{"7d ago", seoul, "neither a time nor an LSN"},
		{"22.11.2026", seoul, "neither a time nor an LSN"},
	} {
		m, err := parseMoment(c.text, c.zone, now)
		got := m.lsn.String()
		switch {
		case err != nil:
			if got = c.want; !strings.Contains(err.Error(), c.want) {
				got = err.Error()
			}
		case m.lsn == 0:
			got = m.at.UTC().Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%q in %s is %s; want %s", c.text, c.zone, got, c.want)
		}
	}
}

func FuzzParseMoment(f *testing.F) {
	for _, text := range []string{"16/B374D848", "2026-11-22 14:00", "1w2d3h4m5s", "7d", "2026-11-22T14:00:00+09:00", "/", "9999w"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMoment(text, time.UTC, now)
		if err != nil {
			return
		}
		if (m.lsn == 0) == m.at.IsZero() && m.lsn != position.LSN(0) || m.at.After(now) {
			t.Errorf("%q is %+v", text, m)
		}
	})
}

// breaksOff is a store that fails once a replay has stored some of its steps.
type breaksOff struct {
	outbox.Store
	steps int
}

var errBrokenOff = errors.New("the disk is full")

func (b *breaksOff) Replay(ctx context.Context, batch outbox.ReplayBatch) (outbox.Replayed, error) {
	if b.steps--; b.steps < 0 {
		return outbox.Replayed{}, errBrokenOff
	}
	return b.Store.Replay(ctx, batch)
}

// TestReplayBrokenOff: however often a replay breaks off in the middle, each match comes once, and so does each message that is sent
// once more; in transactions of any size.
func TestReplayBrokenOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.template("plain.html", plainTemplate)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) select 'call', 1 from generate_series(1, 70)`,
		`insert into visits (kind, staff_id) select repeat(md5(g::text), 300), 1 from generate_series(1, 130) g`, // in several parts
		`insert into visits (kind, staff_id) select 'call', 1 from generate_series(1, 110)`)
	w.covered(d)
	w.rules(worldRules + `
  - {name: call, on: {table: visits, ops: [insert]}, to: {address: a@example.com}, template: plain, hold_over: {transaction: 1}}
`)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	const all = 310
	order := func(q ReplayRequest, steps int) (int, error) {
		p, done, err := d.replayer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		p.store, p.step = &breaksOff{d.store, steps}, 100
		result, err := p.replay(t.Context(), q)
		if err != nil {
			return 0, err
		}
		return result.Added + result.Resent, nil
	}
	q := ReplayRequest{From: w.origin(d), Rules: []string{"call"}}
	for range 2 {
		if _, err := order(q, 1); !errors.Is(err, errBrokenOff) {
			t.Fatalf("it did not break off: %v", err)
		}
	}
	if n, err := order(q, 100); err != nil || n == 0 || n >= all {
		t.Errorf("the rest was %d (%v)", n, err)
	}
	w.eventually("all messages", func() bool {
		counts, err := d.store.Count(t.Context())
		return err == nil && counts.Messages[outbox.MessageSent] == all && counts.Matches[outbox.MatchExpanded] == all
	})
	q.Resend, q.Why = true, "a test"
	if _, err := order(q, 1); !errors.Is(err, errBrokenOff) {
		t.Fatalf("it did not break off: %v", err)
	}
	if n, err := order(q, 100); err != nil || n == 0 || n >= all {
		t.Errorf("the rest of what is sent once more was %d (%v)", n, err)
	}
	w.eventually("all messages, twice", func() bool {
		counts, err := d.store.Count(t.Context())
		return err == nil && counts.Messages[outbox.MessageSent] == 2*all && counts.Matches[outbox.MatchExpanded] == all
	})
}

// TestReplayOutlivesItsRequest: what bounds how long a request may take to come does not end a replay; that its caller goes away does.
func TestReplayOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	wait, ended := time.Second, make(chan struct{})
	a := &api{replayer: func(ctx context.Context) (*replayer, func(), error) {
		select {
		case <-time.After(wait):
			return nil, nil, errors.New("in good time")
		case <-ctx.Done():
			close(ended)
			return nil, nil, context.Cause(ctx)
		}
	}}
	server := httptest.NewUnstartedServer(a.handler())
	server.Config.ReadTimeout = 500 * time.Millisecond // in which a busy machine reads a request
	server.Start()
	defer server.Close()
	response, err := server.Client().Post(server.URL+"/v1/replay/plan", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(text), "in good time") {
		t.Errorf("the answer is %s (%v)", text, err)
	}
	wait = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/replay/plan", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Client().Do(request); err == nil { //nolint:bodyclose // there is none
		t.Error("there was an answer")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it goes on for a caller that is gone")
	}
}

// wrongly says whether an error is the asker's.
func wrongly(err error) bool {
	_, bad := errors.AsType[badRequest](err)
	return bad
}
