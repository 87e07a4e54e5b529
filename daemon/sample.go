package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/cdc"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// samples are what a template would see of a row that is filled, and of one of NULLs.
type samples struct{ filled, nulls templates.Data }

func (s samples) add(name string, columns []value.Column) {
	s.filled[name], s.nulls[name] = templates.Sample(columns, false), templates.Sample(columns, true)
}

func (s samples) set(name string, v any) { s.filled[name], s.nulls[name] = v, v }

// sample describes all that a rule's template sees.
func (c *checker) sample(ctx context.Context, r *rules.Rule) (samples, rules.Errors, error) {
	s := samples{make(templates.Data), make(templates.Data)}
	table := c.catalog.Tables[r.On.Table]
	s.set("rule", r.Name)
	s.set("about", r.About)
	s.set("op", r.On.Ops[0].String())
	s.set("table", r.On.Table.String())
	s.set("commit_time", time.Now())
	s.set("row", nil)
	s.set("message", nil)
	var columns []value.Column
	if table == nil {
		s.set("message", templates.Unknown{})
		s.add("new", nil)
		s.add("old", nil)
	} else {
		columns = valueColumns(table.Columns)
		s.add("new", columns)
		s.add("old", valueColumns(carried(table, r.On.Ops)))
	}
	to, known, broken, err := c.recipients(ctx, r, columns)
	if err != nil {
		return s, nil, err
	}
	s.add("to", to)
	s.filled["to"].(map[string]any)["locale"] = nil // the locale that is checked is the template's
	if !known {
		s.set("to", templates.Unknown{})
	}
	for _, l := range r.Load {
		if known {
			broken = append(broken, recipient(r, l.SQL, to)...)
		}
	}
	loads, err := c.loads(ctx, r, s, columns, to)
	return s, append(broken, loads...), err
}

func valueColumns(of []cdc.Column) []value.Column {
	columns := make([]value.Column, len(of))
	for i := range of {
		columns[i] = of[i].Column
	}
	return columns
}

// carried are the columns of the old row that a template can count on: an insert's are all NULL, while of updates and deletes
// the stream tells those of the replica identity.
func carried(t *cdc.Table, ops []cdc.Op) []cdc.Column {
	if t.Identity == cdc.IdentityFull || !slices.Contains(ops, cdc.Update) && !slices.Contains(ops, cdc.Delete) {
		return t.Columns
	}
	return slices.DeleteFunc(slices.Clone(t.Columns), func(c cdc.Column) bool { return !c.Key })
}

// loads adds what each `load` gives.
func (c *checker) loads(ctx context.Context, r *rules.Rule, s samples, row, to []value.Column) (broken rules.Errors, err error) {
	for _, l := range r.Load {
		columns, mistake, err := c.describe(ctx, r, l.SQL, row, to)
		if err != nil {
			return nil, err
		}
		if mistake != nil {
			broken = append(broken, mistake)
		}
		switch {
		case columns == nil:
			s.set(l.Name, templates.Unknown{})
		case l.All:
			s.filled[l.Name] = []map[string]any{templates.Sample(columns, false)}
			s.nulls[l.Name] = []map[string]any{templates.Sample(columns, true)}
		default:
			s.add(l.Name, columns)
		}
	}
	return broken, nil
}

// template tries a rule's template, in all of its languages; unknown says that what some of its queries give is not known.
func (c *checker) template(ctx context.Context, r *rules.Rule, s samples, unknown bool) (rules.Errors, error) {
	if !c.mails.Has(r.Template) {
		hint := cmp.Or(rules.Nearest(r.Template, c.mails.Names()), "make "+filepath.Join(c.dir, r.Template+".html"))
		return rules.Errors{r.Mistake("PM501", r.Key("template"), fmt.Sprintf("there is no template %q", r.Template), hint)}, nil
	}
	c.tried.rendered++
	var found rules.Errors
	for _, m := range templates.Mistakes(c.mails.Check(r.Template, s.filled, s.nulls)) {
		found = append(found, c.misfit(r, "PM503", m))
	}
	if len(found) > 0 || unknown || c.rows == nil {
		return found, nil
	}
	row, err := realRow(ctx, c.rows, c.catalog.Tables[r.On.Table])
	if err != nil || row == nil {
		return nil, err
	}
	c.tried.withRow++
	data := maps.Clone(s.filled)
	data["new"] = row
	old := maps.Clone(row)
	maps.DeleteFunc(old, func(name string, _ any) bool { _, ok := s.filled["old"].(map[string]any)[name]; return !ok })
	data["old"] = old
	for _, locale := range c.mails.Locales(r.Template) {
		_, err := c.mails.Render(r.Template, templates.Context{Locale: locale}, data)
		for _, m := range templates.Mistakes(err) {
			m.Message += fmt.Sprintf(" (of the newest row of %s)", r.On.Table)
			found = append(found, c.misfit(r, "PM504", m))
		}
	}
	return found, nil
}

// misfit is a mistake of a template as one of the rule that takes it.
func (c *checker) misfit(r *rules.Rule, id rules.ID, m templates.Mistake) *rules.Error {
	e := &rules.Error{ID: id, Rule: r.Name, Message: m.Message, Hint: m.Hint, Line: m.Source}
	e.Place = rules.Place{File: filepath.Join(c.dir, m.File), Line: m.Line, Column: m.Column}
	t := c.catalog.Tables[r.On.Table]
	if name, ok := strings.CutPrefix(m.Message, "there is no .old."); ok && t != nil && t.Column(name) >= 0 {
		e.Message = fmt.Sprintf("the stream does not carry .old.%s: it is not in the replica identity of %s", name, t.TableName)
		e.Hint = fmt.Sprintf("run: ALTER TABLE %s REPLICA IDENTITY FULL;", pgx.Identifier{t.Schema, t.Name}.Sanitize())
	}
	return e
}

// realRow reads a row of a table, the one with the greatest primary key, as a template would see it; nil if there is none, or
// none that this role may read in time.
func realRow(ctx context.Context, conn *pgx.Conn, t *cdc.Table) (map[string]any, error) {
	if t == nil {
		return nil, nil
	}
	var names, order []string
	for _, c := range t.Columns {
		name := pgx.Identifier{c.Name}.Sanitize()
		if names = append(names, name); c.PK {
			order = append(order, name+" desc")
		}
	}
	sql := fmt.Sprintf("select %s from %s", strings.Join(names, ", "), pgx.Identifier{t.Schema, t.Name}.Sanitize())
	if len(order) > 0 {
		sql += " order by " + strings.Join(order, ", ")
	}
	r := conn.PgConn().ExecParams(ctx, sql+" limit 1", nil, nil, nil, nil).Read()
	if pg, ok := errors.AsType[*pgconn.PgError](r.Err); ok && (pg.Code == noPrivilege || pg.Code == queryCanceled) {
		return nil, nil
	}
	if r.Err != nil {
		return nil, fmt.Errorf("reading a row of %s: %w", t.TableName, r.Err)
	}
	if len(r.Rows) == 0 {
		return nil, nil
	}
	row := make(map[string]any, len(names))
	for i, c := range t.Columns {
		d := value.Datum{State: value.Null}
		if text := r.Rows[0][i]; text != nil {
			d = value.Datum{State: value.Present, Text: text}
		}
		v, err := value.Decode(c.Type.Base, d)
		if err != nil {
			return nil, fmt.Errorf("reading a row of %s: column %s: %w", t.TableName, c.Name, err)
		}
		row[c.Name] = v
	}
	return row, nil
}
