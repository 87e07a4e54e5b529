// Command bench measures postman beside the barest loop that could take its place, in the same run on the same machine, and prints one
// table: what either side took, the ratio, and the bar that the ratio has to keep.
//
//	go run . [--quick] [latency] [drain] [large] [send] [far] [postfix] [urgent] [start] [store] [rules]
//
// It takes all of them when none is named. Machines differ and are noisy: only the ratios mean something elsewhere, and they are
// medians over rounds in which the two sides take turns. --quick makes the rounds few and short: it shows that the
// benchmarks run, and its numbers mean little.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if l, ok := parseLoop(args); ok { // this program as the other side
		return report(l.run(ctx))
	}
	if g, ok := parseGoMail(args); ok { // likewise
		return report(g.run(ctx))
	}
	if o, ok := parseOneTrip(args); ok {
		return report(o.run())
	}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	quick := flags.Bool("quick", false, "few and short rounds")
	flags.Parse(args) //nolint:errcheck // it exits
	return report(all(ctx, *quick, flags.Args()))
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// bench is what the benchmarks share.
type bench struct {
	quick    bool
	out      io.Writer
	dir      string // for files, removed at the end
	self     string // this program
	binary   string // postman
	database *database
	id       int64 // of the next change
}

// all runs the named benchmarks, or every one.
func all(ctx context.Context, quick bool, names []string) (err error) {
	known := []string{"latency", "drain", "large", "send", "far", "postfix", "urgent", "start", "replay", "store", "rules"}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no benchmark %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	b := &bench{quick: quick, out: os.Stdout, id: 1}
	if b.dir, err = os.MkdirTemp("", "postman-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir) //nolint:errcheck // temporary files
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	before := load()
	for _, name := range known {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		if err := b.one(ctx, name); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(b.out, "\n%d processors, load average %s before and %s after: what else runs on the machine stretches the longer side more\n",
		runtime.NumCPU(), before, load())
	return err
}

// load is the machine's load average over the last minute (proc(5)), so that nobody takes the numbers of a busy machine for more.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func (b *bench) one(ctx context.Context, name string) (err error) {
	switch name {
	case "store":
		return b.store(ctx)
	case "rules":
		return b.rules(ctx)
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.database, err = startDatabase(ctx); err != nil {
		return err
	}
	defer b.database.stop(context.WithoutCancel(ctx))
	switch name {
	case "drain":
		return b.drain(ctx)
	case "large":
		return b.large(ctx)
	case "send":
		return b.send(ctx)
	case "far":
		return b.far(ctx)
	case "postfix":
		return b.postfix(ctx)
	case "urgent":
		return b.urgent(ctx)
	case "start":
		return b.start(ctx)
	case "replay":
		return b.replay(ctx)
	}
	return b.latency(ctx)
}

// build builds postman as it is released.
func (b *bench) build(ctx context.Context) error {
	if b.binary != "" {
		return nil
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "postman").Output()
	if err != nil {
		return fmt.Errorf("looking for postman's module (run me in bench/): %w", err)
	}
	binary := filepath.Join(b.dir, "postman")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/postman")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building postman: %w", err)
	}
	b.binary = binary
	return nil
}

// postman is a side with a folder of its own.
func (b *bench) postman(o options) *postmanSide {
	return &postmanSide{bench: b, dir: filepath.Join(b.dir, "postman-"+o.rule), opts: o}
}
