package daemon

import (
	"slices"

	"postman/cdc"
)

// hides says which columns of a table, as the stream tells it, are sensitive; nil: none. The files name tables and columns, and who renames
// one, or puts one in the place of another, does not make it less sensitive. So the table is known by its OID as well, also through a restart; of a table with a
// sensitive column all are taken for it that were not there when the rules were loaded, and one that stands where a sensitive one did; and
// all of them, where one was gone by then. Where what the files call sensitive is of a table that was not there, so is all of a table that
// nobody knows.
func (l *live) hides(t *cdc.Table) func(column string) bool {
	names := l.source.Sensitive(t.TableName)
	if was, ok := l.strays[t.OID]; ok {
		names = append(names, l.source.Sensitive(was)...)
	}
	was, _ := l.nameOf(t.OID)
	loaded := l.catalog.Tables[was]
	if loaded != nil {
		names = append(names, l.source.Sensitive(was)...)
	}
	every := func(string) bool { return true }
	switch {
	case len(names) == 0 && (loaded != nil || !l.lacksSensitive()):
		return nil
	case loaded == nil && (len(names) == 0 || lacks(t, names)), loaded != nil && lacks(t, names) && lacks(loaded, names):
		return every
	case loaded == nil:
		return func(column string) bool { return slices.Contains(names, column) }
	}
	return func(column string) bool {
		at := t.Column(column)
		return slices.Contains(names, column) || loaded.Column(column) < 0 ||
			at >= 0 && at < len(loaded.Columns) && slices.Contains(names, loaded.Columns[at].Name)
	}
}

// lacksSensitive says whether the files call something sensitive of a table that was not there when they were loaded.
func (l *live) lacksSensitive() bool {
	return slices.ContainsFunc(l.source.SensitiveTables(), func(name cdc.TableName) bool { return l.catalog.Tables[name] == nil })
}

func lacks(t *cdc.Table, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return t.Column(name) < 0 })
}
