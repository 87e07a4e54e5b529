package sqlite

import (
	"fmt"
	"strings"
)

// insertion is an INSERT of many rows. One whose identity is known is passed over. Any other conflict is an error: an id
// that is given twice would lose a row.
type insertion struct {
	table   string
	columns int
	text    map[int]string // the statement, by its number of rows
}

// sizes are how many rows go into one statement: 64 at once cost half of 64 one by one, and a handful of prepared
// statements serves every number.
var sizes = [...]int{64, 8, 1}

// newInsertion takes the identity as the conflict target that names its index.
func newInsertion(table, identity string, columns ...string) insertion {
	in := insertion{table, len(columns), make(map[int]string)}
	for _, n := range sizes {
		in.text[n] = fmt.Sprintf("INSERT INTO %s (%s) %s ON CONFLICT %s DO NOTHING",
			table, strings.Join(columns, ", "), valuesOf(n, len(columns)), identity)
	}
	return in
}

// valuesOf is VALUES for so many rows.
func valuesOf(rows, columns int) string {
	row := "(?" + strings.Repeat(", ?", columns-1) + ")"
	return "VALUES " + row + strings.Repeat(", "+row, rows-1)
}

// rowwise is a statement on many rows, whose values it knows as v.column1, v.column2 …
type rowwise struct {
	columns int
	text    map[int]string // by its number of rows
}

// newRowwise takes the statement with %s where its rows stand.
func newRowwise(columns int, text string) rowwise {
	u := rowwise{columns, make(map[int]string)}
	for _, n := range sizes {
		u.text[n] = fmt.Sprintf(text, "("+valuesOf(n, columns)+") AS v")
	}
	return u
}

// rowwise runs a statement on rows, whose values stand one after the other, and calls f for each id that it returns.
func (w *writer) rowwise(u *rowwise, values []any, f func(id int64)) error {
	for _, size := range sizes {
		for step := size * u.columns; len(values) >= step; values = values[step:] {
			err := w.each(u.text[size], func(scan scanner) error {
				var id int64
				err := scan(&id)
				if err == nil {
					f(id)
				}
				return err
			}, values[:step]...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// insert stores rows, whose values stand one after the other, and returns how many were new.
func (w *writer) insert(in *insertion, values []any) (stored int, err error) {
	for _, size := range sizes {
		for step := size * in.columns; len(values) >= step; values = values[step:] {
			n, err := w.exec(in.text[size], values[:step]...)
			if err != nil {
				return stored, fmt.Errorf("storing %s: %w", in.table, err)
			}
			stored += n
		}
	}
	return stored, nil
}
