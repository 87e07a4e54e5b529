package sqlite_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// file runs statements on a database file, as anybody could.
func file(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	first := open(t, path)
	alias := filepath.Join(t.TempDir(), "alias.db")
	if err := os.Symlink(path, alias); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, alias} {
		if _, err := sqlite.Open(name, sqlite.Options{}); !errors.Is(err, outbox.ErrLocked) || !strings.Contains(err.Error(), name) {
			t.Errorf("a second daemon on %s got %v", name, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, alias)
	if second.ID() != first.ID() {
		t.Errorf("the store %s became %s", first.ID(), second.ID())
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefuses: what cannot be a store of ours is refused in words, and nobody's file is touched.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	store := func(t *testing.T, path string, statements ...string) {
		t.Helper()
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		file(t, path, statements...)
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says string
	}{
		"somebody else's database": {func(t *testing.T, path string) { file(t, path, `CREATE TABLE t (x)`) }, "not a postman store"},
		"another application's mark": {
			func(t *testing.T, path string) { file(t, path, `PRAGMA application_id = 7`, `CREATE TABLE t (x)`) }, "not a postman store",
		},
		"no database": {
			func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte("Dear customer,\n"), 400)) }, "no SQLite database",
		},
		"a newer schema": {func(t *testing.T, path string) { store(t, path, `PRAGMA user_version = 999`) }, "a newer postman wrote it"},
		"damage": {func(t *testing.T, path string) {
			store(t, path)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 4096; i < len(content); i++ {
				content[i] = 0xA5
			}
			write(t, path, content)
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "postman.db")
			c.make(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := sqlite.Open(path, sqlite.Options{})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("the error is %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file was changed (%v)", err)
			}
			// Nothing is left locked: the operator may put a good file there.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, path := range map[string]string{"a folder": t.TempDir(), "a folder that is not there": filepath.Join(t.TempDir(), "no", "postman.db")} {
		if _, err := sqlite.Open(path, sqlite.Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTakesAnyPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"postman.db", "우편 함.db", "a?b&c=d#e%41+f;g.db", "'quoted\".db"} {
		path := filepath.Join(t.TempDir(), name)
		s := open(t, path)
		if _, err := s.RuleIDs(t.Context(), outbox.RuleName{Name: "a"}); err != nil {
			t.Error(err)
		}
		id := s.ID()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the write-ahead log of %s was not folded in (%v)", name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%s has mode %v and %d bytes: what it holds is nobody else's to read", name, info.Mode(), info.Size())
		}
		s = open(t, path)
		if s.ID() != id {
			t.Errorf("%s was another store before", name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestMigrations: the version of a schema is how many migrations it has seen, and their names count up.
func TestMigrations(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("migrations/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for i, name := range files {
		if !strings.HasPrefix(filepath.Base(name), fmt.Sprintf("%04d_", i+1)) || filepath.Ext(name) != ".sql" {
			t.Errorf("migration %d is named %s", i+1, name)
		}
	}
	path := filepath.Join(t.TempDir(), "postman.db")
	for range 2 {
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if got := pragma(t, path, "user_version"); got != fmt.Sprint(len(files)) {
			t.Errorf("the version is %s after %d migrations", got, len(files))
		}
		if got := pragma(t, path, "journal_mode"); got != "wal" {
			t.Errorf("the journal mode is %s", got)
		}
	}
}

// TestMigrateFromFirst opens a store as the first version left it: what it holds is there, and failed matches are tried again
// before they are sent.
func TestMigrateFromFirst(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("migrations/0001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		string(first), `PRAGMA application_id = 0x706f7374`, `PRAGMA user_version = 1`,
		`INSERT INTO meta VALUES ('id', 'first')`, `INSERT INTO rules VALUES (1, 'notify')`, `INSERT INTO texts VALUES (1, zeroblob(32), x'00')`,
		`INSERT INTO transactions VALUES (1, 1, 1, 10, 20, 7, 0, '', NULL)`,
		`INSERT INTO matches (id, tx, ordinal, rule, version, op, state, reason, due, priority, key, hold_uncertain, silent, created, change)
			VALUES (1, 1, 0, 1, 1, 'insert', 8, 'it could not be tried', 0, 1, '', 0, 0, 0, x'01'), (2, 1, 1, 1, 1, 'insert', 0, '', 0, 1, '', 0, 0, 0, x'01')`,
		`INSERT INTO messages (id, match, address, address_key, resend, state, reason, due, priority, created, message_id, subject)
			VALUES (1, 2, 'a@x', x'01', 0, 0, '', 0, 1, 0, '', ''), (2, 2, 'b@x', x'02', 0, 2, '', 0, 1, 0, '', ''), (3, 2, 'c@x', x'03', 0, 3, '', 0, 1, 0, '', '')`,
		`INSERT INTO attempts VALUES (2, 1, 'first', 0, 5, 450, '', ''), (2, 2, 'second', 2678399000000, 2000000, 250, '', ''), (3, 1, 'second', 0, 5, 550, '', ''),
			(1, 1, 'second', 0, 5, 250, '', '')`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	defer s.Close()
	if since, err := s.TextSince(t.Context(), outbox.Hash{}); err != nil || !since.IsZero() {
		t.Errorf("a text of the first version came at %v, %v", since, err)
	}
	claimed, err := s.ClaimMessages(t.Context(), outbox.Claim{Now: time.Now(), Most: 9, Of: func(rule uint32, _ outbox.Priority) bool { return rule == 1 }})
	if err != nil || len(claimed) != 1 || claimed[0].Address != "a@x" {
		t.Errorf("of the rule, %+v were claimed, %v", claimed, err)
	}
	for month, want := range map[int64]int64{0: 0, 2678400: 1} { // it took two seconds, over the end of January
		if usage, err := s.Usage(t.Context(), time.Unix(month, 0)); err != nil || usage["second"] != want || usage["first"] != 0 {
			t.Errorf("the relays took %v, %v", usage, err)
		}
	}
	found, err := s.Matches(t.Context(), outbox.Filter{})
	if err != nil || len(found) != 2 || s.ID() != "first" || found[0].Undecided || !found[1].Undecided {
		t.Errorf("matches %+v, %v", found, err)
	}
}

// pragma asks a database file, as anybody could.
func pragma(t *testing.T, path, name string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got string
	if err := db.QueryRow("PRAGMA " + name).Scan(&got); err != nil {
		t.Fatal(err)
	}
	return got
}
