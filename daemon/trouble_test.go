package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"postman/outbox"
)

// What is missed is trouble, in the status and in /healthz, with the rule, the cause and the steps out, until it is seen to; and nobody is
// unhealthy for it.
func TestWhatIsMissedIsTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode, w.also = "dry-run", new(notebook)
	w.blind = true // the trouble that the test makes up is not to be looked into
	d := w.start()
	var trouble func() string
	trouble = func() string {
		t.Helper()
		before := strings.Join(d.Status().Trouble, "\n")
		code, healthy, text := w.healthz(d)
		s := d.Status()
		if after := strings.Join(s.Trouble, "\n"); before != after {
			return trouble() // it changed in between
		}
		if code != http.StatusOK || !healthy || !s.Healthy || before != text {
			t.Errorf("healthz says %d, %v %q, and the status %v %q", code, healthy, text, s.Healthy, s.Trouble)
		}
		return text
	}
	has := func(when string, want ...string) {
		t.Helper()
		got := trouble()
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q; want %q", when, got, text)
			}
		}
	}
	w.eventually("the stream is connected", func() bool { return d.Status().Healthy })

	w.sql(`alter table staff rename column email to mail`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.matches(d, 1, outbox.MatchFailed)
	has("a query that fails", "rule visit: 1 match failed: ", `column "email" does not exist`, "postman outbox retry --rule visit --state failed", "postman outbox discard --rule visit --state failed")
	if n := w.also.(*notebook).count("it has failed for good: mend that, then postman outbox retry --rule visit --state failed"); n != 1 {
		t.Errorf("the log names the way out %d times", n)
	}
	w.sql(`alter table staff rename column mail to email`)
	if _, err := d.store.Act(t.Context(), outbox.Retry, outbox.Filter{Rules: []string{"visit"}, MatchStates: []outbox.MatchState{outbox.MatchFailed}}, "", d.started); err != nil {
		t.Fatal(err)
	}
	d.wake()
	w.messages(d, 1)
	w.eventually("nothing is wrong", func() bool { return trouble() == "" })

	w.sql(`alter table visits drop column note`, `insert into visits (kind, staff_id) values ('visit', 1)`) // which the template shows
	w.eventually("a message that failed", func() bool { return strings.Contains(trouble(), "1 message failed: ") })
	if _, err := d.store.Act(t.Context(), outbox.Discard, outbox.Filter{Rules: []string{"visit"}, MessageStates: []outbox.MessageState{outbox.MessageFailed}}, "told by phone", d.started); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is wrong", func() bool { return trouble() == "" })

	w.sql(`alter table visits rename column kind to sort`, `insert into visits (sort, staff_id) values ('visit', 1)`)
	w.eventually("the rule is broken", func() bool { return len(d.broken.list()) > 0 })
	has("a rule that is broken", "1 rule is broken, and mails are missed: visit")
	w.sql(`alter table visits rename column sort to kind`, `insert into visits (kind, staff_id) values ('visit', 1)`)
	w.eventually("it is whole again", func() bool {
		return d.look(t.Context()) == nil && gapOf(d, "visit").To != "" && len(d.broken.list()) == 0
	})
	gap := gapOf(d, "visit")
	has("a gap that nobody has made up for", fmt.Sprintf("gap %d of rule visit, %s to %s, is not made up for: ", gap.ID, gap.From, gap.To), gap.Mend)
	_, err := (&api{store: d.store}).accept(t.Context(), GapsAccepted{Gaps: []int64{gap.ID}, By: "kim", Why: "told by phone"})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is wrong", func() bool { return !strings.Contains(trouble(), "gap") })
	from := lsn(t, gap.From)
	if err := d.store.SaveGap(t.Context(), outbox.Gap{Source: d.source.ID, Epoch: d.source.Epoch, Rule: "gone", From: from, To: from + 1, Reason: brokenReason + "no column"}); err != nil {
		t.Fatal(err)
	}
	has("a gap whose rule is gone", "of rule gone", acceptCommand(gapOf(d, "gone").ID))
	if strings.Contains(trouble(), "postman replay") {
		t.Errorf("%s: a replay of a rule that is not there would be refused", trouble())
	}
	for _, part := range []string{"publications", "tidying the journal", "blanking sensitive values"} {
		d.setTrouble(part, errors.New("a DBA is asked for"))
		has("what is for people to see to", part+": a DBA is asked for")
		d.setTrouble(part, nil)
	}
	d.setTrouble("store", errDisk)
	if healthy, _ := d.health(t.Context()); healthy {
		t.Error("nothing can be stored, and it is healthy")
	}
	d.setTrouble("store", nil)
}
