package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"postman/position"
)

// session is one connection's worth of a stream.
type session struct {
	*Stream
	conn    *pgx.Conn
	link    *link
	handler Handler
	decoder decoder
	silence time.Duration // after which the server is given up
	began   time.Time
	asked   chan struct{} // holds one token when the server asked for a status
}

// usualTimeout stands in for a wal_sender_timeout of none. It is Postgres' default.
const usualTimeout = 60 * time.Second

// session connects, streams until something breaks, and says what.
func (s *Stream) session(ctx context.Context, h Handler) error {
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	s.mu.Lock()
	s.interrupt = interrupt
	s.mu.Unlock()
	err := s.streamOnce(ctx, h)
	if cause := context.Cause(ctx); errors.Is(cause, errReconnect) {
		return cause
	}
	return err
}

func (s *Stream) streamOnce(ctx context.Context, h Handler) error {
	config, err := replication(s.url)
	if err != nil {
		return err
	}
	link := attach(config, &s.heard)
	conn, err := connect(ctx, config)
	if err != nil {
		return permanent(err, s.slot)
	}
	defer hangUp(ctx, conn)
	timeout, err := s.start(ctx, conn)
	if err != nil {
		return err
	}
	x := &session{Stream: s, conn: conn, link: link, handler: h, silence: s.patience(timeout), began: time.Now(), asked: make(chan struct{}, 1)}
	x.decoder = decoder{
		handler: h, done: s.resume(), announced: s.announced, resolve: s.resolve, rolledBack: s.rolledBack, refuse: x.refuse,
		relations: make(map[uint32]*Table), typeNames: make(map[uint32]string), streams: make(map[uint32]*streamed),
		quarantine: quarantine{suspects: s.suspects},
	}
	if err := h.Restart(); err != nil {
		return handled(err)
	}
	s.heard.Store(time.Now().UnixNano()) // its answer; the first messages may have come along with that
	s.connected()
	s.log.Info("streaming", "slot", s.slot, "from", s.resume())
	return x.run(ctx, min(timeout/4, 10*time.Second))
}

// patience is how long the server may be silent. It speaks when it has been silent for half of wal_sender_timeout, and answers our pings, so
// that whoever says nothing for all of it is gone: that is how Postgres' own receivers judge (wal_receiver_timeout). Some versions are
// busy with a large transaction for longer than that, though: each session that ends in silence, with nothing handed over, makes the next one
// wait for twice as long.
func (s *Stream) patience(timeout time.Duration) time.Duration { return timeout << min(s.silences, 5) }

// start checks that the slot can give what comes next, and begins the replication. It returns the server's patience.
func (s *Stream) start(ctx context.Context, conn *pgx.Conn) (timeout time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	db, err := Inspect(ctx, conn, s.slot)
	if err != nil {
		return 0, err
	}
	if db.InRecovery { // in a failover: what a standby has no slot for, it may have once it is promoted
		return 0, errors.New("the server is a standby: waiting until it is promoted, or the primary is back")
	}
	resume := s.resume()
	if err := db.usable(s.slot, resume); err != nil {
		return 0, err
	}
	timeout = cmp.Or(db.SenderTimeout, usualTimeout)
	system, err := pglogrepl.IdentifySystem(ctx, conn.PgConn())
	if err != nil {
		return 0, fmt.Errorf("identifying the server: %w", err)
	}
	if err := s.sameServer(ctx, conn.PgConn(), system, resume); err != nil {
		return 0, err
	}
	holder := "another process of the server"
	if db.Slot.ActivePID != 0 {
		holder = s.holder(ctx, conn) // now: the command that is refused leaves no connection that could be asked
	}
	err = pglogrepl.StartReplication(ctx, conn.PgConn(), quoted(s.slot), pglogrepl.LSN(resume), pglogrepl.StartReplicationOptions{
		PluginArgs: []string{
			"proto_version '2'", "messages 'true'", s.streaming(), fmt.Sprintf("publication_names '%s_ins,%[1]s_upd,%[1]s_del'", s.slot),
		},
	})
	if sqlState(err) == codeInUse {
		return 0, &busyError{slot: s.slot, holder: holder, patience: 2 * timeout, err: err}
	}
	return timeout, permanent(err, s.slot)
}

// streaming asks for large transactions while they are in progress, unless there is one that has to be read whole, or what came last
// could not be read: it is told apart and put aside where transactions come whole.
func (s *Stream) streaming() string {
	if !s.inProgress || s.whole != 0 || len(s.suspects) > 0 {
		return "streaming 'off'"
	}
	return "streaming 'on'"
}

// sameServer says whether this is the cluster that was streamed from before, and not an older state or another branch of it.
func (s *Stream) sameServer(ctx context.Context, conn *pgconn.PgConn, system pglogrepl.IdentifySystemResult, resume position.LSN) error {
	if before := cmp.Or(s.systemID, system.SystemID); before != system.SystemID {
		return &SetupError{
			Problem: fmt.Sprintf("the database is another one than before: system %s instead of %s", system.SystemID, before),
			Fix:     "start again: database and store are compared then",
		}
	}
	s.systemID = system.SystemID
	end := position.LSN(system.XLogPos)
	advance(&s.serverEnd, end)
	if resume > end {
		return &SetupError{
			Problem: fmt.Sprintf("the stream is at %s, and the server's log ends before that, at %s: it was restored or failed over to an older state", resume, end),
			Fix:     "make sure that the right server is running; if it is, begin anew, with a gap: postman setup --accept-gap",
		}
	}
	if s.timeline != 0 && s.timeline != system.Timeline {
		return s.follow(ctx, conn, system.Timeline, resume)
	}
	s.timeline = system.Timeline
	return nil
}

// follow goes on in another timeline, if what was handed over is all part of it.
func (s *Stream) follow(ctx context.Context, conn *pgconn.PgConn, timeline int32, resume position.LSN) error {
	at, known, err := leftAt(ctx, conn, s.timeline, timeline)
	if err != nil {
		return err
	}
	if !known || resume > at {
		return &SetupError{
			Problem: BranchOff(s.timeline, timeline, at, resume),
			Fix:     "make sure that the right server is running; if it is, begin anew, with a gap: postman setup --accept-gap",
		}
	}
	if s.moved != nil {
		if err := s.moved(ctx, timeline); err != nil {
			return fmt.Errorf("noting the server's new timeline: %w", err)
		}
	}
	s.log.Warn("a standby was promoted, and the stream goes on with it: nothing is missing", "slot", s.slot, "timeline", timeline,
		"before", s.timeline, "since", at, "at", resume)
	s.timeline = timeline
	return nil
}

// BranchOff says why a stream that is at a position in one timeline cannot go on in another, which left it at another position; 0: never.
func BranchOff(before, now int32, left, at position.LSN) string {
	if left == 0 {
		return fmt.Sprintf("the server is in timeline %d, which did not come from timeline %d, in which the stream is at %s: it was restored, or another standby was promoted", now, before, at)
	}
	return fmt.Sprintf("the server is in timeline %d, which left timeline %d at %s, and the stream is at %s: a standby was promoted, or a backup recovered, that lacks what lies between", now, before, left, at)
}

// busyError says that another walsender holds the slot: that of another process, or one of ours that does not know yet that
// its connection is gone.
type busyError struct {
	slot     string
	holder   string
	patience time.Duration // after which it is not one of ours
	err      error
}

func (e *busyError) Error() string {
	return fmt.Sprintf("slot %q is in use by %s: waiting for it", e.slot, e.holder)
}

func (e *busyError) Unwrap() error { return e.err }

func (e *busyError) setup() error {
	return &SetupError{
		Problem: fmt.Sprintf("slot %q stays in use by %s", e.slot, e.holder),
		Fix:     "look whether another postman runs there with this slot, and stop it; or as a DBA: SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" + e.slot + "';",
		Err:     e.err,
	}
}

// holder says for a person who reads the slot.
func (s *Stream) holder(ctx context.Context, conn *pgx.Conn) string {
	var pid int
	var name, from, since string
	// The role sees of others' processes what it may: its own role's, or with pg_monitor those of all.
	err := conn.QueryRow(ctx, `
		select s.active_pid, coalesce(nullif(r.application_name, ''), '?'), coalesce(host(r.client_addr) || ':' || r.client_port, 'a local socket'),
		       coalesce(to_char(r.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), '?')
		  from pg_replication_slots s left join pg_stat_replication r on r.pid = s.active_pid
		 where s.slot_name = $1 and s.active_pid is not null`, s.slot).Scan(&pid, &name, &from, &since)
	if err != nil { // nobody does, or the connection is gone: the next try tells
		return "a process of the server"
	}
	return fmt.Sprintf("the server's process %d (%s, from %s, since %s)", pid, name, from, since)
}

// run receives and reports until one of the two ends.
func (x *session) run(ctx context.Context, beat time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	x.link.silence = x.silence
	defer context.AfterFunc(ctx, x.link.interrupt)()
	var reporting sync.WaitGroup
	reporting.Go(func() {
		if err := x.report(ctx, beat); err != nil {
			cancel(err)
		}
	})
	err := x.receive(ctx)
	cancel(err)
	reporting.Wait()
	if errors.Is(err, errCut) {
		return context.Cause(ctx)
	}
	return err
}

// receive reads messages and hands them over.
func (x *session) receive(ctx context.Context) error {
	frontend := x.conn.PgConn().Frontend()
	for {
		// Not by way of pgconn.ReceiveMessage: its bookkeeping for each message is dear, and link keeps the deadlines.
		msg, err := frontend.Receive()
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			err = x.copyData(ctx, msg.Data)
		case *pgproto3.ErrorResponse:
			err = permanent(pgconn.ErrorResponseToPgError(msg), x.slot)
		case *pgproto3.NoticeResponse:
			err = x.notice(msg)
		case *pgproto3.ParameterStatus:
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			err = errors.New("the server ended the stream: it is shutting down")
		default:
			err = fmt.Errorf("an unexpected answer from the server: %T", msg)
		}
		if err != nil {
			return err
		}
	}
}

// notice passes on what the server warns of. Since version 18 it only warns of a publication that is missing.
func (x *session) notice(msg *pgproto3.NoticeResponse) error {
	if msg.Code == codeUndefined {
		return permanent(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(msg)), x.slot)
	}
	x.log.Warn("Postgres says", "severity", msg.SeverityUnlocalized, "message", msg.Message, "detail", msg.Detail)
	return nil
}

// copyData takes a message of the streaming replication protocol.
func (x *session) copyData(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return errors.New("an empty message from the server")
	}
	switch b[0] {
	case pglogrepl.XLogDataByteID:
		data, err := pglogrepl.ParseXLogData(b[1:])
		if err != nil {
			return err
		}
		return x.data(ctx, data)
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(b[1:])
		if err != nil {
			return err
		}
		return x.keepalive(k)
	}
	return fmt.Errorf("a message of the unknown kind %q from the server", b[0])
}

func (x *session) data(ctx context.Context, data pglogrepl.XLogData) error {
	if err := x.decoder.message(ctx, position.LSN(data.WALStart), data.WALData); err != nil {
		return err
	}
	if x.decoder.done <= x.done {
		return nil
	}
	x.done = x.decoder.done
	advance(&x.received, x.done)
	if x.whole != 0 && x.whole == x.decoder.tx.XID {
		x.whole = 0
		return errWhole
	}
	return nil
}

// errWhole ends a session without streaming of what is in progress, once it has served its purpose.
var errWhole = errors.New("the transaction that had to be read whole is over, or takes long: large ones are streamed again")

// keepalive tells the handler how far the server has come, unless a transaction or a block of one is open: what the server has sent
// then ends in the middle of it. Transactions in progress are no obstacle: they commit behind that position, and the slot keeps what
// they need.
func (x *session) keepalive(k pglogrepl.PrimaryKeepaliveMessage) error {
	end := position.LSN(k.ServerWALEnd)
	advance(&x.serverEnd, end)
	if !x.decoder.open && x.decoder.block == nil && uint64(end) > x.received.Load() {
		if err := x.handler.Idle(end); err != nil {
			return handled(err)
		}
		advance(&x.received, end)
		if x.whole != 0 && time.Since(x.began) > x.wholeFor {
			x.whole = 0
			return errWhole
		}
	}
	if k.ReplyRequested {
		select {
		case x.asked <- struct{}{}:
		default:
		}
	}
	return nil
}

func (x *session) refuse(prefix string) {
	if x.refused.Add(1) == 1 {
		x.log.Warn("a logical message that is not transactional is refused; later ones are only counted: "+
			"use pg_logical_emit_message(true, …)", "prefix", prefix)
	}
}

// coalesce is the least time between two statuses that nobody waits for.
const coalesce = 100 * time.Millisecond

// report sends the status: each beat, when the server asks, and soon after the caller confirmed.
func (x *session) report(ctx context.Context, beat time.Duration) error {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	news, rested := x.news, (<-chan time.Time)(nil)
	for {
		ping := false
		select {
		case <-ctx.Done():
			return x.send(ctx, time.Second, false) // what was confirmed at last
		case <-ticker.C:
			ping = true // so that a server that never speaks on its own (wal_sender_timeout = 0) is known to be there
		case <-x.asked:
		case <-news:
			news, rested = nil, time.After(coalesce)
		case <-rested:
			news, rested = x.news, nil
			continue
		}
		if err := x.send(ctx, x.silence, ping); err != nil {
			return err
		}
	}
}

// send tells the server what is durable. All three positions are that one: a zero would be taken for the one beside it,
// and a position that was only received must never pass for one that is flushed. Nothing else writes to the connection
// while it streams.
func (x *session) send(ctx context.Context, patience time.Duration, ping bool) error {
	if err := x.link.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("confirming: %w", err)
	}
	durable := pglogrepl.LSN(x.confirmed.Load())
	err := pglogrepl.SendStandbyStatusUpdate(ctx, x.conn.PgConn(), pglogrepl.StandbyStatusUpdate{
		WALWritePosition: durable, WALFlushPosition: durable, WALApplyPosition: durable, ReplyRequested: ping,
	})
	if err != nil {
		return fmt.Errorf("confirming: %w", err)
	}
	return nil
}
