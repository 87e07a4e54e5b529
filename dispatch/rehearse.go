package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/outbox"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// Rehearser makes the mails of changes as a [Dispatcher] does, by the same code, and neither stores nor sends any. Safe for many
// goroutines.
type Rehearser struct {
	// HideSensitive shows templates made-up values in the place of the change's sensitive ones. Look-ups bind the real ones.
	HideSensitive bool

	composer *composer
}

// NewRehearser takes Templates, From, Domains, ReplyTo, Locale and Zone of the options, and looks at no others. The error names the
// setting that it is about.
func NewRehearser(o Options) (*Rehearser, error) {
	o.defaults()
	c, err := o.composer()
	if err == nil && c.from == nil {
		err = errors.New("from: a rehearsal needs a sender")
	}
	return &Rehearser{composer: c}, err
}

// Rehearsed is what would become of a match if it were expanded now.
type Rehearsed struct {
	State  outbox.MatchState // expanded, nobody or held
	Reason string            // of a state other than expanded, or what an operator would read beside it
	Mails  []RehearsedMail   // one for each recipient, in the order of the rule's sources
	// Copies are those of `cc` who would get none, each with the reason. The others are in CC of the first mail.
	Copies []RehearsedCopy
}

// RehearsedMail is the mail for one recipient. Without NoAddress and Err it is one that would go out.
type RehearsedMail struct {
	Address   string // as it would be stored: in its wire form, or as its source gave it where it is none
	Recipient value.Row
	NoAddress error // why no mail can go there; then nothing else is set
	Err       error // why it could not be rendered: what the template or a sender expression says
	CC        []string
	Locale    string
	Zone      *time.Location
	Note      string         // what an operator would read about it
	Loaded    map[string]any // what the rule's `load` queries gave, by name: map[string]any, or []map[string]any of all rows

	templates.Mail
	Header netmail.Header
	Bytes  []byte // as the relay would get it. Date, Message-ID and the name of its thread are other ones in earnest.
}

// RehearsedCopy is a copy that cannot go.
type RehearsedCopy struct{ Address, Reason string }

// Rehearse expands a change that a rule, bound to its table, matches. An error is what would fail the whole match, but for one of
// the database's moment: a query that Postgres refuses, an expression of the recipients, a value that the stream did not carry.
func (h *Rehearser) Rehearse(ctx context.Context, rule *rules.Rule, facts *rules.Facts, from Asker) (*Rehearsed, error) {
	d := &draft{rule: rule, facts: facts, position: facts.Position}
	m := &outbox.Match{Tx: outbox.Tx{XID: facts.XID, Time: facts.CommitTime}}
	r := &research{draft: d, match: m, limit: rule.MaxRecipients, first: mostRows}
	err := r.do(ctx, from)
	if many, ok := errors.AsType[*tooMany](err); ok {
		return &Rehearsed{State: outbox.MatchHeld, Reason: many.Error()}, nil
	}
	if err == nil {
		err = h.show(d)
	}
	if err != nil {
		return nil, d.veil(err)
	}
	if len(r.audience.to) == 0 {
		return &Rehearsed{State: outbox.MatchNobody, Reason: errNobody.Error()}, nil
	}
	return h.write(r), nil
}

// write makes the mails, as the Dispatcher's write does. Copies go with the first one that can be sent.
func (h *Rehearser) write(r *research) *Rehearsed {
	made := &Rehearsed{State: outbox.MatchExpanded}
	cc, lost := copies(r.audience.cc, nil)
	for i, to := range r.audience.to {
		m := RehearsedMail{Address: to.given(), Recipient: to.row, NoAddress: to.bad}
		if to.bad == nil {
			m.CC, cc = cc, nil
			h.render(r, i, &m)
		}
		made.Mails = append(made.Mails, m)
	}
	for _, n := range lost {
		made.Copies = append(made.Copies, RehearsedCopy{n.Address, n.Reason})
	}
	if len(cc) > 0 {
		made.Reason = noCopies
	}
	return made
}

func (h *Rehearser) render(r *research, i int, m *RehearsedMail) {
	to := r.audience.to[i]
	where, _ := h.composer.contextOf(r.draft.rule, to)
	m.Locale, m.Zone = where.Locale, where.Zone
	shown, _ := r.loads(i)
	m.Loaded = shown
	var l letter
	if l, m.Mail, m.Err = h.composer.composeParts(r.draft, to, m.CC, 0, shown); m.Err != nil {
		return
	}
	m.Note, m.Bytes = l.note, l.body
	message, err := netmail.ReadMessage(bytes.NewReader(l.body))
	if err != nil {
		m.Err = fmt.Errorf("reading the mail again: %w", err)
		return
	}
	m.Header = message.Header
}

// Given are answers to a rule's queries in the place of a database's, by query. One that it does not have gives no row, and of a
// query of recipients no recipient.
type Given map[*rules.SQL][]value.Row

func (g Given) ask(_ context.Context, a asking) ([]answer, error) {
	return a.walk(func(s statement) (answer, error) { return answerOf(g[s.of]), nil })
}

// answerOf makes an answer of rows, which need not have the same columns: what one of them lacks is NULL there.
func answerOf(rows []value.Row) answer {
	text := value.Type{OID: pgtype.TextOID, Base: pgtype.TextOID, Name: "text"}
	a := answer{columns: []value.Column{{Name: emailColumn, Type: text}}}
	if len(rows) > 0 {
		a.columns = nil
	}
	at := make(map[string]int)
	for _, row := range rows {
		for _, f := range row {
			if _, ok := at[f.Name]; !ok {
				at[f.Name], a.columns = len(a.columns), append(a.columns, f.Column)
			}
		}
	}
	for _, row := range rows {
		datums := make([]value.Datum, len(a.columns))
		for _, f := range row {
			datums[at[f.Name]] = f.Datum
		}
		a.rows = append(a.rows, datums)
	}
	return a
}

// InTransaction asks on a connection, in the transaction that it has open: what that has changed and not committed is seen. Its
// session has to have the settings of [PinnedSettings], and the transaction a bound on how long a statement may take.
type InTransaction struct{ Conn *pgconn.PgConn }

func (t InTransaction) ask(ctx context.Context, a asking) ([]answer, error) {
	return a.walk(func(s statement) (answer, error) {
		return collect(s.what, t.Conn.ExecParams(ctx, s.sql, s.values, s.oids, nil, nil))
	})
}

// walk makes the flights' statements, has each answered, and returns the answers to the last flight.
func (a asking) walk(answered func(statement) (answer, error)) (answers []answer, err error) {
	for _, f := range a.flights {
		statements, err := f(answers)
		if err != nil {
			return nil, err
		}
		answers = make([]answer, len(statements))
		for i, s := range statements {
			if answers[i], err = answered(s); err != nil {
				return nil, err
			}
		}
	}
	return answers, nil
}

// PinnedSettings are the settings of a session on which the text form of values depends.
func PinnedSettings() map[string]string {
	settings := make(map[string]string)
	for name, v := range pinned {
		if name != "default_transaction_read_only" {
			settings[name] = v
		}
	}
	return settings
}

// Audience is who would get mails of a match if it were expanded now.
type Audience struct {
	State     outbox.MatchState // expanded, nobody or held
	Reason    string            // of a state other than expanded
	Addresses []string          // that mail can go to
	Bad       int               // recipients without one
}

// Ask asks who would get mails of a change that a rule matches, and makes none. The errors are Rehearse's.
func Ask(ctx context.Context, rule *rules.Rule, facts *rules.Facts, from Asker) (Audience, error) {
	asked := *rule
	asked.Load = nil // what mails show is of no interest
	d := &draft{rule: &asked, facts: facts, position: facts.Position}
	r := &research{draft: d, match: &outbox.Match{Tx: outbox.Tx{Time: facts.CommitTime}}, limit: rule.MaxRecipients}
	err := r.do(ctx, from)
	if many, ok := errors.AsType[*tooMany](err); ok {
		return Audience{State: outbox.MatchHeld, Reason: many.Error()}, nil
	}
	if err != nil {
		return Audience{}, d.veil(err)
	}
	a := Audience{State: outbox.MatchExpanded}
	if len(r.audience.to) == 0 {
		a.State, a.Reason = outbox.MatchNobody, errNobody.Error()
	}
	for _, to := range r.audience.to {
		if to.bad != nil {
			a.Bad++
			continue
		}
		a.Addresses = append(a.Addresses, to.address)
	}
	return a, nil
}
