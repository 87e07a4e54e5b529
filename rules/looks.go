package rules

import "slices"

// LooksAt lists the columns of its table that the rule's condition looks at, of the row as it is or as it was, each once. The rule was
// compiled, or revived.
func (r *Rule) LooksAt() (columns []string) {
	if r.When == nil {
		return nil
	}
	for _, u := range r.When.tree.uses {
		if !slices.Contains(columns, u.name) {
			columns = append(columns, u.name)
		}
	}
	return columns
}
