package main

import (
	"errors"
	"fmt"
	"strings"

	"postman/daemon"
)

type setupCmd struct {
	AcceptGap bool `help:"Record what lies between store and slot as a gap, and go on behind it."`
	Arm       bool `help:"Let mode live send for the database that is configured now."`
	Print     bool `help:"Print the SQL for a DBA and change nothing."`
}

// Run makes the database ready. It is safe to run again.
func (s setupCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	done, err := daemon.Setup(p.ctx, c, daemon.SetupOptions{AcceptGap: s.AcceptGap, Arm: s.Arm, Print: s.Print})
	if len(done) > 0 {
		_, printErr := fmt.Fprintln(p.stdout, strings.Join(done, "\n"))
		err = errors.Join(err, printErr)
	}
	return err
}
