package daemon

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"postman/cdc"
	"postman/outbox"
	"postman/value"
)

// moved says of an insert that it may be an update: one that moves a row to another partition arrives as a delete and, right behind it,
// an insert of the same table. Its key has the partition's columns, which have changed, so that the others tell. Empty: it is none, or
// the journal has neither any more.
func (e *explanation) moved(ctx context.Context, store outbox.Store) (string, error) {
	at := e.match.Position
	if e.table == nil || e.change == nil || e.change.Op != cdc.Insert || at.Ordinal == 0 {
		return "", nil
	}
	h := newHistory(store, outbox.Source{ID: at.Source, Epoch: at.Epoch})
	table := h.table(ctx)
	for tx, err := range h.read(ctx, at.LSN, at.LSN) {
		if err != nil {
			return "", err
		}
		for c, err := range tx.Changes(ctx, table) {
			if err != nil {
				return "", fmt.Errorf("reading the journal of %s: %w", tx.Commit, err)
			}
			if c.Ordinal != at.Ordinal-1 {
				continue
			}
			if c.Op != cdc.Delete || c.Err != nil || c.Table.OID != e.table.OID {
				return "", nil
			}
			if same := sameKey(c.Table, c.Old, e.change.New); len(same) > 0 {
				return fmt.Sprintf("right before it, the same transaction deleted a row of %s with the same %s: an update that moves a row to another partition arrives as a delete and an insert",
					e.table.TableName, strings.Join(same, " and ")), nil
			}
			return "", nil
		}
	}
	return "", nil
}

// sameKey are the columns of the key that two rows have in common.
func sameKey(t *cdc.Table, a, b cdc.Tuple) (same []string) {
	one, errOne := a.Datums(nil)
	other, errOther := b.Datums(nil)
	if errOne != nil || errOther != nil || len(one) != len(t.Columns) || len(other) != len(t.Columns) {
		return nil
	}
	for i := range t.Columns {
		if t.Columns[i].Key && one[i].State == value.Present && other[i].State == value.Present && bytes.Equal(one[i].Text, other[i].Text) {
			same = append(same, t.Columns[i].Name)
		}
	}
	return same
}
