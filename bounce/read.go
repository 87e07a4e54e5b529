package bounce

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
)

// What is read of a mail. The report stands before the mail that it returns, so that nothing is missed of one that is longer.
const (
	mostBytes      = 16 << 20
	mostDepth      = 6
	mostParts      = 50 // of one multipart
	mostRecipients = 500
)

// delivery are the fields that name where a mail was delivered to: for a report, the envelope sender of what it is about.
var delivery = []string{"Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To"}

// Read reads a mail that came to the address of an envelope sender. The error is the reader's; whatever the mail is, the report says.
func Read(from io.Reader) (*Report, error) {
	text, err := io.ReadAll(io.LimitReader(from, mostBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the mail: %w", err)
	}
	if bytes.HasPrefix(text, []byte("From ")) { // as in a mailbox file; some pipes add it
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	r := new(Report)
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		r.Not = "it is no mail: " + plain(err.Error())
		return r, nil
	}
	r.ID = id(m.Header.Get("Message-Id"))
	for _, name := range delivery {
		for _, v := range m.Header[textproto.CanonicalMIMEHeaderKey(name)] {
			r.addSenders(v)
		}
	}
	r.walk(textproto.MIMEHeader(m.Header), m.Body, 0)
	if len(r.Recipients) == 0 {
		r.Not, r.MessageID = kindOf(m.Header), ""
	}
	return r, nil
}

// kindOf says what a mail is that is no report.
func kindOf(h mail.Header) string {
	auto := strings.ToLower(h.Get("Auto-Submitted") + " " + h.Get("Precedence") + " " + h.Get("X-Autoreply") + " " + h.Get("X-Auto-Response-Suppress"))
	switch {
	case strings.Contains(auto, "auto-replied"), strings.Contains(auto, "auto_reply"), h.Get("X-Autoreply") != "", h.Get("X-Autorespond") != "":
		return "it is an automatic reply"
	case strings.TrimSpace(h.Get("Return-Path")) == "<>", strings.Contains(strings.ToLower(h.Get("From")), "mailer-daemon"):
		return "it is a bounce that says nothing a machine can read (RFC 3464)"
	}
	return "it is no report of a delivery and no complaint"
}

// addSenders takes the addresses of a field, in whatever form.
func (r *Report) addSenders(field string) {
	if list, err := mail.ParseAddressList(field); err == nil {
		for _, a := range list {
			r.addSender(a.Address)
		}
		return
	}
	r.addSender(address(field))
}

func (r *Report) addSender(a string) {
	if strings.Contains(a, "@") && len(r.Senders) < mostParts && !slices.Contains(r.Senders, a) {
		r.Senders = append(r.Senders, a)
	}
}

// walk takes what a part says. A mail within is only looked into where nothing around it is a report: the mail that a report returns may be
// one itself.
func (r *Report) walk(h textproto.MIMEHeader, body io.Reader, depth int) {
	kind, parameters, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil && kind == "" || depth > mostDepth {
		return
	}
	body = decoded(h.Get("Content-Transfer-Encoding"), body)
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		r.walkParts(parameters["boundary"], body, depth)
	case kind == "message/delivery-status", kind == "message/global-delivery-status":
		r.readStatus(body)
	case kind == "message/feedback-report":
		r.readFeedback(body)
	}
}

// within is a part with a mail, or a mail's header.
type within struct {
	kind string
	text []byte
}

func (r *Report) walkParts(boundary string, body io.Reader, depth int) {
	if boundary == "" {
		return
	}
	var mails []within
	parts := multipart.NewReader(body, boundary)
	for range mostParts {
		p, err := parts.NextRawPart()
		if err != nil { // the end, or a mail that was cut: what was read counts
			break
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		switch kind {
		case "message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers", "message/global-headers":
			text, _ := io.ReadAll(decoded(p.Header.Get("Content-Transfer-Encoding"), p)) // likewise
			mails = append(mails, within{kind, text})
		default:
			r.walk(p.Header, p, depth+1)
		}
	}
	reported := len(r.Recipients) > 0
	for _, m := range mails {
		h, rest := header(m.text)
		switch {
		case reported:
			r.returned(h)
		case m.kind == "message/rfc822" || m.kind == "message/global":
			r.walk(h, rest, depth+1)
		}
	}
}

// header reads the fields of a mail that may be cut, or be nothing but fields.
func header(text []byte) (textproto.MIMEHeader, io.Reader) {
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil { // fields alone, without the empty line behind them
		m, err = mail.ReadMessage(bytes.NewReader(append(slices.Clip(bytes.TrimRight(text, "\r\n")), "\r\n\r\n"...)))
	}
	if err != nil {
		return nil, strings.NewReader("")
	}
	return textproto.MIMEHeader(m.Header), m.Body
}

// returned takes what the mail says that the report is about.
func (r *Report) returned(h textproto.MIMEHeader) {
	if r.MessageID == "" {
		r.MessageID = id(h.Get("Message-Id"))
	}
	r.addSenders(h.Get("Return-Path"))
}

// id is a Message-ID with its angle brackets, or nothing.
func id(s string) string {
	begin := strings.IndexByte(s, '<')
	if begin < 0 {
		return ""
	}
	end := strings.IndexByte(s[begin:], '>')
	if end < 0 || end > 998 || strings.ContainsAny(s[begin:begin+end], " \t\r\n") {
		return ""
	}
	return s[begin : begin+end+1]
}

func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	}
	return body
}
