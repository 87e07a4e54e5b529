package sqlite_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"postman/outbox"
	"postman/outbox/outboxtest"
	"postman/outbox/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	t.Parallel()
	outboxtest.Run(t, func(t *testing.T, dir string) outbox.Store {
		t.Helper()
		s, err := sqlite.Open(filepath.Join(dir, "postman.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
