package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// LoadCatalog reads how tables look now. Tables that are not there are left out of Tables.
func LoadCatalog(ctx context.Context, conn *pgx.Conn, tables []TableName) (*Catalog, error) {
	c, err := LoadTables(ctx, conn, tables)
	if err != nil {
		return nil, err
	}
	if c.Names, err = loadNames(ctx, conn); err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	return c, nil
}

// LoadTables is [LoadCatalog] without the names of all other tables, of which there may be many.
func LoadTables(ctx context.Context, conn *pgx.Conn, tables []TableName) (*Catalog, error) {
	c := &Catalog{
		Tables: make(map[TableName]*Table), Unwatchable: make(map[TableName]string), Unidentified: make(map[TableName]string),
		Misread: make(map[TableName]bool),
	}
	relations, err := loadRelations(ctx, conn, tables)
	if err != nil {
		return nil, fmt.Errorf("reading the tables: %w", err)
	}
	byOID := make(map[uint32]*Table)
	for _, r := range relations {
		if why := r.unwatchable(); why != "" {
			c.Unwatchable[r.TableName] = why
			continue
		}
		t := &Table{TableName: r.TableName, OID: r.oid, Identity: r.identity, Partitioned: r.kind == "p"}
		c.Tables[r.TableName], byOID[r.oid] = t, t
		if why := r.unidentified(); why != "" {
			c.Unidentified[r.TableName] = why
			if r.misread() {
				c.Misread[r.TableName] = true
			}
		}
	}
	if err := loadColumns(ctx, conn, byOID); err != nil {
		return nil, fmt.Errorf("reading the columns: %w", err)
	}
	return c, nil
}

func loadNames(ctx context.Context, conn *pgx.Conn) ([]TableName, error) {
	rows, err := conn.Query(ctx, `
		select n.nspname, c.relname
		  from pg_class c join pg_namespace n on n.oid = c.relnamespace
		 where c.relkind in ('r', 'p') and c.relpersistence = 'p' and not c.relispartition
		   and n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'postman')
		 order by 1, 2`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[TableName])
}

// relation is what decides on whether and for what a table can be watched.
type relation struct {
	TableName
	oid         uint32
	kind        string // pg_class.relkind
	persistence string
	system      bool
	partition   bool
	identity    Identity
	primary     bool      // it has a primary key that can serve as replica identity
	identified  bool      // updates and deletes can name their row
	leaf        TableName // of a partitioned table: a partition that spoils it; zero: none
	leafPrimary bool
}

// loadRelations asks for tables by name. Whether an update can be published is decided by Postgres at the partition that
// holds the row (CheckCmdReplicaIdentity in its execReplication.c), so that all of them are asked for.
func loadRelations(ctx context.Context, conn *pgx.Conn, tables []TableName) ([]relation, error) {
	schemas, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		schemas[i], names[i] = t.Schema, t.Name
	}
	rows, err := conn.Query(ctx, `
		with identity as not materialized (
		  select c.oid, c.relreplident, p.indexrelid is not null as has_primary,
		         case c.relreplident when 'f' then true when 'd' then p.indexrelid is not null
		              when 'i' then i.indexrelid is not null else false end as identified
		    from pg_class c
		         left join pg_index p on p.indrelid = c.oid and p.indisprimary and p.indimmediate and p.indisvalid
		         left join pg_index i on i.indrelid = c.oid and i.indisreplident and i.indisvalid
		   where c.relkind in ('r', 'p')
		)
		select n.nspname, c.relname, c.oid, c.relkind::text, c.relpersistence::text, n.nspname like 'pg\_%' or n.nspname = 'information_schema',
		       c.relispartition, c.relreplident::text, coalesce(i.has_primary, false), coalesce(i.identified, false),
		       coalesce(spoilt.nspname, ''), coalesce(spoilt.relname, ''), coalesce(spoilt.has_primary, false)
		  from unnest($1::text[], $2::text[]) asked (nspname, relname)
		       join pg_namespace n on n.nspname = asked.nspname
		       join pg_class c on c.relnamespace = n.oid and c.relname = asked.relname
		       left join identity i on i.oid = c.oid
		       left join lateral (
		         select ln.nspname, l.relname, li.has_primary
		           from pg_partition_tree(c.oid) part join pg_class l on l.oid = part.relid
		                join pg_namespace ln on ln.oid = l.relnamespace join identity li on li.oid = l.oid
		          where c.relkind = 'p' and part.isleaf and l.oid <> c.oid
		            and not (li.identified and li.relreplident in ('d', 'f'))
		          order by 1, 2 limit 1
		       ) spoilt on true
		 where c.relkind not in ('i', 'I', 't', 'c')`, schemas, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relation, err error) {
		var identity string
		if err := row.Scan(&r.Schema, &r.Name, &r.oid, &r.kind, &r.persistence, &r.system, &r.partition, &identity,
			&r.primary, &r.identified, &r.leaf.Schema, &r.leaf.Name, &r.leafPrimary); err != nil {
			return r, err
		}
		r.identity, err = parseIdentity(identity)
		return r, err
	})
}

// unwatchable says why no change of the relation can be streamed; empty: they can.
func (r *relation) unwatchable() string {
	switch {
	case r.kind == "v":
		return "it is a view: watch the tables that it is made of"
	case r.kind == "m":
		return "it is a materialized view: watch the tables that it is made of"
	case r.kind == "f":
		return "it is a foreign table: its changes happen in another database"
	case r.kind != "r" && r.kind != "p":
		return "it is no table"
	case r.system:
		return "it is a system table: its changes are not replicated"
	case r.persistence == "u":
		return "it is unlogged: its changes are not in the write-ahead log"
	case r.persistence == "t":
		return "it is a temporary table: its changes are not in the write-ahead log"
	case r.partition:
		return "it is a partition: its changes are streamed as those of the partitioned table; watch that one"
	}
	return ""
}

// unidentified says why no update or delete of the relation may be published, and what mends it; empty: they may.
func (r *relation) unidentified() string {
	fix := func(t TableName, primary bool) string {
		if primary {
			return "ALTER TABLE " + t.quoted() + " REPLICA IDENTITY DEFAULT;"
		}
		return "ALTER TABLE " + t.quoted() + " REPLICA IDENTITY FULL; or better, give it a primary key"
	}
	switch {
	case r.kind == "p" && !r.primary:
		return "it is partitioned and has no primary key: no replica identity holds for partitions still to come. " +
			"ALTER TABLE " + r.quoted() + " ADD PRIMARY KEY (…);"
	case r.leaf != TableName{}:
		return fmt.Sprintf("its partition %s has no replica identity that fits: %s", r.leaf, fix(r.leaf, r.leafPrimary))
	case r.misread():
		return "it is partitioned, and partitions do not inherit its REPLICA IDENTITY: old rows would be read wrongly. " + fix(r.TableName, true)
	case !r.identified && r.identity == IdentityNothing:
		return "its REPLICA IDENTITY is NOTHING: " + fix(r.TableName, r.primary)
	case !r.identified && r.identity == IdentityIndex:
		return "the index of its REPLICA IDENTITY is gone: " + fix(r.TableName, r.primary)
	case !r.identified:
		return "it has no primary key and no other replica identity: " + fix(r.TableName, false)
	}
	return ""
}

// misread says whether old rows would be taken for what they are not, and nothing else is wrong with publishing them.
func (r *relation) misread() bool {
	return r.kind == "p" && r.primary && r.leaf == TableName{} && r.identity != IdentityDefault
}

// quoted is the name in SQL.
func (n TableName) quoted() string { return pgx.Identifier{n.Schema, n.Name}.Sanitize() }

func loadColumns(ctx context.Context, conn *pgx.Conn, tables map[uint32]*Table) error {
	oids := make([]uint32, 0, len(tables))
	for oid := range tables {
		oids = append(oids, oid)
	}
	rows, err := conn.Query(ctx, `
		select a.attrelid, a.attname, a.atttypid, a.attnotnull,
		       coalesce(a.attnum = any((p.indkey::int2[])[0:p.indnkeyatts - 1]), false),
		       case c.relreplident when 'f' then true when 'd' then coalesce(p.indimmediate and a.attnum = any((p.indkey::int2[])[0:p.indnkeyatts - 1]), false)
		            when 'i' then coalesce(a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1]), false) else false end
		  from pg_attribute a join pg_class c on c.oid = a.attrelid
		       left join pg_index p on p.indrelid = c.oid and p.indisprimary
		       left join pg_index i on i.indrelid = c.oid and i.indisreplident and i.indisvalid
		 where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
		 order by a.attrelid, a.attnum`, oids)
	if err != nil {
		return err
	}
	var table, typ uint32
	var col Column
	_, err = pgx.ForEachRow(rows, []any{&table, &col.Name, &typ, &col.NotNull, &col.PK, &col.Key}, func() error {
		col.Type.OID = typ
		tables[table].Columns = append(tables[table].Columns, col)
		return nil
	})
	if err != nil {
		return err
	}
	return loadColumnTypes(ctx, conn, tables)
}

// loadColumnTypes resolves the columns' types and fills in the labels of enums.
func loadColumnTypes(ctx context.Context, conn *pgx.Conn, tables map[uint32]*Table) error {
	var oids []uint32
	for _, t := range tables {
		for _, c := range t.Columns {
			oids = append(oids, c.Type.OID)
		}
	}
	slices.Sort(oids)
	types, err := loadTypes(ctx, conn, slices.Compact(oids))
	if err != nil {
		return err
	}
	var enums []uint32
	for _, t := range types {
		if t.enum != 0 {
			enums = append(enums, t.enum)
		}
	}
	labels, err := loadLabels(ctx, conn, enums)
	if err != nil {
		return err
	}
	for _, t := range tables {
		for i := range t.Columns {
			resolved := types[t.Columns[i].Type.OID]
			t.Columns[i].Type, t.Columns[i].Enum = resolved.Type, labels[resolved.enum]
		}
	}
	return nil
}

func loadLabels(ctx context.Context, conn *pgx.Conn, enums []uint32) (map[uint32][]string, error) {
	rows, err := conn.Query(ctx, `select enumtypid, enumlabel from pg_enum where enumtypid = any($1) order by enumtypid, enumsortorder`, enums)
	if err != nil {
		return nil, err
	}
	labels := make(map[uint32][]string)
	var enum uint32
	var label string
	_, err = pgx.ForEachRow(rows, []any{&enum, &label}, func() error {
		labels[enum] = append(labels[enum], label)
		return nil
	})
	return labels, err
}
