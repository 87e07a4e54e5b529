package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// What people are told of what is held, and when.
const (
	heldEvery = time.Minute      // how often what is held is looked at when nothing comes
	mailEvery = 10 * time.Minute // at least, between two mails to operators: a storm of batches is one mail
	grownALot = 10               // times what was told
	mostMails = 20               // batches that one mail tells of one by one
)

// heldMore has what is held be looked at. It never waits.
func (d *Daemon) heldMore() {
	select {
	case d.held <- struct{}{}:
	default:
	}
}

// keepHeld goes on with what was ordered, discards what has expired, and tells people of what begins, grows and ends.
func (d *Daemon) keepHeld(ctx context.Context) {
	tick := time.NewTicker(heldEvery)
	defer tick.Stop()
	for {
		err := d.lookAtHeld(ctx, time.Now())
		if ctx.Err() != nil {
			return
		}
		d.setTrouble("held matches", err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.held:
		}
	}
}

func (d *Daemon) lookAtHeld(ctx context.Context, now time.Time) error {
	batches, err := d.store.HeldBatches(ctx)
	if err != nil {
		return err
	}
	var errs []error
	waiting := batches[:0]
	for _, b := range batches {
		acted, err := d.carryOut(ctx, &b, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.Name(), err))
		}
		if !acted {
			waiting = append(waiting, b)
		}
	}
	return errors.Join(append(errs, d.tellHeld(ctx, waiting, now), d.expireSingle(ctx, now))...)
}

// expireSingle discards what is held by itself, in no batch, and was released by nobody for as long as a batch has. People are told before: if the process
// dies between, they are told twice.
func (d *Daemon) expireSingle(ctx context.Context, now time.Time) error {
	keep := time.Duration(d.config.HoldExpires)
	if keep <= 0 {
		return nil
	}
	d.acting.Lock()
	defer d.acting.Unlock()
	why := "its hold expired after " + spanning(keep)
	for _, f := range []outbox.Filter{{Apart: true, MatchStates: []outbox.MatchState{outbox.MatchHeld}}, {MessageStates: []outbox.MessageState{outbox.MessageHeld}}} {
		f.Due = now.Add(-keep)
		found, err := d.store.Affected(ctx, outbox.Discard, f)
		for _, g := range found.Matches {
			d.tellExpired(ctx, g.Rule, counted(g.Count, "match", "matches"))
		}
		for _, g := range found.Messages {
			d.tellExpired(ctx, g.Rule, counted(g.Count, "message", "messages"))
		}
		if err == nil && len(found.Matches)+len(found.Messages) > 0 {
			_, err = d.store.Act(ctx, outbox.Discard, f, why, now)
		}
		if err != nil {
			return fmt.Errorf("discarding what was held: %w", err)
		}
	}
	return nil
}

func (d *Daemon) tellExpired(ctx context.Context, rule, what string) {
	d.report.warn(ctx, fmt.Errorf("%s of rule %s held one by one: nobody released them, and they are discarded\n  → postman outbox list --rule %[2]s --state discarded tells which they were", what, rule), rule, classHeld)
}

// carryOut goes on with an order that the last process did not finish, and gives one where the time is up; false: the batch waits for one. That the time is
// up is told before: if the process dies between, it is told twice.
func (d *Daemon) carryOut(ctx context.Context, b *outbox.HeldBatch, now time.Time) (acted bool, err error) {
	action, why := b.Action, b.Reason
	expired := action == "" && b.Held > 0 && !b.Expires.IsZero() && !now.Before(b.Expires)
	if expired {
		action, why = outbox.Discard, "its hold expired after "+spanning(b.Expires.Sub(b.Created).Round(time.Second))
	}
	if action == "" {
		return false, nil
	}
	if expired {
		d.report.warn(ctx, fmt.Errorf("%s of rule %s: nobody released it, and it is discarded: %s\n  → postman outbox list --batch %[1]s tells which they were", b.Name(), b.RuleName, counted(b.Held, "match", "matches")), b.RuleName, classHeld)
	}
	d.acting.Lock()
	moved, err := d.store.ActOnBatch(ctx, b.ID, action, why, now)
	d.acting.Unlock()
	if err != nil || moved == 0 { // or somebody else has just moved it all
		return true, err
	}
	d.wake()
	if !expired {
		d.log.Info("went on with what was ordered before", "batch", b.Name(), "action", action, "matches", moved)
	}
	return true, nil
}

// classHeld is the class of reports of what is held.
const classHeld = "held"

// tellHeld tells people of batches that are new to them, have grown a lot, or have calmed down. The report comes before it is noted that it did: if
// the process dies between, people are told twice.
func (d *Daemon) tellHeld(ctx context.Context, batches []outbox.HeldBatch, now time.Time) error {
	var told, mailed []outbox.HeldBatch
	for i := range batches {
		b := &batches[i]
		calm := b.Cause == outbox.HeldTransaction || now.Sub(b.Last) > calmAfter(b.Cause)
		over := calm && b.Held == 0
		if over {
			b.Finished = now
		}
		if b.Told == 0 || b.Total >= grownALot*b.Told || calm && b.Total > b.Told {
			d.report.warn(ctx, errors.New(d.heldText(ctx, b)), b.RuleName, classHeld)
			told = append(told, *b)
		} else if over {
			told = append(told, *b)
		}
		if b.Mailed.IsZero() && b.Held > 0 {
			mailed = append(mailed, *b)
		}
		d.mailed = later(d.mailed, b.Mailed)
	}
	if len(told) > 0 {
		if err := d.store.TellBatches(ctx, told, nil); err != nil {
			return err
		}
	}
	if d.config.NotifyOps == "" || len(mailed) == 0 || now.Sub(d.mailed) < mailEvery {
		return nil
	}
	return d.mailHeld(ctx, mailed, now)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// calmAfter is how long nothing must have come to a batch of a cause for it to have calmed down.
func calmAfter(c outbox.HoldCause) time.Duration {
	if c == outbox.HeldRow {
		return rowSpan
	}
	return time.Minute
}

// heldText tells of a batch, with the steps out.
func (d *Daemon) heldText(ctx context.Context, b *outbox.HeldBatch) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s of rule %s held as %s: %s\n  %s", counted(b.Held, "match", "matches"), b.RuleName, b.Name(), b.Why, heldSince(b))
	for _, s := range d.sampleOf(ctx, b, 3) {
		fmt.Fprintf(&w, "\n  for example %s", s.line())
	}
	fmt.Fprintf(&w, "\n  → look: postman outbox show %s\n  → then postman outbox release %[1]s, or postman outbox discard %[1]s --reason WHY", b.Name())
	if !b.Expires.IsZero() {
		fmt.Fprintf(&w, "; it is discarded at %s if nobody does", stamp(b.Expires))
	}
	return w.String()
}

// heldSince says where a batch begins.
func heldSince(b *outbox.HeldBatch) string {
	at := fmt.Sprintf("transaction %d at %s, committed %s", b.Tx.XID, b.Tx.LSN, stamp(b.Tx.Time))
	if b.Cause == outbox.HeldTransaction {
		return "all of " + at
	}
	return "from " + at
}

// HeldView is what hold_over holds of a rule as one thing.
type HeldView struct {
	ID        int64            `json:"id"`
	Rule      string           `json:"rule"`
	Cause     outbox.HoldCause `json:"cause"` // transaction, minute or row
	Why       string           `json:"why"`
	Held      int              `json:"held"`  // matches that wait
	Total     int              `json:"total"` // that it took in
	LSN       string           `json:"lsn"`   // of the transaction that it began with
	XID       uint32           `json:"xid"`
	Committed time.Time        `json:"committed"`
	Last      time.Time        `json:"last"` // when the latest was committed that it took something of
	Since     time.Time        `json:"since"`
	Expires   time.Time        `json:"expires,omitzero"`
	Action    outbox.Action    `json:"action,omitempty"` // that was ordered
	Reason    string           `json:"reason,omitempty"` // of the action
	Ordered   time.Time        `json:"ordered,omitzero"`
}

// Name is how commands call it.
func (v *HeldView) Name() string { return fmt.Sprintf("b%d", v.ID) }

func viewHeld(b *outbox.HeldBatch) HeldView {
	return HeldView{
		ID: b.ID, Rule: b.RuleName, Cause: b.Cause, Why: b.Why, Held: b.Held, Total: b.Total, LSN: b.Tx.LSN.String(), XID: b.Tx.XID, Committed: b.Tx.Time,
		Last: b.Last, Since: b.Created, Expires: b.Expires, Action: b.Action, Reason: b.Reason, Ordered: b.Ordered,
	}
}

// heldNow are the batches in which something waits, newest first.
func heldNow(ctx context.Context, store outbox.Store) ([]HeldView, error) {
	batches, err := store.HeldBatches(ctx)
	views := []HeldView{}
	for i := range batches {
		if batches[i].Held > 0 {
			views = append(views, viewHeld(&batches[i]))
		}
	}
	return views, err
}

// heldTrouble tells of what waits for an operator.
func heldTrouble(all []HeldView) (trouble []string) {
	all = slices.DeleteFunc(all, func(v HeldView) bool { return v.Action != "" })
	for i := range all {
		if i == mostNamed {
			return append(trouble, fmt.Sprintf("so it is of %d more: postman outbox list", len(all)-i))
		}
		v := &all[i]
		trouble = append(trouble, fmt.Sprintf("%s: %s of rule %s %s held: %s\n  → postman outbox show %[1]s, then release or discard it", v.Name(), counted(v.Held, "match", "matches"), v.Rule, isAre(v.Held), v.Why))
	}
	return trouble
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
