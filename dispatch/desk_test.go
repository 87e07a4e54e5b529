package dispatch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postman/outbox"
)

// TestSlowRules has look-ups of one rule, and then of another, that do not come back: further rules and high priority go on.
func TestSlowRules(t *testing.T) {
	t.Parallel()
	rule := func(name, condition string) string {
		return `
  - {name: ` + name + `, about: A., on: {table: meetings, ops: [insert]}, template: meeting,
     to: {query: "select email, name from staff where id = @new.staff_id and ` + condition + `"}}`
	}
	w := newWorld(t, setup{
		schema: crm, lookup: LookupOptions{Conns: 4, Timeout: time.Minute},
		rules: "rules:" + rule("stuck", "pg_advisory_xact_lock_shared(7) is not null") + rule("quick", "true"),
	})
	w.check(w.conn.QueryRow(t.Context(), "select pg_advisory_lock(7)").Scan(nil))
	add := func(rule string, p outbox.Priority, id string) {
		c := w.inserted(rule, `insert into meetings values (`+id+`, 'x', 1, now(), 1)`)
		c.tune = func(m *outbox.NewMatch) { m.Priority = p }
		w.take(c)
	}
	for i := range 9 {
		add("stuck", outbox.Normal, "1"+string(rune('0'+i)))
	}
	w.holds("as many look-ups wait as may", func() bool { return w.tasks.waiting() == 7 })
	for i := range 9 {
		add("quick", outbox.Normal, "2"+string(rune('0'+i)))
		w.mails(i + 1)
	}
	add("stuck", outbox.High, "30")
	w.holds("its rule has its share, high priority or not", func() bool { return w.tasks.waiting() == 8 })
	add("quick", outbox.High, "40")
	w.mails(10)
	w.check(w.conn.QueryRow(context.Background(), "select pg_advisory_unlock(7)").Scan(nil))
	w.mails(20)
	w.settled()
}

// TestDesk holds the shares of rules.
func TestDesk(t *testing.T) {
	t.Parallel()
	of := func(rule uint32, p outbox.Priority) *task {
		return &task{match: outbox.Match{Rule: rule, Priority: p}}
	}
	for _, test := range []struct {
		name   string
		places int
		tasks  []*task
		begin  int // of them
	}{
		{"one place is anybody's", 1, []*task{of(1, outbox.Bulk), of(1, outbox.High)}, 1},
		{"one rule gets half", 4, []*task{of(1, outbox.Normal), of(1, outbox.Normal), of(1, outbox.Normal)}, 2},
		{"a second one gets its share", 4, []*task{of(1, outbox.Normal), of(1, outbox.Normal), of(2, outbox.Normal), of(2, outbox.Normal)}, 3},
		{"the last is for high priority", 4, []*task{
			of(1, outbox.Normal), of(1, outbox.Normal), of(2, outbox.Normal), of(3, outbox.Normal), of(4, outbox.High), of(5, outbox.High),
		}, 4},
		{"not even of high priority does one rule take all", 4, []*task{of(1, outbox.High), of(1, outbox.High), of(1, outbox.High), of(1, outbox.High)}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			q := newDesk(test.places)
			var begun []*outbox.Match
			for _, task := range test.tasks { // as they come, the desk being asked after each
				q.push(task)
				if q.waitingMay() {
					got, _ := q.pop(t.Context())
					begun = append(begun, &got.match)
				}
			}
			if len(begun) != test.begin {
				t.Errorf("%d began, want %d", len(begun), test.begin)
			}
			for _, task := range test.tasks {
				q.done(task)
			}
			if q.busy != 0 || len(q.rules) != 0 {
				t.Errorf("%d places and %v are taken by nobody", q.busy, q.rules)
			}
		})
	}
}

// TestDeskWakes has one place that becomes free let two tasks begin.
func TestDeskWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		of := func(rule uint32) *task { return &task{match: outbox.Match{Rule: rule, Priority: outbox.Normal}} }
		q := newDesk(4)
		var busy []*task
		for _, rule := range []uint32{1, 2} {
			q.push(of(rule))
			got, _ := q.pop(t.Context())
			busy = append(busy, got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		for range 2 {
			workers.Go(func() { q.pop(ctx) })
		}
		synctest.Wait()
		q.push(of(2))
		q.push(of(1))
		synctest.Wait()
		if n := q.waiting(); n != 2 {
			t.Fatalf("%d wait beside one of each, of four places", n)
		}
		q.done(busy[0])
		synctest.Wait()
		if n := q.waiting(); n != 0 {
			t.Errorf("%d wait, and nobody was woken", n)
		}
		cancel()
		workers.Wait()
	})
}

// waitingMay says whether pop would not wait.
func (q *desk) waitingMay() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p, list := range q.items {
		for _, t := range list {
			if q.may(outbox.Priority(p), q.rules[t.ruleID()]) {
				return true
			}
		}
	}
	return false
}
