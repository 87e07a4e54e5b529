package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/position"
)

// Database is what a database says of itself, its slot and its publications, at one moment.
type Database struct {
	SystemID  string // of the cluster, as IDENTIFY_SYSTEM gives it
	Name      string
	Version   int // major: 14 and later
	WALLevel  string
	Role      string // that asks
	Superuser bool
	// Replication says that the role has the attribute REPLICATION. Hosted Postgres may grant it in other ways.
	Replication bool
	InRecovery  bool
	// Timeline is the one that the server writes; 0 in recovery, where it writes none. A promotion begins a new one.
	Timeline int32
	// WALEnd is where the server's log ends, or in recovery how far it has been replayed.
	WALEnd position.LSN
	// KeepSize is max_slot_wal_keep_size in bytes: how much of the log slots may hold back; negative: all of it.
	KeepSize int64
	// IdleLimit is idle_replication_slot_timeout (Postgres 18 and later); zero: none.
	IdleLimit time.Duration
	// SenderTimeout is the wal_sender_timeout of this session; zero: none.
	SenderTimeout time.Duration
	Slot          *SlotInfo // nil: there is none
	// Publications are those of the slot's three that exist, by name.
	Publications map[string]*Publication
}

// SlotInfo is a row of pg_replication_slots.
type SlotInfo struct {
	Name      string
	Plugin    string // empty for a physical slot
	Database  string
	ActivePID int // of the walsender that holds it; 0: nobody
	Restart   position.LSN
	Confirmed position.LSN
	WALStatus string // reserved, extended, unreserved, lost
	// SafeSize is how many bytes may still be written to the log before the slot is in danger of being lost; nil: no limit is set, or it
	// is lost.
	SafeSize *int64
	// Inactive is since when nobody has read the slot (Postgres 17 and later); zero: somebody does, or that is not known.
	Inactive time.Time
	Failover bool // a standby keeps a copy of it that takes over with the standby (Postgres 17 and later)
	// Invalidation is Postgres' word for why the slot was invalidated (Postgres 17 and later); empty: it was not, or that is not known.
	Invalidation string
}

// Lost says that the slot can never be read again.
func (s *SlotInfo) Lost() bool { return s.WALStatus == "lost" || s.Invalidation != "" }

// KeepsNoCopy says that standbys could keep a copy of the slot, and do not.
func (db *Database) KeepsNoCopy() bool { return db.Version >= firstFailover && !db.Slot.Failover }

// Why says for a person why the slot is lost.
func (s *SlotInfo) Why() string {
	switch s.Invalidation {
	case "", "wal_removed":
		return "WAL that it needed was removed: max_slot_wal_keep_size"
	case "idle_timeout":
		return "nobody read it for longer than idle_replication_slot_timeout"
	case "rows_removed", "wal_level_insufficient":
		return "invalidated on a standby: " + s.Invalidation
	}
	return s.Invalidation
}

// Publication is a publication as the catalog has it.
type Publication struct {
	Name                             string
	Insert, Update, Delete, Truncate bool
	ViaRoot                          bool
	AllTables                        bool
	Schemas                          []string             // FOR TABLES IN SCHEMA
	Tables                           map[TableName]Member // by the names that they had when it was asked for
	ByOID                            map[uint32]Member    // the same, by the tables' OIDs, whatever they are called
	// OID tells a publication from another one that was made later under the same name.
	OID uint32
	// Altered is the transaction that altered its options last (pg_publication.xmin): it tells that somebody did.
	Altered uint32
}

// Member is a table's membership in a publication.
type Member struct {
	Restricted bool // to some rows or columns
	// OID tells it from another one of the same table, which had left the publication in between.
	OID uint32
}

// Membership tells a table's place in the slot's publication for an operation from another one that it had before, or has later: where
// the two differ, the table may not have been published for a while. Empty: its changes are not, or not all, published. The table is the one
// with an OID: catalogs are read at another moment, and it may have got another name between the two.
func (db *Database) Membership(slot string, oid uint32, op Op) string {
	for i, k := range kinds {
		if !slices.Contains(k.ops, op) {
			continue
		}
		p := db.Publications[publicationNames(slot)[i]]
		if p == nil || !p.ViaRoot || !map[Op]bool{Insert: p.Insert, Update: p.Update, Delete: p.Delete, Truncate: p.Truncate}[op] {
			return ""
		}
		if m, ok := p.ByOID[oid]; ok && !m.Restricted {
			return fmt.Sprintf("%d.%d.%d", p.OID, p.Altered, m.OID)
		}
	}
	return ""
}

// Inspect asks the database for all that a stream, or whoever sets one up, has to know first.
// The connection may be one for replication.
func Inspect(ctx context.Context, conn *pgx.Conn, slot string) (*Database, error) {
	db := &Database{}
	var timeout, idle int64
	var end string
	// The name of the present segment of the log begins with the timeline. pg_control_checkpoint learns of a new one late.
	err := conn.QueryRow(ctx, `
		select (select system_identifier::text from pg_control_system()), current_database(),
		       current_setting('server_version_num')::int / 10000, current_setting('wal_level'), rolname, rolsuper, rolreplication,
		       pg_is_in_recovery(), (select setting::int8 from pg_settings where name = 'wal_sender_timeout'),
		       case when pg_is_in_recovery() then 0 else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 end,
		       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end::text,
		       (select case when setting::int8 < 0 then -1 else setting::int8 << 20 end from pg_settings where name = 'max_slot_wal_keep_size'),
		       coalesce((select setting::int8 * case unit when 'min' then 60 else 1 end from pg_settings where name = 'idle_replication_slot_timeout'), 0)
		  from pg_roles where rolname = current_user`).
		Scan(&db.SystemID, &db.Name, &db.Version, &db.WALLevel, &db.Role, &db.Superuser, &db.Replication, &db.InRecovery, &timeout,
			&db.Timeline, &end, &db.KeepSize, &idle)
	if err == nil {
		db.WALEnd, err = position.ParseLSN(end)
	}
	if err != nil {
		return nil, fmt.Errorf("inspecting the database: %w", err)
	}
	db.SenderTimeout, db.IdleLimit = time.Duration(timeout)*time.Millisecond, time.Duration(idle)*time.Second
	if db.Slot, err = inspectSlot(ctx, conn, slot); err != nil {
		return nil, fmt.Errorf("inspecting slot %q: %w", slot, err)
	}
	if db.Publications, err = inspectPublications(ctx, conn, db.Version, publicationNames(slot)); err != nil {
		return nil, fmt.Errorf("inspecting the publications of slot %q: %w", slot, err)
	}
	return db, nil
}

func inspectSlot(ctx context.Context, conn *pgx.Conn, name string) (*SlotInfo, error) {
	s := &SlotInfo{Name: name}
	var restart, confirmed string
	var inactive float64
	// A column that later versions added is asked for by way of JSON, where it may be missing.
	err := conn.QueryRow(ctx, `
		select coalesce(plugin, ''), coalesce(database, ''), coalesce(active_pid, 0), coalesce(restart_lsn, '0/0')::text,
		       coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(wal_status, ''), coalesce(to_jsonb(s)->>'invalidation_reason', ''),
		       safe_wal_size, coalesce(extract(epoch from (to_jsonb(s)->>'inactive_since')::timestamptz)::float8, 0),
		       coalesce((to_jsonb(s)->>'failover')::bool, false)
		  from pg_replication_slots s where slot_name = $1`, name).
		Scan(&s.Plugin, &s.Database, &s.ActivePID, &restart, &confirmed, &s.WALStatus, &s.Invalidation, &s.SafeSize, &inactive, &s.Failover)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if inactive != 0 {
		s.Inactive = time.UnixMicro(int64(inactive * 1e6)).UTC()
	}
	if s.Restart, err = position.ParseLSN(restart); err != nil {
		return nil, err
	}
	s.Confirmed, err = position.ParseLSN(confirmed)
	return s, err
}

func inspectPublications(ctx context.Context, conn *pgx.Conn, version int, names []string) (map[string]*Publication, error) {
	found := make(map[string]*Publication)
	rows, err := conn.Query(ctx, `
		select pubname, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables, oid, xmin
		  from pg_publication where pubname = any($1)`, names)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Publication, error) {
		p := &Publication{Tables: make(map[TableName]Member), ByOID: make(map[uint32]Member)}
		return p, row.Scan(&p.Name, &p.Insert, &p.Update, &p.Delete, &p.Truncate, &p.ViaRoot, &p.AllTables, &p.OID, &p.Altered)
	})
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		found[p.Name] = p
	}
	if err := inspectMembers(ctx, conn, names, found); err != nil || version < 15 {
		return found, err
	}
	rows, err = conn.Query(ctx, `
		select p.pubname, n.nspname
		  from pg_publication_namespace m join pg_publication p on p.oid = m.pnpubid join pg_namespace n on n.oid = m.pnnspid
		 where p.pubname = any($1) order by 2`, names)
	if err != nil {
		return nil, err
	}
	var publication, schema string
	_, err = pgx.ForEachRow(rows, []any{&publication, &schema}, func() error {
		found[publication].Schemas = append(found[publication].Schemas, schema)
		return nil
	})
	return found, err
}

func inspectMembers(ctx context.Context, conn *pgx.Conn, names []string, found map[string]*Publication) error {
	rows, err := conn.Query(ctx, `
		select p.pubname, n.nspname, c.relname,
		       to_jsonb(m)->>'prqual' is not null or to_jsonb(m)->>'prattrs' is not null, m.oid, c.oid
		  from pg_publication_rel m join pg_publication p on p.oid = m.prpubid
		       join pg_class c on c.oid = m.prrelid join pg_namespace n on n.oid = c.relnamespace
		 where p.pubname = any($1)`, names)
	if err != nil {
		return err
	}
	var publication string
	var table TableName
	var member Member
	var oid uint32
	_, err = pgx.ForEachRow(rows, []any{&publication, &table.Schema, &table.Name, &member.Restricted, &member.OID, &oid}, func() error {
		if p := found[publication]; p != nil { // else it was created between the two queries
			p.Tables[table], p.ByOID[oid] = member, member
		}
		return nil
	})
	return err
}

// Ready says whether the database can be streamed from at all, slot and publications aside. The error is a *SetupError.
func (db *Database) Ready() error {
	switch {
	case db.Version < 14:
		return &SetupError{Problem: fmt.Sprintf("this is Postgres %d", db.Version), Fix: "postman needs Postgres 14 or later"}
	case db.WALLevel != "logical":
		return &SetupError{
			Problem: fmt.Sprintf("wal_level is %s: the write-ahead log does not hold what logical replication needs", db.WALLevel),
			Fix:     "ALTER SYSTEM SET wal_level = logical; then restart Postgres",
		}
	case db.InRecovery:
		return &SetupError{
			Problem: "this server is a standby", Passing: true,
			Fix: "name the primary in DATABASE_URL, or all servers, with target_session_attrs=read-write",
		}
	}
	return nil
}

// usable says whether the slot can be read by a stream that stands at the LSN resume (zero: wherever the slot stands).
// The error is a *SetupError.
func (db *Database) usable(slot string, resume position.LSN) error {
	if err := db.Ready(); err != nil {
		return err
	}
	s := db.Slot
	again := "start again: the slot is compared with the store then, and a gap can be accepted"
	switch {
	case s == nil:
		return &SetupError{Problem: fmt.Sprintf("slot %q does not exist", slot), Fix: "postman setup, or start again, or as a DBA: " + SlotSQL(slot, db.Version)}
	case s.Plugin != plugin:
		return &SetupError{Problem: fmt.Sprintf("slot %q is not one for %s", slot, plugin), Fix: "choose another name for postman's slot (POSTMAN_SLOT)"}
	case s.Database != db.Name:
		return &SetupError{
			Problem: fmt.Sprintf("slot %q belongs to database %q, and this is %q", slot, s.Database, db.Name),
			Fix:     "choose another name for this database's slot (POSTMAN_SLOT)",
		}
	case s.Lost():
		return &SetupError{Problem: fmt.Sprintf("slot %q is invalidated (%s)", slot, s.Why()), Fix: again}
	case resume != 0 && s.Confirmed > resume:
		problem := fmt.Sprintf("slot %q was moved to %s, and the stream is at %s: the changes between are gone", slot, s.Confirmed, resume)
		if s.ActivePID != 0 {
			problem += fmt.Sprintf("; it is read by the server's process %d: another postman?", s.ActivePID)
		}
		return &SetupError{Problem: problem, Fix: again}
	}
	return db.published(slot)
}

// PublicationIDs tells the slot's publications from others that are made later under their names, and says which are missing.
func (db *Database) PublicationIDs(slot string) (ids string, missing []string) {
	var parts []string
	for _, name := range publicationNames(slot) {
		if p := db.Publications[name]; p != nil {
			parts = append(parts, fmt.Sprintf("%s:%d", name, p.OID))
		} else {
			missing = append(missing, name)
		}
	}
	return strings.Join(parts, " "), missing
}

// published says whether the slot's publications exist. Up to Postgres 17 a missing one breaks the stream; later ones
// stream on without it, and without a word that reaches anybody.
func (db *Database) published(slot string) error {
	_, names := db.PublicationIDs(slot)
	if len(names) == 0 {
		return nil
	}
	return &SetupError{
		Problem: fmt.Sprintf("slot %q lacks its publication %s: a slot decodes with the catalog of the past, so that one which is made now does not "+
			"serve the changes before it", slot, strings.Join(names, " and ")),
		Fix: "begin anew, with a gap: postman setup --accept-gap",
	}
}
