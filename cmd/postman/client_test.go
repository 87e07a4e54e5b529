package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// TestNoStoreInThisFolder: a mail server's pipe runs in a folder of its own, and an error that names none sends people looking elsewhere.
func TestNoStoreInThisFolder(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := noStore("postman.db", fs.ErrNotExist).Error(); !strings.Contains(got, "no store at "+filepath.Join(wd, "postman.db")) || !strings.Contains(got, "name the whole path") {
		t.Error(got)
	}
	if got := noStore("/var/lib/postman.db", fs.ErrNotExist).Error(); strings.Contains(got, "relative") {
		t.Error(got)
	}
}
