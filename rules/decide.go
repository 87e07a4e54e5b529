package rules

// Decide tries the rule on a change's facts, as a [Plan] does on the change itself.
func (r *Rule) Decide(f *Facts) Verdict {
	if r.When == nil {
		return Verdict{Truth: True}
	}
	frame, err := r.When.frame(f)
	if err != nil {
		return Verdict{Truth: Undetermined, Err: err}
	}
	return frame.try(r.When.node())
}
