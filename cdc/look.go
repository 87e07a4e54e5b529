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
