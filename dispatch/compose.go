package dispatch

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	netmail "net/mail"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"postman/outbox"
	"postman/position"
	"postman/rules"
	"postman/templates"
)

// draft is all that the mails of one match have in common.
type draft struct {
	rule     *rules.Rule
	facts    *rules.Facts
	position position.Position
	ruleID   uint32
	data     templates.Data // without the recipient and what is loaded
}

// letter is a mail, ready for the wire.
type letter struct {
	messageID string
	subject   string
	body      []byte
	template  outbox.Hash
	note      string // what an operator may want to know about it; empty: nothing
}

// composer makes mails. Safe for many goroutines.
type composer struct {
	store     string // its id, part of every Message-ID
	secret    []byte // the store's, by which threads are named
	templates func() *templates.Set
	from      *netmail.Address
	domains   Domains          // that a rule's from may have
	replyTo   *netmail.Address // nil: none
	locale    string
	zone      *time.Location
	zones     zones
}

// compose renders one mail by the live templates. An error, and even a panic, is this mail's alone.
func (c *composer) compose(d *draft, to recipient, cc []string, resend uint32, l loaded) (letter, error) {
	made, _, err := c.composeParts(d, to, cc, resend, l)
	return made, err
}

// composeParts is compose, and the parts that the mail was made of.
func (c *composer) composeParts(d *draft, to recipient, cc []string, resend uint32, l loaded) (_ letter, m templates.Mail, err error) {
	defer func() { err = d.veil(err) }()
	defer caught(&err)
	data, err := with(d.data, to, l)
	if err != nil {
		return letter{}, m, err
	}
	where, note := c.contextOf(d.rule, to)
	m, err = c.templates().Render(d.rule.Template, where, data)
	if err != nil {
		if hidden := withheld(d.facts); hidden != "" {
			return letter{}, m, fmt.Errorf("%w (without %s)", err, hidden)
		}
		return letter{}, m, err
	}
	from, replyTo, err := c.senders(d)
	if err != nil {
		return letter{}, m, err
	}
	id := messageID(c.store, d.position, d.ruleID, to.address, resend) + "@" + domainOf(from.Address)
	msg, err := c.message(m, from, replyTo, to, cc)
	if err != nil {
		return letter{}, m, err
	}
	msg.SetMessageIDWithValue(id)
	root, alone := c.thread(d)
	refer(msg, root)
	var body bytes.Buffer
	if _, err := msg.WriteTo(&body); err != nil {
		return letter{}, m, fmt.Errorf("writing the mail: %w", err)
	}
	return letter{messageID: "<" + id + ">", subject: m.Subject, body: body.Bytes(), template: outbox.Hash(m.Hash), note: joined(note, alone)}, m, nil
}

// joined are notes in one.
func joined(notes ...string) string {
	return strings.Join(slices.DeleteFunc(notes, func(n string) bool { return n == "" }), "; ")
}

// contextOf is the recipient's language and time zone, or else the rule's or the configuration's, and what an operator may want to
// know of them.
func (c *composer) contextOf(r *rules.Rule, to recipient) (_ templates.Context, note string) {
	zone, note := c.zoneOf(r, to)
	return templates.Context{Locale: cmp.Or(to.text(localeColumn), r.Locale, c.locale), Zone: zone}, note
}

// caught makes an error of a panic, with the place where it began.
func caught(err *error) {
	r := recover()
	if r == nil {
		return
	}
	callers := make([]uintptr, 32)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") || !more {
			*err = fmt.Errorf("panic in %s (%s:%d): %v", f.Function, f.File, f.Line, r)
			return
		}
	}
}

// messageID is the part before the @: the same for the same message, whenever and wherever it is composed. Its first bytes are the change's
// place, hidden by the others, so that what comes back of a mail is found without an index of all Message-IDs.
func messageID(store string, p position.Position, rule uint32, address string, resend uint32) string {
	key := outbox.AddressKey(address)
	h := sha256.New()
	h.Write([]byte(store))
	for _, n := range []uint64{uint64(p.Source), uint64(p.Epoch), uint64(p.LSN), p.Ordinal, uint64(rule), uint64(resend)} {
		h.Write(binary.BigEndian.AppendUint64(nil, n))
	}
	h.Write(key[:])
	identity := h.Sum(nil)[:identityBytes]
	place := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(p.LSN)), uint32(p.Ordinal))
	hide(store, place, identity)
	return strings.ToLower(messageIDs.EncodeToString(append(place, identity...)))
}

// What a Message-ID has before the @: the place, and 12 bytes that tell the mails of one change apart.
const (
	placeBytes    = 8 + 4
	identityBytes = 12
)

var messageIDs = base32.StdEncoding.WithPadding(base32.NoPadding)

// hide makes a place of a Message-ID unreadable to others, or readable again.
func hide(store string, place, identity []byte) {
	h := sha256.New()
	h.Write([]byte("place\x00" + store + "\x00"))
	h.Write(identity)
	subtle.XORBytes(place, place, h.Sum(nil))
}

// PlaceOf is the commit, and the low bits of the ordinal, of the change that a Message-ID was made of by a store; false: no store made it. What
// another store made has a place that means nothing.
func PlaceOf(store, messageID string) (at position.LSN, ordinal uint32, ok bool) {
	local, _, _ := strings.Cut(strings.TrimPrefix(messageID, "<"), "@")
	id, err := messageIDs.DecodeString(strings.ToUpper(local))
	if err != nil || len(id) != placeBytes+identityBytes {
		return 0, 0, false
	}
	place, identity := id[:placeBytes], id[placeBytes:]
	hide(store, place, identity)
	return position.LSN(binary.BigEndian.Uint64(place)), binary.BigEndian.Uint32(place[8:]), true
}

// zoneOf is the recipient's time zone, or else the rule's or the configuration's.
func (c *composer) zoneOf(r *rules.Rule, to recipient) (*time.Location, string) {
	fallback := cmp.Or(r.Zone, c.zone)
	name := strings.TrimSpace(to.text(zoneColumn))
	if name == "" {
		return fallback, ""
	}
	zone, err := c.zones.named(name)
	if err != nil {
		return fallback, fmt.Sprintf("the recipient's time zone %q is unknown: times are shown in %s", clip(name), fallback)
	}
	return zone, ""
}

// senders are From and Reply-To: the rule's, or else the configuration's.
func (c *composer) senders(d *draft) (from, replyTo *netmail.Address, err error) {
	if from, err = sender(d.rule.From, d.facts, c.from); err != nil {
		return nil, nil, fmt.Errorf("from: %w", err)
	}
	if err := c.domains.allow(from.Address); err != nil {
		return nil, nil, fmt.Errorf("from: %w", err)
	}
	if replyTo, err = sender(d.rule.ReplyTo, d.facts, c.replyTo); err != nil {
		return nil, nil, fmt.Errorf("reply_to: %w", err)
	}
	return from, replyTo, nil
}

func sender(r *rules.Recipients, f *rules.Facts, configured *netmail.Address) (*netmail.Address, error) {
	switch {
	case r == nil:
		return configured, nil
	case r.Expr == nil:
		return parseMailbox(r.Address)
	}
	v, err := r.Expr.Value(f)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return configured, nil
	case string:
		return parseMailbox(v)
	}
	return nil, fmt.Errorf("it is a %T, and no text", v)
}

// message builds the mail's parts and headers.
func (c *composer) message(m templates.Mail, from, replyTo *netmail.Address, to recipient, cc []string) (*mail.Msg, error) {
	if strings.ContainsAny(m.Subject, "\r\n") {
		return nil, errors.New("the subject has more than one line")
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithEncoding(mail.EncodingB64))
	msg.FromMailAddress(from)
	if replyTo != nil {
		msg.ReplyToMailAddress(replyTo)
	}
	msg.ToMailAddress(mailbox(to.address, to.text(nameColumn)))
	for _, s := range cc {
		a, err := mailboxBy(parseRecipient, s)
		if err != nil {
			return nil, err
		}
		msg.AddCcMailAddress(a)
	}
	msg.Subject(foldable(plainLine(m.Subject)))
	msg.SetDateWithValue(time.Now())
	// A machine wrote this: nobody's absence assistant need answer. RFC 3834 §5; the other is Exchange's.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "OOF, AutoReply")
	addParts(msg, m)
	return msg, nil
}

// addParts adds the alternatives, the plainest first (RFC 2046 §5.1.4). A calendar entry comes as an alternative, which mail programs show with
// its buttons, and as a file for those that do not. The method has to stand in the Content-Type as it does in the object (RFC 6047 §2.4); an
// entry without one is a file alone, since an alternative that is not understood would be shown in place of the text.
func addParts(msg *mail.Msg, m templates.Mail) {
	msg.SetBodyString(mail.TypeTextPlain, crlf(m.Text), mail.WithPartEncoding(encoding(m.Text)))
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, crlf(m.HTML), mail.WithPartEncoding(encoding(m.HTML)))
	}
	if m.ICS == "" {
		return
	}
	calendar, file := mail.ContentType("text/calendar"), mail.ContentType("text/calendar; charset=UTF-8")
	if m.Method != "" {
		method := mail.ContentType("; method=" + m.Method)
		calendar, file = calendar+method, file+method
		msg.AddAlternativeString(calendar, m.ICS, mail.WithPartEncoding(mail.EncodingB64))
	}
	msg.AttachReadSeeker("invite.ics", strings.NewReader(m.ICS), mail.WithFileContentType(file))
}

// crlf ends lines as text in a mail does, under base64 too (RFC 2045 §6.8).
func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// encoding is the shorter of the two that pass every relay: quoted-printable for what is mostly ASCII, which stays readable
// in a trace, base64 for Korean and the like.
func encoding(text string) mail.Encoding {
	escaped := 0
	for i := range len(text) {
		if text[i] > '~' || text[i] == '=' {
			escaped++
		}
	}
	if 6*escaped > len(text) {
		return mail.EncodingB64
	}
	return mail.EncodingQP
}
