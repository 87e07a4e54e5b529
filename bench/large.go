package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// large measures one transaction of many rows while postman runs: pieces of it lie in savepoints, and every third is rolled back. The
// server sends it while it is in progress, with its usual logical_decoding_work_mem of 64 MB.
//
// The Stream Commit's arrival is taken to be when the server says that it has sent it (sent_lsn in pg_stat_replication, asked every 5 ms):
// the commit is the last thing before that, and loopback takes no time. The mails that come are compared, id by id, with the rows
// that the table has afterwards, for three seconds more than the last takes.
func (b *bench) large(ctx context.Context) error {
	l := &large{bench: b, pieces: 300, rows: 2_000_000 / 300}
	rounds := 3
	if b.quick {
		l.pieces, l.rows, rounds = 30, 5000, 1
	}
	for range rounds {
		if err := l.round(ctx); err != nil {
			return fmt.Errorf("large: %w", err)
		}
	}
	headline := fmt.Sprintf("large: %d rows of 200 bytes in one transaction, a third of them rolled back to savepoints, 1 %% matching; exactly the mails of the others; %d rounds",
		l.pieces*l.rows, rounds)
	return table(b.out, headline, []line{
		{what: "first mail after the commit arrived", unit: "ms", ours: l.first, bar: 1000},
		{what: "  after COMMIT returned", unit: "ms", ours: l.returned},
		{what: "peak RSS", unit: "MB", ours: l.memory, bar: 150},
		{what: "mails accepted", unit: "/s", ours: l.mails},
		{what: "the application's transaction", unit: "s", ours: l.took},
	})
}

type large struct {
	bench        *bench
	pieces, rows int // savepoints, and rows in each

	first, returned, memory, mails, took []float64
}

func (l *large) round(ctx context.Context) error {
	m := newMeeting()
	r, err := listen(m.arrived)
	if err != nil {
		return err
	}
	defer r.close()
	ours := l.bench.postman(options{relay: r.addr(), rule: "changes"})
	if err := ours.fresh(ctx); err != nil {
		return err
	}
	p, err := ours.start(ctx)
	if err != nil {
		return err
	}
	err = l.measure(ctx, p, m)
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	return l.bench.database.idle(ctx, ours.slot())
}

func (l *large) measure(ctx context.Context, p *process, m *meeting) error {
	ctx, cancel := p.watch(ctx)
	defer cancel()
	if _, err := l.bench.database.streaming(ctx, "postman"); err != nil {
		return err
	}
	from, begun := l.bench.id, time.Now()
	if err := l.transaction(ctx); err != nil {
		return err
	}
	returned := time.Now()
	end, err := l.bench.database.end(ctx)
	if err != nil {
		return err
	}
	if err := l.bench.database.sent(ctx, end); err != nil {
		return err
	}
	sent := time.Now()
	if err := l.exactly(ctx, m, from); err != nil {
		return err
	}
	peak, err := p.memory("VmHWM")
	if err != nil {
		return err
	}
	first, last := m.span()
	l.first, l.returned = append(l.first, milliseconds(first.Sub(sent))), append(l.returned, milliseconds(first.Sub(returned)))
	l.memory, l.took = append(l.memory, peak), append(l.took, returned.Sub(begun).Seconds())
	l.mails = append(l.mails, float64(m.count())/last.Sub(first).Seconds())
	return nil
}

// transaction is the application's.
func (l *large) transaction(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, l.bench.database.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "begin"); err != nil {
		return err
	}
	for i := range l.pieces {
		if _, err := conn.Exec(ctx, "savepoint piece"); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `insert into changes
			select $1::bigint + g, case when g % 100 = 0 then 'meeting' else 'note' end, 1 + g % 1000, 1 + g % 50, now(), repeat('n', 140)
			from generate_series(1, $2::int) g`, l.bench.id, l.rows); err != nil {
			return err
		}
		l.bench.id += int64(l.rows) + 1
		end := "release piece"
		if i%3 == 2 {
			end = "rollback to piece"
		}
		if _, err := conn.Exec(ctx, end); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, "commit")
	return err
}

// exactly waits for the mails of the rows that the table has, and for others that must not come.
func (l *large) exactly(ctx context.Context, m *meeting, from int64) error {
	rows, err := l.bench.database.conn.Query(ctx, "select id from changes where id >= $1 and kind = 'meeting' order by id", from)
	if err != nil {
		return err
	}
	want, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, fmt.Errorf("not all of %d mails came within 5m", len(want)))
	defer cancel()
	for m.count() < len(want) {
		select {
		case <-m.more:
		case <-wait.Done():
			return fmt.Errorf("%w: %d came", context.Cause(wait), m.count())
		}
	}
	select {
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if got := m.ids(); !slices.Equal(got, want) {
		return fmt.Errorf("%d mails came, and not those of the %d rows", len(got), len(want))
	}
	return nil
}
