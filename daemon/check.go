package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/dispatch"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// checker tries what a set's rules will do when they fire: each query is prepared on the live database, and each template is
// rendered with rows of the types that the queries give.
type checker struct {
	// strict makes a template that does not fit a mistake of the files; otherwise it breaks its rule alone: a column that was
	// dropped may be why.
	strict  bool
	lookup  *dispatch.Lookup
	catalog *cdc.Catalog
	mails   *templates.Set
}

// recipientColumns are what `.to` always has.
var recipientColumns = []string{"email", "name", "locale", "timezone"}

// check returns the rules that the database does not bear, and, as an error, mistakes of the files themselves.
func (c *checker) check(ctx context.Context, set *rules.Set) (broken rules.Errors, err error) {
	var errs []error
	for _, r := range set.Rules {
		sample, mistakes, err := c.sample(ctx, r)
		if err != nil {
			return nil, err
		}
		broken = append(broken, mistakes...)
		if len(mistakes) > 0 {
			continue
		}
		if mistake := c.template(r, sample); mistake != nil {
			if c.strict || !c.mails.Has(r.Template) {
				errs = append(errs, mistake)
			} else {
				broken = append(broken, mistake)
			}
		}
	}
	if len(errs) > 0 {
		return broken, refused{errors.Join(errs...)}
	}
	return broken, nil
}

func (c *checker) template(r *rules.Rule, sample samples) *rules.Error {
	mistake := &rules.Error{ID: "PM501", Place: r.Place, Rule: r.Name}
	if !c.mails.Has(r.Template) {
		mistake.Message = fmt.Sprintf("there is no template %q", r.Template)
		mistake.Hint = fmt.Sprintf("make %s.html in the folder of templates, or take one of %q", r.Template, c.mails.Names())
		return mistake
	}
	if err := c.mails.Check(r.Template, sample.filled, sample.nulls); err != nil {
		mistake.ID, mistake.Message = "PM503", "its template does not fit:\n"+err.Error()
		return mistake
	}
	return nil
}

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
	s.set("op", "insert")
	s.set("table", r.On.Table.String())
	s.set("commit_time", time.Now())
	s.set("row", nil)
	s.set("message", nil)
	var columns []value.Column
	if table == nil {
		s.set("message", templates.Unknown{})
	} else {
		columns = valueColumns(table)
	}
	s.add("new", columns)
	s.add("old", columns)

	to, broken, err := c.recipients(ctx, r, columns)
	if err != nil || len(broken) > 0 {
		return s, broken, err
	}
	s.add("to", to)
	s.filled["to"].(map[string]any)["locale"] = nil // the locale that is checked is the template's
	loads, err := c.loads(ctx, r, s, columns, to)
	return s, loads, err
}

func valueColumns(t *cdc.Table) []value.Column {
	columns := make([]value.Column, len(t.Columns))
	for i := range t.Columns {
		columns[i] = t.Columns[i].Column
	}
	return columns
}

// recipients describes the columns of `.to`: those of all the rule's sources, and the four that are always there.
func (c *checker) recipients(ctx context.Context, r *rules.Rule, row []value.Column) (to []value.Column, broken rules.Errors, err error) {
	for _, source := range append(slices.Clone(r.To), r.CC...) {
		if source.Query == nil {
			continue
		}
		columns, mistake, err := c.describe(ctx, r, source.Query, row, nil)
		if err != nil {
			return nil, nil, err
		}
		if mistake == nil && !named(columns, "email") {
			mistake = queryMistake(r, source.Query, "PM309", "the query for recipients has no column named email", `name the address so: select mail as email …`)
		}
		if mistake != nil {
			broken = append(broken, mistake)
		}
		to = append(to, columns...)
	}
	for _, name := range recipientColumns {
		if !named(to, name) {
			to = append(to, value.Column{Name: name, Type: value.Type{OID: pgtype.TextOID, Base: pgtype.TextOID}})
		}
	}
	return to, broken, nil
}

func named(columns []value.Column, name string) bool {
	return slices.ContainsFunc(columns, func(c value.Column) bool { return c.Name == name })
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
		if l.All {
			s.filled[l.Name] = []map[string]any{templates.Sample(columns, false)}
			s.nulls[l.Name] = []map[string]any{templates.Sample(columns, true)}
		} else {
			s.add(l.Name, columns)
		}
	}
	return broken, nil
}

// describe prepares a query. What Postgres has against it is a mistake of the rule's; other errors are the world's.
func (c *checker) describe(ctx context.Context, r *rules.Rule, q *rules.SQL, row, to []value.Column) ([]value.Column, *rules.Error, error) {
	oids := parameterTypes(q, row, to)
	columns, err := c.lookup.Describe(ctx, q, oids)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P18" { // a message's key, of which only the value tells the type
		for i := range oids {
			if oids[i] == 0 {
				oids[i] = pgtype.TextOID
			}
		}
		columns, err = c.lookup.Describe(ctx, q, oids)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return columns, nil, nil
	case ok:
		return nil, queryMistake(r, q, "PM308", "Postgres refuses the query: "+pg.Message, pg.Hint), nil
	}
	return nil, nil, fmt.Errorf("checking the queries of rule %q: %w", r.Name, err)
}

func queryMistake(r *rules.Rule, q *rules.SQL, id rules.ID, message, hint string) *rules.Error {
	return &rules.Error{ID: id, Place: q.Place, Rule: r.Name, Message: message, Hint: hint}
}

func parameterTypes(q *rules.SQL, row, to []value.Column) []uint32 {
	oids := make([]uint32, len(q.Params))
	for i, p := range q.Params {
		of := row
		if p.Scope == "to" {
			of = to
		}
		if j := slices.IndexFunc(of, func(c value.Column) bool { return c.Name == p.Name }); j >= 0 && p.Scope != "message" {
			oids[i] = of[j].Type.OID
		}
	}
	return oids
}
