package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postman/position"
)

// WALEnd is where the server's write-ahead log ends: up to where it is on the disk, which is what a stream that is not behind has
// received, and up to where it is written at all, which every commit lies before that is known to have happened. A standby has
// one for both: how far it has replayed. A walsender that is busy, or waits for its reader, tells of neither in time.
func WALEnd(ctx context.Context, conn *pgx.Conn) (flushed, inserted position.LSN, err error) {
	var f, i string
	err = conn.QueryRow(ctx, `
		select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end::text,
		       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end::text`).Scan(&f, &i)
	if err == nil {
		flushed, err = position.ParseLSN(f)
	}
	if err == nil {
		inserted, err = position.ParseLSN(i)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("asking where the log ends: %w", err)
	}
	return flushed, inserted, nil
}

// Settled says whether all that has altered the slot's publications so far, or the names of their tables, or a label of an enum, is there
// to be seen by whoever asks from now on. A commit is in the log some time before: for as long as a synchronous standby takes to answer.
// Who alters a row of the catalog is known by the row as it is seen until then (its xmax), and holds the lock on its number.
func Settled(ctx context.Context, conn *pgx.Conn, slot string) (settled bool, err error) {
	err = conn.QueryRow(ctx, `
		with publication as (select oid, xmax as by from pg_publication where pubname = any($1)),
		     member as (select prrelid, m.xmax as by from pg_publication_rel m join publication p on p.oid = m.prpubid),
		     relation as (select relnamespace, c.xmax as by from pg_class c where oid in (select prrelid from member))
		select not exists (
		  select from pg_locks
		   where locktype = 'transactionid' and mode = 'ExclusiveLock' and transactionid in (
		         select by from publication union all select by from member union all select by from relation
		         union all select xmax from pg_namespace where oid in (select relnamespace from relation)
		         union all select xmax from pg_enum))`, publicationNames(slot)).Scan(&settled)
	if err != nil {
		return false, fmt.Errorf("asking whether somebody alters what slot %q streams: %w", slot, err)
	}
	return settled, nil
}

// TableNames are the present names of the tables with these OIDs; those that were dropped are not among them.
func TableNames(ctx context.Context, conn *pgx.Conn, oids []uint32) (map[uint32]TableName, error) {
	names := make(map[uint32]TableName)
	rows, err := conn.Query(ctx, `select c.oid, n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any($1)`, oids)
	if err == nil {
		var oid uint32
		var name TableName
		_, err = pgx.ForEachRow(rows, []any{&oid, &name.Schema, &name.Name}, func() error {
			names[oid] = name
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the names of tables: %w", err)
	}
	return names, nil
}
