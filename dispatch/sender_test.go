package dispatch

import "testing"

func TestDomains(t *testing.T) {
	t.Parallel()
	domains := must(NewDomains("CRM <crm@Example.com>", "mail.example.com", "예시.한국"))
	for address, want := range map[string]bool{
		"a@example.com": true, "Desk <desk@EXAMPLE.COM>": true, "a@mail.example.com": true, "a@예시.한국": true, "a@xn--vv4b11d.xn--3e0b707e": true,
		"a@other.example.com": false, "a@example.com.evil.org": false, "a@evilexample.com": false, "a@example.org": false, "nobody": false, "": false,
	} {
		if err := domains.Allow(address); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := (Domains)(nil).Allow("a@anywhere.org"); err != nil {
		t.Errorf("without a restriction: %v", err)
	}
	for _, bad := range []string{"a@example.com", "", "exa mple.com", "*.example.com"} {
		if d, err := NewDomains("", bad); err == nil {
			t.Errorf("%q makes %q", bad, d)
		}
	}
	if _, err := NewDomains("nobody"); err == nil {
		t.Error("a sender that is none")
	}
}
