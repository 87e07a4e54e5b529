package authoring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/cdc"
	"postman/daemon"
	"postman/dispatch"
	"postman/rules"
	"postman/templates"
)

// TestOptions is what an author asks of Test.
type TestOptions struct {
	Paths    []string // rule files and folders of them; none: the configured ones
	Rules    []string // names of the rules to test; none: all
	Schema   string   // a file that `postman schema` wrote, in the place of a database's catalog
	Database bool     // queries whose answers are not given are asked of the database, which is changed and rolled back for it
}

// TestReport is what became of the tests.
type TestReport struct {
	Rules    []*RuleReport // those that were asked for, in the order of their files
	Database bool          // there was a database to ask
	Took     time.Duration
}

// RuleReport is what became of a rule's tests. Without Tests it has none.
type RuleReport struct {
	Rule    *rules.Rule
	Tests   []*Result
	Clauses []*Clause // of its condition
}

// Result is what became of a test. Without Failures it passed, unless NotRun says why it was not tried.
type Result struct {
	Name     string // as it is called, or else what happens in it
	Place    rules.Place
	Took     time.Duration
	Failures []Failure
	NotRun   string
	Notes    []string // what the outcome hangs on, and the test does not say
	Given    bool     // the rule's queries were answered by the test
	Asked    bool     // they were asked of the database
}

// Failure is an expectation that was not met.
type Failure struct {
	Place   rules.Place
	Step    int          // counted from 1; 0: the test has but one
	Kind    string       // match, to, cc, subject, body, not_body, mail, locale; error: it could not be found out
	Text    string       // a sentence
	Hint    string       // the way out; may be empty
	Missing []string     // of to and cc: the expected addresses that get none
	Strays  []string     // of to, cc and mail: the addresses that get one and were not expected
	Want    string       // of subject, body, not_body and locale
	Got     string       // what there is; of a body, the line that is nearest
	Trace   *rules.Trace // of match: what each part of the condition came to
}

// Count tells how many tests passed, failed, and were not run.
func (r *TestReport) Count() (passed, failed, notRun int) {
	for _, rule := range r.Rules {
		for _, t := range rule.Tests {
			switch {
			case len(t.Failures) > 0:
				failed++
			case t.NotRun != "":
				notRun++
			default:
				passed++
			}
		}
	}
	return passed, failed, notRun
}

// Untested names the rules without a test.
func (r *TestReport) Untested() []string {
	var names []string
	for _, rule := range r.Rules {
		if len(rule.Tests) == 0 {
			names = append(names, rule.Rule.Name)
		}
	}
	return names
}

// Test runs the tests that stand beside the rules. Its error is a rules.Errors for files that do not load; everything that the
// tests say is in the report.
func Test(ctx context.Context, config daemon.Config, o TestOptions) (*TestReport, error) {
	started := time.Now()
	if len(o.Paths) == 0 {
		o.Paths = []string{config.Rules}
	}
	if o.Schema != "" && o.Database {
		return nil, daemon.Misuse("--database asks a database, and --schema is for where there is none: leave one of them out")
	}
	source, mistakes := rules.Read(o.Paths...)
	if source == nil {
		return nil, mistakes
	}
	catalog, err := loadCatalog(ctx, config, o, source)
	if err != nil {
		return nil, err
	}
	set, err := rules.Compile(source, catalog)
	if err := together(mistakes, err, orNil(set.CheckTests())); err != nil {
		return nil, err
	}
	chosen, err := choose(set.Rules, o.Rules)
	if err != nil {
		return nil, err
	}
	report := &TestReport{Database: o.Database}
	s := &stage{}
	if err := s.setUp(&config, chosen); err != nil {
		return nil, err
	}
	if o.Database {
		if s.lab, err = openLab(ctx, &config); err != nil {
			return nil, err
		}
		defer s.lab.close(ctx)
	}
	for _, r := range chosen {
		rr, err := s.rule(ctx, r, catalog.Tables[r.On.Table])
		if err != nil {
			return nil, err
		}
		report.Rules = append(report.Rules, rr)
	}
	report.Took = time.Since(started)
	return report, nil
}

func orNil(errs rules.Errors) error {
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// together are all mistakes in the order of their places.
func together(errs ...error) error {
	var all rules.Errors
	for _, err := range errs {
		if mistakes, ok := errors.AsType[rules.Errors](err); ok {
			all = append(all, mistakes...)
		} else if err != nil {
			return err
		}
	}
	slices.SortStableFunc(all, func(a, b *rules.Error) int {
		return cmp.Or(cmp.Compare(a.Place.File, b.Place.File), cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return orNil(all)
}

// loadCatalog reads the tables from a file or the database; rules on messages need none.
func loadCatalog(ctx context.Context, config daemon.Config, o TestOptions, source *rules.Source) (*cdc.Catalog, error) {
	switch {
	case o.Schema != "":
		return daemon.ReadSchema(o.Schema)
	case config.DatabaseURL != "":
		return daemon.Schema(ctx, config)
	case len(source.Needs()) == 0 && !o.Database:
		return new(cdc.Catalog), nil
	}
	return nil, daemon.Misuse("database_url: the tables' columns are needed; set DATABASE_URL=postgres://user@host/database, or name a file that postman schema wrote: postman test --schema schema.json")
}

// choose picks the rules of these names; none: all.
func choose(all []*rules.Rule, names []string) ([]*rules.Rule, error) {
	if len(names) == 0 {
		return all, nil
	}
	known := make([]string, len(all))
	for i, r := range all {
		known[i] = r.Name
	}
	var wrong []string
	for _, name := range names {
		if !slices.Contains(known, name) {
			wrong = append(wrong, strings.TrimSpace(fmt.Sprintf("there is no rule %s; %s", name, rules.Nearest(name, known))))
		}
	}
	if len(wrong) > 0 {
		return nil, daemon.Misuse(strings.Join(wrong, "\n"))
	}
	return slices.DeleteFunc(slices.Clone(all), func(r *rules.Rule) bool { return !slices.Contains(names, r.Name) }), nil
}

// stage is what tests are played on.
type stage struct {
	rehearser *dispatch.Rehearser
	zone      *time.Location
	lab       *lab // nil: no database is asked
}

// setUp reads the templates, where a test says something of mails.
func (s *stage) setUp(config *daemon.Config, chosen []*rules.Rule) error {
	zone, err := time.LoadLocation(config.Timezone)
	if err != nil {
		return daemon.Misuse("timezone: " + config.Timezone + " is no time zone; one looks like Asia/Seoul")
	}
	s.zone = zone
	if !slices.ContainsFunc(chosen, func(r *rules.Rule) bool { return saysOfMail(r) != nil }) {
		return nil
	}
	o, err := daemon.Composing(config)
	if err != nil {
		return err
	}
	if err := together(missing(chosen, o.Templates()), daemon.SenderMistakes(chosen, config)); err != nil {
		return err
	}
	s.rehearser, err = dispatch.NewRehearser(o)
	return err
}

// saysOfMail is the first step of a rule's tests that says something of its mails.
func saysOfMail(r *rules.Rule) *rules.TestStep {
	for _, t := range r.Tests {
		for i := range t.Steps {
			if t.Steps[i].Expect.Mail() {
				return &t.Steps[i]
			}
		}
	}
	return nil
}

// missing finds tests of mails that have no template.
func missing(chosen []*rules.Rule, mails *templates.Set) error {
	var errs rules.Errors
	for _, r := range chosen {
		if step := saysOfMail(r); step != nil && !mails.Has(r.Template) {
			hint := rules.Nearest(r.Template, mails.Names())
			if hint == "" {
				hint = "make " + r.Template + ".html in the folder of templates"
			}
			errs = append(errs, r.Mistake("PM501", step.Expect.Place, fmt.Sprintf("the test is about a mail, and there is no template %q", r.Template), hint))
		}
	}
	return orNil(errs)
}
