package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"postman/daemon"
	"postman/internal/netfault"
	"postman/internal/pgcluster"
	"postman/internal/pgcluster/pgtest"
	"postman/position"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// size is how much happens.
type size struct {
	lasts    time.Duration // how long hands of faults are dealt; 0: the short hand, once
	longest  time.Duration // pause between two faults
	outage   time.Duration // of the relay
	patience time.Duration // until all is sent, in the end
	rows     int           // of an import
	bulk     bulk
}

var (
	short = size{
		longest: 1500 * time.Millisecond, outage: 2 * time.Second, patience: 2 * time.Minute, rows: 2000,
		bulk: bulk{rows: 10_000, step: 1000, loaders: 1, pause: 10 * time.Second},
	}
	long = size{
		longest: 5 * time.Second, outage: 10 * time.Second, patience: 5 * time.Minute, rows: 6000,
		bulk: bulk{rows: 200_000, step: 10_000, loaders: 2, pause: 80 * time.Second},
	}
)

func TestChaos(t *testing.T) {
	t.Parallel()
	chosen, seed := short, rand.Uint64()
	if text := os.Getenv("POSTMAN_CHAOS"); text != "" {
		var err error
		chosen = long
		if chosen.lasts, err = time.ParseDuration(text); err != nil || chosen.lasts <= 0 {
			t.Fatalf("POSTMAN_CHAOS=%s: it is how long to run, as in 10m", text)
		}
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
	url      string          // of Postgres, for everybody but the daemon
	network  *netfault.Proxy // between the daemon and Postgres
	relay    *relay
	postman  *postman
	app      *application
	oracle   *oracle
	tables   tables
	edition  edition        // of the rules, as it stands in the file
	counts   map[string]int // how often each fault happened
	gaveUp   int            // starts of the daemon that found no Postgres
	mended   int            // gaps, by the commands that the status printed
	slowest  time.Duration  // until the daemon was back after a fault of the network
	away     sync.WaitGroup // an outage of the relay that is to end
}

// senderTimeout is Postgres' wal_sender_timeout, after which a silent peer is given up, by either side.
const senderTimeout = 3 * time.Second

func newWorld(t *testing.T, s size, seed uint64) *world {
	w := &world{t: t, size: s, dice: rand.New(rand.NewPCG(seed, 0)), counts: make(map[string]int), edition: firstEdition}
	w.postgres = pgtest.Own(t, map[string]string{
		"wal_sender_timeout": strconv.FormatInt(senderTimeout.Milliseconds(), 10), "logical_decoding_work_mem": "64kB",
	})
	w.url = w.postgres.URL("postgres")
	pgtest.Exec(t, w.url, schema, oracleSchema, oracleSlot)
	var err error
	w.network, err = netfault.Start(w.url, nil)
	w.must(err)
	t.Cleanup(w.network.Close)
	w.relay = startRelay(t, seed)
	w.postman = build(t, w.network.URL, w.relay.addr)
	w.must(w.postman.save(w.edition))
	w.app = newApplication(t, w.url, seed)
	w.oracle = newOracle(w.url)
	return w
}

// run lets the application write while everything fails, waits until all is sent, and judges.
func (w *world) run() {
	w.must(w.postman.start())
	w.streaming(w.postman.process.began)
	w.live()
	writing, stop := context.WithCancel(w.t.Context())
	var others sync.WaitGroup
	others.Go(func() { w.app.run(writing, w.size.bulk) })
	others.Go(func() { w.oracle.run(writing) })
	defer others.Wait()
	defer stop()
	defer w.away.Wait()
	w.play()
	w.pause(time.Second)
	stop()
	others.Wait()
	w.away.Wait()
	w.finish()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) upTo(most time.Duration) time.Duration {
	return time.Duration(w.dice.Int64N(int64(most)))
}

// one is true once in n times.
func (w *world) one(n int) bool { return w.dice.IntN(n) == 0 }

// pause waits, while the daemon must live.
func (w *world) pause(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.postman.process.done:
		w.t.Fatalf("postman ended by itself: %s", w.postman.process.cmd.ProcessState)
	}
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
			w.t.Fatalf("waited %v for %s: %s", patience, what, far)
		}
		w.pause(100 * time.Millisecond)
	}
}

// streaming waits until the daemon streams on a connection that was made after some moment.
func (w *world) streaming(since time.Time) {
	w.t.Helper()
	w.await(w.size.patience, "the daemon to stream", func() (bool, string) { return w.streams(since), "" })
}

// streams says whether the daemon does so, on a connection made after some moment: Postgres may not have noticed the end of an earlier one.
func (w *world) streams(since time.Time) (yes bool) {
	w.t.Helper()
	w.ask(&yes, "select exists (select from pg_stat_replication where state <> 'startup' and backend_start >= $1)", since)
	return yes
}

// stored waits until the daemon has stored all that is committed now.
func (w *world) stored() {
	w.t.Helper()
	end := w.lsn("select pg_current_wal_lsn()::text")
	w.streaming(w.postman.process.began) // before, a look at the status would open the store, and be in the way of a daemon that starts
	w.await(w.size.patience, "everything to be stored", func() (bool, string) {
		s := w.status()
		stored, err := position.ParseLSN(s.Stream.Stored)
		w.must(err)
		return stored >= end, fmt.Sprintf("%s of %s", stored, end)
	})
}

func (w *world) status() daemon.Status {
	w.t.Helper()
	s, err := w.postman.status()
	w.must(err)
	return s
}

func (w *world) lsn(query string) position.LSN {
	w.t.Helper()
	var text string
	w.ask(&text, query)
	lsn, err := position.ParseLSN(text)
	w.must(err)
	return lsn
}

func (w *world) ask(into any, query string, args ...any) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	w.must(err)
	defer func() { _ = conn.Close(context.Background()) }()
	w.must(conn.QueryRow(w.t.Context(), query, args...).Scan(into))
}

func (w *world) exec(statement string) {
	w.t.Helper()
	pgtest.Exec(w.t, w.url, statement)
}
