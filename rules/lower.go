package rules

import (
	"cmp"
	"fmt"
	"slices"
)

// lowering makes clauses of conditions. Rules say the same of the same columns often: what they share is made once, and so
// stays in the processor's caches.
type lowering struct {
	columns    map[spot]*column
	equals     map[comparison]*equals
	thresholds map[comparison]*threshold
	lists      map[string]*memberOf // by column, direction and values
}

// comparison is what makes a clause of a column and one value the same as another.
type comparison struct {
	of   *column
	flag bool
	with mark
}

func newLowering() *lowering {
	return &lowering{make(map[spot]*column), make(map[comparison]*equals), make(map[comparison]*threshold), make(map[string]*memberOf)}
}

func (l *lowering) column(c *column) *column {
	known := l.columns[c.spot()]
	if known == nil {
		known = c
		l.columns[c.spot()] = c
	}
	return known
}

// condition makes a clause of a condition, or with negated of its opposite. What it does not know it leaves to the tree.
func (l *lowering) condition(n node, negated bool) clause {
	var made clause
	switch n := n.(type) {
	case *constant:
		return always(truthOf(truth(n.value) == any(!negated)))
	case *not:
		return l.condition(n.of, !negated)
	case *junction:
		return l.junction(n, negated)
	case *column, *equality, *oneOfList:
		if made = l.equality(n, negated); made != nil {
			return made
		}
	case *changed:
		made = &differs{changed{l.column(n.now), l.column(n.then)}, residue{n}}
	case *matches:
		if c, ok := n.of.(*column); ok && c.form.textual() {
			made = &likeness{l.column(c), n.re}
		}
	case *apply:
		made = l.apply(n)
	}
	switch {
	case made == nil:
		return residue{negate(n, negated)}
	case negated:
		return opposite{made}
	}
	return made
}

// junction flattens a chain of the same operator. The opposite of a conjunction is the disjunction of opposites, and the other
// way round: Kleene's logic keeps De Morgan's laws.
func (l *lowering) junction(n *junction, negated bool) clause {
	parts := l.parts(n, n.decided, negated, nil)
	if n.decided == negated {
		parts = enclose(parts)
	}
	slices.SortStableFunc(parts, func(a, b clause) int { return cmp.Compare(effort(a), effort(b)) })
	if n.decided == negated {
		return all(parts)
	}
	return some(parts)
}

// parts appends what a chain of one operator is made of: or where decided is true, and else and.
func (l *lowering) parts(n node, decided, negated bool, parts []clause) []clause {
	switch n := n.(type) {
	case *not:
		return l.parts(n.of, !decided, !negated, parts)
	case *junction:
		if n.decided == decided {
			return l.parts(n.b, decided, negated, l.parts(n.a, decided, negated, parts))
		}
	}
	return append(parts, l.condition(n, negated))
}

// enclose makes one interval of two ends on the same column.
func enclose(parts []clause) []clause {
	kept := parts[:0]
	for _, part := range parts {
		i := slices.IndexFunc(kept, func(c clause) bool {
			a, ok1 := c.(*threshold)
			b, ok2 := part.(*threshold)
			return ok1 && ok2 && a.of == b.of && a.upper != b.upper
		})
		if i < 0 {
			kept = append(kept, part)
			continue
		}
		a, _ := kept[i].(*threshold)
		b, _ := part.(*threshold)
		if a.upper {
			a, b = b, a
		}
		kept[i] = &interval{a.of, a.end, b.end, residue{&junction{a.node, b.node, false}}}
	}
	return kept
}

// effort ranks clauses by how long they take. The order in which the parts of a junction are tried does not matter to its truth
// value: nothing fails, and nothing has an effect.
func effort(c clause) int {
	switch c := c.(type) {
	case always:
		return 0
	case *differs:
		return 1
	case *equals:
		return c.of.form.effort()
	case *memberOf:
		return c.of.form.effort()
	case *threshold:
		return c.of.form.effort()
	case *interval:
		return c.of.form.effort()
	case *fragment:
		return 5
	case *pair:
		return 6
	case *likeness:
		return 7
	case opposite:
		return effort(c.clause)
	case all, some:
		return 8
	}
	return 9
}

// effort ranks forms by how long reading takes.
func (f form) effort() int {
	switch f {
	case formText, formPadded, formBool:
		return 1
	case formWhole:
		return 2
	case formNumber, formInstant, formLocal, formDay:
		return 3
	case formFloat, formOther:
	}
	return 4
}

func (f form) textual() bool { return f == formText || f == formPadded }

// line is what scalars are compared on: those of two forms with the same line compare as their values do.
func (f form) line() form {
	switch f {
	case formPadded:
		return formText
	case formFloat:
		return formNumber
	case formDay:
		return formLocal
	case formOther, formText, formBool, formWhole, formNumber, formInstant, formLocal:
	}
	return f
}

// columns are two nodes that are columns whose scalars can be compared.
func (l *lowering) columnsOf(a, b node) (x, y *column, ok bool) {
	x, ok1 := a.(*column)
	y, ok2 := b.(*column)
	if !ok1 || !ok2 || x.form == formOther || x.form.line() != y.form.line() {
		return nil, nil, false
	}
	return l.column(x), l.column(y), true
}

// equality knows columns that are conditions, and columns that are compared with constants, or with one another; nil of
// others.
func (l *lowering) equality(n node, negated bool) clause {
	whole := residue{negate(n, negated)}
	switch n := n.(type) {
	case *column:
		if n.form == formBool {
			return l.member(n, negated, whole, &constant{true})
		}
	case *equality:
		a, b := n.a, n.b
		if _, ok := a.(*constant); ok {
			a, b = b, a
		}
		not := n.not != negated
		if x, y, ok := l.columnsOf(a, b); ok {
			return &pair{x, y, func(c int) bool { return c == 0 != not }, false, not, whole}
		}
		if c, ok := a.(*column); ok {
			return l.member(c, not, whole, b)
		}
	case *oneOfList:
		if c, ok := n.x.(*column); ok {
			return l.member(c, negated, whole, n.list...)
		}
	}
	return nil
}

// member is whether a column is one of a list; nil, if that has what no scalar of the column can be.
func (l *lowering) member(c *column, not bool, whole residue, list ...node) clause {
	if c.form == formOther || len(list) == 0 {
		return nil
	}
	m := &memberOf{of: l.column(c), not: not, residue: whole}
	for _, n := range list {
		k, ok := n.(*constant)
		var s scalar
		switch {
		case !ok || !s.set(c.form, k.value):
			return nil
		case s.state == stateNull:
			m.null = true
		default:
			m.list = append(m.list, s)
		}
	}
	slices.SortFunc(m.list, func(a, b scalar) int { return a.compare(&b) })
	m.list = slices.CompactFunc(m.list, func(a, b scalar) bool { return a.equal(&b) })
	if len(m.list) != 1 || m.null {
		return l.list(m)
	}
	same := comparison{m.of, not, m.list[0].mark()}
	if l.equals[same] == nil {
		l.equals[same] = &equals{m.of, not, m.list[0], whole}
	}
	return l.equals[same]
}

// list is a clause as it was met first. Lists are copied: they grew.
func (l *lowering) list(m *memberOf) *memberOf {
	key := fmt.Append(nil, m.of.spot(), m.not, m.null)
	for i := range m.list {
		key = fmt.Appendf(key, " %q", fmt.Sprint(m.list[i].mark()))
	}
	if l.lists[string(key)] == nil {
		m.list = slices.Clip(slices.Clone(m.list))
		l.lists[string(key)] = m
	}
	return l.lists[string(key)]
}

// apply knows orderings and text operators; nil of others.
func (l *lowering) apply(n *apply) clause {
	c, k, name := n.sides()
	switch {
	case orderings[n.name] == n.function:
		if a, b, ok := l.columnsOf(n.a, n.b); ok {
			return &pair{a, b, comparisons[n.name], true, false, residue{n}}
		}
		if c != nil {
			return l.ordering(n, l.column(c), k, name)
		}
	case textTests[n.name] == n.function && c != nil && n.a == node(c) && c.form.textual():
		if part, ok := k.(string); ok {
			return &fragment{l.column(c), n.name, []byte(part)}
		}
	}
	return nil
}

var mirrored = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}

// sides are a column and a constant, and the operator that stands between the two in that order; a nil column, where it is
// not that.
func (n *apply) sides() (c *column, k any, name string) {
	a, b, name := n.a, n.b, n.name
	if _, ok := a.(*constant); ok {
		a, b, name = b, a, mirrored[n.name]
	}
	c, ok1 := a.(*column)
	constant, ok2 := b.(*constant)
	if !ok1 || !ok2 {
		return nil, nil, ""
	}
	return c, constant.value, name
}

func (l *lowering) ordering(n *apply, c *column, k any, name string) clause {
	t := &threshold{of: c, upper: name == "<" || name == "<=", residue: residue{n}}
	t.end.there, t.end.open = true, name == "<" || name == ">"
	if c.form == formOther || !t.end.set(c.form, k) || t.end.state == stateNull {
		return nil
	}
	same := comparison{c, t.upper, t.end.mark()}
	if l.thresholds[same] == nil {
		l.thresholds[same] = t
	}
	return l.thresholds[same]
}
