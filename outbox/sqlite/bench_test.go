package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// workload appends batches as the daemon does: small changes, one rule, each transaction one match.
type workload struct {
	store  *sqlite.Store
	source outbox.Source
	rule   uint32
	text   []byte
	change []byte
	lsn    position.LSN
}

func newWorkload(tb testing.TB) *workload {
	tb.Helper()
	s, err := sqlite.Open(filepath.Join(tb.TempDir(), "postman.db"), sqlite.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	w := &workload{store: s, text: []byte("name: bench"), change: make([]byte, 200)}
	ids, err := s.RuleIDs(tb.Context(), outbox.RuleName{Name: "bench"})
	if err != nil {
		tb.Fatal(err)
	}
	w.rule = ids[0]
	w.source, err = s.SaveSource(tb.Context(), outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming})
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// batch is n transactions of one match.
func (w *workload) batch(n int, due time.Time) outbox.Batch {
	version := outbox.HashOf(w.text)
	b := outbox.Batch{Source: w.source.ID, Epoch: 1, Texts: map[outbox.Hash][]byte{version: w.text}}
	for range n {
		w.lsn += 200
		b.Transactions = append(b.Transactions, outbox.Transaction{
			Tx: outbox.Tx{LSN: w.lsn, End: w.lsn + 50, XID: uint32(w.lsn), Time: due},
			Matches: []outbox.NewMatch{{
				Rule: w.rule, Version: version, Op: "insert", Change: w.change, Due: due, Priority: outbox.Normal,
			}},
		})
	}
	b.Checkpoint = w.lsn + 50
	return b
}

func (w *workload) append(tb testing.TB, n, claim int, due time.Time) []outbox.Match {
	tb.Helper()
	claimed, err := w.store.Append(tb.Context(), w.batch(n, due), claim)
	if err != nil {
		tb.Fatal(err)
	}
	return claimed
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorkload(b)
			b.ReportAllocs()
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				w.append(b, n, n, start)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "matches/s")
		})
	}
}

// BenchmarkDeliver takes matches the whole way, from many goroutines: expanded to one message that is sending, recorded as sent.
func BenchmarkDeliver(b *testing.B) {
	for _, workers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			w := newWorkload(b)
			body := make([]byte, 4000)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				b.StopTimer()
				claimed := w.append(b, 1000, 1000, time.Now())
				b.StartTimer()
				n += len(claimed)
				todo := make(chan outbox.Match)
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						for m := range todo {
							deliver(b, w.store, m, body)
						}
					})
				}
				for _, m := range claimed {
					todo <- m
				}
				close(todo)
				wg.Wait()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "mails/s")
		})
	}
}

func deliver(tb testing.TB, s outbox.Store, m outbox.Match, body []byte) {
	now := time.Now()
	sending, err := s.Expand(context.Background(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{{
		Address: "a@example.com", State: outbox.MessageSending, Due: now, MessageID: "<1@example.com>", Subject: "s", Body: body, Lease: now.Add(time.Minute),
	}}})
	if err != nil {
		tb.Error(err)
		return
	}
	err = s.Record(context.Background(), []outbox.Outcome{{
		Message: sending[0].ID, State: outbox.MessageSent, Reply: "250 ok", Burned: true,
		Attempt: &outbox.Attempt{Relay: "r", Started: now, Took: time.Millisecond, Code: 250, Text: "250 ok"},
	}})
	if err != nil {
		tb.Error(err)
	}
}

// BenchmarkSend takes queued messages the way of a backlog: claimed by the dozen, started with their bodies, recorded as sent.
func BenchmarkSend(b *testing.B) {
	const each = 1000
	w := newWorkload(b)
	body := make([]byte, 2500)
	queue := func() {
		m := w.append(b, 1, 1, time.Now())[0]
		messages := make([]outbox.NewMessage, each)
		for i := range messages {
			messages[i] = outbox.NewMessage{Address: fmt.Sprintf("person%d@example.com", i), State: outbox.MessageQueued, Due: time.Now(), Recipient: body[:100]}
		}
		if _, err := w.store.Expand(b.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: messages}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		queue()
		b.StartTimer()
		for sent := 0; sent < each; {
			claimed, err := w.store.ClaimMessages(b.Context(), outbox.Claim{Now: time.Now(), Most: 32})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := w.store.NextDue(b.Context(), nil, nil); err != nil {
				b.Fatal(err)
			}
			var starts []outbox.Start
			var outcomes []outbox.Outcome
			for _, m := range claimed {
				starts = append(starts, outbox.Start{Message: m.ID, MessageID: "<" + m.Address + ">", Subject: "Autumn listings", Body: body, Lease: time.Now().Add(time.Minute)})
				outcomes = append(outcomes, outbox.Outcome{
					Message: m.ID, State: outbox.MessageSent, Reply: "250 ok", Burned: true,
					Attempt: &outbox.Attempt{Relay: "r", Started: time.Now(), Took: time.Millisecond, Code: 250, Text: "250 ok"},
				})
			}
			if may, err := w.store.Start(b.Context(), starts); err != nil || len(may) != len(starts) {
				b.Fatal(len(may), err)
			}
			if err := w.store.Record(b.Context(), outcomes); err != nil {
				b.Fatal(err)
			}
			sent += len(claimed)
		}
		n += each
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "mails/s")
}
