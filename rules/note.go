package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"postman/cdc"
	"postman/value"
)

// whyAbsent says why the stream does not tell a column's value.
func (r *recorder) whyAbsent(c *column, x *absent) string {
	d, err := r.frame.datum(c.side, c.index)
	switch {
	case x.err != nil:
		return x.err.Error()
	case err == nil && d.State == value.Blanked:
		return "sensitive, and erased since"
	case c.side == newRow || r.frame.table.Columns[c.index].Key || r.frame.table.Identity == cdc.IdentityFull:
		return "a long value that the update did not touch: Postgres does not send it again"
	}
	return "not in the stream: the replica identity of " + r.frame.table.String() + " does not carry it"
}

// note says of a condition that joins no others what is not obvious about its outcome.
func (r *recorder) note(n ast.Node, v any) string {
	of := r.made[n]
	if n, ok := of.(*not); ok {
		of = n.of
	}
	if x, ok := v.(*absent); ok {
		return unknownNote(x)
	}
	switch of := of.(type) {
	case *apply:
		return r.nullNote(of)
	case *equality:
		if isNil(of.a) || isNil(of.b) {
			return "" // it asks for NULL in so many words
		}
		return equalityNote(of.a.eval(r.frame), of.b.eval(r.frame))
	case *changed:
		if r.frame.unchanged(of.now.index) && !isKnown(r.frame.value(of.now)) {
			return "not sent again, so it did not change"
		}
		return equalityNote(r.frame.value(of.then), r.frame.value(of.now))
	case *matches:
		if of.of.eval(r.frame) == nil {
			return "with NULL, matches is false"
		}
	case *oneOfList:
		if of.x.eval(r.frame) == nil {
			return "NULL equals NULL only"
		}
	case *within:
		return listNote(of.of.eval(r.frame))
	case *quantifier:
		return listNote(of.of.eval(r.frame))
	}
	return truthNote(v)
}

// hangsOn begins the note about what depends on a value that is not known.
const hangsOn = "it hangs on "

func isKnown(v any) bool {
	_, unknown := v.(*absent)
	return !unknown
}

func unknownNote(x *absent) string {
	switch {
	case x.err != nil:
		return x.err.Error()
	case x.column == "":
		return "it cannot be known"
	}
	return hangsOn + x.column + ", which is not known"
}

// nullNote is about operators that are false where a value is NULL.
func (r *recorder) nullNote(n *apply) string {
	if n.null != false || n.b == nil || n.a.eval(r.frame) != nil && n.b.eval(r.frame) != nil {
		return ""
	}
	if comparisons[n.name] != nil {
		return "an order with NULL is false"
	}
	return "with NULL, " + n.name + " is false"
}

func equalityNote(a, b any) string {
	if a == nil != (b == nil) && isKnown(a) && isKnown(b) {
		return "NULL equals NULL only"
	}
	return ""
}

func isNil(n node) bool {
	c, ok := n.(*constant)
	return ok && c.value == nil
}

func listNote(of any) string {
	if of == nil {
		return "a list that is NULL has no items"
	}
	return ""
}

func truthNote(v any) string {
	switch v.(type) {
	case bool:
		return ""
	case nil:
		return "NULL counts as false"
	}
	return "not true or false, which counts as false"
}

// printed is a value as a person reads it, moments in the rule's zone or in UTC.
func (r *recorder) printed(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case *absent:
		return "unavailable"
	case string:
		return fmt.Sprintf("%q", clip(v))
	case []byte:
		return clip(fmt.Sprintf(`\x%x`, v))
	case *value.Decimal:
		return v.Text('f')
	case time.Time:
		zone := r.rule.Zone
		if zone == nil {
			zone = time.UTC
		}
		return strings.TrimSuffix(v.In(zone).Format("2006-01-02 15:04:05.999999-07:00"), ":00") // as Postgres writes offsets
	case Duration:
		return fmt.Sprintf("%dd%s", v.Days, v.Time)
	case []any:
		items := make([]string, 0, len(v))
		for _, item := range v {
			items = append(items, r.printed(item))
		}
		return clip("[" + strings.Join(items, ", ") + "]")
	case map[string]any:
		return clip(r.printedObject(v))
	}
	return fmt.Sprint(v)
}

func (r *recorder) printedObject(m map[string]any) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		shown := "<sensitive>"
		if !r.rule.Hides(key) {
			shown = r.printed(m[key])
		}
		parts = append(parts, fmt.Sprintf("%q: %s", key, shown))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// clip keeps a value short enough to be read beside its condition.
func clip(s string) string {
	const most = 80
	if text := []rune(s); len(text) > most {
		return string(text[:most]) + "…"
	}
	return s
}
