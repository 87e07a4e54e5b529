package dispatch

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// recipient is one who is to get a mail, as a source of recipients gave him.
type recipient struct {
	row     value.Row // with email, name, locale and timezone always among its columns
	address string    // checked; empty when bad is set
	bad     error     // why there is no address
}

// The columns that every recipient has.
const (
	emailColumn  = "email"
	nameColumn   = "name"
	localeColumn = "locale"
	zoneColumn   = "timezone"
)

func newRecipient(row value.Row) recipient {
	r := recipient{row: complete(row)}
	email, _ := r.row.Field(emailColumn)
	if email.State != value.Present {
		r.bad = fmt.Errorf("the address is NULL")
		return r
	}
	r.address, r.bad = parseRecipient(string(email.Text))
	return r
}

// complete adds the columns that every recipient has.
func complete(row value.Row) value.Row {
	for _, name := range []string{emailColumn, nameColumn, localeColumn, zoneColumn} {
		if _, ok := row.Field(name); !ok {
			row = append(row, textField(name, value.Datum{}))
		}
	}
	return row
}

func textField(name string, d value.Datum) value.Field {
	text := value.Type{OID: pgtype.TextOID, Base: pgtype.TextOID, Name: "text"}
	return value.Field{Column: value.Column{Name: name, Type: text}, Datum: d}
}

// text is a column as text; empty for NULL.
func (r recipient) text(column string) string {
	f, _ := r.row.Field(column)
	return string(f.Text)
}

// given is the address as its source gave it, for the record.
func (r recipient) given() string { return cmp.Or(r.address, r.text(emailColumn)) }

// storedField is a recipient's column in the store. Text is null for NULL.
type storedField struct {
	Name string  `json:"name"`
	OID  uint32  `json:"oid"`
	Text *string `json:"text"`
}

// encode writes the row for the store: a message that is sent later still knows whom it is for.
func (r recipient) encode() ([]byte, error) {
	fields := make([]storedField, len(r.row))
	for i, f := range r.row {
		fields[i] = storedField{Name: f.Name, OID: f.Type.OID}
		if f.State == value.Present {
			fields[i].Text = new(string(f.Text))
		}
	}
	return json.Marshal(fields)
}

// decodeRecipient reads what encode wrote.
func decodeRecipient(text []byte) (recipient, error) {
	var fields []storedField
	if err := json.Unmarshal(text, &fields); err != nil {
		return recipient{}, fmt.Errorf("reading the stored recipient: %w", err)
	}
	row := make(value.Row, len(fields))
	for i, f := range fields {
		row[i].Column = value.Column{Name: f.Name, Type: value.Type{OID: f.OID, Base: f.OID}}
		if f.Text != nil {
			row[i].Datum = value.Of(*f.Text)
		}
	}
	return newRecipient(row), nil
}

// sources evaluates `to` or `cc` in order. The answers are those to its queries.
func sources(list []rules.Recipients, f *rules.Facts, answers []answer) ([]recipient, error) {
	var all []recipient
	for _, source := range list {
		switch {
		case source.Query != nil:
			a := answers[0]
			answers = answers[1:]
			if !hasColumn(a, emailColumn) {
				return nil, fmt.Errorf("the query of recipients at %s:%d has no column email", source.Query.Place().File, source.Query.Place().Line)
			}
			for i := range a.rows {
				all = append(all, newRecipient(a.row(i)))
			}
		case source.Expr != nil:
			v, err := source.Expr.Value(f)
			if err != nil {
				return nil, fmt.Errorf("evaluating the recipients: %w", err)
			}
			if all, err = appendAddresses(all, v); err != nil {
				return nil, err
			}
		default:
			all = append(all, configured(source.Address))
		}
	}
	return all, nil
}

func hasColumn(a answer, name string) bool {
	for _, c := range a.columns {
		if c.Name == name {
			return true
		}
	}
	return false
}

// appendAddresses takes what an expression gave: text, a list of texts, or NULL, which is an address that is missing.
func appendAddresses(all []recipient, v any) ([]recipient, error) {
	switch v := v.(type) {
	case nil:
		return append(all, newRecipient(nil)), nil
	case string:
		return append(all, newRecipient(value.Row{textField(emailColumn, value.Of(v))})), nil
	case []string:
		for _, s := range v {
			all = append(all, newRecipient(value.Row{textField(emailColumn, value.Of(s))}))
		}
		return all, nil
	case []any:
		for _, element := range v {
			if _, ok := element.([]any); ok {
				return nil, fmt.Errorf("the recipients are a list of lists")
			}
			var err error
			if all, err = appendAddresses(all, element); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("the recipients are a %T, and no text", v)
}

// configured is an address that stands in the rule, perhaps with a name.
func configured(address string) recipient {
	m, err := mailboxBy(parseRecipient, address)
	if err != nil {
		return recipient{row: complete(value.Row{textField(emailColumn, value.Of(address))}), bad: err}
	}
	row := value.Row{textField(emailColumn, value.Of(m.Address))}
	if m.Name != "" {
		row = append(row, textField(nameColumn, value.Of(m.Name)))
	}
	return newRecipient(row)
}

// distinct leaves each address once: the first one given. taken holds the keys that are there already.
func distinct(list []recipient, taken map[[16]byte]bool) []recipient {
	kept := make([]recipient, 0, len(list))
	for _, r := range list {
		if key := outbox.AddressKey(r.given()); !taken[key] {
			taken[key] = true
			kept = append(kept, r)
		}
	}
	return kept
}

// audience is who gets the mails of one match.
type audience struct {
	to []recipient
	cc []recipient // of the first message
}

// tooMany says that a match has more recipients than its rule allows.
type tooMany struct{ count, most int }

func (e *tooMany) Error() string {
	return fmt.Sprintf("%d recipients, and max_recipients is %d", e.count, e.most)
}

// gather makes the audience of a match from the answers to its queries of recipients. most 0 is no limit.
func gather(r *rules.Rule, f *rules.Facts, answers []answer, most int) (audience, error) {
	to, err := sources(r.To, f, answers)
	if err != nil {
		return audience{}, err
	}
	cc, err := sources(r.CC, f, answers[queries(r.To):])
	if err != nil {
		return audience{}, err
	}
	taken := make(map[[16]byte]bool, len(to)+len(cc))
	a := audience{to: distinct(to, taken), cc: distinct(cc, taken)}
	if n := len(a.to) + len(a.cc); most > 0 && n > most {
		return audience{}, &tooMany{n, most}
	}
	return a, nil
}

func queries(list []rules.Recipients) int {
	n := 0
	for _, r := range list {
		if r.Query != nil {
			n++
		}
	}
	return n
}
