package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"

	"postman/daemon"
)

type suppressCmd struct {
	List   suppressListCmd   `cmd:"" help:"List the addresses that no mail goes to, newest first."`
	Add    suppressAddCmd    `cmd:"" help:"Keep addresses from getting mail."`
	Remove suppressRemoveCmd `cmd:"" help:"Let mail go to addresses again."`
	Import suppressImportCmd `cmd:"" help:"Suppress the addresses of a list: one a line, or CSV."`
}

type suppressListCmd struct {
	Address string   `help:"Only this address." placeholder:"ADDRESS"`
	Cause   []string `help:"Only for these causes: hard bounce, soft bounces, complaint, manual, import." placeholder:"CAUSE"`
	Limit   int      `help:"How many at most." default:"50"`
	Before  int64    `help:"Only ids below this one, for paging."`
	JSON    bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run prints the list.
func (l *suppressListCmd) Run(p *program) error {
	q := daemon.SuppressionQuery{Address: l.Address, Causes: l.Cause, Limit: l.Limit, Before: l.Before}
	var view daemon.SuppressionsView
	text, err := p.ask(http.MethodPost, "/v1/suppressions/list", q, &view)
	if err != nil {
		return err
	}
	if l.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	return printSuppressions(p.stdout, view.Suppressions)
}

func printSuppressions(to io.Writer, list []daemon.SuppressionView) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(to, "nothing")
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSINCE\tADDRESS\tCAUSE\tBY\tDETAIL") //nolint:errcheck // Flush tells
	for _, s := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", s.ID, when(s.Since), s.Address, s.Cause, firstOf(s.By, "postman"), firstLine(s.Detail)) //nolint:errcheck // Flush tells
	}
	return w.Flush()
}

type suppressAddCmd struct {
	Addresses []string `arg:"" name:"address" help:"Addresses."`
	Reason    string   `help:"Why; it is kept with the addresses, and with the mails that do not go." placeholder:"TEXT"`
	JSON      bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run suppresses addresses.
func (a *suppressAddCmd) Run(p *program) error {
	order := daemon.SuppressionOrder{By: whoami()}
	for _, address := range a.Addresses {
		order.Addresses = append(order.Addresses, daemon.SuppressedAddress{Address: address, Detail: a.Reason})
	}
	var view daemon.SuppressedView
	text, err := p.ask(http.MethodPost, "/v1/suppressions", order, &view)
	if err != nil {
		return err
	}
	if err := p.printSuppressed(text, &view, a.JSON); err != nil || len(view.Refused) == 0 {
		return err
	}
	var wrong []string
	for _, r := range view.Refused {
		wrong = append(wrong, r.Error)
	}
	return usageError{fmt.Errorf("%s", strings.Join(wrong, "\n"))}
}

func (p *program) printSuppressed(text []byte, view *daemon.SuppressedView, asJSON bool) error {
	if !asJSON {
		text = fmt.Appendf(nil, "suppressed: %s; %d already were\n", number(view.Added, "address", "addresses"), view.Known)
	}
	_, err := p.stdout.Write(text)
	return err
}

type suppressRemoveCmd struct {
	Addresses []string `arg:"" name:"address" help:"Addresses."`
	Reason    string   `help:"Why, for whoever asks later; it is kept." placeholder:"TEXT"`
	JSON      bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run lifts suppressions: all that are named, or none.
func (a *suppressRemoveCmd) Run(p *program) error {
	var view daemon.LiftedView
	text, err := p.ask(http.MethodPost, "/v1/suppressions/lift", daemon.LiftOrder{Addresses: a.Addresses, By: whoami(), Why: a.Reason}, &view)
	if err != nil {
		return err
	}
	if !a.JSON {
		text = nil
		for _, s := range view.Lifted {
			text = fmt.Appendf(text, "mail may go to %s again; it was suppressed since %s: %s\n", s.Address, when(s.Since), s.Cause)
		}
	}
	_, err = p.stdout.Write(text)
	return err
}

type suppressImportCmd struct {
	File   string `arg:"" help:"The list; - for stdin."`
	Reason string `help:"Why, for addresses of which the list does not say it." placeholder:"TEXT"`
	JSON   bool   `name:"json" help:"Print JSON (docs/cli.md)."`
}

// onePiece is how many addresses go to the daemon at once: others' commands come in between.
const onePiece = 5000

// Run suppresses what a list has. Lines that are no addresses are told, and the rest is taken.
func (c *suppressImportCmd) Run(p *program) error {
	in := io.ReadCloser(os.Stdin)
	if c.File != "-" {
		var err error
		if in, err = os.Open(c.File); err != nil {
			return usageError{err}
		}
	}
	defer in.Close()
	entries, err := readAddresses(in)
	if err != nil {
		return usageError{fmt.Errorf("reading %s: %w", c.File, err)}
	}
	total := daemon.SuppressedView{Refused: []daemon.RefusedAddress{}}
	for from := 0; from < len(entries); from += onePiece {
		piece := entries[from:min(from+onePiece, len(entries))]
		if err := c.send(p, piece, from, &total); err != nil {
			return fmt.Errorf("%w\n  → the %d addresses before it are suppressed; the whole list may be imported again", err, total.Added+total.Known)
		}
	}
	return c.tell(p, &total)
}

func (c *suppressImportCmd) send(p *program, piece []entry, from int, total *daemon.SuppressedView) error {
	order := daemon.SuppressionOrder{Import: true, By: whoami()}
	for _, e := range piece {
		order.Addresses = append(order.Addresses, daemon.SuppressedAddress{Address: e.address, Detail: firstOf(e.detail, c.Reason)})
	}
	var view daemon.SuppressedView
	if _, err := p.ask(http.MethodPost, "/v1/suppressions", order, &view); err != nil {
		return err
	}
	total.Added, total.Known = total.Added+view.Added, total.Known+view.Known
	for _, r := range view.Refused {
		r.Line, r.Index = piece[r.Index].line, from+r.Index
		total.Refused = append(total.Refused, r)
	}
	return nil
}

// mostTold is how many bad lines are told one by one.
const mostTold = 20

func (c *suppressImportCmd) tell(p *program, total *daemon.SuppressedView) error {
	text, err := indented(total)
	if err != nil {
		return err
	}
	if err := p.printSuppressed(text, total, c.JSON); err != nil || len(total.Refused) == 0 {
		return err
	}
	var wrong []string
	for _, r := range total.Refused[:min(len(total.Refused), mostTold)] {
		wrong = append(wrong, fmt.Sprintf("%s:%d: %s", c.File, r.Line, r.Error))
	}
	if more := len(total.Refused) - len(wrong); more > 0 {
		wrong = append(wrong, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%s not taken:\n%s", number(len(total.Refused), "line of the list was", "lines of the list were"), strings.Join(wrong, "\n"))
}
