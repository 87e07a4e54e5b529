package rules

import "github.com/cockroachdb/apd/v3"

// cover is a list of keys of a clause: whatever the change, it has one of them, or the clause is false. So an index that finds
// the changes that have one of the keys misses none for which the clause is true, nor any for which it is undetermined:
// a key whose column is absent counts as one that the change has. The nil cover is that of a clause without keys.
type cover []key

// key is a property of one column of a change that an index can find.
type key struct {
	kind keyKind
	of   *column
	scalar
	*enclosure // of keyRange, else nil: most keys are values
}

// bounds are those of an interval.
type enclosure struct{ lo, hi bound }

type keyKind uint8

const (
	keyValue   keyKind = iota // the column is equal to the scalar, or NULL
	keyPresent                // it is not NULL
	keyRange                  // it lies between two bounds
	keyPrefix                 // it begins with the scalar
	keyChanged                // it changed
)

// maxKeys bounds a cover: beyond, every change is tried.
const maxKeys = 256

// maxAlternatives bounds how many parts of a disjunction find their changes each in its own way.
const maxAlternatives = 16

func coverOf(c clause) cover {
	switch c := c.(type) {
	case *memberOf:
		return coverOfMember(c)
	case *equals:
		if !c.not {
			return cover{{of: c.of, scalar: c.value}}
		}
	case *threshold:
		if c.upper {
			return cover{{kind: keyRange, of: c.of, enclosure: &enclosure{hi: c.end}}}
		}
		return cover{{kind: keyRange, of: c.of, enclosure: &enclosure{lo: c.end}}}
	case *interval:
		return cover{{kind: keyRange, of: c.of, enclosure: &enclosure{c.lo, c.hi}}}
	case *fragment:
		if c.name == "startsWith" {
			return cover{{kind: keyPrefix, of: c.of, scalar: scalar{state: stateText, text: c.part}}}
		}
	case *differs:
		return cover{{kind: keyChanged, of: c.now}}
	case all:
		var best cover
		for _, part := range c {
			if keys := coverOf(part); keys != nil && (best == nil || prior(keys) < prior(best)) {
				best = keys
			}
		}
		return best
	case some:
		var keys cover
		for _, part := range c {
			more := coverOf(part)
			if more == nil || len(keys)+len(more) > maxKeys {
				return nil
			}
			keys = append(keys, more...)
		}
		return keys
	}
	return nil
}

func coverOfMember(c *memberOf) cover {
	switch {
	case c.not && len(c.list) == 0:
		return cover{{kind: keyPresent, of: c.of}}
	case c.not || len(c.list) > maxKeys:
		return nil
	}
	keys := make(cover, 0, len(c.list)+b2i(c.null))
	for _, v := range c.list {
		keys = append(keys, key{of: c.of, scalar: v})
	}
	if c.null {
		keys = append(keys, key{of: c.of})
	}
	return keys
}

// conjunctions are the covers of a condition's parts: it is true or undetermined only where one of the conjunctions is, and
// that only where all its parts are. Each is found by any one of its covers.
func (m coverer) conjunctions(parts all) [][]cover {
	if alternatives, ok := parts[0].(some); ok && len(parts) == 1 && len(alternatives) <= maxAlternatives {
		var found [][]cover
		for _, a := range alternatives {
			parts, ok := a.(all)
			if !ok {
				parts = all{a}
			}
			found = append(found, m.conjuncts(parts))
		}
		return found
	}
	return [][]cover{m.conjuncts(parts)}
}

func (m coverer) conjuncts(parts all) []cover {
	covers := make([]cover, 0, len(parts))
	for _, part := range parts {
		if keys := m.of(part); keys != nil {
			covers = append(covers, keys)
		}
	}
	return covers
}

// coverer keeps the covers of clauses that rules share, while an index grows: there are thousands of rules.
type coverer map[clause]cover

func (m coverer) of(c clause) cover {
	switch c.(type) {
	case *memberOf, *threshold:
	default:
		return coverOf(c)
	}
	keys, known := m[c]
	if !known {
		keys = coverOf(c)
		m[c] = keys
	}
	return keys
}

// prior is how likely a change has one of the keys, as far as is known of any table.
func prior(keys cover) float64 {
	sum := 0.0
	for i := range keys {
		sum += keys[i].prior()
	}
	return min(sum, 1)
}

func (k *key) prior() float64 {
	switch k.kind {
	case keyValue:
		if k.state == stateNull {
			return 1. / 8
		}
		return k.of.prior()
	case keyPrefix:
		return 1 / float64(int(1)<<min(len(k.text), 5))
	case keyChanged:
		return 1. / 4
	case keyRange:
		if k.lo.there && k.hi.there {
			return 1. / 6
		}
		return 1. / 2
	case keyPresent:
	}
	return 7. / 8
}

// prior is how likely the column has some one value.
func (c *column) prior() float64 {
	switch c.form {
	case formBool:
		return 1. / 2
	case formText, formPadded:
		return 1. / 16
	case formWhole, formNumber, formFloat, formInstant, formLocal, formDay, formOther:
	}
	return 1. / 32
}

// spot is a column's place in a change.
type spot struct {
	side  side
	index int
}

func (c *column) spot() spot { return spot{c.side, c.index} }

// place is a key as a map knows it: keys that are the same have the same place.
type place struct {
	kind          keyKind
	spot          spot
	value, lo, hi mark
}

type mark struct {
	state       state
	exp         int32
	n           int64
	text        string
	there, open bool
}

func (k *key) place() place {
	p := place{kind: k.kind, spot: k.of.spot(), value: k.mark()}
	if k.enclosure != nil {
		p.lo, p.hi = k.lo.mark(), k.hi.mark()
	}
	return p
}

func (b *bound) mark() mark {
	m := b.scalar.mark()
	m.there, m.open = b.there, b.open
	return m
}

func (s *scalar) mark() mark {
	m := mark{state: s.state, exp: s.exp, n: s.n, text: string(s.text)}
	if s.big != nil {
		var r apd.Decimal
		if r.Set(s.big); r.Form == apd.Finite {
			r.Reduce(&r)
		}
		m.text = r.String()
	}
	return m
}

// odds tell how likely keys are, among conditions that were written about the same columns: whoever compares a column with
// a thousand values says that it has as many. They are the numbers of values.
type odds map[spot]int

func oddsOf(entries []entry) odds {
	type value struct {
		of   spot
		mark mark
	}
	o, seen := make(odds), make(map[value]bool)
	for i := range entries {
		for _, keys := range entries[i].covers {
			for i := range keys {
				if keys[i].kind != keyValue {
					continue
				}
				if v := (value{keys[i].of.spot(), keys[i].mark()}); !seen[v] {
					seen[v] = true
					o[v.of]++
				}
			}
		}
	}
	return o
}

// chance is how likely a change has one of the keys.
func (o odds) chance(keys cover) float64 {
	sum := 0.0
	for i := range keys {
		p := keys[i].prior()
		if values := o[keys[i].of.spot()]; keys[i].kind == keyValue && values > 1 {
			p = min(p, 1/float64(values))
		}
		sum += p
	}
	return min(sum, 1)
}
