package rules

import (
	"bytes"
	"regexp"
	"slices"
)

// clause is a condition made ready to be tried on many changes: it reads columns as scalars, without making values of
// them. lower makes it of a tree, and it comes to the truth value that the tree comes to.
type clause interface{ try(f *frame) Truth }

func truthOf(b bool) Truth {
	if b {
		return True
	}
	return False
}

// always is a condition that no change matters to.
type always Truth

func (c always) try(*frame) Truth { return Truth(c) }

// residue is a condition that no clause is made of, or that one falls back on: its node is evaluated.
type residue struct{ node }

func (c residue) try(f *frame) Truth {
	switch v := truth(c.eval(f)).(type) {
	case bool:
		return truthOf(v)
	case *absent:
		return Undetermined
	}
	return False
}

// all is a conjunction: false, where one part is, and else undetermined, where one part is.
type all []clause

func (c all) try(f *frame) Truth {
	result := True
	for _, part := range c {
		switch part.try(f) {
		case False:
			return False
		case Undetermined:
			result = Undetermined
		case True:
		}
	}
	return result
}

// some is a disjunction.
type some []clause

func (c some) try(f *frame) Truth {
	result := False
	for _, part := range c {
		switch part.try(f) {
		case True:
			return True
		case Undetermined:
			result = Undetermined
		case False:
		}
	}
	return result
}

// opposite is what is true where its clause is false.
type opposite struct{ clause }

func (c opposite) try(f *frame) Truth {
	switch c.clause.try(f) {
	case True:
		return False
	case False:
		return True
	case Undetermined:
	}
	return Undetermined
}

// equals is whether a column has a value that is not NULL.
type equals struct {
	of    *column
	not   bool
	value scalar
	residue
}

func (c *equals) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateOdd:
		return c.residue.try(f)
	case stateNull:
		return truthOf(c.not)
	case stateInt, stateNum, stateText:
	}
	return truthOf(c.value.equal(v) != c.not)
}

// memberOf is whether a column's value is one of a list, in which NULL may be.
type memberOf struct {
	of        *column
	null, not bool
	list      []scalar // sorted
	residue
}

func (c *memberOf) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateOdd:
		return c.residue.try(f)
	case stateNull:
		return truthOf(c.null != c.not)
	case stateInt, stateNum, stateText:
	}
	_, found := slices.BinarySearchFunc(c.list, v, func(a scalar, b *scalar) int { return a.compare(b) })
	return truthOf(found != c.not)
}

// threshold is whether a column's value is on one side of a bound; NULL is on none.
type threshold struct {
	of    *column
	upper bool // the bound is above the values
	end   bound
	residue
}

func (c *threshold) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateOdd:
		return c.residue.try(f)
	case stateNull:
		return False
	case stateInt, stateNum, stateText:
	}
	if c.upper {
		return truthOf(c.end.above(v))
	}
	return truthOf(c.end.below(v))
}

// interval is whether a column's value lies between two bounds; NULL lies nowhere.
type interval struct {
	of     *column
	lo, hi bound
	residue
}

func (c *interval) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateOdd:
		return c.residue.try(f)
	case stateNull:
		return False
	case stateInt, stateNum, stateText:
	}
	return truthOf(c.lo.below(v) && c.hi.above(v))
}

// bound is an end of an interval; the zero bound is none.
type bound struct {
	scalar
	there, open bool // open: it does not belong to the interval
}

// below says whether a value is on the upper side of a lower bound.
func (b *bound) below(v *scalar) bool {
	if !b.there {
		return true
	}
	c := b.compare(v)
	return c < 0 || c == 0 && !b.open
}

// above says whether a value is on the lower side of an upper bound.
func (b *bound) above(v *scalar) bool {
	if !b.there {
		return true
	}
	c := b.compare(v)
	return c > 0 || c == 0 && !b.open
}

// fragment is whether a column's text contains another one, or begins or ends with it.
type fragment struct {
	of   *column
	name string
	part []byte
}

func (c *fragment) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateText:
	case stateNull, stateInt, stateNum, stateOdd:
		return False
	}
	switch c.name {
	case "startsWith":
		return truthOf(bytes.HasPrefix(v.text, c.part))
	case "endsWith":
		return truthOf(bytes.HasSuffix(v.text, c.part))
	}
	return truthOf(bytes.Contains(v.text, c.part))
}

// likeness is whether a column's text matches a regular expression.
type likeness struct {
	of *column
	re *regexp.Regexp
}

func (c *likeness) try(f *frame) Truth {
	v := f.scalar(c.of)
	switch v.state {
	case stateAbsent:
		return Undetermined
	case stateText:
		return truthOf(c.re.Match(v.text))
	case stateNull, stateInt, stateNum, stateOdd:
	}
	return False
}

// differs is whether a column changed.
type differs struct {
	changed
	residue
}

func (c *differs) try(f *frame) Truth {
	if f.unchanged(c.now.index) {
		return False
	}
	now, then := f.scalar(c.now), f.scalar(c.then)
	switch {
	case now.state == stateAbsent || then.state == stateAbsent:
		return Undetermined
	case now.state == stateOdd || then.state == stateOdd:
		return c.residue.try(f)
	}
	return truthOf(now.state != then.state || now.compare(then) != 0)
}

// pair is whether two columns' values are equal, or in an order.
type pair struct {
	a, b  *column
	holds func(c int) bool
	order bool // with NULL it is false; equality takes NULL for a value
	not   bool // of an equality
	residue
}

func (c *pair) try(f *frame) Truth {
	a, b := f.scalar(c.a), f.scalar(c.b)
	null := a.state == stateNull || b.state == stateNull
	switch {
	case null && c.order:
		return False
	case a.state == stateAbsent || b.state == stateAbsent:
		return Undetermined
	case a.state == stateOdd || b.state == stateOdd:
		return c.residue.try(f)
	case null:
		return truthOf((a.state == b.state) != c.not)
	}
	return truthOf(c.holds(a.compare(b)))
}
