package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// ExplainView tells why a mail came, or did not: what `explain` prints. Addresses in it are masked, unless they were asked for.
// Sensitive values are never in it.
type ExplainView struct {
	Match      MatchView       `json:"match"`
	Message    *MessageView    `json:"message,omitempty"` // the one that was asked for
	Messages   []MessageView   `json:"messages"`          // all of the match
	Rule       RuleView        `json:"rule"`
	Change     ChangeView      `json:"change"`
	Condition  ConditionView   `json:"condition"`
	Queries    []QueryView     `json:"queries,omitempty"` // of the rule, as they were asked
	Recipients []RecipientView `json:"recipients"`        // of the message, or of all messages
	Gates      []GateView      `json:"gates"`             // in order, up to the one that it did not pass
	Template   TemplateView    `json:"template"`
	Attempts   []AttemptView   `json:"attempts"`
	Notes      []string        `json:"notes,omitempty"`   // what else is to be known
	Unknown    []string        `json:"unknown,omitempty"` // what cannot be told any more, and why
}

// RuleView is a rule: as it was when the match was made, or as it stands in its file.
type RuleView struct {
	Name      string    `json:"name"`
	About     string    `json:"about,omitempty"`
	Version   string    `json:"version"`
	FirstUsed time.Time `json:"first_used,omitzero"` // zero: not known
	Text      string    `json:"text,omitempty"`      // of the stored version: what the lines of the condition count in
	File      string    `json:"file,omitempty"`      // where the rule stands now: likewise, where there is no Text
}

// QueryView is a query of a rule with the values that it is asked with. Sensitive ones, and those that are not known, are told as such.
type QueryView struct {
	For  string `json:"for"`  // to, cc, or load and its name
	Line int    `json:"line"` // of the rule's text
	SQL  string `json:"sql"`
}

// ViewQueries tells the queries of a rule about a change, and a recipient (nil: none is meant).
func ViewQueries(r *rules.Rule, f *rules.Facts, to value.Row, mask func(string) string) []QueryView {
	var views []QueryView
	for _, q := range dispatch.Queries(r, f, to, mask) {
		views = append(views, QueryView(q))
	}
	return views
}

// RecipientView is who a message is for.
type RecipientView struct {
	Message int64             `json:"message"`
	Address string            `json:"address"`
	Origin  string            `json:"origin,omitempty"` // which source of the rule gave it
	Row     []RecipientColumn `json:"row,omitempty"`
	CC      []string          `json:"cc,omitempty"`
}

// RecipientColumn is a column of a recipient's row. Text null is NULL, or withheld.
type RecipientColumn struct {
	Name     string  `json:"name"`
	Text     *string `json:"text"`
	Withheld string  `json:"withheld,omitempty"` // why it is not shown
}

// TemplateView says what a mail was made from. Hash is that of package templates; empty: it was not made, or nobody knows any more.
type TemplateView struct {
	Name string `json:"name,omitempty"`
	Hash string `json:"hash,omitempty"`
}

func (a *api) explainMatch(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		reply(w, nil, badRequest{"the id is no number"})
		return
	}
	view, err := a.explain(r.Context(), id, 0, r.FormValue("unmask") != "")
	reply(w, view, err)
}

func (a *api) explainMessage(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		reply(w, nil, badRequest{"the id is no number"})
		return
	}
	found, err := a.store.Messages(r.Context(), outbox.Filter{Messages: []int64{id}})
	if err != nil || len(found) == 0 {
		reply(w, nil, notFound(err))
		return
	}
	view, err := a.explain(r.Context(), found[0].Match, id, r.FormValue("unmask") != "")
	reply(w, view, err)
}

// mostExplained bounds the messages of a match that are told of.
const mostExplained = 1000

// explain gathers all that is known of a match, and of one of its messages (0: of none).
func (a *api) explain(ctx context.Context, match, message int64, unmask bool) (*ExplainView, error) {
	matches, err := a.store.Matches(ctx, outbox.Filter{Matches: []int64{match}})
	if err != nil || len(matches) == 0 {
		return nil, notFound(err)
	}
	messages, err := a.store.Messages(ctx, outbox.Filter{Matches: []int64{match}, Limit: mostExplained})
	if err != nil {
		return nil, err
	}
	slices.Reverse(messages)
	e := &explanation{match: &matches[0], messages: messages, mask: Mask, view: ExplainView{
		Messages: []MessageView{}, Recipients: []RecipientView{}, Attempts: []AttemptView{},
	}}
	if unmask {
		e.mask = func(text string) string { return text }
	}
	if i := slices.IndexFunc(messages, func(m outbox.Message) bool { return m.ID == message }); i >= 0 {
		e.message = &messages[i]
		if e.view.Attempts, err = a.attempts(ctx, message); err != nil {
			return nil, err
		}
	}
	if err := e.read(ctx, a.store); err != nil {
		return nil, err
	}
	if note, err := e.moved(ctx, a.store); err != nil {
		e.unknown("%s", e.mask(err.Error()))
	} else if note != "" {
		e.view.Notes = append(e.view.Notes, note)
	}
	e.tell()
	return &e.view, nil
}

func (a *api) attempts(ctx context.Context, message int64) ([]AttemptView, error) {
	found, err := a.store.Attempts(ctx, message)
	views := make([]AttemptView, len(found))
	for i, t := range found {
		views[i] = AttemptView{t.Relay, t.Started, float64(t.Took.Microseconds()) / 1000, t.Code, t.Enhanced, t.Text, t.Redirected}
	}
	return views, err
}

// explanation makes an ExplainView of what the store has. What does not fit together any more is told as unknown, and the rest all
// the same.
type explanation struct {
	match    *outbox.Match
	messages []outbox.Message
	message  *outbox.Message // the one that was asked for; nil: none
	mask     func(string) string
	view     ExplainView

	table  *cdc.Table // nil of a message, and where it is unknown
	rule   *rules.Rule
	change *cdc.Change
	facts  *rules.Facts
}

func (e *explanation) unknown(format string, args ...any) {
	e.view.Unknown = append(e.view.Unknown, fmt.Sprintf(format, args...))
}

// read reads back the change and the rule. The error is the store's.
func (e *explanation) read(ctx context.Context, store outbox.Store) error {
	source, err := store.Text(ctx, e.match.Version)
	if err != nil {
		return fmt.Errorf("reading the rule's version: %w", err)
	}
	since, err := store.TextSince(ctx, e.match.Version)
	if err != nil {
		return err
	}
	e.view.Rule = RuleView{Name: e.match.RuleName, Version: shortHash(e.match.Version), FirstUsed: since, Text: string(source)}
	var shape []byte
	if e.match.Shape != (outbox.Hash{}) {
		if shape, err = store.Text(ctx, e.match.Shape); err != nil {
			return fmt.Errorf("reading the table's shape: %w", err)
		}
	}
	if err := e.revive(source, shape); err != nil {
		e.unknown("%s", e.mask(err.Error()))
	}
	return nil
}

// revive reads the rule and the change. One that cannot be read leaves the other to be told of.
func (e *explanation) revive(source, shape []byte) (err error) {
	if len(shape) > 0 {
		if e.table, err = cdc.ParseShape(shape); err != nil {
			return fmt.Errorf("how the table looked cannot be read by this postman: %w", err)
		}
	}
	if e.rule, err = rules.Revive(source, e.table); err != nil {
		e.unknown("the rule as it was cannot be read by this postman: %v", err)
	}
	return e.reviveChange(shape)
}

func (e *explanation) reviveChange(shape []byte) (err error) {
	if e.change, err = cdc.ParseRest(e.match.Change, e.table); err != nil {
		return fmt.Errorf("the change cannot be read by this postman: %w", err)
	}
	read, err := rules.ReadShape(shape)
	if err != nil {
		return fmt.Errorf("how the table looked cannot be read by this postman: %w", err)
	}
	facts, err := read.Facts(e.match.Change)
	switch {
	case err != nil && e.change.Op == cdc.Emit:
		return fmt.Errorf("what the message says cannot be told: its content is no JSON, as rules need it, but %s", quoted(e.change.Content, e.rule))
	case err != nil:
		return fmt.Errorf("the change's values cannot be told: %w", err)
	}
	facts.CommitTime, facts.XID = e.match.Tx.Time, e.match.Tx.XID
	e.facts = facts
	return nil
}

// quoted is the beginning of a content that is no JSON, unless that may be sensitive.
func quoted(content []byte, r *rules.Rule) string {
	const most = 40
	switch text := []rune(strings.ToValidUTF8(string(content), "�")); {
	case len(text) == 0:
		return "nothing at all"
	case r == nil, len(r.Sensitive) > 0, slices.Contains(text, '@'): // what is cut, and what is no JSON, can be masked by no name
		return fmt.Sprintf("a text of %s", counted(len(content), "byte", "bytes"))
	case len(text) > most:
		return strconv.Quote(string(text[:most]) + "…")
	default:
		return strconv.Quote(string(text))
	}
}

// tell fills the view.
func (e *explanation) tell() {
	v := &e.view
	v.Match = viewMatch(e.match)
	v.Match.Reason = e.mask(v.Match.Reason)
	for i := range e.messages {
		view := viewMessage(&e.messages[i])
		view.Address, view.Reason, view.Reply, view.Subject = e.mask(view.Address), e.mask(view.Reason), e.mask(view.Reply), e.mask(view.Subject)
		view.Redirected = e.mask(view.Redirected)
		view.CC = e.masked(view.CC)
		v.Messages = append(v.Messages, view)
		if &e.messages[i] == e.message {
			v.Message = &view
		}
	}
	for i := range v.Attempts {
		v.Attempts[i].Text, v.Attempts[i].Redirected = e.mask(v.Attempts[i].Text), e.mask(v.Attempts[i].Redirected)
	}
	if e.facts != nil {
		v.Change = ViewChange(e.change, e.facts, e.sensitive(), e.mask)
	}
	if e.rule != nil {
		v.Rule.About, v.Template.Name = e.rule.About, e.rule.Template
	}
	if e.rule != nil && e.change != nil {
		tx := cdc.Tx{XID: e.match.Tx.XID, Commit: e.match.Tx.LSN, End: e.match.Tx.End, Time: e.match.Tx.Time}
		v.Condition = ViewCondition(e.rule.Explain(tx, e.change), e.mask)
	}
	v.Recipients = e.recipients()
	if e.rule != nil && e.facts != nil {
		var to value.Row
		if e.message != nil {
			to, _ = dispatch.ReadRecipient(e.message.Recipient) // what cannot be read has been told
			for i := range to {
				if e.hidesOfRecipient(to[i].Name) {
					to[i].Datum = value.Datum{State: value.Blanked}
				}
			}
		}
		v.Queries = ViewQueries(e.rule, e.facts, to, e.mask)
	}
	v.Gates = e.gates()
	e.template()
}

// sensitive names what must not be shown of the change: where the rule cannot be read, that may be any of it.
func (e *explanation) sensitive() (names []string) {
	if e.rule != nil {
		return e.rule.Sensitive
	}
	for _, row := range []value.Row{e.facts.New, e.facts.Old} {
		for _, f := range row {
			names = append(names, f.Name)
		}
	}
	if object, ok := e.facts.Message.(map[string]any); ok {
		names = slices.AppendSeq(names, maps.Keys(object))
	}
	return names
}

func (e *explanation) masked(list []string) []string {
	all := make([]string, len(list))
	for i := range list {
		all[i] = e.mask(list[i])
	}
	return all
}

// hidesOfRecipient says whether a column of a recipient's row may be, or be made of, a sensitive one that the rule's queries read. What
// every recipient has is known by its name.
func (e *explanation) hidesOfRecipient(name string) bool {
	common := slices.Contains([]string{"email", "name", "locale", "timezone"}, name)
	if e.rule == nil {
		return !common
	}
	named := slices.ContainsFunc(e.rule.Reads, func(c rules.TableColumn) bool { return c.Column == name })
	return named || len(e.rule.Reads) > 0 && !common
}

// recipients are those of the message that was asked for, or of all.
func (e *explanation) recipients() []RecipientView {
	views := []RecipientView{}
	for i := range e.messages {
		m := &e.messages[i]
		if e.message != nil && m != e.message {
			continue
		}
		v := RecipientView{Message: m.ID, Address: e.mask(m.Address), CC: e.masked(m.CC)}
		if e.rule != nil && e.facts != nil {
			v.Origin = e.mask(dispatch.Origin(e.rule.To, e.facts, m.Address))
		}
		row, err := dispatch.ReadRecipient(m.Recipient)
		switch {
		case len(m.Recipient) == 0:
			e.unknown("the row of message %d's recipient was erased with the change's sensitive values, or never was", m.ID)
		case err != nil:
			e.unknown("message %d: %v", m.ID, err)
		}
		for _, f := range row {
			c := RecipientColumn{Name: f.Name}
			switch {
			case e.hidesOfRecipient(f.Name):
				c.Withheld = "sensitive"
			case f.Text != nil:
				c.Text = new(e.mask(string(f.Text)))
			}
			v.Row = append(v.Row, c)
		}
		views = append(views, v)
	}
	return views
}

// template says what the mail was made from: of a match, what its first one was.
func (e *explanation) template() {
	m := e.message
	if m == nil && len(e.messages) > 0 {
		m = &e.messages[0]
	}
	switch {
	case m == nil:
	case m.Template != (outbox.Hash{}):
		e.view.Template.Hash = fmt.Sprintf("%x", m.Template)
	case m.MessageID != "":
		e.unknown("what the mail was made from is not kept: it was made by an earlier postman")
	}
}

// TemplateFile is the file of the templates, as they are now, that a mail was made from; empty: they have changed since.
func TemplateFile(config Config, t TemplateView) (string, error) {
	set, err := loadTemplates(config.Templates)
	if err != nil {
		return "", err
	}
	for file, hash := range set.Hashes(t.Name) {
		if fmt.Sprintf("%x", hash) == t.Hash {
			return file, nil
		}
	}
	return "", nil
}
