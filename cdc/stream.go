package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postman/position"
	"postman/value"
)

// Options say what to stream.
type Options struct {
	// URL is the database's connection string. The role needs REPLICATION.
	URL string
	// Slot is a slot of that database; its publications are <slot>_ins, <slot>_upd and <slot>_del.
	Slot string
	// Start is the checkpoint: the end of the last commit, or the idle position, that is durable with the caller. Zero
	// starts where the slot stands.
	Start position.LSN
	// SystemID and Timeline are those of the server on which Start is; empty and 0: of the first that is found.
	SystemID string
	Timeline int32
	// Moved, if there is one, is told before the stream goes on in another timeline, that of a standby that was promoted: all that was
	// handed over so far is part of that, too. Its error is tried again.
	Moved func(ctx context.Context, timeline int32) error
	// InProgress has large transactions sent while they are in progress, and not only when they have committed.
	InProgress bool
	Log        *slog.Logger // nil: none
}

// Stream hands the committed changes of a database over, in commit order. Confirm and Status are for any goroutine;
// Run is for one.
type Stream struct {
	url, slot  string
	inProgress bool
	log        *slog.Logger

	confirmed atomic.Uint64 // what the caller called durable
	news      chan struct{} // holds one token when confirmed has advanced
	received  atomic.Uint64 // what the caller was told of: the end of a commit, an idle position
	serverEnd atomic.Uint64
	heard     atomic.Int64 // when a message came last, in nanoseconds since 1970
	refused   atomic.Uint64

	mu        sync.Mutex
	interrupt context.CancelCauseFunc // of the session; nil: there was none
	status    Status                  // Connected, Since, LastError and Held

	// Of Run's goroutine, and kept from session to session:

	done      position.LSN // the end of the last commit that was handed over
	systemID  string       // of the cluster, once one was seen
	timeline  int32        // likewise
	moved     func(context.Context, int32) error
	announced map[uint32]*Table
	types     map[uint32]value.Type
	suspects  []*DecodeError // messages that could not be read since done
	silences  int            // sessions that ended in silence since done
	// whole is the transaction that must not be sent in parts, or anyTransaction; 0: none.
	whole    uint32
	wholeFor time.Duration // after which a session without parts ends: the transaction may have been rolled back
}

const (
	anyTransaction = ^uint32(0)
	wholeFor       = 10 * time.Minute
)

// wholly notes that the next session is to read transactions whole, after one that ended with an error: where that says so, or where
// the server itself failed. Some versions of it cannot stream each transaction in progress that they can send once it has committed, such
// as one that truncated a table in a savepoint which was then rolled back.
func (s *Stream) wholly(err error) {
	if e, ok := errors.AsType[*wholeError](err); ok {
		s.whole = e.xid
	}
	if s.inProgress && s.whole == 0 && strings.HasPrefix(sqlState(err), "XX") {
		s.whole = anyTransaction
	}
}

// NewStream is a stream that is not running yet.
func NewStream(o Options) *Stream {
	s := &Stream{
		url: o.URL, slot: o.Slot, inProgress: o.InProgress, log: o.Log, done: o.Start, systemID: o.SystemID, timeline: o.Timeline, moved: o.Moved,
		news: make(chan struct{}, 1), announced: make(map[uint32]*Table), types: make(map[uint32]value.Type), wholeFor: wholeFor,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.confirmed.Store(uint64(o.Start))
	s.received.Store(uint64(o.Start))
	s.status.Since = time.Now()
	return s
}

// Status says how the stream is doing.
type Status struct {
	Connected bool      // and streaming
	Since     time.Time // when it became connected, or ceased to be
	LastError string    // why it is not connected, or was not before
	// Held is why it stands still although it is connected: the catalog does not tell what the next change means. Empty: it does not.
	Held string
	// ServerEnd is the end of the server's log, as far as the server has told: when it is not connected, long ago.
	ServerEnd position.LSN
	// Received is the end of the last commit that was handed over, or the idle position behind it.
	Received    position.LSN
	Confirmed   position.LSN // what was last given to Confirm, or Start
	LastMessage time.Time    // when something was last heard from the server; zero: never
	Refused     uint64       // messages of pg_logical_emit_message that were not transactional
}

// Status may be called at any time.
func (s *Stream) Status() Status {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	// In this order, so that each is at most the next one, whatever happens meanwhile.
	status.Confirmed = position.LSN(s.confirmed.Load())
	status.Received = position.LSN(s.received.Load())
	status.ServerEnd = max(position.LSN(s.serverEnd.Load()), status.Received)
	status.Refused = s.refused.Load()
	if heard := s.heard.Load(); heard != 0 {
		status.LastMessage = time.Unix(0, heard)
	}
	return status
}

// Confirm says that everything up to the LSN is durable: the server may forget it. It is sent soon. An LSN below an
// earlier one changes nothing.
func (s *Stream) Confirm(lsn position.LSN) {
	if !advance(&s.confirmed, lsn) {
		return
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// advance raises a to the LSN, and says whether it did.
func advance(a *atomic.Uint64, lsn position.LSN) bool {
	for {
		old := a.Load()
		if uint64(lsn) <= old {
			return false
		}
		if a.CompareAndSwap(old, uint64(lsn)) {
			return true
		}
	}
}

// resume is where the next session begins: behind all that was handed over or is durable.
func (s *Stream) resume() position.LSN {
	return max(s.done, position.LSN(s.confirmed.Load()))
}

const (
	firstBackOff = 100 * time.Millisecond
	lastBackOff  = 15 * time.Second
	busyBackOff  = time.Second // steady: who waits for a slot takes it over soon after it is free
)

// Run streams until the context ends, the handler returns an error, or something is wrong that trying again will not
// mend: a *SetupError, or a *DecodeError that came again. A connection that is lost is made again.
func (s *Stream) Run(ctx context.Context, h Handler) error {
	if err := checkSlot(s.slot); err != nil {
		return err
	}
	wait, busySince, logged := firstBackOff, time.Time{}, ""
	for {
		began, before := time.Now(), s.done
		err := s.session(ctx, h)
		s.disconnected(err)
		if end := final(ctx, err); end != nil {
			return end
		}
		s.wholly(err)
		if s.done != before || time.Since(began) > lastBackOff { // it did stream
			wait, busySince, logged = firstBackOff, time.Time{}, ""
		}
		if s.done != before {
			s.suspects, s.silences = nil, 0
		}
		if errors.Is(err, errSilence) {
			s.silences++
		}
		if broken, ok := errors.AsType[*DecodeError](err); ok {
			if broken.among(s.suspects) || len(s.suspects) == mostSuspects {
				return fmt.Errorf("streaming: %w", err)
			}
			s.suspects = append(s.suspects, broken)
		}
		if busy, ok := errors.AsType[*busyError](err); ok {
			if busySince.IsZero() {
				busySince = time.Now()
			}
			if time.Since(busySince) > busy.patience {
				return busy.setup()
			}
			wait = busyBackOff
		}
		if err.Error() != logged {
			logged = err.Error()
			s.log.Warn("the stream is interrupted; it will be taken up again", "slot", s.slot, "at", s.resume(), "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastBackOff)
	}
}

// final returns the error that ends Run, or nil when the session is to be tried again.
func final(ctx context.Context, err error) error {
	if h, ok := errors.AsType[handlerError](err); ok {
		return h.error
	}
	_, setup := errors.AsType[*SetupError](err)
	switch {
	case setup:
		return fmt.Errorf("streaming: %w", err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

var errReconnect = errors.New("a new connection was asked for")

// Reconnect has the stream go on over a new connection, where it stands. What a walsender remembers of tables is forgotten with it: of a
// partitioned table that was renamed, its partitions' changes go on to be told under the former name (get_rel_sync_entry in pgoutput.c).
func (s *Stream) Reconnect(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt != nil {
		s.interrupt(fmt.Errorf("%w: %s", errReconnect, why))
	}
}

func (s *Stream) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Connected, s.status.Since = true, time.Now()
}

func (s *Stream) disconnected(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Connected {
		s.status.Connected, s.status.Since = false, time.Now()
	}
	if err != nil {
		s.status.LastError = err.Error()
	}
}
