package dispatch

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postman/internal/smtptest"
	"postman/outbox"
)

// realServer is a server that somebody else wrote.
type realServer struct {
	name  string
	start func(*testing.T) (addr string, taken func() [][]byte) // taken returns the mails, as they were received
}

// realServers are go-smtp's, which is always there, and Postfix's smtp-sink in its several ways where the machine has it, as machines have that run the
// benchmarks (apt-get install postfix). What is not there has no test of its name: the list in the output is what was tried.
func realServers() []realServer {
	list := []realServer{{"go-smtp", startGoSMTP}}
	sink, err := exec.LookPath("smtp-sink")
	if err != nil {
		return list
	}
	for name, flags := range map[string][]string{
		"smtp-sink": nil, "smtp-sink without PIPELINING": {"-p"}, "smtp-sink without ESMTP": {"-e"},
	} {
		list = append(list, realServer{name, func(t *testing.T) (string, func() [][]byte) { return startSink(t, sink, flags) }})
	}
	return list
}

func startGoSMTP(t *testing.T) (string, func() [][]byte) {
	server, err := smtptest.Start(smtptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server.Addr(), func() (all [][]byte) {
		for _, m := range server.Mails() {
			all = append(all, m.Data)
		}
		return all
	}
}

// startSink has smtp-sink write each mail into a file.
func startSink(t *testing.T, sink string, flags []string) (string, func() [][]byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	args := append(flags, "-d", filepath.Join(dir, "mail."), addr, "100")
	if os.Getuid() == 0 { // it does not run as root
		args = append([]string{"-u", "root"}, args...)
	}
	command := exec.Command(sink, args...)
	said := new(bytes.Buffer)
	command.Stderr = said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("smtp-sink %q does not listen: %s", args, said)
		}
	}
	return addr, func() (all [][]byte) {
		files, err := filepath.Glob(filepath.Join(dir, "mail.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
		}
		return all
	}
}

// TestRealServers brings mails with all that is awkward in them to servers that others wrote, over two connections: each arrives once and whole.
func TestRealServers(t *testing.T) {
	t.Parallel()
	const mails = 12
	for _, server := range realServers() {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			addr, taken := server.start(t)
			r, err := ParseRelay("smtp://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			r.Limits = defaultLimits
			r.Limits.Connections = 2
			d := scripted(t, smtptest.NewFake(smtptest.Script{}), func(o *Options) { o.Relays = []Relay{r} })
			var jobs []*job
			for i := range mails {
				j := aJob(fmt.Sprintf("r%d@example.com", i))
				j.letter.body = fmt.Appendf(nil, "Subject: number %d;\r\n\r\n.\r\n..two\r\n%s\r\nFrom here\r\n.the end of %d;\r\n", i, strings.Repeat("x", 900), i)
				jobs = append(jobs, j)
			}
			begin(t.Context(), d, jobs...)
			for range jobs {
				if o := <-d.outcomes; o.State != outbox.MessageSent {
					t.Errorf("%+v", o)
				}
			}
			d.sending.Wait()
			arrived := taken()
			if len(arrived) != mails {
				t.Errorf("%d mails arrived, of %d", len(arrived), mails)
			}
			for i, j := range jobs {
				n := 0
				for _, text := range arrived {
					if bytes.Contains(text, j.letter.body) {
						n++
					}
				}
				if n != 1 {
					t.Errorf("mail %d arrived %d times whole; %.200q", i, n, arrived[0])
				}
			}
		})
	}
}
