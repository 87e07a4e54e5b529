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

// view is what a rule's template sees, but for the values.
type view struct {
	rule  *rules.Rule
	table *cdc.Table     // nil: a message
	to    []value.Column // of the recipient
	known bool           // whether that is all of them
	loads []loaded       // beside rule.Load
}

// loaded is what a `load` gives; nil: that is not known.
type loaded []value.Column

// view asks the database what the rule's queries give, and says what it has against them.
func (c *checker) view(ctx context.Context, r *rules.Rule) (view, rules.Errors, error) {
	v := view{rule: r, table: c.catalog.Tables[r.On.Table]}
	var row []value.Column
	if v.table != nil {
		row = valueColumns(v.table.Columns)
	}
	var broken rules.Errors
	var err error
	if v.to, v.known, broken, err = c.recipients(ctx, r, row); err != nil {
		return v, nil, err
	}
	for _, l := range r.Load {
		if v.known {
			broken = append(broken, recipient(r, l.SQL, v.to)...)
		}
	}
	for _, l := range r.Load {
		columns, mistake, err := c.describe(ctx, r, l.SQL, row, v.to)
		if err != nil {
			return v, nil, err
		}
		if mistake != nil {
			broken = append(broken, mistake)
		}
		v.loads = append(v.loads, columns)
	}
	return v, broken, nil
}

// key is the same for views of which a template sees the same. The rule's own words count where it reads them.
func (v view) key(words bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %v %v", v.rule.Template, v.rule.On.Table.String(), v.rule.On.Ops, v.known)
	if words {
		fmt.Fprintf(&b, " %q %q", v.rule.Name, v.rule.About)
	}
	seen := func(columns []value.Column) {
		for _, c := range columns {
			fmt.Fprintf(&b, " %q %d", c.Name, c.Type.Base)
		}
	}
	seen(v.to)
	for i, l := range v.rule.Load {
		fmt.Fprintf(&b, "\n%q %v %v", l.Name, l.All, v.loads[i] != nil)
		seen(v.loads[i])
	}
	return b.String()
}

// sample fills a view.
func (c *checker) sample(v view) samples {
	s, r := samples{make(templates.Data), make(templates.Data)}, v.rule
	s.set("rule", r.Name)
	s.set("about", r.About)
	s.set("op", r.On.Ops[0].String())
	s.set("table", r.On.Table.String())
	s.set("commit_time", time.Now())
	s.set("row", nil)
	s.set("message", nil)
	if v.table == nil {
		s.set("message", templates.Unknown{})
		s.add("new", nil)
		s.add("old", nil)
	} else {
		s.add("new", valueColumns(v.table.Columns))
		s.add("old", valueColumns(carried(v.table, r.On.Ops)))
	}
	s.add("to", v.to)
	s.filled["to"].(map[string]any)["locale"] = nil // the locale that is checked is the template's
	if !v.known {
		s.set("to", templates.Unknown{})
	}
	for i, l := range r.Load {
		switch columns := v.loads[i]; {
		case columns == nil:
			s.set(l.Name, templates.Unknown{})
		case l.All:
			s.filled[l.Name] = []map[string]any{templates.Sample(columns, false)}
			s.nulls[l.Name] = []map[string]any{templates.Sample(columns, true)}
		default:
			s.add(l.Name, columns)
		}
	}
	return s
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

// missing is a template that is not there.
func (c *checker) missing(r *rules.Rule) *rules.Error {
	hint := cmp.Or(rules.Nearest(r.Template, c.mails.Names()), "make "+filepath.Join(c.dir, r.Template+".html"))
	return r.Mistake("PM501", r.Key("template"), fmt.Sprintf("there is no template %q", r.Template), hint)
}

// template tries a rule's template, in all of its languages; unknown says that what some of its queries give is not known.
func (c *checker) template(ctx context.Context, v view, unknown bool) (rules.Errors, error) {
	r := v.rule
	if r.Template == "" { // which is told where the rule is read
		return nil, nil
	}
	if !c.mails.Has(r.Template) {
		return rules.Errors{c.missing(r)}, nil
	}
	words, err := c.worded.of(r.Template, func() (bool, error) { return c.mails.Reads(r.Template, "rule", "about"), nil })
	if err != nil {
		return nil, err
	}
	t, err := c.trials.of(fmt.Sprint(unknown, v.key(words)), func() (trial, error) { return c.try(ctx, v, unknown) })
	if err != nil {
		return nil, err
	}
	c.tried.rendered.Add(1)
	switch {
	case t.withRow:
		c.tried.withRow.Add(1)
	case t.noRow != "":
		c.reading.Lock()
		c.without = append(c.without, WithoutRow{r.Name, t.noRow})
		c.reading.Unlock()
	}
	var found rules.Errors
	for _, m := range t.misfits {
		found = append(found, c.misfit(r, t.id, m))
	}
	return found, nil
}

// trial is how a template did.
type trial struct {
	id      rules.ID // of the misfits
	misfits []templates.Mistake
	withRow bool   // it was tried with a real row, too
	noRow   string // why it was not, where it might have been
}

// try tries a template with samples and, where these fit, with a real row.
func (c *checker) try(ctx context.Context, v view, unknown bool) (trial, error) {
	s, name := c.sample(v), v.rule.Template
	if misfits := templates.Mistakes(c.mails.Check(name, s.filled, s.nulls)); len(misfits) > 0 || unknown || c.rows == nil {
		return trial{id: "PM503", misfits: misfits}, nil
	}
	c.reading.Lock()
	row, why, err := realRow(ctx, c.rows, v.table)
	c.reading.Unlock()
	if err != nil || row == nil {
		return trial{noRow: why}, err
	}
	data := maps.Clone(s.filled)
	data["new"] = row
	old := maps.Clone(row)
	maps.DeleteFunc(old, func(name string, _ any) bool { _, ok := s.filled["old"].(map[string]any)[name]; return !ok })
	data["old"] = old
	t := trial{id: "PM504", withRow: true}
	for _, locale := range c.mails.Locales(name) {
		_, err := c.mails.Render(name, templates.Context{Locale: locale}, data)
		for _, m := range templates.Mistakes(err) {
			m.Message += fmt.Sprintf(" (of the row of %s with the greatest primary key)", v.rule.On.Table)
			t.misfits = append(t.misfits, m)
		}
	}
	return t, nil
}

// misfit is a mistake of a template as one of the rule that takes it.
func (c *checker) misfit(r *rules.Rule, id rules.ID, m templates.Mistake) *rules.Error {
	e := &rules.Error{ID: id, Rule: r.Name, Message: m.Message, Hint: m.Hint, Line: m.Source}
	e.Place = rules.Place{File: filepath.Join(c.dir, m.File), Line: m.Line, Column: m.Column}
	t := c.catalog.Tables[r.On.Table]
	if name, ok := strings.CutPrefix(m.Message, "there is no .old."); ok && t != nil && t.Column(name) >= 0 {
		e.Message = fmt.Sprintf("the stream does not carry .old.%s: it is not in the replica identity of %s", name, t.TableName)
		if e.Hint = fmt.Sprintf("run: ALTER TABLE %s REPLICA IDENTITY FULL;", pgx.Identifier{t.Schema, t.Name}.Sanitize()); t.Partitioned {
			e.Hint = "leave it out: of a partitioned table Postgres tells the key of the old row alone, whatever its REPLICA IDENTITY"
		}
	}
	return e
}

// realRow reads a row of a table, the one with the greatest primary key, as a template would see it; nil if there is none, or
// none that this role may read in time, and why.
func realRow(ctx context.Context, conn *pgx.Conn, t *cdc.Table) (row map[string]any, why string, err error) {
	if t == nil {
		return nil, "a message has no row", nil
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
		return nil, fmt.Sprintf("no row of %s could be read: %s", t.TableName, pg.Message), nil
	}
	if r.Err != nil {
		return nil, "", fmt.Errorf("reading a row of %s: %w", t.TableName, r.Err)
	}
	if len(r.Rows) == 0 {
		return nil, t.String() + " is empty", nil
	}
	row = make(map[string]any, len(names))
	for i, c := range t.Columns {
		d := value.Datum{State: value.Null}
		if text := r.Rows[0][i]; text != nil {
			d = value.Datum{State: value.Present, Text: text}
		}
		v, err := value.Decode(c.Type.Base, d)
		if err != nil {
			return nil, "", fmt.Errorf("reading a row of %s: column %s: %w", t.TableName, c.Name, err)
		}
		row[c.Name] = v
	}
	return row, "", nil
}
