package dispatch

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// Domains are those that mails may come from, in ASCII and lower case: who sends for another's domain is taken for a forger by
// receivers that look at SPF and DKIM (RFC 7208, RFC 6376). None is no restriction.
type Domains []string

// NewDomains is the domain of a sender, and further ones.
func NewDomains(sender string, further ...string) (Domains, error) {
	var all Domains
	if sender != "" {
		m, err := parseMailbox(sender)
		if err != nil {
			return nil, err
		}
		further = append([]string{domainOf(m.Address)}, further...)
	}
	for _, name := range further {
		domain, err := idna.Lookup.ToASCII(name)
		if err != nil || domain == "" || strings.ContainsFunc(domain, notInDomain) {
			return nil, fmt.Errorf("%q is no domain; one looks like example.com", clip(name))
		}
		all = append(all, strings.ToLower(domain))
	}
	return all, nil
}

// Allow says why a mail must not come from an address, which may have a name; nil: it may.
func (d Domains) Allow(address string) error {
	m, err := parseMailbox(address)
	if err != nil {
		return err
	}
	return d.allow(m.Address)
}

func (d Domains) allow(address string) error {
	if domain := domainOf(address); len(d) > 0 && !slices.Contains(d, strings.ToLower(domain)) {
		return fmt.Errorf("mails may not come from the domain %s, only from %s", domain, strings.Join(d, ", "))
	}
	return nil
}
