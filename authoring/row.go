package authoring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/cdc"
	"postman/daemon"
	"postman/dispatch"
	"postman/rules"
	"postman/value"
)

// mostRows is how many rows are looked at for one that matches.
const mostRows = 1000

// mostTried is for how many rows that match recipients are asked for, until there is one.
const mostTried = 25

// reader reads rows of the tables that rules are about.
type reader struct{ conn *pgx.Conn }

// openReader connects as look-ups do: read-only, and with values as the stream prints them.
func openReader(ctx context.Context, config *daemon.Config) (*reader, error) {
	url := config.LookupURL
	if url == "" {
		url = config.DatabaseURL
	}
	c, err := pgx.ParseConfig(string(url))
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL: %w", err)
	}
	timeout := time.Duration(config.Lookup.Timeout)
	maps.Copy(c.RuntimeParams, dispatch.PinnedSettings())
	maps.Copy(c.RuntimeParams, map[string]string{
		"application_name": "postman preview", "default_transaction_read_only": "on", "statement_timeout": strconv.FormatInt(timeout.Milliseconds(), 10),
	})
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	return &reader{conn}, nil
}

func (r *reader) close(ctx context.Context) { _ = r.conn.Close(context.WithoutCancel(ctx)) } // it only read

// keys are the indexes of the primary key's columns.
func keys(t *cdc.Table) (of []int) {
	for i := range t.Columns {
		if t.Columns[i].PK {
			of = append(of, i)
		}
	}
	return of
}

func columnNames(t *cdc.Table, of []int) []string {
	names := make([]string, len(of))
	for i, c := range of {
		names[i] = t.Columns[c].Name
	}
	return names
}

// rows reads the row with a primary key, or (nil) the last ones in its order.
func (r *reader) rows(ctx context.Context, t *cdc.Table, pk []string) ([][]value.Datum, error) {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = pgx.Identifier{t.Columns[i].Name}.Sanitize()
	}
	sql := fmt.Sprintf("select %s from %s", strings.Join(names, ", "), pgx.Identifier{t.Schema, t.Name}.Sanitize())
	values, oids := make([][]byte, len(pk)), make([]uint32, len(pk))
	var where, order []string
	for n, i := range keys(t) {
		where, order = append(where, fmt.Sprintf("%s = $%d", names[i], n+1)), append(order, names[i]+" desc")
		if pk != nil {
			values[n], oids[n] = []byte(pk[n]), t.Columns[i].Type.OID
		}
	}
	switch {
	case pk != nil:
		sql += " where " + strings.Join(where, " and ")
	case order != nil:
		sql += " order by " + strings.Join(order, ", ")
	}
	result := r.conn.PgConn().ExecParams(ctx, sql+fmt.Sprintf(" limit %d", mostRows), values, oids, nil, nil).Read()
	if pg, ok := errors.AsType[*pgconn.PgError](result.Err); ok && pk != nil && strings.HasPrefix(pg.Code, "22") {
		return nil, daemon.Misuse("--pk: " + pg.Message)
	}
	if result.Err != nil {
		return nil, fmt.Errorf("reading rows of %s: %w", t, result.Err)
	}
	all := make([][]value.Datum, len(result.Rows))
	for i, row := range result.Rows {
		all[i] = make([]value.Datum, len(row))
		for j, text := range row {
			if text != nil {
				all[i][j] = value.Datum{State: value.Present, Text: text}
			}
		}
	}
	return all, nil
}

// row chooses rows, and what happens to them: the one that was asked for, or the newest that match as they are, or else the newest
// with the values of a test.
func (p *preview) row(ctx context.Context, r *reader) ([]*example, error) {
	ops, err := p.ops()
	if err != nil {
		return nil, err
	}
	if pk := columnNames(p.table, keys(p.table)); p.options.PK != nil && len(p.options.PK) != len(pk) {
		return nil, daemon.Misuse(p.wrongKey(pk))
	}
	all, err := r.rows(ctx, p.table, p.options.PK)
	switch {
	case err != nil:
		return nil, err
	case p.options.PK != nil && len(all) == 0:
		return nil, daemon.Misuse(fmt.Sprintf("--pk: %s has no such row", p.table))
	}
	var found []*example
	for i, row := range all {
		for _, op := range ops {
			if e := p.example(op, row); len(found) < mostTried && p.matches(e.change) {
				e.what = p.words(op, row, i+1)
				found = append(found, e)
				break
			}
		}
	}
	switch {
	case len(found) > 0:
	case p.options.PK != nil:
		e := p.example(ops[0], all[0])
		e.what, e.asked = p.words(ops[0], all[0], 1), true
		found = []*example{e}
	default:
		found = []*example{p.fromTest(ops, all)}
	}
	for _, e := range found {
		e.looked = len(all)
	}
	return found, nil
}

func (p *preview) wrongKey(pk []string) string {
	if len(pk) == 0 {
		return fmt.Sprintf("%s has no primary key: leave --pk out, and the first row that matches is shown", p.table)
	}
	return fmt.Sprintf("the primary key of %s is %s: --pk takes %s", p.table, strings.Join(pk, ", "), strings.Join(slices.Repeat([]string{"VALUE"}, len(pk)), ","))
}

// ops are the operations to try.
func (p *preview) ops() ([]cdc.Op, error) {
	if p.options.Op == "" {
		return p.rule.On.Ops, nil
	}
	var names []string
	for _, op := range p.rule.On.Ops {
		if op.String() == p.options.Op {
			return []cdc.Op{op}, nil
		}
		names = append(names, op.String())
	}
	return nil, daemon.Misuse(fmt.Sprintf("--op: rule %q is on %s, not on %s", p.rule.Name, strings.Join(names, " and "), p.options.Op))
}

func (p *preview) matches(c *cdc.Change) bool {
	facts, err := factsOf(c)
	if err != nil {
		return false // a value that its column cannot have: it is told of the row that is shown
	}
	facts.CommitTime = time.Now()
	return p.rule.Decide(facts).Truth == rules.True
}

// example is a row to which something happens, as it stands in the database. Nobody knows what it was before an update: it was the
// same, but for what the rule's test changes.
func (p *preview) example(op cdc.Op, row []value.Datum) *example {
	now, then := row, slices.Clone(row)
	e := new(example)
	if step := p.like(op); op == cdc.Update && step != nil {
		e.assumed = p.before(step, then)
	}
	e.change = cdc.MakeChange(op, p.table, now, then)
	return e
}

// before gives a row the old values of what a test changes, and says so.
func (p *preview) before(step *rules.TestStep, row []value.Datum) (assumed []string) {
	now, then, ok := p.testRows(step)
	if !ok {
		return nil
	}
	for i := range row {
		if !named(step.Old, p.table.Columns[i].Name) || same(now[i], then[i]) || p.table.Identity != cdc.IdentityFull && !p.table.Columns[i].Key {
			continue
		}
		row[i] = then[i]
		assumed = append(assumed, p.assumed(i, "old.", then[i], step))
	}
	return assumed
}

// testRows are the rows of a test's step, in the table's order.
func (p *preview) testRows(step *rules.TestStep) (now, then []value.Datum, ok bool) {
	c, mistakes := p.rule.TestChange(step)
	if len(mistakes) > 0 || c == nil {
		return nil, nil, false
	}
	nulls := make([]value.Datum, len(p.table.Columns))
	read := func(t cdc.Tuple) []value.Datum {
		row, err := t.Datums(nil)
		if err != nil || len(row) != len(nulls) {
			return nulls
		}
		return row
	}
	if now, then = read(c.New), read(c.Old); c.Op == cdc.Update && len(c.Old) == 0 {
		then = now // the stream would send no old row: no column of the identity changes
	}
	return now, then, true
}

func named(cells []rules.Cell, column string) bool {
	return slices.ContainsFunc(cells, func(c rules.Cell) bool { return c.Name == column })
}

func same(a, b value.Datum) bool { return a.State == b.State && string(a.Text) == string(b.Text) }

// assumed says that a column has the value of a test.
func (p *preview) assumed(i int, row string, d value.Datum, step *rules.TestStep) string {
	name, text := p.table.Columns[i].Name, "NULL"
	switch {
	case p.rule.Hides(name):
		text = "<sensitive>"
	case d.State == value.Present:
		text = p.mask(string(d.Text))
	}
	return fmt.Sprintf("%s%s is %s, as in the test at %s", row, name, text, step.Place)
}

// fromTest lays a test's values over the newest row, where no row matches as it is. Where that does not match either, it is the newest
// row as it is, and the condition tells what it lacks.
func (p *preview) fromTest(ops []cdc.Op, all [][]value.Datum) *example {
	newest := make([]value.Datum, len(p.table.Columns))
	if len(all) > 0 {
		newest = all[0]
	}
	for _, op := range ops {
		if step := p.like(op); step != nil {
			if e := p.overlaid(op, newest, step); e != nil && p.matches(e.change) {
				e.what = fmt.Sprintf("%s; %s as it is", p.words(op, newest, 1), noneOf(len(all)))
				if len(all) == 0 {
					e.what = fmt.Sprintf("%s of a row that is made up: %s is empty", op, p.table)
				}
				return e
			}
		}
	}
	e := p.example(ops[0], newest)
	e.what = fmt.Sprintf("%s; %s", p.words(ops[0], newest, 1), noneOf(len(all)))
	if len(all) == 0 {
		e.what = fmt.Sprintf("the table %s is empty", p.table)
	}
	return e
}

// noneOf says that of so many rows none matches.
func noneOf(rows int) string {
	if rows == 1 {
		return "the only row does not match"
	}
	return fmt.Sprintf("none of the %d rows looked at matches", rows)
}

func (p *preview) overlaid(op cdc.Op, newest []value.Datum, step *rules.TestStep) *example {
	testNow, testThen, ok := p.testRows(step)
	if !ok {
		return nil
	}
	e := new(example)
	now, then := slices.Clone(newest), slices.Clone(newest)
	for i, c := range p.table.Columns {
		if !c.PK && named(step.New, c.Name) && op != cdc.Delete && !same(now[i], testNow[i]) {
			now[i] = testNow[i]
			e.assumed = append(e.assumed, p.assumed(i, "new.", testNow[i], step))
		}
		if then[i] = now[i]; !c.PK && named(step.Old, c.Name) && !same(then[i], testThen[i]) && (p.table.Identity == cdc.IdentityFull || c.Key) {
			then[i] = testThen[i]
			e.assumed = append(e.assumed, p.assumed(i, "old.", testThen[i], step))
		}
	}
	e.change = cdc.MakeChange(op, p.table, now, then)
	return e
}

// words say which row it is: "update of schedules, id 15, the newest that matches (3 looked at)".
func (p *preview) words(op cdc.Op, row []value.Datum, looked int) string {
	of, pk := fmt.Sprintf("%s of %s", op, p.table), keys(p.table)
	parts := make([]string, len(pk))
	for n, i := range pk {
		text := p.mask(string(row[i].Text))
		if p.rule.Hides(p.table.Columns[i].Name) {
			text = "<sensitive>"
		}
		parts[n] = p.table.Columns[i].Name + " " + text
	}
	if len(parts) > 0 {
		of += ", " + strings.Join(parts, ", ")
	}
	switch {
	case op == cdc.Truncate:
		return fmt.Sprintf("%s of %s", op, p.table)
	case p.options.PK != nil:
		return of
	case looked > 1:
		return fmt.Sprintf("%s, of %d the first that matches, from the greatest primary key down", of, looked)
	case len(pk) == 0:
		return of + ", the first row that came"
	}
	return of + ", the row with the greatest primary key"
}

// readable is a decoded value as a person reads it.
func readable(v any, zone *time.Location) string {
	switch v := v.(type) {
	case *value.Decimal:
		return v.Text('f')
	case time.Time:
		return v.In(zone).Format("2006-01-02 15:04:05 MST")
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = readable(v[i], zone)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key+": "+readable(v[key], zone))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case nil:
		return "NULL"
	}
	return fmt.Sprint(v)
}
