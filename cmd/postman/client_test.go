package main

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"postman/outbox/sqlite"
)

// TestStoreOfSomebodyElse: whoever has the store for a moment keeps no command from it.
func TestStoreOfSomebodyElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	store, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	given := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { given <- store.Close() })
	if code := run([]string{"status", "--store-url", "sqlite:" + path}, io.Discard, io.Discard); code != 0 {
		t.Errorf("it exited %d", code)
	}
	if err := <-given; err != nil {
		t.Error(err)
	}
}
