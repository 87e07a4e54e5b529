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

// PlanPublications returns the statements, in order, that make the slot's publications fit what is needed; none when
// they fit. They belong into one transaction ([Apply]).
//
// Publications are created before the slot, empty ones too, and only altered afterwards. An error names each table that
// cannot be published as needed, and is returned beside the statements for all others. A database whose publications
// cannot be mended is a *SetupError, without statements.
func PlanPublications(db *Database, slot string, needs []Need, cat *Catalog) ([]string, error) {
	if err := checkSlot(slot); err != nil {
		return nil, err
	}
	if db.Slot != nil {
		if err := db.published(slot); err != nil {
			return nil, err
		}
	}
	var statements []string
	var refused []error
	for i, k := range kinds {
		tables, err := wanted(needs, k.ops, cat)
		refused = append(refused, err)
		plan, err := planOne(db.Publications[publicationNames(slot)[i]], publicationNames(slot)[i], k.publish, tables)
		if err != nil {
			return nil, err
		}
		statements = append(statements, plan...)
	}
	return statements, errors.Join(refused...)
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

// planOne makes one publication fit; p is nil when there is none.
func planOne(p *Publication, name, publish string, tables map[TableName]bool) ([]string, error) {
	id := pgx.Identifier{name}.Sanitize()
	with := fmt.Sprintf("(publish = '%s', publish_via_partition_root = true)", publish)
	if p == nil {
		create := "CREATE PUBLICATION " + id
		if len(tables) > 0 {
			create += " FOR TABLE " + list(tables)
		}
		return []string{create + " WITH " + with + ";"}, nil
	}
	if p.AllTables {
		return nil, &SetupError{
			Problem: fmt.Sprintf("publication %s is FOR ALL TABLES, which cannot be narrowed: updates of tables without a primary key fail", name),
			Fix:     "choose another name for postman's slot (POSTMAN_SLOT), or drop slot and publication and begin anew",
		}
	}
	var plan []string
	if p.publishes() != publish || !p.ViaRoot {
		plan = append(plan, fmt.Sprintf("ALTER PUBLICATION %s SET %s;", id, with))
	}
	for _, s := range p.Schemas {
		plan = append(plan, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLES IN SCHEMA %s;", id, pgx.Identifier{s}.Sanitize()))
	}
	drop, add := p.difference(tables)
	if len(drop) > 0 {
		plan = append(plan, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s;", id, list(drop)))
	}
	if len(add) > 0 {
		plan = append(plan, fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s;", id, list(add)))
	}
	return plan, nil
}

// difference is what has to leave the publication and what has to enter it. A table with a row filter or a column list
// does both: we need its changes whole.
func (p *Publication) difference(want map[TableName]bool) (drop, add map[TableName]bool) {
	drop, add = make(map[TableName]bool), maps.Clone(want)
	for t, m := range p.Tables {
		if want[t] && !m.Restricted {
			delete(add, t)
		} else {
			drop[t] = true
		}
	}
	return drop, add
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
