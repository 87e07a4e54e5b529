package rules

import (
	"fmt"
	"testing"

	"postman/cdc"
)

// BenchmarkMatch measures a change of a 18-column table on few rules, as the bulk load of the bench sends them.
func BenchmarkMatch(b *testing.B) {
	table := schedules()
	full := row{
		"id": "123456", "kind": "meeting", "status": "booked", "customer_id": "4711", "created_by": "12", "starts_at": "2026-03-04 15:30:00+00",
		"price": "125000.50", "note": "a note of some fifty letters, as people write them", "tags": "{a,b}", "data": `{"a": 1}`,
	}.tuple(table)
	tests := []struct {
		name  string
		rules []string
	}{
		{"text", []string{`new.status == "lost"`}},
		{"three texts", []string{`new.status == "lost"`, `new.status == "won" and new.price > 5`, `new.note contains "urgent"`}},
		{"number", []string{`new.price > 1000000`}},
		{"integer", []string{`new.customer_id == 5`}},
		{"moment", []string{`new.starts_at < commit_time`}},
		{"changed", []string{`changed(new.status)`}},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			s := new(Source)
			for i, when := range tt.rules {
				content := fmt.Sprintf("rules:\n  - name: r%d\n    on: {table: schedules, ops: [update]}\n    when: '%s'\n    to: new.note\n    template: x\n", i, when)
				if errs := s.add("bench.yaml", []byte(content)); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
			set, err := Compile(s, catalog())
			if err != nil {
				b.Fatal(err)
			}
			plan, err := set.Bind(table)
			if err != nil {
				b.Fatal(err)
			}
			c := &cdc.Change{Op: cdc.Update, Table: table, New: full, Old: full}
			b.ReportAllocs()
			for b.Loop() {
				plan.Match(testTx, c, func(*Rule, Verdict) {})
			}
		})
	}
}
