package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// starve lives on a disk that fails to write for a while. It prints how each step ended.
func starve(path string) {
	s, err := sqlite.Open(path, sqlite.Options{})
	check(err)
	ctx := context.Background()
	ids, err := s.RuleIDs(ctx, outbox.RuleName{Name: "starve"})
	check(err)
	rule := ids[0]
	src, err := s.SaveSource(ctx, outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming})
	check(err)
	text := []byte("starve")
	step := func(what string, lsn position.LSN, size int) {
		b := outbox.Batch{Source: src.ID, Epoch: 1, Checkpoint: lsn, Texts: map[outbox.Hash][]byte{outbox.HashOf(text): text}}
		b.Transactions = []outbox.Transaction{{Tx: outbox.Tx{LSN: lsn - 1, End: lsn}, Matches: []outbox.NewMatch{{
			Rule: rule, Version: outbox.HashOf(text), Op: "insert", Change: make([]byte, size),
		}}}}
		claimed, err := s.Append(ctx, b, 10)
		fmt.Printf("%s: %d claimed, %v\n", what, len(claimed), err)
	}
	step("before", 10, 100)
	limit(512 << 10) // the log has its blocks, but may not write over them
	step("failing", 20, 1<<20)
	step("failing again", 20, 1<<20)
	found, err := s.Matches(ctx, outbox.Filter{})
	fmt.Printf("reading: %d matches, %v\n", len(found), err)
	limit(1 << 30)
	step("healed", 20, 1<<20)
	fmt.Println("closing:", s.Close())
}

// limit bounds how far into any file can be written: a write beyond is an I/O error (setrlimit(2), RLIMIT_FSIZE).
func limit(most uint64) {
	var was syscall.Rlimit
	check(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was))
	check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: was.Max}))
}

// TestFailingDisk: an operation that the disk fails says so to its caller, leaves nothing behind, and costs nothing but itself.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	cmd, out := child(t, "starve", path)
	said := read(t, out)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"before: 1 claimed, <nil>", "failing: 0 claimed, storing a batch: ", "failing again: 0 claimed, storing a batch: ",
		"reading: 1 matches, <nil>", "healed: 1 claimed, <nil>", "closing: <nil>",
	} {
		if i >= len(said) || !strings.HasPrefix(said[i], want) {
			t.Fatalf("step %d: not %q in\n%s", i, want, strings.Join(said, "\n"))
		}
	}
	if !strings.Contains(said[1], "disk I/O error") {
		t.Errorf("the error does not name the disk: %s", said[1])
	}
	s := open(t, path)
	defer s.Close()
	found, err := s.Matches(t.Context(), outbox.Filter{})
	if err != nil || len(found) != 2 || len(found[0].Change) != 1<<20 || len(found[1].Change) != 100 {
		t.Errorf("%d matches are there (%v)", len(found), err)
	}
	if got := pragma(t, path, "integrity_check"); got != "ok" {
		t.Errorf("the integrity check says %s", got)
	}
}
