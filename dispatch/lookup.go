package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postman/rules"
	"postman/value"
)

// LookupOptions bound what look-ups may cost the database.
type LookupOptions struct {
	Conns   int           // connections, and look-ups at the same time; default 4
	Timeout time.Duration // of one query, kept by server and client; default 5 s
	Log     *slog.Logger
}

// Lookup asks the database for recipients and for what templates show: read-only, each match in one snapshot that has
// its transaction, and nothing that one rule left in a session reaches another. Safe for many goroutines.
type Lookup struct {
	config  *pgconn.Config
	timeout time.Duration
	log     *slog.Logger
	places  chan struct{} // one for each connection that may be in use

	mu     sync.Mutex
	idle   []*lookupConn
	closed bool
	down   error     // why the last attempt to connect failed; nil: it did not
	since  time.Time // of down
	again  time.Time // with down: not before then
	wait   time.Duration
}

// lookupConn is a connection, and whose settings its session may have.
type lookupConn struct {
	*pgconn.PgConn
	rule     uint32
	served   bool
	prepared map[string]string // names of the session's prepared statements, by their text and its parameters' types
	names    int               // that were given
	id       uint64            // part of them: behind a pooler that changes the server, another's statement must not be taken for ours
}

// pinned are the session settings on which the text form of values depends, and those that keep a look-up from harm.
// As the startup packet's they are what DISCARD ALL goes back to.
var pinned = map[string]string{
	"datestyle":                     "ISO",
	"intervalstyle":                 "postgres",
	"timezone":                      "UTC",
	"extra_float_digits":            "3",
	"client_encoding":               "UTF8",
	"bytea_output":                  "hex",
	"default_transaction_read_only": "on",
}

// OpenLookup connects to the database that rules ask. The URL is a connection URL or string as libpq knows them.
func OpenLookup(ctx context.Context, url string, o LookupOptions) (*Lookup, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("reading the look-up URL: %w", err)
	}
	l := &Lookup{config: config, timeout: o.Timeout, log: o.Log}
	if l.timeout <= 0 {
		l.timeout = 5 * time.Second
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if o.Conns <= 0 {
		o.Conns = 4
	}
	l.places = make(chan struct{}, o.Conns)
	for name := range config.RuntimeParams { // names have no case: one of two spellings would win by chance
		if _, ok := pinned[strings.ToLower(name)]; ok {
			delete(config.RuntimeParams, name)
		}
	}
	maps.Copy(config.RuntimeParams, pinned)
	config.RuntimeParams["statement_timeout"] = strconv.FormatInt(l.timeout.Milliseconds(), 10)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "postman"
	}
	if asked := config.ValidateConnect; asked != nil {
		config.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error { return serves(ctx, c, asked) }
	}
	return l, l.warm(ctx, o.Conns)
}

// serves asks a server what target_session_attrs asks of it, which takes a session that may only read for a server that may only read.
func serves(ctx context.Context, c *pgconn.PgConn, asked pgconn.ValidateConnectFunc) error {
	if _, err := c.Exec(ctx, "set default_transaction_read_only = off").ReadAll(); err != nil {
		return err
	}
	if err := asked(ctx, c); err != nil {
		return err
	}
	_, err := c.Exec(ctx, "reset default_transaction_read_only").ReadAll()
	return err
}

// warm connects all there may be: the first look-ups are as fast as the others.
func (l *Lookup) warm(ctx context.Context, n int) error {
	for range n {
		c, err := l.connect(ctx)
		if err != nil {
			l.Close(ctx)
			return fmt.Errorf("connecting for look-ups: %w", err)
		}
		l.idle = append(l.idle, c)
	}
	return nil
}

// Close ends the connections. Nothing may be asked any more.
func (l *Lookup) Close(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.idle {
		_ = c.Close(ctx) // a read-only session leaves nothing behind
	}
	l.idle = nil
}

// Conns is how many look-ups may run at the same time.
func (l *Lookup) Conns() int { return cap(l.places) }

// Down is why the database cannot be asked, and since when; nil: it can.
func (l *Lookup) Down() (since time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since, l.down
}

// take waits for a connection, best one that served the rule last; fresh: it was connected just now.
func (l *Lookup) take(ctx context.Context, rule uint32) (c *lookupConn, fresh bool, err error) {
	select {
	case l.places <- struct{}{}:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if c := l.pick(rule); c != nil {
		return c, false, nil
	}
	c, err = l.reconnect(ctx)
	if err != nil {
		<-l.places
	}
	return c, true, err
}

// pick takes an idle connection: one of the rule, else one that needs no DISCARD ALL, else the one unused for longest.
func (l *Lookup) pick(rule uint32) *lookupConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	best := -1
	for i, c := range l.idle {
		if c.served && c.rule == rule {
			best = i // the last of them, which was used last
		}
	}
	for i := 0; i < len(l.idle) && best < 0; i++ {
		if !l.idle[i].served {
			best = i
		}
	}
	if best < 0 && len(l.idle) > 0 {
		best = 0
	}
	if best < 0 {
		return nil
	}
	c := l.idle[best]
	l.idle = append(l.idle[:best], l.idle[best+1:]...)
	return c
}

// give returns a connection, unless it broke.
func (l *Lookup) give(ctx context.Context, c *lookupConn) {
	l.mu.Lock()
	keep := !c.IsClosed() && c.TxStatus() == 'I' && !l.closed
	if keep {
		l.idle = append(l.idle, c)
	}
	l.mu.Unlock()
	if !keep {
		_ = c.Close(context.WithoutCancel(ctx)) // it is of no use any more, whatever that says
	}
	<-l.places
}

// How long a database that cannot be reached is left alone.
const (
	firstReconnect = 200 * time.Millisecond
	mostReconnect  = 5 * time.Second
)

// reconnect connects, unless that failed a moment ago; it logs when the database goes and when it comes back.
func (l *Lookup) reconnect(ctx context.Context) (*lookupConn, error) {
	l.mu.Lock()
	down, again := l.down, l.again
	l.mu.Unlock()
	if down != nil && time.Now().Before(again) {
		return nil, &askError{kind: lost, err: down}
	}
	c, err := l.connect(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		if l.down == nil {
			l.since, l.wait = time.Now(), firstReconnect
			l.log.WarnContext(ctx, "the database cannot be asked", "error", err)
		}
		l.down, l.again = err, time.Now().Add(l.wait)
		l.wait = min(2*l.wait, mostReconnect)
		return nil, &askError{kind: lost, err: err}
	case l.down != nil:
		l.log.InfoContext(ctx, "the database answers again", "after", time.Since(l.since).Round(time.Millisecond))
		l.down = nil
	}
	return c, nil
}

func (l *Lookup) connect(ctx context.Context) (*lookupConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.timeout)
	defer cancel()
	c, err := pgconn.ConnectConfig(ctx, l.config)
	if err != nil {
		return nil, err
	}
	return &lookupConn{PgConn: c, prepared: make(map[string]string), id: rand.Uint64()}, nil
}

// Describe has the server check a query with parameters of these types, and returns the columns of its result. A type of 0
// is the server's to find. An error of the query wraps a *pgconn.PgError.
func (l *Lookup) Describe(ctx context.Context, sql *rules.SQL, oids []uint32) ([]value.Column, error) {
	c, _, err := l.take(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer l.give(ctx, c)
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	// The unnamed statement leaves nothing in the session that could reach another rule.
	d, err := c.Prepare(ctx, "", sql.Text, oids)
	if err != nil {
		return nil, err
	}
	list := columns(d.Fields)
	for i := range list {
		list[i].Type.Name = value.TypeName(list[i].Type.OID)
	}
	return list, nil
}

// Denied is why the role of look-ups may not run a query, in the server's words; empty: it may, or the query is wrong otherwise, which [Lookup.Describe]
// tells. The server plans it and reads nothing: rights are looked at when a plan is begun with.
func (l *Lookup) Denied(ctx context.Context, query string, parameters int) (string, error) {
	c, _, err := l.take(ctx, 0)
	if err != nil {
		return "", err
	}
	defer l.give(ctx, c)
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	err = c.ExecParams(ctx, "explain "+query, make([][]byte, parameters), nil, nil, nil).Read().Err
	refusal, said := errors.AsType[*pgconn.PgError](err)
	switch {
	case said && refusal.Code == "42501": // insufficient_privilege
		return refusal.Message, nil
	case said:
		return "", nil
	}
	return "", err
}

func columns(fields []pgconn.FieldDescription) []value.Column {
	list := make([]value.Column, len(fields))
	for i, f := range fields {
		// A domain comes as its base type: the server resolves it (SendRowDescriptionMessage).
		list[i] = value.Column{Name: f.Name, Type: value.Type{OID: f.DataTypeOID, Base: f.DataTypeOID}}
	}
	return list
}

// Warning says what is wrong with the role that look-ups run as; empty: nothing. Transactions are read-only all the same.
func (l *Lookup) Warning(ctx context.Context) (string, error) {
	c, _, err := l.take(ctx, 0)
	if err != nil {
		return "", err
	}
	defer l.give(ctx, c)
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	r := c.ExecParams(ctx, roleQuery, nil, nil, nil, nil).Read()
	if r.Err != nil {
		return "", fmt.Errorf("asking for the look-up role's rights: %w", r.Err)
	}
	role, super, table := string(r.Rows[0][0]), string(r.Rows[0][1]), string(r.Rows[0][2])
	switch {
	case super == "on":
		return fmt.Sprintf("look-ups run as %q, a superuser: give them a role of their own that can only read (LOOKUP_URL)", role), nil
	case table != "":
		return fmt.Sprintf("look-ups run as %q, which can write (to %s, for one): give them a role of their own that can only read (LOOKUP_URL)", role, table), nil
	}
	return "", nil
}

const roleQuery = `
select current_user, current_setting('is_superuser'), coalesce((
	select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
	 where c.relkind in ('r', 'p', 'f', 'v') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
	   and has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
	 order by 1 limit 1), '')`

// kind says what a failed look-up means for its match.
type kind uint8

const (
	wrong kind = iota // the query's own mistake: it fails the next time, too
	busy              // the database's trouble of the moment: later, within reason
	lost              // the database cannot be reached: later, however long that takes
	early             // the match's transaction is not visible yet: later, and soon
)

// askError is a look-up that failed.
type askError struct {
	kind kind
	what string // which query, with its place
	err  error
}

func (e *askError) Error() string {
	if e.what == "" {
		return e.err.Error()
	}
	return e.what + ": " + e.err.Error()
}

func (e *askError) Unwrap() error { return e.err }

// kindOf sorts an error of a connection by its SQLSTATE (Postgres documentation, appendix A).
func kindOf(err error) kind {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && (pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded)):
		return busy // our own deadline: the server did not keep statement_timeout
	case !ok:
		return lost
	}
	switch pg.Code {
	case "57P01", "57P02", "57P03", "57P04", "57P05", "53300": // the server goes, comes, or has no connection left
		return lost
	case "57014", "55P03", "25P03", "25P04": // a timeout
		return busy
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08":
		return lost
	case "40", "53", "58", "XX": // conflict, resources, the system, an internal error
		return busy
	}
	return wrong
}
