package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/authoring"
	"postman/daemon"
	"postman/outbox"
)

// The list says of many mails that were not sent for one reason what that is, once.
func TestListOfMessages(t *testing.T) {
	t.Parallel()
	const silent = "the delivery mode lets nothing out: dry-run, or none is named"
	view := &daemon.ListView{Messages: []daemon.MessageView{
		{ID: 5, Rule: "visit", Address: "kim@example.com", State: outbox.MessageNotSent, Reason: silent, Subject: "Visit 5"},
		{ID: 4, Rule: "visit", Address: "lee@example.com", State: outbox.MessageNotSent, Reason: silent, Subject: "Visit 4"},
		{ID: 3, Rule: "visit", Address: "lee@example.com", State: outbox.MessageNotSent, Reason: "another reason", Subject: "Visit 3"},
		{ID: 2, Rule: "visit", State: outbox.MessageNoAddress, Reason: "the address is NULL"},
		{ID: 1, Rule: "visit", Address: "kim@example.com", State: outbox.MessageSent, Redirected: "me@example.com", Subject: "Visit 1"},
	}}
	var b strings.Builder
	if err := printList(&b, view); err != nil {
		t.Fatal(err)
	}
	want := `MESSAGE  COMMITTED  RULE   TO               STATE                               SUBJECT (REASON)
5        –          visit  kim@example.com  not-sent                            Visit 5
4        –          visit  lee@example.com  not-sent                            Visit 4
3        –          visit  lee@example.com  not-sent                            Visit 3 (another reason)
2        –          visit  (no address)     no-address                          (the address is NULL)
1        –          visit  kim@example.com  sent, redirected to me@example.com  Visit 1

not-sent: ` + silent + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	printShow(&b, &daemon.ShowView{Messages: view.Messages[3:], Attempts: []daemon.AttemptView{{Relay: "r", Redirected: "me@example.com", Text: "250"}}}, nil)
	for _, want := range []string{"message 2   to (no address)   no-address", "to kim@example.com   sent, redirected to me@example.com", "via r, redirected to me@example.com, "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
}

// Who asks about an address is told whether it is among the recipients, or that nobody knows.
func TestAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		of   authoring.AudienceView
		want string
	}{
		"among":      {authoring.AudienceView{State: "expanded", Address: "a@x", Among: true}, "✓ a@x is among them"},
		"not among":  {authoring.AudienceView{State: "nobody", Address: "a@x"}, "✗ a@x is not among them"},
		"no address": {authoring.AudienceView{State: "expanded", Address: "a@x", NoAddress: 1}, "✗ a@x is not among them: the sources of to give a row, and it has no address"},
		"too many":   {authoring.AudienceView{State: "held", Address: "a@x"}, "? whether a@x is among them was not looked at"},
		"no mail":    {authoring.AudienceView{State: "expanded", Address: "a", Because: `"a" is no address`}, `✗ a is given, and would get none: "a" is no address`},
	} {
		w := new(printer)
		w.asked(&c.of)
		if !strings.Contains(w.String(), c.want) {
			t.Errorf("%s: %s", name, w.String())
		}
	}
}

func TestCalledAs(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	for arg, want := range map[string]string{"postman": "postman", "bin/postman": "bin/postman", "/tmp/go-build123/b001/exe/postman": "go run ./cmd/postman", "/usr/bin/postman": "/usr/bin/postman"} {
		if got := calledAs(arg); got != want {
			t.Errorf("%s is called %s; want %s", arg, got, want)
		}
	}
}

// The help of a command tells its own flags, and where the settings are listed.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args        []string
		has, hasNot string
		settings    bool
	}{
		{[]string{"help"}, "Commands:", "postman --help lists them", true},
		{[]string{"--help"}, "Commands:", "postman --help lists them", true},
		{[]string{"help", "new"}, "Usage: postman new <rule> [flags]", "--table=TABLE --message", false},
		{[]string{"outbox", "list", "--help"}, "postman --help lists them", "--smtp-url", false},
		{[]string{"run", "--help"}, "--database-url", "postman --help lists them", true},
	} {
		var out, errs strings.Builder
		code := run(c.args, &out, &errs)
		if code != 0 || !strings.Contains(out.String(), c.has) || strings.Contains(out.String(), c.hasNot) || strings.Contains(out.String(), "--smtp-url") != c.settings {
			t.Errorf("%q: %d\n%s%s", c.args, code, out.String(), errs.String())
		}
	}
}
