package authoring

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postman/cdc"
	"postman/daemon"
	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// WhyOptions is what an author asks of Why.
type WhyOptions struct {
	Rule string
	Name string // of the file that Change was read from, for messages
	// PK is the primary key of a row in the database, in the place of Change: as it is now.
	PK      []string
	Op      string // with PK: what happens to the row; empty: the first of the rule's operations that matches
	Address string // with PK: whether the rule's mail would go there
	Change  []byte // {"op": "update", "old": {…}, "new": {…}}, or {"message": {…}}; docs/explain.md
	Schema  string // a file that Schema wrote, in the place of a database
	Unmask  bool
}

// WhyView tells what a rule says of a change that somebody wrote down: what `explain --rule` prints.
type WhyView struct {
	Rule      daemon.RuleView      `json:"rule"`
	Change    daemon.ChangeView    `json:"change"`
	Condition daemon.ConditionView `json:"condition"`
	// LeftOut are columns that are never NULL in the table, which the file leaves out and the verdict hangs on.
	LeftOut []string `json:"left_out,omitempty"`

	// Of a row of the database:
	Row      string             `json:"row,omitempty"`     // which one, in words
	Assumed  []string           `json:"assumed,omitempty"` // what the database does not tell
	Queries  []daemon.QueryView `json:"queries,omitempty"`
	Audience *AudienceView      `json:"audience,omitempty"` // absent where nobody was asked for
}

// AudienceView tells to whom a mail would go.
type AudienceView struct {
	State     string   `json:"state"` // expanded, nobody or held
	Reason    string   `json:"reason,omitempty"`
	To        []string `json:"to"`                   // addresses that would get one
	Address   string   `json:"address,omitempty"`    // that was asked about
	Among     bool     `json:"among"`                // whether it is one of them
	NoAddress int      `json:"no_address,omitempty"` // recipients whose address is NULL, or none
	Because   string   `json:"because,omitempty"`    // why not, where the rule's sources gave it all the same
}

// Why tries a rule on a change that somebody wrote down, and tells each clause.
func Why(ctx context.Context, config *daemon.Config, o WhyOptions) (*WhyView, error) {
	if o.PK != nil {
		return whyRow(ctx, config, o)
	}
	rule, table, err := daemon.OneRule(ctx, config, o.Schema, o.Rule)
	if err != nil {
		return nil, err
	}
	step, at, err := readChange(o.Name, o.Change, rule, table)
	if err != nil {
		return nil, err
	}
	change, mistakes := rule.TestChange(step)
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	var shape []byte
	if change.Table != nil {
		shape = change.Table.Shape()
	}
	read, err := rules.ReadShape(shape)
	if err != nil {
		return nil, err
	}
	facts, err := read.Facts(change.AppendRest(nil, nil))
	if err != nil {
		return nil, daemon.Misuse(fmt.Sprintf("%s: %v", o.Name, err))
	}
	hide := daemon.Mask
	if o.Unmask {
		hide = func(text string) string { return text }
	}
	v := &WhyView{Rule: daemon.ViewRule(rule)}
	facts.CommitTime = at
	trace := rule.Explain(cdc.Tx{Time: at}, change)
	if trace.Verdict.Truth == rules.False && trace.Excluded == "" {
		v.LeftOut = rule.LeftOut(step, facts)
	}
	v.Change = daemon.ViewChange(change, facts, rule.Sensitive, hide)
	v.Condition = daemon.ViewCondition(trace, hide)
	return v, nil
}

// whyRow tries a rule on a row as it stands in the database, and asks who would get a mail.
func whyRow(ctx context.Context, config *daemon.Config, o WhyOptions) (*WhyView, error) {
	p, err := preparePreview(ctx, config, PreviewOptions{Rule: o.Rule, PK: o.PK, Op: o.Op, Unmask: o.Unmask})
	if err != nil {
		return nil, err
	}
	found, err := p.find(ctx, config)
	if err != nil {
		return nil, err
	}
	seen, facts, err := p.view(found[0])
	if err != nil {
		return nil, err
	}
	v := &WhyView{Rule: seen.Rule, Change: seen.Change, Condition: seen.Condition, Row: seen.Row, Assumed: seen.Assumed, Queries: daemon.ViewQueries(p.rule, facts, nil, p.mask)}
	if found[0].change.Op == cdc.Update && len(v.Assumed) == 0 {
		v.Assumed = []string{"old is as new: the database does not tell what the row was before an update (--change with a file does)"}
	}
	if !seen.Matches && o.Address == "" {
		return v, nil
	}
	lookup, err := openLookup(ctx, config)
	if err != nil {
		return nil, err
	}
	defer lookup.Close(context.WithoutCancel(ctx))
	made, err := p.rehearser.Rehearse(ctx, p.rule, facts, lookup)
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", p.rule.Name, err)
	}
	v.Audience = p.audience(made, o.Address)
	return v, nil
}

func (p *preview) audience(made *dispatch.Rehearsed, address string) *AudienceView {
	v := &AudienceView{State: made.State.String(), Reason: made.Reason, To: []string{}, Address: address}
	for i := range made.Mails {
		m := &made.Mails[i]
		asked := address != "" && outbox.AddressKey(m.Address) == outbox.AddressKey(address)
		if m.NoAddress == nil {
			v.To = append(v.To, p.mask(m.Address))
			v.Among = v.Among || asked
		} else {
			v.NoAddress++
		}
		if err := cmp.Or(m.NoAddress, m.Err); asked && err != nil {
			v.Because = p.mask(err.Error())
		}
	}
	return v
}

// readChange reads a change as people write it down, as a step of a test, and when it was committed: now, if nothing is said.
func readChange(name string, text []byte, rule *rules.Rule, table *cdc.Table) (_ *rules.TestStep, at time.Time, err error) {
	var c struct {
		Op       string `json:"op"`
		Old, New map[string]json.RawMessage
		Message  json.RawMessage `json:"message"`
		Time     time.Time       `json:"commit_time"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&c)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		err = fmt.Errorf("%s cannot be a %s", strings.ToLower(cmp.Or(e.Field, "the change")), e.Value)
	}
	if err != nil {
		return nil, at, daemon.Misuse(fmt.Sprintf("%s%s: %v\n  → %s", name, lineOf(text, d.InputOffset()), err, changeForm))
	}
	s := &rules.TestStep{Op: c.Op, Message: c.Message, Place: rules.Place{File: name}}
	if s.Op == "" {
		s.Op = opOf(c.Old != nil, c.New != nil, c.Message != nil)
	}
	if err := complete(s.Op, c.Old != nil, c.New != nil, c.Message != nil); err != "" {
		return nil, at, daemon.Misuse(fmt.Sprintf("%s: %s\n  → %s", name, err, changeForm))
	}
	if (s.Op == cdc.Emit.String()) != (rule.On.Message != "") {
		return nil, at, daemon.Misuse(fmt.Sprintf("%s: it is %s, and rule %q is on %s", name, article(s.Op), rule.Name, onWhat(rule)))
	}
	s.Old, s.New = written(name, c.Old, table), written(name, c.New, table)
	if at = c.Time; at.IsZero() {
		at = time.Now()
	}
	return s, at, nil
}

const changeForm = `write {"op": "update", "old": {"id": 7, "status": "open"}, "new": {"id": 7, "status": "won"}}, or {"message": {"email": "kim@example.com"}}`

// lineOf is where an offset of a text stands; empty in a text of one line.
func lineOf(text []byte, offset int64) string {
	if bytes.Count(bytes.TrimSpace(text), []byte("\n")) == 0 {
		return ""
	}
	return fmt.Sprintf(":%d", 1+bytes.Count(text[:min(offset, int64(len(text)))], []byte("\n")))
}

// opOf is the operation that has just these rows; empty: there is none.
func opOf(then, now, message bool) string {
	switch {
	case message:
		return cdc.Emit.String()
	case then && now:
		return cdc.Update.String()
	case now:
		return cdc.Insert.String()
	case then:
		return cdc.Delete.String()
	}
	return ""
}

// complete says what a change lacks, or has too much.
func complete(op string, then, now, message bool) string {
	needs := map[string][3]bool{"insert": {false, true, false}, "update": {true, true, false}, "delete": {true, false, false}, "truncate": {}, "message": {false, false, true}}
	want, known := needs[op]
	switch {
	case op == "":
		return "it has no op, no old, no new and no message"
	case !known:
		return fmt.Sprintf("there is no operation %q; there are insert, update, delete, truncate and message", op)
	case want != [3]bool{then, now, message}:
		return fmt.Sprintf("%s has %s", article(op), map[string]string{
			"insert": "new and nothing else", "update": "old and new and nothing else", "delete": "old and nothing else", "truncate": "no row", "message": "message and nothing else",
		}[op])
	}
	return ""
}

func article(op string) string {
	if op == "insert" || op == "update" {
		return "an " + op
	}
	return "a " + op
}

func onWhat(r *rules.Rule) string {
	if r.On.Message != "" {
		return "the message " + r.On.Message
	}
	return "the table " + r.On.Table.String()
}

// written are a row's values as texts: a JSON text as it is, another scalar as it is written, a list as the array of its column, and
// what else there may be as JSON.
func written(file string, row map[string]json.RawMessage, table *cdc.Table) []rules.Cell {
	if row == nil {
		return nil
	}
	all := []rules.Cell{}
	for _, name := range slices.Sorted(maps.Keys(row)) {
		c := rules.Cell{Name: name, Place: rules.Place{File: file}, Value: rules.Place{File: file}}
		var v any
		d := json.NewDecoder(bytes.NewReader(row[name]))
		d.UseNumber()
		if d.Decode(&v) == nil && v != nil { // the whole was read as JSON already
			c.Text = new(cellText(v, row[name], isArray(table, name)))
		}
		all = append(all, c)
	}
	return all
}

func isArray(t *cdc.Table, column string) bool {
	i := -1
	if t != nil {
		i = t.Column(column)
	}
	if i < 0 {
		return false
	}
	_, is := value.Element(t.Columns[i].Type.Base)
	return is
}

func cellText(v any, raw []byte, array bool) string {
	if text, ok := v.(string); ok {
		return text
	}
	if list, ok := v.([]any); ok && array {
		return arrayText(list)
	}
	return string(raw)
}

// arrayText writes a list as Postgres writes an array (Postgres documentation, 8.15.6).
func arrayText(list []any) string {
	items := make([]string, len(list))
	for i, v := range list {
		switch v := v.(type) {
		case nil:
			items[i] = "NULL"
		case []any:
			items[i] = arrayText(v)
		default:
			items[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(fmt.Sprint(v)) + `"`
		}
	}
	return "{" + strings.Join(items, ",") + "}"
}
