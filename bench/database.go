package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster"
)

// database is the application's: a throwaway cluster that keeps its word about fsync, as production does, since both sides
// wait for the application's commits.
type database struct {
	cluster *pgcluster.Cluster
	url     string
	conn    *pgx.Conn // for all but the load
}

// schema has a table for each side: what one side streams, the other must not work for. The rows have about 200 bytes.
const schema = `
create table customers (id int primary key, name text not null, phone text not null);
create table staff (id int primary key, email text not null, name text not null);
insert into customers select g, 'Customer ' || g, '010-0000-' || g from generate_series(1, 1000) g;
insert into staff select g, 'staff' || g || '@example.com', 'Colleague ' || g from generate_series(1, 50) g;
create table changes (id bigint primary key, kind text not null, customer_id int not null, staff_id int not null,
	starts_at timestamptz not null, note text not null);
create table bare_changes (like changes including all);
create table people (id int primary key, email text not null, name text not null, city text not null);
create table mailings (id int generated always as identity primary key, title text not null, until date not null, greeting text not null);
create publication bare for table bare_changes with (publish = 'insert');
create publication bare_too for table changes with (publish = 'insert');
analyze`

// insert is one change, into the table of one side.
const insert = `insert into %s (id, kind, customer_id, staff_id, starts_at, note)
	values ($1::bigint, 'meeting', 1 + $1::bigint %% 1000, 1 + $1::bigint %% 50, now(), repeat('n', 140))`

func startDatabase(ctx context.Context) (*database, error) {
	cluster, err := pgcluster.Start(ctx, pgcluster.Options{Settings: map[string]string{
		"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
		"autovacuum": "off", // it would wake up in one round and not in another
	}})
	if err != nil {
		return nil, err
	}
	d := &database{cluster: cluster, url: cluster.URL("postgres")}
	if d.conn, err = pgx.Connect(ctx, d.url); err == nil {
		_, err = d.conn.Exec(ctx, schema)
	}
	if err != nil {
		cluster.Stop()
		return nil, fmt.Errorf("making the database: %w", err)
	}
	return d, nil
}

func (d *database) stop(ctx context.Context) {
	d.conn.Close(ctx)
	d.cluster.Stop()
}

// createSlot makes a slot for a bare loop.
func (d *database) createSlot(ctx context.Context, name string) error {
	_, err := d.conn.Exec(ctx, "select pg_create_logical_replication_slot($1, 'pgoutput')", name)
	return err
}

func (d *database) dropSlot(ctx context.Context, name string) error {
	_, err := d.conn.Exec(ctx, "select pg_drop_replication_slot($1)", name)
	return err
}

// forget drops a slot of postman's and its publications, if they are there.
func (d *database) forget(ctx context.Context, slot string) error {
	_, err := d.conn.Exec(ctx, fmt.Sprintf(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '%[1]s';
		drop publication if exists %[1]s_ins, %[1]s_upd, %[1]s_del`, slot))
	return err
}

// streaming waits until a slot is streamed from, and says since when, by the server's clock.
func (d *database) streaming(ctx context.Context, slot string) (since time.Time, err error) {
	err = d.poll(ctx, func() (bool, error) {
		err := d.conn.QueryRow(ctx, `select coalesce(max(a.query_start), 'epoch') from pg_replication_slots s
			join pg_stat_activity a on a.pid = s.active_pid
			where s.slot_name = $1 and a.query like 'START_REPLICATION%'`, slot).Scan(&since)
		return since.Unix() > 0, err
	})
	return since, err
}

// confirmed waits until a slot is confirmed up to an LSN, and says when that was, by the server's clock.
func (d *database) confirmed(ctx context.Context, slot, lsn string) (at time.Time, err error) {
	err = d.poll(ctx, func() (there bool, err error) {
		err = d.conn.QueryRow(ctx, `select clock_timestamp(), confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots
			where slot_name = $1`, slot, lsn).Scan(&at, &there)
		return there, err
	})
	return at, err
}

// idle waits until nobody streams from a slot.
func (d *database) idle(ctx context.Context, slot string) error {
	return d.poll(ctx, func() (idle bool, err error) {
		err = d.conn.QueryRow(ctx, "select not active from pg_replication_slots where slot_name = $1", slot).Scan(&idle)
		return idle, err
	})
}

// poll asks every few milliseconds, which is what the times of a drain are exact to.
func (d *database) poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// end is where the log ends now.
func (d *database) end(ctx context.Context) (lsn string, err error) {
	err = d.conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&lsn)
	return lsn, err
}

// sent waits until the server has sent all of its log up to an LSN, or has seen that there is nothing to be sent of it.
func (d *database) sent(ctx context.Context, lsn string) error {
	return d.poll(ctx, func() (there bool, err error) {
		err = d.conn.QueryRow(ctx, "select coalesce(bool_and(sent_lsn >= $1::text::pg_lsn), false) from pg_stat_replication", lsn).Scan(&there)
		return there, err
	})
}
