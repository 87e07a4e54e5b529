package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/daemon"
)

// The status lists the gaps that somebody has to see to, each with what it is and the way out, and counts the others.
func TestGapsInTheStatus(t *testing.T) {
	t.Parallel()
	gaps := []daemon.GapStatus{
		{ID: 7, From: "0/70", Lost: true, Reason: "the slot is gone"},
		{ID: 6, Rule: "visit", From: "0/60", To: "0/61", Lost: true, Count: 5, Reason: "undetermined: the stream did not carry old.note", Accept: "postman gaps accept 6 --reason TEXT"},
		{ID: 5, Rule: "visit", From: "0/50", To: "0/51", Count: 1, Reason: "the rule is broken: no column note", Stays: "2 changes came in a shape that it does not fit", Mend: "postman replay --gap 5", Accept: "postman gaps accept 5 --reason TEXT"},
		{ID: 4, Rule: "visit", From: "0/40", To: "0/41", Count: 2, Reason: "the rule is broken: no column note", Mend: "postman replay --gap 4"},
		{ID: 3, Rule: "visit", From: "0/30", To: "0/31", Reason: "the rule is broken", Replay: 2},
		{ID: 2, Rule: "visit", From: "0/20", To: "0/21", Reason: "the rule is broken", Replay: 1},
		{ID: 1, Rule: "visit", From: "0/10", To: "0/11", Reason: "the rule is broken", Accepted: &daemon.AcceptedGap{At: time.Unix(0, 0), By: "kim", Why: "told by phone"}},
	}
	var b strings.Builder
	printGaps(&b, gaps, false)
	want := `
gaps
  7  all rules  0/70 to …, lost: the slot is gone
     → nothing is streamed until you decide: ` + daemon.AcceptGapAdvice + `
  6  visit  0/60 to 0/61, lost, 5 changes: undetermined: the stream did not carry old.note
     → no replay brings it back: see to it by other means, then postman gaps accept 6 --reason TEXT
  5  visit  0/50 to 0/51: the rule is broken: no column note
     no replay makes up for it: 2 changes came in a shape that it does not fit
     → once that has changed: postman replay --gap 5
     → or see to it by other means, then postman gaps accept 5 --reason TEXT
  4  visit  0/40 to 0/41: the rule is broken: no column note
     → postman replay --gap 4
  2 were made up for, 1 was accepted (postman status --all)
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	printGaps(&b, gaps, true)
	for _, want := range []string{"\n     made up for by replay 2\n", "\n     accepted by kim, ", ": told by phone\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("all of them lack %q:\n%s", want, b.String())
		}
	}
}
