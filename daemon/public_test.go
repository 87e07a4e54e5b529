package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPublicSettings: what is wrong is told with its setting, and never with the password.
func TestPublicSettings(t *testing.T) {
	t.Parallel()
	const good = "mailjet:0123456789abcdef"
	file := filepath.Join(t.TempDir(), "auth")
	write(t, file, good+"\n")
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, "\n")
	for name, c := range map[string]struct {
		text, want, auth string
	}{
		"nothing":           {"", "", ""},
		"no webhook":        {"http: 127.0.0.1:7481", "", ""},
		"all":               {"http: 127.0.0.1:7481\nurl: https://mail.example.com/postman\nmailjet_auth: " + good, "", good},
		"a file":            {"http: 127.0.0.1:7481\nmailjet_auth_file: " + file, "", good},
		"on loopback":       {"http: 127.0.0.1:7481\nurl: http://127.0.0.1:7481", "", ""},
		"both":              {"http: 127.0.0.1:7481\nmailjet_auth: " + good + "\nmailjet_auth_file: " + file, "leave one", ""},
		"no file":           {"http: 127.0.0.1:7481\nmailjet_auth_file: nowhere", "reading mailjet_auth_file: open nowhere", ""},
		"an empty file":     {"http: 127.0.0.1:7481\nmailjet_auth_file: " + empty, "user:password", ""},
		"no user":           {"http: 127.0.0.1:7481\nmailjet_auth: 0123456789abcdef", "user:password", ""},
		"too short":         {"http: 127.0.0.1:7481\nmailjet_auth: mailjet:0123456789abcde", "16 characters at least", ""},
		"not as in a URL":   {"http: 127.0.0.1:7481\nmailjet_auth: mailjet:0123456789abcdef@", "stand in a URL as they are", ""},
		"nothing listens":   {"mailjet_auth: " + good, "nothing listens", good},
		"switched off":      {"http: 'off'\nmailjet_auth: " + good, "nothing listens", good},
		"in clear":          {"url: http://mail.example.com", "https://", ""},
		"with a password":   {"url: https://u:p@mail.example.com", "https://", ""},
		"a host":            {"url: mail.example.com", "https://", ""},
		"with a query":      {"url: https://mail.example.com?x=1", "https://", ""},
		"an unknown key":    {"mailjet_password: x", "mailjet_password not found", ""},
		"another loopback":  {"url: http://localhost:7481/x", "", ""},
		"another provider":  {"sendgrid_auth: x", "sendgrid_auth not found", ""},
		"a trailing stroke": {"url: https://mail.example.com/", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "postman.yaml")
			write(t, path, "database_url: postgres://h/d\npublic:\n  "+strings.ReplaceAll(c.text, "\n", "\n  ")+"\n")
			config, err := LoadConfig(path, none)
			if err == nil {
				err = config.Validate()
			}
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "0123456789")) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if auth, err := config.Public.mailjet(); string(auth) != c.auth {
				t.Errorf("the webhook is called with %q, not %q; %v", string(auth), c.auth, err)
			}
			if text, err := config.Public.MailjetAuth.MarshalText(); strings.Contains(string(text), "0123") {
				t.Errorf("%s %v", text, err)
			}
		})
	}
	c, err := LoadConfig(os.DevNull, func(name string) string {
		return map[string]string{"POSTMAN_PUBLIC_HTTP": ":1", "POSTMAN_PUBLIC_URL": "https://x/", "POSTMAN_MAILJET_AUTH": good, "POSTMAN_MAILJET_AUTH_FILE": file}[name]
	})
	if err != nil || c.Public != (Public{":1", "https://x/", good, file}) || c.Public.webhook() != "https://x/bounces/mailjet" {
		t.Errorf("%+v %v", c.Public, err)
	}
}

// always is a listener whom somebody always wants to talk to.
type always struct{ net.Listener }

func (always) Accept() (net.Conn, error) { return nil, nil }

// TestPaced: however many come, so many are accepted.
func TestPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, began := newPaced(always{}), time.Now()
		for range mostPublic + 10*mostCalls {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began).Round(time.Second / 10); took != 10*time.Second {
			t.Errorf("accepted for %s", took)
		}
	})
}

// TestPublicListenerFlooded: who opens connections and says nothing keeps others waiting for seconds, and no mail from going.
func TestPublicListenerFlooded(t *testing.T) {
	t.Parallel()
	w := newHooked(t)
	d := w.start()
	began := time.Now()
	for range mostPublic {
		conn, err := net.Dial("tcp", d.public.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	answered := make(chan int, 1)
	go func() {
		status, _ := w.call(d, hookAuth, "[]")
		answered <- status
	}()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1)
	if len(answered) > 0 && time.Since(began) < 4*time.Second { // later some may have been cut: 5 seconds are given to say something
		t.Fatal("a call was answered while all connections are taken")
	}
	if status := <-answered; status != 200 {
		t.Errorf("answered %d", status)
	}
}
