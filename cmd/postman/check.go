package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"postman/daemon"
)

type checkCmd struct {
	Paths   []string `arg:"" optional:"" help:"Rule files and folders (default: the configured rules)."`
	Schema  string   `help:"Check against a file that postman schema wrote, without a database." placeholder:"FILE"`
	Plan    bool     `help:"Print how changes find each rule, and warn of rules that every change is tried against."`
	Strict  bool     `help:"Exit 2 on warnings as well."`
	Against string   `help:"Tell what rules that differ from the live ones make of what was committed since: an LSN, a time, or how long ago it was (7d)." placeholder:"LSN|TIME"`
	Store   string   `help:"With --against: the store's file, or a copy of it (default: the configured one)." placeholder:"FILE"`
	JSON    bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run prints what is wrong with rules, queries and templates. It exits 2 on errors, and with --strict on warnings.
func (k checkCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	if k.Store != "" {
		c.StoreURL = "sqlite:" + k.Store
	}
	report, err := daemon.Check(p.ctx, c, daemon.CheckOptions{Paths: k.Paths, Schema: k.Schema, Plan: k.Plan, Against: k.Against})
	if err != nil {
		return err
	}
	if k.JSON {
		err = json.NewEncoder(p.stdout).Encode(checkJSON(report))
	} else {
		_, err = io.WriteString(p.stdout, checkText(painter(p.stdout), report))
	}
	if err == nil && (report.Errors() > 0 || k.Strict && len(report.Findings) > 0) {
		return toldError{usageError{errors.New(closing(report))}}
	}
	return err
}

// checkText is the report as people read it: each finding with its line, grouped by file, and the sum.
func checkText(in paint, r *daemon.CheckReport) string {
	var b strings.Builder
	file := ""
	for i, f := range r.Findings {
		if i > 0 && f.Place.File != file {
			b.WriteByte('\n')
		}
		file = f.Place.File
		word, colour := "error", red
		if f.ID.Warning() {
			word, colour = "warning", yellow
		}
		fmt.Fprintf(&b, "%s: %s: ", in.in(bold, f.Place.String()), in.in(colour, word))
		if f.Rule != "" {
			fmt.Fprintf(&b, "rule %q: ", f.Rule)
		}
		fmt.Fprintf(&b, "%s %s\n", f.Message, in.in(dim, "["+string(f.ID)+"]"))
		line, caret := f.Excerpt()
		for _, part := range []string{line, in.in(colour, caret), in.in(cyan, arrow(f.Hint))} {
			if part != "" {
				b.WriteString("    " + part + "\n")
			}
		}
	}
	if len(r.Findings) > 0 {
		b.WriteByte('\n')
	}
	printPlan(&b, r)
	if r.Against != nil {
		b.WriteString(againstText(in, r.Against) + "\n")
	}
	colour := green
	switch {
	case r.Errors() > 0:
		colour = red
	case len(r.Findings) > 0:
		colour = yellow
	}
	b.WriteString(in.in(colour, closing(r)))
	if r.Prepared > 0 {
		b.WriteString(" · " + number(r.Prepared, "query", "queries") + " prepared")
	}
	if r.Rendered > 0 {
		b.WriteString(" · " + number(r.Rendered, "template", "templates") + " rendered")
	}
	if r.WithRow > 0 {
		fmt.Fprintf(&b, ", %d with a real row", r.WithRow)
	}
	const most = 3
	for i, n := range r.WithoutRow {
		switch {
		case i == most:
			fmt.Fprintf(&b, ", and %d more", len(r.WithoutRow)-most)
		case i == 0:
			fmt.Fprintf(&b, "; without one %s (%s)", n.Rule, n.Why)
		case i < most:
			fmt.Fprintf(&b, ", %s (%s)", n.Rule, n.Why)
		}
	}
	b.WriteByte('\n')
	for _, u := range r.Untried {
		b.WriteString(in.in(yellow, u) + "\n")
	}
	return b.String()
}

func arrow(hint string) string {
	if hint == "" {
		return ""
	}
	return "→ " + hint
}

// closing counts what was found.
func closing(r *daemon.CheckReport) string {
	wrong := r.Errors()
	warnings := len(r.Findings) - wrong
	var parts []string
	if wrong > 0 {
		parts = append(parts, number(wrong, "error", "errors"))
	}
	if warnings > 0 {
		parts = append(parts, number(warnings, "warning", "warnings"))
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing wrong")
	}
	return strings.Join(parts, ", ") + " in " + number(r.Rules, "rule", "rules")
}

func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return daemon.Grouped(int64(n)) + " " + many
}

// printPlan tells of each rule which changes it is tried on.
func printPlan(b *strings.Builder, r *daemon.CheckReport) {
	if len(r.Plan) == 0 {
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "rule\top\tis tried on") //nolint:errcheck // into memory
	for _, rule := range r.Plan {
		for _, op := range rule.Ops {
			on := strings.Join(op.Keys, "  or  ")
			switch {
			case op.Never:
				on = "no " + op.Op.String() + ": the condition is never true"
			case op.Always:
				on = "every " + op.Op.String() + ", and matches"
			case op.Scan != "":
				on = "EVERY " + op.Op.String() + ": no index helps with " + op.Scan
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", rule.Rule.Name, op.Op, on) //nolint:errcheck // likewise
		}
	}
	w.Flush() //nolint:errcheck // likewise
	b.WriteByte('\n')
}

// The report as JSON: docs/cli.md documents it.
type (
	checked struct {
		Errors    int                   `json:"errors"`
		Warnings  int                   `json:"warnings"`
		Rules     int                   `json:"rules"`
		Findings  []finding             `json:"findings"`
		Queries   checkedQueries        `json:"queries"`
		Templates checkedMails          `json:"templates"`
		NotTried  []string              `json:"not_tried"`
		Plan      []planned             `json:"plan,omitempty"`
		Against   *daemon.AgainstReport `json:"against,omitempty"`
	}
	finding struct {
		ID       string `json:"id"`
		Severity string `json:"severity"`
		Rule     string `json:"rule,omitempty"`
		File     string `json:"file"`
		Line     int    `json:"line,omitempty"`
		Column   int    `json:"column,omitempty"`
		Message  string `json:"message"`
		Hint     string `json:"hint,omitempty"`
		Source   string `json:"source,omitempty"`
	}
	checkedQueries struct {
		Prepared int `json:"prepared"`
		NotTried int `json:"not_tried"`
	}
	checkedMails struct {
		Rendered   int          `json:"rendered"`
		WithRow    int          `json:"with_row"`
		WithoutRow []withoutRow `json:"without_row"`
	}
	withoutRow struct {
		Rule string `json:"rule"`
		Why  string `json:"why"`
	}
	planned struct {
		Rule string      `json:"rule"`
		Ops  []plannedOp `json:"ops"`
	}
	plannedOp struct {
		Op     string   `json:"op"`
		Keys   []string `json:"keys,omitempty"`
		Always bool     `json:"always,omitempty"`
		Never  bool     `json:"never,omitempty"`
		Scan   string   `json:"scan,omitempty"`
	}
)

func checkJSON(r *daemon.CheckReport) checked {
	c := checked{
		Errors: r.Errors(), Warnings: len(r.Findings) - r.Errors(), Rules: r.Rules, Findings: []finding{}, NotTried: append([]string{}, r.Untried...),
		Queries: checkedQueries{r.Prepared, r.Unprepared}, Templates: checkedMails{r.Rendered, r.WithRow, []withoutRow{}},
	}
	for _, n := range r.WithoutRow {
		c.Templates.WithoutRow = append(c.Templates.WithoutRow, withoutRow(n))
	}
	for _, f := range r.Findings {
		severity := "error"
		if f.ID.Warning() {
			severity = "warning"
		}
		c.Findings = append(c.Findings, finding{
			string(f.ID), severity, f.Rule, f.Place.File, f.Place.Line, f.Place.Column, f.Message, f.Hint, f.Line,
		})
	}
	c.Against = r.Against
	for _, rule := range r.Plan {
		p := planned{Rule: rule.Rule.Name}
		for _, op := range rule.Ops {
			p.Ops = append(p.Ops, plannedOp{op.Op.String(), op.Keys, op.Always, op.Never, op.Scan})
		}
		c.Plan = append(c.Plan, p)
	}
	return c
}
