package dispatch

import (
	"context"

	"postman/outbox"
)

// barred says of recipients to whom no mail may go why that is, by their address keys. It is asked before their mails are made, so that
// copies go with one that can be sent; the store asks again in the commit that makes a message `sending`.
type barred map[[16]byte]string

// why is empty where a mail may go to the recipient.
func (b barred) why(r recipient) string { return b[outbox.AddressKey(r.given())] }

// barred asks the store who of an audience is suppressed.
func (d *Dispatcher) barred(ctx context.Context, a audience) (barred, error) {
	addresses := make([]string, 0, len(a.to)+len(a.cc))
	for _, list := range [][]recipient{a.to, a.cc} {
		for _, r := range list {
			if r.bad == nil {
				addresses = append(addresses, r.address)
			}
		}
	}
	if len(addresses) == 0 {
		return nil, nil
	}
	found, err := d.o.Store.Suppressions(ctx, outbox.SuppressionFilter{Addresses: addresses})
	if err != nil {
		return nil, &askError{kind: busy, what: "asking who is suppressed", err: err}
	}
	b := make(barred, len(found))
	for i := range found {
		b[outbox.AddressKey(found[i].Address)] = found[i].String()
	}
	return b, nil
}
