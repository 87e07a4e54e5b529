package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// change is the number of a new change.
func (w *worker) change() int64 { return w.app.changes.Add(1) }

// executor is a connection or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func staffOf(change int64) int64    { return change % 10 }
func emailOf(change int64) string   { return fmt.Sprintf("staff%d@example.com", staffOf(change)) }
func customerOf(id int64) (c int64) { return id % 100 }
func noteOf(change int64) string    { return fmt.Sprintf("%s %d", strings.Repeat("n", 90), change) }

// What the mails say.
func told(change int64) string {
	return fmt.Sprintf("Dear Colleague %d, something happened.", staffOf(change))
}

func toldOfBooking(change, id int64) string {
	c := customerOf(id)
	return fmt.Sprintf("Dear Colleague %d, Customer %d (010-0000-%d): %s", staffOf(change), c, c, noteOf(change))
}

const pinged = "Here we are."

// ledge writes a line into the ledger, in the same statement as what follows: change, address, class and what its mail has to say.
const ledge = "with l as (insert into ledger values ($1, $2, $3, $4) returning change, email) "

// book inserts a row that a rule matches, and its line in the ledger.
func (w *worker) book(ctx context.Context, to executor) (change int64, err error) {
	return w.bookAs(ctx, to, always)
}

func (w *worker) bookAs(ctx context.Context, to executor, class int) (change int64, err error) {
	change = w.change()
	_, err = to.Exec(ctx, ledge+"insert into schedules values ($1, 'meeting', $5, $6, $1, $7)",
		change, emailOf(change), class, toldOfBooking(change, change), customerOf(change), staffOf(change), noteOf(change))
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
	_, err := to.Exec(ctx, ledge+"update schedules set kind = 'meeting', change = $1, staff_id = $5, note = $6 where id = $7",
		change, emailOf(change), always, toldOfBooking(change, id), staffOf(change), noteOf(change), id)
	return err
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
	_, err := w.emit(ctx, w.conn)
	return 1, err
}

func (w *worker) emit(ctx context.Context, to executor) (change int64, err error) {
	change = w.change()
	_, err = to.Exec(ctx, ledge+"select pg_logical_emit_message(true, 'postman.ping', row_to_json(l)::text) from l", change, emailOf(change), always, pinged)
	return change, err
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
	w.app.count("transactions rolled back")
	return len(changes), err
}

// nested rolls back savepoints within savepoints, and what one of them released.
func (w *worker) nested(ctx context.Context) (n int, err error) {
	var undone []int64
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		if _, err := w.book(ctx, tx); err != nil {
			return err
		}
		for range 2 {
			lost, err := w.within(ctx, tx, 3)
			if err != nil {
				return err
			}
			undone = append(undone, lost...)
		}
		_, err := w.book(ctx, tx)
		return err
	})
	w.app.remember(w.app.rolledBack, undone...)
	return 8, err
}

// within writes something in a savepoint, and in others within that, and says which changes it rolled back.
func (w *worker) within(ctx context.Context, tx pgx.Tx, depth int) (undone []int64, err error) {
	var done []int64
	err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
		write := w.book
		if w.dice.IntN(4) == 0 {
			write = w.emit
		}
		change, err := write(ctx, inner)
		if err != nil {
			return err
		}
		done = append(done, change)
		if depth > 1 {
			lost, err := w.within(ctx, inner, depth-1)
			if err != nil {
				return err
			}
			undone = append(undone, lost...)
		}
		if w.dice.IntN(2) == 0 {
			return errChangedMind
		}
		return nil
	})
	if errors.Is(err, errChangedMind) {
		w.app.count("savepoints rolled back, nested")
		undone, err = append(undone, done...), nil
	}
	return undone, err
}

// visit is a change of which it depends on the rules at the time whether it is told of.
func (w *worker) visit(ctx context.Context) (int, error) {
	change := w.change()
	_, err := w.conn.Exec(ctx, ledge+"insert into visits values ($1, $3, $5)", change, emailOf(change), w.dice.IntN(classes), told(change), staffOf(change))
	return 1, err
}

// ticket is a row whose rule may be broken for a while.
func (w *worker) ticket(ctx context.Context) (int, error) {
	if !w.app.tickets.TryRLock() {
		return 0, nil
	}
	defer w.app.tickets.RUnlock()
	change := w.change()
	if w.dice.IntN(4) == 0 {
		rest := []string{"'no', 5, 'open'", "'yes', 2, 'open'", "'yes', 5, 'closed'"}[w.dice.IntN(3)]
		_, err := w.conn.Exec(ctx, "insert into tickets values ($1, "+rest+", $2)", change, staffOf(change))
		w.app.remember(w.app.unmatched, change)
		return 1, err
	}
	_, err := w.conn.Exec(ctx, ledge+"insert into tickets values ($1, 'yes', 3, 'open', $5)", change, emailOf(change), always, told(change), staffOf(change))
	return 1, err
}

// parcel is a row of a table that is renamed now and then.
func (w *worker) parcel(ctx context.Context) (int, error) {
	t := &w.app.parcels
	t.mu.RLock()
	defer t.mu.RUnlock()
	change := w.change()
	_, err := w.conn.Exec(ctx, ledge+"insert into "+t.name+" values ($1, $5)", change, emailOf(change), always, told(change), staffOf(change))
	return 1, err
}

// remove deletes a row, of which the old one is told.
func (w *worker) remove(ctx context.Context) (int, error) {
	change := w.change()
	if _, err := w.conn.Exec(ctx, "insert into bookings values ($1, $2)", change, staffOf(change)); err != nil {
		return 1, err
	}
	_, err := w.conn.Exec(ctx, ledge+"delete from bookings where change = $1", change, emailOf(change), always, told(change))
	w.app.count("rows deleted")
	return 2, err
}

// empty truncates a table, or changes its mind.
func (w *worker) empty(ctx context.Context) (int, error) {
	err := pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		change := w.change()
		for _, statement := range []string{
			"truncate wipes", fmt.Sprintf("insert into wipes values (%d)", change), // whoever truncates waits for the others
			fmt.Sprintf("insert into ledger values (%d, 'office@example.com', %d, '')", change, emptied),
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		if w.dice.IntN(4) == 0 {
			return errChangedMind
		}
		return nil
	})
	if errors.Is(err, errChangedMind) {
		err = nil
	}
	w.app.count("tables truncated")
	return 2, err
}

const muteIt = "select pg_logical_emit_message(true, 'postman.mute', 'a migration')"

// mute writes a transaction that mutes itself: in the beginning, in the middle or in the end, or in a savepoint; or takes that back, and does not.
func (w *worker) mute(ctx context.Context) (n int, err error) {
	at, back := w.dice.IntN(4), w.dice.IntN(3) == 0
	class := muted
	if back {
		class = always
	}
	err = pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		for i := range 4 {
			if i == at {
				err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
					if _, err := inner.Exec(ctx, muteIt); err != nil || !back {
						return err
					}
					return errChangedMind
				})
				if err != nil && !errors.Is(err, errChangedMind) {
					return err
				}
			}
			if _, err := w.bookAs(ctx, tx, class); err != nil {
				return err
			}
		}
		return nil
	})
	w.app.count(map[bool]string{false: "transactions muted", true: "transactions muted in a savepoint that was rolled back"}[back])
	return 4, err
}

// copyFromElsewhere writes what was replayed from another database, and is ignored.
func (w *worker) copyFromElsewhere(ctx context.Context) (int, error) {
	_, err := w.conn.Exec(ctx, "select pg_replication_origin_session_setup($1)", w.origin)
	if busy, ok := errors.AsType[*pgconn.PgError](err); ok && busy.Code == "55006" {
		return 0, nil // by the process of a connection that broke, and has not ended yet
	}
	if err == nil {
		_, err = w.bookAs(ctx, w.conn, foreign)
	}
	if err == nil {
		_, err = w.conn.Exec(ctx, "select pg_replication_origin_session_reset()")
	}
	w.app.count("transactions from elsewhere")
	return 1, err
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
		w.app.count("savepoints rolled back")
		_, err = w.book(ctx, tx)
		return err
	})
	return 3, err
}
