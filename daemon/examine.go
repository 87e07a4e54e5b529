package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/dispatch"
	"postman/rules"
	"postman/templates"
)

// CheckOptions is what an author asks of Check.
type CheckOptions struct {
	Paths  []string // rule files and folders of them; none: the configured ones
	Schema string   // a file that Schema wrote, in the place of a database
	Plan   bool     // say of each rule how changes find it
	// Against is since when the journal is looked at, for what rules that differ from the live ones make of it; empty: not at all.
	Against string
}

// WithoutRow is a rule whose template was rendered with made-up values alone.
type WithoutRow struct{ Rule, Why string }

// CheckReport is all that Check found.
type CheckReport struct {
	Findings rules.Errors // mistakes and warnings, by file and place
	Rules    int          // that were read
	// Queries that the database was asked about, and those for which there was none.
	Prepared, Unprepared int
	// Rules whose templates were rendered, and those of them with a real row of their table as well.
	Rendered, WithRow int
	WithoutRow        []WithoutRow // the others, where a database is at hand
	Untried           []string     // what was not tried, each with the reason
	Plan              []rules.RuleKeys
	Against           *AgainstReport // nil: it was not asked for, or there are errors
}

// Errors is how many of the findings are no warnings.
func (r *CheckReport) Errors() int {
	n := 0
	for _, e := range r.Findings {
		if !e.ID.Warning() {
			n++
		}
	}
	return n
}

// Check looks at rules and templates as a reload would, and for what is allowed and mostly not meant. It needs a database or the
// schema of one, and changes nothing. The error is the world's: what is wrong with the files is in the report.
func Check(ctx context.Context, config Config, o CheckOptions) (*CheckReport, error) {
	e := &examination{config: config, options: o, report: new(CheckReport), checker: checker{dir: config.Templates, samples: make(map[*rules.Rule]samples)}}
	if len(o.Paths) == 0 {
		o.Paths = []string{config.Rules}
	}
	source, err := rules.Read(o.Paths...)
	if err := e.take(err); err != nil || source == nil {
		return e.report, err
	}
	e.report.Rules = len(source.Rules)
	if err := e.open(ctx, source); err != nil {
		return nil, errors.Join(err, e.close(ctx))
	}
	err = e.run(ctx, source)
	return e.report, errors.Join(err, e.close(ctx))
}

// examination is one run of Check.
type examination struct {
	config  Config
	options CheckOptions
	report  *CheckReport
	checker checker
}

// take adds an Errors to the findings, and hands back any other error.
func (e *examination) take(err error) error {
	errs, ok := errors.AsType[rules.Errors](err)
	if !ok {
		return err
	}
	e.report.Findings = append(e.report.Findings, errs...)
	return nil
}

func (e *examination) untried(format string, args ...any) {
	e.report.Untried = append(e.report.Untried, fmt.Sprintf(format, args...))
}

// open reads the catalog, from a file or the database, and the templates.
func (e *examination) open(ctx context.Context, source *rules.Source) (err error) {
	switch {
	case e.options.Schema != "":
		e.checker.catalog, err = ReadSchema(e.options.Schema)
	case e.config.DatabaseURL == "":
		err = usage("database_url: no database is named; set DATABASE_URL=postgres://user@host/database, or name a schema: postman check --schema schema.json")
	default:
		err = e.connect(ctx, source)
	}
	if err == nil {
		e.openTemplates()
	}
	return err
}

func (e *examination) openTemplates() {
	mails, err := loadTemplates(e.config.Templates)
	if err != nil {
		for _, m := range templates.Mistakes(err) {
			e.report.Findings = append(e.report.Findings, e.checker.misfit(new(rules.Rule), "PM502", m))
		}
		e.untried("no template was rendered: some have mistakes of their own")
		return
	}
	e.checker.mails = mails
}

// connect opens the sessions for the catalog, the look-ups and the sample rows, all of them read-only.
func (e *examination) connect(ctx context.Context, source *rules.Source) error {
	conn, err := openReader(ctx, e.config.DatabaseURL, e.config.Lookup.Timeout)
	if err != nil {
		return fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if e.checker.catalog, err = cdc.LoadCatalog(ctx, conn, source.Tables()); err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	if err := e.checkPublished(ctx, conn, source); err != nil {
		return err
	}
	lookups := e.config.LookupURL
	if lookups == "" {
		lookups = e.config.DatabaseURL
	}
	if e.checker.lookup, err = dispatch.OpenLookup(ctx, string(lookups), dispatch.LookupOptions{Conns: 1, Timeout: time.Duration(e.config.Lookup.Timeout)}); err != nil {
		return fmt.Errorf("opening the look-ups: %w", err)
	}
	if e.checker.rows, err = openReader(ctx, lookups, e.config.Lookup.Timeout); err != nil {
		return fmt.Errorf("opening the look-ups: %w", err)
	}
	return nil
}

// openReader connects for reading alone, with values written as the stream writes them.
func openReader(ctx context.Context, url Secret, timeout Span) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(string(url))
	if err != nil {
		return nil, err
	}
	maps.Copy(config.RuntimeParams, map[string]string{
		"application_name": "postman", "client_encoding": "UTF8", "DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC",
		"extra_float_digits": "3", "bytea_output": "hex", "default_transaction_read_only": "on",
		"statement_timeout": strconv.FormatInt(time.Duration(timeout).Milliseconds(), 10),
	})
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

func (e *examination) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if e.checker.lookup != nil {
		e.checker.lookup.Close(ctx)
	}
	if e.checker.rows == nil {
		return nil
	}
	return e.checker.rows.Close(ctx)
}

// run looks at everything, and leaves out what comments silence.
func (e *examination) run(ctx context.Context, source *rules.Source) error {
	set, compileErr := rules.Compile(source, e.checker.catalog)
	if err := errors.Join(e.take(compileErr), e.take(checkSenders(source.Rules, &e.config)), e.take(checkRelays(source.Rules, &e.config))); err != nil {
		return err
	}
	tried := append(slices.Clone(set.Rules), e.askable(source, set)...)
	found, err := e.checker.check(ctx, &rules.Set{Rules: tried})
	if err != nil {
		return err
	}
	found = append(found, e.unmade(source, tried)...)
	e.report.Findings = append(e.report.Findings, once(found)...)
	e.report.Findings = append(e.report.Findings, set.CheckTests()...)
	e.report.Findings = append(e.report.Findings, set.Lint(e.checker.catalog)...)
	e.lintTemplates(ctx, source, set)
	e.plan(set)
	if e.options.Against != "" && e.report.Errors() == 0 {
		if err := e.compareWith(ctx, source, set); err != nil {
			return err
		}
	}
	e.count()
	e.report.Findings = source.Silence(e.report.Findings, func(id rules.ID) bool {
		switch id {
		case scanned:
			return e.options.Plan
		case unpublished:
			return e.checker.rows != nil
		case unusedTemplate, subjectSecret, unshownLoad, unzoned, noLabel:
			return e.checker.mails != nil
		}
		return true
	})
	return nil
}

// askable are rules that are not sound for what their expressions say alone: their queries and templates can be tried all the same, so
// that all mistakes are told at once.
func (e *examination) askable(source *rules.Source, set *rules.Set) []*rules.Rule {
	var list []*rules.Rule
	sound := names(set.Rules)
	for _, r := range source.Rules {
		if sound[r.Name] {
			continue
		}
		errs := slices.DeleteFunc(slices.Clone(e.report.Findings), func(f *rules.Error) bool { return f.Rule != r.Name || f.ID.Warning() })
		if len(errs) > 0 && !slices.ContainsFunc(errs, func(f *rules.Error) bool { return !strings.HasPrefix(string(f.ID), "PM1") }) {
			list = append(list, r)
		}
	}
	return list
}

func names(list []*rules.Rule) map[string]bool {
	all := make(map[string]bool, len(list))
	for _, r := range list {
		all[r.Name] = true
	}
	return all
}

// unmade finds templates that are not there, of rules that nothing else can be tried of.
func (e *examination) unmade(source *rules.Source, done []*rules.Rule) (found rules.Errors) {
	tried := names(done)
	for _, r := range source.Rules {
		if e.checker.mails != nil && r.Template != "" && !tried[r.Name] && !e.checker.mails.Has(r.Template) {
			found = append(found, e.checker.missing(r))
		}
	}
	return found
}

func (e *examination) count() {
	t := &e.checker.tried
	e.report.Prepared, e.report.Unprepared = int(t.prepared.Load()), int(t.unprepared.Load())
	e.report.Rendered, e.report.WithRow = int(t.rendered.Load()), int(t.withRow.Load())
	e.report.WithoutRow = e.checker.without
	slices.SortFunc(e.report.WithoutRow, func(a, b WithoutRow) int { return cmp.Compare(a.Rule, b.Rule) })
	switch n := e.report.Unprepared; {
	case n == 1:
		e.untried("1 query was not tried: no database")
	case n > 0:
		e.untried("%d queries were not tried: no database", n)
	}
}
