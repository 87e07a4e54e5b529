package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// kill kills the daemon, looks at what it left behind, and starts it again.
func (w *world) kill() {
	w.must(w.postman.kill())
	w.confirmed()
	w.must(w.postman.start())
}

// killImport kills the daemon while it works on one large transaction, which takes it long enough to be met anywhere in
// between: reading, storing (in pieces, when it is very large), confirming, expanding.
func (w *world) killImport() {
	w.must(w.app.importMany(w.t.Context(), w.size.rows))
	w.pause(w.upTo(time.Duration(w.size.rows) * 100 * time.Microsecond))
	w.kill()
}

// killConfirm kills the daemon at the moment when Postgres learns that it may forget a large transaction. Whatever is not durable
// by then is lost.
func (w *world) killConfirm() {
	w.must(w.app.importMany(w.t.Context(), w.size.rows))
	w.must(w.app.confirmed(w.t.Context(), w.size.patience))
	w.kill()
}

// killBoth is the machine that fails.
func (w *world) killBoth() {
	w.must(w.postman.kill())
	w.postgres.Kill()
	w.must(w.postgres.Restart(w.t.Context()))
	w.confirmed()
	w.must(w.postman.start())
}

// restart restarts Postgres in an orderly way.
func (w *world) restart() {
	w.without(func() { w.must(w.postgres.Restart(w.t.Context())) })
}

// workMem is how much memory Postgres takes before it sends a transaction that is in progress: the server's own least, and much more
// than any transaction here has.
var workMem = []string{"64kB", "128kB", "512kB", "2MB", "8MB", "64MB"}

func (w *world) resize() {
	size := workMem[w.dice.IntN(len(workMem))]
	w.count("logical_decoding_work_mem: " + size)
	w.exec(fmt.Sprintf("alter system set logical_decoding_work_mem = '%s'", size))
	w.restart()
}

// crash restarts Postgres without a good-bye.
func (w *world) crash() {
	w.without(func() {
		w.postgres.Kill()
		time.Sleep(w.upTo(time.Second))
		w.must(w.postgres.Restart(w.t.Context()))
	})
}

// killPostgres kills the server and its children, as the kernel does when memory runs out, and as a machine that fails does.
func (w *world) killPostgres() {
	w.without(func() {
		w.must(w.killAll())
		// What is left of a child may hold the shared memory for a moment, and then the server does not start.
		for deadline := time.Now().Add(20 * time.Second); ; {
			err := w.postgres.Restart(w.t.Context())
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				w.t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// killAll sends SIGKILL to the postmaster, which makes no more children then, and to those that it has.
func (w *world) killAll() error {
	text, err := os.ReadFile(filepath.Join(w.postgres.Dir, "data", "postmaster.pid"))
	if err != nil {
		return fmt.Errorf("looking for the postmaster: %w", err)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	postmaster, err := strconv.Atoi(string(first))
	if err != nil {
		return fmt.Errorf("looking for the postmaster: %w", err)
	}
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stopping the postmaster: %w", err)
	}
	all, err := children(postmaster)
	if err != nil {
		return err
	}
	for _, pid := range append(all, postmaster) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a child may have ended
	}
	return nil
}

// without has Postgres be away for a moment. A daemon that streams must survive that by itself. One that is only just starting
// may give up, with exit status 1, and is started again, as a service manager does it.
func (w *world) without(fail func()) {
	began := w.postman.process.began
	streams := w.streams(began)
	fail()
	for deadline := time.Now().Add(time.Minute); !streams; streams = w.streams(w.postman.process.began) {
		select {
		case <-w.postman.process.done:
			if state := w.postman.process.cmd.ProcessState; state.ExitCode() != 1 {
				w.t.Fatalf("without Postgres, postman did not start, with %s", state)
			}
			w.gaveUp++
			w.must(w.postman.start())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			w.t.Fatal("postman does not stream, a minute after Postgres was back")
		}
	}
}

func (w *world) cut()   { w.disturb(w.network.Cut) }
func (w *world) reset() { w.disturb(w.network.Reset) }

// freeze makes black holes of all connections. None of the two ends is told: each has to notice by itself.
func (w *world) freeze() { w.disturb(w.network.Freeze) }

func (w *world) hold() { w.silent(w.upTo(senderTimeout / 2)) }

// holdLong lasts until both ends have given up their connections, so that what was kept back comes to closed ones.
func (w *world) holdLong() {
	w.silent(senderTimeout + w.upTo(2*senderTimeout))
	w.recovers(time.Now())
}

func (w *world) silent(d time.Duration) {
	w.network.Hold()
	defer w.network.Release()
	w.pause(d)
}

// disturb breaks the network. Mostly the daemon is given time to come back by itself, and else the next fault meets it as it tries.
func (w *world) disturb(do func()) {
	if !w.streams(w.postman.process.began) { // it would be a start that is disturbed
		w.streaming(w.postman.process.began)
	}
	at := time.Now()
	do()
	if !w.one(4) {
		w.recovers(at)
	}
}

// recovers waits until the daemon has noticed, and confirms more than it had when the network broke.
func (w *world) recovers(broken time.Time) {
	w.t.Helper()
	before := w.lsn(confirmedNow)
	w.await(2*time.Minute, "the daemon to come back after a fault of the network", func() (bool, string) {
		at := w.lsn(confirmedNow)
		return at > before, fmt.Sprintf("%s is confirmed", at)
	})
	w.slowest = max(w.slowest, time.Since(broken))
}

// takeRelay takes the relay away for a while, during which other things may fail.
func (w *world) takeRelay() {
	w.away.Wait()
	w.relay.hangUp()
	w.away.Go(func() {
		time.Sleep(w.size.outage)
		if err := w.relay.comeBack(); err != nil {
			w.t.Error(err)
		}
	})
}

const confirmedNow = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'chaos'"

// confirmed checks, while no daemon runs, that Postgres was never told more than the store holds.
func (w *world) confirmed() {
	w.t.Helper()
	confirmed := w.lsn(confirmedNow)
	stored, err := w.postman.checkpoint()
	w.must(err)
	if confirmed > stored {
		w.t.Errorf("%s is confirmed, and only %s is stored", confirmed, stored)
	}
}
