package daemon

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
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
		current: &live{rules: set}, broken: newBreakages(), plans: make(map[uint32]*rules.Plan), mismatches: &mismatches,
		report: func(_ context.Context, err error, rule, class string) { told = class + " " + rule + ": " + err.Error() },
	}
	in.open.tx.Commit = 0x2A
	in.bind(table).OnMismatch(set.Rules[0], errors.New("the index says false"))
	if mismatches.Load() != 1 || !strings.HasPrefix(told, "index r: ") || !strings.Contains(told, "0/2A") {
		t.Errorf("%d mismatches, told %q", mismatches.Load(), told)
	}
}
