package cdc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// pinned are the settings on which the text form of values depends. They go with the connection's start-up packet and
// so override what the server, the database and the role say.
var pinned = map[string]string{
	"application_name":   "postman",
	"client_encoding":    "UTF8",
	"DateStyle":          "ISO",
	"IntervalStyle":      "postgres",
	"TimeZone":           "UTC",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
}

// connectPatience bounds how long a connection may take to come about.
const connectPatience = 30 * time.Second

func connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// ordinary is the configuration of a connection for queries.
func ordinary(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, &SetupError{Problem: "DATABASE_URL cannot be read", Fix: "it looks like postgres://user:password@host:5432/database", Err: err}
	}
	maps.Copy(config.RuntimeParams, pinned)
	return config, nil
}

// replication is the configuration of a connection for replication, which takes queries too, in the simple protocol.
func replication(url string) (*pgx.ConnConfig, error) {
	config, err := ordinary(url)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"] = "database"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return config, nil
}

// hangUp says good-bye if that is quick, also when ctx has ended.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is of no use any more, whatever became of the good-bye
}

// link is the receiving side of a replication connection. It keeps deadlines for each read from the network, of which
// there is one for many messages: a context for each message would cost more than decoding it.
type link struct {
	below   io.Reader
	conn    net.Conn
	silence time.Duration // after which the peer is given up; zero: not yet watched
	cut     atomic.Bool
	heard   *atomic.Int64 // is set to when something came last, in nanoseconds since 1970
}

// readBuffer is what one read takes in at most. The server flushes 8 KiB at a time, but they gather while we decode.
const readBuffer = 128 << 10

// attach puts a link into a connection that is going to be made.
func attach(config *pgx.ConnConfig, heard *atomic.Int64) *link {
	l := &link{heard: heard}
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		l.below = r
		l.conn, _ = w.(net.Conn)
		return pgproto3.NewFrontend(bufio.NewReaderSize(l, readBuffer), w)
	}
	return l
}

var (
	errCut     = errors.New("the connection was given up")
	errSilence = errors.New("nothing came from the server")
)

// Read reads what is there, or waits for something as long as a live server can be silent.
func (l *link) Read(p []byte) (int, error) {
	if l.silence == 0 {
		return l.below.Read(p)
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(l.silence)); err != nil {
		return 0, err
	}
	if l.cut.Load() { // after the deadline was set: interrupt sets the two the other way round
		return 0, errCut
	}
	n, err := l.below.Read(p)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		if l.cut.Load() {
			return n, errCut
		}
		return n, fmt.Errorf("%w for %s", errSilence, l.silence)
	}
	return n, err
}

// interrupt ends a Read that waits, and all later ones. Any goroutine may call it.
func (l *link) interrupt() {
	l.cut.Store(true)
	_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection, which ends reads as well
}
