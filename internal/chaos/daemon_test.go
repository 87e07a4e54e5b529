package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"postman/daemon"
)

const rulesFile = `rules:
  - name: booked
    about: A colleague booked a meeting with your customer.
    on: {table: schedules, ops: [insert, update]}
    when: new.kind == "meeting"
    load:
      customer: select name, phone from customers where id = @new.customer_id
    to: {query: "select email, name from staff where id = @new.staff_id"}
    template: booked
    hold_over: {transaction: 1000000, minute: 1000000}
  - name: pinged
    about: Somebody asked for a sign of life.
    on: {message: ping}
    to: message.email
    template: pinged
    hold_over: {transaction: 1000000, minute: 1000000}
`

const bookedTemplate = `{{define "subject"}}change {{.new.change}}{{end}}
{{define "body"}}<p>Dear {{.to.name}},</p><p>{{.customer.name}} ({{.customer.phone}}): {{.new.note}}</p>{{end}}
`

const pingedTemplate = `{{define "subject"}}change {{.message.change}}{{end}}
{{define "body"}}<p>Here we are.</p>{{end}}
`

const lanes = 4

// The retries are short so that a test need not wait for them; all else is default.
const configFile = `http: ''
smtp: {lanes: 4}
retry: {first: 200ms, max: 1s, give_up: 1h}
log: {format: text, level: info}
`

// postman is the command and the folder that it runs in.
type postman struct {
	binary, dir string
	env         []string
	log         *os.File // what its processes say

	process *process // the daemon; nil while none is meant to run
	kills   []time.Time
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
	for name, text := range map[string]string{
		"postman.yaml": configFile, "rules.yaml": rulesFile,
		"templates/booked.html": bookedTemplate, "templates/pinged.html": pingedTemplate,
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if p.log, err = os.Create(filepath.Join(dir, "stderr")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cleanUp(t) })
	return p
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
	p.kills = append(p.kills, time.Now())
	run.kill()
	if status := run.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		return fmt.Errorf("postman ended by itself: %s", run.cmd.ProcessState)
	}
	return nil
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
