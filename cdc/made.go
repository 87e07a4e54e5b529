package cdc

import "postman/value"

// MakeChange is a change between two rows of a table as the stream sends it: of the old row it has the columns of the replica
// identity, and for an update these only where one of them changed. A row that the operation does not have is not looked at.
func MakeChange(op Op, t *Table, now, then []value.Datum) *Change {
	c := &Change{Op: op, Table: t}
	if op == Insert || op == Update {
		c.New = MakeTuple(now)
	}
	if op != Update && op != Delete {
		return c
	}
	if t.Identity == IdentityFull {
		c.Old = MakeTuple(then)
		return c
	}
	key, moved := make([]value.Datum, len(then)), op == Delete
	for i := range then {
		if t.Columns[i].Key {
			key[i] = then[i]
			moved = moved || then[i].State != now[i].State || string(then[i].Text) != string(now[i].Text)
		}
	}
	if moved {
		c.Old, c.OldKey = MakeTuple(key), true
	}
	return c
}
