package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"postman/outbox"
	"postman/templates"
	"postman/value"
)

// Proof is what came of a conversation that shows how a relay does.
type Proof struct {
	Relay  string    `json:"relay"`
	Lines  []Line    `json:"lines"`
	Offers []string  `json:"offers"` // EHLO's extensions, as the relay wrote them
	TLS    *TLSState `json:"tls,omitempty"`
	Auth   string    `json:"auth,omitempty"` // the mechanism that was used
	Took   float64   `json:"took_ms"`
	// Problem is what went wrong, and Advice what to do about it; empty: nothing did.
	Problem string `json:"problem,omitempty"`
	Advice  string `json:"advice,omitempty"`
	// Code and Reply are what the relay said of the mail. A 2xx comes with the name that the relay's own log has for it.
	Code      int    `json:"code,omitempty"`
	Reply     string `json:"reply,omitempty"`
	MessageID string `json:"message_id,omitempty"`
}

// OK says whether all went well.
func (p *Proof) OK() bool { return p.Problem == "" }

// ProofMail is a mail that proves a relay.
type ProofMail struct {
	From    string // with or without a name
	ReplyTo string // empty: none
	Sender  string // of the envelope; empty: From's
	To      string
	About   string // what it says of where it comes from
}

// Prove connects to a relay as a dispatcher would, and with a mail sends that, once: a dot without a reply is told and not tried again.
// Whatever goes wrong is in the proof; the error is of the mail's own addresses. Zero timeouts mean the defaults.
func Prove(ctx context.Context, r Relay, m *ProofMail, t Timeouts) (*Proof, error) {
	var j *job
	if m != nil {
		var err error
		if j, err = m.job(); err != nil {
			return nil, err
		}
	}
	o := Options{Timeouts: t}
	o.defaults()
	r.Limits = r.Limits.Or(defaultLimits)
	r.heard = &transcript{lines: []Line{}, offers: []string{}}
	p := &Proof{Relay: r.String()}
	started := time.Now()
	s, err := connect(ctx, r, o.Timeouts)
	got := reply{phase: dialing, err: err}
	if refusal, ok := errors.AsType[*textproto.Error](err); ok {
		got.code, got.text, got.err = refusal.Code, refusal.Msg, nil
	}
	if err == nil {
		if got = (reply{phase: dotted, code: 250}); j != nil {
			p.MessageID = j.letter.messageID
			j.lease = time.Now().Add(leaseFor)
			got, _ = s.deliver(ctx, j, func() *job { return nil }, nil)
			p.Code, p.Reply = got.code, oneLine(got.text)
		}
		if s.over {
			s.cut()
		} else {
			r.heard.add("we", "QUIT")
			s.quit()
		}
	}
	p.Took = float64(time.Since(started).Microseconds()) / 1000
	if got.class() != sent {
		p.Problem, p.Advice = got.String(), advise(r, got)
		if got.phase == dialing && got.code/100 == 2 && r.heard.mechanism != "" { // RFC 4954, section 4: 235 is the one that lets in
			p.Problem = fmt.Sprintf("it answered AUTH with %d %s, where 235 is due", got.code, oneLine(got.text))
			p.Advice = "nobody is logged in by that: what speaks there is no relay that knows AUTH; leave user and password out of smtp_url if it needs none"
		}
	}
	p.Lines, p.Offers, p.TLS, p.Auth = r.heard.lines, r.heard.offers, r.heard.protected, r.heard.mechanism
	return p, nil
}

// job makes the mail, in the same way as any other.
func (m *ProofMail) job() (*job, error) {
	from, err := parseMailbox(m.From)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	c := &composer{from: from}
	if m.ReplyTo != "" {
		if c.replyTo, err = parseMailbox(m.ReplyTo); err != nil {
			return nil, fmt.Errorf("reply_to: %w", err)
		}
	}
	to := newRecipient(value.Row{textField(emailColumn, value.Of(m.To))})
	if to.bad != nil {
		return nil, to.bad
	}
	sender, err := parseAddress(cmp.Or(m.Sender, from.Address))
	if err != nil {
		return nil, fmt.Errorf("bounce: %w", err)
	}
	words := templates.Mail{Subject: "[postman] test mail", Text: "This is a test mail. Somebody asked for it with `postman outbox send-test`; nothing in your data has caused it.\n\n" + m.About + "\n"}
	msg, err := c.message(words, from, c.replyTo, to, nil)
	if err != nil {
		return nil, err
	}
	id := "test-" + strings.ToLower(rand.Text()) + "@" + domainOf(from.Address)
	msg.SetMessageIDWithValue(id)
	msg.SetGenHeader(mail.Header("X-Postman-Test"), "yes")
	var body bytes.Buffer
	if _, err := msg.WriteTo(&body); err != nil {
		return nil, fmt.Errorf("writing the mail: %w", err)
	}
	return &job{
		message: outbox.Message{Address: to.address}, letter: letter{messageID: "<" + id + ">"}, body: body.Bytes(),
		envelope: envelope{from: sender, to: to.address},
	}, nil
}
