package daemon

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/position"
	"postman/rules"
	"postman/value"
)

// What the index of the rules gets wrong is counted, and told with the rule and the position.
func TestMismatchIsTold(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/rules.yaml"
	write(t, file, "rules:\n  - {name: r, on: {table: t, ops: [insert]}, when: new.n == 1, to: {address: a@example.com}, template: t}\n")
	source, err := rules.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	table := &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: "t"}, OID: 1, Identity: cdc.IdentityDefault, Columns: []cdc.Column{
		{Column: value.Column{Name: "n", Type: value.Type{OID: pgtype.Int4OID, Base: pgtype.Int4OID, Name: "integer"}}},
	}}
	set, err := rules.Compile(source, &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{table.TableName: table}})
	if err != nil {
		t.Fatal(err)
	}
	var mismatches atomic.Int64
	var told string
	in := &intake{
		current: &live{rules: set}, broken: newBreakages(), mismatches: &mismatches,
		report: func(_ context.Context, err error, rule, class string) { told = class + " " + rule + ": " + err.Error() },
	}
	in.open = &transaction{tx: cdc.Tx{Commit: 0x2A}, set: in.current, plans: make(map[*cdc.Table]bound)}
	in.bind(table).plan.OnMismatch(set.Rules[0], errors.New("the index says false"))
	if mismatches.Load() != 1 || !strings.HasPrefix(told, "index r: ") || !strings.Contains(told, "0/2A") {
		t.Errorf("%d mismatches, told %q", mismatches.Load(), told)
	}
}

// What the catalog bears is off the list only once the stream has passed it, and has not missed anything since.
func TestBreakagesPass(t *testing.T) {
	t.Parallel()
	bs := newBreakages()
	bs.breaks(breakage{rule: "r", from: 10, by: byStream})
	passed := func(at position.LSN) (n int, waiting bool) {
		mended, waiting := bs.passed(at)
		return len(mended), waiting
	}
	if n, waiting := passed(100); n != 0 || waiting {
		t.Errorf("%d passed, waiting %v; nobody has looked", n, waiting)
	}
	bs.soundFrom("r", 50)
	if n, waiting := passed(49); n != 0 || !waiting {
		t.Errorf("%d passed, waiting %v; the stream has not come so far", n, waiting)
	}
	bs.misses([]string{"r", "other"}, 60)
	if n, _ := passed(100); n != 0 {
		t.Error("the stream has brought a change past it since")
	}
	bs.soundFrom("r", 70)
	bs.breaks(breakage{rule: "r", from: 80, by: byCatalog})
	if n, _ := passed(100); n != 0 {
		t.Error("it was broken again since")
	}
	bs.soundFrom("r", 90)
	if n, _ := passed(90); n != 1 || len(bs.list()) != 0 {
		t.Error("it is whole again, and still on the list")
	}
}
