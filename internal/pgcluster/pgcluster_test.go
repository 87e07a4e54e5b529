package pgcluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// postmaster is the server's process id, as the server itself wrote it down.
func postmaster(t *testing.T, c *Cluster) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settings: map[string]string{"application_name": "it's", "max_replication_slots": "7"}})
	url := c.URL("postgres")
	for setting, want := range map[string]string{
		"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "7", "fsync": "off",
		"application_name": "it's", "server_encoding": "UTF8",
	} {
		if got := query(t, url, "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s = %q; want %q", setting, got, want)
		}
	}
	if got := query(t, url, "select upper('ü한')"); got != "Ü한" {
		t.Errorf("upper gives %q: the locale does not know Unicode", got)
	}
	if got := query(t, url, "select current_setting('server_version_num')::int / 10000 || ''"); got != strconv.Itoa(c.Version()) {
		t.Errorf("Version() = %d; the server says %s", c.Version(), got)
	}

	query(t, url, "select 'made' from (select lo_create(4711)) made")
	c.Kill()
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a killed server answers")
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, url, "select count(*)::text from pg_largeobject_metadata where oid = 4711"); got != "1" {
		t.Errorf("after a crash and a restart %s of 1 object is there", got)
	}

	pid := postmaster(t, c)
	c.Stop()
	c.Stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the server's process %d is still there", pid)
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	full, closed := tempDir(t), tempDir(t)
	if err := os.WriteFile(filepath.Join(full, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		o    Options
		want string
	}{
		"a directory in use": {Options{Dir: full}, "not empty"},
		"a bad setting":      {Options{Settings: map[string]string{"wal_level": "loud"}}, `invalid value for parameter "wal_level"`},
		"no binaries":        {Options{Bin: "/nonexistent"}, "/nonexistent/initdb"},
	}
	if os.Geteuid() == 0 {
		cases["a closed parent"] = struct {
			o    Options
			want string
		}{Options{Dir: filepath.Join(closed, "pg")}, "cannot pass through " + closed}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, err := Start(t.Context(), c.o)
			if err == nil {
				cluster.Stop()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nlacks %q", err, c.want)
			}
		})
	}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(full, "letter")); err != nil {
			t.Error("a refused start removed somebody's file")
		}
	})
}

// tempDir is one that every user can pass through, unlike t.TempDir.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgcluster-") //nolint:usetesting // t.TempDir's parent is closed to the server's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestStartCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a cancelled context: %v", err)
	}
}

func TestFind(t *testing.T) {
	empty, bin := t.TempDir(), t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("POSTMAN_TEST_PG", bin)
	if got, err := Find(); got != bin || err != nil {
		t.Errorf("Find() = %q, %v; want POSTMAN_TEST_PG, %q", got, err, bin)
	}
	t.Setenv("POSTMAN_TEST_PG", empty)
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), empty) {
		t.Errorf("Find() with an empty POSTMAN_TEST_PG: %v", err)
	}
	t.Setenv("POSTMAN_TEST_PG", "")
	t.Setenv("PATH", bin)
	if got, err := Find(); got != bin || err != nil {
		t.Errorf("Find() = %q, %v; want the one on the PATH, %q", got, err, bin)
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, version := range []string{"9.6", "14", "15", "18"} {
		bin := filepath.Join(root, "pg", version, "bin")
		if err := os.MkdirAll(bin, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"initdb", "postgres"} {
			if version == "18" && name == "postgres" {
				continue // a client package alone
			}
			if err := os.WriteFile(filepath.Join(bin, name), nil, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, ok := newest([]string{filepath.Join(root, "none*"), filepath.Join(root, "pg", "*", "bin")})
	if want := filepath.Join(root, "pg", "15", "bin"); !ok || got != want {
		t.Errorf("newest = %q, %v; want %q", got, ok, want)
	}
}

// A standby follows its primary, and takes over. A backup is the cluster as it was.
func TestCopies(t *testing.T) {
	t.Parallel()
	c := start(t, Options{})
	query(t, c.URL("postgres"), "select 'made' from (select lo_create(1)) made")
	backup, err := c.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backup.Stop)
	query(t, c.URL("postgres"), "select 'made' from (select lo_create(2)) made")
	standby, err := c.Standby(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Stop)
	if got := query(t, standby.URL("postgres"), "select pg_is_in_recovery()::text || count(*) from pg_largeobject_metadata"); got != "true2" {
		t.Errorf("the standby says %q", got)
	}
	if got := query(t, standby.URL("postgres"), "select pg_promote()::text"); got != "true" {
		t.Errorf("promoting it says %q", got)
	}
	if err := backup.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, backup.URL("postgres"), "select count(*)::text from pg_largeobject_metadata"); got != "1" {
		t.Errorf("the backup has %s", got)
	}
}

func TestMajorIn(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"/usr/lib/postgresql/15/bin": 15, "/usr/pgsql-17/bin": 0, "/w/.cache/pg/18.4.0-beta.17/native/bin": 18, "/usr/local/pgsql/bin": 0,
	} {
		if got := majorIn(path); got != want {
			t.Errorf("%s: %d; want %d", path, got, want)
		}
	}
	bin, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	for major, dir := range Installed() {
		if major < 9 || !complete(dir) {
			t.Errorf("version %d in %s; Find finds %s", major, dir, bin)
		}
	}
}
