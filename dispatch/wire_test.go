package dispatch

import (
	"bytes"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/position"
	"postman/rules"
	"postman/templates"
)

// FuzzContent sends any bytes as a mail: what the relay reads is that, with bare line feeds mended and the last line ended, and
// nothing in it ends the mail early.
func FuzzContent(f *testing.F) {
	for _, s := range []string{"", ".", "\r\n.\r\n", "a\n.\nb", "..\r\n...", "\r", "a\r.\r\n", ".\r\nQUIT\r\n", "\n.\r\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		client, server := net.Pipe()
		read := make(chan string, 1)
		go func() {
			defer server.Close()
			c := textproto.NewConn(server)
			text, err := io.ReadAll(c.DotReader())
			if err != nil {
				text = []byte(err.Error())
			}
			read <- string(text)
			_ = c.PrintfLine("250 ok")
			_, _ = io.Copy(io.Discard, server)
		}()
		s := &session{raw: client, text: textproto.NewConn(client), timeouts: Timeouts{Body: 5 * time.Second, Dot: 5 * time.Second}}
		r, _ := s.content(&job{body: body, lease: time.Now().Add(time.Minute)}, nil, nil)
		client.Close()
		if r.class() != sent {
			t.Fatalf("%s", r)
		}
		// The reader at the other end makes LF of CRLF; bare CRs pass on both ends.
		want := strings.ReplaceAll(string(body), "\r\n", "\n")
		if got := <-read; strings.TrimSuffix(got, "\n") != strings.TrimSuffix(want, "\n") && !strings.Contains(string(body), "\r") {
			t.Fatalf("%q was read as %q", body, got)
		}
	})
}

// FuzzRedirected redirects composed mails with any names and subjects: nothing but the one address is left to send to.
func FuzzRedirected(f *testing.F) {
	f.Add("김민수", "안녕하세요", "Park, J")
	f.Add("To: x@example.com", "Cc: y@example.com", "\t")
	f.Add(strings.Repeat("long ", 50), strings.Repeat("x", 200), "")
	c := &composer{store: "s", from: must(parseMailbox("crm@example.com")), replyTo: must(parseMailbox("desk@example.com"))}
	f.Fuzz(func(t *testing.T, name, subject, other string) {
		subject = strings.NewReplacer("\r", "", "\n", "").Replace(subject)
		to := configured("kim@example.com")
		to.row[1].Text, to.row[1].State = []byte(name), 1
		msg, err := c.message(templates.Mail{Subject: subject, Text: "body\n"}, c.from, c.replyTo, to, []string{mailbox("park@example.com", other).String()})
		if err != nil {
			return // a name that cannot stand in a header
		}
		var b bytes.Buffer
		if _, err := msg.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		body := redirected(b.Bytes(), "dev@example.com", envelope{to: "kim@example.com", cc: []string{"park@example.com"}})
		h := parsed(t, body).Header
		for _, field := range []string{"To", "Reply-To"} {
			list, err := h.AddressList(field)
			if err != nil || len(list) != 1 || list[0].Address != "dev@example.com" || len(h[field]) != 1 {
				t.Fatalf("%s: %q, %v", field, h[field], err)
			}
		}
		if h.Get("Cc") != "" || h.Get("X-Postman-Original-To") != "kim@example.com, park@example.com" {
			t.Fatalf("%v", h)
		}
		_, before, _ := bytes.Cut(b.Bytes(), []byte("\r\n\r\n"))
		_, after, _ := bytes.Cut(body, []byte("\r\n\r\n"))
		if diff := cmp.Diff(string(before), string(after)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestMessageID is different for whatever makes a message another one, and the same for two spellings of an address.
func TestMessageID(t *testing.T) {
	t.Parallel()
	p := position.Position{Source: 1, Epoch: 1, LSN: 100, Ordinal: 2}
	seen := make(map[string]bool)
	add := func(id string) {
		t.Helper()
		if seen[id] {
			t.Errorf("%s recurs", id)
		}
		seen[id] = true
	}
	add(messageID("s", p, 1, "kim@example.com", 0))
	add(messageID("s2", p, 1, "kim@example.com", 0))
	add(messageID("s", p, 2, "kim@example.com", 0))
	add(messageID("s", p, 1, "lee@example.com", 0))
	add(messageID("s", p, 1, "kim@example.com", 1))
	for _, q := range []position.Position{{Source: 2, Epoch: 1, LSN: 100, Ordinal: 2}, {Source: 1, Epoch: 2, LSN: 100, Ordinal: 2}, {Source: 1, Epoch: 1, LSN: 101, Ordinal: 2}, {Source: 1, Epoch: 1, LSN: 100, Ordinal: 3}} {
		add(messageID("s", q, 1, "kim@example.com", 0))
	}
	if !seen[messageID("s", p, 1, " KIM@example.com", 0)] {
		t.Error("another spelling is another message")
	}
}

// TestRecipientsAtRest reads back what was stored of a recipient.
func TestRecipientsAtRest(t *testing.T) {
	t.Parallel()
	to := newRecipient(complete(nil))
	to.row = append(to.row, textField("nick", to.row[0].Datum))
	for i, text := range []string{"kim@example.com", "김\u0000\"", "", "Asia/Seoul"} {
		if text != "" {
			to.row[i].State, to.row[i].Text = 1, []byte(text)
		}
	}
	stored, err := to.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecipient(stored)
	if err != nil || got.address != "kim@example.com" || got.bad != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, f := range to.row {
		if back, ok := got.row.Field(f.Name); !ok || back.State != f.State || !bytes.Equal(back.Text, f.Text) || back.Type.OID != f.Type.OID {
			t.Errorf("%s: %+v became %+v", f.Name, f, back)
		}
	}
	if _, err := decodeRecipient([]byte("nonsense")); err == nil {
		t.Error("nonsense is a recipient")
	}
}

// TestSenders takes From and Reply-To from the rule, where it has them.
func TestSenders(t *testing.T) {
	t.Parallel()
	c := &composer{from: must(parseMailbox("CRM <crm@example.com>"))}
	for name, test := range map[string]struct {
		rule          rules.Rule
		from, replyTo string
		bad           bool
	}{
		"the configuration's": {from: `"CRM" <crm@example.com>`},
		"the rule's":          {rule: rules.Rule{From: &rules.Recipients{Address: "Desk <desk@example.com>"}, ReplyTo: &rules.Recipients{Address: "r@example.com"}}, from: `"Desk" <desk@example.com>`, replyTo: "<r@example.com>"},
		"injected":            {rule: rules.Rule{From: &rules.Recipients{Address: "a\r\nBcc: <b@example.com>"}}, bad: true},
	} {
		from, replyTo, err := c.senders(&draft{rule: &test.rule, facts: &rules.Facts{}})
		if (err != nil) != test.bad || err == nil && from.String() != test.from || replyTo != nil && replyTo.String() != test.replyTo {
			t.Errorf("%s: %v, %v, %v", name, from, replyTo, err)
		}
	}
}

// TestSubjectOfTwoLines is refused, whatever made it.
func TestSubjectOfTwoLines(t *testing.T) {
	t.Parallel()
	c := &composer{from: must(parseMailbox("crm@example.com"))}
	for _, subject := range []string{"a\r\nBcc: b@example.com", "a\nb", "a\r"} {
		if _, err := c.message(templates.Mail{Subject: subject}, c.from, nil, configured("kim@example.com"), nil); err == nil {
			t.Errorf("%q passes", subject)
		}
	}
}
