package cdc

import (
	"context"
	"fmt"
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
	defer s.hold(nil)
	for wait := firstBackOff; ; wait = min(2*wait, lastBackOff) {
		found, err := s.askTypes(ctx, xid, unknown)
		if err == nil {
			for oid, t := range found {
				s.types[oid] = t.Type
			}
			return s.types, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !Passing(err) {
			return nil, permanent(err, s.slot)
		}
		s.hold(fmt.Errorf("asking for the types of a table that changed: %w", err))
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// askTypes asks once, on a connection of its own: the stream's is busy.
func (s *Stream) askTypes(ctx context.Context, xid uint32, oids []uint32) (map[uint32]pgType, error) {
	config, err := ordinary(s.url)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["statement_timeout"] = strconv.FormatInt(resolvePatience.Milliseconds(), 10) // should we be gone by then
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	conn, err := connect(ctx, config)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn)
	return resolveTypes(ctx, conn, xid, oids)
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
