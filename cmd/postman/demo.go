package main

import (
	"context"
	"os"
	"syscall"

	"postman"
	"postman/internal/demo"
)

type demoCmd struct {
	Once   bool   `help:"Play a fixed scenario; fail unless exactly the expected mails arrive."`
	Listen string `help:"The inbox's address, on loopback (default: 127.0.0.1:8025, or another port when that is taken)." placeholder:"HOST:PORT"`
}

// Run shows the demo until a signal. Of the settings it heeds --rules, --templates and --log-level alone.
func (d demoCmd) Run(p *program) error {
	o := demo.Options{
		Once: d.Once, Listen: d.Listen, Rules: p.flags.Rules, Templates: p.flags.Templates, LogLevel: p.flags.LogLevel,
		Example: postman.Example, Stdout: p.stdout, Stderr: p.stderr, Getenv: os.Getenv,
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
