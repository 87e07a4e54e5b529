package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postman"
	"postman/internal/demo"
)

type demoCmd struct {
	Once   bool   `help:"Play a fixed scenario; fail unless exactly the expected mails arrive."`
	Listen string `help:"The inbox's address, on loopback (default: 127.0.0.1:8025, or another port when that is taken)." placeholder:"HOST:PORT"`
}

// calledAs is what somebody types to call this program again.
func calledAs(arg string) string {
	switch {
	case strings.HasPrefix(arg, filepath.Join(os.TempDir(), "go-build")): // where go run leaves it, until it ends
		return "go run ./cmd/postman"
	case strings.ContainsRune(arg, filepath.Separator):
		return arg
	}
	return filepath.Base(arg)
}

// Run shows the demo until a signal. Of the settings it heeds --rules, --templates and --log-level alone.
func (d demoCmd) Run(p *program) error {
	o := demo.Options{
		Once: d.Once, Listen: d.Listen, Rules: p.flags.Rules, Templates: p.flags.Templates, LogLevel: p.flags.LogLevel,
		Command: calledAs(os.Args[0]), Example: postman.Example, Stdout: p.stdout, Stderr: p.stderr, Getenv: os.Getenv,
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	go func() {
		for {
			select {
			case s := <-p.signals:
				if s != syscall.SIGHUP { // files are watched; there is nothing else to read again
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return demo.Run(ctx, o)
}
