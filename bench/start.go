package main

import (
	"context"
	"fmt"
	"time"
)

// start measures how long postman takes from its start until it streams, with an empty backlog, and how much memory that takes: with a
// new store, in which every rule has yet to be numbered, and with the store of its last run. Alike are rules whose queries are the
// same but for their conditions, as those that a program writes are; of the others each has queries of its own, and a hundred share a template.
func (b *bench) start(ctx context.Context) error {
	rounds, many := 5, 10_000
	if b.quick {
		rounds, many = 1, 100
	}
	var lines []line
	for _, s := range []*starting{
		{bench: b, rules: 100, unlike: true, bar: 1},
		{bench: b, rules: many},
		{bench: b, rules: many, unlike: true},
	} {
		for range rounds {
			if err := s.round(ctx); err != nil {
				return fmt.Errorf("start, %s: %w", s.kind(), err)
			}
		}
		lines = append(lines, s.lines()...)
	}
	return table(b.out, fmt.Sprintf("start: from the start of the process until it streams, with an empty backlog; median of %d rounds", rounds), lines)
}

// starting is one of them.
type starting struct {
	bench  *bench
	rules  int
	unlike bool
	bar    float64 // of the start with a store that knows the rules, in seconds

	first, again, firstPeak, againPeak, resident []float64
}

func (s *starting) kind() string {
	if s.unlike {
		return fmt.Sprintf("%d rules, each its own queries", s.rules)
	}
	return fmt.Sprintf("%d rules alike", s.rules)
}

func (s *starting) lines() []line {
	return []line{
		{what: s.kind() + ", new store", unit: "s", ours: s.first},
		{what: s.kind() + ", store of the last run", unit: "s", ours: s.again, bar: s.bar},
		{what: "  peak RSS, new store", unit: "MB", ours: s.firstPeak},
		{what: "  peak RSS, store of the last run", unit: "MB", ours: s.againPeak},
		{what: "  RSS after a second", unit: "MB", ours: s.resident},
	}
}

// round starts twice: with a new store, and with the same again.
func (s *starting) round(ctx context.Context) error {
	ours := s.bench.postman(options{relay: "127.0.0.1:9", rule: "changes", more: s.rules - 1, unlike: s.unlike}) // nothing is ever sent
	if err := ours.fresh(ctx); err != nil {
		return err
	}
	if err := s.once(ctx, ours, &s.first, &s.firstPeak, nil); err != nil {
		return err
	}
	return s.once(ctx, ours, &s.again, &s.againPeak, &s.resident)
}

func (s *starting) once(ctx context.Context, ours *postmanSide, took, peaks, resident *[]float64) error {
	begun := time.Now()
	p, err := ours.start(ctx)
	if err != nil {
		return err
	}
	err = s.measure(ctx, p, ours, begun, took, peaks, resident)
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	return s.bench.database.idle(ctx, ours.slot())
}

func (s *starting) measure(ctx context.Context, p *process, ours *postmanSide, begun time.Time, took, peaks, resident *[]float64) error {
	ctx, cancel := p.watch(ctx)
	defer cancel()
	if _, err := s.bench.database.streaming(ctx, ours.slot()); err != nil {
		return err
	}
	*took = append(*took, time.Since(begun).Seconds())
	if resident != nil {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now, err := p.memory("VmRSS")
		if err != nil {
			return err
		}
		*resident = append(*resident, now)
	}
	peak, err := p.memory("VmHWM")
	*peaks = append(*peaks, peak)
	return err
}
