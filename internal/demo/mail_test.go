package demo

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"mime"
	"strings"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// sample is a mail as postman sends them, for tests.
type sample struct {
	id, rule, subject, name, to string
	html, text, ics             string
	byHand                      bool
	thread, reply               string // what it refers to
}

// raw writes the mail down (RFC 5322, 2045 to 2047).
func (s sample) raw() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	part := func(kind, more, body string) {
		line("--=_edge\r\nContent-Type: %s; charset=utf-8\r\nContent-Transfer-Encoding: base64%s\r\n", kind, more)
		line("%s", base64.StdEncoding.EncodeToString([]byte(body)))
	}
	line("From: %s <no-reply@onmaru.example>", mime.BEncoding.Encode("utf-8", "온마루 부동산중개"))
	line("To: %s <%s>", mime.BEncoding.Encode("utf-8", s.name), s.to)
	line("Subject: %s", mime.BEncoding.Encode("utf-8", s.subject))
	line("Message-ID: <%s@onmaru.example>", s.id)
	line("Date: Mon, 23 Nov 2026 09:12:04 +0900")
	if s.thread != "" {
		line("References: %s\r\nIn-Reply-To: %s", s.thread, cmp.Or(s.reply, s.thread))
	}
	if !s.byHand {
		line("Auto-Submitted: auto-generated")
	}
	line("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_edge\"\r\n")
	part("text/plain", "", s.text)
	part("text/html", "", s.html)
	if s.ics != "" {
		part("text/calendar; name=\"invite.ics\"", "\r\nContent-Disposition: attachment; filename=\"invite.ics\"", s.ics)
	}
	line("--=_edge--")
	return []byte(b.String())
}

var sampleTime = time.Date(2026, 11, 23, 9, 12, 4, 118_000_000, time.UTC)

// arrive has the mail accepted at a time after sampleTime, and recorded.
func (s sample) arrive(b *inbox, took time.Duration) {
	s.accepted(b, took)
	s.recorded(b, outbox.MessageSent)
}

func (s sample) accepted(b *inbox, took time.Duration) {
	b.accept(smtptest.Mail{From: "bounces@onmaru.example", To: []string{s.to}, Data: s.raw(), Time: sampleTime.Add(took)})
}

func (s sample) recorded(b *inbox, state outbox.MessageState) {
	b.record(outbox.Message{
		RuleName: s.rule, Address: s.to, MessageID: s.id + "@onmaru.example", Subject: s.subject, Committed: sampleTime,
	}, outbox.Outcome{State: state, Reason: "because"})
}

var meeting = sample{
	id: "m1", rule: "schedule-co-assigned", subject: "조현우 고객님 미팅이 등록되었습니다", name: "이서연", to: "seoyeon.lee@onmaru.example",
	html: "<h1>미팅이 등록되었습니다</h1><p>12월 2일 오후 3시</p>", text: "미팅이 등록되었습니다\n12월 2일 오후 3시",
	ics: "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
}

func smtpMail(raw string) smtptest.Mail {
	return smtptest.Mail{From: "bounces@onmaru.example", To: []string{"a@example.net"}, Data: []byte(raw), Time: sampleTime}
}
