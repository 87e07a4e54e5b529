package demo

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
)

// TestTerminalLines compares what a file or a pipe gets: no escapes, columns that stand below each other.
func TestTerminalLines(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	term := newTerminal(&b, func(string) string { return "" })
	term.width = 110
	at := sampleTime
	term.begin("Postgres")
	term.end("Postgres", "version 17, in /tmp/x", 1234*time.Millisecond, nil)
	term.begin("CRM")
	term.end("CRM", "", time.Second, errors.New("no"))
	term.heads(&world{})
	term.cause(at, "박서준 books a meeting with 조현우")
	for _, e := range []*entry{
		{Raw: []byte{}, Accepted: at.Add(3810 * time.Microsecond), Committed: at, Rule: "schedule-co-assigned", To: "seoyeon.lee@onmaru.example", Subject: "조현우 고객님 미팅 등록 · 3월 4일 (목) 오후 3:00"},
		{Raw: []byte{}, Accepted: at.Add(12_340 * time.Millisecond), Committed: at, Rule: "r", To: "a@b.c", Subject: "\x1b[2Jgone", Again: true},
	} {
		term.entry(e)
	}
	want := `  ✓ Postgres   version 17, in /tmp/x                                        1234 ms
  ✕ CRM

  TIME            TOOK  RULE                    TO                  SUBJECT
  09:12:04  박서준 books a meeting with 조현우
  09:12:04     3.81 ms  schedule-co-assigned    seoyeon.lee@onmar…  조현우 고객님 미팅 등록 · 3월 4일 (목) 오…
  09:12:16      12.3 s  r                       a@b.c               (again) ·[2Jgone
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for line := range strings.Lines(b.String()) {
		if n := width(strings.TrimSuffix(line, "\n")); n > term.width {
			t.Errorf("%d cells wide: %s", n, line)
		}
	}
}

func TestTerminalColour(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	term := &terminal{w: &b, tty: true, colour: true, width: 140}
	term.begin("CRM")
	term.end("CRM", "ready", time.Millisecond, nil)
	for _, e := range []*entry{
		{Rule: "r", State: outbox.MessageDead, Reason: "550 no such user"},
		{Rule: "r", State: outbox.MessageNoAddress, Reason: "the address is NULL"},
		{Rule: "r", State: outbox.MessageExpired, Reason: "too late"},
	} {
		term.entry(e)
	}
	out := b.String()
	for _, want := range []string{
		"CRM …", "\r\x1b[2K  \x1b[32m✓\x1b[0m CRM", "\x1b[31m      dead\x1b[0m", "\x1b[33mno-address\x1b[0m", "\x1b[2m   expired\x1b[0m", "550 no such user",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%q", want, out)
		}
	}
	term.colour = false // NO_COLOR on a terminal: the line is replaced all the same
	b.Reset()
	term.begin("CRM")
	term.end("CRM", "ready", time.Millisecond, nil)
	if out := b.String(); strings.Contains(out, "\x1b[3") || !strings.Contains(out, "\r\x1b[2K") {
		t.Errorf("%q", out)
	}
}

func TestTerminalOfAFile(t *testing.T) {
	t.Parallel()
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if term := newTerminal(f, func(string) string { return "" }); term.tty || term.colour || term.width != widest {
		t.Errorf("%+v", term)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	term := newTerminal(&b, func(string) string { return "" })
	o := outcome{rules: []tally{{"booked", 2, 2, nil}, {"confirmed", 1, 0, []string{"no-address"}}, {"reset", 1, 1, nil}}}
	o.add(missing, "confirmed", "c@example.net", `"확정", when somebody books`)
	o.add(wrong, "reset", "a@example.net", "its text lacks the link")
	term.report(&o, figures{3, 4 * time.Millisecond, 15 * time.Millisecond})
	want := `
    RULE                    EXPECTED  ARRIVED  NOT SENT
  ✓ booked                         2        2
  ✕ confirmed                      1        0  no-address
  ✕ reset                          1        1

  missing  confirmed → c@example.net: "확정", when somebody books
  wrong    reset → a@example.net: its text lacks the link

  3 mails; commit to accepted 4.00 ms median, 15.0 ms at most
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	term.report(&outcome{rules: o.rules[:1]}, figures{2, time.Millisecond, time.Millisecond})
	if !strings.Contains(b.String(), "exactly the mails that were expected") || strings.Contains(b.String(), "✕") {
		t.Error(b.String())
	}
}

// What somebody types to look around is what can be typed: with the name that the program was called by.
func TestHeads(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := &world{url: "http://127.0.0.1:8025", o: Options{Command: "bin/postman"}}
	w.settings.DatabaseURL, w.settings.StoreURL, w.settings.Rules, w.settings.Templates = "postgres://postgres@127.0.0.1:1/crm?sslmode=disable", "sqlite:/tmp/p.db", "rules.yaml", "templates"
	newTerminal(&out, func(string) string { return "" }).heads(w)
	for _, want := range []string{
		"export DATABASE_URL='postgres://postgres@127.0.0.1:1/crm?sslmode=disable' STORE_URL=sqlite:/tmp/p.db POSTMAN_RULES=rules.yaml POSTMAN_TEMPLATES=templates\n",
		" bin/postman outbox list\n", " bin/postman new my-first --table listings\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}
