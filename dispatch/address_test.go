package dispatch

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"

	gomail "github.com/wneessen/go-mail"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ in, want string }{
		{"kim@example.com", "kim@example.com"},
		{"  kim@example.com\t", "kim@example.com"},
		{"Kim.Min+crm@Example.COM", "Kim.Min+crm@example.com"},
		{"root@localhost", "root@localhost"},
		{"kim@한국.kr", "kim@xn--3e0b707e.kr"},
		{"o'neil@example.com", "o'neil@example.com"},
		{"a_b@sub_domain.example.com", ""},
		{"", ""},
		{" ", ""},
		{"@", ""},
		{"kim", ""},
		{"kim@", ""},
		{"@example.com", ""},
		{"kim@example.com, lee@example.com", ""},
		{"Kim <kim@example.com>", ""},
		{"<kim@example.com>", ""},
		{"kim@example.com (Kim)", ""},
		{`"kim"@example.com`, ""},
		{`"a b"@example.com`, ""},
		{`"a@b"@example.com`, ""},
		{"\"a\r\nBcc: b\"@x", ""},
		{"kim@example.com\r\nBcc: lee@example.com", ""},
		{"kim\x00@example.com", ""},
		{"kim@[127.0.0.1]", ""},
		{"kim@example..com", ""},
		{"kim@-example.com", ""},
		{"kim@exa mple.com", ""},
		{"김@example.com", ""},
		{"a..b@example.com", ""},
		{".a@example.com", ""},
		{"group: kim@example.com;", ""},
		{strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com"},
		{strings.Repeat("a", 65) + "@example.com", ""},
		{"a@" + strings.Repeat("b.", 126) + "com", ""},
		{"kim@example.com>", ""},
		{"kim@ex>ample.com", ""},
	} {
		got, err := parseAddress(test.in)
		if got != test.want || (err == nil) == (test.want == "") {
			t.Errorf("parseAddress(%q) = %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

func TestParseMailbox(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ in, name, address string }{
		{"CRM <crm@example.com>", "CRM", "crm@example.com"},
		{"crm@example.com", "", "crm@example.com"},
		{`"Team, CRM" <crm@example.com>`, "Team, CRM", "crm@example.com"},
		{"고객팀 <crm@한국.kr>", "고객팀", "crm@xn--3e0b707e.kr"},
		{"CRM <crm@example.com>\r\nBcc: x@example.com", "", ""},
		{"CRM <crm>", "", ""},
		{"", "", ""},
	} {
		got, err := parseMailbox(test.in)
		if err != nil {
			if test.address != "" {
				t.Errorf("%q: %v", test.in, err)
			}
			continue
		}
		if got.Name != test.name || got.Address != test.address {
			t.Errorf("%q: %+v", test.in, got)
		}
	}
}

// FuzzParseAddress holds that what is let through is one address wherever it will stand: in a command, and in a header
// together with any name.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"kim@example.com", "\"a\r\nBcc: b\"@x", "Kim <kim@example.com>", "a@b>", "kim@한국.kr", "ſ@K.com"} {
		f.Add(s, "Kim")
		f.Add("kim@example.com", s)
	}
	f.Fuzz(func(t *testing.T, s, name string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(a, " \t\r\n<>,;:\"()\\[]\x00") || !ascii(a) || strings.Count(a, "@") != 1 {
			t.Fatalf("%q is let through as %q", s, a)
		}
		if again, err := parseAddress(a); again != a || err != nil {
			t.Fatalf("%q becomes %q, then %q, %v", s, a, again, err)
		}
		msg := gomail.NewMsg()
		msg.ToMailAddress(mailbox(a, name))
		msg.SetBodyString(gomail.TypeTextPlain, "x")
		var b bytes.Buffer
		if _, err := msg.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(&b)
		if err != nil {
			t.Fatal(err)
		}
		to, err := m.Header.AddressList("To")
		if err != nil || len(to) != 1 || to[0].Address != a || m.Header.Get("Bcc") != "" {
			t.Fatalf("%q, %q become %q: %v, %v", a, name, m.Header["To"], to, err)
		}
	})
}
