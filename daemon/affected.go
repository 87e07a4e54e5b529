package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"postman/outbox"
)

// AffectedView is what an action would move, by rule and state.
type AffectedView struct {
	Messages []GroupView `json:"messages"`
	Matches  []GroupView `json:"matches"`
	// Refused is why the action would be refused as it stands, and move nothing of it: what is named and is in no state that it takes from. Empty: it
	// would not.
	Refused string `json:"refused,omitempty"`
}

// GroupView is how many of a rule stand in a state.
type GroupView struct {
	Rule  string `json:"rule"`
	State string `json:"state"`
	Count int    `json:"count"`
}

// Total is how many messages and matches it would move.
func (v *AffectedView) Total() (messages, matches int) {
	for _, g := range v.Messages {
		messages += g.Count
	}
	for _, g := range v.Matches {
		matches += g.Count
	}
	return messages, matches
}

// affected answers what an action would move, as it stands now. It changes nothing.
func (a *api) affected(w http.ResponseWriter, r *http.Request) {
	action, f, _, err := a.order(r)
	view := AffectedView{Messages: []GroupView{}, Matches: []GroupView{}}
	if err == nil {
		err = a.fits(r.Context(), action, &f)
		if refused, ok := errors.AsType[badRequest](err); ok {
			view.Refused, err = refused.what, nil
		}
	}
	for _, part := range parts(&f) {
		if err != nil {
			break
		}
		var found outbox.Affected
		found, err = a.store.Affected(r.Context(), action, part)
		for _, g := range found.Messages {
			view.Messages = append(view.Messages, GroupView{g.Rule, g.State.String(), g.Count})
		}
		for _, g := range found.Matches {
			view.Matches = append(view.Matches, GroupView{g.Rule, g.State.String(), g.Count})
		}
	}
	reply(w, view, err)
}

// order reads an action, and what it is about.
func (a *api) order(r *http.Request) (action outbox.Action, f outbox.Filter, reason string, err error) {
	action = outbox.Action(r.PathValue("action"))
	switch action {
	case outbox.Retry, outbox.Cancel, outbox.Release, outbox.Discard:
	default:
		return "", f, "", badRequest{"no such action: " + string(action)}
	}
	sel, f, err := selection(r)
	if err == nil && sel.empty() {
		err = badRequest{"nothing is selected: name ids, a rule, a state, an address, a time or an error"}
	}
	if err == nil {
		err = a.knownRule(r.Context(), sel.Rule)
	}
	if err == nil && f.Limit != 0 {
		err = someOnly(action, f.Limit, &sel)
	}
	if err == nil && len(f.Batches) > 0 {
		err = wholeBatches(action, sel)
	}
	return action, f, sel.Reason, err
}

// someOnly refuses a limit where nothing has an order by which some would be first, or all are named.
func someOnly(action outbox.Action, limit int, sel *Selection) error {
	switch {
	case limit < 0:
		return badRequest{"a limit is above zero"}
	case action != outbox.Release && action != outbox.Discard:
		return badRequest{fmt.Sprintf("a limit is for what is released or discarded, and not: %s", action)}
	case len(sel.Messages)+len(sel.Matches) > 0:
		return badRequest{"a limit is for batches and filters: of ids, all that are named are meant"}
	}
	return nil
}

// act moves what is selected.
func (a *api) act(w http.ResponseWriter, r *http.Request) {
	action, f, reason, err := a.order(r)
	if err == nil {
		err = a.fits(r.Context(), action, &f)
	}
	var moved outbox.Acted
	switch {
	case err != nil:
	case len(f.Batches) > 0 && f.Limit == 0:
		moved.Matches, err = a.actOnBatches(r.Context(), action, f.Batches, reason)
	default:
		moved, err = a.actOnAll(r.Context(), action, &f, reason)
	}
	if a.acted != nil && moved != (outbox.Acted{}) {
		a.acted()
	}
	reply(w, ActedView(moved), err)
}

// parts are a filter's: of messages and matches that are named, each is meant, while a filter selects what all of it holds for.
func parts(f *outbox.Filter) []outbox.Filter {
	if len(f.Messages) == 0 || len(f.Matches) == 0 {
		return []outbox.Filter{*f}
	}
	messages, matches := *f, *f
	messages.Matches, matches.Messages = nil, nil
	return []outbox.Filter{messages, matches}
}

// actOnAll moves what a filter selects.
func (a *api) actOnAll(ctx context.Context, action outbox.Action, f *outbox.Filter, reason string) (all outbox.Acted, err error) {
	for _, part := range parts(f) {
		moved, err := a.store.Act(ctx, action, part, reason, time.Now())
		all.Messages, all.Matches = all.Messages+moved.Messages, all.Matches+moved.Matches
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// sometime reads a time, or how long ago it was; nothing is no time.
func sometime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, wrong := parseTime(text, time.Local, time.Now())
	if wrong != "" {
		return at, badRequest{fmt.Sprintf("%q %s\n  → write how long ago (30m, 2h, 7d), or a time (2026-03-01, \"2026-03-01 09:00\", 2026-03-01T09:00:00+09:00)", text, wrong)}
	}
	return at, nil
}
