package authoring

import (
	"cmp"
	"context"
	"fmt"
	netmail "net/mail"
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

// PreviewOptions is what an author asks of Preview.
type PreviewOptions struct {
	Rule    string
	PK      []string // the row, by its primary key; nil: the newest one that matches
	Op      string   // what happens to the row; empty: the first of the rule's operations that matches
	Message string   // of a rule on a message, its JSON; empty: that of the rule's first test that is to match
	To      string   // the recipient whose mail is to come first, as it is or masked
	Unmask  bool
}

// PreviewView tells which mails a rule would send for a real row: what `preview` prints. Sensitive values of the row are not in it.
type PreviewView struct {
	Rule      daemon.RuleView      `json:"rule"`
	Row       string               `json:"row"`               // which row, or which message, in words
	Looked    int                  `json:"looked,omitempty"`  // how many rows were looked at
	Assumed   []string             `json:"assumed,omitempty"` // values that the database does not have so
	Matches   bool                 `json:"matches"`
	Change    daemon.ChangeView    `json:"change"`
	Condition daemon.ConditionView `json:"condition"`
	State     string               `json:"state,omitempty"`  // expanded, nobody or held; absent where nothing was made
	Reason    string               `json:"reason,omitempty"` // of the state
	Thread    string               `json:"thread,omitempty"` // that the mails stand in, in words; absent: each stands alone
	Mails     []PreviewMail        `json:"mails"`
	Notes     []string             `json:"notes,omitempty"`
}

// PreviewMail is a mail that would go out, or would not.
type PreviewMail struct {
	Address string     `json:"address"`
	Name    string     `json:"name,omitempty"`
	Origin  string     `json:"origin,omitempty"` // which source of the rule gave the address
	CC      []string   `json:"cc,omitempty"`
	Error   string     `json:"error,omitempty"` // why there is no mail for it
	Note    string     `json:"note,omitempty"`
	Locale  string     `json:"locale,omitempty"`
	Zone    string     `json:"timezone,omitempty"`
	From    string     `json:"from,omitempty"`
	ReplyTo string     `json:"reply_to,omitempty"`
	To      string     `json:"to,omitempty"`
	Subject string     `json:"subject,omitempty"`
	Text    string     `json:"text,omitempty"`
	HTML    string     `json:"html,omitempty"`
	ICS     string     `json:"ics,omitempty"`
	Load    []LoadView `json:"load,omitempty"`

	// As they would go out, whatever is masked above.
	Page  string `json:"-"`
	Bytes []byte `json:"-"`
}

// LoadView is what a `load` query gave.
type LoadView struct {
	Name string    `json:"name"`
	All  bool      `json:"all"` // all rows; else the first one, or one of NULLs
	Rows []LoadRow `json:"rows"`
}

// LoadRow is a row by its columns, each value as a person reads it; nil is NULL.
type LoadRow map[string]*string

// Preview makes the mails that a rule would send for a row of its table, with the real recipients and what the real queries give.
// It only reads.
func Preview(ctx context.Context, config *daemon.Config, o PreviewOptions) (*PreviewView, error) {
	p, err := preparePreview(ctx, config, o)
	if err != nil {
		return nil, err
	}
	found, err := p.find(ctx, config)
	if err != nil {
		return nil, err
	}
	return p.show(ctx, config, found)
}

func preparePreview(ctx context.Context, config *daemon.Config, o PreviewOptions) (*preview, error) {
	rule, table, err := daemon.OneRule(ctx, config, "", o.Rule)
	if err != nil {
		return nil, err
	}
	composing, err := daemon.Composing(config)
	if err != nil {
		return nil, err
	}
	rehearser, err := dispatch.NewRehearser(composing)
	if err != nil {
		return nil, daemon.Misuse(err.Error())
	}
	rehearser.HideSensitive = true
	p := &preview{options: o, rule: rule, table: table, rehearser: rehearser, mask: daemon.Mask, zone: composing.Zone}
	if o.Unmask {
		p.mask = func(text string) string { return text }
	}
	return p, nil
}

// preview is one run of Preview.
type preview struct {
	options   PreviewOptions
	rule      *rules.Rule
	table     *cdc.Table // nil of a message
	rehearser *dispatch.Rehearser
	mask      func(string) string
	zone      *time.Location
}

// example is a change to show the mails of.
type example struct {
	what    string // in words
	looked  int
	change  *cdc.Change
	assumed []string
	asked   bool // it is shown although it does not match: somebody asked for it
}

// find chooses the change, or some of them: the first one that somebody gets a mail of is shown.
func (p *preview) find(ctx context.Context, config *daemon.Config) ([]*example, error) {
	if p.rule.On.Message != "" {
		e, err := p.message()
		return []*example{e}, err
	}
	if p.options.Message != "" {
		return nil, daemon.Misuse(fmt.Sprintf("rule %q is on the table %s: --message is for rules on a message", p.rule.Name, p.table))
	}
	r, err := openReader(ctx, config)
	if err != nil {
		return nil, err
	}
	defer r.close(ctx)
	return p.row(ctx, r)
}

// message is the message that was given, or that of a test.
func (p *preview) message() (*example, error) {
	if len(p.options.PK) > 0 || p.options.Op != "" {
		return nil, daemon.Misuse(fmt.Sprintf("rule %q is on a message: --pk and --op are for rules on a table", p.rule.Name))
	}
	c := &cdc.Change{Op: cdc.Emit, Prefix: "postman." + p.rule.On.Message, Content: []byte(p.options.Message)}
	if p.options.Message != "" {
		if _, err := value.DecodeJSON(c.Content); err != nil {
			return nil, daemon.Misuse(fmt.Sprintf("--message is no JSON: %v", err))
		}
		return &example{what: "the message that was given", change: c, asked: true}, nil
	}
	step := p.like(cdc.Emit)
	if step == nil {
		return nil, daemon.Misuse(fmt.Sprintf("rule %q is on a message, and has no test with one: give it one, as in --message '{\"email\": \"kim@example.com\"}'", p.rule.Name))
	}
	c.Content = step.Message
	return &example{what: "the message of the test at " + step.Place.String(), change: c}, nil
}

// like is the first step of the rule's tests with this operation that is to match; nil: there is none.
func (p *preview) like(op cdc.Op) *rules.TestStep {
	for _, t := range p.rule.Tests {
		for i := range t.Steps {
			s := &t.Steps[i]
			if s.Op == op.String() && (s.Match != nil && *s.Match || s.Match == nil && s.Expect.Mail() && !s.Expect.None) {
				return s
			}
		}
	}
	return nil
}

// show makes the mails of the first example of which there are any, or tells why there are none of the first one.
func (p *preview) show(ctx context.Context, config *daemon.Config, found []*example) (*PreviewView, error) {
	v, facts, err := p.view(found[0])
	if err != nil || !v.Matches && !found[0].asked {
		return v, err
	}
	lookup, err := openLookup(ctx, config)
	if err != nil {
		return nil, err
	}
	defer lookup.Close(context.WithoutCancel(ctx))
	made, err := p.rehearser.Rehearse(ctx, p.rule, facts, lookup)
	for i := 1; i < len(found) && err == nil && !reaches(made); i++ {
		var next *dispatch.Rehearsed
		w, its, viewErr := p.view(found[i])
		if viewErr != nil {
			return nil, viewErr
		}
		if next, err = p.rehearser.Rehearse(ctx, p.rule, its, lookup); err == nil && reaches(next) {
			v, facts, made = w, its, next
			v.Notes = append(v.Notes, fmt.Sprintf("nobody would get a mail of the %s", counted(i, "newer row that matches", "newer rows that match")))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", p.rule.Name, err)
	}
	if !reaches(made) && len(found) > 1 {
		v.Notes = append(v.Notes, "nor would anybody get one of the next "+counted(len(found)-1, "row that matches", "rows that match"))
	}
	p.tell(v, facts, made)
	if config.From == "" && p.rule.From == nil {
		v.Notes = append(v.Notes, "no sender is configured: set POSTMAN_FROM, or from in postman.yaml")
	}
	return v, p.first(v, made)
}

func openLookup(ctx context.Context, config *daemon.Config) (*dispatch.Lookup, error) {
	return dispatch.OpenLookup(ctx, string(cmp.Or(config.LookupURL, config.DatabaseURL)), dispatch.LookupOptions{Conns: 1, Timeout: time.Duration(config.Lookup.Timeout)})
}

// reaches says whether there is somebody to whom a mail can go, or too many.
func reaches(made *dispatch.Rehearsed) bool {
	return made.State == outbox.MatchHeld || slices.ContainsFunc(made.Mails, func(m dispatch.RehearsedMail) bool { return m.NoAddress == nil })
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// view tells an example, without its mails.
func (p *preview) view(e *example) (*PreviewView, *rules.Facts, error) {
	now := time.Now()
	trace := p.rule.Explain(cdc.Tx{Time: now}, e.change)
	facts, err := factsOf(e.change)
	if err != nil {
		return nil, nil, err
	}
	facts.CommitTime = now
	v := &PreviewView{
		Rule: daemon.ViewRule(p.rule), Row: e.what, Looked: e.looked, Assumed: e.assumed, Matches: trace.Verdict.Truth == rules.True, Mails: []PreviewMail{},
		Change: daemon.ViewChange(e.change, facts, p.rule.Sensitive, p.mask),
	}
	v.Condition = daemon.ViewCondition(trace, p.mask)
	return v, facts, nil
}

// tell adds the mails that were made.
func (p *preview) tell(v *PreviewView, facts *rules.Facts, made *dispatch.Rehearsed) {
	v.State, v.Reason = made.State.String(), made.Reason
	if s, err := p.rule.Standing(facts); err == nil && s != nil { // an error is told with each mail
		v.Thread = p.mask(s.Text)
	}
	for i := range made.Mails {
		v.Mails = append(v.Mails, p.mail(facts, &made.Mails[i]))
	}
	for _, c := range made.Copies {
		v.Notes = append(v.Notes, p.mask(fmt.Sprintf("cc %s: %s", c.Address, c.Reason)))
	}
}

// factsOf decodes a change as one that was stored is decoded.
func factsOf(c *cdc.Change) (*rules.Facts, error) {
	var text []byte
	if c.Table != nil {
		text = c.Table.Shape()
	}
	shape, err := rules.ReadShape(text)
	if err != nil {
		return nil, err
	}
	facts, err := shape.Facts(c.AppendRest(nil, nil))
	if err != nil {
		return nil, daemon.Misuse(err.Error())
	}
	return facts, nil
}

func (p *preview) mail(f *rules.Facts, m *dispatch.RehearsedMail) PreviewMail {
	v := PreviewMail{
		Address: p.mask(m.Address), Origin: p.mask(dispatch.Origin(p.rule.To, f, m.Address)), Locale: m.Locale, Note: m.Note, ICS: p.mask(m.ICS),
		Subject: p.mask(m.Subject), Text: p.mask(m.Text), HTML: p.mask(m.HTML), Load: p.loads(m), Page: m.HTML, Bytes: m.Bytes,
	}
	if name, ok := m.Recipient.Field("name"); ok {
		v.Name = string(name.Text)
	}
	if m.Zone != nil {
		v.Zone = m.Zone.String()
	}
	for _, a := range m.CC {
		v.CC = append(v.CC, p.mask(a))
	}
	if err := cmp.Or(m.NoAddress, m.Err); err != nil {
		v.Error = p.mask(err.Error())
	}
	v.From, v.ReplyTo, v.To = mailbox(m.Header, "From"), mailbox(m.Header, "Reply-To"), p.mask(mailbox(m.Header, "To"))
	return v
}

// mailbox is a header with an address as people read it.
func mailbox(h netmail.Header, name string) string {
	list, err := h.AddressList(name)
	switch {
	case err != nil || len(list) == 0:
		return h.Get(name)
	case list[0].Name == "":
		return list[0].Address
	}
	return list[0].Name + " <" + list[0].Address + ">"
}

// loads are what the rule's queries gave, in the order of the rule.
func (p *preview) loads(m *dispatch.RehearsedMail) []LoadView {
	var all []LoadView
	zone := cmp.Or(m.Zone, p.zone)
	for _, l := range p.rule.Load {
		v := LoadView{Name: l.Name, All: l.All, Rows: []LoadRow{}}
		switch rows := m.Loaded[l.Name].(type) {
		case map[string]any:
			v.Rows = append(v.Rows, p.loaded(rows, zone))
		case []map[string]any:
			for _, row := range rows {
				v.Rows = append(v.Rows, p.loaded(row, zone))
			}
		default:
			continue // it was not asked: there is no mail
		}
		all = append(all, v)
	}
	return all
}

func (p *preview) loaded(row map[string]any, zone *time.Location) LoadRow {
	shown := make(LoadRow, len(row))
	for name, v := range row {
		shown[name] = nil
		if v != nil {
			shown[name] = new(p.mask(readable(v, zone)))
		}
	}
	return shown
}

// first brings the mail that was asked for to the front.
func (p *preview) first(v *PreviewView, made *dispatch.Rehearsed) error {
	if p.options.To == "" || made.State != outbox.MatchExpanded {
		return nil
	}
	i := slices.IndexFunc(made.Mails, func(m dispatch.RehearsedMail) bool {
		return outbox.AddressKey(m.Address) == outbox.AddressKey(p.options.To) || daemon.Mask(m.Address) == p.options.To
	})
	if i < 0 {
		there := make([]string, len(v.Mails))
		for j, m := range v.Mails {
			there[j] = m.Address
		}
		return daemon.Misuse(fmt.Sprintf("--to: %s is none of the recipients, who are %s", p.options.To, strings.Join(there, ", ")))
	}
	asked := v.Mails[i]
	v.Mails = slices.Insert(slices.Delete(v.Mails, i, i+1), 0, asked)
	return nil
}
