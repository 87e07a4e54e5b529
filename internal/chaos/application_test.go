package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The application's schema. The ledger is what the verdict rests on: each change that a rule has to see is written down in it, by the
// same transaction, so that Postgres itself says what was committed. No rule watches it.
const schema = `
create table customers (id int primary key, name text not null, phone text not null);
create table staff (id int primary key, email text not null, name text not null);
create table schedules (id bigint primary key, kind text not null, customer_id int not null, staff_id int not null,
	change bigint not null, note text not null);
create table ledger (change bigint primary key, email text not null);
insert into customers select g, 'Customer ' || g, '010-0000-' || g from generate_series(0, 99) g;
insert into staff select g, 'staff' || g || '@example.com', 'Colleague ' || g from generate_series(0, 9) g`

const (
	perSecond = 300 // changes, of all workers together
	workers   = 3   // whose transactions overlap
)

// application writes changes until its context ends. Each change has a number of its own, which its mail's subject tells.
type application struct {
	t       *testing.T
	url     string
	seed    uint64
	changes atomic.Int64

	mu         sync.Mutex
	rolledBack map[int64]bool // changes that must not be mailed, as far as the application knows for certain
	unmatched  map[int64]bool // committed, and of no rule's interest
	broken     int            // connections that were lost
}

func newApplication(t *testing.T, url string, seed uint64) *application {
	return &application{t: t, url: url, seed: seed, rolledBack: make(map[int64]bool), unmatched: make(map[int64]bool)}
}

func (a *application) run(ctx context.Context) {
	var working sync.WaitGroup
	for i := range workers {
		working.Go(func() {
			w := &worker{app: a, dice: rand.New(rand.NewPCG(a.seed, uint64(i)))}
			w.run(ctx)
		})
	}
	working.Wait()
}

// worker is one connection of the application.
type worker struct {
	app  *application
	dice *rand.Rand
	conn *pgx.Conn
	ids  []int64 // rows that are committed for certain
}

// run writes transactions at an even pace. A lost connection is made again, and the transaction is not: whether it was
// committed, the ledger knows.
func (w *worker) run(ctx context.Context) {
	defer w.hangUp(context.WithoutCancel(ctx))
	next := time.Now()
	for ctx.Err() == nil {
		n, err := w.transaction(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.lost(ctx, err)
			n = 10
		}
		next = next.Add(time.Duration(n) * workers * time.Second / perSecond)
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // an outage is not made up for
		}
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
		}
	}
}

// lost notes a connection that broke. Any other error is a mistake of this test's.
func (w *worker) lost(ctx context.Context, err error) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !strings.HasPrefix(pg.Code, "57P") {
		w.app.t.Errorf("the application: %v", err)
	}
	w.hangUp(ctx)
	w.app.mu.Lock()
	w.app.broken++
	w.app.mu.Unlock()
}

func (w *worker) hangUp(ctx context.Context) {
	if w.conn != nil {
		_ = w.conn.Close(ctx) // whatever breaks off is rolled back
		w.conn = nil
	}
}

// transaction writes one of the kinds, and says how many changes it had.
func (w *worker) transaction(ctx context.Context) (n int, err error) {
	if w.conn == nil {
		if w.conn, err = pgx.Connect(ctx, w.app.url); err != nil {
			return 0, err
		}
	}
	kinds := []struct {
		weight int
		write  func(context.Context) (int, error)
	}{
		{40, w.single}, {10, w.uninteresting}, {15, w.several}, {12, w.update}, {5, w.ping}, {8, w.rollBack}, {10, w.savepoint},
	}
	at := w.dice.IntN(100)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			return k.write(ctx)
		}
	}
	panic("the weights do not sum up to 100")
}

// change is the number of a new change.
func (w *worker) change() int64 { return w.app.changes.Add(1) }

// executor is a connection or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func staffOf(change int64) int64    { return change % 10 }
func emailOf(change int64) string   { return fmt.Sprintf("staff%d@example.com", staffOf(change)) }
func customerOf(id int64) (c int64) { return id % 100 }

// book inserts a row that a rule matches, and its line in the ledger.
func (w *worker) book(ctx context.Context, to executor) (change int64, err error) {
	change = w.change()
	_, err = to.Exec(ctx, `with l as (insert into ledger values ($1, $2))
		insert into schedules values ($1, 'meeting', $3, $4, $1, repeat('n', 100))`, change, emailOf(change), customerOf(change), staffOf(change))
	return change, err
}

// note inserts a row that no rule matches.
func (w *worker) note(ctx context.Context, to executor) error {
	change := w.change()
	_, err := to.Exec(ctx, "insert into schedules values ($1, 'note', 0, 0, $1, 'nothing to tell')", change)
	w.app.remember(w.app.unmatched, change)
	return err
}

// rebook updates a row so that a rule matches it, and writes a new line into the ledger.
func (w *worker) rebook(ctx context.Context, to executor, id int64) error {
	change := w.change()
	_, err := to.Exec(ctx, `with l as (insert into ledger values ($1, $2))
		update schedules set kind = 'meeting', change = $1, staff_id = $3 where id = $4`, change, emailOf(change), staffOf(change), id)
	return err
}

func (a *application) remember(set map[int64]bool, changes ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range changes {
		set[c] = true
	}
}

// single is one row in a transaction of its own.
func (w *worker) single(ctx context.Context) (int, error) {
	change, err := w.book(ctx, w.conn)
	if err == nil {
		w.ids = append(w.ids, change)
	}
	return 1, err
}

// uninteresting is a row or an update that no rule matches.
func (w *worker) uninteresting(ctx context.Context) (int, error) {
	if w.dice.IntN(2) == 0 || len(w.ids) == 0 {
		return 1, w.note(ctx, w.conn)
	}
	change := w.change()
	_, err := w.conn.Exec(ctx, "update schedules set kind = 'note', change = $1 where id = $2", change, w.anyID())
	w.app.remember(w.app.unmatched, change)
	return 1, err
}

func (w *worker) anyID() int64 { return w.ids[w.dice.IntN(len(w.ids))] }

// several is a transaction of rows that match and rows that do not.
func (w *worker) several(ctx context.Context) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		for range 2 + w.dice.IntN(6) {
			n++
			if w.dice.IntN(4) == 0 {
				if err := w.note(ctx, tx); err != nil {
					return err
				}
			} else if _, err := w.book(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// update changes a row, or inserts it first.
func (w *worker) update(ctx context.Context) (int, error) {
	if len(w.ids) == 0 {
		return w.single(ctx)
	}
	return 1, w.rebook(ctx, w.conn, w.anyID())
}

// ping is a transactional message, without a row.
func (w *worker) ping(ctx context.Context) (int, error) {
	change := w.change()
	_, err := w.conn.Exec(ctx, `with l as (insert into ledger values ($1, $2) returning change, email)
		select pg_logical_emit_message(true, 'postman.ping', row_to_json(l)::text) from l`, change, emailOf(change))
	return 1, err
}

var errChangedMind = errors.New("the application changed its mind")

// rollBack writes what would be matched and takes it all back.
func (w *worker) rollBack(ctx context.Context) (int, error) {
	var changes []int64
	err := pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		for range 1 + w.dice.IntN(3) {
			change, err := w.book(ctx, tx)
			if err != nil {
				return err
			}
			changes = append(changes, change)
		}
		return errChangedMind
	})
	if errors.Is(err, errChangedMind) {
		err = nil
	}
	w.app.remember(w.app.rolledBack, changes...)
	return len(changes), err
}

// savepoint keeps what came before and after a savepoint that it rolls back to.
func (w *worker) savepoint(ctx context.Context) (int, error) {
	var undone int64
	err := pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		if _, err := w.book(ctx, tx); err != nil {
			return err
		}
		err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) (err error) {
			if undone, err = w.book(ctx, inner); err != nil {
				return err
			}
			return errChangedMind
		})
		if !errors.Is(err, errChangedMind) {
			return err
		}
		w.app.remember(w.app.rolledBack, undone)
		_, err = w.book(ctx, tx)
		return err
	})
	return 3, err
}

// importMany commits many rows that a rule matches, in one transaction.
func (a *application) importMany(ctx context.Context, n int) error {
	conn, err := pgx.Connect(ctx, a.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	last := a.changes.Add(int64(n))
	_, err = conn.Exec(ctx, `with imported as (
			insert into schedules select g, 'meeting', g % 100, g % 10, g, repeat('i', 100) from generate_series($1::bigint, $2::bigint) g
			returning change, staff_id)
		insert into ledger select change, 'staff' || staff_id || '@example.com' from imported`, last-int64(n)+1, last)
	return err
}

// confirmed waits until the daemon has confirmed all that is committed now. It hardly sleeps, to be there at once.
func (a *application) confirmed(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("an import was not confirmed in time"))
	defer cancel()
	conn, err := pgx.Connect(ctx, a.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var end string
	if err := conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&end); err != nil {
		return err
	}
	for done := false; !done; {
		err := conn.QueryRow(ctx, "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots", end).Scan(&done)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// ledger is what was committed and has to be mailed: the address by change.
func ledger(ctx context.Context, url string) (map[int64]string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select change, email from ledger")
	if err != nil {
		return nil, err
	}
	due := make(map[int64]string)
	var change int64
	var email string
	_, err = pgx.ForEachRow(rows, []any{&change, &email}, func() error {
		due[change] = email
		return nil
	})
	return due, err
}
