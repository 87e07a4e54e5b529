package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"postman/outbox"
)

// missedCase is how a rule comes to miss a row, and how that is mended. In its SQL, T stands for the table.
type missedCase struct {
	make  []string // plainTable
	ops   string   // insert
	also  string   // the operations of another rule on the table, for which all of it is the same
	when  string   // new.kind == "a"
	row   string   // inserts a row that matches; plainRow
	alter []string
	miss  string   // a row that is missed
	mend  []string // empty: the rule is
	later []string // what happens when that is over
	on    string   // the rule's table after that; as before
	then  string   // the rule's condition after that; as before
	stays string   // why the gap stays; empty: its mail is queued
}

// missedCases are the ways in which a rule breaks and no change is lost for the stream. What follows is the documented repair.
var missedCases = map[string]missedCase{
	"table renamed": {
		alter: []string{"alter table T rename to T_old"}, miss: "insert into T_old (kind) values ('a')", mend: []string{"alter table T_old rename to T"},
	},
	"rule follows": {alter: []string{"alter table T rename to T_old"}, miss: "insert into T_old (kind) values ('a')", on: "T_old"},
	"schema moved": {
		alter: []string{"create schema T_s", "alter table T set schema T_s"}, miss: "insert into T_s.T (kind) values ('a')", mend: []string{"alter table T_s.T set schema public"},
	},
	"table replaced": {
		alter: []string{"alter table T rename to T_old"}, miss: "insert into T_old (kind) values ('a')", mend: []string{"alter table T_old rename to T"},
		later: append([]string{"drop table T"}, plainTable...), stays: "another one has its name now",
	},
	"rule on another table": {
		make: append([]string{"create table T_v2 (id int, kind text, n int)"}, plainTable...), alter: []string{"alter table T rename to T_old"},
		miss: "insert into T_old (kind) values ('a')", on: "T_v2", stays: "the rule was on the table T then, and is on T_v2 now",
	},
	"label renamed": {
		make: enumTable, row: kindRow, alter: []string{"alter type T_kind rename value 'a' to 'z'"}, miss: "insert into T (kind) values ('z')",
		mend: []string{"alter type T_kind rename value 'z' to 'a'"}, stays: `new.kind was "z", which is no label of T_kind now`,
	},
	"rule follows label": {
		make: enumTable, row: kindRow, alter: []string{"alter type T_kind rename value 'a' to 'z'"}, miss: "insert into T (kind) values ('z')", then: `new.kind == "z"`,
	},
	"label replaced": { // as a label is removed: by another type
		make: enumTable, row: kindRow, alter: []string{"alter table T rename to T_old"}, miss: "insert into T_old (kind) values ('a')", then: `new.kind == "z"`,
		mend: []string{
			"alter table T_old rename to T", "create type T_new as enum ('z', 'b')",
			"alter table T alter column kind drop default, alter column kind type T_new using replace(kind::text, 'a', 'z')::T_new",
		},
		stays: `new.kind was "a", which is no label of T_new now`,
	},
	"column renamed": {
		alter: []string{"alter table T rename column kind to sort"}, miss: "insert into T (sort) values ('a')",
		mend: []string{"alter table T rename column sort to kind"}, stays: "no column kind",
	},
	"rule follows column": {alter: []string{"alter table T rename column kind to sort"}, miss: "insert into T (sort) values ('a')", then: `new.sort == "a"`},
	"column dropped": {
		alter: []string{"alter table T drop column kind"}, miss: "insert into T (n) values (7)", mend: []string{"alter table T add column kind text"}, stays: "no column kind",
	},
	"type changed": {
		when: "new.n > 5", alter: []string{"alter table T alter column n type text"}, miss: plainRow,
		mend: []string{"alter table T alter column n type int using n::int"}, stays: "new.n is text",
	},
	"identity": {
		make: append(slices.Clone(plainTable), "alter table T replica identity full"), ops: "insert, update", when: `old.kind != new.kind or op == "insert"`,
		alter: []string{"alter table T replica identity default"}, miss: "update T set kind = 'b'", mend: []string{"alter table T replica identity full"}, stays: "old.kind",
	},
	"other operation": { // the delete came in a shape that the rule does not fit, and is none of its changes
		make: append(slices.Clone(plainTable), "alter table T replica identity full"), also: "delete",
		alter: []string{"alter table T rename to T_old"}, miss: "insert into T_old (kind) values ('a')",
		mend: []string{"alter table T_old rename column kind to sort", "delete from T_old where n = 7", "alter table T_old rename column sort to kind", "alter table T_old rename to T"},
	},
}

// TestGapsAreMadeUpForOrStay: once what broke a rule is mended, the command that the gap names either queues the mail that was missed, or
// says why the gap stays; the status then names the way out, which ends it for good.
func TestGapsAreMadeUpForOrStay(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"in one run": false, "with a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gapsAreMadeUpForOrStay(t, restarts)
		})
	}
}

func gapsAreMadeUpForOrStay(t *testing.T, restarts bool) {
	s := &schemaWorld{world: newWorld(t), rules: map[string]string{"mark": markRule}, restarts: restarts}
	s.config.Mode, s.blind = "dry-run", true
	s.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	tables := make(map[string]string)
	for i, name := range slices.Sorted(maps.Keys(missedCases)) {
		c, table := missedCases[name], fmt.Sprintf("t%d", i)
		tables[name] = table
		if c.make == nil {
			c.make = plainTable
		}
		for _, statement := range c.make {
			s.sql(s.fill(table, statement))
		}
		s.rules[table] = schemaRule(table, c.ops, c.when)
		if c.also != "" {
			s.rules[table+"_also"] = strings.Replace(schemaRule(table+"_also", c.also, "true"), "table: "+table+"_also", "table: "+table, 1)
		}
	}
	s.write()
	s.daemon = s.start()
	for _, name := range slices.Sorted(maps.Keys(missedCases)) {
		t.Run(name, func(t *testing.T) { s.missed(t, tables[name], missedCases[name]) })
	}
}

func (s *schemaWorld) missed(t *testing.T, table string, c missedCase) {
	r := &schemaRun{schemaWorld: s, t: t, name: table}
	if c.row == "" {
		c.row = plainRow
	}
	r.sql(c.row)
	r.matched(1, "before anything happens")
	r.look()
	r.sql(c.alter...)
	if s.restarts {
		r.look()
		s.stop(s.daemon)
		s.daemon = s.start()
	}
	r.sql(c.miss)
	r.mark(s.daemon)
	r.look()
	if brokenRule(s.daemon, table) == nil {
		t.Fatal("the rule is not broken")
	}
	if s.restarts {
		s.stop(s.daemon)
	}
	r.sql(c.mend...)
	if s.restarts {
		s.daemon = s.start()
	}
	if c.on != "" || c.then != "" {
		rule := schemaRule(table, c.ops, c.then)
		if c.on != "" {
			rule = strings.Replace(rule, "table: "+table, "table: "+r.fill(table, c.on), 1)
		}
		s.rules[table] = rule
		s.write()
		if err := s.daemon.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.look()
	r.mark(s.daemon)
	r.eventually("the rule decides again", func() bool { r.look(); return brokenRule(s.daemon, table) == nil && gapOf(s.daemon, table).To != "" })
	if len(c.later) > 0 {
		r.sql(c.later...)
		r.eventually("that is noticed, and over", func() bool { r.look(); return gapOf(s.daemon, table).Lost && brokenRule(s.daemon, table) == nil })
		r.accept(gapOf(s.daemon, table))
	}
	gap := r.mendable()
	if gap.Mend != replayCommand(gap.ID) {
		t.Fatalf("the gap is mended by %q", gap.Mend)
	}
	plan, done := s.replayed(s.daemon, ReplayRequest{Gap: gap.ID})
	if c.stays == "" {
		if plan.Queue != 1 || done.Added != 1 || fmt.Sprint(plan.Mends, done.Mended) != fmt.Sprintf("[%d] [%d]", gap.ID, gap.ID) || len(plan.Stays)+len(done.Stays) > 0 {
			t.Errorf("the plan is %+v, and done is %+v", plan, done)
		}
		if v := r.why(gap.From); len(v.Changes) == 0 || c.on == "" && len(c.mend) > 0 && !strings.Contains(strings.Join(v.Reasons, "\n"), "was called") {
			t.Errorf("of what was missed it says %+v", v)
		}
		if after := r.gap(gap.ID); after.Replay != done.Replay || after.Mend != "" {
			t.Errorf("afterwards the gap is %+v", after)
		}
		return
	}
	want := r.fill(table, c.stays)
	if len(plan.Mends)+len(done.Mended) > 0 || len(plan.Stays) != 1 || len(done.Stays) != 1 || plan.Stays[0] != done.Stays[0] || !strings.Contains(plan.Stays[0].Why, want) {
		t.Fatalf("the plan is %+v, and done is %+v; want that it stays: %s", plan, done, want)
	}
	after := r.gap(gap.ID)
	if after.Mend != gap.Mend || after.Stays != plan.Stays[0].Why || after.Accept != fmt.Sprintf("postman gaps accept %d --reason TEXT", gap.ID) {
		t.Errorf("afterwards the gap is %+v", after)
	}
	r.accept(after)
}

// why is what is told of the run's rule at an LSN.
func (r *schemaRun) why(lsn string) *WhyAtView {
	r.t.Helper()
	v, err := WhyAt(r.t.Context(), &r.config, WhyAtOptions{Rule: r.name, LSN: lsn})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// mendable is the gap of the run's rule that a replay may mend.
func (r *schemaRun) mendable() GapStatus {
	r.t.Helper()
	for _, g := range r.daemon.Status().Gaps {
		if g.Rule == r.name && !g.Lost && !g.Settled() {
			return g
		}
	}
	r.t.Fatal("there is no gap that can be mended")
	return GapStatus{}
}

func (r *schemaRun) gap(id int64) GapStatus {
	for _, g := range r.daemon.Status().Gaps {
		if g.ID == id {
			return g
		}
	}
	return GapStatus{}
}

func (r *schemaRun) accept(gap GapStatus) {
	r.t.Helper()
	a := &api{store: r.daemon.store}
	if _, err := a.accept(r.t.Context(), GapsAccepted{Gaps: []int64{gap.ID}, By: "kim"}); err == nil || !strings.Contains(err.Error(), "--reason") {
		r.t.Errorf("without a reason: %v", err)
	}
	q := GapsAccepted{Gaps: []int64{gap.ID}, By: "kim", Why: "mailed by hand"}
	if _, err := a.accept(r.t.Context(), q); err != nil {
		r.t.Fatal(err)
	}
	after := r.gap(gap.ID)
	if after.Accepted == nil || after.Accepted.By != "kim" || after.Accepted.Why != q.Why || after.Accepted.At.IsZero() || after.Accept != "" || after.Mend != "" {
		r.t.Errorf("accepted, the gap is %+v", after)
	}
	if _, err := a.accept(r.t.Context(), q); err == nil || !strings.Contains(err.Error(), "accepted by kim already") {
		r.t.Errorf("accepted twice: %v", err)
	}
}

// TestAcceptingGaps: what goes on is not accepted, and either all that is named or nothing.
func TestAcceptingGaps(t *testing.T) {
	t.Parallel()
	d := recording(t)
	for _, g := range []outbox.Gap{
		{Rule: "over", From: 1, To: 2, Reason: "it was broken"},
		{Rule: "broken", From: 1, Reason: brokenReason + "no column"},
		{From: 1, Reason: "the slot is gone", Lost: true},
	} {
		g.Source, g.Epoch = d.source.ID, d.source.Epoch
		if err := d.store.SaveGap(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	server := &api{store: d.store}
	for _, c := range []struct {
		gaps []int64
		want string
	}{
		{[]int64{1, 2}, "gap 2 goes on: rule broken is broken; mend the rule or the table first"},
		{[]int64{3}, "postman setup --accept-gap ends it"},
		{[]int64{1, 9}, "there is no gap 9"},
		{[]int64{1, 1}, ""},
	} {
		accepted, err := server.accept(context.WithoutCancel(t.Context()), GapsAccepted{Gaps: c.gaps, By: "kim", Why: "known"})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v; want %s", c.gaps, err, c.want)
		}
		if c.want == "" && len(accepted) != 1 {
			t.Errorf("%v: accepted are %+v", c.gaps, accepted)
		}
	}
}
