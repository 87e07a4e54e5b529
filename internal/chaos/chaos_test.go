package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// size is how much happens.
type size struct {
	kills, imports, confirms, both, restarts, crashes, outages, rows int
	longest, outage, patience                                        time.Duration
}

var (
	short = size{
		kills: 3, imports: 1, confirms: 1, both: 1, restarts: 1, crashes: 1, outages: 1, rows: 2000,
		longest: 3500 * time.Millisecond, outage: 2 * time.Second, patience: 90 * time.Second,
	}
	long = size{
		kills: 22, imports: 3, confirms: 3, both: 2, restarts: 2, crashes: 2, outages: 2, rows: 6000,
		longest: 6 * time.Second, outage: 10 * time.Second, patience: 5 * time.Minute,
	}
)

func TestChaos(t *testing.T) {
	t.Parallel()
	chosen, seed := short, rand.Uint64()
	switch mode := os.Getenv("POSTMAN_CHAOS"); mode {
	case "", "short":
	case "long":
		chosen = long
	default:
		t.Fatalf("POSTMAN_CHAOS=%s: it is short or long", mode)
	}
	if text := os.Getenv("POSTMAN_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("POSTMAN_CHAOS_SEED: %v", err)
		}
	}
	t.Logf("POSTMAN_CHAOS_SEED=%d", seed)
	newWorld(t, chosen, seed).run()
}

// world is all that takes part.
type world struct {
	t        *testing.T
	size     size
	dice     *rand.Rand
	postgres *pgcluster.Cluster
	url      string
	relay    *relay
	postman  *postman
	app      *application
	gaveUp   int            // starts of the daemon that found no Postgres
	away     sync.WaitGroup // an outage of the relay that is to end
}

func newWorld(t *testing.T, s size, seed uint64) *world {
	w := &world{t: t, size: s, dice: rand.New(rand.NewPCG(seed, 0)), postgres: pgtest.Own(t, nil)}
	w.url = w.postgres.URL("postgres")
	pgtest.Exec(t, w.url, schema)
	w.relay = startRelay(t, seed)
	w.postman = build(t, w.url, w.relay.addr)
	w.app = newApplication(t, w.url, seed)
	return w
}

// run lets the application write while everything fails, waits until all is sent, and judges.
func (w *world) run() {
	w.must(w.postman.start())
	w.streaming()
	writing, stop := context.WithCancel(w.t.Context())
	var application sync.WaitGroup
	application.Go(func() { w.app.run(writing) })
	defer application.Wait()
	defer stop()
	defer w.away.Wait()
	for _, step := range w.plan() {
		w.pause(step.wait)
		w.t.Logf("after %v: %s", step.wait, step.what)
		step.do()
	}
	w.pause(time.Second)
	stop()
	application.Wait()
	w.away.Wait()
	w.finish()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// step is something that goes wrong, and when.
type step struct {
	what string
	wait time.Duration
	do   func()
}

// plan shuffles what has to happen. The pauses are as often too short for the daemon to come up as they are long.
func (w *world) plan() []step {
	var plan []step
	add := func(n int, what string, do func()) {
		for range n {
			plan = append(plan, step{what: what, do: do})
		}
	}
	add(w.size.kills, "kill the daemon", w.kill)
	add(w.size.imports, "import many rows and kill the daemon over them", w.killImport)
	add(w.size.confirms, "import many rows and kill the daemon as it confirms them", w.killConfirm)
	add(w.size.restarts, "restart Postgres", w.restart)
	add(w.size.crashes, "crash Postgres", w.crash)
	add(w.size.both, "kill the daemon and crash Postgres", w.killBoth)
	add(w.size.outages, "take the relay away", w.takeRelay)
	w.dice.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	for i := range plan {
		plan[i].wait = 20*time.Millisecond + w.upTo(w.size.longest)
	}
	return plan
}

func (w *world) upTo(most time.Duration) time.Duration {
	return time.Duration(w.dice.Int64N(int64(most)))
}

// pause waits, while the daemon must live.
func (w *world) pause(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.postman.process.done:
		w.t.Fatalf("postman ended by itself: %s", w.postman.process.cmd.ProcessState)
	}
}

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

// restart restarts Postgres in an orderly way.
func (w *world) restart() {
	w.without(func() { w.must(w.postgres.Restart(w.t.Context())) })
}

// crash restarts Postgres without a good-bye.
func (w *world) crash() {
	w.without(func() {
		w.postgres.Kill()
		time.Sleep(w.upTo(time.Second))
		w.must(w.postgres.Restart(w.t.Context()))
	})
}

// without has Postgres be away for a moment. A daemon that streams must survive that by itself. One that is only just starting
// may give up, with exit status 1, and is started again, as a service manager does it.
func (w *world) without(fail func()) {
	streams := w.streams()
	fail()
	for deadline := time.Now().Add(time.Minute); !streams; streams = w.streams() {
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

// streams says whether the daemon streams: this one, and not one whose end Postgres has not noticed yet.
func (w *world) streams() bool {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	w.must(err)
	defer func() { _ = conn.Close(context.Background()) }()
	var yes bool
	w.must(conn.QueryRow(w.t.Context(), "select exists (select from pg_stat_replication where state <> 'startup' and backend_start >= $1)",
		w.postman.process.began).Scan(&yes))
	return yes
}

// killBoth is the machine that fails.
func (w *world) killBoth() {
	w.must(w.postman.kill())
	w.postgres.Kill()
	w.must(w.postgres.Restart(w.t.Context()))
	w.confirmed()
	w.must(w.postman.start())
}

// takeRelay takes the relay away for a while, during which other things may fail.
func (w *world) takeRelay() {
	w.away.Wait()
	w.relay.goAway()
	w.away.Go(func() {
		time.Sleep(w.size.outage)
		if err := w.relay.comeBack(); err != nil {
			w.t.Error(err)
		}
	})
}

// confirmed checks, while no daemon runs, that Postgres was never told more than the store holds.
func (w *world) confirmed() {
	w.t.Helper()
	text := w.sql("select confirmed_flush_lsn::text from pg_replication_slots")
	status, err := w.postman.status()
	w.must(err)
	if len(status.Sources) != 1 {
		w.t.Fatalf("the store knows %d sources, not one", len(status.Sources))
	}
	confirmed, err := position.ParseLSN(text)
	w.must(err)
	stored, err := position.ParseLSN(status.Sources[0].Checkpoint)
	w.must(err)
	if confirmed > stored {
		w.t.Errorf("%s is confirmed, and only %s is stored", confirmed, stored)
	}
}

func (w *world) sql(query string) (text string) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	w.must(err)
	defer func() { _ = conn.Close(context.Background()) }()
	w.must(conn.QueryRow(w.t.Context(), query).Scan(&text))
	return text
}

// streaming waits until the daemon streams.
func (w *world) streaming() {
	w.t.Helper()
	w.await(30*time.Second, "the daemon to stream", func() (bool, string) { return w.streams(), "" })
}

// await waits for something; done also says how far it is.
func (w *world) await(patience time.Duration, what string, done func() (ok bool, far string)) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ok, far := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			w.t.Errorf("waited %v for %s: %s", patience, what, far)
			return
		}
		w.pause(100 * time.Millisecond)
	}
}

// finish waits until the outbox is drained and judges.
func (w *world) finish() {
	due, err := ledger(w.t.Context(), w.url)
	w.must(err)
	end, err := position.ParseLSN(w.sql("select pg_current_wal_lsn()::text"))
	w.must(err)
	began := time.Now()
	w.streaming() // before, a look at the status would open the store, and be in the way of a daemon that starts
	w.await(w.size.patience, "the outbox to drain", func() (bool, string) {
		s, err := w.postman.status()
		w.must(err)
		stored, err := position.ParseLSN(s.Stream.Stored)
		w.must(err)
		waiting := s.Outbox.Matches[outbox.MatchPending] + s.Outbox.Messages[outbox.MessageQueued] + s.Outbox.Messages[outbox.MessageSending]
		return stored >= end && waiting == 0 && s.Healthy,
			fmt.Sprintf("stored %s of %s, %v, healthy %t: %q", stored, end, s.Outbox, s.Healthy, s.Trouble)
	})
	drained := time.Since(began)
	w.must(w.postman.stop())
	w.confirmed()
	w.final(len(due))
	v := judge(due, w.relay.server.Mails(), w.failures())
	v.check(w.t, w.app)
	if most := lanes*(len(w.postman.kills)+len(w.relay.outages)) + len(w.relay.dropped); v.duplicates > most {
		w.t.Errorf("%d duplicates; %d kills and %d outages of %d lanes and %d dropped replies explain %d at most",
			v.duplicates, len(w.postman.kills), len(w.relay.outages), lanes, len(w.relay.dropped), most)
	}
	w.t.Logf("%d changes, %d of them committed and matched; %d rolled back for certain, %d of no rule's interest, %d connections of the application broken",
		w.app.changes.Load(), len(due), len(w.app.rolledBack), len(w.app.unmatched), w.app.broken)
	w.t.Logf("%d kills, %d restarts of Postgres (%d of them met a daemon that was only starting, and gave up), %d outages of the relay of %v, %d replies dropped after the dot; drained %v after the last change",
		len(w.postman.kills), w.size.restarts+w.size.crashes+w.size.both, w.gaveUp, len(w.relay.outages), w.size.outage, len(w.relay.dropped), drained.Round(time.Millisecond))
	w.t.Logf("%d mails: %d lost, %d invented, %d duplicates (%d of them without a failure in between), %d with a wrong recipient or Message-ID",
		v.mails, len(v.lost), len(v.invented), v.duplicates, len(v.unforced), len(v.wrong))
}

// failures are what can explain a duplicate. A reply that was dropped was so after its mail had been read.
func (w *world) failures() (all []failure) {
	for _, at := range slices.Concat(w.postman.kills, w.relay.outages) {
		all = append(all, failure{at, time.Second})
	}
	for _, at := range w.relay.dropped {
		all = append(all, failure{at, 0})
	}
	return all
}

// final checks that each match and each message came to the end that it should, by what the store says.
func (w *world) final(due int) {
	s, err := w.postman.status()
	w.must(err)
	for state, n := range s.Outbox.Matches {
		if n > 0 && state != outbox.MatchExpanded || state == outbox.MatchExpanded && n != due {
			w.t.Errorf("%d matches are %s; %d were due, and all should be expanded", n, state, due)
		}
	}
	for state, n := range s.Outbox.Messages {
		if n > 0 && state != outbox.MessageSent || state == outbox.MessageSent && n != due {
			w.t.Errorf("%d messages are %s; %d were due, and all should be sent", n, state, due)
		}
	}
	if len(s.Gaps) > 0 {
		w.t.Errorf("gaps were recorded: %+v", s.Gaps)
	}
}
