package daemon

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"

	"postman/outbox"
)

// MailView is a mail as its reader sees it: while the outbox has its bytes, which it drops once it is sent.
type MailView struct {
	From    string `json:"from"`
	To      string `json:"to"`
	CC      string `json:"cc,omitempty"`
	ReplyTo string `json:"reply_to,omitempty"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
	HTML    string `json:"html,omitempty"`
	// Attached are the names of the files.
	Attached []string `json:"attached,omitempty"`
}

// mailOf is the mail of a message; nil where its bytes are not there, or show what is nobody's business.
func mailOf(m *outbox.Message) (*MailView, error) {
	if len(m.Body) == 0 || m.Sensitive {
		return nil, nil
	}
	read, err := mail.ReadMessage(bytes.NewReader(m.Body))
	if err != nil {
		return nil, fmt.Errorf("reading the mail of message %d: %w", m.ID, err)
	}
	var words mime.WordDecoder
	header := func(name string) string {
		text, err := words.DecodeHeader(read.Header.Get(name))
		if err != nil {
			return read.Header.Get(name)
		}
		return text
	}
	v := &MailView{From: header("From"), To: header("To"), CC: header("Cc"), ReplyTo: header("Reply-To"), Subject: header("Subject")}
	if err := v.part(textHeader(read.Header), read.Body); err != nil {
		return nil, fmt.Errorf("reading the mail of message %d: %w", m.ID, err)
	}
	return v, nil
}

// textHeader is what a mail and a part of one have in common.
type textHeader map[string][]string

// Get is the first value of a field, whose name is written as MIME does.
func (h textHeader) Get(name string) string {
	if len(h[name]) == 0 {
		return ""
	}
	return h[name][0]
}

// part reads a part of a mail, and all that is in it (RFC 2046).
func (v *MailView) part(h textHeader, body io.Reader) error {
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = v.part(textHeader(p.Header), p)
			}
			if err != nil {
				return err
			}
		}
	}
	if disposition, file, err := mime.ParseMediaType(h.Get("Content-Disposition")); err == nil && disposition == "attachment" {
		v.Attached = append(v.Attached, file["filename"])
		return nil
	}
	text, err := io.ReadAll(decoded(h.Get("Content-Transfer-Encoding"), body))
	switch {
	case err != nil:
		return err
	case kind == "text/plain" && v.Text == "":
		v.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	case kind == "text/html" && v.HTML == "":
		v.HTML = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	return nil
}

func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(encoding) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}
