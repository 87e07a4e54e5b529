package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
)

// op is an operation on its way to the writer.
type op struct {
	run  func(*writer) error
	done chan error // holds one: the writer never waits for a caller
}

// write has the writer run an operation, and returns when its effect is durable or undone. Once the writer has taken it,
// its fate is waited for whatever becomes of the context: a caller must never wonder.
func (s *Store) write(ctx context.Context, what string, run func(*writer) error) error {
	if s.ops == nil {
		return fmt.Errorf("%s: %w", what, errReadOnly)
	}
	o := op{done: make(chan error, 1)}
	o.run = func(w *writer) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return run(w)
	}
	select {
	case s.ops <- o:
	case <-s.quit:
		return fmt.Errorf("%s: %w", what, errClosed)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if err := <-o.done; err != nil {
		return fmt.Errorf("%s: %w", what, explain(err))
	}
	return nil
}

// writer owns the one connection that writes. All of it belongs to the writer's goroutine.
type writer struct {
	prepare    func(query string) (*sql.Stmt, error)
	statements map[string]*sql.Stmt // by their text, for the life of the connection
	known      known
	stale      bool // known is not what the tables hold
	claims     *claims
	suppresses *atomic.Bool // there is an address that no mail goes to
	claimed    []change     // what the open transaction did to claims
	committed  []func()     // to be done when it is durable
	discounted [2][]int64   // claims that came to nothing, whose count it took back
}

// newWriter makes the writer of a connection. No context reaches SQLite: an operation that began comes to its end.
func newWriter(conn *sql.Conn, c *claims, suppresses *atomic.Bool) *writer {
	prepare := func(query string) (*sql.Stmt, error) { return conn.PrepareContext(context.Background(), query) }
	return &writer{prepare: prepare, statements: make(map[string]*sql.Stmt), claims: c, suppresses: suppresses}
}

// open reads the store's identity and all that the writer keeps in memory.
func (w *writer) open(s *Store) error {
	if err := w.each(identity, func(scan scanner) error { return scan(&s.id, &s.secret) }); err != nil {
		return fmt.Errorf("reading the store's identity: %w", err)
	}
	return w.load()
}

// run commits group after group until it is told to quit.
func (w *writer) run(ops <-chan op, quit <-chan struct{}) {
	defer w.close()
	for {
		select {
		case o := <-ops:
			w.serve(gather(o, ops))
		case <-quit:
			w.transaction(nil, nil) //nolint:errcheck // claims that came to nothing stay counted then, which does no harm
			return
		}
	}
}

// gather returns the first operation and all that are waiting behind it.
func gather(first op, ops <-chan op) []op {
	group := []op{first}
	for {
		select {
		case o := <-ops:
			group = append(group, o)
		default:
			return group
		}
	}
}

// serve runs a group in one transaction and answers its callers when that is durable.
func (w *writer) serve(group []op) {
	results := make([]error, len(group))
	err := w.transaction(group, results)
	for i, o := range group {
		if results[i] == nil {
			results[i] = err
		}
		o.done <- results[i]
	}
}

// transaction runs the group's operations and commits. It returns what undid all of them; results gets what undid one.
func (w *writer) transaction(group []op, results []error) error {
	w.claimed, w.committed = w.claimed[:0], w.committed[:0]
	err := w.begin()
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if len(group) == 1 { // alone it needs no savepoint
		err = group[0].run(w)
	}
	for i := 0; i < len(group) && len(group) > 1 && err == nil; i++ {
		results[i], err = w.alone(group[i])
	}
	if err == nil {
		_, err = w.exec(`COMMIT`)
	}
	if err != nil {
		return w.undo(err)
	}
	for _, f := range w.committed {
		f()
	}
	return nil
}

// begin opens a transaction in which memory and tables agree, also on which claims came to nothing. One that an error left open is
// rolled back first.
func (w *writer) begin() error {
	_, err := w.exec(`BEGIN IMMEDIATE`)
	if err != nil {
		w.stale = true
		w.exec(`ROLLBACK`) //nolint:errcheck // there may be none; the next BEGIN tells
		_, err = w.exec(`BEGIN IMMEDIATE`)
	}
	if err == nil && w.stale {
		err = w.load()
	} else if err != nil {
		return err
	}
	if err == nil {
		err = w.discount()
	}
	if err != nil {
		w.exec(`ROLLBACK`) //nolint:errcheck // if it did not succeed, the next BEGIN tells
	}
	return err
}

// undo takes the whole transaction back, with all that memory holds of it, and returns why.
func (w *writer) undo(why error) error {
	// SQLite rolls back by itself after some errors of the disk; then there is nothing to roll back.
	w.exec(`ROLLBACK`) //nolint:errcheck // if it did not succeed, the next BEGIN tells
	w.claims.undo(w.claimed)
	w.claims.putBackReleased(w.discounted)
	w.stale = true // the next BEGIN mends it
	return why
}

// alone runs one operation of several. What it did is undone if it fails; fatal is an error that cost the others theirs.
func (w *writer) alone(o op) (failed, fatal error) {
	if _, err := w.exec(`SAVEPOINT op`); err != nil {
		return nil, err
	}
	claimed, committed := len(w.claimed), len(w.committed)
	if failed = o.run(w); failed != nil {
		if _, err := w.exec(`ROLLBACK TO op`); err != nil {
			return nil, failed // the transaction is gone, savepoints and all
		}
		w.claims.undo(w.claimed[claimed:])
		w.claimed, w.committed = w.claimed[:claimed], w.committed[:committed]
		if err := w.load(); err != nil {
			return failed, err
		}
	}
	_, fatal = w.exec(`RELEASE op`)
	return failed, fatal
}

// after has something done when the transaction is durable.
func (w *writer) after(f func()) { w.committed = append(w.committed, f) }

// statement prepares a statement, once.
func (w *writer) statement(query string) (*sql.Stmt, error) {
	if s, ok := w.statements[query]; ok {
		return s, nil
	}
	s, err := w.prepare(query)
	if err == nil {
		w.statements[query] = s
	}
	return s, err
}

// close finalizes the statements: SQLite keeps a connection open, and the log unfolded, until that is done.
func (w *writer) close() {
	for _, s := range w.statements {
		s.Close() //nolint:errcheck // it repeats the error of the last execution, which was told
	}
}

// exec runs a statement and returns how many rows it touched.
func (w *writer) exec(query string, args ...any) (int, error) {
	s, err := w.statement(query)
	if err != nil {
		return 0, err
	}
	result, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}

func (w *writer) query(query string, args ...any) (*sql.Rows, error) {
	s, err := w.statement(query)
	if err != nil {
		return nil, err
	}
	return s.Query(args...)
}

// each calls f for every row of a query.
func (w *writer) each(query string, f func(scanner) error, args ...any) error {
	rows, err := w.query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
