package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/alecthomas/kong"

	"postman/bounce"
	"postman/daemon"
)

type bounceCmd struct {
	Recipient string `arg:"" optional:"" help:"The address that the mail came to, as the mail server's pipe knows it."`
	JSON      bool   `name:"json" help:"Print JSON (docs/cli.md)."`
}

// exitTryLater is EX_TEMPFAIL of sysexits.h: the mail server keeps the mail and tries again.
const exitTryLater = 75

// tryLater is what kept a report from being taken, whatever that is: for any other exit code mail servers throw the report away.
type tryLater struct{ error }

func (t tryLater) Unwrap() error { return t.error }

// bouncing says whether a mistake in a call is one of `postman bounce`.
func bouncing(err error) bool {
	call, ok := errors.AsType[*kong.ParseError](err)
	return ok && call.Context != nil && call.Context.Selected() != nil && call.Context.Selected().Name == "bounce"
}

// Run takes a mail that came back.
func (b *bounceCmd) Run(p *program) error {
	if err := b.take(p); err != nil {
		return tryLater{err}
	}
	return nil
}

func (b *bounceCmd) take(p *program) error {
	report, err := bounce.Read(os.Stdin)
	if err != nil {
		return err
	}
	report.Senders = append(b.recipients(), report.Senders...)
	var view daemon.BouncesView
	text, err := p.ask(http.MethodPost, "/v1/bounces", report, &view)
	if err != nil {
		return err
	}
	if b.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	return p.printBounces(&view)
}

// recipients are the addresses that the mail came to, as Postfix (local(8), pipe(8)) and Exim tell them in a pipe's environment.
func (b *bounceCmd) recipients() (all []string) {
	for _, a := range []string{b.Recipient, os.Getenv("ORIGINAL_RECIPIENT"), os.Getenv("RECIPIENT"), os.Getenv("LOCAL_PART") + "@" + os.Getenv("DOMAIN")} {
		if a != "" && a != "@" {
			all = append(all, a)
		}
	}
	return all
}

func (p *program) printBounces(view *daemon.BouncesView) error {
	if view.Ignored != "" {
		_, err := fmt.Fprintf(p.stdout, "nothing was changed: %s\n", view.Ignored)
		return err
	}
	for _, b := range view.Bounces {
		done := ""
		if b.Suppressed {
			done = ": the address is suppressed"
		}
		if b.Note != "" {
			done += ": " + b.Note
		}
		if _, err := fmt.Fprintf(p.stdout, "message %d, %s, %s (%s)%s\n", view.Message, firstOf(b.Address, "(nobody that it went to)"), b.Kind, b.Text, done); err != nil {
			return err
		}
	}
	return nil
}
