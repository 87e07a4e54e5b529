package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
)

// send measures how fast queued mails leave, beside the two that could send them instead: Postfix's own load generator, which has no
// store, no template and one mail for all, and a plain loop around go-mail with its defaults. All three talk to Postfix's smtp-sink.
func (b *bench) send(ctx context.Context) error {
	s := &sending{bench: b, mails: 100_000, lanes: 16}
	rounds := 3
	if b.quick {
		s.mails, rounds = 2_000, 1
	}
	for range rounds {
		if err := s.round(ctx); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	headline := fmt.Sprintf("send: %d queued mails of 2 KB to smtp-sink, %d connections; median of %d rounds", s.mails, s.lanes, rounds)
	return table(b.out, headline, []line{
		{what: "mails, beside smtp-source", unit: "/s", bare: s.source, ours: s.ours, bar: 0.7, atLeast: true},
		{what: "mails, beside a go-mail loop", unit: "/s", bare: s.loop, ours: s.ours, bar: 1.6, atLeast: true},
		{what: fmt.Sprintf("  beside %d such loops at once", s.lanes), unit: "/s", bare: s.loops, ours: s.ours},
		{what: "queued before", unit: "/s", ours: s.queued},
		{what: "peak RSS", unit: "MB", ours: s.memory, bar: 100},
	})
}

// sending is the benchmark.
type sending struct {
	bench        *bench
	mails, lanes int

	source, loop, loops, ours, queued, memory []float64 // by round
}

func (s *sending) round(ctx context.Context) error {
	sink, err := startSink(ctx)
	if err != nil {
		return err
	}
	defer sink.stop()
	err = errors.Join(
		s.peer(exec.CommandContext(ctx, "smtp-source", "-s", strconv.Itoa(s.lanes), "-m", strconv.Itoa(s.mails), "-l", "2048",
			"-f", "hello@example.com", "-t", "kim@example.com", sink.addr), &s.source),
		s.goMail(ctx, &goMail{relay: sink.addr, workers: 1}, &s.loop),
		s.goMail(ctx, &goMail{relay: sink.addr, workers: s.lanes}, &s.loops),
	)
	if err != nil {
		return err
	}
	return s.postman(ctx, sink.addr)
}

func (s *sending) goMail(ctx context.Context, g *goMail, rate *[]float64) error {
	g.mails = s.mails
	return s.peer(exec.CommandContext(ctx, s.bench.self, g.args()...), rate)
}

// peer runs a command that sends the mails, and notes how many a second that were.
func (s *sending) peer(command *exec.Cmd, rate *[]float64) error {
	begun := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command.Path, err, out)
	}
	*rate = append(*rate, float64(s.mails)/time.Since(begun).Seconds())
	return nil
}

// postman queues the mails while there is no relay, and then sends them.
func (s *sending) postman(ctx context.Context, relay string) error {
	p := s.bench.postman(options{relay: "127.0.0.1:9", rule: "mailings", rules: mailingRule, template: mailingTemplate, lanes: s.lanes})
	if err := p.fresh(ctx); err != nil {
		return err
	}
	if err := s.people(ctx, s.mails); err != nil {
		return err
	}
	begun := time.Now()
	err := s.until(ctx, p, outbox.MessageQueued, func() error {
		_, err := s.bench.database.conn.Exec(ctx, "insert into mailings (title, until, greeting) values ('Autumn listings', current_date + 30, 'Kind regards')")
		return err
	})
	if err != nil {
		return err
	}
	s.queued = append(s.queued, float64(s.mails)/time.Since(begun).Seconds())
	p.opts.relay = relay
	begun = time.Now()
	if err := s.until(ctx, p, outbox.MessageSent, nil); err != nil {
		return err
	}
	s.ours = append(s.ours, float64(s.mails)/time.Since(begun).Seconds())
	return nil
}

// people has so many who get a mailing.
func (s *sending) people(ctx context.Context, n int) error {
	if _, err := s.bench.database.conn.Exec(ctx, "truncate people"); err != nil {
		return err
	}
	_, err := s.bench.database.conn.Exec(ctx, `insert into people select g, 'person' || g || '@example.com', 'Person ' || g, 'City ' || g % 100
		from generate_series(1, $1) g`, n)
	return err
}

// waiting is how many mails are queued.
func waiting(ctx context.Context, store string) (int, error) {
	view, err := sqlite.Open(store, sqlite.Options{ReadOnly: true}) //nolint:contextcheck // a view has no writer
	if err != nil {
		return 0, err
	}
	defer view.Close() //nolint:errcheck // it was only read
	counts, err := view.Count(ctx)
	return counts.Messages[outbox.MessageQueued], err
}

// until runs postman until all mails are in a state.
func (s *sending) until(ctx context.Context, p *postmanSide, state outbox.MessageState, begin func() error) error {
	run, err := p.start(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := run.watch(ctx)
	defer cancel()
	err = s.wait(ctx, filepath.Join(p.dir, "postman.db"), state, begin)
	if memory, failed := run.memory("VmHWM"); failed == nil && state == outbox.MessageSent {
		s.memory = append(s.memory, memory)
	}
	return errors.Join(err, run.stop())
}

func (s *sending) wait(ctx context.Context, store string, state outbox.MessageState, begin func() error) error {
	if begin != nil {
		if err := begin(); err != nil {
			return err
		}
	}
	view, err := sqlite.Open(store, sqlite.Options{ReadOnly: true}) //nolint:contextcheck // a view has no writer
	if err != nil {
		return err
	}
	defer view.Close() //nolint:errcheck // it was only read
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		counts, err := view.Count(ctx)
		if err != nil || counts.Messages[state] == s.mails {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// mailingRule and mailingTemplate make a mail of 2 KB with five values of the row and its recipient.
const mailingRule = `rules:
  - name: mailing
    about: You asked for listings.
    on: {table: mailings, ops: [insert]}
    to: {query: "select email, name, city from people order by id"}
    template: booked
    priority: bulk
    max_recipients: 100000
    hold_over: {transaction: 1000000000, minute: 1000000000}
`

const mailingTemplate = `{{define "subject"}}{{.new.title}} for {{.to.name}}{{end}}
{{define "body"}}<p>Dear {{.to.name}},</p>
<p>these are the listings in {{.to.city}} that are new since we wrote last. They hold until {{.new.until}}.</p>
<p>A bright flat with two rooms near the station, newly painted, with a kitchen and a balcony to the south. The house is quiet, has a lift and a place for
bicycles, and the school is five minutes away on foot. Pets are welcome, and the flat is free from the first of next month.</p>
<p>A house with a garden at the edge of the town, four rooms, cellar and garage, built ten years ago and well kept since. The bus stops at the corner every ten
minutes, shops and a doctor are in the next street, and the forest begins behind the garden fence.</p>
<p>{{.new.greeting}}</p>{{end}}
`

// sink is Postfix's smtp-sink: it takes all mails and forgets them.
type sink struct {
	*process
	addr string
}

func startSink(ctx context.Context) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, err
	}
	s := &sink{addr: l.Addr().String()}
	l.Close()
	var user []string
	if os.Getuid() == 0 {
		user = []string{"-u", "nobody"}
	}
	if s.process, err = start(exec.Command("smtp-sink", append(user, s.addr, "1000")...)); err != nil {
		return nil, fmt.Errorf("starting smtp-sink, which comes with postfix (apt-get install postfix): %w", err)
	}
	if err := listens(ctx, s.addr); err != nil {
		s.stop()
		return nil, fmt.Errorf("smtp-sink: %w: %s", err, s.stderr.String())
	}
	return s, nil
}

// listens waits until something does.
func listens(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return errors.New("it does not listen")
		}
	}
}

// stop kills it: it knows no other way.
func (s *sink) stop() {
	s.cmd.Process.Kill() //nolint:errcheck // it has ended, which is what is waited for
	<-s.done
}
