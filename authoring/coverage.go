package authoring

import (
	"postman/cdc"
	"postman/rules"
	"postman/value"
)

// Clause is a part of a condition that joins no others, and whether tests have shown that it matters: that the verdict would have been
// the other one if this clause had come to the other (MC/DC, RTCA DO-178C §6.4.4.2).
type Clause struct {
	Text  string
	Place rules.Place
	Lets  bool // there is a match that is due to it
	Keeps bool // and one that it keeps from being
}

// Coverage counts what tests have shown of a condition: each clause has two sides.
func (r *RuleReport) Coverage() (shown, all int) {
	for _, c := range r.Clauses {
		if all += 2; c.Lets {
			shown++
		}
		if c.Keeps {
			shown++
		}
	}
	return shown, all
}

// clausesOf are a condition's clauses, which are the same whatever the change.
func clausesOf(r *rules.Rule, t *cdc.Table) []*Clause {
	change := &cdc.Change{Op: cdc.Emit, Prefix: "postman." + r.On.Message, Content: []byte("{}")}
	if t != nil {
		row := make([]value.Datum, len(t.Columns))
		change = cdc.MakeChange(r.On.Ops[0], t, row, row)
	}
	var all []*Clause
	for s := range r.Explain(cdc.Tx{}, change).Clauses() {
		all = append(all, &Clause{Text: s.Text, Place: s.Place})
	}
	return all
}

// cover takes in what a change shows of the clauses.
func (r *RuleReport) cover(t *rules.Trace) {
	if t.When == nil {
		return
	}
	i := 0
	for s := range t.Clauses() {
		c := r.Clauses[i]
		if i++; s.Truth == rules.Undetermined {
			continue
		}
		other := rules.True
		if s.Truth == rules.True {
			other = rules.False
		}
		switch now, then := verdict(t.When, nil, 0), verdict(t.When, s, other); {
		case now == rules.True && then == rules.False:
			c.Lets = true
		case now == rules.False && then == rules.True:
			c.Keeps = true
		}
	}
}

// verdict is what a condition comes to when one of its clauses comes to something else. It is Kleene's logic.
func verdict(s, flipped *rules.Step, as rules.Truth) rules.Truth {
	if s == flipped {
		return as
	}
	switch s.Kind {
	case rules.AndStep:
		return junction(s, flipped, as, rules.False)
	case rules.OrStep:
		return junction(s, flipped, as, rules.True)
	case rules.NotStep:
		return map[rules.Truth]rules.Truth{rules.True: rules.False, rules.False: rules.True, rules.Undetermined: rules.Undetermined}[verdict(s.Parts[0], flipped, as)]
	case rules.IfStep:
		yes, no := verdict(s.Parts[1], flipped, as), verdict(s.Parts[2], flipped, as)
		switch verdict(s.Parts[0], flipped, as) {
		case rules.True:
			return yes
		case rules.False:
			return no
		case rules.Undetermined:
		}
		if yes == no {
			return yes
		}
		return rules.Undetermined
	case rules.ClauseStep, rules.ValueStep:
	}
	return s.Truth
}

// junction is a conjunction, which one False decides, or a disjunction, which one True does.
func junction(s, flipped *rules.Step, as, decisive rules.Truth) rules.Truth {
	all := rules.True
	if decisive == rules.True {
		all = rules.False
	}
	for _, part := range s.Parts {
		switch v := verdict(part, flipped, as); v {
		case decisive:
			return v
		case rules.Undetermined:
			all = v
		case rules.True, rules.False:
		}
	}
	return all
}
