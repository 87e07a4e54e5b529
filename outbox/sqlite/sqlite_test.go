package sqlite_test

import (
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
		s, err := sqlite.Open(filepath.Join(dir, "postman.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
