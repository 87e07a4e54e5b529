package rules

import (
	"slices"

	"postman/cdc"
)

// Rechecks says which columns have to be read again to try the condition on a row as it is now, for a match of an operation; or why that means
// nothing: the condition compares with what the row was, or there is no row. `op` and `commit_time` are the match's, and stay as they are.
func (r *Rule) Rechecks(op string) (columns []string, why string) {
	switch {
	case r.On.Message != "":
		return nil, "it is about a message, which nobody can read again"
	case op == cdc.Delete.String() || op == cdc.Truncate.String():
		return nil, "what was deleted cannot be read again"
	case r.When == nil:
		return nil, ""
	}
	for _, u := range r.When.tree.uses {
		if u.side == oldRow {
			return nil, "its when compares with the row as it was (old, changed)"
		}
		if !slices.Contains(columns, u.name) {
			columns = append(columns, u.name)
		}
	}
	return columns, ""
}
