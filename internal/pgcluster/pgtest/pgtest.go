// Package pgtest gives each test a Postgres database of its own, in a cluster that the tests of a package share.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Shared(m).Run()) }
//
// or goleak.VerifyTestMain(pgtest.Shared(m)). The cluster is started when the first test asks for it. [Versions] runs a test on others, too.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster"
)

// Runner is a testing.M that stops the shared clusters at the end.
type Runner struct{ m *testing.M }

// Shared wraps a package's tests.
func Shared(m *testing.M) Runner { return Runner{m} }

var (
	wrapped atomic.Bool // somebody will stop the clusters
	names   atomic.Int64

	mu       sync.Mutex
	shared   = make(map[string]*sharing) // by the directory of their binaries; "": the usual one
	versions = make(map[string]string)   // such directories, by the test that Versions runs on them, with its subtests
)

// sharing is a cluster that tests share.
type sharing struct {
	start   func() (*pgcluster.Cluster, error) // once
	started atomic.Pointer[pgcluster.Cluster]
}

// Run runs the tests and stops the clusters.
func (r Runner) Run() int {
	wrapped.Store(true)
	defer func() {
		for _, s := range shared {
			if c := s.started.Load(); c != nil {
				c.Stop()
			}
		}
	}()
	return r.m.Run()
}

// bin is where the binaries are that a test runs on; empty: the usual place.
func bin(t testing.TB) string {
	mu.Lock()
	defer mu.Unlock()
	for name := t.Name(); name != "."; name = path.Dir(name) {
		if bin, ok := versions[name]; ok {
			return bin
		}
	}
	return ""
}

// Cluster is the shared one. A test must not stop or restart it: it would fail its neighbours.
func Cluster(t testing.TB) *pgcluster.Cluster {
	t.Helper()
	if !wrapped.Load() {
		t.Fatal("this package's TestMain does not use pgtest.Shared")
	}
	of := bin(t)
	mu.Lock()
	s := shared[of]
	if s == nil {
		s = new(sharing)
		s.start = sync.OnceValues(func() (*pgcluster.Cluster, error) {
			// Statistics that come at a time of their own would change the plans that tests compare.
			c, err := pgcluster.Start(context.Background(), pgcluster.Options{Bin: of, Settings: map[string]string{"autovacuum": "off"}})
			s.started.Store(c)
			return c, err
		})
		shared[of] = s
	}
	mu.Unlock()
	c, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Own starts a cluster for this test alone, to be restarted, killed or configured.
func Own(t testing.TB, settings map[string]string) *pgcluster.Cluster {
	t.Helper()
	c, err := pgcluster.Start(t.Context(), pgcluster.Options{Bin: bin(t), Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// outer are the oldest and the newest version that postman is for. What differs between versions differs between these, mostly; make pg-matrix
// runs the others.
var outer = []int{14, 18}

// Versions runs a test on the version that all tests run on, and on the oldest and the newest where the machine has their binaries: [Cluster],
// [Database] and [Own] give it what is of its version.
func Versions(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("usual", func(t *testing.T) {
		t.Parallel()
		test(t)
	})
	if os.Getenv("POSTMAN_TEST_PG") != "" {
		return // one version was asked for
	}
	installed := pgcluster.Installed()
	for _, major := range outer {
		bin, ok := installed[major]
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			mu.Lock()
			versions[t.Name()] = bin
			mu.Unlock()
			test(t)
		})
	}
}

// Standby makes a standby of a cluster, for this test alone.
func Standby(t testing.TB, primary *pgcluster.Cluster, settings map[string]string) *pgcluster.Cluster {
	t.Helper()
	c, err := primary.Standby(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// Backup copies a cluster's files, for this test alone; the copy is not started.
func Backup(t testing.TB, of *pgcluster.Cluster) *pgcluster.Cluster {
	t.Helper()
	c, err := of.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// Database creates a database in the shared cluster and returns its URL. When the test ends, the database and its
// replication slots are dropped.
//
// Slots have names of the whole cluster: [Name] gives one that no other test has.
func Database(t testing.TB) (url string) {
	t.Helper()
	c := Cluster(t)
	name := fmt.Sprintf("test_%d", names.Add(1))
	admin := c.URL("postgres")
	Exec(t, admin, "create database "+name)
	t.Cleanup(func() { drop(t, admin, name) })
	return c.URL(name)
}

// Name is the database's name, which serves as a slot's too.
func Name(url string) string {
	u, _, _ := strings.Cut(url, "?")
	return path.Base(u)
}

// Exec runs statements, each in a transaction of its own, on a connection of their own.
func Exec(t testing.TB, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// Connect opens a connection that is closed when the test ends.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// drop removes a database with all that holds on to it.
func drop(t testing.TB, admin, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range []string{
		"alter database " + name + " allow_connections false",
		"select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '" + name + "'",
		"select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '" + name + "'",
		"drop database " + name + " with (force)",
	} {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
