package rules

import (
	"regexp"
	"slices"
)

// Secrets names what the rule's expressions and queries read of the values that the files call sensitive: new.token, message.token.
// What its template shows is not among them.
func (r *Rule) Secrets() []string {
	if len(r.Sensitive) == 0 {
		return nil
	}
	var names []string
	add := func(scope, name string) {
		if name = scope + "." + name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, e := range r.expressions() {
		for _, u := range e.tree.uses {
			if r.Hides(u.name) {
				add(u.side.String(), u.name)
			}
		}
		for _, key := range r.Sensitive {
			if e.table == nil && hasWord(e.String(), key) {
				add("message", key)
			}
		}
	}
	for _, q := range r.queries() {
		for _, p := range q.Params {
			if p.Scope != "to" && r.Hides(p.Name) {
				add(p.Scope, p.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// hasWord says whether an expression has a word. A message's keys are not columns, and one may be reached in several ways: rather
// one too many is found.
func hasWord(expression, word string) bool {
	return regexp.MustCompile(`(^|[^\pL\pN_])` + regexp.QuoteMeta(word) + `($|[^\pL\pN_])`).MatchString(expression)
}

func (r *Rule) expressions() (all []*Expr) {
	if r.When != nil {
		all = append(all, r.When)
	}
	for _, list := range [][]Recipients{r.To, r.CC} {
		for i := range list {
			if list[i].Expr != nil {
				all = append(all, list[i].Expr)
			}
		}
	}
	for _, s := range []*Recipients{r.From, r.ReplyTo} {
		if s != nil && s.Expr != nil {
			all = append(all, s.Expr)
		}
	}
	return all
}

func (r *Rule) queries() (all []*SQL) {
	for _, l := range r.Load {
		all = append(all, l.SQL)
	}
	for _, list := range [][]Recipients{r.To, r.CC} {
		for i := range list {
			if list[i].Query != nil {
				all = append(all, list[i].Query)
			}
		}
	}
	return all
}
