package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postman/cdc"
	"postman/value"
)

// TestReadAgain, T5 of the acceptance list: a transaction in progress is spilled in part, its reader dies, and another one reads it again,
// in other parts, without what a savepoint rolled back meanwhile. What is stored is as if it had been read once. Of another transaction,
// which does not come again, nothing stays.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	const again, never = 7, 8
	tx := cdc.Tx{XID: again, Commit: 10, End: 15, Time: time.Unix(1_700_000_000, 0).UTC()}
	last := cdc.Tx{XID: 9, Commit: 20, End: 25, Time: tx.Time}
	whole := newReading(t, t.TempDir()+"/whole", streamSet(t))
	whole.must(whole.in.Begin(cdc.Tx{XID: tx.XID, Commit: tx.Commit, Time: tx.Time}))
	whole.changes(0, "many many many few none many")
	whole.must(whole.in.Commit(tx))
	once := whole.finish(1, last)
	for name, next := range map[string]func(t *testing.T, dir string, first *reading) *reading{
		"the connection broke": func(_ *testing.T, _ string, first *reading) *reading {
			first.must(first.in.Restart())
			return first
		},
		"the process was killed": func(t *testing.T, dir string, first *reading) *reading {
			first.end()
			first.must(first.store.Close())
			store := openStore(t, dir)
			if got, err := store.Recover(t.Context(), time.Now()); err != nil || got.Discarded != 10 {
				t.Fatalf("recovering discarded %+v (%v); want the 10 matches of both transactions", got, err)
			}
			return readInto(t, store, first.in.source, streamSet(t))
		},
		// Nobody took back what the first one spilled: it goes when the transaction is spilled again.
		"another reader": func(t *testing.T, _ string, first *reading) *reading {
			first.must(first.in.Rollback(never, 0))
			first.end()
			return readInto(t, first.store, first.in.source, streamSet(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/parts"
			first := newReading(t, dir, streamSet(t))
			first.stream(never, 0, "many many")
			first.stream(again, 0, "many many many few")
			first.stream(again, 4, "many few") // in a savepoint

			second := next(t, dir, first)
			second.stream(again, 0, "many many many")
			second.stream(again, 3, "few none many")
			second.must(second.in.Stream(again))
			second.must(second.in.Commit(tx))
			if diff := differences(once, second.finish(1, last)); diff != "" {
				t.Errorf("read once (-), and again (+): %s", diff)
			}
			second.end()
			if left, err := second.store.Recover(t.Context(), time.Now()); err != nil || left.Discarded != 0 {
				t.Errorf("there was left %+v (%v)", left, err)
			}
		})
	}
}

// stream reads a part of a transaction in progress, and spills it.
func (r *reading) stream(xid uint32, first uint64, kinds string) {
	r.must(r.in.Stream(xid))
	r.changes(first, kinds)
	r.must(r.in.spillAll(r.in.streams[xid]))
}

// changes reads a new row of each kind into the open transaction.
func (r *reading) changes(first uint64, kinds string) {
	for i, kind := range strings.Fields(kinds) {
		text := func(s string) value.Datum { return value.Datum{State: value.Present, Text: []byte(s)} }
		ordinal := first + uint64(i)
		row := cdc.MakeTuple([]value.Datum{text(fmt.Sprint(ordinal)), text(kind), text("secret")})
		r.must(r.in.Change(&cdc.Change{Op: cdc.Insert, Table: streamTable, Ordinal: ordinal, New: row}))
	}
}
