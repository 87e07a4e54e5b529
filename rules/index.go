package rules

import (
	"cmp"
	"slices"
)

// vertex is a place in an index: rules that a change must be tried against when it comes here, and branches that lead on
// to others by what the change has.
type vertex struct {
	here     []uint32 // numbers of rules
	branches []branch
}

// branch leads a change on by one of its columns.
type branch interface{ follow(s *search) }

// search gathers the rules that a change must be tried against. It is used again for the next change.
type search struct {
	frame *frame
	found []uint32
}

// candidates are the numbers of the rules that a change may match, in their order.
func (s *search) candidates(root *vertex) []uint32 {
	s.found = s.found[:0]
	s.visit(root)
	if len(s.found) > 1 {
		slices.Sort(s.found)
		s.found = slices.Compact(s.found)
	}
	return s.found
}

func (s *search) visit(v *vertex) {
	s.found = append(s.found, v.here...)
	for _, b := range v.branches {
		b.follow(s)
	}
}

// target is where a branch leads: to a vertex, or where that would have nothing but one rule, to the rule. Most lead to one.
type target struct {
	to   *vertex
	rule uint32
}

func (s *search) reach(t target) {
	if t.to == nil {
		s.found = append(s.found, t.rule)
		return
	}
	s.visit(t.to)
}

// values leads on by a column's value.
type values struct {
	of    *column
	null  *target // nil: none
	ints  map[int64]target
	nums  map[number]target
	texts map[string]target
	bigs  []bigValue
}

// number is a scalar's n × 10^exp.
type number struct {
	n   int64
	exp int32
}

type bigValue struct {
	scalar
	target
}

func (b *values) follow(s *search) {
	var t target
	var ok bool
	switch v := s.frame.scalar(b.of); v.state {
	case stateText:
		t, ok = b.texts[string(v.text)]
	case stateInt:
		t, ok = b.ints[v.n]
	case stateNum:
		if v.big != nil {
			t, ok = b.big(v)
		} else {
			t, ok = b.nums[number{v.n, v.exp}]
		}
	case stateNull:
		if b.null != nil {
			t, ok = *b.null, true
		}
	case stateOdd, stateAbsent:
		b.all(s)
	}
	if ok {
		s.reach(t)
	}
}

func (b *values) big(v *scalar) (target, bool) {
	for i := range b.bigs {
		if b.bigs[i].equal(v) {
			return b.bigs[i].target, true
		}
	}
	return target{}, false
}

// all goes everywhere: the column's value is not known.
func (b *values) all(s *search) {
	if b.null != nil {
		s.reach(*b.null)
	}
	for _, t := range b.ints {
		s.reach(t)
	}
	for _, t := range b.nums {
		s.reach(t)
	}
	for _, t := range b.texts {
		s.reach(t)
	}
	for i := range b.bigs {
		s.reach(b.bigs[i].target)
	}
}

func (b *values) add(v scalar, t target) {
	switch {
	case v.state == stateNull:
		b.null = &t
	case v.state == stateInt:
		b.ints[v.n] = t
	case v.state == stateText:
		b.texts[string(v.text)] = t
	case v.big != nil:
		b.bigs = append(b.bigs, bigValue{v, t})
	default:
		b.nums[number{v.n, v.exp}] = t
	}
}

// prefixes leads on by how a column's text begins.
type prefixes struct {
	of      *column
	lengths []int
	texts   map[string]target
}

func (b *prefixes) follow(s *search) {
	v := s.frame.scalar(b.of)
	if v.state == stateAbsent {
		for _, t := range b.texts {
			s.reach(t)
		}
	}
	if v.state != stateText {
		return
	}
	for _, n := range b.lengths {
		if n > len(v.text) {
			return
		}
		if t, ok := b.texts[string(v.text[:n])]; ok {
			s.reach(t)
		}
	}
}

func (b *prefixes) add(text []byte, t target) {
	b.texts[string(text)] = t
	if i, known := slices.BinarySearch(b.lengths, len(text)); !known {
		b.lengths = slices.Insert(b.lengths, i, len(text))
	}
}

// ranges leads on by the intervals in which a column's value lies: a binary tree laid out in an array, in the order of
// lower bounds, where each interval knows how high those of its subtree reach.
type ranges struct {
	of     *column
	pieces []piece
}

type piece struct {
	lo, hi bound
	reach  *bound
	target
}

func (b *ranges) follow(s *search) {
	switch v := s.frame.scalar(b.of); v.state {
	case stateNull:
	case stateOdd, stateAbsent:
		for i := range b.pieces {
			s.reach(b.pieces[i].target)
		}
	case stateInt, stateNum, stateText:
		stab(s, b.pieces, v)
	}
}

// stab visits the intervals that a value lies in. The middle of the pieces is the root of their tree.
func stab(s *search, pieces []piece, v *scalar) {
	for len(pieces) > 0 {
		middle := len(pieces) / 2
		root := &pieces[middle]
		if !root.reach.above(v) {
			return
		}
		stab(s, pieces[:middle], v)
		if !root.lo.below(v) {
			return
		}
		if root.hi.above(v) {
			s.reach(root.target)
		}
		pieces = pieces[middle+1:]
	}
}

// settle sorts the pieces and computes their reach.
func (b *ranges) settle() {
	slices.SortStableFunc(b.pieces, func(x, y piece) int { return x.lo.compareLow(&y.lo) })
	reach(b.pieces)
}

func reach(pieces []piece) *bound {
	if len(pieces) == 0 {
		return nil
	}
	middle := len(pieces) / 2
	root := &pieces[middle]
	root.reach = &root.hi
	for _, side := range []*bound{reach(pieces[:middle]), reach(pieces[middle+1:])} {
		if side != nil && side.compareHigh(root.reach) > 0 {
			root.reach = side
		}
	}
	return root.reach
}

// compareLow orders lower bounds: what a higher one lets through a lower one does too. That an open bound is higher than the
// closed one at the same value matters little, and that none is the lowest of all.
func (b *bound) compareLow(c *bound) int {
	if !b.there || !c.there {
		return b2i(b.there) - b2i(c.there)
	}
	return cmp.Or(b.compare(&c.scalar), b2i(b.open)-b2i(c.open))
}

// compareHigh orders upper bounds.
func (b *bound) compareHigh(c *bound) int {
	if !b.there || !c.there {
		return b2i(c.there) - b2i(b.there)
	}
	return cmp.Or(b.compare(&c.scalar), b2i(c.open)-b2i(b.open))
}

// change leads on where a column changed.
type change struct {
	of *column
	target
}

// present leads on where a column is not NULL.
type present struct {
	of *column
	target
}

func (b *change) follow(s *search) {
	if !s.frame.unchanged(b.of.index) {
		s.reach(b.target)
	}
}

func (b *present) follow(s *search) {
	if s.frame.scalar(b.of).state != stateNull {
		s.reach(b.target)
	}
}
