package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/rules"
	"postman/templates"
)

// The warnings that are found here and not in rules.
const (
	scanned        rules.ID = "PM204"
	unusedTemplate rules.ID = "PM221"
	subjectSecret  rules.ID = "PM222"
	unshownLoad    rules.ID = "PM223"
	unzoned        rules.ID = "PM225"
	noLabel        rules.ID = "PM226"
	unpublished    rules.ID = "PM224"
	emptyRow       rules.ID = "PM227"
	sentAsText     rules.ID = "PM228"
)

// plan tells how changes find each rule, and warns of rules that every change has to be tried against.
func (e *examination) plan(set *rules.Set) {
	if !e.options.Plan {
		return
	}
	e.report.Plan = set.Keys()
	for _, r := range e.report.Plan {
		for _, op := range r.Ops {
			if op.Scan != "" && !op.Always && !op.Never && r.Rule.When != nil {
				e.warn(r.Rule, scanned, r.Rule.Key("when"), fmt.Sprintf("every %s of %s is tried against this rule: no index helps with %s", op.Op, r.Rule.On.Table, op.Scan),
					`add a condition on a column's value, as in new.status == "open" and …`)
				break
			}
		}
	}
}

// checkPublished warns of tables that are not published, where the role that the daemon has may not publish them. Where there are no
// publications yet, all of that is still to come.
func (e *examination) checkPublished(ctx context.Context, conn *pgx.Conn, source *rules.Source) error {
	db, err := cdc.Inspect(ctx, conn, e.config.Slot)
	if err != nil || db.Slot == nil {
		return err
	}
	asked := make(map[cdc.TableName]bool)
	for _, r := range source.Rules {
		if r.On.Message != "" || asked[r.On.Table] || e.checker.catalog.Tables[r.On.Table] == nil {
			continue
		}
		asked[r.On.Table] = true
		var needs []cdc.Need
		for _, n := range source.Needs() {
			if n.Table == r.On.Table {
				needs = append(needs, n)
			}
		}
		plan, _ := cdc.PlanPublications(db, e.config.Slot, needs, e.checker.catalog) // what cannot be published at all is told with its rule
		if len(plan.Missing) == 0 {
			continue
		}
		may, err := cdc.MayPublish(ctx, conn, e.config.Slot, []cdc.TableName{r.On.Table})
		if err != nil {
			return err
		}
		if !may {
			e.warn(r, unpublished, r.Key("on"), fmt.Sprintf("%s is not published for this yet, and the role %q may not publish it: without that the rule is not loaded", r.On.Table, db.Role),
				"a DBA has to run: "+strings.Join(plan.Missing, " ")+" A postman that runs loads it then by itself")
		}
	}
	return nil
}

func (e *examination) warn(r *rules.Rule, id rules.ID, at rules.Place, message, hint string) {
	e.report.Findings = append(e.report.Findings, r.Mistake(id, at, message, hint))
}

// lintTemplates looks at what templates show of their rules.
func (e *examination) lintTemplates(ctx context.Context, source *rules.Source, set *rules.Set) {
	if e.checker.mails == nil {
		return
	}
	for _, r := range set.Rules {
		if s, ok := e.checker.samples[r]; ok {
			uses := e.checker.mails.Uses(r.Template, s.filled)
			e.lintTemplate(r, uses)
			e.lintLabels(r, s)
			e.lintZone(ctx, r, s, uses)
		}
	}
	e.unused(source)
	e.literal()
}

func (e *examination) lintTemplate(r *rules.Rule, uses map[templates.Use]bool) {
	shown := make(map[string]bool)
	secrets := make(map[string]bool)
	for u := range uses {
		if u.Of == "" {
			shown[u.Name] = true
		}
		if (u.Block == "subject" || u.Block == "preheader") && slices.Contains([]string{"new", "old", "message"}, u.Of) && r.Hides(u.Name) {
			secrets["."+u.Of+"."+u.Name+" in its "+u.Block] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		e.warn(r, subjectSecret, r.Key("template"), fmt.Sprintf("the template shows the sensitive %s: it is read on locked screens and in lists", name),
			"show it in the body alone")
	}
	e.emptyRows(r, uses)
	for _, l := range r.Load {
		if !shown[l.Name] {
			e.warn(r, unshownLoad, l.SQL.Place(), fmt.Sprintf("the template never shows .%s: the query is run for nothing", l.Name), "leave it out of load, or show it")
		}
	}
}

var ignoring = regexp.MustCompile(`\{\{-?\s*/\*\s*postman:\s*ignore\s([^*]*)`)

// ignores says whether a comment in a template's file silences a warning.
func ignores(file string, id rules.ID) bool {
	text, err := os.ReadFile(file)
	return err == nil && slices.ContainsFunc(ignoring.FindAllStringSubmatch(string(text), -1), func(m []string) bool {
		return slices.Contains(strings.FieldsFunc(m[1], func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), string(id))
	})
}

// unused finds templates that no rule takes. Of some files among many, or of a name that a mistake may stand in, nothing can be said.
func (e *examination) unused(source *rules.Source) {
	if len(e.options.Paths) > 0 || e.report.Errors() > 0 {
		return
	}
	for _, name := range e.checker.mails.Names() {
		if slices.ContainsFunc(source.Rules, func(r *rules.Rule) bool { return r.Template == name }) {
			continue
		}
		file := filepath.Join(e.config.Templates, name+".html")
		if ignores(file, unusedTemplate) {
			continue
		}
		e.report.Findings = append(e.report.Findings, &rules.Error{
			ID: unusedTemplate, Place: rules.Place{File: file}, Message: "no rule takes this template",
			Hint: "delete it, or name it in a rule: template: " + name,
		})
	}
}

// once leaves out what was found again through another rule: two rules may take one template.
func once(found rules.Errors) rules.Errors {
	type key struct {
		id      rules.ID
		place   rules.Place
		message string
	}
	seen := make(map[key]bool)
	return slices.DeleteFunc(found, func(e *rules.Error) bool {
		k := key{e.ID, e.Place, e.Message}
		again := seen[k]
		seen[k] = true
		return again && (e.ID == "PM503" || e.ID == "PM504")
	})
}
