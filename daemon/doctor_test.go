package daemon

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/internal/dnstest"
)

// TestDoctorSender has the DNS say all sorts of things of a sender's domain: each is told, and what to do about it.
func TestDoctorSender(t *testing.T) {
	t.Parallel()
	good := dnstest.Zone{
		"example.test":                    {"MX 10 mx.example.test", "TXT v=spf1 include:spf.mailjet.com -all"},
		"spf.mailjet.com":                 {"TXT v=spf1 ip4:192.0.2.0/24 ?all"},
		"relay.example.test":              {"A 203.0.113.5"},
		"mailjet._domainkey.example.test": {"TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
		"_dmarc.example.test":             {"TXT v=DMARC1; p=reject"},
	}
	for name, test := range map[string]struct {
		zone  dnstest.Zone // over good; nil records take a name out
		tune  func(*Config, *DoctorOptions)
		want  []string // of these findings: level name: part of text → part of what to do
		never string
	}{
		"all is well": {nil, nil, []string{"ok MX of example.test: mx.example.test", "ok SPF of example.test: one record, 1 of 10 look-ups; it includes spf.mailjet.com", "ok DKIM of example.test, mailjet: ed25519", "ok DMARC of example.test: p=reject"}, "warning"},
		"nothing is there": {
			dnstest.Zone{"example.test": nil, "_dmarc.example.test": nil, "mailjet._domainkey.example.test": nil},
			nil,
			[]string{"trouble MX of example.test: takes no mail → give it an MX", "warning SPF of example.test: none → v=spf1 include:spf.mailjet.com ~all", "warning DKIM of example.test: nothing lists → --dkim-selector", "warning DMARC of example.test: none → _dmarc.example.test"},
			"",
		},
		"a null MX":       {dnstest.Zone{"example.test": {"MX 0 .", "TXT v=spf1 -all"}}, nil, []string{"trouble MX of example.test: takes no mail"}, ""},
		"two SPF records": {dnstest.Zone{"example.test": {"A 192.0.2.1", "TXT v=spf1 -all", "TXT v=spf1 ~all"}}, nil, []string{"ok MX of example.test: its address stands in", "warning SPF of example.test: several"}, ""},
		"SPF of another":  {dnstest.Zone{"example.test": {"MX 10 mx.example.test", "TXT v=spf1 ip4:192.0.2.1 -all"}}, nil, []string{"warning SPF of example.test: does not include spf.mailjet.com → add include:spf.mailjet.com"}, ""},
		"a relay of one's own": {
			dnstest.Zone{"example.test": {"MX 10 mx.example.test", "TXT v=spf1 a:relay.example.test -all"}},
			func(c *Config, _ *DoctorOptions) { c.SMTP.Preset, c.SMTPURL = "", "smtp://relay.example.test" },
			[]string{"ok SPF of example.test: it lets 203.0.113.5 send", "warning DKIM of example.test: none of default, dkim", "ok DMARC of example.test: SPF speaks for From"},
			"",
		},
		"a selector that is not there": {nil, func(_ *Config, o *DoctorOptions) { o.Selectors = []string{"s2026"} }, []string{"warning DKIM of example.test, s2026: no key → s2026._domainkey.example.test"}, ""},
		"a revoked key":                {dnstest.Zone{"mailjet._domainkey.example.test": {"TXT v=DKIM1; p="}}, nil, []string{"warning DKIM of example.test, mailjet: revoked"}, ""},
		"bounces go elsewhere": {
			dnstest.Zone{"bounces.test": {"MX 10 mx.example.test", "TXT v=spf1 include:spf.mailjet.com -all"}, "mailjet._domainkey.example.test": nil},
			func(c *Config, _ *DoctorOptions) { c.Bounce = "b+*@bounces.test" },
			[]string{"ok MX of example.test: mx", "ok MX of bounces.test: mx", "ok SPF of bounces.test: spf.mailjet.com", "warning DMARC of example.test: neither is known → have the relay sign as example.test"},
			"",
		},
		"a subdomain, strictly": {
			dnstest.Zone{"b.example.test": {"A 192.0.2.1", "TXT v=spf1 include:spf.mailjet.com -all"}, "_dmarc.example.test": {"TXT v=DMARC1; p=none; aspf=s"}, "mailjet._domainkey.example.test": nil},
			func(c *Config, _ *DoctorOptions) { c.Bounce = "b@b.example.test" },
			[]string{"warning DMARC of example.test: nothing is known to speak for From"},
			"",
		},
		"a subdomain": {
			dnstest.Zone{"b.example.test": {"A 192.0.2.1", "TXT v=spf1 include:spf.mailjet.com -all"}, "mailjet._domainkey.example.test": nil},
			func(c *Config, _ *DoctorOptions) { c.Bounce = "b@b.example.test" },
			[]string{"ok DMARC of example.test: b.example.test is in alignment"},
			"",
		},
		"no DNS": {
			dnstest.Zone{"example.test": {"FAIL"}, "_dmarc.example.test": {"FAIL"}, "mailjet._domainkey.example.test": {"FAIL"}},
			nil,
			[]string{"warning MX of example.test: not known → --resolver", "warning SPF of example.test: not known", "warning DKIM of example.test, mailjet: not known", "warning DMARC of example.test: not known"},
			"trouble",
		},
		"no sender": {nil, func(c *Config, _ *DoctorOptions) { c.From = "" }, []string{"warning from: none → POSTMAN_FROM"}, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone := make(dnstest.Zone)
			for _, z := range []dnstest.Zone{good, test.zone} {
				for name, records := range z {
					if zone[name] = records; records == nil {
						delete(zone, name)
					}
				}
			}
			server, err := dnstest.Start(zone)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			c, o := DefaultConfig(), DoctorOptions{Resolver: server.Addr()}
			c.From, c.SMTPURL, c.SMTP.Preset = "CRM <crm@example.test>", "smtp+starttls://in.mailjet.com", "mailjet"
			if test.tune != nil {
				test.tune(&c, &o)
			}
			d := &doctor{config: &c, options: o, Diagnosis: new(Diagnosis)}
			d.sender(t.Context())
			var all []string
			for _, f := range d.Findings {
				line := string(f.Level) + " " + f.Name + ": " + f.Text + " → " + f.Todo
				all = append(all, line)
				if test.never != "" && string(f.Level) == test.never {
					t.Errorf("%s", line)
				}
			}
			for _, want := range test.want {
				head, rest, _ := strings.Cut(want, ": ")
				text, todo, _ := strings.Cut(rest, " → ")
				found := false
				for _, line := range all {
					gotText, gotTodo, _ := strings.Cut(line, " → ")
					found = found || strings.HasPrefix(line, head+": ") && strings.Contains(gotText, text) && strings.Contains(gotTodo, todo)
				}
				if !found {
					t.Errorf("no %q in\n%s", want, strings.Join(all, "\n"))
				}
			}
		})
	}
}

// TestDoctorRights has the look-ups' role lack rights: each table is told of once, with a rule that wants it.
func TestDoctorRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules(`
rules:
  - {name: visit, on: {table: visits, ops: [insert]}, to: {query: "select email from staff where id = @new.staff_id"}, template: visit, load: {who: "select name from staff where id = @new.staff_id"}}
  - {name: again, on: {table: visits, ops: [insert]}, to: {query: "select s.email from staff s where s.id = @new.staff_id"}, template: visit, load: {who: "select 'x' as name"}}
`)
	role := "doctor_" + w.config.Slot
	w.sql("create role " + role + " login")
	w.config.LookupURL = Secret(strings.Replace(w.url, "postgres@", role+"@", 1))
	examine := func() (all []string) {
		d := &doctor{config: &w.config, Diagnosis: new(Diagnosis)}
		d.database(t.Context())
		for _, f := range d.Findings {
			if f.Name == "look-up role" {
				all = append(all, string(f.Level)+": "+f.Text)
			}
		}
		return all
	}
	alone, may := "ok: can read alone", "ok: may read what the rules ask for"
	for _, step := range []struct {
		grant string
		want  []string
	}{
		{"select 1", []string{alone, "trouble: permission denied for table staff: a query of rule visit asks for it", "warning: permission denied for table visits: rule visit reads its rows again now and then"}},
		{"grant select on visits to " + role, []string{alone, "trouble: permission denied for table staff: a query of rule visit asks for it"}},
		{"grant select (id, name) on staff to " + role, []string{alone, "trouble: permission denied for table staff: a query of rule visit asks for it"}},
		{"grant select (email) on staff to " + role, []string{alone, may}},
	} {
		w.sql(step.grant)
		if diff := cmp.Diff(step.want, examine()); diff != "" {
			t.Errorf("%s: %s", step.grant, diff)
		}
	}
}
