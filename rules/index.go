package rules

import (
	"cmp"
	"math"
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

// follow makes the vertex a branch that all changes follow.
func (v *vertex) follow(s *search) {
	s.found = append(s.found, v.here...)
	for _, b := range v.branches {
		b.follow(s)
	}
}

// index finds the rules that a change may match. It is immutable.
type index struct {
	root         *vertex
	branches     []branch // that targets are numbers of
	dictionaries int
}

// target is where a branch leads: the number of a rule, or with isBranch that of another branch. Most lead to one rule, and
// there may be as many as there are values: so they are small.
type target uint32

const (
	isBranch target = 1 << 31
	nowhere  target = math.MaxUint32
)

func (t target) follow(s *search) {
	switch {
	case t&isBranch == 0:
		s.found = append(s.found, uint32(t))
	case t != nowhere:
		s.index.branches[t&^isBranch].follow(s)
	}
}

// search gathers the rules that a change must be tried against. It is used again for the next change.
type search struct {
	frame *frame
	index *index
	found []uint32
	ids   []idCell // by dictionary
}

type idCell struct {
	serial uint64
	id     uint32
}

// candidates are the numbers of the rules that a change may match, in their order.
func (s *search) candidates(in *index) []uint32 {
	s.index, s.found = in, s.found[:0]
	in.root.follow(s)
	if len(s.found) > 1 {
		slices.Sort(s.found)
		s.found = slices.Compact(s.found)
	}
	return s.found
}

// id is the number of the change's value.
func (s *search) id(d *dictionary) uint32 {
	cell := &s.ids[d.number]
	if cell.serial != s.frame.serial {
		cell.serial, cell.id = s.frame.serial, d.id(s.frame.scalar(d.of))
	}
	return cell.id
}

// values leads on by a column's value. Where it has most of the dictionary's numbers, the numbers are the indexes of its
// targets; else ids has them, sorted.
type values struct {
	dictionary *dictionary
	ids        []uint32
	targets    []target
}

func (b *values) follow(s *search) {
	switch id := s.id(b.dictionary); id {
	case idUnmentioned:
	case idUnknown: // it may be any of them
		for _, t := range b.targets {
			t.follow(s)
		}
	default:
		b.at(id).follow(s)
	}
}

// at is where a value of that number leads to.
func (b *values) at(id uint32) target {
	i := int(id)
	if b.ids != nil {
		at, ok := slices.BinarySearch(b.ids, id)
		if !ok {
			return nowhere
		}
		i = at
	}
	if i >= len(b.targets) {
		return nowhere
	}
	return b.targets[i]
}

func (b *values) add(v *scalar, t target) {
	id := b.dictionary.add(v)
	i, _ := slices.BinarySearch(b.ids, id)
	b.ids, b.targets = slices.Insert(b.ids, i, id), slices.Insert(b.targets, i, t)
}

// settle lays the targets out by their numbers, if that leaves few places empty.
func (b *values) settle() {
	const wide = 4
	last := b.ids[len(b.ids)-1]
	if int(last) >= wide*len(b.ids)+wide {
		return
	}
	targets := make([]target, last+1)
	for i := range targets {
		targets[i] = nowhere
	}
	for i, id := range b.ids {
		targets[id] = b.targets[i]
	}
	b.ids, b.targets = nil, targets
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
			t.follow(s)
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
			t.follow(s)
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
	to     target
}

func (b *ranges) follow(s *search) {
	switch v := s.frame.scalar(b.of); v.state {
	case stateNull:
	case stateOdd, stateAbsent:
		for i := range b.pieces {
			b.pieces[i].to.follow(s)
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
			root.to.follow(s)
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
	to target
}

// present leads on where a column is not NULL.
type present struct {
	of *column
	to target
}

func (b *change) follow(s *search) {
	if !s.frame.unchanged(b.of.index) {
		b.to.follow(s)
	}
}

func (b *present) follow(s *search) {
	if s.frame.scalar(b.of).state != stateNull {
		b.to.follow(s)
	}
}
