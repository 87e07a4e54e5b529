package rules

import "postman/cdc"

// RuleKeys says how the changes that a rule may match are found (see docs/engine.md).
type RuleKeys struct {
	Rule *Rule
	Ops  []OpKeys // of the rule's operations, in its own order
}

// OpKeys is the same for one operation. Where neither Never nor Always is true, either Keys or Scan is set.
type OpKeys struct {
	Op     cdc.Op
	Keys   []string // as a person would write them, `new.status == "won"`: only a change that has one of them is tried
	Never  bool     // the condition is false whatever the change
	Always bool     // the condition is true whatever the change
	Scan   string   // why every change of the table must be tried, as the end of a sentence: "no condition on a column's value"
}

// Keys tells of each of the set's rules how changes find it, in the set's order.
func (s *Set) Keys() []RuleKeys {
	keys := make([]RuleKeys, len(s.Rules))
	for i, r := range s.Rules {
		keys[i].Rule = r
		for _, op := range r.On.Ops {
			keys[i].Ops = append(keys[i].Ops, OpKeys{Op: op, Always: r.When == nil, Scan: "there is no index yet"})
		}
	}
	return keys
}
