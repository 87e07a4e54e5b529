package main

import (
	"bytes"
	"cmp"
	"context"
	database "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/daemon"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// patience is how long a test waits for what must come: on a busy machine much longer than it takes.
const patience = time.Minute

// installed is the command as it is installed: without the race detector, whose memory is not postman's.
var installed = sync.OnceValues(func() (path string, err error) {
	scripted, err := exec.LookPath("postman") // that of the scripts, whose folder is removed at the end
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(scripted), "postman-installed")
	if out, err := exec.Command("go", "build", "-o", path, "postman/cmd/postman").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building postman: %w\n%s", err, out)
	}
	return path, nil
})

// site is a folder in which postman runs, as processes that can be killed, with a database of its own.
type site struct {
	t           testing.TB
	dir, url    string
	binary      string
	env         []string
	store, slot string
	reads       outbox.Store // of store; nil: not yet
}

// siteSettings are those that make a test short; all else is default.
const siteSettings = "http: ''\nretry: {pauses: [50ms, 100ms, 200ms], give_up: 1h}\n"

const plain = `{{define "subject"}}{{.rule}} {{.new.id}}{{end}}{{define "body"}}<p>{{.new.id}}</p>{{end}}`

// newSite makes one whose database has what the statements make. Settings are postman's, as environment variables.
func newSite(t testing.TB, rules string, settings []string, statements ...string) *site {
	t.Helper()
	binary, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: t.TempDir(), url: pgtest.Database(t), binary: binary}
	s.store, s.slot = filepath.Join(s.dir, "postman.db"), pgtest.Name(s.url)
	s.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "DATABASE_URL=" + s.url, "POSTMAN_SLOT=" + s.slot,
		"POSTMAN_FROM=Postman <postman@example.com>", "POSTMAN_MODE=dry-run",
	}, settings...)
	s.write("postman.yaml", siteSettings)
	s.write("rules.yaml", rules)
	s.write("templates/plain.html", plain)
	pgtest.Exec(t, s.url, statements...)
	return s
}

func (s *site) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// process is a postman that runs.
type process struct {
	*exec.Cmd
	t    testing.TB
	said *bytes.Buffer // to be read once it has ended
	done chan struct{}
}

// start runs postman. The thread that starts a process is kept while that lives: where it ends, the process is killed (attributes), so that
// nobody is left behind by a test that is.
func (s *site) start(args ...string) *process {
	s.t.Helper()
	p := &process{Cmd: exec.Command(s.binary, args...), t: s.t, said: new(bytes.Buffer), done: make(chan struct{})}
	p.Dir, p.Env, p.Stdout, p.Stderr, p.SysProcAttr = s.dir, s.env, p.said, p.said, attributes()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.Start()
		started <- err
		if err == nil {
			_ = p.Wait() // ProcessState tells
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		p.kill()
		if s.t.Failed() {
			text := p.said.String()
			s.t.Logf("postman %s said:\n%s", strings.Join(args, " "), text[max(0, len(text)-4000):])
		}
	})
	return p
}

// kill ends it as a crash would, unless it has ended, and says which.
func (p *process) kill() (killed bool) {
	_ = p.Process.Kill() // an error means that it has ended
	<-p.done
	return !p.ProcessState.Exited()
}

func (p *process) signal(s os.Signal) { _ = p.Process.Signal(s) } // an error means that it has ended

// ended says whether it has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// mustKill wants it to have been alive.
func (p *process) mustKill() {
	p.t.Helper()
	if !p.kill() {
		p.t.Fatalf("postman %s had ended by itself: %s\n%s", strings.Join(p.Args[1:], " "), p.ProcessState, p.said)
	}
}

// run runs postman to its end, which has to be a good one, and returns what it said.
func (s *site) run(args ...string) string {
	s.t.Helper()
	p := s.start(args...)
	select {
	case <-p.done:
	case <-time.After(patience):
		s.t.Fatalf("postman %v does not end", args)
	}
	if !p.ProcessState.Success() {
		s.t.Fatalf("postman %v: %s\n%s", args, p.ProcessState, p.said)
	}
	return p.said.String()
}

// view reads the store beside whoever owns it, once there is one.
func (s *site) view(read func(outbox.Store) error) {
	s.t.Helper()
	if s.reads == nil {
		store, err := sqlite.Open(s.store, sqlite.Options{ReadOnly: true})
		if err != nil {
			return
		}
		s.reads = store
		s.t.Cleanup(func() { store.Close() })
	}
	if err := read(s.reads); err != nil {
		s.t.Fatal(err)
	}
}

// counts is what is in the store.
func (s *site) counts() (c outbox.Counts) {
	s.view(func(store outbox.Store) (err error) {
		c, err = store.Count(s.t.Context())
		return err
	})
	return c
}

// replays is how many were ordered.
func (s *site) replays() (n int) {
	s.view(func(store outbox.Store) error {
		orders, err := store.Replays(s.t.Context())
		n = len(orders)
		return err
	})
	return n
}

// all is the sum of counts.
func all[S comparable](by map[S]int) (n int) {
	for c := range maps.Values(by) {
		n += c
	}
	return n
}

// messages is what is in the store of a rule.
func (s *site) messages(rule string) (messages []outbox.Message) {
	s.t.Helper()
	s.view(func(store outbox.Store) (err error) {
		messages, err = store.Messages(s.t.Context(), outbox.Filter{Rules: []string{rule}, Limit: 1_000_000})
		return err
	})
	return messages
}

// onceEach checks that a rule's messages have as many addresses, and each of them so many messages, all with Message-IDs of their own.
func (s *site) onceEach(rule string, addresses, times int) {
	s.t.Helper()
	to, ids := make(map[string]int), make(map[string]bool)
	for _, m := range s.messages(rule) {
		to[m.Address]++
		ids[cmp.Or(m.MessageID, fmt.Sprint(m.ID))] = true // one that is sent once more gets its own when it is made
	}
	most := slices.Max(append(slices.Collect(maps.Values(to)), 0))
	if len(to) != addresses || most != times || all(to) != addresses*times || len(ids) != addresses*times {
		s.t.Errorf("of %s there are %d messages with %d Message-IDs to %d addresses, %d to one of them; want %d each to %d", rule, all(to), len(ids), len(to), most, times, addresses)
	}
}

// status is what an operator is told.
func (s *site) status() (v daemon.Status) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.binary, "status", "--json")
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.Output() // exit 1: it is not well, and says why
	if len(out) == 0 {
		failed, _ := errors.AsType[*exec.ExitError](err)
		s.t.Fatalf("postman status: %v: %s", err, failed.Stderr)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

// covers says whether the store covers what committed before an LSN.
func (s *site) covers(lsn string) bool {
	s.t.Helper()
	end, err := position.ParseLSN(lsn)
	if err != nil {
		s.t.Fatal(err)
	}
	sources := s.status().Sources
	if len(sources) == 0 {
		return false
	}
	at, err := position.ParseLSN(sources[0].Checkpoint)
	return err == nil && at >= end
}

// await waits until something is so. It leaves most of the machine to those that are waited for.
func (s *site) await(what string, so func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for began := time.Now(); !so(); began = time.Now() {
		if began.After(deadline) {
			s.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(max(2*time.Millisecond, 2*time.Since(began)))
	}
}

// stepwise lets a process go for a moment at a time until something is so, and leaves it stopped: what it does takes it few moments, and looking
// takes long. The moments become longer, since on a busy machine it gets nothing of a short one.
func (s *site) stepwise(p *process, what string, so func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for moment := 5 * time.Millisecond; ; moment += moment / 20 {
		p.signal(syscall.SIGCONT)
		time.Sleep(moment)
		p.signal(syscall.SIGSTOP)
		if so() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// block keeps postman from storing anything, as a disk that hangs does, until it is freed.
func (s *site) block() (free func()) {
	s.t.Helper()
	db, err := database.Open("sqlite", s.store)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := db.Conn(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for _, err = conn.ExecContext(s.t.Context(), "begin immediate"); err != nil; _, err = conn.ExecContext(s.t.Context(), "begin immediate") {
		if time.Now().After(deadline) { // between two commits there is hardly any time: it is tried without a pause
			s.t.Fatal(err)
		}
	}
	return sync.OnceFunc(func() {
		_, err := conn.ExecContext(context.Background(), "rollback")
		conn.Close()
		db.Close()
		if err != nil {
			s.t.Error(err)
		}
	})
}

// activePID is the server's process that reads the slot; 0: nobody does.
func (s *site) activePID(conn *pgx.Conn) (pid int) {
	s.t.Helper()
	err := conn.QueryRow(s.t.Context(), "select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = $1", s.slot).Scan(&pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}
