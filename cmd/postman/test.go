package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"postman/authoring"
)

type testCmd struct {
	Paths    []string `arg:"" optional:"" help:"Rule files and folders (default: the configured rules)."`
	Rule     []string `help:"Test this rule alone; again for more." placeholder:"RULE"`
	Database bool     `help:"Ask the database what a test does not give: its change is made there, and rolled back."`
	Schema   string   `help:"Take the tables from a file that postman schema wrote, without a database." placeholder:"FILE"`
	Coverage bool     `help:"Tell which parts of the conditions no test has shown to matter."`
	JSON     bool     `name:"json" help:"Print JSON (docs/cli.md)."`
	JUnit    string   `name:"junit" help:"Write JUnit XML as well, for build servers." placeholder:"FILE"`
}

// Run runs the tests beside the rules. It exits 1 when one fails or none was run, and 2 when the files do not load.
func (k testCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	report, err := authoring.Test(p.ctx, c, authoring.TestOptions{Paths: k.Paths, Rules: k.Rule, Schema: k.Schema, Database: k.Database})
	if err != nil {
		return err
	}
	if k.JUnit != "" {
		if err := writeJUnit(k.JUnit, report); err != nil {
			return err
		}
	}
	if k.JSON {
		err = json.NewEncoder(p.stdout).Encode(testJSON(report))
	} else {
		_, err = io.WriteString(p.stdout, testText(painter(p.stdout), report, k.Coverage))
	}
	switch passed, failed, _ := report.Count(); {
	case err == nil && failed > 0:
		return toldError{errors.New("tests failed")}
	case err == nil && passed == 0:
		return toldError{errors.New("no test was run")}
	}
	return err
}

func writeJUnit(path string, r *authoring.TestReport) error {
	f, err := os.Create(path)
	if err != nil {
		return usageError{fmt.Errorf("--junit: %w", err)}
	}
	return errors.Join(r.WriteJUnit(f), f.Close())
}

// testText is the report as people read it: a line for each test, what is wrong under it, and the sum.
func testText(in paint, r *authoring.TestReport, coverage bool) string {
	var b strings.Builder
	for _, rule := range r.Rules {
		if len(rule.Tests) == 0 {
			continue
		}
		b.WriteString(in.in(bold, rule.Rule.Name) + "\n")
		for _, t := range rule.Tests {
			writeResult(&b, in, t, r.Database)
		}
		b.WriteByte('\n')
	}
	if coverage {
		writeCoverage(&b, in, r)
	}
	if names := r.Untested(); len(names) > 0 {
		b.WriteString(in.in(yellow, "without a test: ") + strings.Join(names, ", ") + "\n")
	}
	b.WriteString(sum(in, r, coverage) + "\n")
	return b.String()
}

// writeResult tells of one test; where there is a database, with whose answers it was run.
func writeResult(b *strings.Builder, in paint, t *authoring.Result, database bool) {
	answers := ""
	if who := answered(t); database && who != nil {
		answers = "  " + in.in(dim, "answers: "+strings.Join(who, ", "))
	}
	switch {
	case len(t.Failures) > 0:
		fmt.Fprintf(b, "  %s %s  %s%s\n", in.in(red, "✗"), t.Name, in.in(dim, t.Place.String()), answers)
	case t.NotRun != "":
		fmt.Fprintf(b, "  %s %s  %s\n      %s\n", in.in(yellow, "–"), t.Name, in.in(dim, t.Place.String()), t.NotRun)
	default:
		fmt.Fprintf(b, "  %s %s%s\n", in.in(green, "✓"), t.Name, answers)
	}
	for _, f := range t.Failures {
		at := ""
		if f.Place != t.Place {
			at = "  " + in.in(dim, fmt.Sprintf("%d:%d", f.Place.Line, f.Place.Column))
		}
		b.WriteString("      " + f.Title() + at + "\n")
		for _, d := range f.Details() {
			b.WriteString("        " + detail(in, d) + "\n")
		}
	}
	for _, n := range t.Notes {
		b.WriteString("      " + in.in(yellow, "note: "+n) + "\n")
	}
}

// answered tells who answered the rule's queries; nil: nobody asked them.
func answered(t *authoring.Result) (by []string) {
	if t.Given {
		by = append(by, "given")
	}
	if t.Asked {
		by = append(by, "database")
	}
	return by
}

// detailColours are the colours of lines, by their marks.
var detailColours = map[authoring.Mark]string{
	authoring.Missing: red, authoring.Stray: green, authoring.Yes: green, authoring.No: red, authoring.Unknown: yellow, authoring.Way: cyan,
}

func detail(in paint, d authoring.Detail) string {
	colour := detailColours[d.Mark]
	if d.Idle {
		colour = dim
	}
	text := d.Text
	if colour == "" {
		return "  " + text
	}
	switch d.Mark {
	case authoring.Missing:
		text += "   expected, and gets none"
	case authoring.Stray:
		text += "   gets one, and was not expected"
	case authoring.Plain, authoring.Yes, authoring.No, authoring.Unknown, authoring.Way:
	}
	return in.in(colour, string(d.Mark)+" "+text)
}

func writeCoverage(b *strings.Builder, in paint, r *authoring.TestReport) {
	b.WriteString(in.in(bold, "coverage") + " of conditions: for each part of one, whether tests show that it can make a match, and that it can prevent one\n")
	for _, rule := range r.Rules {
		shown, all := rule.Coverage()
		if all == 0 {
			continue
		}
		colour := yellow
		if shown == all {
			colour = green
		}
		fmt.Fprintf(b, "  %s %d of %d\n", in.in(colour, rule.Rule.Name), shown, all)
		for _, c := range rule.Clauses {
			var lacks []string
			if !c.Lets {
				lacks = append(lacks, "in which the rule matches because of it")
			}
			if !c.Keeps {
				lacks = append(lacks, "in which it alone prevents a match")
			}
			if len(lacks) > 0 {
				fmt.Fprintf(b, "    %s   no test %s\n", c.Text, strings.Join(lacks, ", none "))
			}
		}
	}
	b.WriteByte('\n')
}

// sum is the closing line.
func sum(in paint, r *authoring.TestReport, coverage bool) string {
	passed, failed, notRun := r.Count()
	colour, parts := green, []string{fmt.Sprintf("%d passed", passed)}
	if passed+failed == 0 {
		colour, parts = red, []string{"no test was run"}
	}
	if notRun > 0 {
		parts = append(parts, fmt.Sprintf("%d not run", notRun))
		if passed > 0 {
			colour = yellow
		}
	}
	if failed > 0 {
		colour, parts = red, append([]string{fmt.Sprintf("%d failed", failed)}, parts...)
	}
	text := in.in(colour, strings.Join(parts, ", ")) + " · " + number(len(r.Rules), "rule", "rules")
	if untested := len(r.Untested()); untested > 0 {
		text += fmt.Sprintf(", %d without a test", untested)
	}
	if coverage {
		shown, all := 0, 0
		for _, rule := range r.Rules {
			s, a := rule.Coverage()
			shown, all = shown+s, all+a
		}
		text += fmt.Sprintf(" · coverage %d of %d", shown, all)
	}
	return text
}

// The report as JSON: docs/cli.md documents it.
type (
	testedAll struct {
		Passed     int          `json:"passed"`
		Failed     int          `json:"failed"`
		NotRun     int          `json:"not_run"`
		DurationMS float64      `json:"duration_ms"`
		Rules      []testedRule `json:"rules"`
		Untested   []string     `json:"untested"`
		Coverage   testedShare  `json:"coverage"`
	}
	testedRule struct {
		Rule     string         `json:"rule"`
		File     string         `json:"file"`
		Line     int            `json:"line"`
		Tests    []tested       `json:"tests"`
		Coverage testedShare    `json:"coverage"`
		Clauses  []testedClause `json:"clauses"`
	}
	tested struct {
		Name       string          `json:"name"`
		File       string          `json:"file"`
		Line       int             `json:"line"`
		Result     string          `json:"result"`
		DurationMS float64         `json:"duration_ms"`
		Failures   []testedFailure `json:"failures,omitempty"`
		NotRun     string          `json:"not_run,omitempty"`
		Notes      []string        `json:"notes,omitempty"`
		Answers    []string        `json:"answers,omitempty"`
	}
	testedFailure struct {
		Kind       string   `json:"kind"`
		Line       int      `json:"line"`
		Column     int      `json:"column"`
		Step       int      `json:"step,omitempty"`
		Text       string   `json:"text"`
		Missing    []string `json:"missing,omitempty"`
		Unexpected []string `json:"unexpected,omitempty"`
		Expected   string   `json:"expected,omitempty"`
		Got        string   `json:"got,omitempty"`
		Hint       string   `json:"hint,omitempty"`
		Details    []string `json:"details,omitempty"`
	}
	testedShare struct {
		Shown int `json:"shown"`
		Of    int `json:"of"`
	}
	testedClause struct {
		Text  string `json:"text"`
		Line  int    `json:"line"`
		Lets  bool   `json:"lets"`
		Keeps bool   `json:"keeps"`
	}
)

func testJSON(r *authoring.TestReport) testedAll {
	all := testedAll{DurationMS: milliseconds(r.Took), Rules: []testedRule{}, Untested: append([]string{}, r.Untested()...)}
	all.Passed, all.Failed, all.NotRun = r.Count()
	for _, rule := range r.Rules {
		t := testedRule{Rule: rule.Rule.Name, File: rule.Rule.Place.File, Line: rule.Rule.Place.Line, Tests: []tested{}, Clauses: []testedClause{}}
		t.Coverage.Shown, t.Coverage.Of = rule.Coverage()
		all.Coverage.Shown += t.Coverage.Shown
		all.Coverage.Of += t.Coverage.Of
		for _, c := range rule.Clauses {
			t.Clauses = append(t.Clauses, testedClause{c.Text, c.Place.Line, c.Lets, c.Keeps})
		}
		for _, result := range rule.Tests {
			t.Tests = append(t.Tests, resultJSON(result))
		}
		all.Rules = append(all.Rules, t)
	}
	return all
}

func resultJSON(t *authoring.Result) tested {
	j := tested{Name: t.Name, File: t.Place.File, Line: t.Place.Line, Result: "passed", DurationMS: milliseconds(t.Took), NotRun: t.NotRun, Notes: t.Notes, Answers: answered(t)}
	switch {
	case len(t.Failures) > 0:
		j.Result = "failed"
	case t.NotRun != "":
		j.Result = "not_run"
	}
	for _, f := range t.Failures {
		failure := testedFailure{
			Kind: f.Kind, Line: f.Place.Line, Column: f.Place.Column, Step: f.Step, Text: f.Text, Missing: f.Missing, Unexpected: f.Strays,
			Expected: f.Want, Got: f.Got, Hint: f.Hint,
		}
		for _, d := range f.Details() {
			failure.Details = append(failure.Details, string(d.Mark)+" "+d.Text)
		}
		j.Failures = append(j.Failures, failure)
	}
	return j
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
