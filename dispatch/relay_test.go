package dispatch

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/smtptest"
	"postman/outbox"
)

func TestParseRelay(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Relay{
		"smtp://relay.example.com":                       {Host: "relay.example.com", Port: 25},
		"smtp://relay.example.com:2525/":                 {Host: "relay.example.com", Port: 2525},
		"smtp://127.0.0.1:1025":                          {Host: "127.0.0.1", Port: 1025, Security: Plain},
		"smtp://[::1]":                                   {Host: "::1", Port: 25, Security: Plain},
		"smtp://localhost?tls=required":                  {Host: "localhost", Port: 25},
		"smtp://mailpit:1025?tls=off":                    {Host: "mailpit", Port: 1025, Security: Plain},
		"smtp+starttls://kim:s%40cret@relay.example.com": {Host: "relay.example.com", Port: 587, User: "kim", Password: "s@cret"},
		"smtp+starttls://localhost":                      {Host: "localhost", Port: 587},
		"smtps://kim@relay.example.com":                  {Host: "relay.example.com", Port: 465, Security: ImplicitTLS, User: "kim"},
	} {
		got, err := ParseRelay(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Relay{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
	for in, want := range map[string]string{
		"":                                  "it has to be smtp://",
		"relay.example.com:25":              "it has to be smtp://",
		"http://relay.example.com":          "it has to be smtp://",
		"smtp://":                           "names no host",
		"smtp:relay":                        "names no host",
		"smtp://kim:s/cret@relay":           "malformed",
		"smtp://kim:s#cret@relay":           "",
		"smtp://kim:s%cret@relay":           "malformed",
		"smtp://relay:0":                    "port",
		"smtp://relay:70000":                "port",
		"smtp://relay?tls=maybe":            "off or required",
		"smtp://relay?ssl=on":               "unknown option",
		"smtps://relay?tls=off":             "tls=off",
		"smtp://kim:cret@relay/path":        "behind its host",
		"smtp://kim:s3cret@relay.example:x": "malformed",
	} {
		_, err := ParseRelay(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestPasswordIsHidden(t *testing.T) {
	t.Parallel()
	r := Relay{Host: "relay", User: "kim", Password: "s3cret"}
	text, err := json.Marshal(map[string]any{"password": r.Password})
	for _, s := range []string{fmt.Sprint(r), fmt.Sprintf("%v %+v %#v %s %q", r, r.Password, r.Password, r.Password, r.Password), string(text)} {
		if err != nil || strings.Contains(s, "s3cret") {
			t.Errorf("%s shows the password (%v)", s, err)
		}
	}
}

// TestConversationsWithTLS meets a real server in each way of protection.
func TestConversationsWithTLS(t *testing.T) {
	t.Parallel()
	config, roots, err := smtptest.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		server smtptest.Options
		url    string // with the address in place of %s
		trust  bool
		want   string // what the trouble says; empty: it is sent
	}{
		"STARTTLS":                      {smtptest.Options{TLS: config}, "smtp+starttls://%s", true, ""},
		"STARTTLS with a login":         {smtptest.Options{TLS: config, User: "kim", Password: "s3cret"}, "smtp+starttls://kim:s3cret@%s", true, ""},
		"implicit TLS with a login":     {smtptest.Options{TLS: config, Implicit: true, User: "kim", Password: "s3cret"}, "smtps://kim:s3cret@%s", true, ""},
		"a wrong password":              {smtptest.Options{TLS: config, User: "kim", Password: "s3cret"}, "smtp+starttls://kim:wr0ng@%s", true, "535"},
		"no password":                   {smtptest.Options{TLS: config, User: "kim", Password: "s3cret"}, "smtp+starttls://%s", true, "530"},
		"a certificate of someone else": {smtptest.Options{TLS: config}, "smtp+starttls://%s", false, "certificate"},
		"someone else's, implicitly":    {smtptest.Options{TLS: config, Implicit: true}, "smtps://%s", false, "certificate"},
		"STARTTLS is not offered":       {smtptest.Options{}, "smtp+starttls://%s", true, "STARTTLS"},
		"AUTH is not offered":           {smtptest.Options{}, "smtp://kim:s3cret@%s", true, "no way to log in"},
		"a login in clear, on loopback": {smtptest.Options{User: "kim", Password: "s3cret"}, "smtp://kim:s3cret@%s", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := smtptest.Start(test.server)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			d := scripted(t, smtptest.NewFake(smtptest.Script{}), func(o *Options) {
				if o.Relays[0], err = ParseRelay(fmt.Sprintf(test.url, server.Addr())); err != nil {
					t.Fatal(err)
				}
				if test.trust {
					c := config.Clone()
					c.RootCAs = roots
					o.Relays[0].TLS = c
				}
			})
			for range 2 { // the second one on the connection that is kept
				o := say(d, aJob("kim@example.com"))
				if test.want == "" && o.State != outbox.MessageSent || test.want != "" && (o.State != outbox.MessageQueued || o.Burned || !strings.Contains(o.Reason, test.want)) {
					t.Errorf("%+v", o)
				}
				if strings.Contains(o.Reason, "s3cret") || strings.Contains(o.Reason, "wr0ng") {
					t.Errorf("the reason shows the password: %s", o.Reason)
				}
			}
			if test.want == "" && (server.Connections() != 1 || len(server.Mails()) != 2) {
				t.Errorf("%d connections, %d mails", server.Connections(), len(server.Mails()))
			}
		})
	}
}

// TestFewerConnections has a relay that takes two connections of four: no outage, just two lanes, and no mail has to wait for another try.
func TestFewerConnections(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, pipelining} {
		synctest.Test(t, func(t *testing.T) {
			fake := smtptest.NewFake(smtptest.Script{
				Extensions: extensions, Steps: map[string][]smtptest.Step{"CONNECT": {{Usual: true}, {Usual: true}}},
				Always: map[string]smtptest.Step{
					"CONNECT": {Reply: "421 4.7.0 too many connections", Close: true},
					"DOT":     {Reply: "250 ok", Wait: time.Second},
				},
			})
			d := scripted(t, fake, nil)
			jobs := make([]*job, 8)
			for i := range jobs {
				jobs[i] = aJob("kim@example.com")
			}
			begin(t.Context(), d, jobs...)
			for range jobs {
				if o := <-d.outcomes; o.State != outbox.MessageSent {
					t.Errorf("%+v", o)
				}
			}
			if n := d.gate().connections(outbox.Normal); n != 2 || d.gate().down() {
				t.Errorf("%d connections", n)
			}
			fake.Play(smtptest.Script{Extensions: extensions})
			sleep(t, holdMost+1)
			for n := 0; d.gate().connections(outbox.Normal) < 4 && n < 10_000; n++ { // under load, it is tried again
				for i := range jobs {
					jobs[i] = aJob("kim@example.com")
				}
				begin(t.Context(), d, jobs...)
				for range jobs {
					if o := <-d.outcomes; o.State != outbox.MessageSent {
						t.Errorf("%+v", o)
					}
				}
				sleep(t, 10*time.Millisecond)
			}
			if n := d.gate().connections(outbox.Normal); n != 4 {
				t.Errorf("%d connections after a while", n)
			}
		})
	}
}
