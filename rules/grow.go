package rules

import "slices"

// Below the root a cover of many keys would put its rule in too many places.
const (
	fewKeys = 4
	deepest = 3
)

// entry is a rule, or one of the alternatives that it is a disjunction of, on its way to its places in an index.
type entry struct {
	rule   uint32
	covers []cover // those that have not led it here
}

// grower builds an index.
type grower struct {
	tell         func(rule uint32, path []*key) // of each place of each rule; may be nil
	dictionaries map[spot]*dictionary
	branches     []branch
}

// grow makes the vertex that the keys of a path lead to, and all below it. At each vertex a rule goes on by that of its
// covers which a change is least likely to have a key of; so equalities with several columns lead to it one after another, until
// it is alone.
func (g *grower) grow(entries []entry, path []*key) *vertex {
	v := new(vertex)
	if len(path) > 0 && (len(entries) == 1 || len(path) >= deepest) {
		for i := range entries {
			g.put(v, &entries[i], path)
		}
		return v
	}
	o, b := oddsOf(entries), buckets{at: make(map[place]int)}
	for i := range entries {
		e := &entries[i]
		best := o.best(e, len(path) > 0)
		if best < 0 {
			g.put(v, e, path)
			continue
		}
		rest := slices.Delete(slices.Clone(e.covers), best, best+1)
		for k := range e.covers[best] {
			b.add(&e.covers[best][k], entry{e.rule, rest})
		}
	}
	for i := range b.list {
		at := &b.list[i]
		g.join(v, at.key, g.target(g.grow(at.entries, append(path, at.key))))
	}
	for _, b := range v.branches {
		switch b := b.(type) {
		case *values:
			b.settle()
		case *ranges:
			b.settle()
		}
	}
	return v
}

// put leaves a rule at a vertex.
func (g *grower) put(v *vertex, e *entry, path []*key) {
	if n := len(v.here); n == 0 || v.here[n-1] != e.rule {
		v.here = append(v.here, e.rule)
	}
	if g.tell != nil {
		g.tell(e.rule, path)
	}
}

// best is the cover that is least likely to have a key; -1, if none is worth a branch.
func (o odds) best(e *entry, below bool) int {
	const hardly = 0.8 // a branch that nearly every change takes
	best, least := -1, 1.1
	for i, keys := range e.covers {
		chance := o.chance(keys)
		if below && (len(keys) > fewKeys || chance > hardly) || chance >= least {
			continue
		}
		best, least = i, chance
	}
	return best
}

// buckets are the entries by the keys that lead to them, in the order in which the keys came.
type buckets struct {
	at   map[place]int
	list []bucket
}

type bucket struct {
	*key
	entries []entry
}

func (b *buckets) add(k *key, e entry) {
	at := k.place()
	i, known := b.at[at]
	if !known {
		i = len(b.list)
		b.at[at] = i
		b.list = append(b.list, bucket{key: k})
	}
	b.list[i].entries = append(b.list[i].entries, e)
}

// target is what leads to a vertex.
func (g *grower) target(v *vertex) target {
	var to branch = v
	switch {
	case len(v.here) == 1 && len(v.branches) == 0:
		return target(v.here[0])
	case len(v.here) == 0 && len(v.branches) == 1:
		to = v.branches[0]
	}
	g.branches = append(g.branches, to)
	return target(len(g.branches)-1) | isBranch
}

// join adds a way from a vertex by a key.
func (g *grower) join(v *vertex, k *key, t target) {
	switch k.kind {
	case keyValue:
		d := g.dictionary(k.of)
		b := branchOf(v, func(b *values) bool { return b.dictionary == d }, func() *values { return &values{dictionary: d} })
		b.add(&k.scalar, t)
	case keyPrefix:
		b := branchOf(v, func(b *prefixes) bool { return b.of == k.of }, func() *prefixes {
			return &prefixes{of: k.of, texts: make(map[string]target)}
		})
		b.add(k.text, t)
	case keyRange:
		b := branchOf(v, func(b *ranges) bool { return b.of == k.of }, func() *ranges { return &ranges{of: k.of} })
		b.pieces = append(b.pieces, piece{lo: k.lo, hi: k.hi, to: t})
	case keyChanged:
		v.branches = append(v.branches, &change{k.of, t})
	case keyPresent:
		v.branches = append(v.branches, &present{k.of, t})
	}
}

func (g *grower) dictionary(of *column) *dictionary {
	d := g.dictionaries[of.spot()]
	if d == nil {
		d = newDictionary(of, len(g.dictionaries))
		g.dictionaries[of.spot()] = d
	}
	return d
}

// branchOf finds the vertex's branch that is such a one, or begins it.
func branchOf[B branch](v *vertex, such func(B) bool, begin func() B) B {
	for _, b := range v.branches {
		if b, ok := b.(B); ok && such(b) {
			return b
		}
	}
	b := begin()
	v.branches = append(v.branches, b)
	return b
}

// grow builds the index of an operation's rules. Those that no change can match are not in it.
func (o *opRules) grow(tell func(rule uint32, path []*key)) *index {
	entries, covers := make([]entry, 0, len(o.rules)), make(coverer)
	for i := range o.rules {
		t := &o.rules[i]
		if t.never() {
			continue
		}
		found := covers.conjunctions(t.parts)
		if slices.ContainsFunc(found, func(covers []cover) bool { return len(covers) == 0 }) {
			found = [][]cover{nil}
		}
		for _, covers := range found {
			entries = append(entries, entry{uint32(i), covers})
		}
	}
	g := &grower{tell: tell, dictionaries: make(map[spot]*dictionary)}
	root := g.grow(entries, nil)
	return &index{root, g.branches, len(g.dictionaries)}
}
