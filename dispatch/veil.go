package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/apd/v3"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/value"
)

const veiled = "<sensitive>"

// veil takes sensitive values out of an error: reasons are stored, shown and reported. Postgres quotes values it
// cannot read, and so do decoders. Those of the change are known; of those that a query reads, Postgres alone tells. The errors beneath are cut off, since whoever unwraps them would print them.
func (d *draft) veil(err error) error {
	if err == nil {
		return nil
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && len(d.rule.Reads) > 0 && tellsValues(pg.Code) {
		err = withoutWords(err, pg)
	}
	text := err.Error()
	for _, secret := range d.secrets() {
		text = strings.ReplaceAll(text, secret, veiled)
	}
	if text == err.Error() {
		return err
	}
	if ask, ok := errors.AsType[*askError](err); ok {
		return &askError{kind: ask.kind, err: errors.New(text)}
	}
	return errors.New(text)
}

// tellsValues says whether an error's words may quote a value that a query has read, by its SQLSTATE (Postgres documentation, appendix A).
// Those of other classes are about names, rights, connections and resources.
func tellsValues(code string) bool {
	return !slices.Contains([]string{"08", "25", "40", "42", "53", "54", "55", "57", "58"}, code[:min(2, len(code))])
}

// withoutWords is an error of a query without what Postgres says of it: nobody knows what in that is sensitive, since the values that it
// quotes may be in no answer.
func withoutWords(err error, pg *pgconn.PgError) error {
	told := fmt.Errorf("the database refuses a value (SQLSTATE %s); its words are withheld, as the rule's queries read a sensitive column", pg.Code)
	if ask, ok := errors.AsType[*askError](err); ok {
		return &askError{kind: ask.kind, what: ask.what, err: told}
	}
	return told
}

// shortest is the length from which a text is a secret worth the hiding: a shorter one stands everywhere.
const shortest = 4

// secrets are the texts of the change's sensitive values.
func (d *draft) secrets() []string {
	var list []string
	add := func(text string) {
		if len(text) >= shortest {
			list = append(list, text)
		}
	}
	for _, row := range []value.Row{d.facts.New, d.facts.Old} {
		for _, f := range row {
			if d.rule.Hides(f.Name) {
				add(string(f.Text))
			}
		}
	}
	object, _ := d.facts.Message.(map[string]any)
	for name, v := range object {
		if !d.rule.Hides(name) {
			continue
		}
		switch v := v.(type) {
		case string:
			add(v)
		case *apd.Decimal:
			add(v.String())
		}
	}
	return list
}
