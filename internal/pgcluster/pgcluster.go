// Package pgcluster runs a throwaway Postgres server from the machine's own binaries, for the demo and for tests.
//
// What it promises: [Start] returns a server that answers on loopback, ready for logical replication, whoever the
// caller is (as root it runs the server as an unprivileged user); [Cluster.Stop] leaves neither process nor file;
// and on Linux the server dies with its caller, however that one dies. The data is not safe against a crash of the
// machine (fsync is off), unless the settings say so.
package pgcluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Options say how a cluster is made. The zero value is good.
type Options struct {
	// Dir is an empty or absent directory for the cluster; by default one below the system's for temporary files.
	Dir string
	// Bin is the directory of initdb and postgres; by default what [Find] finds.
	Bin string
	// Settings are lines of postgresql.conf, over the ones that suit a throwaway cluster.
	Settings map[string]string
}

// Cluster is a running server. Its methods are for one goroutine at a time.
type Cluster struct {
	// Dir holds the data directory, the server's log and its socket.
	Dir string

	bin     string
	port    int
	version int
	as      *syscall.Credential // nil: the caller's own user
	server  *process            // nil before the first start
}

// settings suit a server whose data nobody will miss. They go into postgresql.conf, so that ALTER SYSTEM overrides them.
var settings = map[string]string{
	"wal_level":             "logical",
	"max_wal_senders":       "20",
	"max_replication_slots": "20",
	"listen_addresses":      "127.0.0.1",
	"fsync":                 "off",
	"full_page_writes":      "off",
	"shared_buffers":        "64MB",
	"jit":                   "off",
	"lc_messages":           "C",
}

// Start makes a cluster and waits until it answers.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	bin, err := o.Bin, error(nil)
	if bin == "" {
		bin, err = Find()
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin}
	if c.as, err = serverUser(); err != nil {
		return nil, err
	}
	dir := o.Dir
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	if err := c.makeDir(dir); err != nil {
		return nil, err
	}
	if err := c.bringUp(ctx, o.Settings); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) bringUp(ctx context.Context, over map[string]string) error {
	if err := c.initdb(ctx); err != nil {
		return err
	}
	if err := c.configure(over); err != nil {
		return err
	}
	return c.startSomewhere(ctx)
}

// URL is the connection URL of a database, over TCP, as the superuser postgres.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PrimaryOf is the URL that names several servers, of which a client takes the primary.
func PrimaryOf(clusters ...*Cluster) string {
	hosts := make([]string, len(clusters))
	for i, c := range clusters {
		hosts[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	}
	return "postgres://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable&target_session_attrs=read-write"
}

// Version is the server's major version.
func (c *Cluster) Version() int { return c.version }

// Stop ends the server at once and removes the cluster. It may be called again.
func (c *Cluster) Stop() {
	c.Kill()
	// What could not be removed lies in a directory for temporary files; there is nobody to tell.
	_ = os.RemoveAll(c.Dir)
}

// Kill ends the server as a crash would: no checkpoint, no good-bye to anyone. [Cluster.Restart] brings it back.
//
// It is an immediate shutdown and no SIGKILL, since that would leave children and shared memory behind.
func (c *Cluster) Kill() {
	if c.server != nil {
		c.server.signal(syscall.SIGQUIT)
		<-c.server.done
	}
}

// patience is how long a restart waits for an orderly shutdown: a replication client that does not confirm all of
// the log keeps one from ending for as long as wal_sender_timeout.
const patience = 5 * time.Second

// Restart shuts the server down, unless it is down, and starts it again on the same port.
func (c *Cluster) Restart(ctx context.Context) error {
	if c.server == nil { // a copy's first start
		return c.startSomewhere(ctx)
	}
	c.shutDown()
	return c.start(ctx)
}

// shutDown ends the server in good order, or else in bad.
func (c *Cluster) shutDown() {
	c.server.signal(syscall.SIGINT)
	select {
	case <-c.server.done:
	case <-time.After(patience):
		c.Kill()
	}
}

func (c *Cluster) data() string { return filepath.Join(c.Dir, "data") }
func (c *Cluster) log() string  { return filepath.Join(c.Dir, "log") }

// makeDir makes the cluster's directory and gives it to the server's user.
func (c *Cluster) makeDir(dir string) error {
	parent := os.TempDir()
	if dir != "" {
		parent = filepath.Dir(dir)
	}
	if err := c.traversable(parent); err != nil {
		return err
	}
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "postman-pg-")
	} else {
		err = claim(dir)
	}
	if err != nil {
		return fmt.Errorf("making the cluster's directory: %w", err)
	}
	c.Dir = dir
	if c.as != nil {
		return os.Chown(dir, int(c.as.Uid), int(c.as.Gid))
	}
	return nil
}

// claim makes a directory, or takes one that is empty.
func claim(dir string) error {
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: a new cluster needs a directory of its own", dir)
	}
	return err
}

// traversable checks that the server's user can pass through dir: else initdb reports an error that helps nobody.
func (c *Cluster) traversable(dir string) error {
	for ; c.as != nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("as root the server runs as another user, who cannot pass through %s (chmod o+x, or another directory)", dir)
		}
	}
	return nil
}

func (c *Cluster) initdb(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"), "--pgdata", c.data(), "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--locale", locale(), "--no-sync", "--no-instructions")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.Dir, environment(), attributes(c.as)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", cmd.Path, err, bytes.TrimSpace(out))
	}
	version, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err != nil {
		return err
	}
	if c.version, err = strconv.Atoi(string(bytes.TrimSpace(version))); err != nil {
		return fmt.Errorf("reading PG_VERSION: %w", err)
	}
	return nil
}

func (c *Cluster) configure(over map[string]string) error {
	all := maps.Clone(settings)
	all["unix_socket_directories"] = c.Dir
	if len(c.Dir) > 80 { // with the socket's name it would not fit into a socket address: TCP alone, then
		all["unix_socket_directories"] = ""
	}
	maps.Copy(all, over)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, strings.ReplaceAll(all[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(lines.String())
	return errors.Join(err, f.Close())
}

// startSomewhere starts the server on a free port: another one when somebody was quicker.
func (c *Cluster) startSomewhere(ctx context.Context) (err error) {
	for range 3 {
		if c.port, err = freePort(); err != nil {
			return err
		}
		if err = c.start(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// freePort looks below the range that systems give to outgoing connections, one of which could otherwise sit on
// the port while the server restarts.
func freePort() (int, error) {
	var err error
	for range 50 {
		port := 10_000 + rand.IntN(20_000)
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("looking for a free port: %w", err)
}

var errPortTaken = errors.New("the port is taken")

func (c *Cluster) start(ctx context.Context) error {
	logFile, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }() // the server has its own descriptor
	from, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), "-D", c.data(), "-p", strconv.Itoa(c.port))
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.Dir, environment(), attributes(c.as)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if c.server, err = run(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	if err := c.await(ctx); err != nil {
		c.Kill()
		return c.explain(err, from)
	}
	return nil
}

// await returns when the server answers, or can no longer be expected to.
func (c *Cluster) await(ctx context.Context) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := pgconn.Connect(ctx, c.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.server.done:
			return fmt.Errorf("postgres ended at once: %w", c.server.err)
		case <-retry.C:
		}
	}
}

// explain adds what the server logged since it was started.
func (c *Cluster) explain(err error, from int64) error {
	text, _ := os.ReadFile(c.log())
	text = text[min(int(from), len(text)):]
	if bytes.Contains(text, []byte("could not create any TCP/IP sockets")) {
		err = errPortTaken
	}
	return fmt.Errorf("starting Postgres: %w; its log: %s", err, bytes.TrimSpace(text))
}

// locale is one that has all of Unicode and sorts by bytes.
func locale() string {
	if runtime.GOOS == "darwin" {
		return "C" // the system has no C.UTF-8
	}
	return "C.UTF-8"
}

// environment keeps the caller's PG* variables and locale away from the server.
func environment() []string { return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=" + locale()} }

// process is a child and its end.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended; set before done is closed
}

// run starts a command from a thread that lives as long as the command does: Pdeathsig fires when the thread
// that started the child ends, not the process.
func run(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmp.Or(cmd.Wait(), errors.New("exit status 0"))
		close(p.done)
	}()
	return p, <-started
}

// signal sends one unless the process has ended.
func (p *process) signal(s os.Signal) {
	// An error means that it has ended, which is what everyone waits for anyway.
	_ = p.cmd.Process.Signal(s)
}
