package dispatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/apd/v3"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/rules"
	"postman/value"
)

// bind makes a statement of a rule's query: each @name becomes a parameter of the column's own type. to is the recipient,
// for queries that ask about one.
func (d *draft) bind(what string, sql *rules.SQL, to value.Row) (statement, error) {
	at := sql.Place()
	s := statement{
		what: fmt.Sprintf("%s (%s:%d)", what, at.File, at.Line), of: sql, sql: sql.Text,
		oids: make([]uint32, len(sql.Params)), values: make([][]byte, len(sql.Params)),
	}
	for i, p := range sql.Params {
		var err error
		if s.oids[i], s.values[i], err = d.parameter(p, to); err != nil {
			return s, &askError{kind: wrong, what: s.what, err: err}
		}
	}
	return s, nil
}

// bindsTo says whether a query asks about a recipient.
func bindsTo(sql *rules.SQL) bool {
	for _, p := range sql.Params {
		if p.Scope == "to" {
			return true
		}
	}
	return false
}

func (d *draft) parameter(p rules.Param, to value.Row) (uint32, []byte, error) {
	f := d.facts
	switch p.Scope {
	case "new":
		if f.Op == "delete" {
			return column(p, empty(f.Old))
		}
		return column(p, f.New)
	case "old":
		if f.Op == "insert" {
			return column(p, empty(f.New))
		}
		return column(p, f.Old)
	case "to":
		return column(p, to)
	case "message":
		return d.key(p.Name)
	}
	return 0, nil, fmt.Errorf("@%s has no meaning here", p.Scope)
}

// empty is a row of NULLs with the columns of another: old of an INSERT, new of a DELETE.
func empty(row value.Row) value.Row {
	nulls := slices.Clone(row)
	for i := range nulls {
		nulls[i].Datum = value.Datum{}
	}
	return nulls
}

func column(p rules.Param, row value.Row) (uint32, []byte, error) {
	field, ok := row.Field(p.Name)
	if !ok {
		return 0, nil, fmt.Errorf("@%s.%s: there is no such column", p.Scope, p.Name)
	}
	switch field.State {
	case value.Null:
		return field.Type.OID, nil, nil
	case value.Present:
		return field.Type.OID, present(field.Text), nil
	case value.Unavailable:
		return 0, nil, fmt.Errorf("@%s.%s: the stream did not carry the value, and the row could not be read again", p.Scope, p.Name)
	case value.Blanked:
	}
	return 0, nil, fmt.Errorf("@%s.%s: the value is sensitive and was erased here", p.Scope, p.Name)
}

// present is a text that is not NULL, even when it is empty.
func present(text []byte) []byte {
	if text == nil {
		return []byte{}
	}
	return text
}

// key binds a key of a message, by the type of its JSON value. One that is not there is NULL, as in expressions; but where a
// sensitive one is missing it was erased.
func (d *draft) key(name string) (uint32, []byte, error) {
	object, ok := d.facts.Message.(map[string]any)
	if !ok {
		return 0, nil, errors.New("the message is no JSON object")
	}
	if _, ok := object[name]; !ok && slices.Contains(d.rule.Sensitive, name) {
		return 0, nil, fmt.Errorf("@message.%s: the value is sensitive and was erased here", name)
	}
	switch v := object[name].(type) {
	case nil:
		return pgtype.TextOID, nil, nil
	case string:
		return pgtype.TextOID, []byte(v), nil
	case bool:
		return pgtype.BoolOID, fmt.Append(nil, v), nil
	case *apd.Decimal:
		return pgtype.NumericOID, []byte(v.String()), nil
	default:
		text, err := json.Marshal(jsonValue(v))
		return pgtype.JSONBOID, text, err
	}
}

// jsonValue makes JSON numbers of decimals, which would be strings otherwise.
func jsonValue(v any) any {
	switch v := v.(type) {
	case *apd.Decimal:
		return json.Number(v.String())
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonValue(v[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for k := range v {
			object[k] = jsonValue(v[k])
		}
		return object
	}
	return v
}
