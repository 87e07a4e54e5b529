package dispatch

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/wneessen/go-mail"

	"postman/templates"
)

// leaf is a part of a mail that has no parts.
type leaf struct {
	path   string // the multiparts that it is in
	kind   string
	params map[string]string
	file   string
	body   string
}

// leaves takes a mail apart as a mail program does.
func leaves(t *testing.T, path, contentType string, r io.Reader) (all []leaf) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatalf("%s: %v", contentType, err)
	}
	for m := multipart.NewReader(r, params["boundary"]); ; {
		p, err := m.NextRawPart()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		inner := p.Header.Get("Content-Type")
		if strings.HasPrefix(inner, "multipart/") {
			all = append(all, leaves(t, path+kind+" ", inner, p)...)
			continue
		}
		l := leaf{path: path + kind}
		if l.kind, l.params, err = mime.ParseMediaType(inner); err != nil {
			t.Fatalf("%s: %v", inner, err)
		}
		if _, disposition, err := mime.ParseMediaType(p.Header.Get("Content-Disposition")); err == nil {
			l.file = disposition["filename"]
		}
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			body = base64.NewDecoder(base64.StdEncoding, p)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		l.body = string(text)
		all = append(all, l)
	}
}

// TestCalendarParts: an entry is an alternative for programs that show it with buttons and a file for the others, both of them with its method and
// charset; one without a method is a file alone.
func TestCalendarParts(t *testing.T) {
	t.Parallel()
	const both = "multipart/mixed multipart/alternative"
	utf8 := map[string]string{"charset": "UTF-8"}
	for name, c := range map[string]struct {
		method string
		want   []leaf
	}{
		"with a method": {"REQUEST", []leaf{
			{both, "text/plain", utf8, "", "text"},
			{both, "text/html", utf8, "", "<p>html</p>"},
			{both, "text/calendar", map[string]string{"charset": "UTF-8", "method": "REQUEST"}, "", "한글\r\n"},
			{"multipart/mixed", "text/calendar", map[string]string{"charset": "UTF-8", "method": "REQUEST", "name": "invite.ics"}, "invite.ics", "한글\r\n"},
		}},
		"without one": {"", []leaf{
			{both, "text/plain", utf8, "", "text"},
			{both, "text/html", utf8, "", "<p>html</p>"},
			{"multipart/mixed", "text/calendar", map[string]string{"charset": "UTF-8", "name": "invite.ics"}, "invite.ics", "한글\r\n"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := mail.NewMsg(mail.WithEncoding(mail.EncodingB64))
			addParts(msg, templates.Mail{Text: "text", HTML: "<p>html</p>", ICS: "한글\r\n", Method: c.method})
			var b strings.Builder
			if _, err := msg.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			m := parsed(t, []byte(b.String()))
			if diff := cmp.Diff(c.want, leaves(t, "", m.Header.Get("Content-Type"), m.Body), cmp.AllowUnexported(leaf{})); diff != "" {
				t.Errorf("%s\n%s", diff, b.String())
			}
		})
	}
}
