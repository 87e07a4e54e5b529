package dispatch

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/rules"
	"postman/value"
)

// Asked is a query of a rule with the values that it is asked with, for people.
type Asked struct {
	For  string // to, cc, or load and its name
	Line int    // where it stands in the rule's text
	SQL  string
}

// Queries are a rule's queries about a change, as Postgres could be asked them by hand. The recipient is nil where none is meant: names
// of it stay as they are. Sensitive values, and those that are not known, are told as such; texts are as hide leaves them.
func Queries(r *rules.Rule, f *rules.Facts, to value.Row, hide func(string) string) []Asked {
	w := &filling{draft{rule: r, facts: f}, to, hide}
	var all []Asked
	for name, sources := range map[string][]rules.Recipients{"to": r.To, "cc": r.CC} {
		for _, s := range sources {
			if s.Query != nil {
				all = append(all, w.query(name, s.Query))
			}
		}
	}
	for _, l := range r.Load {
		all = append(all, w.query("load "+l.Name, l.SQL))
	}
	slices.SortStableFunc(all, func(a, b Asked) int { return a.Line - b.Line })
	return all
}

// filling writes values into queries.
type filling struct {
	draft draft
	to    value.Row
	hide  func(string) string
}

func (w *filling) query(of string, q *rules.SQL) Asked {
	return Asked{of, q.Place().Line, strings.TrimSpace(q.With(w.literal))}
}

// hidden says whether a parameter's value is sensitive. Of a recipient's, the row says so.
func (w *filling) hidden(p rules.Param) bool {
	if p.Scope != "to" {
		return slices.Contains(w.draft.rule.Sensitive, p.Name)
	}
	f, ok := w.to.Field(p.Name)
	return ok && f.State == value.Blanked
}

// literal is a parameter's value as SQL has it ("Constants" in the Postgres documentation), or what is known of it.
func (w *filling) literal(p rules.Param) string {
	name := "@" + p.Scope + "." + p.Name
	switch {
	case p.Scope == "to" && w.to == nil:
		return name
	case w.hidden(p):
		return "<" + name + ": sensitive>"
	}
	oid, text, err := w.draft.parameter(p, w.to)
	switch {
	case err != nil:
		return "<" + name + ": not known>"
	case text == nil:
		return "NULL"
	}
	switch oid {
	case pgtype.BoolOID:
		return map[byte]string{'t': "true", 'f': "false"}[text[0]]
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID:
		return string(text)
	}
	literal := "'" + strings.ReplaceAll(w.hide(string(text)), "'", "''") + "'"
	if name := value.TypeName(oid); !strings.HasPrefix(name, "type ") && oid != pgtype.TextOID && oid != pgtype.VarcharOID {
		literal += "::" + name
	}
	return literal
}
