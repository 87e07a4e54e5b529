package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a side's process.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
	err    error // set before done is closed
}

// start runs a command until stop.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process in its own good time, or else by force, and says how it ended when it did not end well.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it has ended, which is what is waited for
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.cmd.Process.Kill() //nolint:errcheck // likewise
		<-p.done
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(p.cmd.Path), p.err, tail(p.stderr.String()))
	}
	return nil
}

// watch returns a context that ends with the process, so that nobody waits for what a dead one should do.
func (p *process) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("%s ended by itself: %s\n%s", filepath.Base(p.cmd.Path), p.cmd.ProcessState, tail(p.stderr.String())))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// memory is what the process has resident, in MB: now (VmRSS in proc(5)), or the most so far (VmHWM).
func (p *process) memory(field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading how much memory there is: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if kb, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 64)
			return n * 1024 / 1e6, err
		}
	}
	return 0, errors.New("reading how much memory there is: /proc tells no " + field)
}

// tail is the end of what a process said.
func tail(text string) string {
	const most = 4000
	return text[max(0, len(text)-most):]
}
