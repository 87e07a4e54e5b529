package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

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

// replacements are what to write for the functions that people know from SQL: of %s are the values that they take.
var replacements = map[string]string{
	"coalesce": "write (%s ?? %s)", "ifnull": "write (%s ?? %s)", "nvl": "write (%s ?? %s)",
	"length": "write len(%s)", "char_length": "write len(%s)", "size": "write len(%s)",
	"lowercase": "write lower(%s)", "uppercase": "write upper(%s)", "lcase": "write lower(%s)", "ucase": "write upper(%s)", "strip": "write trim(%s)", "btrim": "write trim(%s)",
	"to_number": castHint, "to_char": momentHint, "date_trunc": momentHint, "date_part": momentHint, "extract": momentHint, "to_date": momentHint,
	"substring": textHint, "substr": textHint, "left": textHint, "right": textHint, "position": textHint, "strpos": textHint,
	"cast": castHint, "replace": computedHint, "concat": "join texts with +",
	"round": computedHint, "sum": computedHint, "avg": computedHint, "min": computedHint, "max": computedHint, "exists": queryHint,
	"isnull": "write %s == nil", "nullif": computedHint, "has": "write in between the value and the list", "array_length": "write len(%s)", "cardinality": "write len(%s)",
}

const (
	castHint     = "an expression knows the types of columns: leave the function out, and its brackets"
	computedHint = "what is computed belongs into a query: where that of to gives no row, there is no mail"
	textHint     = "parts of a text are looked at by startsWith, endsWith, contains, and matches with a regular expression, which stand between two texts"
	momentHint   = "a moment is compared as it is, with where the stretch begins and where it ends; what needs more belongs into the query of to"
)

// suggestFunction is the way out of a function that rules do not have, with the values that it was given.
func suggestFunction(name string, given []ast.Node) string {
	word := strings.ToLower(name)
	if replacements[word] == "" && nearest(name, functions) == "" { // lenght
		word = nearest(word, slices.Sorted(maps.Keys(replacements)))
	}
	hint := replacements[word]
	switch takes := strings.Count(hint, "%s"); {
	case hint == "":
		return suggest(name, functions)
	case takes == 0:
		return hint
	case len(given) < takes:
		return suggest("", functions)
	default:
		values := make([]any, takes)
		for i := range values {
			values[i] = show(given[i])
		}
		return fmt.Sprintf(hint, values...)
	}
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
