package daemon

import (
	"testing"

	"postman/outbox"
)

// TestGapCommand: the status names a command that makes up for the gap, whatever LSNs other epochs have, where there is one.
func TestGapCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		gap  outbox.Gap
		want string
	}{
		"of one transaction": {outbox.Gap{Rule: "visit", From: 0x10, To: 0x10}, "postman replay --gap 7"},
		"of all rules":       {outbox.Gap{From: 0x10, To: 0x30, Reason: unreadReason}, "once a version can read them: postman replay --gap 7"},
		"open":               {outbox.Gap{Rule: "visit", From: 0x10}, "mend the rule or the table, then postman replay --gap 7"},
		"it stayed":          {outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Left: "no column"}, "postman replay --gap 7"},
		"lost":               {outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Lost: true}, ""},
		"made up":            {outbox.Gap{Rule: "visit", From: 0x10, To: 0x30, Replay: 1}, ""},
		"goes on, of all":    {outbox.Gap{From: 0x10, Lost: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.gap.ID = 7
			if got := viewGap(&test.gap).Mend; got != test.want {
				t.Errorf("got %q instead of %q", got, test.want)
			}
		})
	}
}
