package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// lintLabels finds texts that a template compares an enum with and that are none of its labels.
func (e *examination) lintLabels(r *rules.Rule, s samples) {
	t := e.checker.catalog.Tables[r.On.Table]
	if t == nil {
		return
	}
	columns := enums(t)
	err := e.checker.mails.CheckLabels(r.Template, s.filled, templates.Labels{"new": columns, "old": columns})
	for _, m := range templates.Mistakes(err) {
		if found := e.checker.misfit(r, noLabel, m); !ignores(found.Place.File, noLabel) {
			e.report.Findings = append(e.report.Findings, found)
		}
	}
}

// emptyRows finds a template that shows of a row that none of the rule's changes has.
func (e *examination) emptyRows(r *rules.Rule, uses map[templates.Use]bool) {
	for _, row := range []struct {
		of, why string
		has     []cdc.Op
	}{{"old", "an insert has no old row", []cdc.Op{cdc.Update, cdc.Delete}}, {"new", "a delete has no new row", []cdc.Op{cdc.Insert, cdc.Update}}} {
		if r.On.Message != "" || slices.ContainsFunc(r.On.Ops, func(op cdc.Op) bool { return slices.Contains(row.has, op) }) {
			continue
		}
		var shown []string
		for u := range uses {
			if name := "." + u.Of + "." + u.Name; u.Of == row.of && u.Name != "" && !slices.Contains(shown, name) {
				shown = append(shown, name)
			}
		}
		if slices.Sort(shown); len(shown) > 0 {
			e.warn(r, emptyRow, r.Key("template"), fmt.Sprintf("the template shows %s, which is always empty: %s", strings.Join(shown, ", "), row.why),
				"leave it out, or add the operation to ops that it is for")
		}
	}
}

// asText is a value in the form of another language, which is sent as it stands: ${new.note}, {new.note}.
var asText = regexp.MustCompile(`[$#]?\{ *\.?((?:new|old|to|message)\.\w[\w.]*) *\}`)

// literal finds values that a template would send as text.
func (e *examination) literal() {
	for _, file := range mailFiles(e.config.Templates) {
		text, err := os.ReadFile(file)
		if err != nil || ignores(file, sentAsText) { // what cannot be read was told before
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, at := range asText.FindAllStringSubmatchIndex(line, -1) {
				if strings.HasSuffix(line[:at[0]], "{") || strings.HasPrefix(line[at[1]:], "}") {
					continue // an action
				}
				e.report.Findings = append(e.report.Findings, &rules.Error{
					ID: sentAsText, Place: rules.Place{File: file, Line: i + 1, Column: utf8.RuneCountInString(line[:at[0]]) + 1}, Line: line,
					Message: fmt.Sprintf("%s is sent as it stands", line[at[0]:at[1]]), Hint: fmt.Sprintf("write {{.%s}}", line[at[2]:at[3]]),
				})
			}
		}
	}
}

// mailFiles are the files of a folder of templates.
func mailFiles(dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*.html"))
	if err != nil { // of a folder with odd signs in its name nothing is said
		return nil
	}
	return files
}

func enums(t *cdc.Table) map[string][]string {
	labels := make(map[string][]string)
	for _, c := range t.Columns {
		if len(c.Enum) > 0 {
			labels[c.Name] = c.Enum
		}
	}
	return labels
}

// lintZone finds a mail that shows moments to somebody of whom no time zone is known: what is then shown is UTC. A configuration with
// another zone has thought of it. Whether the zone matters to the mail, two that are far apart tell.
func (e *examination) lintZone(ctx context.Context, r *rules.Rule, s samples, uses map[templates.Use]bool) {
	query, zoneless := e.zoneless(ctx, r)
	if !zoneless || r.Zone != nil || e.config.Timezone != "UTC" || !e.zoned(r.Template, s) {
		return
	}
	var shown []string
	for u := range uses {
		name := strings.TrimPrefix("."+u.Of+"."+u.Name, ".")
		if _, moment := valueOf(s.filled, u).(time.Time); moment && !slices.Contains(shown, "."+strings.TrimPrefix(name, ".")) {
			shown = append(shown, "."+strings.TrimPrefix(name, "."))
		}
	}
	slices.Sort(shown)
	what := strings.Join(shown[:min(len(shown), 3)], ", ")
	e.warn(r, unzoned, r.Key("to"), fmt.Sprintf("the mail shows %s, and no time zone is known of the recipient: it is shown in UTC", what), e.zoneHint(ctx, query))
}

// zoneless says whether the rule tells somebody of whom no time zone is known, and by which query (nil: by none).
func (e *examination) zoneless(ctx context.Context, r *rules.Rule) (*rules.SQL, bool) {
	var row []value.Column
	if t := e.checker.catalog.Tables[r.On.Table]; t != nil {
		row = valueColumns(t.Columns)
	}
	for _, source := range r.To {
		if source.Query == nil {
			return nil, true
		}
		if e.checker.lookup == nil {
			continue
		}
		if d, err := e.checker.description(ctx, source.Query, row, nil); err == nil && d.refused == nil && !named(d.columns, "timezone") {
			return source.Query, true
		}
	}
	return nil, false
}

// zoned says whether a mail of the sample looks different in another time zone.
func (e *examination) zoned(name string, s samples) bool {
	far := time.FixedZone("far", 14*60*60)
	for _, locale := range e.checker.mails.Locales(name) {
		here, err := e.checker.mails.Render(name, templates.Context{Locale: locale}, s.filled)
		there, farErr := e.checker.mails.Render(name, templates.Context{Locale: locale, Zone: far}, s.filled)
		if err == nil && farErr == nil && (here.Subject != there.Subject || here.HTML != there.HTML || here.Text != there.Text || string(here.ICS) != string(there.ICS)) {
			return true
		}
	}
	return false
}

// valueOf is what a template reads of a sample.
func valueOf(d templates.Data, u templates.Use) any {
	if u.Of == "" {
		return d[u.Name]
	}
	switch of := d[u.Of].(type) {
	case map[string]any:
		return of[u.Name]
	case []map[string]any:
		if len(of) > 0 {
			return of[0][u.Name]
		}
	}
	return nil
}

// readFrom are the tables that a query names behind from and join.
var readFrom = regexp.MustCompile(`(?i)\b(?:from|join)\s+((?:[\pL_][\pL\pN_]*|"[^"]+")(?:\.(?:[\pL_][\pL\pN_]*|"[^"]+"))?)`)

// zoneHint names the column that tells a recipient's time zone, where a table of the query has one.
func (e *examination) zoneHint(ctx context.Context, query *rules.SQL) string {
	const otherwise = "give the rule a timezone: Asia/Seoul, or set one in postman.yaml"
	if query == nil {
		return otherwise
	}
	for _, m := range readFrom.FindAllStringSubmatch(query.Text, -1) {
		if column := zoneColumn(ctx, e.checker.rows, m[1]); column != "" {
			give := column
			if column != "timezone" {
				give += " as timezone"
			}
			return fmt.Sprintf("%s has the column %s: let the query give it, as in select email, %s from …", m[1], column, give)
		}
	}
	return "let the query give a column timezone, or " + otherwise
}

// zoneColumn is the column of a table that by its name holds a time zone; empty where there is none, or it cannot be asked for.
func zoneColumn(ctx context.Context, conn *pgx.Conn, table string) string {
	if conn == nil {
		return ""
	}
	var name string
	err := conn.QueryRow(ctx, `select quote_ident(attname) from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
		and lower(attname) in ('timezone', 'time_zone', 'tz', 'zone') order by attnum limit 1`, table).Scan(&name)
	if err != nil {
		return "" // only the hint is poorer for it
	}
	return name
}
