package maildns

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/internal/dnstest"
)

func serve(t *testing.T, zone dnstest.Zone) string {
	t.Helper()
	s, err := dnstest.Start(zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Addr()
}

func TestEvaluateSPF(t *testing.T) {
	t.Parallel()
	zone := dnstest.Zone{
		"plain.test":     {"TXT something else", "TXT v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"},
		"soft.test":      {"TXT v=spf1 ip4:198.51.100.1 ~all"},
		"none.test":      {"TXT v=spf10 -all"},
		"two.test":       {"TXT v=spf1 -all", "TXT v=spf1 ip4:192.0.2.1 -all"},
		"include.test":   {"TXT v=spf1 include:plain.test ?all"},
		"redirect.test":  {"TXT v=spf1 redirect=plain.test"},
		"hosts.test":     {"TXT v=spf1 a mx/24 -all", "A 192.0.2.9", "MX 10 mx.hosts.test"},
		"mx.hosts.test":  {"A 203.0.113.7"},
		"loop.test":      {"TXT v=spf1 include:loop2.test -all"},
		"loop2.test":     {"TXT v=spf1 include:loop.test -all"},
		"macro.test":     {"TXT v=spf1 exists:%{i}._spf.macro.test -all"},
		"broken.test":    {"TXT v=spf1 ipv4:192.0.2.1 -all"},
		"dangling.test":  {"TXT v=spf1 include:nowhere.test -all"},
		"void.test":      {"TXT v=spf1 a:x.test a:y.test a:z.test -all"},
		"fail.test":      {"FAIL"},
		"long.test":      {"TXT v=spf1 " + strings.Repeat("ip4:198.51.100.77 ", 20) + "ip4:192.0.2.1 -all"},
		"first.test":     {"TXT v=spf1 -ip4:192.0.2.1 ip4:192.0.2.0/24 -all"},
		"negated.test":   {"TXT v=spf1 include:never.test ip4:192.0.2.1 -all"},
		"never.test":     {"TXT v=spf1 -all"},
		"modifiers.test": {"TXT v=spf1 ip4:192.0.2.1 -all exp=why.test"},
	}
	var deep []string
	for i := range 11 {
		deep = append(deep, fmt.Sprintf("include:n%d.test", i))
		zone[fmt.Sprintf("n%d.test", i)] = []string{"TXT v=spf1 ip4:203.0.113.1 -all"}
	}
	zone["deep.test"] = []string{"TXT v=spf1 " + strings.Join(deep, " ") + " -all"}
	r := Resolver(serve(t, zone))
	for domain, want := range map[string]string{ // what it makes of 192.0.2.1: look-ups, wrong, unknown
		"plain.test": "+ 0", "soft.test": "- 0", "none.test": "no record", "nowhere.test": "no record", "two.test": "- 0 several", "include.test": "+ 1", "redirect.test": "+ 1",
		"hosts.test": "- 2", "loop.test": "- 2 which includes it", "macro.test": "- 1 unknown", "broken.test": "- 0 no part", "dangling.test": "- 1 has 0 SPF", "void.test": "- 3 find nothing",
		"fail.test": "error", "long.test": "+ 0", "deep.test": "- 11 takes 11 look-ups", "first.test": "- 0", "negated.test": "+ 1", "modifiers.test": "+ 0",
	} {
		s, err := EvaluateSPF(t.Context(), r, domain, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
		got := "error"
		if err == nil && s.Record == "" {
			got = "no record"
		} else if err == nil {
			got = fmt.Sprintf("%s %d", strings.Repeat("+", len(s.Allows))+strings.Repeat("-", len(s.Refuses)), s.Lookups)
			if s.Unknown != "" {
				got += " unknown"
			}
			if rest := strings.TrimPrefix(want, got+" "); rest != want && strings.Contains(s.Wrong, rest) {
				got = want
			} else if s.Wrong != "" {
				got += " " + s.Wrong
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q (%+v, %v)", domain, got, want, s, err)
		}
	}
	s, err := EvaluateSPF(t.Context(), r, "hosts.test", []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("203.0.113.200")})
	if err != nil || len(s.Allows) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFindDMARC(t *testing.T) {
	t.Parallel()
	r := Resolver(serve(t, dnstest.Zone{
		"_dmarc.example.co.kr":    {"TXT v=DMARC1; p=Reject; sp=quarantine; adkim=s; aspf=S; rua=mailto:a@example.co.kr"},
		"_dmarc.own.example.test": {"TXT v=DMARC1;p=none"},
		"_dmarc.two.test":         {"TXT v=DMARC1; p=none", "TXT v=DMARC1; p=reject"},
		"_dmarc.fail.test":        {"FAIL"},
	}))
	for domain, want := range map[string]string{
		"example.co.kr": "example.co.kr reject true true false", "mail.Example.co.kr": "example.co.kr quarantine true true false", "own.example.test": "own.example.test none false false false",
		"other.test": "nil", "two.test": "two.test none false false true", "fail.test": "error",
	} {
		d, err := FindDMARC(t.Context(), r, domain)
		got := "nil"
		if err != nil {
			got = "error"
		} else if d != nil {
			got = fmt.Sprintf("%s %s %v %v %v", d.At, d.Policy, d.StrictSPF, d.StrictDKIM, d.Several)
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", domain, got, want, err)
		}
	}
}

func TestFindKey(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(der)
	r := Resolver(serve(t, dnstest.Zone{
		"a._domainkey.example.test": {"TXT v=DKIM1; k=rsa; p=" + public},
		"b._domainkey.example.test": {"CNAME b.provider.test"},
		"b.provider.test":           {"TXT p=" + public},
		"c._domainkey.example.test": {"TXT v=DKIM1; p="},
		"d._domainkey.example.test": {"TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
		"e._domainkey.example.test": {"TXT v=DKIM1; p=AAAAAAAAAAAAAAAAAAAAAAAA"},
		"f._domainkey.example.test": {"TXT not a key"},
	}))
	for selector, want := range map[string]*Key{
		"a": {Selector: "a", Type: "rsa", Bits: 1024}, "b": {Selector: "b", Type: "rsa", Bits: 1024}, "c": {Selector: "c", Type: "rsa", Revoked: true},
		"d": {Selector: "d", Type: "ed25519"}, "f": nil, "g": nil,
	} {
		got, err := FindKey(t.Context(), r, "example.test", selector)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", selector, err, diff)
		}
	}
	if k, err := FindKey(t.Context(), r, "example.test", "e"); err != nil || k.Broken == nil {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestExchangers(t *testing.T) {
	t.Parallel()
	r := Resolver(serve(t, dnstest.Zone{
		"mx.test": {"MX 20 b.test", "MX 10 a.test"}, "a.test": {"A 192.0.2.1"}, "null.test": {"MX 0 ."}, "empty.test": {"TXT hi"}, "fail.test": {"FAIL"},
	}))
	for domain, want := range map[string]*Mail{
		"mx.test": {MX: []string{"a.test", "b.test"}}, "a.test": {Address: true}, "null.test": {MX: []string{""}, Null: true}, "empty.test": {}, "nowhere.test": {},
	} {
		got, err := Exchangers(t.Context(), r, domain)
		if diff := cmp.Diff(want, got); diff != "" || err != nil || got.Takes() != (domain == "mx.test" || domain == "a.test") {
			t.Errorf("%s: %v %s", domain, err, diff)
		}
	}
	if _, err := Exchangers(t.Context(), r, "fail.test"); err == nil {
		t.Error("a failure of the DNS is none")
	}
}
