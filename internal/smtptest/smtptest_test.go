package smtptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	server "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestServerKeepsMails(t *testing.T) {
	t.Parallel()
	var told []string
	s := start(t, Options{
		Hook: func(e Event) error {
			if e.Stage == To && strings.HasPrefix(e.Arg, "no") {
				return &server.SMTPError{Code: 550, EnhancedCode: server.EnhancedCode{5, 1, 1}, Message: "unknown"}
			}
			return nil
		},
		Accepted: func(m Mail) { told = append(told, m.To[0]) },
	})
	body := "Subject: hi\r\n\r\n.dot\r\n"
	for _, to := range []string{"kim@example.com", "nobody@example.com", "lee@example.com"} {
		err := smtp.SendMail(s.Addr(), nil, "crm@example.com", []string{to}, []byte(body))
		if refused := strings.HasPrefix(to, "no"); (err != nil) != refused || refused && err.Error() != `550 "5.1.1 unknown"` {
			t.Errorf("%s: %v", to, err)
		}
	}
	mails, err := s.Wait(t.Context(), 2)
	if err != nil || len(mails) != 2 || s.Connections() != 3 {
		t.Fatalf("%d mails, %d connections, %v", len(mails), s.Connections(), err)
	}
	if diff := cmp.Diff(Mail{From: "crm@example.com", To: []string{"lee@example.com"}, Data: []byte(body), Time: mails[1].Time, Conn: 3}, mails[1]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"kim@example.com", "lee@example.com"}, told); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("enough"))
	defer cancel()
	if mails, err := s.Wait(ctx, 3); len(mails) != 2 || err == nil || !strings.Contains(err.Error(), "2 came: enough") {
		t.Errorf("%d mails, %v", len(mails), err)
	}
}

func TestServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	send := func() error {
		return smtp.SendMail(s.Addr(), nil, "crm@example.com", []string{"kim@example.com"}, []byte("Subject: hi\r\n\r\n"))
	}
	open, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := bufio.NewReader(open).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	before := s.Addr()
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err == nil {
		t.Error("a server that runs is started again")
	}
	s.Close()
	s.Close()
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("an open connection outlives the outage")
	}
	if err := send(); err == nil {
		t.Error("a mail is taken during the outage")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := send(); err != nil || s.Addr() != before || len(s.Mails()) != 2 {
		t.Errorf("%v, %s, %d mails", err, s.Addr(), len(s.Mails()))
	}
}

func TestServerWantsALogin(t *testing.T) {
	t.Parallel()
	s := start(t, Options{User: "kim", Password: "s3cret"})
	for password, want := range map[string]string{"s3cret": "", "wrong": "535"} {
		err := smtp.SendMail(s.Addr(), smtp.PlainAuth("", "kim", password, "127.0.0.1"), "crm@example.com", []string{"a@example.com"}, []byte("x\r\n"))
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", password, err)
		}
	}
	if err := smtp.SendMail(s.Addr(), nil, "crm@example.com", []string{"a@example.com"}, []byte("x\r\n")); err == nil || !strings.HasPrefix(err.Error(), "530") {
		t.Errorf("without: %v", err)
	}
}

// TestFake talks to a fake over a pipe, line by line.
func TestFake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := NewFake(Script{
			Extensions: []string{"PIPELINING", "SIZE 100"},
			Steps:      map[string][]Step{"RCPT": {{Usual: true}, Reply("550 5.1.1 no")}, "DOT": {{Reply: "250 ok", Wait: time.Hour}}},
			Always:     map[string]Step{"NOOP": {Reply: "421 4.3.2 bye", Close: true}},
		})
		defer f.Close()
		conn, err := f.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		started := time.Now()
		for _, step := range []struct{ say, want string }{
			{"", "220 fake ESMTP"},
			{"EHLO me", "250-fake|250-PIPELINING|250 SIZE 100"},
			{"MAIL FROM:<a@x>", "250 2.1.0 ok"},
			{"MAIL FROM:<a@x>", "503 5.5.1 nested MAIL"},
			{"RCPT TO:<b@x>", "250 2.0.0 ok"},
			{"RCPT TO:<c@x>", "550 5.1.1 no"},
			{"DATA", "354 go ahead"},
			{"..dot\r\n.", "250 ok"},
			{"RSET", "250 2.0.0 ok"},
			{"NOOP", "421 4.3.2 bye"},
		} {
			if step.say != "" {
				if _, err := fmt.Fprintf(conn, "%s\r\n", step.say); err != nil {
					t.Fatal(err)
				}
			}
			for want := range strings.SplitSeq(step.want, "|") {
				if line, err := r.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
					t.Fatalf("%q: %q, %v; want %q", step.say, line, err, want)
				}
			}
		}
		if _, err := r.ReadString('\n'); err == nil {
			t.Error("it goes on after 421")
		}
		if took := time.Since(started); took != time.Hour {
			t.Errorf("it took %s", took)
		}
		m := f.Mails()
		if len(m) != 1 || m[0].From != "a@x" || string(m[0].Data) != ".dot\n" || f.Connections() != 1 || len(f.Commands()) != 8 {
			t.Errorf("%+v, %q", m, f.Commands())
		}
	})
}

func TestFakeHangsAndDrops(t *testing.T) {
	t.Parallel()
	f := NewFake(Script{Steps: map[string][]Step{"CONNECT": {Drop, {Hang: true}}}})
	defer f.Close()
	addr, err := f.Listen()
	if err != nil {
		t.Fatal(err)
	}
	for i, patience := range []time.Duration{time.Minute, 20 * time.Millisecond} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() != (i == 1) || err == nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	f.Cut()
}
