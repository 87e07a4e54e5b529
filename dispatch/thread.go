package dispatch

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"

	"github.com/wneessen/go-mail"
)

// threadBytes are enough that two threads of a store never meet by chance.
const threadBytes = 20

// thread is the Message-ID that the mails about a thing refer to; empty: each stands alone, and the note says why where its rule would have it
// otherwise.
//
// It is that of no mail. Mail programs put together what refers to the same ID, whether or not they have its mail: the threading by references of
// RFC 5256 makes an empty root for it, as Apple Mail, Thunderbird and Outlook do in their ways, and Gmail asks for a reference in common and the
// same subject. The first mail could not bear it: nobody knows which one that is, it is another one for each recipient, and a Message-ID
// names one mail (RFC 5322 §3.6.4).
//
// It is an HMAC by the store's secret, since it travels with every answer and tells nobody what it was made of. Its domain is that of the
// configuration's sender, so that mails of rules with other senders stand beside them.
func (c *composer) thread(d *draft) (root, note string) {
	s, err := d.rule.Standing(d.facts)
	switch {
	case err != nil:
		return "", "it stands in no thread: " + err.Error()
	case s == nil:
		return "", ""
	}
	h := hmac.New(sha256.New, c.secret)
	h.Write([]byte("thread\x00")) // the key signs other things, too
	h.Write(s.Key)
	return "<thread." + strings.ToLower(messageIDs.EncodeToString(h.Sum(nil)[:threadBytes])) + "@" + domainOf(c.from.Address) + ">", ""
}

// refer has a mail stand in a thread (RFC 5322 §3.6.4): some programs look at one of the fields only.
func refer(msg *mail.Msg, root string) {
	if root != "" {
		msg.SetGenHeader(mail.HeaderReferences, root)
		msg.SetGenHeader(mail.HeaderInReplyTo, root)
	}
}
