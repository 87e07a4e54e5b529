package sqlite

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"postman/outbox"
	"postman/position"
)

var errDisk = errors.New("the disk failed")

// fixture is a store with a source and a rule.
type fixture struct {
	*Store
	source outbox.Source
	rule   uint32
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Store: openInside(t)}
	ids, err := f.RuleIDs(t.Context(), outbox.RuleName{Name: "stale"})
	if err != nil {
		t.Fatal(err)
	}
	f.rule = ids[0]
	f.source, err = f.SaveSource(t.Context(), outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// append stores a transaction that ends at lsn, with two matches.
func (f *fixture) append(t *testing.T, lsn position.LSN) ([]outbox.Match, error) {
	t.Helper()
	text := []byte("stale")
	m := outbox.NewMatch{Rule: f.rule, Version: outbox.HashOf(text), Op: "insert"}
	other := m
	other.Ordinal = 1
	return f.Append(t.Context(), outbox.Batch{
		Source: f.source.ID, Epoch: 1, Checkpoint: lsn, Texts: map[outbox.Hash][]byte{outbox.HashOf(text): text},
		Transactions: []outbox.Transaction{{Tx: outbox.Tx{LSN: lsn - 1, End: lsn}, Matches: []outbox.NewMatch{m, other}}},
	}, 10)
}

// stands fails the test unless the store has so many matches and this checkpoint.
func (f *fixture) stands(t *testing.T, matches int, at position.LSN) {
	t.Helper()
	found, err := f.Matches(t.Context(), outbox.Filter{})
	if err != nil || len(found) != matches {
		t.Errorf("%d matches are there, not %d (%v)", len(found), matches, err)
	}
	src, err := f.Source(t.Context(), "1", "crm", "postman")
	if err != nil || src.Checkpoint != at {
		t.Errorf("the checkpoint is %s, not %s (%v)", src.Checkpoint, at, err)
	}
}

// blind has the writer fail to read a table from now on, until the function that it returns mends that.
func blind(t *testing.T, s *Store, table string) (mend func()) {
	t.Helper()
	var prepare func(string) (*sql.Stmt, error)
	kept := make(map[string]*sql.Stmt)
	var mu sync.Mutex
	blinded := true
	err := s.write(t.Context(), "blinding", func(w *writer) error {
		prepare = w.prepare
		for text, statement := range w.statements {
			if strings.Contains(text, "FROM "+table) {
				kept[text] = statement
				delete(w.statements, text)
			}
		}
		w.prepare = func(query string) (*sql.Stmt, error) {
			mu.Lock()
			defer mu.Unlock()
			statement, known := kept[query]
			switch {
			case known && blinded:
				return nil, errDisk
			case known:
				return statement, nil
			}
			return prepare(query)
		}
		return nil
	})
	if err != nil || len(kept) == 0 {
		t.Fatalf("blinding %d statements: %v", len(kept), err)
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		blinded = false
	}
}

// TestStale: a writer that cannot read again what it knows after it rolled back takes nothing until it can.
func TestStale(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	for _, table := range []string{"sources", "rules", "texts", "transactions", "sqlite_sequence"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			defer f.Close()
			first, err := f.append(t, 10)
			if err != nil {
				t.Fatal(err)
			}
			mend := blind(t, f.Store, table)
			if err := f.write(t.Context(), "failing", func(*writer) error { return no }); !errors.Is(err, no) {
				t.Errorf("what failed got %v", err)
			}
			for range 2 {
				if claimed, err := f.append(t, 20); !errors.Is(err, errDisk) || claimed != nil {
					t.Errorf("a blind writer took a batch: %+v, %v", claimed, err)
				}
			}
			f.stands(t, 2, 10)
			mend()
			second, err := f.append(t, 20)
			if err != nil || len(second) != 2 || second[0].ID <= first[1].ID {
				t.Errorf("after it was mended, %+v were claimed (%v)", second, err)
			}
			f.stands(t, 4, 20)
		})
	}
}

// TestStaleTogether: the same, when it was one of several operations that was rolled back: all of them are told.
func TestStaleTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		defer f.Close()
		mend := blind(t, f.Store, "sqlite_sequence")
		var durable []string
		no := errors.New("no")
		for i, err := range together(t, f.Store, named("a", &durable, no), named("bb", &durable, nil), named("ccc", &durable, no)) {
			if !errors.Is(err, errDisk) && !errors.Is(err, no) {
				t.Errorf("operation %d: %v", i, err)
			}
		}
		if _, err := f.append(t, 10); !errors.Is(err, errDisk) {
			t.Errorf("a blind writer took a batch: %v", err)
		}
		mend()
		if _, err := f.append(t, 10); err != nil {
			t.Error(err)
		}
		f.stands(t, 2, 10)
		if got := f.ruleNames(t); !slices.Equal(got, []string{"stale"}) || len(durable) != 0 {
			t.Errorf("stored are %v, durable %v", got, durable)
		}
	})
}

// TestIDConflict: an id that is given twice is an error, and loses no row.
func TestIDConflict(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"transactions", "matches"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			defer f.Close()
			if _, err := f.append(t, 10); err != nil {
				t.Fatal(err)
			}
			f.forget(t, table)
			if _, err := f.append(t, 20); err == nil || !strings.Contains(err.Error(), table+".id") {
				t.Errorf("a batch whose ids are taken gave %v", err)
			}
			f.stands(t, 2, 10)
			if _, err := f.append(t, 20); err != nil { // the failure had it read again what it knows
				t.Error(err)
			}
			f.stands(t, 4, 20)
		})
	}
	t.Run("messages", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		defer f.Close()
		claimed, err := f.append(t, 10)
		if err != nil {
			t.Fatal(err)
		}
		expand := func(match int64) error {
			_, err := f.Expand(t.Context(), outbox.Expansion{
				Match: match, State: outbox.MatchExpanded, Messages: []outbox.NewMessage{{Address: "a@example.com"}},
			})
			return err
		}
		if err := expand(claimed[0].ID); err != nil {
			t.Fatal(err)
		}
		f.forget(t, "messages")
		if err := expand(claimed[1].ID); err == nil || !strings.Contains(err.Error(), "messages.id") {
			t.Errorf("an expansion whose ids are taken gave %v", err)
		}
		if err := expand(claimed[1].ID); err != nil {
			t.Error(err)
		}
	})
}

// TestNumberingFails: of a set of rules of which one cannot be numbered none is, and none has another name.
func TestNumberingFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	defer f.Close()
	f.forget(t, "rules")
	set := []outbox.RuleName{{Name: "renamed", Was: "stale"}, {Name: "taken"}}
	if ids, err := f.RuleIDs(t.Context(), set...); err == nil || ids != nil || !strings.Contains(err.Error(), `"taken"`) {
		t.Errorf("a set with a number that is taken gave %v, %v", ids, err)
	}
	if got := f.ruleNames(t); !slices.Equal(got, []string{"stale"}) {
		t.Errorf("stored are %v", got)
	}
	ids, err := f.RuleIDs(t.Context(), set...) // the failure had it read again what it knows
	if err != nil || ids[0] != f.rule || ids[1] == f.rule {
		t.Errorf("the set has %v, with %d before (%v)", ids, f.rule, err)
	}
	if got := f.ruleNames(t); !slices.Equal(got, []string{"renamed", "taken"}) {
		t.Errorf("stored are %v", got)
	}
}

// forget has the writer allot the ids of a table from the start.
func (f *fixture) forget(t *testing.T, table string) {
	t.Helper()
	err := f.write(t.Context(), "forgetting", func(w *writer) error {
		delete(w.known.last, table)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
