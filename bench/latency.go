package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// latency measures what a person waits for: from the return of the application's COMMIT to the relay's 250, one clock,
// at 50 changes a second, each in a transaction of its own. postman has one recipient query and one load to make, and two
// durable commits; the bare loop has none of it. One process lives at a time: they take turns.
func (b *bench) latency(ctx context.Context) error {
	rounds, n := 8, 300
	if b.quick {
		rounds, n = 1, 50
	}
	m := newMeeting()
	r, err := listen(m.arrived)
	if err != nil {
		return err
	}
	defer r.close()
	if err := b.database.createSlot(ctx, "bare"); err != nil {
		return err
	}
	ours := b.postman(options{relay: r.addr(), rule: "changes"})
	if err := ours.fresh(ctx); err != nil {
		return err
	}
	sides := []side{&bareSide{b, r.addr(), false}, ours, &bareSide{b, r.addr(), true}}
	p50, p99 := make([][]float64, len(sides)), make([][]float64, len(sides))
	for range rounds {
		for i, s := range sides {
			took, err := b.turn(ctx, s, m, n)
			if err != nil {
				return fmt.Errorf("latency of %s: %w", s.name(), err)
			}
			p50[i], p99[i] = append(p50[i], quantile(took, 0.5)), append(p99[i], quantile(took, 0.99))
		}
	}
	if err := b.database.dropSlot(ctx, "bare"); err != nil {
		return err
	}
	return table(b.out, fmt.Sprintf("latency: 50 changes/s, from the return of COMMIT to the relay's 250; fsync=on; median of %d rounds of %d changes, in turn", rounds, n), []line{
		{what: "p50", unit: "ms", bare: p50[0], ours: p50[1], bar: 7},
		{what: "p99", unit: "ms", bare: p99[0], ours: p99[1], bar: 8},
		{what: "p50, beside a loop that pipelines", unit: "ms", bare: p50[2], ours: p50[1]},
		{what: "p99, beside a loop that pipelines", unit: "ms", bare: p99[2], ours: p99[1]},
	})
}

// side is one of the two that are compared.
type side interface {
	name() string
	slot() string
	table() string
	start(context.Context) (*process, error)
}

// turn lets one side live for n changes, and returns what each of them took in milliseconds.
func (b *bench) turn(ctx context.Context, s side, m *meeting, n int) (took []float64, err error) {
	p, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	took, err = b.load(ctx, p, s, m, n)
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	if err == nil {
		err = b.database.idle(ctx, s.slot())
	}
	return took, err
}

// warmUp is how many changes do not count: connections are made meanwhile, plans and pages are cached.
const warmUp = 25

func (b *bench) load(ctx context.Context, p *process, s side, m *meeting, n int) ([]float64, error) {
	ctx, cancel := p.watch(ctx)
	defer cancel()
	if _, err := b.database.streaming(ctx, s.slot()); err != nil {
		return nil, err
	}
	first := b.id
	if err := b.commit(ctx, s.table(), m, warmUp+n); err != nil {
		return nil, err
	}
	return m.took(ctx, first+warmUp, b.id-1)
}

// commit is the application: it commits n changes and notes when each COMMIT returned.
func (b *bench) commit(ctx context.Context, table string, m *meeting, n int) error {
	conn, err := pgx.Connect(ctx, b.database.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sql := fmt.Sprintf(insert, table)
	for range n {
		if _, err := conn.Exec(ctx, sql, b.id); err != nil {
			return err
		}
		m.committed(b.id, time.Now())
		b.id++
		// 20 ms on average, and not in step with anybody's timer.
		time.Sleep(10*time.Millisecond + rand.N(20*time.Millisecond))
	}
	return nil
}

// meeting is where a change's commit and its mail's 250 come together.
type meeting struct {
	mu      sync.Mutex
	commits map[int64]time.Time
	mails   map[int64]time.Time
	more    chan struct{} // has room for one: a mail came
}

func newMeeting() *meeting {
	return &meeting{commits: make(map[int64]time.Time), mails: make(map[int64]time.Time), more: make(chan struct{}, 1)}
}

func (m *meeting) committed(id int64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits[id] = at
}

// arrived notes a mail's 250; of a second one for the same change, nothing.
func (m *meeting) arrived(id int64, at time.Time) {
	m.mu.Lock()
	if _, ok := m.mails[id]; !ok {
		m.mails[id] = at
	}
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
}

// took waits for the mails of a range of changes and returns how long each took, in milliseconds.
func (m *meeting) took(ctx context.Context, first, last int64) ([]float64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("not all of the mails of the changes %d to %d came within 30s", first, last))
	defer cancel()
	for {
		if took := m.all(first, last); took != nil {
			return took, nil
		}
		select {
		case <-m.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// all is nil while a mail is missing.
func (m *meeting) all(first, last int64) (took []float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := first; id <= last; id++ {
		at, ok := m.mails[id]
		if !ok {
			return nil
		}
		took = append(took, milliseconds(at.Sub(m.commits[id])))
	}
	return took
}

// bareSide is the bare loop that mails.
type bareSide struct {
	bench    *bench
	relay    string
	pipeline bool
}

func (s *bareSide) name() string  { return "the bare loop" }
func (s *bareSide) slot() string  { return "bare" }
func (s *bareSide) table() string { return "bare_changes" }
func (s *bareSide) start(ctx context.Context) (*process, error) {
	return start(s.bench.bare(ctx, loop{URL: s.bench.database.url, Slot: s.slot(), Publications: "bare", Relay: s.relay, Pipeline: s.pipeline}))
}

// bare is a bare loop's command: this program again.
func (b *bench) bare(ctx context.Context, l loop) *exec.Cmd {
	return exec.CommandContext(ctx, b.self, l.args()...)
}

// count is how many mails came.
func (m *meeting) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mails)
}

// span is when the first and the last mail came.
func (m *meeting) span() (first, last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.mails {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last
}

// ids are those of the changes whose mails came.
func (m *meeting) ids() []int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.mails))
}
