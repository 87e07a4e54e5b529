package main

import (
	"fmt"

	"postman/daemon"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(p *program) error {
	_, err := fmt.Fprintln(p.stdout, "postman", daemon.Version())
	return err
}
