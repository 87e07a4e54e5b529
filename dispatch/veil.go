package dispatch

import (
	"errors"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"postman/value"
)

const veiled = "<sensitive>"

// veil takes the change's sensitive values out of an error: reasons are stored, shown and reported. Postgres quotes values it
// cannot read, and so do decoders. The errors beneath are cut off, since whoever unwraps them would print them.
func (d *draft) veil(err error) error {
	if err == nil {
		return nil
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
