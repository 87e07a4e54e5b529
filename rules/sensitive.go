package rules

import (
	"slices"
	"strings"
	"unicode"

	"postman/cdc"
)

// asks are the rule's queries.
func (r *Rule) asks() (all []*SQL) {
	for _, source := range slices.Concat(r.To, r.CC) {
		if source.Query != nil {
			all = append(all, source.Query)
		}
	}
	for _, l := range r.Load {
		if l.SQL != nil {
			all = append(all, l.SQL)
		}
	}
	return all
}

// reads notes which sensitive columns the rule's queries read.
func (r *Rule) reads(entries []sensitive) {
	if len(entries) == 0 {
		return
	}
	for _, q := range r.asks() {
		words, all := wordsOf(q.text.value)
		for _, e := range entries {
			c := TableColumn{e.table, e.name}
			if e.message == "" && words[strings.ToLower(e.table.Name)] && (all || words[strings.ToLower(e.name)]) && !slices.Contains(r.Reads, c) {
				r.Reads = append(r.Reads, c)
			}
		}
	}
}

// wordsOf are the words of a query, in small letters, and whether it may read all columns of a table. Words of its texts and comments are
// among them: to take a column for sensitive that is not costs little.
func wordsOf(query string) (words map[string]bool, all bool) {
	words = make(map[string]bool)
	for word := range strings.FieldsFuncSeq(strings.ToLower(query), func(r rune) bool {
		return r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		words[word] = true
	}
	return words, strings.Contains(query, "*")
}

// TableColumn is a column of a table.
type TableColumn struct {
	Table  cdc.TableName
	Column string
}
