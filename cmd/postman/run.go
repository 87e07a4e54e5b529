package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	"postman/daemon"
)

type runCmd struct{}

var errSecondSignal = errors.New("stopped at once by a second signal; mails in hand are uncertain and are dealt with at the next start")

// Run streams until a signal: SIGHUP reloads, the first SIGTERM or interrupt drains, the second stops at once.
func (runCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(p.stderr, c.Log)
	if err != nil {
		return usageError{err}
	}
	d, err := daemon.New(daemon.Options{Config: c, Log: log})
	if err != nil {
		return usageError{err}
	}
	start, cancel := context.WithCancel(p.ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- d.Start(start) }()
	for {
		select {
		case err := <-started:
			if start.Err() != nil && errors.Is(err, context.Canceled) {
				log.Info("stopped before the start was done")
				return nil
			}
			if err != nil {
				return err
			}
			if start.Err() != nil { // the signal came too late to stop the start
				return p.stop(d, time.Duration(c.Drain))
			}
			return p.attend(d, time.Duration(c.Drain))
		case s := <-p.signals:
			if s != syscall.SIGHUP { // it loads already
				cancel()
			}
		}
	}
}

// attend serves signals until the daemon stops.
func (p *program) attend(d *daemon.Daemon, drain time.Duration) error {
	for {
		select {
		case err := <-d.Failed():
			return failedError{errors.Join(err, p.stop(d, drain))}
		case s := <-p.signals:
			if s != syscall.SIGHUP {
				return p.stop(d, drain)
			}
			d.RequestReload()
		}
	}
}

// stop drains for a while, or until a second signal.
func (p *program) stop(d *daemon.Daemon, drain time.Duration) error {
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, drain, errors.New("the mails in hand did not end in time (drain); they are uncertain and are dealt with at the next start"))
	defer cancelTimeout()
	go p.hasten(ctx, cancel)
	return d.Stop(ctx)
}

// echo is how long after the first signal another one is the same: who signals a process and its group, as timeout(1) does,
// sends it twice.
const echo = 300 * time.Millisecond

// hasten cancels the drain at the second signal.
func (p *program) hasten(ctx context.Context, cancel context.CancelCauseFunc) {
	first := time.Now()
	for {
		select {
		case s := <-p.signals:
			if s != syscall.SIGHUP && time.Since(first) > echo {
				cancel(errSecondSignal)
			}
		case <-ctx.Done():
			return
		}
	}
}
