package rules

import (
	"slices"
	"strings"

	"postman/cdc"
)

// Sensitive are the columns of a table that the files call sensitive, whether or not a rule is on the table.
func (s *Source) Sensitive(t cdc.TableName) (columns []string) {
	for i := range s.sensitive {
		if e := &s.sensitive[i]; e.message == "" && e.table == t {
			columns = append(columns, e.name)
		}
	}
	return columns
}

// SensitiveTables are those of which the files call columns sensitive.
func (s *Source) SensitiveTables() (tables []cdc.TableName) {
	for i := range s.sensitive {
		if e := &s.sensitive[i]; e.message == "" && !slices.Contains(tables, e.table) {
			tables = append(tables, e.table)
		}
	}
	return tables
}

// HidesMessage says which keys of the messages with a prefix are sensitive; nil: none. Of messages that are not meant for postman it
// is all of them.
func (s *Source) HidesMessage(prefix string) func(key string) bool {
	name, ours := strings.CutPrefix(prefix, messagePrefix)
	if !ours {
		return func(string) bool { return true }
	}
	return s.hides(func(e *sensitive) bool { return e.message != "" && e.message == name })
}

// HidesAny says what the files call sensitive at all; nil: nothing. It is for what may be of any table.
func (s *Source) HidesAny() func(string) bool { return s.hides(func(*sensitive) bool { return true }) }

func (s *Source) hides(of func(*sensitive) bool) func(string) bool {
	var names map[string]bool
	for i := range s.sensitive {
		if e := &s.sensitive[i]; of(e) {
			if names == nil {
				names = make(map[string]bool)
			}
			names[e.name] = true
		}
	}
	if names == nil {
		return nil
	}
	return func(name string) bool { return names[name] }
}
