package bounce

import (
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// report is a mail with the parts of a report, in lines that end as they do on the wire.
func report(header string, parts ...string) string {
	text := header + "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"=_b\"\n\n--=_b\n"
	return strings.ReplaceAll(text+strings.Join(parts, "\n--=_b\n")+"\n--=_b--\n", "\n", "\r\n")
}

const (
	status   = "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.com\n\n"
	returned = "Content-Type: message/rfc822\n\nReturn-Path: <b+t@b.example>\nMessage-ID: <id1@example.com>\nSubject: x\n\nbody\n"
	headers  = "Content-Type: text/rfc822-headers\n\nMessage-ID: <id1@example.com>\nSubject: x\n"
)

func TestRead(t *testing.T) {
	t.Parallel()
	one := func(r Recipient) Report {
		return Report{Recipients: []Recipient{r}, MessageID: "<id1@example.com>", Senders: []string{"b+t@b.example"}}
	}
	kim := Recipient{Address: "kim@example.com", Action: "failed", Status: "5.1.1"}
	with := func(change func(*Recipient)) Report {
		r := kim
		change(&r)
		return one(r)
	}
	for name, c := range map[string]struct {
		mail string
		want Report
	}{
		"one recipient":       {report("", "\nwords", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\n", returned), one(kim)},
		"from a mailbox file": {"From MAILER-DAEMON Mon Nov 23\r\n" + report("", status+"Final-Recipient: rfc822;kim@example.com\nAction: Failed\nStatus: 5.1.1 (no mailbox)\n", returned), one(kim)},
		"no empty line between two": {
			report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\nFinal-Recipient: <lee@example.com>\nAction: delayed\nStatus: 4.4.1", returned),
			Report{
				Recipients: []Recipient{kim, {Address: "lee@example.com", Action: "delayed", Status: "4.4.1"}},
				MessageID:  "<id1@example.com>", Senders: []string{"b+t@b.example"},
			},
		},
		"a status that says nothing": {
			report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550-5.1.1 The account\n does not exist", returned),
			with(func(r *Recipient) { r.Diagnostic = "550-5.1.1 The account does not exist" }),
		},
		"an address that begins as a status": {
			report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; host 5.9.1.2 said: 550 go away. 5.1.1.", returned),
			with(func(r *Recipient) { r.Diagnostic = "host 5.9.1.2 said: 550 go away. 5.1.1." }),
		},
		"no action, no type": {report("", status+"Final-Recipient: kim@example.com\nStatus: 5.1.1", returned), one(kim)},
		"in base64": {
			report("", "Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n"+
				base64.StdEncoding.EncodeToString([]byte("Final-Recipient: rfc822; kim@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n")), returned),
			one(kim),
		},
		"quoted-printable, in Latin 1": {
			report("", "Content-Type: message/delivery-status; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nFinal-Recipient: rfc822; kim@=\nexample.com\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; inconnu =E9", returned),
			with(func(r *Recipient) { r.Diagnostic = "inconnu �" }),
		},
		"headers alone, forwarded": {
			report("Delivered-To: b+t@b.example\n", status+"Original-Recipient: rfc822;kim@example.com\nFinal-Recipient: rfc822;x@fwd.example\nAction: failed\nStatus: 5.1.1", headers),
			with(func(r *Recipient) { r.Address, r.Original = "x@fwd.example", "kim@example.com" }),
		},
		"an internationalised one": {
			report("", strings.Replace(status, "delivery-status", "global-delivery-status", 1)+"Final-Recipient: utf-8; kim@bücher.example\nAction: failed\nStatus: 5.1.1", strings.Replace(returned, "rfc822", "global", 1)),
			with(func(r *Recipient) { r.Address = "kim@bücher.example" }),
		},
		"wrapped in another mail": {
			strings.ReplaceAll("Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: text/plain\n\nfyi\n--o\nContent-Type: message/rfc822\n\n", "\n", "\r\n") +
				report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\n", returned) + "--o--\r\n",
			one(kim),
		},
		"cut": {
			strings.TrimSuffix(report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\n", returned), "\r\nbody\r\n\r\n--=_b--\r\n"),
			one(kim),
		},
		"a bounce of a bounce": { // what it returns is not what it reports
			report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\n",
				"Content-Type: message/rfc822\n\nReturn-Path: <b+t@b.example>\nMessage-ID: <id1@example.com>\nContent-Type: multipart/report; boundary=i\n\n--i\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; victim@example.com\nAction: failed\nStatus: 5.1.1\n--i--"),
			one(kim),
		},
		"a complaint": {
			report("", "Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nVersion: 1\nOriginal-Mail-From: <b+t@b.example>\nOriginal-Rcpt-To: <kim@example.com>", headers),
			one(Recipient{Address: "kim@example.com", Action: "complaint", Status: "abuse"}),
		},
		"a complaint of nobody": {
			report("", "Content-Type: message/feedback-report\n\nFeedback-Type: fraud\n", returned),
			one(Recipient{Action: "complaint", Status: "fraud"}),
		},
		"an automatic reply": {"Auto-Submitted: auto-replied\r\nSubject: away\r\n\r\nI am away. Status: 5.1.1\r\n", Report{Not: "it is an automatic reply"}},
		"a bounce in words":  {"Return-Path: <>\r\nFrom: MAILER-DAEMON@x\r\n\r\nHi. This is the qmail-send program\r\n", Report{Not: "it is a bounce that says nothing a machine can read (RFC 3464)"}},
		"somebody's mail":    {"From: kim@example.com\r\nContent-Type: text/plain\r\n\r\nFinal-Recipient: rfc822; lee@example.com\r\n", Report{Not: "it is no report of a delivery and no complaint"}},
		"nothing":            {"", Report{Not: "it is no mail: EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Read(strings.NewReader(c.mail))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Read(iotest.ErrReader(errors.New("the pipe broke"))); err == nil || !strings.Contains(err.Error(), "the pipe broke") {
		t.Errorf("a reader that fails: %v", err)
	}
}

// TestReadPostfix reads what a Postfix 3.7 wrote, and piped.
func TestReadPostfix(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/postfix.eml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	one := func(name, status, diagnostic string) Recipient {
		return Recipient{Address: name + "@dead.example", Original: name + "@dead.example", Action: "failed", Status: status, Diagnostic: diagnostic}
	}
	want := &Report{
		ID: "<20261123014041.987019E8389@mx.example.com>", MessageID: "<id1@example.com>", Senders: []string{"b+abc@bounces.example.com"},
		Recipients: []Recipient{
			one("kim", "5.1.1", "550 5.1.1 <kim@dead.example>: no such user here"), one("lee", "5.2.2", "552 5.2.2 mailbox is full"), one("spam", "5.7.1", "550 5.7.1 blocked by policy"),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, class := range []Class{Hard, Soft, Blocked} {
		if c := got.Recipients[i].Class(); c != class {
			t.Errorf("%s is %s", got.Recipients[i].Address, c)
		}
	}
}

func TestClass(t *testing.T) {
	t.Parallel()
	for class, all := range map[Class]string{
		Hard:      "failed/5.1.1 failed/5.1.2 failed/5.1.3 failed/5.1.6 failed/5.1.10 failed/5.2.1 failed/5.4.4",
		Soft:      "failed/4.4.1 failed/5.1.0 failed/5.2.2 failed/5.2.0 failed/5.0.0 failed/5.4.1 failed/5.3.0 failed/5.3.1 failed/ delayed/4.1.1 delayed/5.1.1",
		Blocked:   "failed/5.7.1 failed/5.7.26 failed/5.3.4 failed/5.2.3 failed/5.6.0 failed/5.5.0 failed/5.1.7 failed/5.1.8",
		Complaint: "complaint/abuse complaint/fraud complaint/other complaint/opt-out",
		Fine:      "delivered/2.0.0 relayed/2.0.0 expanded/2.0.0 failed/2.0.0 complaint/not-spam complaint/auth-failure",
	} {
		for one := range strings.FieldsSeq(all) {
			action, status, _ := strings.Cut(one, "/")
			r := Recipient{Action: action, Status: status}
			if got := r.Class(); got != class {
				t.Errorf("%s is %s, not %s", one, got, class)
			}
		}
	}
}

// FuzzRead: whatever comes, it ends, and what it says can be shown and stored.
func FuzzRead(f *testing.F) {
	f.Add([]byte(report("", status+"Final-Recipient: rfc822; kim@example.com\nAction: failed\nStatus: 5.1.1\n", returned)))
	f.Add([]byte(report("To: b+t@b.example\n", "Content-Type: message/feedback-report\n\nFeedback-Type: abuse\n", headers)))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"))
	if text, err := os.ReadFile("testdata/postfix.eml"); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if (r.Not == "") != (len(r.Recipients) > 0) || len(r.Recipients) > mostRecipients || len(r.Senders) > mostParts {
			t.Errorf("%+v", r)
		}
		for i := range r.Recipients {
			one := &r.Recipients[i]
			for _, s := range []string{one.Address, one.Original, one.Status, one.Diagnostic, one.String()} {
				if plain(s) != s {
					t.Errorf("%q cannot be shown", s)
				}
			}
			one.Class()
		}
		for _, s := range r.Senders {
			Message(key, s)
		}
	})
}
