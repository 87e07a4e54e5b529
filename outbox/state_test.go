package outbox_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
)

// state is what both kinds of states can do.
type state[S any] interface {
	comparable
	fmt.Stringer
	CanBegin() bool
	CanBecome(S) bool
	Final() bool
}

// TestStatesPage compares docs/states.md with the code.
func TestStatesPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "\n## A match\n")
	matches, messages, ok2 := strings.Cut(rest, "\n## A message\n")
	messages, _, ok3 := strings.Cut(messages, "\n## ")
	if !ok || !ok2 || !ok3 {
		t.Fatal("the page has not the sections that it is to have")
	}
	compare(t, matches, outbox.MatchStates())
	compare(t, messages, outbox.MessageStates())
}

// row is a state as the table has it: whether it can begin, and where it goes on to.
type row struct {
	Begins string
	Next   []string
}

func compare[S state[S]](t *testing.T, section string, states []S) {
	t.Helper()
	want, got := make(map[string]row), make(map[string]row)
	for _, s := range states {
		r := row{Begins: map[bool]string{true: "yes", false: "no"}[s.CanBegin()]}
		for _, next := range states {
			if s.CanBecome(next) {
				r.Next = append(r.Next, next.String())
			}
		}
		want[s.String()] = r
	}
	names := make(map[string]S)
	for _, s := range states {
		names[s.String()] = s
	}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if _, ok := names[strings.TrimSpace(cells[0])]; !ok || len(cells) != 5 {
			continue
		}
		r := row{Begins: strings.TrimSpace(cells[2])}
		for _, s := range states { // in the order of the states
			for next := range strings.SplitSeq(cells[3], ",") {
				if strings.TrimSpace(next) == s.String() {
					r.Next = append(r.Next, s.String())
				}
			}
		}
		got[strings.TrimSpace(cells[0])] = r
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the code (-) and the table (+) of docs/states.md:\n%s", diff)
	}
	arrows(t, section, names)
}

// arrows checks that the diagram shows every step that can happen, and nothing else. It may leave out that something begins
// in a final state.
func arrows[S state[S]](t *testing.T, section string, names map[string]S) {
	t.Helper()
	drawn := make(map[[2]string]bool)
	for line := range strings.Lines(section) {
		arrow, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if from, to, ok := strings.Cut(strings.ReplaceAll(arrow, "_", "-"), " --> "); ok {
			drawn[[2]string{from, to}] = true
		}
	}
	for from, s := range names {
		if begins := drawn[[2]string{"[*]", from}]; begins && !s.CanBegin() || !begins && s.CanBegin() && !s.Final() {
			t.Errorf("the diagram says of %s that it begins: %v", from, begins)
		}
		for to, next := range names {
			if is := drawn[[2]string{from, to}]; is != s.CanBecome(next) {
				t.Errorf("the diagram says that %s becomes %s: %v", from, to, is)
			}
			delete(drawn, [2]string{from, to})
		}
		delete(drawn, [2]string{"[*]", from})
		delete(drawn, [2]string{from, "[*]"})
	}
	for arrow := range drawn {
		t.Errorf("the diagram has an arrow between no states: %s", arrow)
	}
}

// TestStateText: names go through text and back, and others are refused with those that there are.
func TestStateText(t *testing.T) {
	t.Parallel()
	for _, s := range outbox.MatchStates() {
		text, _ := s.MarshalText()
		var back outbox.MatchState
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s reads as %s (%v)", text, back, err)
		}
		if s.Final() == (s == outbox.MatchPending || s == outbox.MatchHeld) {
			t.Errorf("Final of %s is %v", s, s.Final())
		}
	}
	for _, s := range outbox.MessageStates() {
		text, _ := s.MarshalText()
		var back outbox.MessageState
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s reads as %s (%v)", text, back, err)
		}
		if s.Retryable() != (s == outbox.MessageDead || s == outbox.MessageFailed || s == outbox.MessageUncertain) {
			t.Errorf("Retryable of %s is %v", s, s.Retryable())
		}
	}
	var match outbox.MatchState
	if err := match.UnmarshalText([]byte("sent")); err == nil || !strings.Contains(err.Error(), "pending") {
		t.Errorf("a match that is sent: %v", err)
	}
	if got := outbox.MessageState(200).String(); got != "state 200" {
		t.Errorf("a state of the future is %q", got)
	}
}

// TestAddressKey: two spellings of an address are one recipient, and its key is for ever.
func TestAddressKey(t *testing.T) {
	t.Parallel()
	if outbox.AddressKey(" Kim@Example.COM\n") != outbox.AddressKey("kim@example.com") {
		t.Error("case and surrounding space make another recipient")
	}
	if outbox.AddressKey("kim@example.com") == outbox.AddressKey("kim@example.org") {
		t.Error("two addresses are one recipient")
	}
	const stored = "5d9a0087d4ccdb9bc50e88c471347911" // printf kim@example.com | sha256sum | cut -c1-32
	if got := fmt.Sprintf("%x", outbox.AddressKey("kim@example.com")); got != stored {
		t.Errorf("the key is %s: stores hold %s", got, stored)
	}
}
