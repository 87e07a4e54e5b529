package authoring

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The elements of JUnit's XML, as Jenkins' xUnit plug-in describes them (jenkins-junit.xsd) and GitLab reads them: a suite for
// each rule, a case for each test.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name     string         `xml:"name,attr"`
		Class    string         `xml:"classname,attr"`
		File     string         `xml:"file,attr"`
		Line     int            `xml:"line,attr"`
		Time     string         `xml:"time,attr"`
		Skipped  *junitText     `xml:"skipped,omitempty"`
		Failures []junitText    `xml:"failure"`
		Out      *junitVerbatim `xml:"system-out,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
	junitVerbatim struct {
		Text string `xml:",chardata"`
	}
)

// WriteJUnit writes the report as JUnit's XML, which build servers show.
func (r *TestReport) WriteJUnit(w io.Writer) error {
	passed, failed, notRun := r.Count()
	all := junitSuites{Name: "postman test", Tests: passed + failed + notRun, Failures: failed, Time: seconds(r.Took)}
	for _, rule := range r.Rules {
		if len(rule.Tests) > 0 {
			all.Suites = append(all.Suites, rule.junit())
		}
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r *RuleReport) junit() junitSuite {
	s := junitSuite{Name: r.Rule.Name, Tests: len(r.Tests)}
	var took time.Duration
	for _, t := range r.Tests {
		took += t.Took
		c := junitCase{Name: t.Name, Class: r.Rule.Name, File: t.Place.File, Line: t.Place.Line, Time: seconds(t.Took)}
		for _, f := range t.Failures {
			c.Failures = append(c.Failures, junitText{Message: f.Title(), Type: f.Kind, Text: f.Place.String() + ": " + f.String()})
		}
		switch {
		case len(t.Failures) > 0:
			s.Failures++
		case t.NotRun != "":
			s.Skipped++
			c.Skipped = &junitText{Message: t.NotRun}
		}
		if len(t.Notes) > 0 {
			c.Out = &junitVerbatim{strings.Join(t.Notes, "\n")}
		}
		s.Cases = append(s.Cases, c)
	}
	s.Time = seconds(took)
	return s
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
