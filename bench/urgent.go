package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"postman/outbox"
)

// urgent measures how long a mail of high priority takes while a million of bulk are queued before it and leave as fast as they can: from the return of
// the application's COMMIT to the relay's 250.
func (b *bench) urgent(ctx context.Context) error {
	const each = 100_000 // recipients of one match
	s := &sending{bench: b, mails: 1_000_000, lanes: 16}
	tries := 100
	if b.quick {
		s.mails, tries = each, 10
	}
	m := newMeeting()
	r, err := listen(m.arrived)
	if err != nil {
		return err
	}
	defer r.close()
	p := b.postman(options{relay: "127.0.0.1:9", rule: "mailings", rules: mailingRule + urgentRule, template: mailingTemplate, second: template, lanes: s.lanes})
	if err := p.fresh(ctx); err != nil {
		return err
	}
	if err := s.people(ctx, each); err != nil {
		return err
	}
	begun := time.Now()
	err = s.until(ctx, p, outbox.MessageQueued, func() error {
		_, err := b.database.conn.Exec(ctx, "insert into mailings (title, until, greeting) select 'Autumn listings', current_date + 30, 'Kind regards' from generate_series(1, $1)", s.mails/each)
		return err
	})
	if err != nil {
		return err
	}
	s.queued = append(s.queued, float64(s.mails)/time.Since(begun).Seconds())
	p.opts.relay = r.addr()
	took, left, memory, err := b.urge(ctx, p, m, tries)
	if err != nil {
		return err
	}
	return table(b.out, fmt.Sprintf("urgent: %d mails of high priority, one after the other, while %d of bulk leave over %d connections; %d of bulk were left at the end", tries, s.mails, s.lanes, left), []line{
		{what: "COMMIT to 250, p50", unit: "ms", ours: []float64{quantile(took, 0.5)}},
		{what: "COMMIT to 250, p99", unit: "ms", ours: []float64{quantile(took, 0.99)}, bar: 100},
		{what: "queued before", unit: "/s", ours: s.queued},
		{what: "peak RSS", unit: "MB", ours: []float64{memory}, bar: 150},
	})
}

// urge runs postman, and commits a change of high priority now and then.
func (b *bench) urge(ctx context.Context, p *postmanSide, m *meeting, tries int) (took []float64, left int, memory float64, err error) {
	run, err := p.start(ctx)
	if err != nil {
		return nil, 0, 0, err
	}
	ctx, cancel := run.watch(ctx)
	defer cancel()
	defer func() { err = errors.Join(err, run.stop()) }()
	if _, err := b.database.streaming(ctx, p.slot()); err != nil {
		return nil, 0, 0, err
	}
	first := b.id
	for range tries {
		if err := b.commit(ctx, "changes", m, 1); err != nil {
			return nil, 0, 0, err
		}
		if _, err := m.took(ctx, b.id-1, b.id-1); err != nil {
			return nil, 0, 0, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	if took, err = m.took(ctx, first, b.id-1); err != nil {
		return nil, 0, 0, err
	}
	memory, err = run.memory("VmHWM")
	if err != nil {
		return nil, 0, 0, err
	}
	left, err = waiting(ctx, filepath.Join(p.dir, "postman.db"))
	return took, left, memory, err
}

const urgentRule = `  - name: urgent
    about: Somebody booked a meeting.
    on: {table: changes, ops: [insert]}
    when: new.kind == "meeting"
    priority: high
    load:
      customer: select name, phone from customers where id = @new.customer_id
    to: {query: "select email, name from staff where id = @new.staff_id"}
    template: second
    hold_over: {transaction: 1000000000, minute: 1000000000}
`
