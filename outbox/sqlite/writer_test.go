package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postman/outbox"
)

func openInside(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "postman.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// together has the writer find all operations at once, behind one that it is busy with, and returns their errors. It is
// to be called in a bubble.
func together(t *testing.T, s *Store, ops ...func(*writer) error) []error {
	t.Helper()
	busy := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.write(context.Background(), "blocking", func(*writer) error { <-busy; return nil }); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait() // the writer runs the first one
	errs := make([]error, len(ops))
	for i, run := range ops {
		wg.Go(func() { errs[i] = s.write(context.Background(), fmt.Sprintf("op %d", i), run) })
	}
	synctest.Wait() // all others wait for the writer
	close(busy)
	wg.Wait()
	return errs
}

// named is an operation that stores a rule's name, claims something and notes when it is durable.
func named(name string, durable *[]string, fail error) func(*writer) error {
	return func(w *writer) error {
		if _, err := w.ruleID(name, ""); err != nil {
			return err
		}
		w.claim(claim{key: key{id: int64(len(name))}})
		w.after(func() { *durable = append(*durable, name) })
		return fail
	}
}

func scanText(scan scanner) (text string, err error) {
	err = scan(&text)
	return text, err
}

func (s *Store) ruleNames(t *testing.T) []string {
	t.Helper()
	names, err := rows(s.reading(t.Context()), scanText, `SELECT name FROM rules ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestOneFailsAlone: what gathered is one transaction, and an operation that fails in it is undone without the others.
func TestOneFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openInside(t)
		defer s.Close()
		no := errors.New("no")
		var durable []string
		var within int
		errs := together(t, s,
			named("a", &durable, nil),
			named("bb", &durable, no),
			named("ccc", &durable, nil),
			func(w *writer) error { // runs before any of them is durable
				within = len(durable)
				return nil
			},
		)
		if errs[0] != nil || errs[2] != nil || errs[3] != nil || !errors.Is(errs[1], no) || !strings.HasPrefix(errs[1].Error(), "op 1: ") {
			t.Errorf("the errors are %v", errs)
		}
		slices.Sort(durable)
		if within != 0 || !slices.Equal(durable, []string{"a", "ccc"}) {
			t.Errorf("%d were answered before the commit; durable are %v", within, durable)
		}
		names := s.ruleNames(t)
		slices.Sort(names)
		if !slices.Equal(names, []string{"a", "ccc"}) {
			t.Errorf("stored are %v", names)
		}
		if _, held := s.claims.get(matches, 2); held || s.claims.empty() {
			t.Error("the claims are not those of the operations that succeeded")
		}
		// What the failed one was given is given to the next.
		if _, err := s.RuleIDs(t.Context(), outbox.RuleName{Name: "bb"}); err != nil {
			t.Error(err)
		}
		if got := s.ruleNames(t); !slices.Contains(got, "bb") || len(got) != 3 {
			t.Errorf("stored are %v", got)
		}
	})
}

// TestAllFail: when the disk is full, everybody whose operation was in the transaction is told, and nothing of it is left.
func TestAllFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openInside(t)
		defer s.Close()
		var pages int
		err := s.write(t.Context(), "limiting", func(w *writer) error {
			if err := w.each(`PRAGMA page_count`, func(scan scanner) error { return scan(&pages) }); err != nil {
				return err
			}
			_, err := w.exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+4))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var durable []string
		big := func(w *writer) error { return w.addTexts(map[outbox.Hash][]byte{{1}: make([]byte, 1<<20)}) }
		for i, err := range together(t, s, named("a", &durable, nil), big, named("ccc", &durable, nil)) {
			if err == nil || !strings.Contains(err.Error(), "the disk is full") {
				t.Errorf("operation %d: %v", i, err)
			}
		}
		if got := s.ruleNames(t); len(got) != 0 || len(durable) != 0 || !s.claims.empty() {
			t.Errorf("left are %v, durable %v", got, durable)
		}
		err = s.write(t.Context(), "growing", func(w *writer) error {
			_, err := w.exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+4000))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range together(t, s, named("a", &durable, nil), big, named("ccc", &durable, nil)) {
			if err != nil {
				t.Errorf("operation %d with a larger disk: %v", i, err)
			}
		}
	})
}

// TestContextEndsWhileWaiting: who gives up while the writer is busy gets the context's error, and nothing was done.
func TestContextEndsWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openInside(t)
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			err := s.write(t.Context(), "working", func(*writer) error {
				time.Sleep(2 * time.Second) // by the bubble's clock
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		_, err := s.RuleIDs(ctx, outbox.RuleName{Name: "late"})
		wg.Wait()
		if !errors.Is(err, context.DeadlineExceeded) || len(s.ruleNames(t)) != 0 {
			t.Errorf("the late one got %v; stored are %v", err, s.ruleNames(t))
		}
	})
}

// TestCloseAnswers: whoever the writer took is answered, whoever it did not take is told that the store is closed.
func TestCloseAnswers(t *testing.T) {
	t.Parallel()
	s := openInside(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ids, err := s.RuleIDs(context.Background(), outbox.RuleName{Name: fmt.Sprint(i)})
			if err == nil && ids[0] == 0 || err != nil && !errors.Is(err, errClosed) {
				t.Errorf("got %d, %v", ids, err)
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// TestPlans: no statement that runs often reads a table from end to end, and no list sorts what it could read in order.
func TestPlans(t *testing.T) {
	t.Parallel()
	s := openInside(t)
	defer s.Close()
	few := []int64{1, 2}
	list := func(f outbox.Filter) string {
		ids := newSearch("messages", &f, f.MessageStates)
		return listMessages + ` WHERE m.id IN (` + ids.text + `) ORDER BY m.id DESC` + ids.limit
	}
	act := func(a outbox.Action, f outbox.Filter) string {
		_, from := a.From()
		text, _ := chosen("messages", from[0], &f)
		return text
	}
	count := func(from outbox.MessageState, f outbox.Filter) string {
		text, _ := countOf("messages", from, &f)
		return text
	}
	for name, c := range map[string]struct{ query, spared string }{
		"due matches":             {selectLine[matches], "-"},
		"due messages":            {selectLine[messages], "-"},
		"lines of matches":        {selectLines[matches], "SCAN lines"},
		"lines of messages":       {selectLines[messages], "SCAN lines"},
		"blanking":                {blankFinal, "SCAN matches USING INDEX matches_blank"}, // holds only what is to be blanked
		"blanking one":            {blankOne, "-"},
		"blanking what expired":   {blankExpired, "SCAN transactions USING INDEX transactions_provisional"},
		"dropping what was shown": {dropShown, "SCAN json_each"},
		"outcomes":                {dropBody.text[8], "SCAN 8-ROW VALUES"},
		"starts":                  {startRows.text[8], "SCAN 8-ROW VALUES"},
		"attempts":                {attemptRows.text[8], "SCAN 8-ROW VALUES"},
		"begun":                   {countBegun[messages], "SCAN json_each"},
		"given up matches":        {giveUpMatches, "-"},
		"given up messages":       {giveUpMessages, "-"},
		"suspect matches":         {selectSuspects[matches], "-"},
		"suspect messages":        {selectSuspects[messages], "-"},
		"one match":               {selectMatches + ` WHERE m.id = ?`, "-"},
		"newest":                  {list(outbox.Filter{Limit: 50}), "SCAN m"}, // backwards, up to the limit
		"newest of states":        {list(outbox.Filter{Limit: 50, MessageStates: []outbox.MessageState{outbox.MessageSent, outbox.MessageDead}}), "SCAN (subquery"},
		"some":                    {list(outbox.Filter{Messages: few}), "SCAN json_each"},
		"some of a state":         {list(outbox.Filter{Messages: few, MessageStates: []outbox.MessageState{outbox.MessageSent}}), "SCAN json_each"},
		"queued ones of matches":  {list(outbox.Filter{Matches: few, MessageStates: []outbox.MessageState{outbox.MessageQueued}}), "SCAN json_each"},
		"cancel some that wait":   {act(outbox.Cancel, outbox.Filter{Messages: few}), "SCAN json_each"},
		"count the dead":          {count(outbox.MessageDead, outbox.Filter{Rules: []string{"a"}}), "SCAN json_each"},
		"retry all that are dead": {act(outbox.Retry, outbox.Filter{}), "-"},
		"a step of a cancel":      {messageMoves[outbox.Cancel].statement("messages", outbox.MessageQueued), "SCAN json_each"},
		"blanking some":           {blankThese, "SCAN json_each"},
		"blanking those of some":  {blankOf, "SCAN json_each"},
	} {
		plan, err := rows(s.reading(t.Context()), func(scan scanner) (detail string, err error) {
			var id, parent, unused int
			err = scan(&id, &parent, &unused, &detail)
			return detail, err
		}, "EXPLAIN QUERY PLAN "+c.query, make([]any, strings.Count(c.query, "?"))...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") && !strings.HasPrefix(step, c.spared) && !strings.Contains(step, "subquery") ||
				strings.Contains(step, "TEMP B-TREE") && !strings.Contains(c.query, "json_each") {
				t.Errorf("%s: %s\n%s", name, c.query, strings.Join(plan, "\n"))
			}
		}
	}
}

// TestPlanOfFailures: what monitoring asks for every few seconds reads what has failed or died, and nothing else, however much there is.
func TestPlanOfFailures(t *testing.T) {
	t.Parallel()
	s := openInside(t)
	defer s.Close()
	for _, query := range []string{selectFailures, selectDead} {
		plan, err := rows(s.reading(t.Context()), func(scan scanner) (detail string, err error) {
			var id, parent, unused int
			err = scan(&id, &parent, &unused, &detail)
			return detail, err
		}, "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatal(err)
		}
		steps := strings.Join(plan, "\n")
		if strings.Contains(steps, "SCAN matches") || strings.Contains(steps, "SCAN messages") || query == selectFailures && !strings.Contains(steps, "USING INDEX matches_state") || !strings.Contains(steps, "USING INDEX messages_state") {
			t.Errorf("it reads\n%s", steps)
		}
	}
}
