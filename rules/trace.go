package rules

import (
	"iter"
)

// Trace tells what a rule says of a change, and why.
type Trace struct {
	Rule    *Rule
	Verdict Verdict
	// Excluded says why the condition was not asked at all: the change is of another table or operation. Empty: it was.
	Excluded string
	// When is the condition; nil: there is none, or it was not asked, or it could not be (see Verdict.Err).
	When *Step
}

// Step is an expression, or a part of one, and what it came to on the change.
type Step struct {
	// Text is the part as it was written, in one line, and Place where in the rule file it begins. From and To say the same in
	// characters of the expression: they are this part's, whatever the change is.
	Text     string
	Place    Place
	From, To int

	Kind  StepKind
	Truth Truth  // of a condition
	Value string // of a value, as a person reads it: NULL, "won", 12.50; empty where it is not known
	Note  string // what is not obvious about the outcome: an order with NULL is false
	// Idle says that the part made no difference: another one had decided, whatever this one came to.
	Idle bool
	// Parts are the conditions that this one joins, or the values that a clause or a value is made of; values that are written out
	// are left out. Those of any, all, none, one and count end with the condition for each element, the first mostElements of them.
	Parts []*Step
}

// StepKind says what a step is.
type StepKind uint8

// The kinds of steps. All but ValueStep are conditions.
const (
	ClauseStep StepKind = iota // a condition that joins no others: new.price > 5
	AndStep                    // its parts have to be true, all of them
	OrStep                     // one of its parts has to be
	NotStep                    // its part must not be
	IfStep                     // a ? b : c: three parts
	ValueStep                  // what a clause looks at
)

var stepKinds = [...]string{"clause", "and", "or", "not", "if", "value"}

// String is the kind's name.
func (k StepKind) String() string { return stepKinds[k] }

// Clauses yields the conditions that join no others, in the order of the source: what a rule is made of.
func (t *Trace) Clauses() iter.Seq[*Step] {
	return func(yield func(*Step) bool) {
		if t.When != nil {
			t.When.clauses(yield)
		}
	}
}

func (s *Step) clauses(yield func(*Step) bool) bool {
	if s.Kind == ClauseStep {
		return yield(s)
	}
	for _, part := range s.Parts {
		if !part.clauses(yield) {
			return false
		}
	}
	return true
}

// idle marks what made no difference to a condition.
func (s *Step) idle(already bool) {
	s.Idle = already
	for i, part := range s.Parts {
		part.idle(already || !s.heeds(i))
	}
}

// heeds says whether a condition would have to come to something else if its part did. What a false conjunction has that is true
// is no reason, and no matter of indifference either: it may become one.
func (s *Step) heeds(i int) bool {
	switch s.Kind {
	case AndStep:
		return s.Truth != False || s.Parts[i].Truth != Undetermined
	case OrStep:
		return s.Truth != True || s.Parts[i].Truth == True
	case IfStep:
		c := s.Parts[0].Truth
		return i == 0 || c == Undetermined || (c == True) == (i == 1)
	case ClauseStep, NotStep, ValueStep:
	}
	return true
}
