package dispatch

import (
	"slices"
	"testing"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// BenchmarkAppendToAccepted takes one match after the other from the store's first commit to the relay's final dot: one
// recipient query, one load, a template, two durable commits.
func BenchmarkAppendToAccepted(b *testing.B) {
	accepted := make(chan time.Time, 1)
	w := newWorld(b, setup{
		schema: crm,
		rules: `
rules:
  - name: meeting
    about: You have a meeting.
    on: {table: meetings, ops: [insert]}
    to: {query: "select email, name, locale, timezone from staff where id = @new.staff_id"}
    load: {customer: "select name from staff where id = @new.staff_id"}
    template: meeting
`,
		relay: smtptest.Options{Accepted: func(m smtptest.Mail) { accepted <- m.Time }},
	})
	c := w.inserted("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	w.take(c)
	<-accepted
	var stored, whole []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		c.time = time.Now()
		batch := w.batch(c)
		take := w.Ahead(&batch)
		ms := must(w.store.Append(w.Context(), batch, w.Room()))
		committed := time.Now()
		take(ms)
		at := <-accepted
		stored, whole = append(stored, committed.Sub(c.time)), append(whole, at.Sub(c.time))
		w.eventually("it is settled", func() bool { return w.Status().InFlight == 0 && w.Status().Matches == 0 })
	}
	for name, list := range map[string][]time.Duration{"append": stored, "whole": whole} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(list[len(list)*99/100].Microseconds()), name+"-p99-µs")
	}
}

// BenchmarkCompose renders one mail and writes its bytes.
func BenchmarkCompose(b *testing.B) {
	w := newWorld(b, setup{schema: crm, stopped: true})
	m := w.append(1, w.inserted("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`))[0]
	d, err := w.newDraft(b.Context(), &m)
	w.check(err)
	r := &research{draft: d, match: &m, limit: 50, first: 1}
	w.check(r.do(b.Context(), w.lookup))
	w.check(d.show())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.composer.compose(d, r.audience.to[0], nil, 0, r.shared); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookup asks for one match's recipients, in one round trip.
func BenchmarkLookup(b *testing.B) {
	w := newWorld(b, setup{schema: crm, stopped: true})
	m := w.append(1, w.inserted("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`))[0]
	d, err := w.newDraft(b.Context(), &m)
	w.check(err)
	b.ReportAllocs()
	for b.Loop() {
		r := &research{draft: d, match: &m, limit: 50, first: 1}
		if err := r.do(b.Context(), w.lookup); err != nil || len(r.audience.to) != 1 {
			b.Fatal(err, outbox.MatchNobody)
		}
	}
}
