package main

import (
	"fmt"
	"net/http"

	"postman/daemon"
)

type gapsCmd struct {
	Accept acceptGapsCmd `cmd:"" help:"End gaps as they are, with the reason."`
}

type acceptGapsCmd struct {
	Gaps   []int64 `arg:"" name:"id" help:"The gaps' numbers (postman status)."`
	Reason string  `help:"Why, for whoever asks later; it is kept with the gap." placeholder:"TEXT"`
	JSON   bool    `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run notes that somebody takes gaps as they are: that nothing will make up for them, and why that is right.
func (a *acceptGapsCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	to, err := connect(p.ctx, c)
	if err != nil {
		return err
	}
	defer to.close() //nolint:errcheck // what was accepted is durable
	var accepted []daemon.GapStatus
	text, err := to.call(p.ctx, http.MethodPost, "/v1/gaps/accept", daemon.GapsAccepted{Gaps: a.Gaps, By: whoami(), Why: a.Reason}, &accepted)
	if err != nil {
		return err
	}
	if !a.JSON {
		text = nil
		for i := range accepted {
			g := &accepted[i]
			text = fmt.Appendf(text, "gap %d is accepted, %s: %s\n", g.ID, g.Accepted.By, g.Accepted.Why)
		}
	}
	_, err = p.stdout.Write(text)
	return err
}
