package rules

import (
	"regexp"
	"time"

	"postman/cdc"
	"postman/value"
)

// node is a checked expression. eval never fails: a value is one of package value's, or a time.Duration or Duration, nil for
// NULL, or an *absent where it cannot be known. docs/rules.md has the meaning of each operator.
//
// Each node is a pointer to one of the types below, which name what they do: the tree can be walked, told and lowered (see
// lower). Walking it is the plainest way to evaluate a rule, and the one that all others are compared with.
type node interface{ eval(f *frame) any }

// truth is a value as a condition: NULL, and JSON that is no truth value, are false.
func truth(v any) any {
	switch v.(type) {
	case bool, *absent:
		return v
	}
	return false
}

// either returns the first of two values that is absent, so that what depends on one is absent too.
func either(a, b any) *absent {
	if x, ok := a.(*absent); ok {
		return x
	}
	x, _ := b.(*absent)
	return x
}

type constant struct{ value any }

func (n *constant) eval(*frame) any { return n.value }

// column is a column of the new or the old row.
type column struct {
	side   side
	index  int
	name   string
	base   uint32
	form   form
	absent *absent // what it is when the stream does not carry it
}

func (n *column) eval(f *frame) any { return f.value(n) }

// envelope is a part of the change that is no column.
type envelope struct{ part }

// part says which.
type part uint8

const (
	partOp part = iota
	partTime
	partXID
	partMessage
	partElement // #, of the list that a predicate is tried on
)

func (n *envelope) eval(f *frame) any {
	switch n.part {
	case partOp:
		return opValues[f.op]
	case partTime:
		if f.tx.Time.IsZero() && f.change != nil {
			f.early = true
			return untimed
		}
		return f.tx.Time
	case partXID:
		return int64(f.tx.XID)
	case partMessage:
		return f.message
	case partElement:
	}
	return f.element
}

// untimed is the time of a commit that has not been read.
var untimed = &absent{column: "commit_time"}

// opValues keep the operations' names as values, since making one allocates.
var opValues = [...]any{
	cdc.Insert: cdc.Insert.String(), cdc.Update: cdc.Update.String(), cdc.Delete: cdc.Delete.String(),
	cdc.Truncate: cdc.Truncate.String(), cdc.Emit: cdc.Emit.String(),
}

// member is a key of a JSON object; of anything else it is NULL.
type member struct {
	of  node
	key string
}

func (n *member) eval(f *frame) any {
	v := n.of.eval(f)
	if x, ok := v.(*absent); ok {
		return x
	}
	object, _ := v.(map[string]any)
	return object[n.key]
}

// item is an item of a JSON list, counted from 0; of anything else it is NULL.
type item struct {
	of    node
	index int64
}

func (n *item) eval(f *frame) any {
	v := n.of.eval(f)
	if x, ok := v.(*absent); ok {
		return x
	}
	list, _ := v.([]any)
	if n.index < 0 || n.index >= int64(len(list)) {
		return nil
	}
	return list[n.index]
}

// not, and, or are Kleene's. With nothing absent they are those of two values, since NULL counts as false.
type not struct{ of node }

func (n *not) eval(f *frame) any {
	v := truth(n.of.eval(f))
	if b, ok := v.(bool); ok {
		return !b
	}
	return v
}

// junction is a conjunction, or a disjunction: then decided is what one part may decide alone.
type junction struct {
	a, b    node
	decided bool // false: and; true: or
}

func (n *junction) eval(f *frame) any {
	a := truth(n.a.eval(f))
	if a == any(n.decided) {
		return a
	}
	b := truth(n.b.eval(f))
	if x, ok := a.(*absent); ok && b != any(n.decided) {
		return x
	}
	return b
}

// equality is == and !=, where NULL is a value like others.
type equality struct {
	a, b node
	not  bool
}

func (n *equality) eval(f *frame) any {
	a, b := n.a.eval(f), n.b.eval(f)
	if x := either(a, b); x != nil {
		return x
	}
	return equal(a, b) != n.not
}

// changed is old.c != new.c, decided without decoding where the stream says so.
type changed struct{ now, then *column }

func (n *changed) eval(f *frame) any {
	if f.unchanged(n.now.index) {
		return false
	}
	return (&equality{n.then, n.now, true}).eval(f)
}

// apply is a function of one or two values. Where one of them is NULL, the other one does not count; else it is absent
// where one of them is.
type apply struct {
	*function
	a, b node // b is nil of a function of one value
}

// function is an operator or a function. It is total: null is its value where one of its values is NULL.
type function struct {
	name string // as it is written
	null any
	do   func(a, b any) any
}

func (n *apply) eval(f *frame) any {
	a := n.a.eval(f)
	if a == nil {
		return n.null
	}
	var b any
	if n.b != nil {
		if b = n.b.eval(f); b == nil {
			return n.null
		}
	}
	if x := either(a, b); x != nil {
		return x
	}
	return n.do(a, b)
}

// matches is x matches a regular expression.
type matches struct {
	of node
	re *regexp.Regexp
}

func (n *matches) eval(f *frame) any {
	switch v := n.of.eval(f).(type) {
	case *absent:
		return v
	case string:
		return n.re.MatchString(v)
	}
	return false
}

// oneOfList is x in [a, b].
type oneOfList struct {
	x    node
	list []node
}

func (n *oneOfList) eval(f *frame) any {
	x := n.x.eval(f)
	if a, ok := x.(*absent); ok {
		return a
	}
	var unknown *absent
	for _, item := range n.list {
		switch v := item.eval(f).(type) {
		case *absent:
			unknown = v
		default:
			if equal(x, v) {
				return true
			}
		}
	}
	if unknown != nil {
		return unknown
	}
	return false
}

// within is x in a column or a JSON value: an item of a list, or a key of an object.
type within struct{ x, of node }

func (n *within) eval(f *frame) any {
	x, of := n.x.eval(f), n.of.eval(f)
	if of == nil {
		return false
	}
	if a := either(x, of); a != nil {
		return a
	}
	switch of := of.(type) {
	case []any:
		for _, v := range of {
			if equal(x, v) {
				return true
			}
		}
	case map[string]any:
		key, ok := x.(string)
		_, has := of[key]
		return ok && has
	}
	return false
}

// choice is c ? a : b. With an absent condition it is absent, unless both branches come to the same.
type choice struct{ c, a, b node }

func (n *choice) eval(f *frame) any {
	c := truth(n.c.eval(f))
	if branch := n.branch(c); branch != nil {
		return branch.eval(f)
	}
	a, b := n.a.eval(f), n.b.eval(f)
	if either(a, b) == nil && equal(a, b) {
		return a
	}
	return c
}

// branch is the one that is taken; nil where that is not known.
func (n *choice) branch(c any) node {
	switch c {
	case true:
		return n.a
	case false:
		return n.b
	}
	return nil
}

// fallback is a ?? b.
type fallback struct{ a, b node }

func (n *fallback) eval(f *frame) any {
	if a := n.a.eval(f); a != nil {
		return a
	}
	return n.b.eval(f)
}

// quantifier is any, all, none, one or count of a list's elements for which a predicate is true. A NULL, or JSON that
// is no list, has no elements.
type quantifier struct {
	name     string
	of, pred node
}

func (n *quantifier) eval(f *frame) any {
	of := n.of.eval(f)
	if x, ok := of.(*absent); ok {
		return x
	}
	list, _ := of.([]any)
	var unknown *absent
	yes, no := int64(0), int64(0)
	for _, v := range list {
		f.element = v
		switch t := truth(n.pred.eval(f)).(type) {
		case bool:
			if t {
				yes++
			} else {
				no++
			}
		case *absent:
			unknown = t
		}
	}
	return n.result(yes, no, unknown)
}

// result is what the numbers of elements tell: without an absent one everything, and with one that which it could not change.
func (n *quantifier) result(yes, no int64, unknown *absent) any {
	switch {
	case n.name == "any" && yes > 0:
		return true
	case n.name == "all" && no > 0, n.name == "none" && yes > 0, n.name == "one" && yes > 1:
		return false
	case unknown != nil:
		return unknown
	}
	switch n.name {
	case "any":
		return false
	case "one":
		return yes == 1
	case "count":
		return yes
	}
	return true // all, none
}

// items is a list that is written out. One of its items may be absent.
type items struct{ list []node }

func (n *items) eval(f *frame) any {
	list := make([]any, len(n.list))
	for i, item := range n.list {
		list[i] = item.eval(f)
	}
	return list
}

// equal is value.Equal, quicker where it is asked most.
func equal(a, b any) bool {
	switch a := a.(type) {
	case int64:
		if b, ok := b.(int64); ok {
			return a == b
		}
	case string:
		b, ok := b.(string)
		return ok && a == b
	case time.Duration, Duration:
		return b != nil && stretch(a) == stretch(b)
	}
	return value.Equal(a, b)
}

// order is value.Compare, quicker where it is asked most.
func order(a, b any) (int, bool) {
	if a, ok := a.(int64); ok {
		if b, ok := b.(int64); ok {
			switch {
			case a < b:
				return -1, true
			case a > b:
				return 1, true
			}
			return 0, true
		}
	}
	return value.Compare(a, b)
}
