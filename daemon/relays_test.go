package daemon

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/dispatch"
	"postman/outbox"
	"postman/rules"
)

// TestRelayOf: the mails of a rule that names a relay go nowhere else, while it is broken, too.
func TestRelayOf(t *testing.T) {
	t.Parallel()
	d := recording(t)
	well, broken, plain := &rules.Rule{Name: "well", Relay: "marketing"}, &rules.Rule{Name: "broken", Relay: "backup"}, &rules.Rule{Name: "plain"}
	l := &live{
		source: &rules.Source{Rules: []*rules.Rule{broken, well, plain}}, rules: &rules.Set{Rules: []*rules.Rule{well, plain}},
		broken: rules.Errors{{Rule: "broken"}},
	}
	if err := l.register(t.Context(), d.store); err != nil {
		t.Fatal(err)
	}
	d.live.Store(l)
	ids, err := d.store.RuleIDs(t.Context(), outbox.RuleName{Name: "well"}, outbox.RuleName{Name: "broken"}, outbox.RuleName{Name: "plain"}, outbox.RuleName{Name: "deleted"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range ids {
		got = append(got, d.relayOf(id))
	}
	if diff := cmp.Diff([]string{"marketing", "backup", "", ""}, got); diff != "" {
		t.Error(diff)
	}
	if l.byID[ids[0]] != well || l.byID[ids[1]] != nil || l.ids[plain] != ids[2] {
		t.Errorf("%v %v", l.byID, l.ids)
	}
}

// TestRelaysAreKept: mails of a rule that is gone stay with the relay that it named last, whatever others do, and after a restart, too.
func TestRelaysAreKept(t *testing.T) {
	t.Parallel()
	d := recording(t)
	ids, err := d.store.RuleIDs(t.Context(), outbox.RuleName{Name: "gone"}, outbox.RuleName{Name: "moved"}, outbox.RuleName{Name: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		rules []*rules.Rule
		want  []string
	}{
		{[]*rules.Rule{{Name: "plain"}}, []string{"", "", ""}},
		{[]*rules.Rule{{Name: "gone", Relay: "backup"}, {Name: "moved", Relay: "backup"}, {Name: "plain"}}, []string{"backup", "backup", ""}},
		{[]*rules.Rule{{Name: "moved", Relay: "marketing"}, {Name: "plain"}}, []string{"backup", "marketing", ""}},
		{[]*rules.Rule{{Name: "moved"}, {Name: "plain", Relay: "marketing"}}, []string{"backup", "", "marketing"}},
		{nil, []string{"backup", "", "marketing"}},
		{[]*rules.Rule{{Name: "gone"}}, []string{"", "", "marketing"}},
	} {
		l := &live{rules: &rules.Set{Rules: step.rules}}
		if err := errors.Join(l.register(t.Context(), d.store), d.keepRelays(t.Context(), l)); err != nil {
			t.Fatal(err)
		}
		d.live.Store(l)
		var got []string
		for _, id := range ids {
			got = append(got, d.relayOf(id))
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

// TestRelays reads relays as people write them.
func TestRelays(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/postman.yaml"
	write(t, file, `
smtp_url: smtp://relay.example
smtp: {preset: postmark, rate: 10/s}
relays:
  second: {url: "smtps://kim:s3cret@second.example", preference: 20}
  first: {url: "smtps://first.example", preference: 10, monthly: 1000}
  marketing: {preset: ses, max_connections: 2}
  before: {url: "smtp://before.example", preference: -1}
  theirs: {url: "smtp://in-v3.mailjet.com"}
`)
	c, err := LoadConfig(file, func(name string) string {
		return map[string]string{"SMTP_URL_MARKETING": "smtps://marketing.example", "SMTP_URL": "smtp://own.example"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range c.relays(func(format string, args ...any) { t.Errorf(format, args...) }) {
		got = append(got, r.String())
	}
	if diff := cmp.Diff([]string{"before (before.example:25)", "own.example:25", "first (first.example:465)", "second (second.example:465)", "marketing (marketing.example:465)", "theirs (in-v3.mailjet.com:25)"}, got); diff != "" {
		t.Error(diff)
	}
	i := slices.IndexFunc(c.relays(t.Errorf), func(r dispatch.Relay) bool { return r.Name == "marketing" })
	if r := c.relays(t.Errorf)[i]; !r.ByName || r.Limits != (dispatch.Limits{Connections: 2, PerConnection: 50}) {
		t.Errorf("%+v", r)
	}
	for _, r := range c.relays(t.Errorf) {
		if got, want := r.TokenField, map[string]string{"theirs": "X-MJ-CustomID"}[r.Name]; got != want {
			t.Errorf("mails over %s are named in %q, not in %q", r.Name, got, want)
		}
	}
}

// TestRelayMistakes: each is told with its place.
func TestRelayMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"smtp: {preset: hotmail}":                     `smtp: preset: "hotmail" is no preset; there are gmail,`,
		"smtp: {max_connections: -1}":                 "cannot be below zero",
		"relays: {x: {}}":                             "relays.x: no url; set it, or SMTP_URL_X",
		"relays: {x: }":                               "relays.x: no url; set it, or SMTP_URL_X",
		"relays: {No Name: {url: 'smtp://r'}}":        "a relay's name has",
		"relays: {x: {url: 'http://u:s3cret@r'}}":     "relays.x: the SMTP URL begins with",
		"relays: {x: {url: 'smtp://r', rate: fast}}":  `"fast" is no rate`,
		"relays: {x: {url: 'smtp://r', lanes: 3}}":    "lanes",
		"relays: {x: {url: 'smtp://r', monthly: -1}}": "relays.x: max_connections",
	} {
		file := t.TempDir() + "/postman.yaml"
		write(t, file, "database_url: postgres://h/d\nmode: live\nfrom: a@example.com\nsmtp_url: smtp://r\n"+text+"\n")
		c, err := LoadConfig(file, none)
		if err == nil {
			err = c.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
