package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postman/cdc"
	"postman/value"
)

// RuleKeys says how the changes that a rule may match are found (see docs/engine.md).
type RuleKeys struct {
	Rule *Rule
	Ops  []OpKeys // of the rule's operations, in its own order
}

// OpKeys is the same for one operation. Exactly one of its fields behind Op is set.
type OpKeys struct {
	Op     cdc.Op
	Keys   []string // as a person would write them, `new.status == "won"`: only a change that has one of them is tried
	Never  bool     // the condition is false whatever the change
	Always bool     // the condition is true whatever the change
	Scan   string   // why every change of the table must be tried: what the condition is made of, as in "contains; != and not"
}

// Keys tells of each of the set's rules how changes find it, in the set's order. A key may depend on the other rules of the
// table: where many share one, they are told apart by a second.
func (s *Set) Keys() []RuleKeys {
	s.prepare()
	found := make(map[*Rule]map[cdc.Op]OpKeys, len(s.Rules))
	for _, w := range s.watches {
		for op := range w.ops {
			for i, keys := range w.ops[op].keys() {
				r := w.ops[op].rules[i].rule
				if found[r] == nil {
					found[r] = make(map[cdc.Op]OpKeys)
				}
				keys.Op = cdc.Op(op)
				found[r][cdc.Op(op)] = keys
			}
		}
	}
	all := make([]RuleKeys, len(s.Rules))
	for i, r := range s.Rules {
		all[i].Rule = r
		for _, op := range r.On.Ops {
			keys, ok := found[r][op]
			if !ok { // a message is found by its name
				keys = OpKeys{Op: op, Keys: []string{"message " + r.On.Message}}
			}
			all[i].Ops = append(all[i].Ops, keys)
		}
	}
	return all
}

// keys are those of the operation's rules, by their numbers. The index is built once more, since it does not keep them.
func (o *opRules) keys() []OpKeys {
	all := make([]OpKeys, len(o.rules))
	o.grow(func(rule uint32, path []*key) {
		if len(path) > 0 {
			all[rule].Keys = append(all[rule].Keys, describe(path))
		}
	})
	for i := range o.rules {
		switch t := &o.rules[i]; {
		case t.never():
			all[i].Never = true
		case t.always():
			all[i].Always = true
		case len(all[i].Keys) == 0:
			all[i].Scan = strings.Join(keyless(t.parts), "; ")
		}
		slices.Sort(all[i].Keys)
		all[i].Keys = slices.Compact(all[i].Keys)
	}
	return all
}

// describe is a path of keys as an expression.
func describe(path []*key) string {
	parts := make([]string, len(path))
	for i, k := range path {
		parts[i] = k.String()
	}
	return strings.Join(parts, " and ")
}

// String is the key as an expression.
func (k *key) String() string {
	name := k.of.String()
	switch k.kind {
	case keyValue:
		switch {
		case k.state == stateNull:
			return name + " == nil"
		case k.of.form != formBool:
			return name + " == " + k.of.literal(&k.scalar)
		case k.n == 0:
			return "not " + name
		}
	case keyPresent:
		return name + " != nil"
	case keyPrefix:
		return name + " startsWith " + k.of.literal(&k.scalar)
	case keyChanged:
		return "changed(" + name + ")"
	case keyRange:
		return k.rangeString(name)
	}
	return name
}

func (k *key) rangeString(name string) string {
	operator := func(b *bound, sign string) string {
		if b.open {
			return " " + sign + " "
		}
		return " " + sign + "= "
	}
	switch {
	case !k.lo.there:
		return name + operator(&k.hi, "<") + k.of.literal(&k.hi.scalar)
	case !k.hi.there:
		return name + operator(&k.lo, ">") + k.of.literal(&k.lo.scalar)
	}
	return k.of.literal(&k.lo.scalar) + operator(&k.lo, "<") + name + operator(&k.hi, "<") + k.of.literal(&k.hi.scalar)
}

// String is the column as an expression has it.
func (c *column) String() string {
	if goodLoad.MatchString(c.name) {
		return c.side.String() + "." + c.name
	}
	return fmt.Sprintf("%s[%q]", c.side, c.name)
}

// literal is a scalar of the column as an expression has it.
func (c *column) literal(s *scalar) string {
	layout := ""
	switch c.form {
	case formText, formPadded:
		return strconv.Quote(string(s.text))
	case formNumber, formFloat:
		n := new(value.Decimal).Set(s.number())
		n.Reduce(n)
		return n.Text('f')
	case formInstant:
		layout = "2006-01-02T15:04:05.999999Z07:00"
	case formLocal:
		layout = "2006-01-02T15:04:05.999999"
	case formDay:
		layout = time.DateOnly
	case formBool, formWhole, formOther:
		return strconv.FormatInt(s.n, 10)
	}
	const second = 1_000_000
	seconds, micros := s.n/second, s.n%second
	return fmt.Sprintf("date(%q)", time.Unix(epoch+seconds, micros*1000).UTC().Format(layout))
}

// keyless names what in a condition is no key.
func keyless(c clause) []string {
	var names []string
	switch c := c.(type) {
	case all:
		for _, part := range c {
			names = append(names, keyless(part)...)
		}
	case some:
		for _, part := range c {
			if coverOf(part) == nil {
				names = append(names, keyless(part)...)
			}
		}
		if len(names) == 0 {
			names = []string{fmt.Sprintf("more than %d values in all", maxKeys)}
		}
	case *equals:
		names = []string{"!="}
	case *memberOf:
		names = []string{"not in"}
		if !c.not {
			names = []string{fmt.Sprintf("a list of more than %d values", maxKeys)}
		}
	case opposite:
		names = []string{"not"}
	case *fragment:
		names = []string{c.name}
	case *likeness:
		names = []string{"matches"}
	case *pair:
		names = []string{"two columns that are compared with each other"}
	case residue:
		names = []string{keylessTree(c.node)}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keylessTree names what it is that no clause was made of.
func keylessTree(n node) string {
	switch n := n.(type) {
	case *not:
		return "not"
	case *quantifier:
		return n.name + "() of a list"
	case *within:
		return "a list column or JSON behind in"
	case *member, *item:
		return "a part of JSON"
	case *choice:
		return "? :"
	case *equality:
		return keylessOperand(n.a, n.b)
	case *apply:
		return keylessOperand(n.a, n.b)
	case *oneOfList:
		return keylessOperand(append(n.list[:len(n.list):len(n.list)], n.x)...)
	case *matches:
		return keylessOperand(n.of)
	}
	return "what is no column"
}

// keylessOperand names what is compared that is no column.
func keylessOperand(operands ...node) string {
	for _, n := range operands {
		switch n := n.(type) {
		case *member, *item:
			return "a part of JSON"
		case *quantifier:
			return n.name + "() of a list"
		case *apply:
			return n.name + " of a column"
		case *fallback:
			return "??"
		case *choice:
			return "? :"
		case *envelope:
			return [...]string{"op", "commit_time", "xid", "message", "#"}[n.part]
		}
	}
	return "a value that no column of the type can be found by"
}
