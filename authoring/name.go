package authoring

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"postman/rules"
	"postman/value"
)

// widest is how much of what happens in a test its name tells, in characters.
const widest = 72

// nameOf is what a test is called, or else what happens in it.
func nameOf(t *rules.Test) string {
	if t.Name != "" {
		return t.Name
	}
	s := &t.Steps[0]
	text := s.Op + " {" + strings.Join(cells(s), ", ") + "}"
	if runes := []rune(text); len(runes) > widest {
		text = string(runes[:widest-2]) + "…}"
	}
	if n := len(t.Steps) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// cells are the values of a change in a few words; of an update, what changed comes first.
func cells(s *rules.TestStep) []string {
	if s.Op == "message" {
		var b bytes.Buffer
		if json.Compact(&b, s.Message) != nil {
			return nil
		}
		return []string{strings.NewReplacer(`"`, "", ":", ": ", ",", ", ").Replace(strings.Trim(b.String(), "{}"))}
	}
	if s.Op != "update" {
		var all []string
		for _, c := range append(s.New, s.Old...) {
			all = append(all, c.Name+": "+printed(c.Text))
		}
		return all
	}
	old := make(map[string]*string)
	for _, c := range s.Old {
		old[c.Name] = c.Text
	}
	var changed, kept []string
	for _, c := range s.New {
		if before, said := old[c.Name]; said && printed(before) != printed(c.Text) {
			changed = append(changed, c.Name+": "+printed(before)+" → "+printed(c.Text))
		} else {
			kept = append(kept, c.Name+": "+printed(c.Text))
		}
	}
	return append(changed, kept...)
}

func printed(text *string) string {
	if text == nil {
		return "NULL"
	}
	return cmp.Or(*text, `""`)
}

// fields are rows whose values have the types that they are written in.
func fields(rows [][]rules.Cell) []value.Row {
	all := make([]value.Row, len(rows))
	for i, cells := range rows {
		for _, c := range cells {
			all[i] = append(all[i], c.Field())
		}
	}
	return all
}
