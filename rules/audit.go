package rules

import (
	"fmt"
	"slices"
)

// auditEvery is how many changes there are to one that is audited, the first of them: 1,024, or 64 for each rule where that is
// more. So audits cost a change a few nanoseconds, however many rules there are.
func (o *opRules) auditEvery() int { return max(1<<10, len(o.rules)<<6) }

// audit tries every rule, and compares with what the index says.
func (p *Plan) audit(o *opRules, yield func(*Rule, Verdict)) {
	found, err := p.find(o)
	p.tryAll(o, func(i int, v Verdict) {
		if err != nil {
			return
		}
		quick := Verdict{}
		if _, ok := slices.BinarySearch(found, uint32(i)); ok {
			quick = p.frame.judge(&o.rules[i])
		}
		if quick.Truth != v.Truth {
			p.tell(o.rules[i].rule, fmt.Errorf("the index says %s of a change, and trying every rule says %s", quick.Truth, v.Truth))
		}
	}, yield)
}

// tryAll tries every rule as if there were no index. Each verdict is shown to see first.
func (p *Plan) tryAll(o *opRules, see func(i int, v Verdict), yield func(*Rule, Verdict)) {
	for i := range o.rules {
		v := p.frame.try(o.rules[i].when)
		see(i, v)
		if v.Truth != False {
			yield(o.rules[i].rule, v)
		}
	}
}

func (p *Plan) tell(r *Rule, err error) {
	if p.OnMismatch != nil {
		p.OnMismatch(r, err)
	}
}

// String is the truth value as a word.
func (t Truth) String() string { return [...]string{"false", "true", "undetermined"}[t] }
