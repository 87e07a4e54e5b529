package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// store measures the outbox by itself. What each durable commit costs stands beside the least that the disk asks for: 4 KiB
// appended to a file, and an fsync. The rates show what commits in groups are worth.
func (b *bench) store(ctx context.Context) error {
	rounds, each, many := 5, 300, 20_000
	if b.quick {
		rounds, each, many = 1, 50, 2_000
	}
	s := &storing{dir: b.dir, each: each, many: many, found: make(map[string][]float64)}
	for range rounds {
		if err := s.round(ctx); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	headline := fmt.Sprintf("store: durable commits of sqlite beside an fsync of 4 KiB; median of %d rounds of %d commits one by one, and of %d rows", rounds, each, many)
	return table(b.out, headline, []line{
		{what: "Append, one match", unit: "ms", bare: s.found["fsync"], ours: s.found["append"]},
		{what: "Expand, one message", unit: "ms", bare: s.found["fsync"], ours: s.found["expand"]},
		{what: "Record, one outcome", unit: "ms", bare: s.found["fsync"], ours: s.found["record"]},
		{what: "Append, 1000 matches at once", unit: "/s", ours: s.found["append many"]},
		{what: "Expand, 32 callers", unit: "/s", ours: s.found["expand many"]},
		{what: "Record, 100 outcomes at once", unit: "/s", ours: s.found["record many"]},
	})
}

// storing is the store's benchmark. A round has a store of its own.
type storing struct {
	dir        string
	each, many int
	found      map[string][]float64

	store   *sqlite.Store
	source  outbox.Source
	rule    uint32
	version outbox.Hash
	lsn     position.LSN
}

var ruleText = []byte("name: booked\n")

func (s *storing) round(ctx context.Context) error {
	dir, err := os.MkdirTemp(s.dir, "store-")
	if err != nil {
		return err
	}
	if err := s.fsync(dir); err != nil {
		return err
	}
	if s.store, err = sqlite.Open(filepath.Join(dir, "postman.db"), sqlite.Options{}); err != nil { //nolint:contextcheck // Open takes none
		return err
	}
	err = s.measure(ctx)
	if closed := s.store.Close(); err == nil {
		err = closed
	}
	return err
}

// fsync is the bare side: the median of a write of 4 KiB at a file's end and its fsync.
func (s *storing) fsync(dir string) error {
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nobody reads it
	page := make([]byte, 4096)
	return s.oneByOne("fsync", func(int) error {
		if _, err := f.Write(page); err != nil {
			return err
		}
		return f.Sync()
	})
}

func (s *storing) measure(ctx context.Context) (err error) {
	s.source, err = s.store.SaveSource(ctx, outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming})
	if err != nil {
		return err
	}
	ids, err := s.store.RuleIDs(ctx, outbox.RuleName{Name: "booked"})
	if err != nil {
		return err
	}
	s.rule = ids[0]
	s.version, s.lsn = outbox.HashOf(ruleText), s.source.Checkpoint
	if err := s.small(ctx); err != nil {
		return err
	}
	return s.large(ctx)
}

// small takes one match after the other along its whole way.
func (s *storing) small(ctx context.Context) error {
	var matches []outbox.Match
	var messages []outbox.Message
	err := s.oneByOne("append", func(int) error {
		claimed, err := s.store.Append(ctx, s.batch(1), 1)
		matches = append(matches, claimed...)
		return err
	})
	if err != nil {
		return err
	}
	err = s.oneByOne("expand", func(i int) error {
		sending, err := s.store.Expand(ctx, expansion(&matches[i]))
		messages = append(messages, sending...)
		return err
	})
	if err != nil {
		return err
	}
	return s.oneByOne("record", func(i int) error { return s.store.Record(ctx, []outbox.Outcome{sent(&messages[i])}) })
}

// large takes many matches along it in the groups that a busy daemon makes.
func (s *storing) large(ctx context.Context) error {
	var matches []outbox.Match
	err := s.rate("append many", func() error {
		for len(matches) < s.many {
			claimed, err := s.store.Append(ctx, s.batch(1000), 1000)
			if err != nil {
				return err
			}
			matches = append(matches, claimed...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	messages := make([]outbox.Message, s.many)
	if err := s.rate("expand many", func() error { return s.expandAll(ctx, matches[:s.many], messages) }); err != nil {
		return err
	}
	return s.rate("record many", func() error {
		for at := 0; at < s.many; at += 100 {
			outcomes := make([]outbox.Outcome, 100)
			for i := range outcomes {
				outcomes[i] = sent(&messages[at+i])
			}
			if err := s.store.Record(ctx, outcomes); err != nil {
				return err
			}
		}
		return nil
	})
}

// expandAll expands with as many callers as wait for look-ups in a busy daemon.
func (s *storing) expandAll(ctx context.Context, matches []outbox.Match, messages []outbox.Message) error {
	const callers = 32
	var working sync.WaitGroup
	errs := make([]error, callers)
	for c := range callers {
		working.Go(func() {
			for i := c; i < len(matches) && errs[c] == nil; i += callers {
				var sending []outbox.Message
				if sending, errs[c] = s.store.Expand(ctx, expansion(&matches[i])); errs[c] == nil {
					messages[i] = sending[0]
				}
			}
		})
	}
	working.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// oneByOne notes the median of what each call took, in milliseconds.
func (s *storing) oneByOne(what string, do func(i int) error) error {
	took := make([]float64, s.each)
	for i := range took {
		begun := time.Now()
		if err := do(i); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		took[i] = milliseconds(time.Since(begun))
	}
	s.found[what] = append(s.found[what], quantile(took, 0.5))
	return nil
}

// rate notes how many rows a second were done.
func (s *storing) rate(what string, do func() error) error {
	begun := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.found[what] = append(s.found[what], float64(s.many)/time.Since(begun).Seconds())
	return nil
}

// batch is a transaction of n matches.
func (s *storing) batch(n int) outbox.Batch {
	now := time.Now()
	s.lsn += 1 << 12
	t := outbox.Transaction{Tx: outbox.Tx{LSN: s.lsn - 8, End: s.lsn, XID: uint32(s.lsn >> 12), Time: now}, Matches: make([]outbox.NewMatch, n)}
	for i := range t.Matches {
		t.Matches[i] = outbox.NewMatch{
			Ordinal: uint64(i), Rule: s.rule, Version: s.version, Op: "insert", Change: make([]byte, 200), Due: now, Priority: outbox.Normal,
		}
	}
	return outbox.Batch{
		Source: s.source.ID, Epoch: s.source.Epoch, Transactions: []outbox.Transaction{t}, Checkpoint: s.lsn,
		Texts: map[outbox.Hash][]byte{s.version: ruleText},
	}
}

// expansion makes one message that a lane takes at once, of the size of a short mail.
func expansion(m *outbox.Match) outbox.Expansion {
	now := time.Now()
	return outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{{
		Address: fmt.Sprintf("staff%d@example.com", m.ID), State: outbox.MessageSending, Due: now, Recipient: make([]byte, 60),
		MessageID: fmt.Sprintf("%d@example.com", m.ID), Subject: "A meeting", Body: make([]byte, 2000), Lease: now.Add(time.Minute),
	}}}
}

func sent(m *outbox.Message) outbox.Outcome {
	return outbox.Outcome{
		Message: m.ID, State: outbox.MessageSent, Reply: "250 2.0.0 queued", Burned: true,
		Attempt: &outbox.Attempt{Relay: "relay.example.com:587", Started: time.Now(), Took: time.Millisecond, Code: 250, Text: "2.0.0 queued"},
	}
}
