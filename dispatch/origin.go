package dispatch

import (
	"fmt"
	"strings"

	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// ReadRecipient reads the recipient's row that a message has in the store.
func ReadRecipient(text []byte) (value.Row, error) {
	r, err := decodeRecipient(text)
	return r.row, err
}

// Origin says in words which of the rule's sources of recipients gave an address, to or cc: "the query in line 12". Where the change
// cannot tell one from another, it names all that may have. The facts may lack values that were erased.
func Origin(of []rules.Recipients, f *rules.Facts, address string) string {
	var certain, possible []string
	for _, source := range of {
		switch {
		case source.Query != nil:
			possible = append(possible, fmt.Sprintf("the query in line %d", source.Query.Place().Line))
		case source.Expr != nil:
			if gave, err := gives(source.Expr, f, address); gave {
				certain = append(certain, "the expression "+source.Expr.String())
			} else if err != nil {
				possible = append(possible, "the expression "+source.Expr.String())
			}
		case outbox.AddressKey(configured(source.Address).given()) == outbox.AddressKey(address):
			certain = append(certain, "the rule, which names it")
		}
	}
	if len(certain) > 0 {
		return strings.Join(certain, " and ")
	}
	return strings.Join(possible, " or ")
}

// gives says whether an expression of recipients yields an address.
func gives(e *rules.Expr, f *rules.Facts, address string) (bool, error) {
	v, err := e.Value(f)
	if err != nil {
		return false, err
	}
	list, err := appendAddresses(nil, v)
	for _, r := range list {
		if outbox.AddressKey(r.given()) == outbox.AddressKey(address) {
			return true, nil
		}
	}
	return false, err
}
