package daemon

import (
	"slices"

	"postman/cdc"
)

// hides says which columns of a table, as the stream tells it, are sensitive; nil: none. The files name tables and columns, and who renames
// one does not make it less sensitive: the table is known by its OID, and where a sensitive column is not among its columns any more, all
// are taken for it that were not there when the rules were loaded; all there are, if it was gone by then.
func (l *live) hides(t *cdc.Table) func(column string) bool {
	names := l.source.Sensitive(t.TableName)
	var loaded *cdc.Table
	for _, known := range l.catalog.Tables {
		if known.OID == t.OID {
			loaded = known
			names = append(names, l.source.Sensitive(known.TableName)...)
		}
	}
	if len(names) == 0 {
		return nil
	}
	gone := func(t *cdc.Table) bool {
		return slices.ContainsFunc(names, func(name string) bool { return t.Column(name) < 0 })
	}
	renamed := gone(t)
	all := renamed && (loaded == nil || gone(loaded))
	return func(column string) bool {
		return slices.Contains(names, column) || all || renamed && loaded.Column(column) < 0
	}
}
