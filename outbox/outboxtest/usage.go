package outboxtest

import (
	"errors"
	"time"

	"postman/outbox"
)

// testUsage: what a relay took counts once, in the month in which it did, also for the next process.
func testUsage(r *rig) {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	through := func(relay string, started time.Time, took time.Duration) *outbox.Attempt {
		return &outbox.Attempt{Relay: relay, Started: started, Took: took, Code: 250}
	}
	usage := func(at time.Time, want map[string]int64) {
		r.Helper()
		got, err := r.store.Usage(r.Context(), at)
		r.ok(err)
		r.equal("in "+at.Format(time.RFC3339), got, want)
	}
	usage(march, nil)
	all := r.queue(8)
	for _, id := range all {
		_, err := r.store.Start(r.Context(), []outbox.Start{{Message: id}})
		r.ok(err)
	}
	sent := func(i int, a *outbox.Attempt) outbox.Outcome {
		return outbox.Outcome{Message: all[i], State: outbox.MessageSent, Attempt: a}
	}
	r.record(
		sent(0, through("ses", march, 0)), sent(1, through("ses", march.Add(-time.Second), 0)), sent(2, through("ses", march.Add(-time.Second), 2*time.Second)),
		sent(3, through("mailjet", march.Add(30*24*time.Hour), time.Second)), sent(4, nil),
		outbox.Outcome{Message: all[5], State: outbox.MessageDead, Attempt: through("ses", march, 0)},
		outbox.Outcome{Message: all[6], State: outbox.MessageQueued, Due: past, Attempt: through("ses", march, 0)},
	)
	r.record(sent(7, through("ses", march, 0)))
	if err := r.store.Record(r.Context(), []outbox.Outcome{sent(7, through("ses", march, 0))}); !errors.Is(err, outbox.ErrState) {
		r.Errorf("an outcome that comes twice gave %v", err)
	}
	for range 2 {
		usage(march.Add(-time.Nanosecond), map[string]int64{"ses": 1})
		usage(march, map[string]int64{"ses": 3, "mailjet": 1})
		usage(march.In(time.FixedZone("", -3600)), map[string]int64{"ses": 3, "mailjet": 1}) // it is February there
		usage(march.AddDate(0, 1, 0), nil)
		r.reopen()
	}
}
