package sqlite

import (
	"context"
	"database/sql"
)

// scanner reads the columns of a row.
type scanner func(dest ...any) error

// rows reads all rows of a query. What runs it is the writer's connection or one of the readers'.
func rows[T any](query func(string, ...any) (*sql.Rows, error), scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	r, err := query(text, args...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []T
	for r.Next() {
		one, err := scan(r.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, r.Err()
}

// reading runs queries on the readers' connections.
func (s *Store) reading(ctx context.Context) func(string, ...any) (*sql.Rows, error) {
	return func(text string, args ...any) (*sql.Rows, error) { return s.reads.QueryContext(ctx, text, args...) }
}
