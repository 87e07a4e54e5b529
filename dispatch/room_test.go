package dispatch

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postman/internal/smtptest"
	"postman/outbox"
)

// slowDomain is a script by which each recipient at slow.example takes ten seconds, and the changes that cause mails to n of them.
func slowDomain(n int) (script smtptest.Script, changes []change) {
	script.Always = make(map[string]smtptest.Step)
	for i := range n {
		to := fmt.Sprintf("a%d@slow.example", i)
		script.Always["RCPT "+to] = smtptest.Step{Reply: "250 2.1.5 ok", Wait: 10 * time.Second}
		changes = append(changes, message("reset", reset(to)))
	}
	return script, changes
}

// TestOneDomainLeavesRoom: far more mails to a domain than there is room for wait before others, which flow all the same.
func TestOneDomainLeavesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const slow, quick = 250, 20
		script, changes := slowDomain(slow)
		for i := range quick {
			changes = append(changes, message("reset", reset(fmt.Sprintf("b%d@example.com", i))))
		}
		fake := smtptest.NewFake(smtptest.Script{Always: map[string]smtptest.Step{"CONNECT": smtptest.Drop}})
		w := newWorld(t, setup{fake: fake, tune: func(o *Options) { o.Relays[0].Limits = Limits{Connections: 4, PerDomain: 2} }})
		w.take(changes...) // so that all of them are in the queue
		w.eventually("all are queued", func() bool { return must(w.store.Count(t.Context())).Messages[outbox.MessageQueued] == slow+quick })
		fake.Play(script)
		sleep(t, mostPause+time.Minute)
		to := make(map[string]int)
		for _, m := range fake.Mails() {
			to[domainOf(m.To[0])]++
		}
		if to["example.com"] != quick || to["slow.example"] < 10 || to["slow.example"] > 20 {
			t.Errorf("after a minute: %v", to)
		}
		w.settled()
		if n := len(fake.Mails()); n != slow+quick {
			t.Errorf("%d mails", n)
		}
		if s := w.Status(); s.Messages != 0 {
			t.Errorf("%d are left in memory", s.Messages)
		}
	})
}

// TestOutsideInTrouble: what stays outside for its domain's sake goes another way when its relay is in trouble, and is given back when postman ends.
func TestOutsideInTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var relays []*smtptest.Fake
		script, changes := slowDomain(60)
		w := newWorld(t, setup{fake: smtptest.NewFake(smtptest.Script{}), stopped: true, tune: func(o *Options) {
			relays = fakes(t, o, script, smtptest.Script{})
			o.Relays[0].Limits = Limits{Connections: 4, PerDomain: 1}
		}})
		stop := w.run()
		w.take(changes...)
		sleep(t, time.Minute)
		if n := w.transports[0].room.away; n < 30 {
			t.Errorf("%d are outside", n)
		}
		must(w.store.Act(t.Context(), outbox.Cancel, outbox.Filter{Address: "a59@slow.example"}, "", time.Now()))
		relays[0].Play(smtptest.Script{Always: map[string]smtptest.Step{"CONNECT": smtptest.Drop}})
		relays[0].Cut()
		sleep(t, time.Minute)
		if n := len(relays[1].Mails()); n < 50 || n > 54 {
			t.Errorf("%d over the other relay", n)
		}
		stop()
		if n := w.transports[0].room.away + w.transports[1].room.away; n != 0 {
			t.Errorf("%d stay outside", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		script, changes := slowDomain(50)
		w := newWorld(t, setup{fake: smtptest.NewFake(script), stopped: true, tune: func(o *Options) { o.Relays[0].Limits = Limits{Connections: 4, PerDomain: 1} }})
		stop := w.run()
		w.take(changes...)
		sleep(t, 15*time.Second)
		stop()
		queued := must(w.store.Count(t.Context())).Messages[outbox.MessageQueued]
		if ms := must(w.store.ClaimMessages(t.Context(), outbox.Claim{Now: time.Now().Add(time.Hour), Most: 100})); len(ms) != queued || queued < 45 {
			t.Errorf("%d of %d can be claimed", len(ms), queued)
		}
	})
}

// TestRoom compares the room with a list of what is where: nobody is lost, no domain has more than its share, and high priority is called first.
func TestRoom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type guest struct {
			id    int64
			p     outbox.Priority
			place string
		}
		share := rapid.IntRange(1, 4).Draw(t, "share")
		r := newRoom(share)
		var inside, outside []guest
		n := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n++
				g := guest{n, outbox.Priority(rapid.IntRange(0, 2).Draw(t, "priority")), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "place")}
				if r.take(g.id, g.p, g.place) {
					inside = append(inside, g)
				} else {
					outside = append(outside, g)
				}
			},
			"leave": func(t *rapid.T) {
				if len(inside) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(inside)-1).Draw(t, "who")
				g := inside[i]
				inside = slices.Delete(inside, i, i+1)
				if r.leave(g.p, g.place) && len(r.call()) == 0 {
					t.Fatal("nobody comes who is called")
				} else {
					outside = slices.DeleteFunc(outside, func(o guest) bool { return !has(&r, o.id) })
				}
			},
			"call": func(t *rapid.T) {
				for _, id := range r.call() {
					i := slices.IndexFunc(outside, func(g guest) bool { return g.id == id })
					g := outside[i]
					for _, o := range outside[:i] {
						if o.place == g.place && o.p <= g.p || o.place == g.place && o.p < g.p {
							t.Fatalf("%v is called before %v", g, o)
						}
					}
					r.enter(g.p, g.place)
					inside, outside = append(inside, g), slices.Delete(outside, i, i+1)
				}
			},
			"turn away": func(t *rapid.T) {
				p := outbox.Priority(rapid.IntRange(0, 2).Draw(t, "priority"))
				for _, id := range r.turnAway(func(q outbox.Priority) bool { return q == p }) {
					i := slices.IndexFunc(outside, func(g guest) bool { return g.id == id })
					if outside[i].p != p {
						t.Fatalf("%v is turned away", outside[i])
					}
					outside = slices.Delete(outside, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				places, high := make(map[string]int), 0
				for _, g := range inside {
					if places[g.place]++; g.p == outbox.High {
						high++
					}
				}
				for place, n := range places {
					if n > share || r.places[place] != n {
						t.Fatalf("%d to %s, of %d", n, place, share)
					}
				}
				if r.all != len(inside) || r.high != high || r.away != len(outside) || len(r.kept) > 0 != (len(outside) > 0) {
					t.Fatalf("%+v with %d inside, %d high, and %d outside", r, len(inside), high, len(outside))
				}
			},
		})
	})
}

// has says whether a number stays outside.
func has(r *room, id int64) bool {
	for _, waiting := range r.kept {
		for _, ids := range waiting {
			if slices.Contains(ids, id) {
				return true
			}
		}
	}
	return false
}
