package dispatch

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
)

// TestStandby asks a standby, where a snapshot does not tell what is in progress: a transaction that the standby has not
// replayed the end of must not be taken for visible.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Own(t, nil)
	url := standby(t, primary)
	l := openLookup(t, url, LookupOptions{Conns: 1})
	pgtest.Exec(t, primary.URL("postgres"), "create table t (id int)")

	tx := must(pgtest.Connect(t, primary.URL("postgres")).Begin(t.Context()))
	var xid uint32
	if err := tx.QueryRow(t.Context(), "insert into t values (1) returning pg_current_xact_id()::xid::text::int8").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	ask := func() (string, error) {
		answers, err := l.ask(t.Context(), asking{xid: xid, commit: time.Now(), flights: []flight{func([]answer) ([]statement, error) {
			return []statement{{sql: "select count(*) from t"}}, nil
		}}})
		if err != nil {
			return "", err
		}
		return string(answers[0].rows[0][0].Text), nil
	}
	until := func(want string) {
		t.Helper()
		for started := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			got, err := query(t, l, 0, "select count(*) from t")
			if err == nil && got == want {
				return
			}
			if time.Since(started) > testPatience {
				t.Fatalf("the standby shows %q, %v; want %s", got, err, want)
			}
		}
	}
	// A later transaction that is replayed brings the open one below the end of the standby's snapshots.
	pgtest.Exec(t, primary.URL("postgres"), "insert into t values (2)")
	until("1")
	if got, err := ask(); err == nil {
		t.Errorf("the look-up does not wait, and sees %s rows", got)
	} else if e, ok := errors.AsType[*askError](err); !ok || e.kind != early {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("2")
	if got, err := ask(); got != "2" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// standby starts a standby of a copy of the primary's files, and returns its URL.
func standby(t *testing.T, primary *pgcluster.Cluster) string {
	t.Helper()
	primary.Kill()
	dir := primary.Dir + "-standby"
	t.Cleanup(func() { must(0, os.RemoveAll(dir)) })
	copyTree(t, filepath.Join(primary.Dir, "data"), dir)
	if err := primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := must(url.Parse(primary.URL("postgres")))
	port := freePort(t)
	config := "\nhot_standby = on\nunix_socket_directories = ''\nprimary_conninfo = 'host=127.0.0.1 port=" + from.Port() + " user=postgres'\n"
	f := must(os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0))
	must(f.WriteString(config))
	f.Close()
	server := exec.Command(filepath.Join(must(pgcluster.Find()), "postgres"), "-D", dir, "-p", strconv.Itoa(port))
	server.Dir, server.Stderr, server.SysProcAttr = dir, t.Output(), owner(t, dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
	})
	from.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for started := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		l, err := OpenLookup(t.Context(), from.String(), LookupOptions{Conns: 1})
		if err == nil {
			l.Close(t.Context())
			return from.String()
		}
		if time.Since(started) > testPatience {
			t.Fatal(err)
		}
	}
}

// copyTree copies a data directory as it is, with its owner, and makes a standby of it.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	as := owner(t, from)
	give := func(path string) {
		if as.Credential != nil {
			must(0, os.Chown(path, int(as.Credential.Uid), int(as.Credential.Gid)))
		}
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, must(filepath.Rel(from, path)))
		switch {
		case e.IsDir():
			must(0, os.Mkdir(target, 0o700))
		case e.Name() == "postmaster.pid", !e.Type().IsRegular():
			return nil
		default:
			must(0, os.WriteFile(target, must(os.ReadFile(path)), 0o600))
		}
		give(target)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	signal := filepath.Join(to, "standby.signal")
	must(0, os.WriteFile(signal, nil, 0o600))
	give(signal)
}

// owner is whom a server of these files has to run as; root may not.
func owner(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	stat := must(os.Stat(path)).Sys().(*syscall.Stat_t)
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid, NoSetGroups: true}}
}

func freePort(t *testing.T) int {
	t.Helper()
	l := must(net.Listen("tcp4", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
