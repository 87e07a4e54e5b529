package rules

import "postman/cdc"

// specialize is a condition as far as it is known of an operation's changes: op is a constant there, and the row that the
// operation has not is one of NULLs. What depends on constants only is one then, a whole rule included. On every change of
// the operation the result comes to the same truth value as the condition.
func specialize(condition node, op cdc.Op) node { return special(op).condition(condition) }

type special cdc.Op

// condition is a node where only its truth value counts.
func (s special) condition(n node) node {
	switch n := n.(type) {
	case *junction:
		return s.junction(n)
	case *not:
		return s.not(n)
	case *choice:
		if c, ok := s.condition(n.c).(*constant); ok {
			return s.condition(n.branch(c.value))
		}
	}
	n = s.value(n)
	if k, ok := n.(*constant); ok {
		return &constant{truth(k.value)}
	}
	return n
}

func (s special) junction(n *junction) node {
	a, b := s.condition(n.a), s.condition(n.b)
	for _, side := range [2][2]node{{a, b}, {b, a}} {
		switch k, ok := side[0].(*constant); {
		case ok && k.value == n.decided:
			return k
		case ok:
			return side[1]
		}
	}
	return &junction{a, b, n.decided}
}

func (s special) not(n *not) node {
	of := s.condition(n.of)
	return fold(&not{of}, of)
}

// value is a node where its value counts.
func (s special) value(n node) node {
	switch n := n.(type) {
	case *column:
		if !hasRow(cdc.Op(s), n.side) {
			return &constant{}
		}
	case *envelope:
		if n.part == partOp {
			return &constant{opValues[s]}
		}
	case *junction:
		a, b := s.condition(n.a), s.condition(n.b)
		return s.decide(&junction{a, b, n.decided})
	case *not:
		return s.not(n)
	case *changed:
		if cdc.Op(s) != cdc.Update {
			return s.value(&equality{n.then, n.now, true})
		}
	case *equality:
		a, b := s.value(n.a), s.value(n.b)
		return fold(&equality{a, b, n.not}, a, b)
	case *apply:
		return s.apply(n)
	case *matches:
		of := s.value(n.of)
		return fold(&matches{of, n.re}, of)
	case *oneOfList:
		x, list := s.value(n.x), s.values(n.list)
		return fold(&oneOfList{x, list}, append(list[:len(list):len(list)], x)...)
	case *within:
		x, of := s.value(n.x), s.value(n.of)
		if k, ok := of.(*constant); ok && k.value == nil {
			return &constant{false}
		}
		return fold(&within{x, of}, x, of)
	case *choice:
		return s.choice(n)
	case *fallback:
		return s.fallback(n)
	case *member:
		of := s.value(n.of)
		return fold(&member{of, n.key}, of)
	case *item:
		of := s.value(n.of)
		return fold(&item{of, n.index}, of)
	case *items:
		return &items{s.values(n.list)}
	case *quantifier:
		return s.quantifier(n)
	}
	return n
}

func (s special) values(list []node) []node {
	values := make([]node, len(list))
	for i, n := range list {
		values[i] = s.value(n)
	}
	return values
}

// decide is a junction as a value: true or false, and not NULL as a side of it may be.
func (s special) decide(n *junction) node {
	for _, side := range [2]node{n.a, n.b} {
		if k, ok := side.(*constant); ok && k.value == n.decided {
			return k
		}
	}
	return fold(n, n.a, n.b)
}

// apply knows that a function of NULL is what it is whatever its other value.
func (s special) apply(n *apply) node {
	a := s.value(n.a)
	if n.b == nil {
		return fold(&apply{n.function, a, nil}, a)
	}
	b := s.value(n.b)
	for _, side := range [2]node{a, b} {
		if k, ok := side.(*constant); ok && k.value == nil {
			return &constant{n.null}
		}
	}
	return fold(&apply{n.function, a, b}, a, b)
}

func (s special) fallback(n *fallback) node {
	a, b := s.value(n.a), s.value(n.b)
	k, ok := a.(*constant)
	switch {
	case ok && k.value == nil:
		return b
	case ok:
		return a
	}
	return &fallback{a, b}
}

// choice takes the branch that is known to be taken. Of two that may be, each keeps its value: two that are the same
// decide (see choice.eval).
func (s special) choice(n *choice) node {
	c := s.condition(n.c)
	if k, ok := c.(*constant); ok {
		return s.value(n.branch(k.value))
	}
	a, b := s.value(n.a), s.value(n.b)
	return &choice{c, a, b}
}

// quantifier knows that a list without elements needs no predicate.
func (s special) quantifier(n *quantifier) node {
	of, pred := s.value(n.of), s.condition(n.pred)
	q := &quantifier{n.name, of, pred}
	if k, ok := of.(*constant); ok {
		if list, _ := k.value.([]any); len(list) == 0 {
			return fold(q, of)
		}
	}
	return fold(q, of, pred)
}
