package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postman/dispatch"
	"postman/outbox"
)

// SuppressionView is an address that no mail goes to.
type SuppressionView struct {
	ID      int64        `json:"id"`
	Address string       `json:"address"`
	Cause   outbox.Cause `json:"cause"`
	Detail  string       `json:"detail,omitempty"`
	By      string       `json:"by,omitempty"` // absent: postman, on what it was told from outside
	Since   time.Time    `json:"since"`
}

// SuppressionsView is what `suppress list` prints.
type SuppressionsView struct {
	Suppressions []SuppressionView `json:"suppressions"`
}

// SuppressionQuery asks for suppressions. All that is given must hold.
type SuppressionQuery struct {
	Address string   `json:"address,omitempty"`
	Causes  []string `json:"causes,omitempty"`
	Before  int64    `json:"before,omitempty"`
	Limit   int      `json:"limit,omitempty"`
}

// SuppressionOrder asks that addresses be suppressed.
type SuppressionOrder struct {
	Addresses []SuppressedAddress `json:"addresses"`
	Import    bool                `json:"import,omitempty"` // they come from a list
	By        string              `json:"by"`
}

// SuppressedAddress is one of them, and why.
type SuppressedAddress struct {
	Address string `json:"address"`
	Detail  string `json:"detail,omitempty"`
}

// SuppressedView says what came of a SuppressionOrder.
type SuppressedView struct {
	Added   int              `json:"added"`
	Known   int              `json:"known"` // suppressed already
	Refused []RefusedAddress `json:"refused"`
}

// RefusedAddress is what is no address.
type RefusedAddress struct {
	Index int    `json:"index"` // in the order
	Line  int    `json:"line,omitempty"`
	Error string `json:"error"`
}

// LiftOrder asks that suppressions be lifted.
type LiftOrder struct {
	Addresses []string `json:"addresses"`
	By        string   `json:"by"`
	Why       string   `json:"why"`
}

// LiftedView says which were.
type LiftedView struct {
	Lifted []SuppressionView `json:"lifted"`
}

// mostOrdered bounds one order: a list comes in pieces.
const mostOrdered = 8 << 20

func (a *api) listSuppressions(w http.ResponseWriter, r *http.Request) {
	var q SuppressionQuery
	view := SuppressionsView{Suppressions: []SuppressionView{}}
	err := readJSON(r, &q, 1<<20, "which suppressions to list")
	f := outbox.SuppressionFilter{Before: q.Before, Limit: min(q.Limit, mostListed)}
	if f.Limit <= 0 {
		f.Limit = usualListed
	}
	if err == nil && q.Address != "" {
		f.Addresses = []string{wireAddress(q.Address)}
	}
	for _, name := range q.Causes {
		var c outbox.Cause
		if bad := c.UnmarshalText([]byte(name)); bad != nil && err == nil {
			err = badRequest{bad.Error()}
		}
		f.Causes = append(f.Causes, c)
	}
	if err == nil {
		var found []outbox.Suppression
		found, err = a.store.Suppressions(r.Context(), f)
		for i := range found {
			view.Suppressions = append(view.Suppressions, viewSuppression(&found[i]))
		}
	}
	reply(w, view, err)
}

func viewSuppression(p *outbox.Suppression) SuppressionView {
	return SuppressionView{ID: p.ID, Address: p.Address, Cause: p.Cause, Detail: p.Detail, By: p.By, Since: p.Since}
}

// readJSON reads what a command asks.
func readJSON(r *http.Request, to any, most int64, what string) error {
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, most)).Decode(to); err != nil {
		return badRequest{"reading " + what + ": " + err.Error()}
	}
	return nil
}

// wireAddress is an address as the outbox has it, or what was written where that is none.
func wireAddress(s string) string {
	if wire, err := dispatch.AddressOf(s); err == nil {
		return wire
	}
	return s
}

// suppress takes all that are addresses, and lists the others: one bad line of a list must not keep mail going to the rest of it.
func (a *api) suppress(w http.ResponseWriter, r *http.Request) {
	var q SuppressionOrder
	if err := readJSON(r, &q, mostOrdered, "what to suppress"); err != nil {
		reply(w, nil, err)
		return
	}
	view := SuppressedView{Refused: []RefusedAddress{}}
	cause, now := outbox.Manual, time.Now()
	if q.Import {
		cause = outbox.Imported
	}
	var list []outbox.Suppression
	for i, s := range q.Addresses {
		wire, err := dispatch.AddressOf(s.Address)
		if err != nil {
			view.Refused = append(view.Refused, RefusedAddress{Index: i, Error: err.Error()})
			continue
		}
		list = append(list, outbox.Suppression{Address: wire, Cause: cause, Detail: oneLine(s.Detail), By: q.By, Since: now})
	}
	var err error
	view.Added, err = a.store.Suppress(r.Context(), list)
	view.Known = len(list) - view.Added
	reply(w, view, err)
}

// oneLine is a text that people read in a row of a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// unsuppress lifts all that are named, or nothing where one of them is not suppressed.
func (a *api) unsuppress(w http.ResponseWriter, r *http.Request) {
	var q LiftOrder
	err := readJSON(r, &q, 1<<20, "which suppressions to lift")
	if err == nil && strings.TrimSpace(q.Why) == "" {
		err = badRequest{"say why, with --reason: it is kept with the address"}
	}
	view := LiftedView{Lifted: []SuppressionView{}}
	if err == nil {
		view.Lifted, err = a.lift(r.Context(), q)
	}
	reply(w, view, err)
}

func (a *api) lift(ctx context.Context, q LiftOrder) ([]SuppressionView, error) {
	lifted, wrong := []SuppressionView{}, []string(nil)
	for _, s := range q.Addresses {
		found, err := a.store.Suppressions(ctx, outbox.SuppressionFilter{Addresses: []string{wireAddress(s)}})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			wrong = append(wrong, s+" is not suppressed")
			continue
		}
		lifted = append(lifted, viewSuppression(&found[0]))
	}
	if len(wrong) > 0 {
		return nil, badRequest{strings.Join(wrong, "\n") + "\n  → nothing was changed; postman suppress list shows what is"}
	}
	for i := range lifted {
		err := a.store.Unsuppress(ctx, lifted[i].Address, q.By, oneLine(q.Why), time.Now())
		if err != nil && !errors.Is(err, outbox.ErrNotFound) { // named twice, or lifted by somebody else meanwhile
			return nil, err
		}
	}
	return lifted, nil
}

// wayOut is how a message is sent after all that cannot be retried; empty: that is all there is to say.
func wayOut(m *outbox.Message) string {
	if m.State != outbox.MessageSuppressed {
		return ""
	}
	at := m.Position.LSN
	return fmt.Sprintf("\n  → if mail may go there again: postman suppress remove %s --reason TEXT, and then postman replay --rule %s --from %s --to %s --resend --why TEXT",
		m.Address, m.RuleName, at, at)
}
