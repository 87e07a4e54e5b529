package authoring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/daemon"
	"postman/dispatch"
)

// lab is a database in which changes are made and taken back.
type lab struct{ conn *pgx.Conn }

// openLab connects. A statement may take as long as a look-up, and no lock is waited for long: the database may be in use.
func openLab(ctx context.Context, config *daemon.Config) (*lab, error) {
	if config.DatabaseURL == "" {
		return nil, daemon.Misuse("database_url: --database needs one; set DATABASE_URL=postgres://user@host/database")
	}
	c, err := pgx.ParseConfig(string(config.DatabaseURL))
	if err != nil {
		return nil, fmt.Errorf("reading the database's URL (database_url): %w", err)
	}
	timeout := time.Duration(config.Lookup.Timeout)
	maps.Copy(c.RuntimeParams, dispatch.PinnedSettings())
	maps.Copy(c.RuntimeParams, map[string]string{
		"application_name": "postman test", "statement_timeout": strconv.FormatInt(timeout.Milliseconds(), 10), "lock_timeout": "2000",
	})
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	return &lab{conn}, nil
}

func (l *lab) close(ctx context.Context) {
	_ = l.conn.Close(context.WithoutCancel(ctx)) // what it had open is rolled back with that
}

// transaction is one that is always rolled back.
type transaction struct{ conn *pgx.Conn }

func (l *lab) begin(ctx context.Context) (*transaction, error) {
	t := &transaction{l.conn}
	return t, t.do(ctx, "begin")
}

func (t *transaction) rollback(ctx context.Context) error {
	return t.do(context.WithoutCancel(ctx), "rollback")
}

func (t *transaction) do(ctx context.Context, sql string) error {
	if _, err := t.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// readOnly asks as a look-up may: what would write is refused, and what fails leaves the transaction as it was.
func (t *transaction) readOnly(ctx context.Context, ask func() error) error {
	for _, sql := range []string{"savepoint asking", "set transaction read only"} {
		if err := t.do(ctx, sql); err != nil {
			return err
		}
	}
	return errors.Join(ask(), t.do(context.WithoutCancel(ctx), "rollback to savepoint asking"))
}
