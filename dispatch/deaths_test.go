package dispatch

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// TestDeathsAreTold: the first at once, the others by their number a minute later, and at the end what is left.
func TestDeathsAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := deaths{log: slog.New(slog.NewTextHandler(&log, nil))}
		die := func(rule string, times int) {
			for range times {
				d.note(&outcome{outbox.Message{RuleName: rule}, outbox.Outcome{Reason: "550 5.3.0 no (at RCPT)", Attempt: &outbox.Attempt{Relay: "r:25"}}})
			}
		}
		told := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			d.mu.Lock() // it logs under it
			lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			log.Reset()
			d.mu.Unlock()
			if len(want) == 0 && lines[0] == "" {
				return
			}
			if len(lines) != len(want) {
				t.Fatalf("%s: %q", when, lines)
			}
			for i, line := range lines {
				if !strings.Contains(line, want[i]) || !strings.Contains(line, "level=WARN") || !strings.Contains(line, `reason="550 5.3.0 no (at RCPT)"`) {
					t.Errorf("%s: %s, want %s", when, line, want[i])
				}
			}
		}
		die("order", 43)
		told("at once", "mails=1 rule=order relay=r:25")
		die("other", 1)
		told("of another rule", "mails=1 rule=other")
		time.Sleep(betweenDeaths)
		told("a minute later", "mails=42 rule=order")
		die("order", 2)
		told("within the next minute")
		time.Sleep(betweenDeaths)
		told("behind it", "mails=2 rule=order")
		time.Sleep(2 * betweenDeaths)
		die("order", 3)
		told("after a pause", "mails=1 rule=order")
		d.end()
		told("at the end", "mails=2 rule=order")
	})
}

// TestARelayThatRefusesAll: its first refusals may be their recipients' fault; ten in a row are trouble, until it takes one. What it refuses by a policy
// is trouble from the second in a row on, and stays so when it can be connected to again.
func TestARelayThatRefusesAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reply    string
		before   int // refusals that are none yet
		refusals int
	}{
		"everything":  {"550 5.3.0 mail system not available", 9, 10},
		"by a policy": {"554 5.7.1 you are not verified", 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := scripted(t, smtptest.NewFake(smtptest.Script{}), nil)
			trouble := func() string {
				var s RelayStatus
				d.gate().describe(&s)
				return s.Trouble()
			}
			say := func(r reply) {
				j := aJob("kim@example.com")
				j.via = d.transports[0]
				d.judge(t.Context(), j, r, time.Now())
			}
			code, text, _ := strings.Cut(c.reply, " ")
			refuse := func() { say(reply{phase: naming, code: must(strconv.Atoi(code)), text: text}) }
			for range c.before {
				refuse()
			}
			if got := trouble(); got != "" {
				t.Errorf("after %d refusals: %q", c.before, got)
			}
			refuse()
			d.gate().probing()
			if got := trouble(); !strings.Contains(got, "took none of the last") || !strings.Contains(got, c.reply) {
				t.Errorf("after %d refusals: %q", c.refusals, got)
			}
			say(reply{phase: dotted, code: 250, text: "2.0.0 ok"})
			if got := trouble(); got != "" {
				t.Errorf("once it took one: %q", got)
			}
		})
	}
}
