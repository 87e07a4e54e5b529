package daemon

import (
	"testing"

	"postman/cdc"
	"postman/rules"
)

// TestNamingAcrossEpochs: behind a gap of the whole stream another table may have an OID, which tells the same table of a former epoch only
// where that is known to have been published.
func TestNamingAcrossEpochs(t *testing.T) {
	t.Parallel()
	name := func(n string) cdc.TableName { return cdc.TableName{Schema: "public", Name: n} }
	table := func(n string, oid uint32) *cdc.Table { return &cdc.Table{TableName: name(n), OID: oid} }
	n := &naming{
		epoch: 2, catalog: &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{name("other"): table("other", 7), name("visits"): table("visits", 9), name("again"): table("again", 5)}},
		known: []publishedOp{
			{Table: name("visits"), Op: cdc.Insert, OID: 9, Epoch: 1, From: 1},
			{Table: name("again"), Op: cdc.Insert, OID: 7, Epoch: 2, From: 1, ToEpoch: 2, To: 5},
		},
	}
	for _, c := range []struct {
		table *cdc.Table
		epoch uint32
		want  cdc.TableName
	}{
		{table("visits_old", 9), 1, name("visits")},
		{table("orders", 7), 1, cdc.TableName{}},
		{table("orders", 7), 2, name("other")},
		{table("other", 7), 1, name("other")},
	} {
		if got := n.now(c.table, c.epoch); got != c.want {
			t.Errorf("%s of epoch %d is %s now; want %s", c.table.TableName, c.epoch, got, c.want)
		}
	}
	set := &rules.Set{Rules: []*rules.Rule{{Name: "again", On: rules.On{Table: name("again"), Ops: []cdc.Op{cdc.Insert}}}}}
	for epoch, want := range map[uint32]int{1: 0, 2: 1} {
		if got := n.lost(set, table("orders", 7), epoch); len(got) != want {
			t.Errorf("of epoch %d it is %+v", epoch, got)
		}
	}
	r := newRedecision(set, n, sees{verdict: nil})
	at := table("orders", 7)
	for epoch, want := range map[uint32]int{1: 0, 2: 1} {
		r.enter(epoch)
		if b, err := r.bind(at); err != nil || len(b.lost) != want {
			t.Errorf("in epoch %d it is bound to %+v (%v)", epoch, b, err)
		}
	}
}
