package main

import (
	"strings"
	"testing"
	"time"

	"postman/daemon"
	"postman/dispatch"
	"postman/outbox"
)

// TestStatusTellsOfTheDead: mails that died are told where everybody looks, and the relay's refusals stay until it takes one.
func TestStatusTellsOfTheDead(t *testing.T) {
	t.Parallel()
	refuses := daemon.Relay{Address: "mx:25", State: dispatch.RelayProbing, Refused: 2, Refusal: "554 5.7.1 not verified (at RCPT)"}
	s := daemon.Status{
		Running: true, Healthy: true, Dead: &outbox.Dead{Messages: 1043, Rule: "order-placed", Reason: "550 5.3.0 no (at RCPT)", Last: time.Now()},
		Relay: daemon.RelayStatus{Status: dispatch.Status{RelayStatus: refuses}}, Relays: []daemon.Relay{refuses},
	}
	var w strings.Builder
	printStatus(&w, &s, false)
	for _, want := range []string{
		"  ! 1,043 mails died in the last 24 hours, the latest of rule order-placed at ", ": 550 5.3.0 no (at RCPT)\n    → postman outbox list --state dead\n",
		"refused the last 2 mails: 554 5.7.1 not verified (at RCPT)",
	} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("there is no %q in\n%s", want, w.String())
		}
	}
}
