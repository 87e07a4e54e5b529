package sqlite

import (
	"fmt"
	"strings"

	"postman/outbox"
)

// condition is what a filter demands, in SQL, of a row of matches or messages that is called m.
type condition struct {
	terms []string
	args  []any
}

func (c *condition) and(term string, args ...any) {
	c.terms, c.args = append(c.terms, term), append(c.args, args...)
}

// with is the condition and one more term, which needs no argument.
func (c condition) with(term string) condition {
	return condition{append([]string{term}, c.terms...), c.args}
}

func (c condition) String() string { return strings.Join(c.terms, " AND ") }

// where is the condition of a filter, but for its states.
func where(table string, f *outbox.Filter) condition {
	var c condition
	if table == "matches" {
		whereMatches(&c, f)
	} else {
		whereMessages(&c, f)
	}
	if len(f.Rules) > 0 {
		c.and(`m.rule IN (SELECT id FROM rules WHERE name IN (SELECT value FROM json_each(?)))`, list(f.Rules))
	}
	if !f.Since.IsZero() {
		c.and(`m.created >= ?`, f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		c.and(`m.created < ?`, f.Until.UnixMicro())
	}
	if !f.Due.IsZero() {
		c.and(`m.due < ?`, f.Due.UnixMicro())
	}
	if f.Before != 0 {
		c.and(`m.id < ?`, f.Before)
	}
	return c
}

func whereMatches(c *condition, f *outbox.Filter) {
	c.and(`m.tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL)`)
	if len(f.Matches) > 0 {
		c.and(`m.id IN (SELECT value FROM json_each(?))`, list(f.Matches))
	}
	if len(f.Messages) > 0 {
		c.and(`m.id IN (SELECT match FROM messages WHERE id IN (SELECT value FROM json_each(?)))`, list(f.Messages))
	}
	if len(f.Batches) > 0 {
		c.and(`m.batch IN (SELECT value FROM json_each(?))`, list(f.Batches))
	}
	if f.Apart {
		c.and(fmt.Sprintf(`(m.batch IS NULL OR m.state <> %d)`, outbox.MatchHeld))
	}
	if f.Address != "" {
		k := outbox.AddressKey(f.Address)
		c.and(`EXISTS (SELECT 1 FROM messages x WHERE x.match = m.id AND x.address_key = ?)`, k[:])
	}
	if f.Error != "" {
		c.and(`instr(lower(m.reason), lower(?)) > 0`, f.Error)
	}
}

func whereMessages(c *condition, f *outbox.Filter) {
	if len(f.Messages) > 0 {
		c.and(`m.id IN (SELECT value FROM json_each(?))`, list(f.Messages))
	}
	if len(f.Matches) > 0 {
		c.and(`m.match IN (SELECT value FROM json_each(?))`, list(f.Matches))
	}
	if f.Address != "" {
		k := outbox.AddressKey(f.Address)
		c.and(`m.address_key = ?`, k[:])
	}
	if f.Error != "" {
		c.and(`(instr(lower(m.reason), lower(?)) > 0 OR instr(lower(m.reply), lower(?)) > 0)`, f.Error, f.Error)
	}
}

// search is a query for the ids that a filter selects, newest first.
type search struct {
	text  string
	args  []any
	limit string
}

// newSearch looks each state up by itself, in the index for it: asked for several at once, SQLite would read all rows that
// are in one of them, or all there are, before it knew which are the newest.
func newSearch[S outbox.MatchState | outbox.MessageState](table string, f *outbox.Filter, states []S) search {
	var s search
	if f.Limit > 0 {
		s.limit = fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	c := where(table, f)
	if len(states) == 0 {
		s.add(table+" m", c, s.limit)
	}
	for _, state := range states {
		s.add(table+" m"+by(table, state, f), c.with(inState(state)), s.limit)
	}
	return s
}

func (s *search) add(from string, c condition, limit string) {
	if s.text != "" {
		s.text += " UNION ALL "
	}
	text := "SELECT m.id FROM " + from
	if len(c.terms) > 0 {
		text += " WHERE " + c.String()
	}
	s.text += "SELECT id FROM (" + text + " ORDER BY m.id DESC" + limit + ")"
	s.args = append(s.args, c.args...)
}

// inState is true of rows in a state. Its words are those of the partial indexes: SQLite does not see by itself that what
// equals 3 differs from 0.
func inState[S outbox.MatchState | outbox.MessageState](s S) string {
	if s == 0 {
		return "m.state = 0"
	}
	return fmt.Sprintf("m.state <> 0 AND m.state = %d", s)
}

// by has SQLite find the rows of a state in the index for it, unless the filter names rows: then it goes to those. Those
// that wait, in state 0, stand in the order of their due times.
func by[S outbox.MatchState | outbox.MessageState](table string, s S, f *outbox.Filter) string {
	switch {
	case len(f.Matches) > 0 || len(f.Messages) > 0:
		return ""
	case len(f.Batches) > 0 && table == "matches":
		return " INDEXED BY matches_batch"
	case s == 0:
		return " INDEXED BY " + table + "_due"
	}
	return " INDEXED BY " + table + "_state"
}
