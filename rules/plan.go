package rules

import (
	"fmt"
	"strings"

	"postman/cdc"
	"postman/value"
)

// Plan is a set bound to a table as the stream describes it: columns are resolved. One goroutine at a time.
type Plan struct {
	byOp  [cdc.Emit][]tried
	frame frame
}

// tried is a rule and its condition for this table; nil: every change.
type tried struct {
	rule *Rule
	when node
}

// Bind resolves the set's rules of one table. Rules that no longer fit it come back as Errors beside the plan of the others;
// Errors[i].Rule names them. The plan is nil where no rule is on the table, or none fits it.
func (s *Set) Bind(t *cdc.Table) (*Plan, error) {
	var plan *Plan
	var errs Errors
	for _, r := range s.Rules {
		if r.On.Message != "" || r.On.Table != t.TableName {
			continue
		}
		bound, mistakes := r.check(t, "")
		if errs = append(errs, mistakes...); len(mistakes) > 0 {
			continue
		}
		if plan == nil {
			plan = newPlan(t)
		}
		for _, op := range r.On.Ops {
			plan.byOp[op] = append(plan.byOp[op], tried{r, bound.When.node()})
		}
	}
	return plan, errs.orNil()
}

func newPlan(t *cdc.Table) *Plan {
	p := new(Plan)
	for s := range p.frame.cells {
		p.frame.cells[s] = make([]cell, len(t.Columns))
		p.frame.rows[s] = make([]value.Datum, 0, len(t.Columns))
	}
	return p
}

// Match tries the plan's rules on a change of its table, and calls yield for each whose verdict is not False.
func (p *Plan) Match(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) {
	if c.Op >= cdc.Emit || len(p.byOp[c.Op]) == 0 {
		return
	}
	p.frame.begin(tx, c)
	for _, t := range p.byOp[c.Op] {
		if v := p.frame.try(t.when); v.Truth != False {
			yield(t.rule, v)
		}
	}
}

// messagePrefix stands before the names of postman's messages.
const messagePrefix = "postman."

// MatchMessage tries the rules of a transactional message (prefix with "postman.").
func (s *Set) MatchMessage(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) {
	name, ok := strings.CutPrefix(c.Prefix, messagePrefix)
	if !ok || name == "" {
		return
	}
	var f *frame
	for _, r := range s.Rules {
		if r.On.Message != name {
			continue
		}
		if f == nil {
			f = new(frame)
			f.begin(tx, c)
			f.message = readMessage(c.Content)
		}
		if x, ok := f.message.(*absent); ok { // its mail could not be written either
			yield(r, Verdict{Truth: Undetermined, Err: x.err})
		} else if v := f.try(r.When.node()); v.Truth != False {
			yield(r, v)
		}
	}
}

// readMessage is a message's content, or an *absent that says why it cannot be read.
func readMessage(content []byte) any {
	v, err := value.DecodeJSON(content)
	if err != nil {
		return &absent{"message", fmt.Errorf("the message's content is no JSON: %w", err)}
	}
	return v
}

// try evaluates a condition. A panic is a defect of this package, and costs one verdict and not the stream.
func (f *frame) try(when node) (v Verdict) {
	if when == nil {
		return Verdict{Truth: True}
	}
	defer func() {
		if p := recover(); p != nil {
			v = Verdict{Truth: Undetermined, Err: fmt.Errorf("evaluating the rule: %v", p)}
		}
	}()
	switch t := truth(when.eval(f)).(type) {
	case bool:
		if t {
			return Verdict{Truth: True}
		}
		return Verdict{}
	case *absent:
		return Verdict{Truth: Undetermined, Err: t.err, Missing: t.column}
	}
	return Verdict{}
}
