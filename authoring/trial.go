package authoring

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// trial is a test that is being run.
type trial struct {
	*stage
	rule    *rules.Rule
	table   *cdc.Table
	test    *rules.Test
	moments []time.Time
	report  *RuleReport
	result  *Result
	tx      *transaction // nil: the test's own values are all there is
	last    *happened    // nil: nothing yet, or the change could not be made
	at      int          // the step
}

// happened is the change that was made last.
type happened struct {
	tx    cdc.Tx
	trace *rules.Trace
	facts *rules.Facts
	given *rules.Given // nil: nothing
}

// rule runs a rule's tests.
func (s *stage) rule(ctx context.Context, r *rules.Rule, table *cdc.Table) (*RuleReport, error) {
	report := &RuleReport{Rule: r, Clauses: clausesOf(r, table)}
	for i := range r.Tests {
		t := &trial{stage: s, rule: r, table: table, test: &r.Tests[i], moments: r.Moments(&r.Tests[i], s.zone), report: report}
		t.result = &Result{Name: nameOf(t.test), Place: t.test.Place}
		started := time.Now()
		if err := t.run(ctx); err != nil {
			return nil, err
		}
		t.result.Took = time.Since(started)
		report.Tests = append(report.Tests, t.result)
	}
	return report, nil
}

// run plays the steps one after the other. Its error is the world's.
func (t *trial) run(ctx context.Context) (err error) {
	asks := t.asks()
	if asks && t.lab == nil {
		t.result.NotRun = "the rule's queries are asked of the database: run with --database, or give the answers, as in given: {to: [{email: kim@example.com}]}"
		return nil
	}
	if asks {
		if t.tx, err = t.lab.begin(ctx); err != nil {
			return err
		}
		defer func() {
			if ending := t.tx.rollback(ctx); err == nil {
				err = ending
			}
		}()
	}
	for t.at = range t.test.Steps {
		s := &t.test.Steps[t.at]
		if s.Op != "" {
			if err := t.change(ctx, s); err != nil || t.last == nil {
				return err
			}
		}
		if s.Expect.Mail() {
			if err := t.mails(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// asks says whether the mails of a step hang on answers of the database.
func (t *trial) asks() bool {
	var given *rules.Given
	for i := range t.test.Steps {
		s := &t.test.Steps[i]
		if s.Op != "" {
			given = s.Given
		}
		never := s.Match != nil && !*s.Match
		if s.Expect.Mail() && !never && given == nil && queries(t.rule) {
			return true
		}
	}
	return false
}

// queries says whether a rule asks the database anything.
func queries(r *rules.Rule) bool {
	asks := func(s rules.Recipients) bool { return s.Query != nil }
	return len(r.Load) > 0 || slices.ContainsFunc(r.To, asks) || slices.ContainsFunc(r.CC, asks)
}

// answersOf are the answers that a test gives, by query; to others there is no row. The rows for `to` and `cc` are those of all their
// queries.
func answersOf(r *rules.Rule, g *rules.Given) dispatch.Given {
	answers := make(dispatch.Given)
	if g == nil {
		return answers
	}
	recipients := func(of []rules.Recipients, given [][]rules.Cell) {
		for _, source := range of {
			if source.Query != nil && given != nil {
				answers[source.Query] = fields(given)
				given = [][]rules.Cell{}
			}
		}
	}
	recipients(r.To, g.To)
	recipients(r.CC, g.CC)
	for _, l := range r.Load {
		if rows, ok := g.Load[l.Name]; ok {
			answers[l.SQL] = fields(rows)
		}
	}
	return answers
}

// fail records what was not met.
func (t *trial) fail(f Failure) {
	if len(t.test.Steps) > 1 {
		f.Step = t.at + 1
	}
	t.result.Failures = append(t.result.Failures, f)
}

// failed records that something could not be found out.
func (t *trial) failed(at rules.Place, text, hint string) {
	t.fail(Failure{Place: at, Kind: "error", Text: text, Hint: hint})
}

func (t *trial) note(format string, args ...any) {
	t.result.Notes = append(t.result.Notes, fmt.Sprintf(format, args...))
}

// change makes the step's change and asks what the rule says of it. What could not be made is no last.
func (t *trial) change(ctx context.Context, s *rules.TestStep) error {
	t.last = nil
	change, mistakes := t.rule.TestChange(s)
	if len(mistakes) > 0 {
		return mistakes
	}
	if t.tx != nil && change.Op != cdc.Emit {
		real, err := t.tx.make(ctx, t.table, change.Op, t.written(s))
		if text, hint, ok := t.tx.refusal(err); ok {
			t.failed(s.Place, text, hint)
			return nil
		}
		if err != nil {
			return err
		}
		change = real
	}
	tx := cdc.Tx{Time: t.moments[t.at]}
	h := &happened{tx: tx, trace: t.rule.Explain(tx, change), given: s.Given}
	t.report.cover(h.trace)
	facts, err := rules.NewFacts(tx, change)
	if err != nil {
		t.failed(s.Place, err.Error(), "")
		return nil
	}
	h.facts, t.last = facts, h
	t.verdict(s, h.trace)
	t.hints(s, change, h)
	return nil
}

// written are the rows of a step, of which only the columns count that it names.
func (t *trial) written(s *rules.TestStep) (rows [2]value.Row) {
	now, then, _ := t.rule.TestRows(s) // which were read without a mistake
	for i, side := range []struct {
		cells  []rules.Cell
		datums []value.Datum
	}{{s.New, now}, {s.Old, then}} {
		for _, c := range side.cells {
			at := t.table.Column(c.Name)
			rows[i] = append(rows[i], value.Field{Column: t.table.Columns[at].Column, Datum: side.datums[at]})
		}
	}
	return rows
}

// verdict compares what the rule says with what is expected. Who expects a mail expects a match.
func (t *trial) verdict(s *rules.TestStep, trace *rules.Trace) {
	e := &s.Expect
	said := s.Match != nil || !e.None
	want := s.Match == nil && !e.None || s.Match != nil && *s.Match
	f := Failure{Place: s.Place, Kind: "match", Trace: trace}
	switch v := trace.Verdict; {
	case v.Err != nil:
		f.Text = "the rule cannot be tried: " + v.Err.Error()
	case v.Truth == rules.Undetermined:
		f.Text, f.Hint = "nobody can tell whether the rule matches: it hangs on "+v.Missing, "the stream does not carry that value"
	case said && want && v.Truth == rules.False:
		f.Text = "expected a match, and there is none"
	case said && !want && v.Truth == rules.True:
		f.Text = "expected no match, and there is one"
		if t.rule.When == nil {
			f.Hint = "the rule has no when: it matches every " + s.Op
		}
	default:
		return
	}
	t.fail(f)
}

// played is what became of a change's mails: those that go out, and why no other does.
type played struct {
	going  []dispatch.RehearsedMail
	none   string   // why there is none at all
	lost   []string // why others get none
	broken []string // whose mail cannot be made, which is told
	told   int      // failures before these mails were looked at
}

// mails makes the mails of the last change, as they would go out now.
func (t *trial) mails(ctx context.Context, s *rules.TestStep) error {
	h, p := t.last, &played{told: len(t.result.Failures)}
	deadline := t.rule.Deadline(h.tx.Time, t.zone)
	switch {
	case h.trace.Verdict.Truth != rules.True && s.Op != "" && !s.Expect.None:
		return nil // which was told
	case h.trace.Verdict.Truth != rules.True:
		p.none = "the rule does not match the change"
	case !deadline.IsZero() && !t.moments[t.at].Before(deadline):
		p.none = "it has expired: the rule's expires ended at " + deadline.In(t.moments[t.at].Location()).Format(time.RFC3339)
	default:
		made, err := t.rehearse(ctx, h)
		if err != nil {
			return err
		}
		if made == nil {
			return nil
		}
		t.sort(s, p, made)
	}
	t.compare(s, p)
	return nil
}

// rehearse returns nil where the match would fail, which is recorded.
func (t *trial) rehearse(ctx context.Context, h *happened) (*dispatch.Rehearsed, error) {
	var made *dispatch.Rehearsed
	var failure error
	ask := func(from dispatch.Asker) error {
		made, failure = t.rehearser.Rehearse(ctx, t.rule, h.facts, from)
		return ctx.Err()
	}
	var err error
	asks := t.tx != nil && h.given == nil
	t.result.Asked = t.result.Asked || asks && queries(t.rule)
	t.result.Given = t.result.Given || !asks && queries(t.rule)
	if asks {
		err = t.tx.readOnly(ctx, func() error { return ask(dispatch.InTransaction{Conn: t.tx.conn.PgConn()}) })
	} else {
		err = ask(answersOf(t.rule, h.given))
	}
	if err != nil {
		return nil, err
	}
	if failure != nil {
		t.failed(t.test.Steps[t.at].Expect.Place, failure.Error(), t.lacking(failure))
		return nil, nil
	}
	return made, nil
}

// sort takes apart who gets a mail, and who gets none.
func (t *trial) sort(s *rules.TestStep, p *played, made *dispatch.Rehearsed) {
	if made.State != outbox.MatchExpanded {
		p.none = map[outbox.MatchState]string{outbox.MatchNobody: "nobody: ", outbox.MatchHeld: "held for an operator: "}[made.State] + made.Reason
	}
	for _, m := range made.Mails {
		switch {
		case m.NoAddress != nil:
			p.lost = append(p.lost, m.NoAddress.Error())
		case m.Err != nil:
			p.broken = append(p.broken, m.Address)
			t.failed(s.Expect.Place, fmt.Sprintf("the mail to %s cannot be made: %v", m.Address, m.Err), t.lacking(m.Err))
		default:
			p.going = append(p.going, m)
		}
	}
	for _, c := range made.Copies {
		p.lost = append(p.lost, c.Reason)
	}
	if len(p.going) == 0 && p.none == "" {
		p.none = strings.Join(p.lost, "; ")
	}
}
