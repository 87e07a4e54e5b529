package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"postman/daemon"
)

// agreed shows what an action would move, and asks. False: nothing is to be done. What an action is about that names single matches and messages is
// known to who gives it: that one asks nobody, and comes here for --dry-run alone.
func (a *actFlags) agreed(p *program, action string, sel *daemon.Selection) (bool, error) {
	if a.JSON && a.Yes && !a.DryRun {
		return true, nil
	}
	var view daemon.AffectedView
	text, err := p.ask(http.MethodPost, "/v1/outbox/"+action+"/affected", sel, &view)
	if err != nil {
		return false, err
	}
	messages, matches := view.Total()
	if a.JSON && a.DryRun {
		_, err := p.stdout.Write(text)
		return false, err
	}
	if view.Refused != "" && !a.DryRun {
		return false, usageError{errors.New(view.Refused)}
	}
	if err := a.tell(p, action, sel, &view); err != nil {
		return false, err
	}
	switch {
	case a.DryRun || messages+matches == 0:
		return false, nil
	case a.Yes:
		return true, nil
	case !p.asks(a.JSON):
		return false, usageError{errors.New("nothing was done: there is nobody to ask\n  → with --yes it is done without asking; with --dry-run it is only shown")}
	}
	return p.confirm(p.ctx, fmt.Sprintf("%s %s and %s", action, number(messages, "message", "messages"), number(matches, "match", "matches")))
}

// tell says, to people, what would be moved, and what of it cannot be.
func (a *actFlags) tell(p *program, action string, sel *daemon.Selection, v *daemon.AffectedView) (err error) {
	switch {
	case a.JSON:
		return nil
	case len(sel.Batches) > 0 && v.Refused == "":
		if err = announce(p, sel.Batches, action); err == nil && sel.Limit > 0 {
			_, matches := v.Total()
			_, err = fmt.Fprintf(p.stdout, "of these, the oldest %d\n", matches)
		}
	default:
		err = printAffected(p.stdout, v)
	}
	if err == nil && v.Refused != "" {
		_, err = fmt.Fprintf(p.stdout, "\nas it stands it would be refused, and nothing moved:\n%s\n", v.Refused)
	}
	return err
}

// printAffected prints what would be moved, by rule and state.
func printAffected(to io.Writer, v *daemon.AffectedView) error {
	if len(v.Messages)+len(v.Matches) == 0 {
		_, err := fmt.Fprintln(to, "nothing is in a state that this takes from")
		return err
	}
	var rows strings.Builder
	rows.WriteString("RULE\tSTATE\tMESSAGES\tMATCHES\n")
	for _, g := range v.Messages {
		fmt.Fprintf(&rows, "%s\t%s\t%d\t\n", g.Rule, g.State, g.Count)
	}
	for _, g := range v.Matches {
		fmt.Fprintf(&rows, "%s\t%s\t\t%d\n", g.Rule, g.State, g.Count)
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, rows.String()); err != nil {
		return err
	}
	return w.Flush()
}
