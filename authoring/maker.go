package authoring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// errTruncate refuses what would lock a whole table.
var errTruncate = errors.New("a table of a database in use is not truncated for a test")

// errNoRow says that a statement came to nothing without an error.
var errNoRow = errors.New("the database made no row of it: a trigger or a rule of the table keeps it from doing so")

// make makes a change of a row and returns it as the stream would send it. The rows are the new and the old one with the columns
// that the test names; the database fills in the others, and of an old row that is not there yet, the new one.
func (t *transaction) make(ctx context.Context, table *cdc.Table, op cdc.Op, rows [2]value.Row) (*cdc.Change, error) {
	m := &maker{t.conn.PgConn(), table}
	var now, then version
	var err error
	switch op {
	case cdc.Insert:
		now, err = m.insert(ctx, rows[0])
	case cdc.Update:
		if then, err = m.ensure(ctx, rows[1], rows[0]); err == nil {
			now, err = m.update(ctx, then, rows[0])
		}
	case cdc.Delete:
		if then, err = m.ensure(ctx, rows[1], nil); err == nil {
			then, err = m.delete(ctx, then)
		}
	case cdc.Truncate, cdc.Emit:
		err = errTruncate
	}
	if err != nil {
		return nil, err
	}
	return cdc.MakeChange(op, table, now.row, then.row), nil
}

// maker makes changes of a table's rows.
type maker struct {
	conn  *pgconn.PgConn
	table *cdc.Table
}

// version is a row, and where it stands: the OID of its partition and its ctid.
type version struct{ row, at []value.Datum }

func (m *maker) insert(ctx context.Context, row value.Row) (version, error) {
	into := "insert into " + m.name() + " as t"
	if len(row) == 0 {
		return m.one(ctx, into+" default values returning "+m.columns(), nil)
	}
	names, places := make([]string, len(row)), make([]string, len(row))
	for i, f := range row {
		names[i], places[i] = quoted(f.Name), place(i)
	}
	return m.one(ctx, fmt.Sprintf("%s (%s) overriding system value values (%s) returning %s",
		into, strings.Join(names, ", "), strings.Join(places, ", "), m.columns()), row)
}

// ensure makes sure that a row with these values exists: one with its primary key gets them, and else one is inserted.
func (m *maker) ensure(ctx context.Context, row, others value.Row) (version, error) {
	full := slices.Clone(row)
	for _, f := range others {
		if _, ok := row.Field(f.Name); !ok {
			full = append(full, f)
		}
	}
	if key := m.key(full); key != nil {
		conditions := make([]string, len(key))
		for i, f := range key {
			conditions[i] = "t." + quoted(f.Name) + " = " + place(i)
		}
		v, err := m.one(ctx, fmt.Sprintf("select %s from %s t where %s", m.columns(), m.name(), strings.Join(conditions, " and ")), key)
		switch {
		case err == nil && m.differs(v, row) == nil:
			return v, nil
		case err == nil:
			return m.update(ctx, v, row)
		case !errors.Is(err, errNoRow):
			return v, err
		}
	}
	return m.insert(ctx, full)
}

// key is a row's primary key; nil where it lacks a part of it, or the table has none.
func (m *maker) key(row value.Row) (key value.Row) {
	for _, c := range m.table.Columns {
		if !c.PK {
			continue
		}
		f, ok := row.Field(c.Name)
		if !ok {
			return nil
		}
		key = append(key, f)
	}
	return key
}

// differs are the values that a row does not have yet.
func (m *maker) differs(v version, row value.Row) (values value.Row) {
	for _, f := range row {
		there := v.row[m.table.Column(f.Name)]
		if there.State != f.State || string(there.Text) != string(f.Text) {
			values = append(values, f)
		}
	}
	return values
}

func (m *maker) update(ctx context.Context, v version, row value.Row) (version, error) {
	values := m.differs(v, row)
	sets := make([]string, len(values))
	for i, f := range values {
		sets[i] = quoted(f.Name) + " = " + place(i)
	}
	if len(sets) == 0 { // an update that changes nothing is an update all the same
		c := m.table.Columns[max(0, slices.IndexFunc(m.table.Columns, func(c cdc.Column) bool { return !c.PK }))]
		sets = append(sets, quoted(c.Name)+" = t."+quoted(c.Name))
	}
	return m.one(ctx, fmt.Sprintf("update %s t set %s where %s returning %s", m.name(), strings.Join(sets, ", "), where(len(values)), m.columns()),
		append(values, v.place()...))
}

func (m *maker) delete(ctx context.Context, v version) (version, error) {
	return m.one(ctx, fmt.Sprintf("delete from %s t where %s returning %s", m.name(), where(0), m.columns()), v.place())
}

// one runs a statement that gives one row.
func (m *maker) one(ctx context.Context, sql string, values value.Row) (v version, err error) {
	texts, oids := make([][]byte, len(values)), make([]uint32, len(values))
	for i, f := range values {
		if oids[i] = f.Type.OID; f.State == value.Present {
			texts[i] = append([]byte{}, f.Text...)
		}
	}
	r := m.conn.ExecParams(ctx, sql, texts, oids, nil, nil).Read()
	if r.Err != nil {
		return v, r.Err
	}
	if len(r.Rows) != 1 {
		return v, errNoRow
	}
	datums := make([]value.Datum, len(r.Rows[0]))
	for i, text := range r.Rows[0] {
		if text != nil {
			datums[i] = value.Of(string(text))
		}
	}
	return version{datums[2:], datums[:2]}, nil
}

// where finds a version, whose place follows n other parameters.
func where(n int) string { return "t.tableoid = " + place(n) + " and t.ctid = " + place(n+1) }

func (v version) place() value.Row {
	return value.Row{
		{Column: value.Column{Type: value.Type{OID: pgtype.OIDOID}}, Datum: v.at[0]},
		{Column: value.Column{Type: value.Type{OID: pgtype.TIDOID}}, Datum: v.at[1]},
	}
}

func place(i int) string { return "$" + strconv.Itoa(i+1) }

// columns are a version's place and the table's columns.
func (m *maker) columns() string {
	names := []string{"t.tableoid", "t.ctid"}
	for _, c := range m.table.Columns {
		names = append(names, "t."+quoted(c.Name))
	}
	return strings.Join(names, ", ")
}

func (m *maker) name() string { return pgx.Identifier{m.table.Schema, m.table.Name}.Sanitize() }

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// refusal is what the database has against a test's change, and the way out; false: the error is another one.
func (t *transaction) refusal(err error) (text, hint string, ok bool) {
	if errors.Is(err, errTruncate) || errors.Is(err, errNoRow) {
		return err.Error(), "give the answers in the test: given: {to: [{email: kim@example.com}]}", true
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || t.conn.IsClosed() {
		return "", "", false
	}
	text = "the database does not take the change: " + pg.Message
	if pg.Detail != "" && !strings.HasPrefix(pg.Detail, "Failing row") { // which lists all its values
		text += " (" + pg.Detail + ")"
	}
	return text, wayOut(pg, t.conn.Config().User), true
}

// wayOut is what to do about an error of the database, by its SQLSTATE (Postgres documentation, appendix A).
func wayOut(pg *pgconn.PgError, role string) string {
	switch pg.Code {
	case "42501": // insufficient_privilege
		return fmt.Sprintf("--database really makes the change, in a transaction that is rolled back, and the role %s may not: name one that may in DATABASE_URL, best of a copy of the database; or give the answers in the test", role)
	case "25006": // read_only_sql_transaction
		return "--database really makes the change, in a transaction that is rolled back: name a database that takes changes in DATABASE_URL, best a copy; or give the answers in the test"
	case "23502": // not_null_violation
		return "name the column " + pg.ColumnName + " in the test's row: it has no default"
	case "23503": // foreign_key_violation
		return "name a row that is there, or give the answers in the test"
	case "23505": // unique_violation
		return "a row with that value is there: name another one, or leave the column out for the database to fill in"
	case "55P03", "57014": // lock_not_available, query_canceled
		return "others are using the row or the table: try again, or with a copy of the database"
	}
	return pg.Hint
}
