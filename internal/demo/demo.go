// Package demo shows postman at work on this machine alone: a throwaway Postgres with the example CRM, a relay that
// keeps what it gets, a page that shows it, and people who keep the CRM busy.
//
// What it promises: [Run] touches nothing outside of loopback and the directory for temporary files, takes no setting from
// the environment, and leaves neither process nor file behind. With Options.Once it plays a scenario instead, and is an
// error unless exactly the mails arrived that the scenario names.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Options say what to show and where.
type Options struct {
	// Once plays the scenario and ends.
	Once bool
	// Rules and Templates are paths. Empty: those of the checkout that is the working directory, or else of Example.
	Rules, Templates string
	// Example holds rules.yaml and templates, for where there is no checkout.
	Example fs.FS
	// Listen is the page's address, on loopback. Empty: port 8025, or any when that is taken.
	Listen string
	// Command is how this postman is called; empty: postman.
	Command string
	// LogLevel is that of the daemon's log on Stderr; by default warn.
	LogLevel string

	Stdout, Stderr io.Writer
	Getenv         func(string) string // for NO_COLOR and TERM; the demo heeds no other
}

// ErrScenario says that other mails arrived than the scenario names. The terminal has told which.
var ErrScenario = errors.New("the scenario did not bring exactly the mails that it should")

// Validate says what is wrong with the options, before anything is started.
func (o *Options) Validate() error {
	if o.Listen != "" && !loopback(o.Listen) {
		return fmt.Errorf("the inbox shows every mail to everybody: %q is no loopback address; one looks like %s", o.Listen, usualAddress)
	}
	for name, path := range map[string]string{"rules": o.Rules, "templates": o.Templates} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

var errInterrupted = errors.New("interrupted before the scenario came to its end")

// Run shows the demo until the context ends, or plays the scenario.
func Run(ctx context.Context, o Options) error {
	t := newTerminal(o.Stdout, o.Getenv)
	t.line("\n  %s  %s\n", t.paint(bold, "postman demo"), t.paint(dim, "committed rows become mails, on this machine alone"))
	err := run(ctx, o, t)
	switch {
	case ctx.Err() == nil:
		return err
	case o.Once:
		return errInterrupted
	}
	return nil // somebody has seen enough; what it broke off is no failure
}

func run(ctx context.Context, o Options, t *terminal) error {
	w, err := build(ctx, o, t)
	if err != nil {
		return err
	}
	defer w.close()
	t.heads(w)
	follow, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { w.follow(follow) })
	defer following.Wait()
	defer stop()
	if o.Once {
		return w.once(ctx)
	}
	return w.show(ctx)
}

// show has the CRM's people work until somebody has seen enough.
func (w *world) show(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- simulate(ctx, w.crm, w.term.cause) }()
	select {
	case err := <-ended:
		w.term.line("\n  %s", w.term.paint(dim, "stopping …"))
		return err
	case err := <-w.daemon.Failed():
		stop()
		return errors.Join(err, <-ended)
	}
}

// follow writes a line for each mail, and for each that postman decided not to send.
func (w *world) follow(ctx context.Context) {
	for seq := 0; ; {
		changed, next, err := w.inbox.after(ctx, seq)
		if err != nil {
			return
		}
		seq = next
		for _, e := range changed {
			if e.delivered() || !e.arrived() {
				w.term.entry(e)
			}
		}
	}
}
