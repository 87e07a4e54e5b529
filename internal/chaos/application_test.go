package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The application's schema. schedules and imports are written in large transactions, too; the others only in small ones, that Postgres does
// not send before they are committed.
const schema = `
create type channel as enum ('phone', 'mail');
create type progress as enum ('open', 'closed');
create table customers (id int primary key, name text not null, phone text not null);
create table staff (id int primary key, email text not null, name text not null);
create table schedules (id bigint primary key, kind text not null, customer_id int not null, staff_id int not null,
	change bigint not null, note text not null, channel channel not null default 'phone');
create table visits (change bigint primary key, class int not null, staff_id int not null);
create table tickets (change bigint primary key, urgent text not null, level int not null, status progress not null, staff_id int not null);
create table imports (change bigint primary key, wanted bool not null, staff_id int not null, payload text not null);
create table bookings (change bigint primary key, staff_id int not null);
alter table bookings replica identity full;
create table wipes (change bigint primary key);
create table parcels (change bigint primary key, staff_id int not null);
select pg_replication_origin_create('peer-' || g) from generate_series(0, 2) g;
insert into customers select g, 'Customer ' || g, '010-0000-' || g from generate_series(0, 99) g;
insert into staff select g, 'staff' || g || '@example.com', 'Colleague ' || g from generate_series(0, 9) g`

const (
	perSecond = 200 // changes, of all workers together
	workers   = 3   // whose transactions overlap
)

// application writes changes until its context ends. Each change has a number of its own, which its mail's subject tells.
type application struct {
	t       *testing.T
	url     string
	seed    uint64
	changes atomic.Int64

	mu         sync.Mutex
	rolledBack map[int64]bool // changes that must not be mailed, as far as the application knows for certain
	unmatched  map[int64]bool // committed, and of no rule's interest
	counts     map[string]int // what happened

	tickets sync.RWMutex // held by who writes some
	parcels table        // which is renamed
}

// table is one whose name changes.
type table struct {
	mu   sync.RWMutex // held by who writes to it
	name string
}

// rename has the table be called otherwise. Nobody writes to it meanwhile, and nobody waits for what was written to be read.
func (t *table) rename(as func(was string) (name string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.name = as(t.name)
}

func newApplication(t *testing.T, url string, seed uint64) *application {
	return &application{
		t: t, url: url, seed: seed, rolledBack: make(map[int64]bool), unmatched: make(map[int64]bool), counts: make(map[string]int),
		parcels: table{name: firstEdition.table},
	}
}

func (a *application) run(ctx context.Context, b bulk) {
	var working sync.WaitGroup
	for i := range workers {
		working.Go(func() {
			w := &worker{app: a, origin: fmt.Sprintf("peer-%d", i), dice: rand.New(rand.NewPCG(a.seed, uint64(i)))}
			w.run(ctx)
		})
	}
	for i := range b.loaders {
		working.Go(func() {
			l := &loader{app: a, bulk: b, dice: rand.New(rand.NewPCG(a.seed, uint64(100+i)))}
			l.run(ctx)
		})
	}
	working.Wait()
}

// hold waits until nobody writes tickets, and lets nobody begin until resume is called.
func (a *application) hold() (resume func()) {
	a.tickets.Lock()
	return a.tickets.Unlock
}

func (a *application) count(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[what]++
}

func (a *application) counted() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

// worker is one connection of the application.
type worker struct {
	app    *application
	origin string // of what it writes as if it came from elsewhere
	dice   *rand.Rand
	conn   *pgx.Conn
	ids    []int64 // rows that are committed for certain
}

// run writes transactions at an even pace. A lost connection is made again, and the transaction is not: whether it was
// committed, the ledger knows.
func (w *worker) run(ctx context.Context) {
	defer w.hangUp(context.WithoutCancel(ctx))
	next := time.Now()
	for ctx.Err() == nil {
		n, err := w.transaction(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.lost(ctx, err)
			n = 10
		}
		next = next.Add(time.Duration(n) * workers * time.Second / perSecond)
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // an outage is not made up for
		}
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
		}
	}
}

// lost notes a connection that broke. Any other error is a mistake of this test's.
func (w *worker) lost(ctx context.Context, err error) {
	w.app.lost(err)
	w.hangUp(ctx)
}

func (a *application) lost(err error) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !strings.HasPrefix(pg.Code, "57P") {
		a.t.Errorf("the application: %v", err)
	}
	a.count("connections of the application broken")
}

func (w *worker) hangUp(ctx context.Context) {
	if w.conn != nil {
		_ = w.conn.Close(ctx) // whatever breaks off is rolled back
		w.conn = nil
	}
}

// transaction writes one of the kinds, and says how many changes it had.
func (w *worker) transaction(ctx context.Context) (n int, err error) {
	if w.conn == nil {
		if w.conn, err = pgx.Connect(ctx, w.app.url); err != nil {
			return 0, err
		}
	}
	kinds := []struct {
		weight int
		write  func(context.Context) (int, error)
	}{
		{20, w.single},
		{8, w.uninteresting},
		{12, w.several},
		{10, w.update},
		{5, w.ping},
		{7, w.rollBack},
		{6, w.savepoint},
		{6, w.nested},
		{8, w.visit},
		{7, w.ticket},
		{4, w.parcel},
		{3, w.remove},
		{1, w.empty},
		{2, w.mute},
		{1, w.copyFromElsewhere},
	}
	at := w.dice.IntN(100)
	for _, k := range kinds {
		if at -= k.weight; at < 0 {
			return k.write(ctx)
		}
	}
	panic("the weights do not sum up to 100")
}

func (a *application) remember(set map[int64]bool, changes ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range changes {
		set[c] = true
	}
}

// confirmed waits until the daemon has confirmed all that is committed now. It hardly sleeps, to be there at once.
func (a *application) confirmed(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("an import was not confirmed in time"))
	defer cancel()
	conn, err := pgx.Connect(ctx, a.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var end string
	if err := conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&end); err != nil {
		return err
	}
	for done := false; !done; {
		err := conn.QueryRow(ctx, "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots where slot_name = 'chaos'", end).Scan(&done)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
