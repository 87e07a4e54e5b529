package daemon

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
)

func TestMailOf(t *testing.T) {
	t.Parallel()
	body := strings.ReplaceAll(`From: =?utf-8?q?=EA=B9=80?= <crm@example.com>
To: <kim@example.com>
Subject: =?utf-8?b?66eM64Ko?= 17
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: base64

7JWI64WV
--y
Content-Type: text/html; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

<p>=EC=95=88</p>
--y--

--x
Content-Type: text/calendar
Content-Disposition: attachment; filename="invite.ics"

BEGIN:VCALENDAR
--x--
`, "\n", "\r\n")
	got, err := mailOf(&outbox.Message{Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	want := &MailView{From: "김 <crm@example.com>", To: "<kim@example.com>", Subject: "만남 17", Text: "안녕", HTML: "<p>안</p>", Attached: []string{"invite.ics"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, m := range map[string]*outbox.Message{"no bytes": {}, "sensitive": {Body: []byte(body), Sensitive: true}} {
		if got, err := mailOf(m); got != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := mailOf(&outbox.Message{ID: 7, Body: []byte("no mail")}); err == nil || !strings.Contains(err.Error(), "message 7") {
		t.Error(err)
	}
}
