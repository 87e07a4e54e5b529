package rules

import (
	"fmt"
	"strings"
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

// Nearest asks whether a known name was meant; empty if none is near.
func Nearest(name string, known []string) string {
	best, least := "", max(1, len([]rune(name))/3)+1
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// replacements are what to write for the functions that people know from SQL.
var replacements = map[string]string{
	"coalesce": "write a ?? b", "ifnull": "write a ?? b", "nvl": "write a ?? b",
	"length": "write len(new.x)", "char_length": "write len(new.x)",
	"substring": textHint, "substr": textHint, "left": textHint, "right": textHint, "position": textHint, "strpos": textHint, "starts_with": textHint,
	"date_trunc": momentHint, "date_part": momentHint, "extract": momentHint, "to_char": momentHint, "to_date": momentHint,
	"cast": "an expression knows the types of columns: leave the cast out", "replace": "what is computed belongs into a query",
	"round": "what is computed belongs into a query", "concat": "join texts with +", "exists": "what needs another table belongs into the query of to",
}

const (
	textHint   = `write new.x startsWith "a", endsWith, contains, or matches with a regular expression`
	momentHint = `compare with a date: new.x >= date("2026-01-31") and new.x < date("2026-02-01")`
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
