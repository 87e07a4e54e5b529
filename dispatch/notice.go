package dispatch

import (
	"bytes"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
	"postman/templates"
)

// Notice makes a mail of postman's own, which no rule and no template is asked for: what operators are to know. Its position and rule make its
// Message-ID. It is queued as it will be sent; in a mode that lets nothing out it has ended as not-sent.
func (d *Dispatcher) Notice(at position.Position, rule uint32, address, subject, text string) (n outbox.NewMessage, err error) {
	to := configured(address)
	if to.bad != nil {
		return n, fmt.Errorf("notify_ops: %w", to.bad)
	}
	n = outbox.NewMessage{Address: to.given(), State: outbox.MessageQueued, Due: time.Now(), Subject: subject}
	if n.Recipient, err = to.encode(); err != nil {
		return n, err
	}
	msg, err := d.composer.message(templates.Mail{Subject: subject, Text: text}, d.composer.from, nil, to, nil)
	if err != nil {
		return n, fmt.Errorf("composing a mail to operators: %w", err)
	}
	id := messageID(d.composer.store, at, rule, to.address, 0) + "@" + domainOf(d.composer.from.Address)
	msg.SetMessageIDWithValue(id)
	var body bytes.Buffer
	if _, err := msg.WriteTo(&body); err != nil {
		return n, fmt.Errorf("writing a mail to operators: %w", err)
	}
	n.MessageID, n.Body = "<"+id+">", body.Bytes()
	if d.silent(false) {
		n.State, n.Reason = outbox.MessageNotSent, notSent
	}
	return n, nil
}
