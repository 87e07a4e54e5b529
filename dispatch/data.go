package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"postman/rules"
	"postman/templates"
	"postman/value"
)

// loaded is what the rule's `load` queries gave, by name: map[string]any or []map[string]any.
type loaded map[string]any

// load decodes the answer to a `load` query: its first row, which is one of NULLs where there is none, or all of them.
func load(l rules.Load, a answer) (any, error) {
	if !l.All {
		return decodeRow(a.row(0))
	}
	rows := make([]map[string]any, len(a.rows))
	for i := range a.rows {
		var err error
		if rows[i], err = decodeRow(a.row(i)); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// decodeRow makes a row for templates. A value that is not available has no name there: a template that shows it fails, where
// NULL would print nothing.
func decodeRow(row value.Row) (map[string]any, error) {
	m := make(map[string]any, len(row))
	for _, f := range row {
		if _, again := m[f.Name]; again || f.State == value.Unavailable || f.State == value.Blanked {
			continue
		}
		v, err := value.Decode(f.Type.Base, f.Datum)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		m[f.Name] = v
	}
	return m, nil
}

// nulls is a row of NULLs with the columns of another.
func nulls(like value.Row) map[string]any {
	m := make(map[string]any, len(like))
	for _, f := range like {
		m[f.Name] = nil
	}
	return m
}

// shown is what the templates of all mails of a match see: everything but the recipient.
func shown(r *rules.Rule, f *rules.Facts) (templates.Data, error) {
	d := templates.Data{
		"rule": r.Name, "about": r.About, "op": f.Op, "table": f.Table, "commit_time": f.CommitTime,
		"message": f.Message, "row": nil,
	}
	var err error
	if d["new"], err = side(f.New, f.Old, f.Op == "delete"); err != nil {
		return nil, fmt.Errorf("new: %w", err)
	}
	if d["old"], err = side(f.Old, f.New, f.Op == "insert"); err != nil {
		return nil, fmt.Errorf("old: %w", err)
	}
	return d, nil
}

// side is one side of a change. That of old of an INSERT and of new of a DELETE (none) is a row of NULLs.
func side(row, other value.Row, none bool) (map[string]any, error) {
	if none {
		return nulls(other), nil
	}
	return decodeRow(row)
}

// with adds the recipient and what was loaded.
func with(d templates.Data, to recipient, l loaded) (templates.Data, error) {
	all := make(templates.Data, len(d)+len(l)+1)
	maps.Copy(all, d)
	maps.Copy(all, l)
	row, err := decodeRow(to.row)
	if err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	all["to"] = row
	return all, nil
}

// withheld names the columns of a change that templates cannot see, and why; empty: none.
func withheld(f *rules.Facts) string {
	var names []string
	for scope, row := range map[string]value.Row{"new": f.New, "old": f.Old} {
		for _, field := range row {
			switch field.State {
			case value.Unavailable:
				names = append(names, scope+"."+field.Name+" (not in the stream)")
			case value.Blanked:
				names = append(names, scope+"."+field.Name+" (sensitive, erased)")
			case value.Null, value.Present:
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
