package rules

import (
	"fmt"
	"slices"
	"strings"

	"postman/cdc"
)

// suggest is the way out of an unknown name: the nearest known one, or else what there is.
func suggest(name string, known []string) string {
	if hint := Nearest(name, known); hint != "" {
		return hint
	}
	const most = 20
	switch {
	case len(known) == 0:
		return ""
	case len(known) == 1:
		return "there is only " + known[0]
	case len(known) > most:
		return fmt.Sprintf("there are %s and %d more", strings.Join(known[:most], ", "), len(known)-most)
	}
	return "there are " + list(known, "and")
}

// suggestColumn is suggest for a column's name, with each name spelled as it is written in its place. Of a name with spaces people
// often write the first word alone.
func suggestColumn(name string, t *cdc.Table, spell func(string) string) string {
	columns := columnNames(t)
	best := nearest(name, columns)
	if i := slices.IndexFunc(columns, func(c string) bool { return strings.HasPrefix(strings.ToLower(c), strings.ToLower(name)+" ") }); best == "" && i >= 0 {
		best = columns[i]
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", spell(best))
	}
	for i := range columns {
		columns[i] = spell(columns[i])
	}
	return suggest("", columns)
}

// spelled is a column's name in an expression: with its row, where it takes brackets.
func spelled(row string) func(string) string {
	return func(name string) string {
		if written := exprColumn(row, name); written != row+"."+name {
			return written
		}
		return name
	}
}

// parameter is a column's name in a query: with its row, where it takes quotes.
func parameter(row string) func(string) string {
	return func(name string) string {
		if written := sqlColumn(row, name); written != "@"+row+"."+name {
			return written
		}
		return name
	}
}

// Nearest asks whether a known name was meant; empty if none is near.
func Nearest(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return ""
}

// nearest is the known name that looks most like another; empty if none is near.
func nearest(name string, known []string) string {
	best, least := "", max(1, len([]rune(name))/3)+1
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// replacements are what to write for the functions that people know from SQL.
var replacements = map[string]string{
	"coalesce": "write a ?? b", "ifnull": "write a ?? b", "nvl": "write a ?? b",
	"length": "write len(new.x)", "char_length": "write len(new.x)",
	"substring": textHint, "substr": textHint, "left": textHint, "right": textHint, "position": textHint, "strpos": textHint, "starts_with": textHint,
	"date_trunc": momentHint, "date_part": momentHint, "extract": momentHint, "to_char": momentHint, "to_date": momentHint,
	"cast": "an expression knows the types of columns: leave the cast out", "replace": computedHint,
	"round": computedHint, "concat": "join texts with +", "sum": computedHint, "avg": computedHint, "min": computedHint, "max": computedHint, "exists": "what needs another table belongs into the query of to",
}

const (
	computedHint = "what is computed belongs into a query: where that of to gives no row, there is no mail"
	textHint     = `write new.x startsWith "a", endsWith, contains, or matches with a regular expression`
	momentHint   = `compare with a date: new.x >= date("2026-01-31") and new.x < date("2026-02-01")`
)

// suggestFunction is the way out of a function that rules do not have.
func suggestFunction(name string) string {
	if hint := replacements[strings.ToLower(name)]; hint != "" {
		return hint
	}
	return suggest(name, functions)
}

// list writes a, b and c.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

// edits is the least number of letters to add, drop, change or swap with a neighbour (optimal string alignment).
func edits(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, row, next := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		next[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(y)]
}
