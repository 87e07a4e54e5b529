package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// migrations bring a store from one version to the next, in the order of their names. The schema's version is how many of
// them it has seen. One that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks a file as a postman store, in SQLite's header field for that: "post".
const applicationID = 0x706f7374

// migrate makes the schema of the file what this postman works with. A file that is not ours is not written to.
func migrate(ctx context.Context, conn *sql.Conn) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	version, err := identify(ctx, conn)
	if err != nil {
		return err
	}
	if version > len(files) {
		return fmt.Errorf("its schema has version %d and this postman knows up to %d: a newer postman wrote it; run that one", version, len(files))
	}
	if err := logAhead(ctx, conn); err != nil {
		return err
	}
	for i, name := range files[version:] {
		if err := apply(ctx, conn, name, version+i+1); err != nil {
			return fmt.Errorf("applying %s: %w", name, err)
		}
	}
	return nil
}

// identify says which version of our schema the file has; 0: it is empty.
func identify(ctx context.Context, conn *sql.Conn) (int, error) {
	var id, version, objects int
	err := errors.Join(
		conn.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id),
		conn.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version),
		conn.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&objects),
	)
	switch {
	case err != nil:
		return 0, err
	case id == applicationID:
		return version, nil
	case id == 0 && version == 0 && objects == 0:
		return 0, nil
	}
	return 0, errors.New("it is an SQLite database, and not a postman store; point STORE_URL at another file")
}

// logAhead switches the file to a write-ahead log.
func logAhead(ctx context.Context, conn *sql.Conn) error {
	var mode string
	if err := conn.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return fmt.Errorf("switching to a write-ahead log: %w", err)
	}
	if mode != "wal" {
		return fmt.Errorf("its file system allows no write-ahead log (journal mode %q); put the store on a local disk", mode)
	}
	return nil
}

func apply(ctx context.Context, conn *sql.Conn, name string, version int) error {
	statements, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, string(statements)); err != nil {
		return err
	}
	if version == 1 {
		if err := found(ctx, tx); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, version)); err != nil {
		return err
	}
	return tx.Commit()
}

// found gives a new store its identity.
func found(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value) VALUES ('id', ?)`, rand.Text()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID))
	return err
}
