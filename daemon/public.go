package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
)

// Public is the recipients' listener: what recipients and providers reach, from wherever they are. It speaks no TLS: a proxy in front of it does.
type Public struct {
	HTTP string `yaml:"http"` // empty or off: there is none
	URL  string `yaml:"url"`  // under which it is reached from outside
	// MailjetAuth is the user:password that Mailjet's webhook calls with; or it stands in a file. Neither: the webhook is not served.
	MailjetAuth     Secret `yaml:"mailjet_auth"`
	MailjetAuthFile string `yaml:"mailjet_auth_file"`
}

// mailjetPath is where Mailjet's webhook is served. Other providers will have their own beside it.
const mailjetPath = "/bounces/mailjet"

// leastPassword is how long a webhook's password is at least: nothing slows down who guesses.
const leastPassword = 16

// mostPublic bounds connections from outside: each takes memory and a descriptor, which sending needs as well. Others wait to be accepted.
const mostPublic = 128

// mostCalls is how many connections from outside are accepted in a second, each of which is good for one call: a flood of calls that are refused must
// take no more of a processor than sending can do without.
const mostCalls = 500

// listens says whether there is a listener.
func (p *Public) listens() bool { return p.HTTP != "" && p.HTTP != "off" }

// webhook is the URL that Mailjet is to call, without user and password.
func (p *Public) webhook() string { return strings.TrimSuffix(p.URL, "/") + mailjetPath }

func (p *Public) check(bad func(string, ...any)) {
	if p.URL != "" && !reachable(p.URL) {
		bad("public.url: %q: it is https:// and a host, with or without a path, as in https://mail.example.com; http:// only on loopback", p.URL)
	}
	switch auth, err := p.mailjet(); {
	case err != nil:
		bad("public.mailjet_auth: %w", err)
	case auth != "" && !p.listens():
		bad("public.mailjet_auth: nothing listens for the webhook; set POSTMAN_PUBLIC_HTTP=127.0.0.1:7481")
	}
}

func reachable(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// mailjet is what the webhook's calls are told by: user:password. Empty: there is no webhook. No error shows it.
func (p *Public) mailjet() (Secret, error) {
	auth := string(p.MailjetAuth)
	if p.MailjetAuthFile != "" {
		if auth != "" {
			return "", fmt.Errorf("mailjet_auth_file is set, too: leave one of them")
		}
		text, err := os.ReadFile(p.MailjetAuthFile)
		if err != nil {
			return "", fmt.Errorf("reading mailjet_auth_file: %w", err)
		}
		auth = cmp.Or(strings.TrimSpace(string(text)), ":") // an empty file is a mistake, and not no webhook
	}
	if auth == "" {
		return "", nil
	}
	user, password, _ := strings.Cut(auth, ":")
	if user == "" || len(password) < leastPassword || strings.ContainsFunc(user+password, reserved) {
		return "", fmt.Errorf("it is user:password, of letters, digits and - . _ ~, which stand in a URL as they are; the password has %d characters at least (openssl rand -hex 24)", leastPassword)
	}
	return Secret(auth), nil
}

// reserved says of a character that it has to be written otherwise in a URL (RFC 3986 §2.3).
func reserved(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-._~", r)
}

// listenPublic opens the recipients' listener, if there is to be one.
func (d *Daemon) listenPublic(ctx context.Context, a *api) error {
	c := &d.config.Public
	if !c.listens() {
		return nil
	}
	mux := http.NewServeMux()
	auth, err := c.mailjet()
	if err != nil {
		return fmt.Errorf("public.mailjet_auth: %w", err)
	}
	if auth != "" {
		mux.Handle("POST "+mailjetPath, newMailjetHook(auth, a, d.log, d.report))
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.HTTP)
	if err != nil {
		return fmt.Errorf("listening on public.http %s (POSTMAN_PUBLIC_HTTP; off for none): %w", c.HTTP, err)
	}
	d.public = listener.Addr()
	// Nobody keeps a connection that others wait for.
	d.serveOn(ctx, netutil.LimitListener(newPaced(listener), mostPublic), mux).SetKeepAlivesEnabled(false)
	d.log.Info("the recipients' listener", "http", d.public.String(), "url", c.URL, "mailjet_webhook", auth != "")
	return nil
}

// paced is a listener that accepts mostCalls connections in a second.
type paced struct {
	net.Listener
	pace *rate.Limiter
}

func newPaced(l net.Listener) *paced { return &paced{l, rate.NewLimiter(mostCalls, mostPublic)} }

// Accept waits for some milliseconds at most: one at a time accepts.
func (p *paced) Accept() (net.Conn, error) {
	if err := p.pace.Wait(context.Background()); err != nil {
		return nil, err
	}
	return p.Listener.Accept()
}
