package rules

import (
	"fmt"
	"strings"
	"testing"

	"postman/cdc"
)

// BenchmarkIndex measures a change among many rules: one that matches none of them, one that matches one, and one that lies in
// the intervals of ten. The bench beside this module has more, with what to compare them with.
func BenchmarkIndex(b *testing.B) {
	const turns = 1024
	workloads := []struct {
		name   string
		rule   func(i int) string
		change func(i, n int) row
	}{
		{
			"none", func(i int) string {
				return fmt.Sprintf(`new.status == "s%d" and new.customer_id == %d and new.price > %d`, i%10, i/10, i)
			},
			func(i, n int) row { return row{"status": "s1", "customer_id": fmt.Sprint(n + i), "price": "125000.50"} },
		},
		{
			"one", func(i int) string {
				return fmt.Sprintf(`new.status == "s%d" and new.customer_id == %d and new.price > %d`, i%10, i/10, i)
			},
			func(i, n int) row {
				i = i * 7919 % n
				return row{"status": fmt.Sprint("s", i%10), "customer_id": fmt.Sprint(i / 10), "price": "125000.50"}
			},
		},
		{
			"ranges", func(i int) string { return fmt.Sprintf(`new.price >= %d and new.price < %d`, i, i+10) },
			func(i, n int) row { return row{"status": "s1", "price": fmt.Sprint(i*7919%n, ".50")} },
		},
	}
	for _, w := range workloads {
		for _, n := range []int{10, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", w.name, n), func(b *testing.B) {
				var text strings.Builder
				text.WriteString("rules:\n")
				for i := range n {
					fmt.Fprintf(&text, "  - {name: r%d, on: {table: schedules, ops: [update]}, when: '%s', to: new.note, template: x}\n", i, w.rule(i))
				}
				table := schedules()
				plan, err := compile(b, text.String()).Bind(table)
				if err != nil {
					b.Fatal(err)
				}
				var changes [turns]*cdc.Change
				for i := range changes {
					tuple := w.change(i, n).tuple(table)
					changes[i] = &cdc.Change{Op: cdc.Update, Table: table, New: tuple, Old: tuple}
				}
				i, matches := 0, 0
				b.ReportAllocs()
				for b.Loop() {
					plan.Match(testTx, changes[i%turns], func(*Rule, Verdict) { matches++ })
					i++
				}
				b.ReportMetric(float64(matches)/float64(i), "matches/op")
			})
		}
	}
}
