package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
)

// childEnv says what a test's child process does: one of children, with the store's path as its last argument.
const childEnv = "POSTMAN_SQLITE_TEST_CHILD"

var children = map[string]func(path string){"work": work, "starve": starve, "number": number}

// child starts this test binary over, as a process to be killed.
func child(t *testing.T, what, path string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], path)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// Transaction k of the workload ends at lsn k*100 and has 1 + k%3 matches; every seventh spills its first one. A match is
// expanded to 1 + id%2 messages. What is acknowledged is printed, one line each.
const span = 100

func width(k int) int { return 1 + k%3 }

func work(path string) {
	s, err := sqlite.Open(path, sqlite.Options{})
	check(err)
	ctx := context.Background()
	_, err = s.Recover(ctx, time.Now())
	check(err)
	ids, err := s.RuleIDs(ctx, outbox.RuleName{Name: "crash"})
	check(err)
	rule := ids[0]
	src, err := s.Source(ctx, "1", "crm", "postman")
	if err != nil {
		src, err = s.SaveSource(ctx, outbox.Source{SystemID: "1", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming})
		check(err)
	}
	matches := make(chan outbox.Match)
	go appending(ctx, s, src, rule, matches)
	for range 4 {
		go finishing(ctx, s, matches)
	}
	for { // what the last process left
		found, err := s.ClaimMatches(ctx, outbox.Claim{Now: time.Now(), Most: 3})
		check(err)
		for _, m := range found {
			matches <- m
		}
		messages, err := s.ClaimMessages(ctx, outbox.Claim{Now: time.Now(), Most: 3})
		check(err)
		for _, m := range messages {
			started, err := s.Start(ctx, []outbox.Start{{Message: m.ID}})
			check(err)
			if len(started) == 1 {
				finish(ctx, s, m)
			}
		}
	}
}

func appending(ctx context.Context, s outbox.Store, src outbox.Source, rule uint32, matches chan<- outbox.Match) {
	text := []byte("crash")
	texts := map[outbox.Hash][]byte{outbox.HashOf(text): text}
	for k := int(src.Checkpoint/span) + 1; ; {
		b := outbox.Batch{Source: src.ID, Epoch: 1, Texts: texts}
		first := k
		for range 1 + rand.IntN(3) {
			tx := outbox.Transaction{Tx: outbox.Tx{LSN: position.LSN(k*span - 50), End: position.LSN(k * span), XID: uint32(k), Time: time.Now()}}
			for i := range width(k) {
				tx.Matches = append(tx.Matches, outbox.NewMatch{Ordinal: uint64(i), Rule: rule, Version: outbox.HashOf(text), Op: "insert", Change: []byte("row")})
			}
			if k%7 == 0 {
				key := outbox.Spill{Source: src.ID, Epoch: 1, XID: tx.XID}
				check(s.Spill(ctx, key, outbox.Provisional{Matches: tx.Matches[:1], Texts: texts}))
				tx.Matches, tx.Spilled = tx.Matches[1:], &key
			}
			b.Transactions, b.Checkpoint = append(b.Transactions, tx), tx.End
			k++
		}
		claimed, err := s.Append(ctx, b, 100)
		check(err)
		for i := first; i < k; i++ {
			acknowledge("committed %d", i)
		}
		for _, m := range claimed {
			matches <- m
		}
	}
}

func finishing(ctx context.Context, s outbox.Store, matches <-chan outbox.Match) {
	for m := range matches {
		e := outbox.Expansion{Match: m.ID, State: outbox.MatchExpanded}
		for i := range 1 + m.ID%2 {
			e.Messages = append(e.Messages, outbox.NewMessage{
				Address: fmt.Sprint(i), State: outbox.MessageSending, MessageID: fmt.Sprintf("<%d.%d@x>", m.ID, i), Body: []byte("mail"),
			})
		}
		sending, err := s.Expand(ctx, e)
		check(err)
		acknowledge("expanded %d", m.ID)
		for _, g := range sending {
			finish(ctx, s, g)
		}
	}
}

func finish(ctx context.Context, s outbox.Store, m outbox.Message) {
	state := outbox.MessageSent
	switch rand.IntN(8) {
	case 0:
		state = outbox.MessageDead
	case 1:
		state = outbox.MessageQueued
	}
	check(s.Record(ctx, []outbox.Outcome{{Message: m.ID, State: state, Burned: true, Attempt: &outbox.Attempt{Started: time.Now(), Text: "250"}}}))
	acknowledge("%s %d", state, m.ID)
}

var printing sync.Mutex

// acknowledge prints in one write, which a kill does not cut.
func acknowledge(format string, args ...any) {
	printing.Lock()
	defer printing.Unlock()
	if _, err := fmt.Fprintf(os.Stdout, format+"\n", args...); err != nil {
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// TestKill kills a working store at random moments: all that was acknowledged is there, nothing is there twice, and the
// checkpoint is never ahead of the matches.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	said := make(map[string]map[int64]bool)
	for range 20 {
		cmd, out := child(t, "work", path)
		lines := bufio.NewScanner(out)
		n, enough := 0, rand.IntN(120)
		for lines.Scan() {
			verb, id := "", int64(0)
			if _, err := fmt.Sscan(lines.Text(), &verb, &id); err != nil {
				t.Fatalf("the child said %q", lines.Text())
			}
			if said[verb] == nil {
				said[verb] = make(map[int64]bool)
			}
			said[verb][id] = true
			if n++; n == enough+1 {
				time.Sleep(rand.N(2 * time.Millisecond))   // wherever it is then
				if err := cmd.Process.Kill(); err != nil { // SIGKILL; what it said before is still to be read
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		inspect(t, path, said)
	}
	for _, verb := range []string{"committed", "expanded", "sent", "dead", "queued"} {
		if len(said[verb]) == 0 {
			t.Errorf("nothing was ever %s: the test does not reach it", verb)
		}
	}
	drain(t, path)
}

// setOf is how many rules are numbered at once by number.
const setOf = 100

// number numbers set after set of rules.
func number(path string) {
	s, err := sqlite.Open(path, sqlite.Options{})
	check(err)
	for k := time.Now().UnixNano(); ; k++ {
		set := make([]outbox.RuleName, setOf)
		for i := range set {
			set[i].Name = fmt.Sprint(k, ".", i)
		}
		_, err := s.RuleIDs(context.Background(), set...)
		check(err)
		acknowledge("numbered %d", k)
	}
}

// TestKillNumbering kills a store that numbers sets of rules: each set is there as a whole or not at all, and those that were
// acknowledged are there.
func TestKillNumbering(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postman.db")
	said := make(map[int64]bool)
	for range 5 {
		cmd, out := child(t, "number", path)
		lines := bufio.NewScanner(out)
		for n, enough := 0, rand.IntN(10); lines.Scan(); n++ {
			var k int64
			if _, err := fmt.Sscanf(lines.Text(), "numbered %d", &k); err != nil {
				t.Fatalf("the child said %q", lines.Text())
			}
			if said[k] = true; n == enough {
				time.Sleep(rand.N(2 * time.Millisecond)) // wherever it is then
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		sets := ruleSets(t, path)
		for k, n := range sets {
			if n != setOf {
				t.Errorf("of set %d there are %d rules", k, n)
			}
		}
		for k := range said {
			if sets[k] == 0 {
				t.Errorf("set %d was acknowledged, and is not there", k)
			}
		}
	}
}

// ruleSets counts the stored rules of each set.
func ruleSets(t *testing.T, path string) map[int64]int {
	t.Helper()
	open(t, path).Close() // which brings the log in order
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT name FROM rules")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	sets := make(map[int64]int)
	for rows.Next() {
		var name string
		var k int64
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(name, "%d.", &k); err != nil {
			t.Fatal(err)
		}
		sets[k]++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return sets
}

// inspect compares a store that was killed with what it had acknowledged.
func inspect(t *testing.T, path string, said map[string]map[int64]bool) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	if got := pragma(t, path, "integrity_check"); got != "ok" {
		t.Fatalf("the integrity check says %s", got)
	}
	if _, err := s.Recover(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	sources, err := s.Sources(t.Context())
	if err != nil || len(sources) != 1 {
		t.Fatal(sources, err)
	}
	last := int(sources[0].Checkpoint / span)
	matches, err := s.Matches(t.Context(), outbox.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	counts, states := make(map[int]int), make(map[int64]outbox.MatchState)
	for _, m := range matches {
		counts[int(m.Tx.End/span)]++
		states[m.ID] = m.State
	}
	for k := 1; k <= last; k++ {
		if counts[k] != width(k) {
			t.Fatalf("transaction %d of %d has %d matches, not %d", k, last, counts[k], width(k))
		}
	}
	if len(counts) != last {
		t.Fatalf("there are matches of %d transactions, and the checkpoint stands at %d", len(counts), last)
	}
	for k := range said["committed"] {
		if int(k) > last {
			t.Fatalf("transaction %d was acknowledged, and the checkpoint stands at %d", k, last)
		}
	}
	for id := range said["expanded"] {
		if states[id] != outbox.MatchExpanded {
			t.Fatalf("match %d was expanded and is %s", id, states[id])
		}
	}
	inspectMessages(t, s, said, states)
}

func inspectMessages(t *testing.T, s *sqlite.Store, said map[string]map[int64]bool, states map[int64]outbox.MatchState) {
	t.Helper()
	messages, err := s.Messages(t.Context(), outbox.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	if messages, err = s.Messages(t.Context(), outbox.Filter{Messages: ids}); err != nil { // with their bodies
		t.Fatal(err)
	}
	perMatch := make(map[int64]int64)
	for _, m := range messages {
		perMatch[m.Match]++
		switch {
		case m.State == outbox.MessageSending:
			t.Fatalf("message %d is sending after the recovery", m.ID)
		case said["sent"][m.ID] && m.State != outbox.MessageSent, said["dead"][m.ID] && m.State != outbox.MessageDead:
			t.Fatalf("message %d came to an end and is %s", m.ID, m.State)
		case m.State == outbox.MessageQueued && (len(m.Body) == 0 || m.MessageID == ""):
			t.Fatalf("message %d is to be sent again without its bytes: %+v", m.ID, m)
		}
	}
	for id, state := range states {
		want := int64(0)
		if state == outbox.MatchExpanded {
			want = 1 + id%2
		}
		if perMatch[id] != want {
			t.Fatalf("match %d is %s and has %d messages", id, state, perMatch[id])
		}
	}
}

// drain finishes everything: nothing is stuck.
func drain(t *testing.T, path string) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	now := time.Now().Add(time.Hour)
	matches, err := s.ClaimMatches(t.Context(), outbox.Claim{Now: now, Most: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range matches {
		if _, err := s.Expand(t.Context(), outbox.Expansion{Match: m.ID, State: outbox.MatchNobody}); err != nil {
			t.Fatal(err)
		}
	}
	messages, err := s.ClaimMessages(t.Context(), outbox.Claim{Now: now, Most: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []outbox.Outcome
	for _, m := range messages {
		outcomes = append(outcomes, outbox.Outcome{Message: m.ID, State: outbox.MessageDead})
	}
	if err := s.Record(t.Context(), outcomes); err != nil {
		t.Fatal(err)
	}
	counts, err := s.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for state, n := range counts.Matches {
		if !state.Final() && n != 0 {
			t.Errorf("%d matches are %s in the end", n, state)
		}
	}
	for state, n := range counts.Messages {
		if !state.Final() && n != 0 {
			t.Errorf("%d messages are %s in the end", n, state)
		}
	}
	t.Log(strings.TrimPrefix(fmt.Sprint(counts), "{"))
}

// read reads the lines that a child prints until it ends.
func read(t *testing.T, out io.Reader) []string {
	t.Helper()
	all, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(all)), "\n")
}
