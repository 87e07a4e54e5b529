package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
	"postman/outbox/sqlite"
)

const hookAuth = "mailjet:0123456789abcdef"

// hooked is a world with a relay that is taken for Mailjet's, and with its webhook.
type hooked struct{ *world }

func newHooked(t *testing.T) hooked {
	t.Helper()
	w := newWorld(t)
	w.config.SMTP.Preset = "mailjet"
	w.config.Public = Public{HTTP: "127.0.0.1:0", MailjetAuth: hookAuth}
	return hooked{w}
}

// call calls the webhook as Mailjet does.
func (w hooked) call(d *Daemon, auth, body string) (status int, answer string) {
	w.t.Helper()
	return w.ask(d, http.MethodPost, mailjetPath, auth, strings.NewReader(body))
}

func (w hooked) ask(d *Daemon, method, path, auth string, body io.Reader) (status int, answer string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+d.public.String()+path, body)
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	if user, password, ok := strings.Cut(auth, ":"); ok {
		r.SetBasicAuth(user, password)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Error(err)
	}
	if challenge := response.Header.Get("WWW-Authenticate"); (challenge != "") != (response.StatusCode == http.StatusUnauthorized) {
		w.t.Errorf("%s %s: %d with the challenge %q", method, path, response.StatusCode, challenge)
	}
	return response.StatusCode, string(text)
}

// suppressed lists who is, and why, by address.
func (w hooked) suppressed(d *Daemon) []string {
	w.t.Helper()
	found, err := d.store.Suppressions(w.t.Context(), outbox.SuppressionFilter{})
	if err != nil {
		w.t.Fatal(err)
	}
	list := make([]string, len(found))
	for i, s := range found {
		list[i] = s.Address + " " + s.Cause.String()
	}
	slices.Sort(list)
	return list
}

func event(kind, email, token, more string) string {
	return fmt.Sprintf(`{"event": %q, "time": 1430812195, "MessageID": 13792286917004336, "email": %q, "CustomID": %q, "Payload": ""%s}`, kind, email, token, more)
}

const unknownUser = `, "hard_bounce": true, "error_related_to": "recipient", "error": "user unknown", "comment": "550 5.1.1 no such user"`

// TestMailjetWebhook: what Mailjet tells of a mail stands with that mail, and suppresses its address, for good and once.
func TestMailjetWebhook(t *testing.T) {
	t.Parallel()
	w := newHooked(t)
	d := w.start()
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1)`)
	w.subjects(1)
	m := w.messages(d, 1)[0]
	token := header(w.relay.Mails()[0].Data, "X-MJ-CustomID")

	calls := []string{
		event("sent", "kim@example.com", token, ""),
		"[" + strings.Join([]string{
			event("open", "kim@example.com", token, ""),
			event("bounce", "KIM@example.com", token, unknownUser),
			event("unsub", "kim@example.com", token, ""),
			`{"event": "a new one", "email": "nobody@example.com"}`,
			event("spam", "park@example.com", "of another program", `, "source": "JMRPP"`),
			event("bounce", "oh@example.com", "", `, "hard_bounce": false, "error_related_to": "recipient", "error": "quota exceeded"`),
			event("blocked", "min@example.com", "", `, "error_related_to": "spam", "error": "policy issue"`),
		}, ",") + "]",
	}
	check := func(d *Daemon) {
		t.Helper()
		if diff := cmp.Diff([]string{"kim@example.com hard bounce", "park@example.com complaint"}, w.suppressed(d)); diff != "" {
			t.Error(diff)
		}
		var came []string
		found, err := d.store.Bounces(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range found {
			came = append(came, fmt.Sprintf("%s %s %s, %s: %s", b.Kind, b.Address, b.Status, b.Source, b.Text))
		}
		slices.Sort(came)
		if diff := cmp.Diff([]string{
			"hard kim@example.com 5.1.1, Mailjet: failed 5.1.1 recipient: user unknown: 550 5.1.1 no such user", "unsubscribe kim@example.com , Mailjet: unsubscribe",
		}, came); diff != "" {
			t.Error(diff)
		}
	}
	for range 2 {
		for _, call := range calls {
			if status, answer := w.call(d, hookAuth, call); status != http.StatusOK || answer != "" {
				t.Errorf("%d %s", status, answer)
			}
		}
		check(d)
	}
	w.stop(d)
	d = w.start()
	check(d)
	w.sql(`insert into visits (kind, staff_id) values ('visit', 1), ('visit', 2)`)
	all := w.messages(d, 3)
	states := map[string]outbox.MessageState{all[1].Address: all[1].State, all[2].Address: all[2].State}
	if diff := cmp.Diff(map[string]outbox.MessageState{"kim@example.com": outbox.MessageSuppressed, "lee@example.com": outbox.MessageSent}, states); diff != "" {
		t.Error(diff)
	}
}

// TestMailjetWebhookRefuses: what comes without the password, or is none of Mailjet's, changes nothing.
func TestMailjetWebhookRefuses(t *testing.T) {
	t.Parallel()
	w := newHooked(t)
	d := w.start()
	hard := event("bounce", "kim@example.com", "", unknownUser)
	for name, c := range map[string]struct {
		method, path, auth, body string
		want                     int
	}{
		"no password":             {http.MethodPost, mailjetPath, "", hard, 401},
		"a wrong one":             {http.MethodPost, mailjetPath, "mailjet:0123456789abcdeF", hard, 401},
		"one that begins as ours": {http.MethodPost, mailjetPath, "mailjet:0123456789abcde", hard, 401},
		"a wrong user":            {http.MethodPost, mailjetPath, "mailjets:0123456789abcdef", hard, 401},
		"the colon elsewhere":     {http.MethodPost, mailjetPath, "mailje:t:0123456789abcdef", hard, 401},
		"an empty one":            {http.MethodPost, mailjetPath, ":", hard, 401},
		"no JSON":                 {http.MethodPost, mailjetPath, hookAuth, "event=bounce", 400},
		"nothing":                 {http.MethodPost, mailjetPath, hookAuth, "", 400},
		"too large":               {http.MethodPost, mailjetPath, hookAuth, `{"event": "sent", "x": "` + strings.Repeat("x", mostEvents) + `"}`, 413},
		"GET":                     {http.MethodGet, mailjetPath, hookAuth, "", 405},
		"another provider":        {http.MethodPost, "/bounces/sendgrid", hookAuth, hard, 404},
		"the operators' ways":     {http.MethodGet, "/v1/status", hookAuth, "", 404},
		"health":                  {http.MethodGet, "/healthz", hookAuth, "", 404},
		"nothing it knows":        {http.MethodPost, mailjetPath, hookAuth, `[{"event": "hello"}, 7]`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if got, answer := w.ask(d, c.method, c.path, c.auth, strings.NewReader(c.body)); got != c.want {
				t.Errorf("%d %s, not %d", got, answer, c.want)
			}
		})
	}
	if found := w.suppressed(d); len(found) > 0 {
		t.Errorf("suppressed are %v", found)
	}

	t.Run("a body without end", func(t *testing.T) { // of who has no password nothing is waited for
		conn, err := net.Dial("tcp", d.public.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST "+mailjetPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 401" {
			t.Errorf("%q %v", answer, err)
		}
	})
	w.stop(d)
	w.config.Public.MailjetAuth = ""
	d = w.start()
	if got, _ := w.call(d, hookAuth, hard); got != http.StatusNotFound {
		t.Errorf("without a password a call is answered %d", got)
	}
}

// failing is a store that cannot be written.
type failing struct {
	outbox.Store
	fails atomic.Int64 // that many bounces are still to fail
	tries atomic.Int64
}

func (f *failing) SaveBounce(ctx context.Context, b outbox.Bounce, soft outbox.SoftLimit) (outbox.Bounced, error) {
	f.tries.Add(1)
	if f.fails.Add(-1) >= 0 {
		return outbox.Bounced{}, errors.New("the disk is full")
	}
	return f.Store.SaveBounce(ctx, b, soft)
}

// TestMailjetStoreFails: an event that could not be stored is not answered as if it were, and Mailjet's next call brings it in.
func TestMailjetStoreFails(t *testing.T) {
	t.Parallel()
	x := newExplained(t)
	store := &failing{Store: x.store}
	said := new(strings.Builder)
	log := slog.New(slog.NewTextHandler(said, nil))
	hook := newMailjetHook(hookAuth, &api{store: store, soft: DefaultConfig().SoftBounces.limit()}, log, &reporter{log: log})
	const n = 3 * eventsAtOnce
	var all []string
	for i := range n {
		all = append(all, event("bounce", fmt.Sprintf("%d@example.com", i), "", unknownUser))
	}
	call := func() int {
		r := httptest.NewRequest(http.MethodPost, mailjetPath, strings.NewReader("["+strings.Join(all, ",")+"]"))
		r.SetBasicAuth("mailjet", "0123456789abcdef")
		w := httptest.NewRecorder()
		hook.ServeHTTP(w, r)
		return w.Code
	}
	for range 2 {
		store.fails.Store(1)
		if got := call(); got != http.StatusServiceUnavailable {
			t.Errorf("answered %d", got)
		}
	}
	if got := store.tries.Load(); got > 2*eventsAtOnce {
		t.Errorf("%d events were tried behind one that failed", got)
	}
	store.fails.Store(0)
	if got := call(); got != http.StatusOK {
		t.Errorf("answered %d", got)
	}
	if found, err := x.store.Suppressions(t.Context(), outbox.SuppressionFilter{Limit: 1000}); err != nil || len(found) != n {
		t.Errorf("%d are suppressed, not %d; %v", len(found), n, err)
	}
	if text := said.String(); strings.Count(text, "the disk is full") != 1 || strings.Contains(text, "@example.com") {
		t.Errorf("it was told so:\n%s", text)
	}
}

// TestMailjetBelieved: an address that Mailjet names is the one that is suppressed, also where the mail went to another.
func TestMailjetBelieved(t *testing.T) {
	t.Parallel()
	x := newExplained(t)
	hook := newMailjetHook(hookAuth, &api{store: x.store, soft: outbox.SoftLimit{Days: 1, Within: time.Hour}}, slog.New(slog.DiscardHandler), &reporter{log: slog.New(slog.DiscardHandler)})
	status, err := hook.take(t.Context(), strings.NewReader("["+event("bounce", "Lee@BÜCHER.example", "", unknownUser)+","+
		event("bounce", "oh@example.com", "", `, "hard_bounce": false, "error": "quota exceeded"`)+"]"))
	if status != http.StatusOK || err != nil {
		t.Fatal(status, err)
	}
	found, err := x.store.Suppressions(t.Context(), outbox.SuppressionFilter{Addresses: []string{"lee@xn--bcher-kva.example", "oh@example.com"}})
	if err != nil || len(found) != 2 {
		t.Errorf("%+v %v", found, err)
	}
	if text, err := json.Marshal(found); err != nil || !strings.Contains(string(text), "soft bounces") {
		t.Errorf("%s %v", text, err)
	}
}

func TestSeldom(t *testing.T) {
	t.Parallel()
	var s seldom
	at := time.Now()
	for _, c := range []struct {
		after time.Duration
		more  int
		ok    bool
	}{{0, 0, true}, {time.Second, 0, false}, {59 * time.Second, 0, false}, {time.Minute, 2, true}, {61 * time.Second, 0, false}, {time.Hour, 1, true}} {
		if more, ok := s.again(at.Add(c.after)); more != c.more || ok != c.ok {
			t.Errorf("after %s: %d, %v", c.after, more, ok)
		}
	}
}

// BenchmarkMailjetHook is a call without the password, which anybody may make, and one with a thousand events that each suppress an address.
func BenchmarkMailjetHook(b *testing.B) {
	store, err := sqlite.Open(filepath.Join(b.TempDir(), "postman.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	log := slog.New(slog.DiscardHandler)
	hook := newMailjetHook(hookAuth, &api{store: store, soft: DefaultConfig().SoftBounces.limit()}, log, &reporter{log: log})
	call := func(b *testing.B, password, body string, want int) {
		r, w := httptest.NewRequest(http.MethodPost, mailjetPath, strings.NewReader(body)), httptest.NewRecorder()
		r.SetBasicAuth("mailjet", password)
		if hook.ServeHTTP(w, r); w.Code != want {
			b.Fatalf("answered %d", w.Code)
		}
	}
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(b, "a guess", "[]", http.StatusUnauthorized)
		}
	})
	n := 0
	b.Run("a thousand", func(b *testing.B) {
		for b.Loop() {
			all := make([]string, 1000)
			for i := range all {
				n++
				all[i] = event("bounce", fmt.Sprintf("%d@example.com", n), "", unknownUser)
			}
			call(b, "0123456789abcdef", "["+strings.Join(all, ",")+"]", http.StatusOK)
		}
	})
}

// TestDoctorWebhook: whether Mailjet's calls arrive is found out by one.
func TestDoctorWebhook(t *testing.T) {
	t.Parallel()
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		body, err := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/moved"+mailjetPath:
			http.Redirect(w, r, mailjetPath, http.StatusMovedPermanently)
		case r.URL.Path != mailjetPath || r.Method != http.MethodPost || err != nil || string(body) != "[]":
			w.WriteHeader(http.StatusNotFound)
		case user+":"+password != hookAuth:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(answers.Close)
	for name, c := range map[string]struct {
		tune func(*Config)
		want string
	}{
		"another relay":   {func(*Config) {}, ""},
		"not set up":      {func(c *Config) { c.SMTPURL = "smtp://in-v3.mailjet.com" }, "warning Mailjet: bounces and complaints of mails over Mailjet come to nobody"},
		"no URL":          {func(c *Config) { c.Public.HTTP, c.Public.MailjetAuth = "127.0.0.1:1", hookAuth }, "warning Mailjet: the webhook is served on 127.0.0.1:1; whether"},
		"all is well":     {func(c *Config) { c.Public.URL, c.Public.MailjetAuth = answers.URL, hookAuth }, "ok Mailjet: the webhook answers at " + answers.URL + mailjetPath},
		"a path too many": {func(c *Config) { c.Public.URL, c.Public.MailjetAuth = answers.URL+"/x", hookAuth }, "warning Mailjet: " + answers.URL + "/x" + mailjetPath + " answers 404"},
		"moved":           {func(c *Config) { c.Public.URL, c.Public.MailjetAuth = answers.URL+"/moved", hookAuth }, "warning Mailjet: " + answers.URL + "/moved" + mailjetPath + " answers 301"},
		"another one":     {func(c *Config) { c.Public.URL, c.Public.MailjetAuth = answers.URL, "mailjet:another-password" }, "refuses the password"},
		"nobody":          {func(c *Config) { c.Public.URL, c.Public.MailjetAuth = "http://127.0.0.1:1", hookAuth }, "warning Mailjet: the webhook is not reached from here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := DefaultConfig()
			config.SMTPURL = "smtp://relay.example.com"
			c.tune(&config)
			d := &doctor{config: &config, Diagnosis: new(Diagnosis)}
			d.public(t.Context())
			var all []string
			for _, f := range d.Findings {
				all = append(all, string(f.Level)+" "+f.Name+": "+f.Text)
				if (f.Todo == "") != (f.Level == Fine) || strings.Contains(f.Text+f.Todo, "0123456789") {
					t.Errorf("%+v", f)
				}
			}
			if text := strings.Join(all, "\n"); (text == "") != (c.want == "") || !strings.Contains(text, c.want) {
				t.Errorf("found is %q, not %q", text, c.want)
			}
		})
	}
}
