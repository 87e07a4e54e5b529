package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// replay measures how fast the journal is read again, and decided on by a thousand rules of which none matches: what
// `postman replay --dry-run` says that it took, in a process of its own that no daemon runs beside, and the memory of that process.
// The changes were brought by the stream, in transactions of a thousand rows of 200 bytes, of which 140 hardly pack.
func (b *bench) replay(ctx context.Context) error {
	rows, rounds := 1_000_000, 3
	if b.quick {
		rows, rounds = 20_000, 1
	}
	r := &replaying{bench: b, rows: rows}
	if err := r.fill(ctx); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	for range rounds {
		if err := r.round(ctx); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	headline := fmt.Sprintf("replay: %d journalled changes and 1,000 rules, none matching; median of %d rounds", rows, rounds)
	return table(b.out, headline, []line{
		{what: "changes", unit: "/s", ours: r.rate, bar: 800_000, atLeast: true},
		{what: "  processor time, with the start", unit: "s", ours: r.busy},
		{what: "peak RSS", unit: "MB", ours: r.memory, bar: 100},
		{what: "journal, bytes a change", unit: "B", ours: []float64{r.size}},
	})
}

type replaying struct {
	*bench
	rows         int
	ours         *postmanSide
	from         string
	size         float64
	rate, memory []float64
	busy         []float64 // user and system time: on a machine that others use, the rate is theirs as well
}

// fill has postman take the changes in.
func (r *replaying) fill(ctx context.Context) error {
	r.ours = r.postman(options{relay: "127.0.0.1:9", rule: "changes", more: 1000}) // nothing is ever sent
	if err := r.ours.fresh(ctx); err != nil {
		return err
	}
	p, err := r.ours.start(ctx)
	if err != nil {
		return err
	}
	err = r.stream(ctx, p)
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	if err == nil {
		err = r.look(ctx)
	}
	return err
}

func (r *replaying) stream(ctx context.Context, p *process) error {
	ctx, cancel := p.watch(ctx)
	defer cancel()
	if _, err := r.database.streaming(ctx, r.ours.slot()); err != nil {
		return err
	}
	const each = 1000
	batch := &pgx.Batch{}
	for range r.rows / each {
		batch.Queue("begin")
		batch.Queue(`insert into changes select $1::bigint + g, 'note', 1 + g % 1000, 1 + g % 50, now(),
			left(md5(g::text) || md5((g + $1)::text) || md5((g * $1)::text) || md5((g - $1)::text) || md5(g::text), 140) from generate_series(1, $2::int) g`, r.id, each)
		batch.Queue("commit")
		r.id += each + 1
	}
	if err := r.database.conn.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	end, err := r.database.end(ctx)
	if err == nil {
		_, err = r.database.confirmed(ctx, r.ours.slot(), end)
	}
	return err
}

// look asks the store where its journal begins.
func (r *replaying) look(ctx context.Context) error {
	out, err := r.ours.command(ctx, "status", "--json").Output()
	if err != nil {
		return fmt.Errorf("postman status: %w", err)
	}
	var status struct {
		Sources []struct {
			Journal struct {
				Oldest string
				Bytes  float64
			}
		}
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return err
	}
	r.from, r.size = status.Sources[0].Journal.Oldest, status.Sources[0].Journal.Bytes/float64(r.rows)
	return nil
}

func (r *replaying) round(ctx context.Context) error {
	cmd := r.ours.command(ctx, "replay", "--from", r.from, "--dry-run", "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("postman replay: %w\n%s", err, stderr.String())
	}
	var told struct {
		Plan struct {
			Changes, Queue int
			Took           float64 `json:"took_ms"`
		}
	}
	if err := json.Unmarshal(out, &told); err != nil {
		return err
	}
	if told.Plan.Changes != r.rows || told.Plan.Queue != 0 {
		return fmt.Errorf("of %d changes %d were read, and %d matched", r.rows, told.Plan.Changes, told.Plan.Queue)
	}
	r.rate = append(r.rate, float64(r.rows)/told.Plan.Took*1000)
	r.busy = append(r.busy, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	r.memory = append(r.memory, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)*1024/1e6)
	return nil
}
