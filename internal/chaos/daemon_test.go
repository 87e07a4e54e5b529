package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"postman/daemon"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// Retries and time limits are short so that a test need not wait for them; all else is default.
const configFile = `http: ''
smtp: {max_connections: 4}
lookup: {timeout: 2s}
retry: {pauses: [200ms, 400ms, 800ms, 1s], give_up: 1h}
log: {format: text, level: info}
ignore_origins: [peer-0, peer-1, peer-2]
`

// postman is the command and the folder that it runs in.
type postman struct {
	binary, dir string
	env         []string
	log         *os.File // what its processes say

	process  *process // the daemon; nil while none is meant to run
	kills    []kill
	runs     []run
	editions []saved
}

// run is what is known of a run of the daemon.
type run struct {
	checkpoint position.LSN // with which it began
	begin, end int64        // of what it logged
}

// kill is an end of the daemon that it did not see coming.
type kill struct {
	at time.Time
	// sending are the Message-IDs of what it had begun to send, and whose outcome was not durable.
	sending map[string]bool
}

// build builds the command as a user would, and lays its files out.
func build(t *testing.T, database, relay string) *postman {
	t.Helper()
	dir := t.TempDir()
	p := &postman{
		binary: filepath.Join(dir, "postman"), dir: dir,
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DATABASE_URL=" + database, "STORE_URL=sqlite:postman.db",
			"SMTP_URL=smtp://" + relay, "POSTMAN_MODE=live", "POSTMAN_FROM=Example <hello@example.com>", "POSTMAN_SLOT=chaos",
		},
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", p.binary, "postman/cmd/postman")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building postman: %v\n%s", err, out)
	}
	err := errors.Join(os.Mkdir(filepath.Join(dir, "templates"), 0o755), p.write("postman.yaml", configFile))
	for name, text := range templates {
		err = errors.Join(err, p.write("templates/"+name+".html", text))
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.log, err = os.Create(filepath.Join(t.ArtifactDir(), "postman.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cleanUp(t) })
	return p
}

// write replaces a file at once, as editors do.
func (p *postman) write(name, text string) error {
	path := filepath.Join(p.dir, filepath.FromSlash(name))
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// save saves an edition of the rules.
func (p *postman) save(e edition) error {
	p.editions = append(p.editions, saved{e, time.Now()})
	return p.write("rules.yaml", e.text())
}

func (p *postman) cleanUp(t *testing.T) {
	if p.process != nil {
		p.process.kill()
	}
	p.log.Close()
	if t.Failed() {
		text, _ := os.ReadFile(p.log.Name())
		const most = 20_000
		t.Logf("what postman said last:\n%s", text[max(0, len(text)-most):])
		p.keep(t)
	}
}

// keep has the store outlive a test that failed, where it has a folder for that (-artifacts): it says what was decided, when and why.
func (p *postman) keep(t *testing.T) {
	for _, file := range []string{"postman.db", "postman.db-wal"} {
		store, err := os.ReadFile(filepath.Join(p.dir, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(t.ArtifactDir(), file), store, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Logf("keeping the store: %v", err)
		}
	}
}

// process is a run of the daemon.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{}
}

// start runs the daemon. Pdeathsig fires when the thread that started the child ends, so the thread is kept as long as
// the child lives: a test that is killed leaves nobody behind.
func (p *postman) start() error {
	r := run{end: -1}
	if len(p.runs) > 0 {
		var err error
		if r.checkpoint, err = p.checkpoint(); err != nil {
			return err
		}
	}
	var err error
	if r.begin, err = p.log.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if last := len(p.runs) - 1; last >= 0 {
		p.runs[last].end = r.begin
	}
	p.runs = append(p.runs, r)
	cmd := exec.Command(p.binary, "run")
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.Stdout, cmd.SysProcAttr = p.dir, p.env, p.log, p.log, attributes()
	started, run := make(chan error), &process{cmd, time.Now(), make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState tells
			close(run.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting postman: %w", err)
	}
	p.process = run
	return nil
}

// kill ends the daemon as a crash would. It is an error if there was nothing left to kill.
func (p *postman) kill() error {
	run := p.process
	p.process = nil
	select {
	case <-run.done:
		return fmt.Errorf("postman ended by itself: %s", run.cmd.ProcessState)
	default:
	}
	k := kill{at: time.Now()}
	run.kill()
	if status := run.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		return fmt.Errorf("postman ended by itself: %s", run.cmd.ProcessState)
	}
	var err error
	k.sending, err = p.sending()
	p.kills = append(p.kills, k)
	return err
}

// sending are the Message-IDs that the store calls so, while no daemon runs.
func (p *postman) sending() (map[string]bool, error) {
	ids := make(map[string]bool)
	store, err := sqlite.Open(filepath.Join(p.dir, "postman.db"), sqlite.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	messages, err := store.Messages(context.Background(), outbox.Filter{MessageStates: []outbox.MessageState{outbox.MessageSending}})
	for _, m := range messages {
		ids[m.MessageID] = true
	}
	return ids, err
}

func (r *process) kill() {
	_ = r.cmd.Process.Kill() // an error means that it has ended, which is what is waited for
	<-r.done
}

// stop asks the daemon to end, and says if it did not end well.
func (p *postman) stop() error {
	run := p.process
	p.process = nil
	_ = run.cmd.Process.Signal(syscall.SIGTERM) // as above
	select {
	case <-run.done:
	case <-time.After(30 * time.Second):
		run.kill()
		return errors.New("postman did not stop within 30s of SIGTERM")
	}
	if !run.cmd.ProcessState.Success() {
		return fmt.Errorf("after SIGTERM postman ended with %s", run.cmd.ProcessState)
	}
	return nil
}

// history is which rules decided when, of runs that are over.
func (p *postman) history() (*history, error) {
	h := &history{editions: p.editions}
	end, err := p.log.Seek(0, io.SeekEnd)
	for _, r := range p.runs {
		if r.end < 0 {
			r.end = end
		}
		err = errors.Join(err, h.read(p.log, r))
	}
	return h, err
}

// checkpoint is where the next run begins, while none is.
func (p *postman) checkpoint() (position.LSN, error) {
	s, err := p.status()
	if err != nil {
		return 0, err
	}
	if len(s.Sources) == 0 { // it has not come so far as to make one
		return 0, nil
	}
	if len(s.Sources) != 1 {
		return 0, fmt.Errorf("the store knows %d sources, not one", len(s.Sources))
	}
	return position.ParseLSN(s.Sources[0].Checkpoint)
}

// mend runs the command that a gap names, and returns what it said.
func (p *postman) mend(command string) (said string, err error) {
	_, command, ok := strings.Cut(command, "postman replay ")
	if !ok {
		return "", fmt.Errorf("no command mends the gap: %s", command)
	}
	cmd := exec.Command(p.binary, append([]string{"replay", "--yes"}, strings.Fields(command)...)...)
	cmd.Dir, cmd.Env = p.dir, p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("postman replay %s: %w: %s", command, err, out)
	}
	return string(out), err
}

// status asks as an operator would, the daemon or, when none runs, the store.
func (p *postman) status() (s daemon.Status, err error) {
	cmd := exec.Command(p.binary, "status", "--json")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.dir, p.env, nil
	out, err := cmd.Output()
	if len(out) > 0 { // exit 1 with an answer: it is not healthy, and says why
		return s, json.Unmarshal(out, &s)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return s, fmt.Errorf("postman status: %w", err)
}
