package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"postman/cdc"
	"postman/rules"
	"postman/value"
)

// ChangeView is what happened in the database.
type ChangeView struct {
	Op      string       `json:"op"`
	Table   string       `json:"table,omitempty"`
	Columns []ColumnView `json:"columns,omitempty"` // what changed first, then in the table's order
	Prefix  string       `json:"prefix,omitempty"`  // of a message
	Keys    []ColumnView `json:"keys,omitempty"`    // of a message's content, as new
}

// ColumnView is a column, or a message's key, before and after. A row that the operation does not have is left out.
type ColumnView struct {
	Name    string     `json:"name"`
	Old     *ValueView `json:"old,omitempty"`
	New     *ValueView `json:"new,omitempty"`
	Changed bool       `json:"changed,omitempty"` // of an update, as far as the values are known
}

// ValueView is a value as Postgres prints it. Text null is NULL, unless Withheld says why it is not told.
type ValueView struct {
	Text     *string `json:"text"`
	Withheld string  `json:"withheld,omitempty"`
}

// NullText is how NULL is told.
const NullText = "NULL"

// String is the value in a line, for people.
func (v *ValueView) String() string {
	switch {
	case v == nil:
		return ""
	case v.Withheld != "":
		return "<" + v.Withheld + ">"
	case v.Text == nil:
		return NullText
	}
	return *v.Text
}

// ViewRule tells a rule as it stands in its file.
func ViewRule(r *rules.Rule) RuleView {
	return RuleView{Name: r.Name, About: r.About, Version: shortHash(r.Version()), File: r.Place.File}
}

// ViewChange tells a change, without the values of the columns or keys that are sensitive, and each other text as mask leaves it.
func ViewChange(c *cdc.Change, f *rules.Facts, sensitive []string, mask func(string) string) ChangeView {
	v := ChangeView{Op: f.Op, Table: f.Table, Prefix: f.Prefix}
	if c.Op == cdc.Emit {
		v.Keys = viewMessageKeys(f.Message, sensitive, mask)
		return v
	}
	for i := range c.Table.Columns {
		name := c.Table.Columns[i].Name
		hidden := slices.Contains(sensitive, name)
		column := ColumnView{Name: name, Old: viewField(f.Old, i, hidden, mask), New: viewField(f.New, i, hidden, mask)}
		if f.New != nil && f.Old != nil {
			then, now := f.Old[i].Datum, f.New[i].Datum
			known := then.State <= value.Present && now.State <= value.Present
			column.Changed = known && (then.State != now.State || string(then.Text) != string(now.Text))
		}
		v.Columns = append(v.Columns, column)
	}
	slices.SortStableFunc(v.Columns, func(a, b ColumnView) int {
		return cmp.Compare(map[bool]int{true: 0, false: 1}[a.Changed], map[bool]int{true: 0, false: 1}[b.Changed])
	})
	return v
}

func viewField(row value.Row, i int, hidden bool, mask func(string) string) *ValueView {
	if row == nil {
		return nil
	}
	switch d := row[i].Datum; {
	case d.State == value.Unavailable:
		return &ValueView{Withheld: "not in the stream"}
	case d.State == value.Blanked:
		return &ValueView{Withheld: "sensitive, erased"}
	case d.State == value.Null:
		return &ValueView{}
	case hidden:
		return &ValueView{Withheld: "sensitive"}
	default:
		return &ValueView{Text: new(mask(string(d.Text)))}
	}
}

// viewMessageKeys tells a message's content key by key; what is no object is told as one key without a name. Sensitive keys are told
// to be there even where they are not: they were erased, or nobody knows.
func viewMessageKeys(content any, sensitive []string, mask func(string) string) []ColumnView {
	object, ok := content.(map[string]any)
	if !ok {
		object = map[string]any{"": content}
	}
	var all []ColumnView
	for name, v := range object {
		shown := &ValueView{}
		switch text, err := json.Marshal(plainJSON(v)); {
		case slices.Contains(sensitive, name):
			continue
		case err != nil:
			shown.Withheld = fmt.Sprintf("cannot be printed: %v", err)
		case v != nil:
			shown.Text = new(mask(string(text)))
		}
		all = append(all, ColumnView{Name: name, New: shown})
	}
	for _, name := range sensitive {
		all = append(all, ColumnView{Name: name, New: &ValueView{Withheld: "sensitive"}})
	}
	slices.SortFunc(all, func(a, b ColumnView) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// plainJSON is a decoded JSON value with its exact numbers as encoding/json writes them.
func plainJSON(v any) any {
	switch v := v.(type) {
	case *value.Decimal:
		return json.Number(v.Text('f'))
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plainJSON(v[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for k := range v {
			object[k] = plainJSON(v[k])
		}
		return object
	}
	return v
}

// ConditionView tells what a rule's `when` came to.
type ConditionView struct {
	Verdict  string    `json:"verdict"`            // true, false or undetermined
	Excluded string    `json:"excluded,omitempty"` // why it was not asked
	Missing  string    `json:"missing,omitempty"`  // the column that undetermined is due to
	Error    string    `json:"error,omitempty"`    // why it could not be tried
	When     *StepView `json:"when,omitempty"`     // absent: the rule has none, or it was not asked
}

// StepView is a part of a condition. docs/explain.md has the meaning of each field.
type StepView struct {
	Text   string     `json:"text"`
	Line   int        `json:"line"`
	Column int        `json:"column"`
	Kind   string     `json:"kind"`
	Truth  string     `json:"truth,omitempty"` // of a condition
	Value  *string    `json:"value,omitempty"` // of a value that is known
	Note   string     `json:"note,omitempty"`
	Idle   bool       `json:"idle,omitempty"`
	Parts  []StepView `json:"parts,omitempty"`
}

// ViewCondition tells what a condition came to, its values as mask leaves them.
func ViewCondition(t *rules.Trace, mask func(string) string) ConditionView {
	v := ConditionView{Verdict: t.Verdict.Truth.String(), Excluded: t.Excluded, Missing: t.Verdict.Missing}
	if t.Verdict.Err != nil {
		v.Error = mask(t.Verdict.Err.Error())
	}
	if t.When != nil {
		maskSteps(t.When, mask)
		v.When = new(viewStep(t.When))
	}
	return v
}

// maskSteps hides the addresses among a trace's values. Those that the rule itself names are in its text, too.
func maskSteps(s *rules.Step, mask func(string) string) {
	s.Value = mask(s.Value)
	for _, part := range s.Parts {
		maskSteps(part, mask)
	}
}

func viewStep(s *rules.Step) StepView {
	v := StepView{Text: s.Text, Line: s.Place.Line, Column: s.Place.Column, Kind: s.Kind.String(), Note: s.Note, Idle: s.Idle}
	switch {
	case s.Kind != rules.ValueStep:
		v.Truth = s.Truth.String()
	case s.Value != "":
		v.Value = &s.Value
	}
	for _, part := range s.Parts {
		v.Parts = append(v.Parts, viewStep(part))
	}
	return v
}

// Text lays the condition out for people, see [rules.Trace.Text].
func (v *ConditionView) Text(paint func(mark, text string) string) string {
	if v.When == nil {
		return ""
	}
	return (&rules.Trace{When: v.When.step()}).Text(paint)
}

func (v *StepView) step() *rules.Step {
	s := &rules.Step{Text: v.Text, Place: rules.Place{Line: v.Line, Column: v.Column}, Note: v.Note, Idle: v.Idle}
	for kind := rules.ClauseStep; kind <= rules.ValueStep; kind++ {
		if kind.String() == v.Kind {
			s.Kind = kind
		}
	}
	for truth := rules.False; truth <= rules.Undetermined; truth++ {
		if truth.String() == v.Truth {
			s.Truth = truth
		}
	}
	if v.Value != nil {
		s.Value = *v.Value
	}
	for i := range v.Parts {
		s.Parts = append(s.Parts, v.Parts[i].step())
	}
	return s
}
