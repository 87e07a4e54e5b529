package daemon

import (
	"testing"
	"time"

	"postman/outbox"
)

// TestGapCommand: the status names a command that covers the whole gap, also one that has taken more in since the command was stored.
func TestGapCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		gap  outbox.Gap
		want string
	}{
		"of one transaction": {
			outbox.Gap{Rule: "visit", From: 0x10, To: 0x10, Mend: replayCommand("visit", 0x10, 0x10)}, "postman replay --rule visit --from 0/10 --to 0/10",
		},
		"of several": {
			outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Mend: replayCommand("visit", 0x10, 0x10)}, "postman replay --rule visit --from 0/10 --to 0/30",
		},
		"of all rules": {
			outbox.Gap{From: 0x10, To: 0x30, Mend: "once a version can read them: postman replay --from 0/10 --to 0/10"},
			"once a version can read them: postman replay --from 0/10 --to 0/30",
		},
		"open": {
			outbox.Gap{Rule: "visit", From: 0x10, Mend: "mend the rule or the table, then postman replay --rule visit --from 0/10"},
			"mend the rule or the table, then postman replay --rule visit --from 0/10",
		},
		"of a rule that decides again": {
			outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Closed: time.Unix(1, 0), Mend: "mend the rule or the table, then postman replay --rule visit --from 0/10"},
			"postman replay --rule visit --from 0/10 --to 0/30",
		},
		"lost":    {outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Lost: true, Mend: replayCommand("visit", 0x10, 0)}, ""},
		"made up": {outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Replay: 1, Mend: replayCommand("visit", 0x10, 0)}, ""},
		"no way":  {outbox.Gap{From: 0x10, To: 0x30}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := viewGap(&test.gap).Mend; got != test.want {
				t.Errorf("got %q instead of %q", got, test.want)
			}
		})
	}
}
