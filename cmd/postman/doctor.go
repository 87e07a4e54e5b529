package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode/utf8"

	"postman/daemon"
)

type doctorCmd struct {
	Resolver     string   `help:"Ask this DNS server instead of the system's." placeholder:"HOST:PORT"`
	DKIMSelector []string `name:"dkim-selector" help:"The DKIM selector that the relay signs with; again for more." placeholder:"NAME"`
	JSON         bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run prints what was found. It exits 1 when something keeps mail from going.
func (d *doctorCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	if d.Resolver != "" {
		if _, _, err := net.SplitHostPort(d.Resolver); err != nil {
			return usageError{fmt.Errorf("--resolver %s: it is HOST:PORT, as in 127.0.0.1:53: %w", d.Resolver, err)}
		}
	}
	found := daemon.Doctor(p.ctx, &c, daemon.DoctorOptions{Resolver: d.Resolver, Selectors: d.DKIMSelector})
	text, err := indented(found)
	if err != nil {
		return err
	}
	if !d.JSON {
		text = []byte(doctorText(found, painter(p.stdout)))
	}
	if _, err = p.stdout.Write(text); err == nil && !found.Healthy {
		err = toldError{errors.New("something keeps mail from going")}
	}
	return err
}

// doctorText is the list, a line for each finding and one for what to do.
func doctorText(d *daemon.Diagnosis, c paint) string {
	marks := map[daemon.Level]string{daemon.Fine: c.in(green, "✓"), daemon.Doubtful: c.in(yellow, "!"), daemon.Harmful: c.in(red, "✕")}
	width := 0
	for i := range d.Findings {
		width = max(width, utf8.RuneCountInString(d.Findings[i].Name))
	}
	var w strings.Builder
	area, counts := "", make(map[daemon.Level]int)
	for i := range d.Findings {
		f := &d.Findings[i]
		counts[f.Level]++
		if f.Area != area {
			area = f.Area
			fmt.Fprintf(&w, "%s\n", c.in(bold, area))
		}
		fmt.Fprintf(&w, "  %s %s%s  %s\n", marks[f.Level], f.Name, strings.Repeat(" ", width-utf8.RuneCountInString(f.Name)), f.Text)
		if f.Todo != "" {
			fmt.Fprintf(&w, "    → %s\n", f.Todo)
		}
	}
	switch n := counts[daemon.Harmful]; {
	case n == 0 && counts[daemon.Doubtful] == 0:
		fmt.Fprint(&w, "\nall is well\n")
	case n == 0:
		fmt.Fprintf(&w, "\nnothing keeps mail from going; %s to look at\n", number(counts[daemon.Doubtful], "thing", "things"))
	default:
		fmt.Fprintf(&w, "\n%s from going; %s to look at\n", number(n, "thing keeps mail", "things keep mail"), number(counts[daemon.Doubtful], "more", "more"))
	}
	return w.String()
}
