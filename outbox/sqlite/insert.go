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
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	for _, n := range sizes {
		in.text[n] = fmt.Sprintf("INSERT INTO %s (%s) VALUES %s ON CONFLICT %s DO NOTHING",
			table, strings.Join(columns, ", "), row+strings.Repeat(", "+row, n-1), identity)
	}
	return in
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
