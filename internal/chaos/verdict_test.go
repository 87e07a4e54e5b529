package chaos

import (
	"bytes"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/internal/smtptest"
)

// verdict is what came of it.
type verdict struct {
	mails      int
	lost       []int64  // changes without a mail
	invented   []int64  // changes that are mailed and were not due
	wrong      []string // mails to somebody else, copies with another Message-ID, a Message-ID of two changes, unreadable mails
	duplicates int      // mails beyond the first of a change
	unforced   []string // duplicates without a failure between the first copy and the second
}

// copies are the mails of one change.
type copies struct {
	ids []string
	at  []time.Time
}

// judge compares the mails with what was due (address by change), given what failed.
func judge(due map[int64]string, mails []smtptest.Mail, failures []failure) (v verdict) {
	v.mails = len(mails)
	came, owner := make(map[int64]*copies), make(map[string]int64)
	for i := range mails {
		change, id, err := read(&mails[i])
		if err != nil {
			v.wrong = append(v.wrong, err.Error())
			continue
		}
		if c, taken := owner[id]; taken && c != change {
			v.wrong = append(v.wrong, fmt.Sprintf("changes %d and %d share the Message-ID %s", c, change, id))
		}
		owner[id] = change
		if to, ok := due[change]; ok && !slices.Equal(mails[i].To, []string{to}) {
			v.wrong = append(v.wrong, fmt.Sprintf("change %d went to %v, not to %s", change, mails[i].To, to))
		}
		c := came[change]
		if c == nil {
			c = new(copies)
			came[change] = c
		}
		c.ids, c.at = append(c.ids, id), append(c.at, mails[i].Time)
	}
	for _, change := range slices.Sorted(maps.Keys(came)) {
		if _, ok := due[change]; !ok {
			v.invented = append(v.invented, change)
		}
		v.duplicate(change, came[change], failures)
	}
	for _, change := range slices.Sorted(maps.Keys(due)) {
		if came[change] == nil {
			v.lost = append(v.lost, change)
		}
	}
	return v
}

// failure is what can explain a duplicate: its first copy came before the failure, or a little after, where a mail may lie
// between a daemon that has died and the server that reads its dot; and its second copy came later.
type failure struct {
	at    time.Time
	grace time.Duration
}

func (f failure) between(first, second time.Time) bool {
	return !f.at.Add(f.grace).Before(first) && f.at.Before(second)
}

// clock is how the times of copies are told.
const clock = "15:04:05.000"

// duplicate looks at a change's copies.
func (v *verdict) duplicate(change int64, c *copies, failures []failure) {
	for i := 1; i < len(c.ids); i++ {
		v.duplicates++
		if c.ids[i] != c.ids[0] {
			v.wrong = append(v.wrong, fmt.Sprintf("change %d came as %s and as %s", change, c.ids[0], c.ids[i]))
		}
		forced := slices.ContainsFunc(failures, func(f failure) bool { return f.between(c.at[i-1], c.at[i]) })
		if !forced {
			v.unforced = append(v.unforced, fmt.Sprintf("%d, at %s and %s", change, c.at[i-1].Format(clock), c.at[i].Format(clock)))
		}
	}
}

// read finds the change that a mail tells, and the mail's Message-ID.
func read(m *smtptest.Mail) (change int64, id string, err error) {
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		return 0, "", fmt.Errorf("a mail to %v: %w", m.To, err)
	}
	number, ok := strings.CutPrefix(parsed.Header.Get("Subject"), "change ")
	if change, err = strconv.ParseInt(number, 10, 64); !ok || err != nil {
		return 0, "", fmt.Errorf("a mail to %v with the subject %q", m.To, parsed.Header.Get("Subject"))
	}
	if id = parsed.Header.Get("Message-Id"); id == "" {
		return 0, "", fmt.Errorf("the mail of change %d has no Message-ID", change)
	}
	return change, id, nil
}

// check fails the test for all that must not be.
func (v *verdict) check(t *testing.T, app *application) {
	t.Helper()
	if len(v.lost) > 0 {
		t.Errorf("%d mails are lost, of the changes %v", len(v.lost), first(v.lost))
	}
	for _, change := range first(v.invented) {
		why := "which nobody made"
		switch {
		case app.rolledBack[change]:
			why = "which was rolled back"
		case app.unmatched[change]:
			why = "which no rule matches"
		case change <= app.changes.Load():
			why = "which was not committed"
		}
		t.Errorf("one of %d invented mails: of change %d, %s", len(v.invented), change, why)
	}
	for _, what := range first(v.wrong) {
		t.Errorf("one of %d wrong mails: %s", len(v.wrong), what)
	}
	if len(v.unforced) > 0 {
		t.Errorf("%d mails came twice though nothing had failed: of the changes %v", len(v.unforced), first(v.unforced))
	}
}

// first keeps what is printed short.
func first[T any](all []T) []T { return all[:min(10, len(all))] }

func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	mailOf := func(change, second int, to, id string) smtptest.Mail {
		return smtptest.Mail{To: []string{to}, Time: at(second), Data: fmt.Appendf(nil, "Subject: change %d\r\nMessage-ID: <%s>\r\n\r\nhello\r\n", change, id)}
	}
	due := map[int64]string{1: "a@x", 2: "b@x"}
	for name, test := range map[string]struct {
		mails    []smtptest.Mail
		failures []failure
		want     verdict
	}{
		"all well": {
			mails: []smtptest.Mail{mailOf(2, 1, "b@x", "two"), mailOf(1, 2, "a@x", "one")},
			want:  verdict{mails: 2},
		},
		"one lost, one invented": {
			mails: []smtptest.Mail{mailOf(1, 1, "a@x", "one"), mailOf(3, 2, "a@x", "three")},
			want:  verdict{mails: 2, lost: []int64{2}, invented: []int64{3}},
		},
		"a forced duplicate": {
			mails:    []smtptest.Mail{mailOf(1, 1, "a@x", "one"), mailOf(1, 5, "a@x", "one"), mailOf(2, 6, "b@x", "two")},
			failures: []failure{{at(3), 0}},
			want:     verdict{mails: 3, duplicates: 1},
		},
		"a duplicate that lay on its way": {
			mails:    []smtptest.Mail{mailOf(1, 4, "a@x", "one"), mailOf(1, 5, "a@x", "one"), mailOf(2, 6, "b@x", "two")},
			failures: []failure{{at(3), time.Second}},
			want:     verdict{mails: 3, duplicates: 1},
		},
		"the failure was before": {
			mails:    []smtptest.Mail{mailOf(1, 5, "a@x", "one"), mailOf(1, 6, "a@x", "one"), mailOf(2, 7, "b@x", "two")},
			failures: []failure{{at(4), 0}, {at(3), time.Second}},
			want:     verdict{mails: 3, duplicates: 1, unforced: []string{"1, at 00:00:05.000 and 00:00:06.000"}},
		},
		"another Message-ID": {
			mails:    []smtptest.Mail{mailOf(1, 1, "a@x", "one"), mailOf(1, 5, "a@x", "uno"), mailOf(2, 6, "b@x", "two")},
			failures: []failure{{at(3), 0}},
			want:     verdict{mails: 3, duplicates: 1, wrong: []string{"change 1 came as <one> and as <uno>"}},
		},
		"a Message-ID twice, the wrong person, no change": {
			mails: []smtptest.Mail{mailOf(1, 1, "a@x", "one"), mailOf(2, 2, "a@x", "one"), {To: []string{"c@x"}, Data: []byte("Subject: hello\r\n\r\n")}},
			want: verdict{mails: 3, wrong: []string{
				"changes 1 and 2 share the Message-ID <one>", "change 2 went to [a@x], not to b@x", `a mail to [c@x] with the subject "hello"`,
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, judge(due, test.mails, test.failures), cmp.AllowUnexported(verdict{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
