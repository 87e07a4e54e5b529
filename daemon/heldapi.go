package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"postman/outbox"
)

// HeldShowView is what `outbox show b7` prints.
type HeldShowView struct {
	Batch  HeldView     `json:"batch"`
	Sample []HeldSample `json:"sample"` // of what waits, newest first
	// Unchecked is why a release cannot check the rule's condition again; empty: it does.
	Unchecked string `json:"unchecked,omitempty"`
}

// mostSampled is how many mails of a batch are shown.
const mostSampled = 5

func (a *api) batches(ctx context.Context, rule string) ([]HeldView, error) {
	all, err := heldNow(ctx, a.store)
	return slices.DeleteFunc(all, func(v HeldView) bool { return rule != "" && v.Rule != rule }), err
}

func (a *api) showBatch(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		reply(w, nil, badRequest{"the id is no number"})
		return
	}
	b, err := a.batch(r.Context(), id)
	if err != nil {
		reply(w, nil, err)
		return
	}
	view := HeldShowView{Batch: viewHeld(&b), Sample: []HeldSample{}}
	if a.sampler != nil {
		view.Sample, view.Unchecked = a.sampler(r.Context(), &b)
	}
	reply(w, view, nil)
}

func (a *api) batch(ctx context.Context, id int64) (b outbox.HeldBatch, err error) {
	all, err := a.store.HeldBatches(ctx, id)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("there is no batch b%d: %w", id, outbox.ErrNotFound)
	}
	if err != nil {
		return b, err
	}
	return all[0], nil
}

// wholeBatches refuses what is no action on batches.
func wholeBatches(action outbox.Action, sel Selection) error {
	if sel.Batches = nil; !sel.empty() {
		return badRequest{"a batch is taken as a whole: what else is meant goes into a command of its own"}
	}
	if action != outbox.Release && action != outbox.Discard {
		return badRequest{fmt.Sprintf("what waits in a batch is released or discarded, and not: %s", action)}
	}
	return nil
}

// fitsBatches refuses an action on batches that are not there, or of which nothing waits any more, or that was ordered otherwise.
func (a *api) fitsBatches(ctx context.Context, action outbox.Action, ids []int64) error {
	for _, id := range ids {
		b, err := a.batch(ctx, id)
		switch {
		case err != nil:
			return err
		case b.Action != "" && (b.Held == 0 || b.Action != action):
			return badRequest{fmt.Sprintf("%s: %s was ordered at %s%s; nothing was changed", b.Name(), b.Action, stamp(b.Ordered), because(b.Reason))}
		case b.Held == 0:
			return badRequest{fmt.Sprintf("%s: nothing of it waits any more; nothing was changed", b.Name())}
		}
	}
	return nil
}

// actOnBatches releases or discards all that waits in batches. The order is durable: that its giver goes away does not take it back.
func (a *api) actOnBatches(ctx context.Context, action outbox.Action, ids []int64, reason string) (moved int, err error) {
	a.acting.Lock()
	defer a.acting.Unlock()
	for _, id := range ids {
		n, err := a.store.ActOnBatch(context.WithoutCancel(ctx), id, action, reason, time.Now())
		moved += n
		if errors.Is(err, outbox.ErrState) {
			err = badRequest{err.Error()}
		}
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// sampler makes some mails of a batch, and says why a release cannot check them again.
func (d *Daemon) sampler(ctx context.Context, b *outbox.HeldBatch) (samples []HeldSample, unchecked string) {
	if !d.ready.Load() {
		return []HeldSample{}, ""
	}
	samples = d.sampleOf(ctx, b, mostSampled)
	found, err := d.store.Matches(ctx, outbox.Filter{Batches: []int64{b.ID}, Limit: 1})
	if err == nil && len(found) > 0 {
		if rule, err := d.ruleOf(ctx, found[0]); err == nil {
			_, unchecked = rule.Rechecks(found[0].Op)
		}
	}
	return samples, unchecked
}
