package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// importMany commits many rows that a rule matches, in one transaction.
func (a *application) importMany(ctx context.Context, n int) error {
	conn, err := pgx.Connect(ctx, a.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	last := a.changes.Add(int64(n))
	_, err = conn.Exec(ctx, `with imported as (
			insert into schedules (id, kind, customer_id, staff_id, change, note) select g, 'meeting', g % 100, g % 10, g, repeat('i', 90) || ' ' || g from generate_series($1::bigint, $2::bigint) g
			returning *)
		insert into ledger select i.change, s.email, $3, 'Dear ' || s.name || ', ' || c.name || ' (' || c.phone || '): ' || i.note
		  from imported i join staff s on s.id = i.staff_id join customers c on c.id = i.customer_id`, last-int64(n)+1, last, always)
	return err
}

// bulk is how much is written at a time, by transactions that are long and large.
type bulk struct {
	rows, step int           // of a transaction, and of a statement
	loaders    int           // who write at the same time
	pause      time.Duration // between two of one loader, at most
}

// oneInRows is how rarely a row of a bulk is one that a rule matches.
const oneInRows = 400

// loader writes large transactions of imports, which Postgres sends while they are in progress and between each other, with savepoints
// some of which it rolls back.
type loader struct {
	app  *application
	bulk bulk
	dice *rand.Rand

	conn   *pgx.Conn
	undone []int64 // in the open transaction, of the rows that a rule would match
}

func (l *loader) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.transaction(ctx)
		switch {
		case err == nil:
			l.app.count("large transactions committed")
		case errors.Is(err, errChangedMind):
			l.app.count("large transactions rolled back")
		case ctx.Err() == nil:
			l.app.count("large transactions broken off")
			l.app.lost(err)
		}
		select {
		case <-time.After(time.Duration(l.dice.Int64N(int64(l.bulk.pause)))):
		case <-ctx.Done():
		}
	}
}

func (l *loader) transaction(ctx context.Context) (err error) {
	if l.conn, err = pgx.Connect(ctx, l.app.url); err != nil {
		return err
	}
	defer l.conn.Close(context.WithoutCancel(ctx)) // whatever breaks off is rolled back
	l.undone = nil
	var kept []int64
	forget := l.dice.IntN(5) == 0
	err = pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		for left := l.bulk.rows; left > 0; {
			n, wanted, err := l.part(ctx, tx, left, 3)
			if err != nil {
				return err
			}
			left, kept = left-n, append(kept, wanted...)
		}
		if forget {
			l.undone = append(l.undone, kept...)
			return errChangedMind
		}
		return nil
	})
	l.app.remember(l.app.rolledBack, l.undone...)
	return err
}

// part writes some rows, in a statement or in a savepoint that has parts of its own. It returns how many rows there were and which of them a rule
// would match.
func (l *loader) part(ctx context.Context, tx pgx.Tx, most, depth int) (n int, wanted []int64, err error) {
	if depth == 0 || l.dice.IntN(3) > 0 {
		n = min(most, l.bulk.step)
		wanted, err = l.write(ctx, tx, n)
		return n, wanted, err
	}
	back := l.dice.IntN(2) == 0
	err = pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
		for range 1 + l.dice.IntN(3) {
			if n == most {
				break
			}
			more, w, err := l.part(ctx, inner, most-n, depth-1)
			if err != nil {
				return err
			}
			n, wanted = n+more, append(wanted, w...)
		}
		if back {
			return errChangedMind
		}
		return nil
	})
	if errors.Is(err, errChangedMind) {
		l.app.count("savepoints rolled back, in a large transaction")
		l.undone, wanted, err = append(l.undone, wanted...), nil, nil
	}
	return n, wanted, err
}

func (l *loader) write(ctx context.Context, tx pgx.Tx, n int) (wanted []int64, err error) {
	last := l.app.changes.Add(int64(n))
	begin := last - int64(n) + 1
	for change := begin; change <= last; change++ {
		if change%oneInRows == 0 {
			wanted = append(wanted, change)
		}
	}
	_, err = tx.Exec(ctx, `with imported as (
			insert into imports select g, g % $3 = 0, g % 10, repeat('b', 60) from generate_series($1::bigint, $2::bigint) g
			returning change, staff_id, wanted)
		insert into ledger select i.change, s.email, $4, 'Dear ' || s.name || ', something happened.' from imported i join staff s on s.id = i.staff_id where wanted`,
		begin, last, int64(oneInRows), always)
	return wanted, err
}
