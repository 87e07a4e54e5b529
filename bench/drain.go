package main

import (
	"context"
	"fmt"
	"time"
)

// drain measures how fast a backlog of one large transaction is worked off: from the START_REPLICATION of a side to the
// moment when the server learns that all of it is confirmed, both by the server's clock. What postman confirms is durable:
// the matches are stored and the checkpoint behind them. The bare loop parses and discards, from a second slot with the
// same backlog. Each round has a new backlog, new slots and, for postman, a new store, and the sides take turns in going first.
func (b *bench) drain(ctx context.Context) error {
	rows, rounds := 1_000_000, 3
	if b.quick {
		rows, rounds = 50_000, 1
	}
	for _, d := range []drain{
		{bench: b, rows: rows, what: "no rule matching", speed: 0.9, memory: 100},
		{bench: b, rows: rows, what: "1 % matching", every: 100, speed: 0.6, memory: 150},
		{bench: b, rows: rows, what: "no rule of 10,000 matching", rules: 10_000, speed: 0.9, memory: 100},
	} {
		if err := d.run(ctx, rounds); err != nil {
			return fmt.Errorf("drain, %s: %w", d.what, err)
		}
	}
	return nil
}

// drain is one of them.
type drain struct {
	bench         *bench
	what          string
	rows, every   int     // one row in so many matches; 0: none
	rules         int     // that match nothing, beside the one that may
	speed, memory float64 // the bars

	bareRate, ourRate, bareMemory, ourMemory, mails []float64
}

func (d *drain) run(ctx context.Context, rounds int) error {
	for round := range rounds {
		if err := d.round(ctx, round); err != nil {
			return err
		}
	}
	lines := []line{
		{what: "rows", unit: "/s", bare: d.bareRate, ours: d.ourRate, bar: d.speed, atLeast: true},
		{what: "peak RSS", unit: "MB", ours: d.ourMemory, bar: d.memory},
		{what: "  of the bare loop", unit: "MB", bare: d.bareMemory},
	}
	if d.every > 0 {
		lines = append(lines, line{what: "mails accepted behind it", unit: "/s", ours: d.mails})
	}
	headline := fmt.Sprintf("drain: %d rows of 200 bytes in one transaction, %s; until matches are durable and the checkpoint is confirmed; median of %d rounds",
		d.rows, d.what, rounds)
	return table(d.bench.out, headline, lines)
}

// round makes a backlog and lets both sides work it off.
func (d *drain) round(ctx context.Context, n int) error {
	m := newMeeting()
	r, err := listen(m.arrived)
	if err != nil {
		return err
	}
	defer r.close()
	ours := d.bench.postman(options{relay: r.addr(), rule: "changes", more: d.rules})
	if err := ours.fresh(ctx); err != nil {
		return err
	}
	if err := d.bench.database.createSlot(ctx, "bare"); err != nil {
		return err
	}
	last, end, err := d.backlog(ctx)
	if err != nil {
		return err
	}
	bare := &drainingLoop{bareSide{bench: d.bench}}
	turns := []func() error{
		func() error { return d.turn(ctx, bare, end, &d.bareRate, &d.bareMemory, nil) },
		func() error {
			return d.turn(ctx, ours, end, &d.ourRate, &d.ourMemory, func(ctx context.Context) error { return d.await(ctx, m, last) })
		},
	}
	for i := range turns {
		if err := turns[(n+i)%2](); err != nil {
			return err
		}
	}
	return d.bench.database.dropSlot(ctx, "bare")
}

// backlog inserts the rows and returns the last id and where the log ends then.
func (d *drain) backlog(ctx context.Context) (last int64, end string, err error) {
	every := d.every
	if every == 0 {
		every = d.rows + 1
	}
	db := d.bench.database
	_, err = db.conn.Exec(ctx, `insert into changes
		select $1::bigint + g, case when g % $3 = 0 then 'meeting' else 'note' end, 1 + g % 1000, 1 + g % 50, now(), repeat('n', 140)
		from generate_series(1, $2::int) g`, d.bench.id, d.rows, every)
	if err != nil {
		return 0, "", err
	}
	d.bench.id += int64(d.rows) + 1
	end, err = db.end(ctx)
	return d.bench.id - 1, end, err
}

// turn lets one side work the backlog off; after runs before the process is stopped.
func (d *drain) turn(ctx context.Context, s side, end string, rate, memory *[]float64, after func(context.Context) error) error {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	err = d.measure(ctx, p, s, end, rate, memory, after)
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name(), err)
	}
	return d.bench.database.idle(ctx, s.slot())
}

func (d *drain) measure(ctx context.Context, p *process, s side, end string, rate, memory *[]float64, after func(context.Context) error) error {
	ctx, cancel := p.watch(ctx)
	defer cancel()
	begun, err := d.bench.database.streaming(ctx, s.slot())
	if err != nil {
		return err
	}
	done, err := d.bench.database.confirmed(ctx, s.slot(), end)
	if err != nil {
		return err
	}
	if again, err := d.bench.database.streaming(ctx, s.slot()); err != nil || !again.Equal(begun) {
		return fmt.Errorf("it began to stream a second time: %w", err)
	}
	if after != nil {
		if err := after(ctx); err != nil {
			return err
		}
	}
	peak, err := p.memory("VmHWM")
	if err != nil {
		return err
	}
	*rate = append(*rate, float64(d.rows)/done.Sub(begun).Seconds())
	*memory = append(*memory, peak)
	return nil
}

// await waits for the mails of the rows that match, and notes how fast they came.
func (d *drain) await(ctx context.Context, m *meeting, last int64) error {
	if d.every == 0 {
		return nil
	}
	n := d.rows / d.every
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, fmt.Errorf("not all of %d mails came within 5m", n))
	defer cancel()
	for m.count() < n {
		select {
		case <-m.more:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d came", context.Cause(ctx), m.count())
		}
	}
	first, final := m.span()
	d.mails = append(d.mails, float64(n)/final.Sub(first).Seconds())
	return nil
}

// drainingLoop is the bare loop that discards, on the rows that postman gets too.
type drainingLoop struct{ bareSide }

func (s *drainingLoop) table() string { return "changes" }
func (s *drainingLoop) start(ctx context.Context) (*process, error) {
	return start(s.bench.bare(ctx, loop{URL: s.bench.database.url, Slot: s.slot(), Publications: "bare_too"}))
}
