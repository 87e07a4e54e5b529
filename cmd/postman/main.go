// Command postman turns committed changes of a Postgres database into e-mail.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	_ "time/tzdata" // recipients' time zones, wherever the binary runs

	"github.com/alecthomas/kong"

	"postman/daemon"
)

// Exit codes: 0 clean, 1 failed while running, 2 usage or configuration. `postman bounce` has its own.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// cli is the command line.
type cli struct {
	flags

	Run      runCmd      `cmd:"" help:"Stream changes, decide, send. Stops on SIGTERM, reloads on SIGHUP."`
	Check    checkCmd    `cmd:"" help:"Check rules, queries and templates before they are live. Changes nothing."`
	Test     testCmd     `cmd:"" help:"Run the tests beside the rules. Sends and stores nothing."`
	New      newCmd      `cmd:"" help:"Write a first rule, its template and its tests, to be edited."`
	Schema   schemaCmd   `cmd:"" help:"Write the tables as rules see them, or what editors complete rules with."`
	Setup    setupCmd    `cmd:"" help:"Make publications and slot, accept a gap, arm live sending."`
	Status   statusCmd   `cmd:"" help:"Show how stream, rules, outbox and relay do."`
	Doctor   doctorCmd   `cmd:"" help:"Look at all that mail needs on its way, and say what to do."`
	Outbox   outboxCmd   `cmd:"" help:"List, show, retry, cancel, release and discard matches and messages."`
	Suppress suppressCmd `cmd:"" help:"List, add, remove and import addresses that no mail goes to."`
	Bounce   bounceCmd   `cmd:"" help:"Take a mail that came back, from a mail server's pipe."`
	Preview  previewCmd  `cmd:"" help:"Show the mail that a rule would send for a real row. Sends nothing."`
	Explain  explainCmd  `cmd:"" help:"Tell why a mail came, or why a rule does not match."`
	Replay   replayCmd   `cmd:"" help:"Decide again on what was committed, and send what was missed."`
	Gaps     gapsCmd     `cmd:"" help:"End gaps that nothing can make up for, with the reason."`
	Demo     demoCmd     `cmd:"" help:"Show it all on a throwaway database, with an inbox in the browser."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// program is what a command works with.
type program struct {
	ctx            context.Context //nolint:containedctx // lives exactly as long as the process's one command
	flags          *flags
	stdout, stderr io.Writer
	signals        <-chan os.Signal
}

// usageError is a mistake in the call or in the configuration.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// toldError is what a command has told on stdout: only the exit code is left to it.
type toldError struct{ error }

func (t toldError) Unwrap() error { return t.error }

func run(args []string, stdout, stderr io.Writer) (code int) {
	var c cli
	exited := false
	parser, err := kong.New(&c, kong.Name("postman"),
		kong.Description("postman turns committed changes of a Postgres database into e-mail.\n\nSettings: flag over environment over postman.yaml over default; see postman.yaml."),
		kong.Writers(stdout, stderr), kong.Exit(func(status int) { exited, code = true, status }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.Help(help))
	if err != nil {
		return complain(stderr, usageError{err})
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	command, err := parser.Parse(args)
	if exited {
		return code // --help has been answered
	}
	if bouncing(err) {
		return complain(stderr, tryLater{err})
	}
	if err != nil {
		return complain(stderr, usageError{fmt.Errorf("%w%s\n  → %s --help lists the commands and flags", err, meant(err), mistaken(err))})
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := command.Run(&program{context.Background(), &c.flags, stdout, stderr, signals}); err != nil {
		return complain(stderr, err)
	}
	return 0
}

// mistaken is the command, as far as it was understood, whose help tells what a call should have been.
func mistaken(err error) string {
	name := "postman"
	e, ok := errors.AsType[*kong.ParseError](err)
	if !ok || e.Context == nil {
		return name
	}
	for _, step := range e.Context.Path {
		if step.Command != nil && step.Command.Name != "list" {
			name += " " + step.Command.Name
		}
	}
	return name
}

// meant asks whether a command was meant that is written nearly so, where one takes the place of what its default takes: kong finds others itself.
func meant(err error) string {
	e, ok := errors.AsType[*kong.ParseError](err)
	word, found := strings.CutPrefix(err.Error(), "unexpected argument ")
	if !ok || !found || e.Context == nil || strings.Contains(word, ",") {
		return ""
	}
	for _, step := range slices.Backward(e.Context.Path) {
		if step.Command == nil || len(step.Command.Children) == 0 {
			continue
		}
		var names []string
		for _, c := range step.Command.Children {
			names = append(names, c.Name)
		}
		if near := daemon.DidYouMean(word, names); near != "" {
			return near
		}
	}
	return ""
}

// complain prints an error and returns the exit code that it means.
func complain(stderr io.Writer, err error) int {
	if _, told := errors.AsType[toldError](err); told {
		return exitCode(err)
	}
	fmt.Fprintf(stderr, "postman: %v\n", err) //nolint:errcheck // when stderr is gone, the exit code is left to tell
	return exitCode(err)
}

// failedError is what ended a run that had begun well, whatever kind of error it is.
type failedError struct{ error }

func (f failedError) Unwrap() error { return f.error }

func exitCode(err error) int {
	if _, ok := errors.AsType[tryLater](err); ok {
		return exitTryLater
	}
	if _, ok := errors.AsType[failedError](err); ok {
		return exitFailed
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if daemon.Misconfigured(err) {
		return exitUsage
	}
	return exitFailed
}
