package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// viewStore opens a store for reading alone. Nothing is made or altered, the schema included.
func viewStore(path string) (s *Store, err error) {
	if path, err = filepath.EvalSymlinks(path); err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, err
	}
	s = &Store{path: path, claims: newClaims(), quit: make(chan struct{})}
	parameters := "mode=ro&_pragma=query_only(ON)"
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) && !writable(filepath.Dir(path)) {
		parameters += "&immutable=1" // a copy, in a folder where SQLite cannot put what readers share
	}
	if s.reads, err = sql.Open("sqlite", s.dsn(parameters)); err != nil {
		return nil, err
	}
	s.reads.SetMaxOpenConns(readers)
	if err := s.sight(context.Background()); err != nil {
		return nil, errors.Join(err, s.reads.Close())
	}
	return s, nil
}

// sight makes sure that the file is a store that this postman can read, and reads its identity.
func (s *Store) sight(ctx context.Context) error {
	conn, err := s.reads.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only read
	version, err := identify(ctx, conn)
	if err != nil {
		return err
	}
	files, err := fs.Glob(migrations, "migrations/*.sql")
	switch {
	case err != nil:
		return err
	case version > len(files):
		return fmt.Errorf("its schema has version %d and this postman knows up to %d: a newer postman wrote it; run that one", version, len(files))
	case version < len(files):
		return fmt.Errorf("its schema has version %d and this postman reads %d: let this postman run on it once, or read it with the one that wrote it", version, len(files))
	}
	return s.reads.QueryRowContext(ctx, identity).Scan(&s.id, &s.secret)
}

// writable says whether files can be made in a folder.
func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".postman-*")
	if err != nil {
		return false
	}
	return errors.Join(f.Close(), os.Remove(f.Name())) == nil
}
