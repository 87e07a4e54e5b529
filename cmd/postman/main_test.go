package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"postman/internal/dnstest"
	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
)

// The scripts in testdata drive the program as people do: as a process, with real Postgres and a real relay.
func TestMain(m *testing.M) {
	testscript.Main(pgtest.Shared(m), map[string]func(){"postman": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			url := pgtest.Database(t)
			relay, err := smtptest.Start(smtptest.Options{})
			if err != nil {
				return err
			}
			env.Defer(relay.Close)
			env.Values["relay"] = relay
			dns, err := dnstest.Start(dnstest.Zone{
				"example.com": {"MX 10 mx.example.com", "TXT v=spf1 ip4:192.0.2.1 ip4:127.0.0.1 ~all"}, "_dmarc.example.com": {"TXT v=DMARC1; p=none"},
				"crm._domainkey.example.com": {"TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
			})
			if err != nil {
				return err
			}
			env.Defer(dns.Close)
			repository, err := filepath.Abs("../..")
			if err != nil {
				return err
			}
			public, err := freeAddress()
			if err != nil {
				return err
			}
			env.Vars = append(env.Vars, "REPOSITORY="+repository, "PUBLIC="+public, "DNS="+dns.Addr(), "DATABASE_URL="+url, "SMTP_URL=smtp://"+relay.Addr(), "POSTMAN_SLOT="+pgtest.Name(url),
				"POSTMAN_FROM=Postman <postman@example.com>", "POSTMAN_HTTP=127.0.0.1:0",
				"GORACE=atexit_sleep_ms=0") // else each command would wait for a second before it ends
			return world(env.WorkDir, url)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sql": sql, "mails": mails, "eventually": eventually, "exit": exits, "call": call,
		},
	})
}

// freeAddress is one that nobody listens on, and that no outgoing connection or listener gets by chance: systems take such ports from above 32767.
func freeAddress() (string, error) {
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return address, l.Close()
	}
}

// world writes what each script begins with.
func world(dir, url string) error {
	for name, text := range map[string]string{
		"rules.yaml": `
rules:
  - name: visit
    about: A visit was booked for you.
    on: {table: visits, ops: [insert]}
    when: new.kind == "visit"
    to: {query: select email from staff where id = @new.staff_id}
    template: visit
`,
		"templates/visit.html": `{{define "subject"}}Visit {{.new.id}}{{end}}{{define "body"}}<p>Visit {{.new.id}}</p>{{end}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return execute(url, `
		create table staff (id int primary key, email text);
		create table visits (id bigint generated always as identity primary key, kind text not null, staff_id int);
		insert into staff values (1, 'kim@example.com'), (2, 'not an address')`)
}

func execute(url, statement string) error {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(context.Background(), statement)
	conn.Close(context.Background())
	return err
}

// sql runs a statement in the script's database.
func sql(ts *testscript.TestScript, _ bool, args []string) {
	for _, statement := range args {
		ts.Check(execute(ts.Getenv("DATABASE_URL"), statement))
	}
}

// mails waits until the relay has taken exactly so many, and writes the last to last.eml.
func mails(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	came, err := ts.Value("relay").(*smtptest.Server).Wait(ctx, n)
	ts.Check(err)
	if len(came) != n {
		ts.Fatalf("%d mails; want %d", len(came), n)
	}
	if n > 0 {
		ts.Check(os.WriteFile(ts.MkAbs("last.eml"), came[n-1].Data, 0o600))
	}
}

// eventually runs postman again and again until its output matches the pattern.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec("postman", args[1:]...)
		last = ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if pattern.MatchString(last) {
			return
		}
	}
	ts.Fatalf("postman %v never said %s; at last:\n%s", args[1:], pattern, last)
}

// call posts a file to the recipients' listener, as user:password, and checks the status of the answer.
func call(ts *testscript.TestScript, _ bool, args []string) {
	status, path, auth, file := args[0], args[1], args[2], args[3]
	r, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("PUBLIC")+path, strings.NewReader(ts.ReadFile(file)))
	ts.Check(err)
	user, password, _ := strings.Cut(auth, ":")
	r.SetBasicAuth(user, password)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	ts.Check(err)
	ts.Check(response.Body.Close())
	if got := strconv.Itoa(response.StatusCode); got != status {
		ts.Fatalf("%s answered %s; want %s", path, response.Status, status)
	}
}

// exits runs postman and checks its exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("postman", args[1:]...)
	code := 0
	if failed := (*exec.ExitError)(nil); asExit(err, &failed) {
		code = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("postman %v exited %d; want %d", args[1:], code, want)
	}
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError) //nolint:errorlint // testscript returns it as it is
	*to = e
	return ok
}

func TestUsageIsExitCode2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"fly"}, {"run", "--wings"}, {"outbox", "show"}, {"outbox", "show", "x"}} {
		if code := run(args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("postman %v exited %d", args, code)
		}
	}
	if code := run([]string{"version"}, io.Discard, io.Discard); code != 0 {
		t.Errorf("postman version exited %d", code)
	}
}

// A mistake in the call names the help of the command that it is in.
func TestUsageNamesTheHelp(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"→ postman --help":             {"fly"},
		"→ postman outbox show --help": {"outbox", "show"},
		"→ postman replay --help":      {"replay", "--wings"},
		"→ postman outbox --help":      {"outbox", "lst"},
		"did you mean list?":           {"outbox", "lst"},
	} {
		var errs strings.Builder
		if code := run(args, io.Discard, &errs); code != exitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("postman %v exited %d: %s; want %q", args, code, errs.String(), want)
		}
	}
}
