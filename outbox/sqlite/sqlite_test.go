package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"postman/outbox"
	"postman/outbox/outboxtest"
	"postman/outbox/sqlite"
)

// TestMain runs the tests, or else one of the processes that they start and kill.
func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childEnv)]; ok {
		child(os.Args[len(os.Args)-1])
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	t.Parallel()
	outboxtest.Run(t, func(t *testing.T, dir string) outbox.Store {
		t.Helper()
		path := filepath.Join(dir, "postman.db")
		s, err := sqlite.Open(path, sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return checked{s, path}
	})
}

// checked is a store that looks, when it is closed, at what the interface does not show.
type checked struct {
	outbox.Store
	path string
}

// Close fails where a message would wait in another rule's line than its match.
func (c checked) Close() error {
	err := c.Store.Close()
	db, errOpen := sql.Open("sqlite", c.path)
	if err = errors.Join(err, errOpen); err != nil {
		return err
	}
	var astray int
	err = db.QueryRow(`SELECT count(*) FROM messages m JOIN matches x ON x.id = m.match WHERE m.rule <> x.rule`).Scan(&astray)
	if astray > 0 {
		err = fmt.Errorf("%d messages are in another rule's line", astray)
	}
	return errors.Join(err, db.Close())
}
