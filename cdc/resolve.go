package cdc

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/value"
)

// resolvePatience is how long the catalog may take to answer before the stream says that it stands still.
const resolvePatience = 2 * time.Second

// resolve finds the types that are not Postgres' own. Without them the values that come next cannot be read, so that the stream
// waits for the catalog: the connection is kept alive meanwhile, and the status says why nothing moves. What a transaction in
// progress has made (xid 0) is not waited for: nobody sees it before the commit.
func (s *Stream) resolve(ctx context.Context, xid uint32, oids []uint32) (map[uint32]value.Type, error) {
	var unknown []uint32
	for _, oid := range oids {
		if _, ok := s.types[oid]; !ok {
			unknown = append(unknown, oid)
		}
	}
	if len(unknown) == 0 {
		return s.types, nil
	}
	err := s.ask(ctx, "asking for the types of a table that changed", func(ctx context.Context, conn *pgx.Conn) error {
		found, err := resolveTypes(ctx, conn, xid, unknown)
		for oid, t := range found {
			s.types[oid] = t.Type
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.types, nil
}

// mostAsked is how many subtransactions are asked for at once: a loop in PL/pgSQL can make a million.
const mostAsked = 20_000

// rolledBack says whether one of some subtransactions was.
func (s *Stream) rolledBack(ctx context.Context, xids []uint32) (found bool, err error) {
	for some := range slices.Chunk(xids, mostAsked) {
		err := s.ask(ctx, "asking which savepoints a transaction rolled back", func(ctx context.Context, conn *pgx.Conn) (err error) {
			found, err = anyRolledBack(ctx, conn, some)
			return err
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// anyRolledBack asks for the fates of transactions by their numbers of 32 bits, which are taken for the nearest ones of 64.
func anyRolledBack(ctx context.Context, conn *pgx.Conn, xids []uint32) (found bool, err error) {
	numbers := make([]int64, len(xids))
	for i, xid := range xids {
		numbers[i] = int64(xid)
	}
	err = conn.QueryRow(ctx, `
		select exists (
		  select from unnest($1::bigint[]) x, (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint - (1::bigint << 31) as base) now
		   where pg_xact_status((base + ((x - base) & 4294967295))::text::xid8) = 'aborted')`, numbers).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("asking for the fates of %d subtransactions: %w", len(xids), err)
	}
	return found, nil
}

// ask asks the database until it answers, on a connection of its own: the stream's is busy.
func (s *Stream) ask(ctx context.Context, what string, question func(context.Context, *pgx.Conn) error) error {
	defer s.hold(nil)
	for wait := firstBackOff; ; wait = min(2*wait, lastBackOff) {
		err := s.askOnce(ctx, question)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !Passing(err):
			return permanent(err, s.slot)
		}
		s.hold(fmt.Errorf("%s: %w", what, err))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

func (s *Stream) askOnce(ctx context.Context, question func(context.Context, *pgx.Conn) error) error {
	config, err := ordinary(s.url)
	if err != nil {
		return err
	}
	config.RuntimeParams["statement_timeout"] = strconv.FormatInt(resolvePatience.Milliseconds(), 10) // should we be gone by then
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	conn, err := connect(ctx, config)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	return question(ctx, conn)
}

// resolveTypes finds types that a transaction used, which may have made them itself: a commit can be streamed a moment
// before others see it, and a type that is not seen yet must not pass for one that was dropped.
func resolveTypes(ctx context.Context, conn *pgx.Conn, xid uint32, oids []uint32) (map[uint32]pgType, error) {
	if xid == 0 {
		return loadTypes(ctx, conn, oids)
	}
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		// Asked first: a transaction that is over now is seen by the query below. Its lock goes after it has become visible.
		var running bool
		if err := conn.QueryRow(ctx, `select exists (select from pg_locks where locktype = 'transactionid' and transactionid = $1::text::xid and granted)`,
			strconv.FormatUint(uint64(xid), 10)).Scan(&running); err != nil {
			return nil, fmt.Errorf("asking for transaction %d: %w", xid, err)
		}
		types, err := loadTypes(ctx, conn, oids)
		if err != nil {
			return nil, err
		}
		if !running || complete(oids, types) {
			return types, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("transaction %d has been committed and nobody sees it yet, as when a synchronous standby does not answer: %w", xid, context.Cause(ctx))
		case <-retry.C:
		}
	}
}

// complete says whether each of the types was found.
func complete(oids []uint32, types map[uint32]pgType) bool {
	for _, oid := range oids {
		if _, ok := types[oid]; !ok {
			return false
		}
	}
	return true
}

// hold notes why the stream stands still although it is connected; nil: it does not.
func (s *Stream) hold(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	before := s.status.Held
	s.status.Held = text
	s.mu.Unlock()
	switch {
	case (text == "") == (before == ""):
	case text == "":
		s.log.Info("the stream goes on", "slot", s.slot)
	default:
		s.log.Warn("the stream stands still; it goes on by itself", "slot", s.slot, "error", err)
	}
}
