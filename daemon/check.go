package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/dispatch"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// checker tries what a set's rules will do when they fire: each query is prepared on the live database, and each template is
// rendered with rows of the types that the queries give. What is the same for several rules is tried once. It is for one set.
type checker struct {
	catalog *cdc.Catalog
	lookup  *dispatch.Lookup // nil: no database is at hand, and queries are not tried
	rows    *pgx.Conn        // where templates find a real row to be tried with; nil: nowhere
	mails   *templates.Set   // nil: templates are not tried
	dir     string           // their folder
	tried   tried
	samples map[*rules.Rule]samples // of rules whose templates fit; nil: nobody asks for them

	described memo[description] // by query and the types of its parameters
	trials    memo[trial]       // by template and what it sees
	worded    memo[bool]        // by template: whether it reads the rule's own words
	reading   sync.Mutex        // rows, samples and without
	without   []WithoutRow
}

// tried counts what a checker did.
type tried struct{ prepared, unprepared, rendered, withRow atomic.Int64 }

// check returns what the database does not bear, or the templates, in the rules' order. The error is the world's. As many rules are
// tried at the same time as there may be look-ups.
func (c *checker) check(ctx context.Context, set *rules.Set) (rules.Errors, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := 1
	if c.lookup != nil {
		workers = c.lookup.Conns()
	}
	found := make([]rules.Errors, len(set.Rules))
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(workers, len(found)) {
		group.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(found) && ctx.Err() == nil; i = next.Add(1) - 1 {
				var err error
				if found[i], err = c.one(ctx, set.Rules[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.Concat(found...), nil
}

// one tries one rule.
func (c *checker) one(ctx context.Context, r *rules.Rule) (rules.Errors, error) {
	v, mistakes, err := c.view(ctx, r)
	if err != nil {
		return nil, err
	}
	if c.mails != nil {
		misfits, err := c.template(ctx, v, len(mistakes) > 0)
		if err != nil {
			return nil, err
		}
		mistakes = append(mistakes, misfits...)
	}
	if len(mistakes) == 0 && c.samples != nil {
		c.reading.Lock()
		defer c.reading.Unlock()
		c.samples[r] = c.sample(v)
	}
	return mistakes, nil
}

// recipientColumns are what `.to` always has.
var recipientColumns = []string{"email", "name", "locale", "timezone"}

// recipients describes the columns of `.to`: those of all the rule's sources, and the four that are always there. They are not
// known where a query could not be asked about.
func (c *checker) recipients(ctx context.Context, r *rules.Rule, row []value.Column) (to []value.Column, known bool, broken rules.Errors, err error) {
	known = true
	for _, source := range append(slices.Clone(r.To), r.CC...) {
		if source.Query == nil {
			continue
		}
		columns, mistake, err := c.describe(ctx, r, source.Query, row, nil)
		if err != nil {
			return nil, false, nil, err
		}
		if columns != nil {
			mistake = addressed(r, source.Query, columns)
		}
		known = known && columns != nil
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
	return to, known, broken, nil
}

func named(columns []value.Column, name string) bool {
	return slices.ContainsFunc(columns, func(c value.Column) bool { return c.Name == name })
}

// addressed finds a query for recipients that gives no address.
func addressed(r *rules.Rule, q *rules.SQL, columns []value.Column) *rules.Error {
	i := slices.IndexFunc(columns, func(c value.Column) bool { return c.Name == "email" })
	if i < 0 {
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = c.Name
		}
		return r.Mistake("PM309", q.Place(), "the query for recipients has no column named email, only "+strings.Join(names, ", "), "name the address so: select mail as email …")
	}
	if t := columns[i].Type; !textual(t.Base) {
		return r.Mistake("PM309", q.Place(), "the column email of the query for recipients is "+t.Name+", not text", "it is to hold an address: kim@example.com")
	}
	return nil
}

// textual says whether values of a type can be addresses: what is known to be another thing cannot.
func textual(base uint32) bool {
	switch base {
	case pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.JSONOID,
		pgtype.JSONBOID, pgtype.ByteaOID, pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.UUIDOID:
		return false
	}
	_, list := value.Element(base)
	return !list
}

// recipient finds names of the recipient that no query gives.
func recipient(r *rules.Rule, q *rules.SQL, to []value.Column) (broken rules.Errors) {
	names := make([]string, len(to))
	for i, c := range to {
		names[i] = c.Name
	}
	for i, p := range q.Params {
		if p.Scope == "to" && !slices.Contains(names, p.Name) {
			broken = append(broken, r.Mistake("PM306", q.ParamPlace(i), "the recipient has no column "+p.Name,
				cmp.Or(rules.Nearest(p.Name, names), "let the query of to give it; there are "+strings.Join(names, ", "))))
		}
	}
	return broken
}

// describe prepares a query. What Postgres has against it is a mistake of the rule's; other errors are the world's. The columns are
// nil where they are not known.
func (c *checker) describe(ctx context.Context, r *rules.Rule, q *rules.SQL, row, to []value.Column) ([]value.Column, *rules.Error, error) {
	if c.lookup == nil {
		c.tried.unprepared.Add(1)
		return nil, nil, nil
	}
	switch d, err := c.description(ctx, q, row, to); {
	case err != nil:
		return nil, nil, fmt.Errorf("checking the queries of rule %q: %w", r.Name, err)
	case d.refused != nil:
		return nil, c.refusal(r, q, d.refused), nil
	default:
		c.tried.prepared.Add(1)
		return d.columns, nil, nil
	}
}

// description asks for what is said of a query, once.
func (c *checker) description(ctx context.Context, q *rules.SQL, row, to []value.Column) (description, error) {
	oids := parameterTypes(q, row, to)
	return c.described.of(fmt.Sprint(oids, q.Text), func() (description, error) { return c.ask(ctx, q, oids) })
}

// description is what Postgres says of a query: its columns, or why it refuses it.
type description struct {
	columns []value.Column
	refused *pgconn.PgError
}

func (c *checker) ask(ctx context.Context, q *rules.SQL, oids []uint32) (description, error) {
	columns, err := c.lookup.Describe(ctx, q, oids)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P18" { // a message's key, of which only the value tells the type
		for i := range oids {
			if oids[i] == 0 {
				oids[i] = pgtype.TextOID
			}
		}
		columns, err = c.lookup.Describe(ctx, q, oids)
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && lasting(pg) {
		return description{refused: pg}, nil
	}
	return description{columns: columns}, err
}

// lasting says whether Postgres refuses the query itself. What an operator, a lock or want of something may have caused is of the
// moment; all else is the query's, since a type's own input function may raise whatever it likes ("PostgreSQL Error Codes").
func lasting(e *pgconn.PgError) bool {
	for _, class := range []string{"08", "40", "53", "55", "57", "58"} {
		if strings.HasPrefix(e.Code, class) {
			return false
		}
	}
	return true
}

// refusal is what Postgres says of a query, at the word that it says it of.
func (c *checker) refusal(r *rules.Rule, q *rules.SQL, e *pgconn.PgError) *rules.Error {
	place := q.Place()
	if e.Position > 0 {
		place = q.At(int(e.Position))
	}
	return r.Mistake("PM308", place, "Postgres refuses the query: "+e.Message, c.wayOut(q, e))
}

// SQLSTATEs of mistakes that Postgres' own hint does not help an analyst with.
const (
	undefinedTable    = "42P01"
	undefinedColumn   = "42703"
	undefinedFunction = "42883"
	ambiguousFunction = "42725"
	wrongType         = "42804"
	noPrivilege       = "42501"
	queryCanceled     = "57014" // by the statement's time-out
)

func (c *checker) wayOut(q *rules.SQL, e *pgconn.PgError) string {
	switch {
	case e.Code == undefinedColumn && e.Position > 0 && strings.HasPrefix(string([]rune(q.Text)[e.Position-1:]), `"`):
		return "a text stands in single quotes in SQL: 'meeting'; double quotes are for names of tables and columns"
	case e.Code == undefinedTable && strings.HasPrefix(e.Message, "relation "):
		return rules.Nearest(strings.Trim(strings.TrimSuffix(strings.TrimPrefix(e.Message, "relation "), " does not exist"), `"`), c.tables())
	case slices.Contains([]string{undefinedFunction, ambiguousFunction, wrongType}, e.Code) && slices.ContainsFunc(q.Params, func(p rules.Param) bool { return p.Scope == "message" }):
		return "a message's key is text where nothing else is said: write @message.id::bigint"
	case e.Code == noPrivilege:
		return "let the role of the look-ups read it: grant select on … to …; (LOOKUP_URL, or else DATABASE_URL)"
	}
	return e.Hint
}

func (c *checker) tables() []string {
	names := make([]string, len(c.catalog.Names))
	for i, n := range c.catalog.Names {
		names[i] = n.String()
	}
	return names
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
