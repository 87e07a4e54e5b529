package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/dispatch"
	"postman/outbox"
	"postman/position"
	"postman/rules"
	"postman/value"
)

// HeldSample is a match that waits in a batch, and the mail that it would be if it were released now.
type HeldSample struct {
	Match     int64     `json:"match"`
	Position  string    `json:"position"`
	Committed time.Time `json:"committed"`
	Row       string    `json:"row,omitempty"`     // its primary key
	To        []string  `json:"to,omitempty"`      // addresses that mail can go to
	Subject   string    `json:"subject,omitempty"` // of the first mail
	Text      string    `json:"text,omitempty"`
	Note      string    `json:"note,omitempty"` // why there is no mail
}

// line is the sample in a few words.
func (s *HeldSample) line() string {
	to := "would go to " + strings.Join(s.To[:min(len(s.To), 3)], ", ")
	if more := len(s.To) - 3; more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	if len(s.To) == 0 {
		to = cmp.Or(s.Note, "would go to nobody")
	}
	return fmt.Sprintf("m%d%s %s", s.Match, space(s.Row), to)
}

func space(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// samplePatience bounds the look-ups for a sample: what is told of a storm must not wait for the database.
const samplePatience = 5 * time.Second

// sampleOf makes the mails of some that wait in a batch. What cannot be had says so in its place.
func (d *Daemon) sampleOf(ctx context.Context, b *outbox.HeldBatch, n int) []HeldSample {
	ctx, cancel := context.WithTimeout(ctx, samplePatience)
	defer cancel()
	found, err := d.store.Matches(ctx, outbox.Filter{Batches: []int64{b.ID}, MatchStates: []outbox.MatchState{outbox.MatchHeld}, Limit: n})
	if err != nil {
		return []HeldSample{{Note: err.Error()}}
	}
	samples := make([]HeldSample, len(found))
	for i := range found {
		m := &found[i]
		samples[i] = HeldSample{Match: m.ID, Position: m.Position.String(), Committed: m.Tx.Time}
		if err := d.rehearseSoon(ctx, m, &samples[i]); err != nil {
			samples[i].Note = err.Error()
		}
	}
	return samples
}

// rehearseSoon waits for a transaction that queries do not see yet.
func (d *Daemon) rehearseSoon(ctx context.Context, m *outbox.Match, s *HeldSample) error {
	for {
		err := d.rehearse(ctx, m, s)
		if !errors.Is(err, dispatch.ErrEarly) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rehearse makes the mail of a match as it would be now.
func (d *Daemon) rehearse(ctx context.Context, m *outbox.Match, s *HeldSample) error {
	rule, err := d.ruleOf(ctx, *m)
	if err != nil {
		return err
	}
	f, err := d.dispatch.Facts(ctx, m)
	if err != nil {
		return err
	}
	s.Row = d.rowOf(rule, f)
	options, err := d.dispatchOptions()
	if err != nil {
		return err
	}
	h, err := dispatch.NewRehearser(options)
	if err != nil {
		return err
	}
	h.HideSensitive = true
	made, err := h.Rehearse(ctx, rule, f, d.lookup)
	if err != nil {
		return err
	}
	s.Note = made.Reason
	for i := range made.Mails {
		mail := &made.Mails[i]
		switch {
		case mail.NoAddress != nil:
			s.Note = mail.NoAddress.Error()
		case mail.Err != nil:
			s.Note = mail.Err.Error()
		default:
			if s.To = append(s.To, mail.Address); len(s.To) == 1 {
				s.Subject, s.Text = mail.Subject, mail.Text
			}
		}
	}
	return nil
}

// rowOf names the row of a change by its primary key; empty: it has none, or it is sensitive.
func (d *Daemon) rowOf(rule *rules.Rule, f *rules.Facts) string {
	catalog := d.catalog.Load()
	if rule.On.Message != "" || catalog == nil || catalog.Tables[rule.On.Table] == nil {
		return ""
	}
	row := f.New
	if row == nil {
		row = f.Old
	}
	var parts []string
	for _, c := range catalog.Tables[rule.On.Table].Columns {
		v, ok := row.Field(c.Name)
		if !c.PK || !ok || v.State != value.Present || slices.Contains(rule.Sensitive, c.Name) {
			continue
		}
		parts = append(parts, c.Name+" "+string(v.Text))
	}
	return strings.Join(parts, ", ")
}

// noticeRule stands for postman's own mails where the store wants a rule. No rule of a file can be called so.
const noticeRule = "postman/held"

const noticeText = "A mail of postman's own: it tells operators what is held."

// mailHeld has operators get a mail of batches that none has told of.
func (d *Daemon) mailHeld(ctx context.Context, batches []outbox.HeldBatch, now time.Time) error {
	ids, err := d.store.RuleIDs(ctx, outbox.RuleName{Name: noticeRule})
	if err != nil {
		return err
	}
	at := position.LSN(now.UnixMicro())
	subject, text := d.heldMail(ctx, batches)
	message, err := d.dispatch.Notice(position.Position{LSN: at}, ids[0], d.config.NotifyOps, subject, text)
	if err != nil {
		return err
	}
	if err := d.warnOfSuppressed(ctx); err != nil {
		return err
	}
	err = d.store.TellBatches(ctx, batches, &outbox.Notice{
		Rule: ids[0], Text: []byte(noticeText), Tx: outbox.Tx{LSN: at, End: at, Time: now}, Silent: !d.config.Sends(), Message: message,
	})
	if err == nil {
		d.mailed = now
		d.dispatch.Wake()
	}
	return err
}

// warnOfSuppressed says that the operators' address gets no mail.
func (d *Daemon) warnOfSuppressed(ctx context.Context) error {
	found, err := d.store.Suppressions(ctx, outbox.SuppressionFilter{Addresses: []string{d.config.NotifyOps}})
	if err == nil && len(found) > 0 {
		d.report.warn(ctx, fmt.Errorf("notify_ops gets no mail: %s\n  → postman suppress remove %s", found[0].String(), d.config.NotifyOps), "", classHeld)
	}
	return err
}

// heldMail is what a mail to operators says.
func (d *Daemon) heldMail(ctx context.Context, batches []outbox.HeldBatch) (subject, text string) {
	all := 0
	for i := range batches {
		all += batches[i].Held
	}
	subject = fmt.Sprintf("postman holds %s of rule %s", counted(all, "mail", "mails"), batches[0].RuleName)
	if slices.ContainsFunc(batches, func(b outbox.HeldBatch) bool { return b.Rule != batches[0].Rule }) {
		subject = fmt.Sprintf("postman holds %s of several rules", counted(all, "mail", "mails"))
	}
	var w strings.Builder
	w.WriteString("Rules match far more than they should, and what is too much waits for you. Nothing of it is sent before somebody releases it; all else goes on.\n")
	for i := range batches {
		if i == mostMails {
			fmt.Fprintf(&w, "\nand %d more: postman outbox list\n", len(batches)-i)
			break
		}
		fmt.Fprintf(&w, "\n%s\n", d.heldText(ctx, &batches[i]))
	}
	return subject, w.String()
}
