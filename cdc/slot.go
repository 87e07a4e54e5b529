package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"postman/position"
)

const plugin = "pgoutput"

// checkSlot allows what Postgres allows in a slot's name, as long as the names of its publications fit as well: longer
// ones would be cut off without an error.
func checkSlot(name string) error {
	if name == "" || len(name) > 63-len("_ins") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return &SetupError{
			Problem: fmt.Sprintf("%q is no name for a slot", name), Fix: "up to 59 lower-case letters, digits and underscores (POSTMAN_SLOT)",
		}
	}
	return nil
}

// SlotSQL is the statement that makes a slot, for a DBA, and for [CreateSlot]. It comes after those of [PlanPublications].
//
// Since version 17 the slot is one that standbys may keep a copy of, so that it survives a failover. That costs nothing where no standby
// does, and it could not be had later without another moment in which nobody reads the slot.
func SlotSQL(slot string, version int) string {
	failover := ""
	if version >= firstFailover {
		failover = ", failover => true"
	}
	return fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', '%s'%s);", strings.ReplaceAll(slot, "'", "''"), plugin, failover)
}

// firstFailover is the first version of Postgres whose slots can be kept on a standby.
const firstFailover = 17

// CreateSlot makes a slot and returns where it starts: each transaction that commits behind it will be streamed. It
// waits until all transactions that are open in the cluster have ended. What trying again cannot mend is a *SetupError.
func CreateSlot(ctx context.Context, url, slot string) (start position.LSN, err error) {
	err = command(ctx, url, slot, func(conn *pgx.Conn) error {
		db, err := Inspect(ctx, conn, slot)
		if err != nil {
			return err
		}
		if err := db.Ready(); err != nil {
			return err
		}
		var lsn string
		// In SQL, and not by the command of the replication protocol: a role may need nothing else, and it is what a DBA runs.
		made := strings.TrimSuffix(strings.TrimPrefix(SlotSQL(slot, db.Version), "SELECT "), ";")
		if err := conn.QueryRow(ctx, "select lsn::text from "+made).Scan(&lsn); err != nil {
			return err
		}
		start, err = position.ParseLSN(lsn)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("creating slot %q: %w", slot, err)
	}
	return start, nil
}

// KeepOnStandbys makes a slot that nobody reads one that standbys may keep a copy of. The server has to be of version 17 or later.
func KeepOnStandbys(ctx context.Context, url, slot string) error {
	err := command(ctx, url, slot, func(conn *pgx.Conn) error {
		return conn.PgConn().Exec(ctx, "ALTER_REPLICATION_SLOT "+quoted(slot)+" (FAILOVER true)").Close()
	})
	if err != nil {
		return fmt.Errorf("having standbys keep slot %q: %w", slot, err)
	}
	return nil
}

// DropSlot removes a slot that nobody reads.
func DropSlot(ctx context.Context, url, slot string) error {
	err := command(ctx, url, slot, func(conn *pgx.Conn) error {
		return pglogrepl.DropReplicationSlot(ctx, conn.PgConn(), quoted(slot), pglogrepl.DropReplicationSlotOptions{})
	})
	if err != nil {
		return fmt.Errorf("dropping slot %q: %w", slot, err)
	}
	return nil
}

// command does something on a replication connection of its own.
func command(ctx context.Context, url, slot string, do func(*pgx.Conn) error) error {
	if err := checkSlot(slot); err != nil {
		return err
	}
	config, err := replication(url)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, config)
	if err != nil {
		return permanent(err, slot)
	}
	defer hangUp(ctx, conn)
	return permanent(do(conn), slot)
}

// quoted keeps a slot whose name is a word of the replication grammar from being taken for it.
func quoted(slot string) string { return `"` + slot + `"` }
