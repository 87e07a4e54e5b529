package dispatch

import (
	"bytes"
	"io"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	gomessage "github.com/emersion/go-message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	_ "github.com/emersion/go-message/charset"

	"postman/templates"
	"postman/value"
)

// userMail is a mail of which users have supplied all that they can.
type userMail struct{ address, name, subject, fromName, replyName, ccName, text, html string }

func (u userMail) compose() ([]byte, error) {
	c := &composer{}
	to := newRecipient(value.Row{textField(emailColumn, value.Of(u.address)), textField(nameColumn, value.Of(u.name))})
	if to.bad != nil {
		return nil, to.bad
	}
	cc, _ := copies([]recipient{newRecipient(value.Row{textField(emailColumn, value.Of("cc@example.com")), textField(nameColumn, value.Of(u.ccName))})}, nil)
	from, err := parseMailbox((&mail.Address{Name: u.fromName, Address: "crm@example.com"}).String())
	if err != nil {
		return nil, err
	}
	replyTo, err := parseMailbox((&mail.Address{Name: u.replyName, Address: "office@example.com"}).String())
	if err != nil {
		return nil, err
	}
	msg, err := c.message(templates.Mail{Subject: u.subject, Text: u.text, HTML: u.html}, from, replyTo, to, cc)
	if err != nil {
		return nil, err
	}
	msg.SetMessageIDWithValue("id@example.com")
	var out bytes.Buffer
	_, err = msg.WriteTo(&out)
	return out.Bytes(), err
}

// meant are the fields that such a mail has, and no others.
var meant = []string{"auto-submitted", "cc", "content-type", "date", "from", "message-id", "mime-version", "reply-to", "subject", "to", "x-auto-response-suppress"}

// hostile are values that have split headers of other programs, or shown something else than they are.
var hostile = []string{
	"Kim", "", " ", "a\r\nBcc: victim@example.com", "a\nX-Evil: 1\n\nbody", "a\rb", "a\x00b", "a\u2028b\u2029c\u0085d", "\u202egnp.exe\u202c", "\u2066x\u2069", "=?utf-8?B?DQpCY2M6IHg=?=", "=?utf-8?q?x?= =?utf-8?q?y?=",
	`"quoted" \ <x@example.com>, y@example.com`, "a;b:c,d(e)f@g[h]", strings.Repeat("a", 3000), strings.Repeat("김", 500), strings.Repeat("x ", 800), "\xff\xfe", "a\tb", ".", "김민수", "e\u0301", "\U0001F469\u200d\U0001F4BB", "\ufeffx", "?=", "=?", "a=?b",
}

func checkUserMail(t *testing.T, u userMail) {
	t.Helper()
	raw, err := u.compose()
	if err != nil {
		return // it is refused
	}
	head, _, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("there is no header in %q", raw)
	}
	for line := range bytes.SplitSeq(raw, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("a line of %d octets: %q", len(line), clip(string(line)))
		}
	}
	for _, b := range head {
		if b > '~' || b < ' ' && b != '\r' && b != '\n' && b != '\t' {
			t.Fatalf("the header has the octet %#x:\n%q", b, head)
		}
	}
	var names []string
	for _, f := range fields(head) {
		name, _, _ := strings.Cut(f, ":")
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	if diff := cmp.Diff(meant, names); diff != "" {
		t.Fatalf("the fields (-meant +there):\n%s\n%s", diff, head)
	}
	e, err := gomessage.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("go-message: %v\n%s", err, head)
	}
	subject, err := e.Header.Text("Subject")
	if want := strings.TrimSpace(plainLine(u.subject)); err != nil || strings.TrimSpace(subject) != want {
		t.Fatalf("the subject is %q, %v, and was to be %q\n%s", subject, err, want, head)
	}
	for field, want := range map[string]mail.Address{
		"To": {Name: displayName(u.name), Address: "kim@example.com"}, "From": {Name: displayName(u.fromName), Address: "crm@example.com"},
		"Reply-To": {Name: displayName(u.replyName), Address: "office@example.com"}, "Cc": {Name: displayName(u.ccName), Address: "cc@example.com"},
	} {
		list, err := mail.ParseAddressList(e.Header.Get(field))
		if err != nil || len(list) != 1 || *list[0] != want {
			t.Fatalf("%s is %v, %v, and was to be %v\n%s", field, list, err, want, head)
		}
	}
	checkParts(t, e, u)
}

// checkParts compares the parts, as their lines end in a mail.
func checkParts(t *testing.T, e *gomessage.Entity, u userMail) {
	t.Helper()
	want, got := []string{u.text}, []string(nil)
	if u.html != "" {
		want = append(want, u.html)
	}
	err := e.Walk(func(_ []int, part *gomessage.Entity, err error) error {
		if err != nil || part.MultipartReader() != nil {
			return err
		}
		text, err := io.ReadAll(part.Body)
		got = append(got, string(text))
		return err
	})
	ends := cmpopts.AcyclicTransformer("ends", func(s string) string {
		return strings.TrimRight(strings.NewReplacer("\r\n", "\n").Replace(s), "\n")
	})
	if err != nil || !cmp.Equal(want, got, ends) {
		t.Fatalf("the parts are %q, %v, and were to be %q", got, err, want)
	}
}

// TestHostileValues: every hostile value in every place.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	for _, v := range hostile {
		good := userMail{"kim@example.com", "Kim", "Visit", "CRM", "Office", "Lee", "text", "<p>html</p>"}
		for name, set := range map[string]func(*userMail){
			"address": func(u *userMail) { u.address = v + "@example.com" }, "name": func(u *userMail) { u.name = v }, "subject": func(u *userMail) { u.subject = v },
			"from": func(u *userMail) { u.fromName = v }, "reply": func(u *userMail) { u.replyName = v }, "cc": func(u *userMail) { u.ccName = v },
		} {
			u := good
			if set(&u); name == "address" {
				if raw, err := u.compose(); err == nil && (!utf8.Valid(raw) || strings.ContainsFunc(v, unicode.IsControl)) {
					t.Errorf("the address %q was taken", u.address)
				}
				continue
			}
			checkUserMail(t, u)
		}
	}
	for what, shown := range map[string]string{
		"a\u202eb": "ab", "a\u2028b": "a b", "a=?b": "a= ?b", "a\r\nb": "a b", " a\t b ": "a b", "\xff": "\ufffd", "\U0001F469\u200d\U0001F4BB": "\U0001F469\u200d\U0001F4BB", "a\u200fb": "a\u200fb", "김": "김",
	} {
		if got := displayName(what); got != shown {
			t.Errorf("%q is shown as %q, not %q", what, got, shown)
		}
	}
}

func FuzzUserMail(f *testing.F) {
	for i, v := range hostile {
		f.Add(v, hostile[(i+3)%len(hostile)], hostile[(i+5)%len(hostile)], hostile[(i+7)%len(hostile)], "text", "<p>html</p>")
	}
	f.Fuzz(func(t *testing.T, name, subject, from, cc, text, html string) {
		if !utf8.ValidString(text) || !utf8.ValidString(html) || strings.Contains(text+html, "\r") || strings.TrimSpace(text) == "" {
			return // Postgres and templates have no such texts
		}
		checkUserMail(t, userMail{"kim@example.com", name, subject, from, name, cc, text, html})
	})
}
