package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// There are three publications for a slot, since a table that is published for updates without a replica identity makes
// the application's own updates fail, and operations are chosen for a publication as a whole.
var kinds = []struct {
	suffix  string
	publish string
	ops     []Op
}{
	{"_ins", "insert", []Op{Insert}},
	{"_upd", "update", []Op{Update}},
	{"_del", "delete, truncate", []Op{Delete, Truncate}},
}

// publicationNames are the names of a slot's publications.
func publicationNames(slot string) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = slot + k.suffix
	}
	return names
}

// PublicationPlan is what makes a slot's publications fit what is needed: statements, in order.
type PublicationPlan struct {
	// Missing has what is needed published, and takes out tables that make the application's own statements fail. Without it there are
	// changes that the stream does not carry, or that nobody can make.
	Missing []string
	// Surplus takes out what nobody needs. What it leaves in place costs traffic, and loses nothing.
	Surplus []string
}

// Statements are all of a plan.
func (p PublicationPlan) Statements() []string { return slices.Concat(p.Missing, p.Surplus) }

// PlanPublications returns the statements that make the slot's publications fit what is needed; none when they fit.
// Those that are missing belong into one transaction ([Apply]), and come before the others.
//
// Publications are created before the slot, empty ones too, and only altered afterwards. An error names each table that
// cannot be published as needed, and is returned beside the statements for all others. A database whose publications
// cannot be mended is a *SetupError, without statements.
func PlanPublications(db *Database, slot string, needs []Need, cat *Catalog) (PublicationPlan, error) {
	var plan PublicationPlan
	if err := checkSlot(slot); err != nil {
		return plan, err
	}
	if db.Slot != nil {
		if err := db.published(slot); err != nil {
			return plan, err
		}
	}
	var refused []error
	for i, k := range kinds {
		tables, err := wanted(needs, k.ops, cat)
		refused = append(refused, err)
		t := target{publicationNames(slot)[i], k.publish, tables, nil, nil}
		if !slices.Contains(k.ops, Insert) {
			t.harmful, t.misread = cat.Unidentified, cat.Misread
		}
		one, err := planOne(db.Publications[t.name], t)
		if err != nil {
			return PublicationPlan{}, err
		}
		plan.Missing, plan.Surplus = append(plan.Missing, one.Missing...), append(plan.Surplus, one.Surplus...)
	}
	return plan, errors.Join(refused...)
}

// MayPublish says whether the connection's role may add the tables to the slot's publications: it has to own both.
func MayPublish(ctx context.Context, conn *pgx.Conn, slot string, tables []TableName) (may bool, err error) {
	schemas, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		schemas[i], names[i] = t.Schema, t.Name
	}
	err = conn.QueryRow(ctx, `
		select not exists (select from pg_publication where pubname = any($1) and not pg_has_role(pubowner, 'USAGE'))
		   and not exists (select from unnest($2::text[], $3::text[]) w(s, t)
		                     join pg_namespace n on n.nspname = w.s
		                     join pg_class c on c.relnamespace = n.oid and c.relname = w.t
		                    where not pg_has_role(c.relowner, 'USAGE'))`, publicationNames(slot), schemas, names).Scan(&may)
	if err != nil {
		return false, fmt.Errorf("asking who may alter the publications of slot %q: %w", slot, err)
	}
	return may, nil
}

// wanted are the tables that need one of the operations and may be published for it.
func wanted(needs []Need, ops []Op, cat *Catalog) (map[TableName]bool, error) {
	tables := make(map[TableName]bool)
	var refused []error
	for _, n := range needs {
		if !slices.ContainsFunc(n.Ops, func(op Op) bool { return slices.Contains(ops, op) }) || tables[n.Table] {
			continue
		}
		if why := unpublishable(n.Table, ops[0], cat); why != "" {
			refused = append(refused, fmt.Errorf("table %s cannot be watched for %s: %s", n.Table, ops[0], why))
			continue
		}
		tables[n.Table] = true
	}
	return tables, errors.Join(refused...)
}

func unpublishable(t TableName, op Op, cat *Catalog) string {
	if why := cat.Unwatchable[t]; why != "" {
		return why
	}
	if cat.Tables[t] == nil {
		return "it does not exist"
	}
	if op != Insert {
		return cat.Unidentified[t]
	}
	return ""
}

// target is what a publication is to be.
type target struct {
	name, publish string
	tables        map[TableName]bool
	harmful       map[TableName]string // which the application could not update any more if they were in it, and why
	misread       map[TableName]bool   // of these, those that it could: they stay until the table is mended
}

// planOne makes one publication fit; p is nil when there is none.
func planOne(p *Publication, t target) (plan PublicationPlan, err error) {
	id := pgx.Identifier{t.name}.Sanitize()
	with := fmt.Sprintf("(publish = '%s', publish_via_partition_root = true)", t.publish)
	if p == nil {
		create := "CREATE PUBLICATION " + id
		if len(t.tables) > 0 {
			create += " FOR TABLE " + list(t.tables)
		}
		return PublicationPlan{Missing: []string{create + " WITH " + with + ";"}}, nil
	}
	if p.AllTables {
		return plan, &SetupError{
			Problem: fmt.Sprintf("publication %s is FOR ALL TABLES, which cannot be narrowed: updates of tables without a primary key fail", t.name),
			Fix:     "choose another name for postman's slot (POSTMAN_SLOT), or drop slot and publication and begin anew",
		}
	}
	if p.publishes() != t.publish || !p.ViaRoot {
		plan.Missing = append(plan.Missing, fmt.Sprintf("ALTER PUBLICATION %s SET %s;", id, with))
	}
	for _, s := range p.Schemas {
		plan.Surplus = append(plan.Surplus, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLES IN SCHEMA %s;", id, pgx.Identifier{s}.Sanitize()))
	}
	d := p.difference(t)
	if len(d.drop) > 0 {
		plan.Missing = append(plan.Missing, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s;", id, list(d.drop)))
	}
	if len(d.missing) > 0 {
		plan.Missing = append(plan.Missing, fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s;", id, list(d.missing)))
	}
	if len(d.surplus) > 0 {
		plan.Surplus = append(plan.Surplus, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s;", id, list(d.surplus)))
	}
	return plan, nil
}

// difference is between the tables of a publication and those that are wanted. One that is restricted, by a row filter or a column list,
// is dropped and added anew: we need its changes whole.
type difference struct{ missing, drop, surplus map[TableName]bool }

func (p *Publication) difference(want target) difference {
	d := difference{maps.Clone(want.tables), make(map[TableName]bool), make(map[TableName]bool)}
	for t, m := range p.Tables {
		switch {
		case want.tables[t] && !m.Restricted:
			delete(d.missing, t)
		case want.misread[t] && !m.Restricted:
		case want.tables[t] || want.harmful[t] != "":
			d.drop[t] = true
		default:
			d.surplus[t] = true
		}
	}
	return d
}

// publishes is the publication's operations in the form of its `publish` option.
func (p *Publication) publishes() string {
	var ops []string
	for _, o := range []struct {
		on   bool
		name string
	}{{p.Insert, "insert"}, {p.Update, "update"}, {p.Delete, "delete"}, {p.Truncate, "truncate"}} {
		if o.on {
			ops = append(ops, o.name)
		}
	}
	return strings.Join(ops, ", ")
}

// list names tables in SQL, in order. ONLY keeps tables that inherit from one out: they are tables of their own. Of a
// partitioned table it keeps nothing out.
func list(tables map[TableName]bool) string {
	sorted := slices.SortedFunc(maps.Keys(tables), func(a, b TableName) int { return strings.Compare(a.quoted(), b.quoted()) })
	parts := make([]string, len(sorted))
	for i, t := range sorted {
		parts[i] = "ONLY " + t.quoted()
	}
	return strings.Join(parts, ", ")
}

// Apply runs the statements in one transaction: all of them take effect, or none. Adding and dropping a table waits for
// a VACUUM of it that runs, and lets the application's statements pass.
func Apply(ctx context.Context, conn *pgx.Conn, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return fmt.Errorf("running %s: %w", s, err)
			}
		}
		return nil
	})
}
