package rules

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
)

// TestKeys holds what is told of how changes find a rule, by operation.
func TestKeys(t *testing.T) {
	t.Parallel()
	tests := []struct{ when, insert, update, delete string }{
		{`new.kind == "call"`, `new.kind == "call"`, `new.kind == "call"`, "never"},
		{`new.id == 5 and new.status == "x"`, `new.id == 5`, `new.id == 5`, "never"},
		{`new.status in ["b", "a", nil]`, `new.status == "a" | new.status == "b" | new.status == nil`, `new.status == "a" | new.status == "b" | new.status == nil`, "always"},
		{`op == "update" and new.price > 5.50`, "never", "new.price > 5.5", "never"},
		{`1 <= new.created_by < 10 and new.note != nil`, "1 <= new.created_by < 10", "1 <= new.created_by < 10", "never"},
		{`new.id in 1..9`, "1 <= new.id <= 9", "1 <= new.id <= 9", "never"},
		{`changed(new.status)`, "new.status != nil", "changed(new.status)", "old.status != nil"},
		{`old.status != new.status and new.status == "won"`, `new.status == "won"`, `new.status == "won"`, "never"},
		{`new.note startsWith "urgent"`, `new.note startsWith "urgent"`, `new.note startsWith "urgent"`, "never"},
		{`new.vacant`, "new.vacant", "new.vacant", "never"},
		{`new.vacant == false`, "not new.vacant", "not new.vacant", "never"},
		{`new.starts_at > date("2026-03-04T15:30:00.5+09:00")`, `new.starts_at > date("2026-03-04T06:30:00.5Z")`, `new.starts_at > date("2026-03-04T06:30:00.5Z")`, "never"},
		{`new.local_at <= date("1999-03-04T15:30:00")`, `new.local_at <= date("1999-03-04T15:30:00")`, `new.local_at <= date("1999-03-04T15:30:00")`, "never"},
		{`new.day == date("2026-03-04") or old.rate == 0.10`, `new.day == date("2026-03-04")`, `new.day == date("2026-03-04") | old.rate == 0.1`, `old.rate == 0.1`},
		{`new.id == 1 or new.note contains "x"`, "scan: contains", "scan: contains", "never"},
		{`new.status != "x"`, "scan: !=", "scan: !=", "always"},
		{`not (new.id > 5)`, "scan: not", "scan: not", "always"},
		{`lower(new.note) == "x"`, "scan: lower of a column", "scan: lower of a column", "never"},
		{`new.data.kind == "x"`, "scan: a part of JSON", "scan: a part of JSON", "never"},
		{`"vip" in new.tags or any(new.tags, # == "x")`, "scan: a list column or JSON behind in; any() of a list", "scan: a list column or JSON behind in; any() of a list", "never"},
		{`new.local_at == new.day`, "scan: two columns that are compared with each other", "scan: two columns that are compared with each other", "always"},
		{`new.note matches "^a"`, "scan: matches", "scan: matches", "never"},
		{`new.starts_at < commit_time`, "scan: commit_time", "scan: commit_time", "never"},
		{`op == "insert" ? new.id == 1 : old.id == 2`, "new.id == 1", "old.id == 2", "old.id == 2"},
		{`true`, "always", "always", "always"},
		{`old.price < 5`, "never", "old.price < 5", "old.price < 5"},
		{`xid == 5`, "scan: xid", "scan: xid", "scan: xid"},
		{`(new.status ?? "none") == "none"`, "scan: ??", "scan: ??", "always"},
	}
	for _, tt := range tests {
		t.Run(tt.when, func(t *testing.T) {
			t.Parallel()
			content := "rules:\n  - name: r\n    on: {table: schedules, ops: [insert, update, delete]}\n    when: |\n      " + tt.when + "\n    to: {address: a@example.com}\n    template: x\n"
			got := make(map[cdc.Op]string)
			for _, keys := range compile(t, content).Keys()[0].Ops {
				got[keys.Op] = shownKeys(keys)
			}
			if diff := cmp.Diff(map[cdc.Op]string{cdc.Insert: tt.insert, cdc.Update: tt.update, cdc.Delete: tt.delete}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// shownKeys checks that just one field is set, and shows it.
func shownKeys(k OpKeys) string {
	var set []string
	if len(k.Keys) > 0 {
		set = append(set, strings.Join(k.Keys, " | "))
	}
	if k.Scan != "" {
		set = append(set, "scan: "+k.Scan)
	}
	if k.Never {
		set = append(set, "never")
	}
	if k.Always {
		set = append(set, "always")
	}
	return strings.Join(set, " AND ")
}

// TestKeysOfMany holds that rules which share a key are told apart by a second one, and that messages are found by name.
func TestKeysOfMany(t *testing.T) {
	t.Parallel()
	var content strings.Builder
	content.WriteString("rules:\n  - {name: reset, on: {message: reset}, to: message.email, template: x}\n")
	for i := range 20 {
		fmt.Fprintf(&content, "  - {name: r%d, on: {table: schedules, ops: [insert]}, when: 'new.status == \"s%d\" and new.kind == \"%s\" and new.price > %d', to: new.note, template: x}\n",
			i, i%2, []string{"meeting", "viewing", "call"}[i%3], i)
	}
	keys := compile(t, content.String()).Keys()
	if got := shownKeys(keys[0].Ops[0]); got != "message reset" || keys[0].Ops[0].Op != cdc.Emit {
		t.Errorf("%+v", keys[0])
	}
	if got := shownKeys(keys[4].Ops[0]); got != `new.status == "s1" and new.kind == "meeting" and new.price > 3` {
		t.Errorf("%+v", keys[4])
	}
}
