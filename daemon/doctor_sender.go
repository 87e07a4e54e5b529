package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postman/dispatch"
	"postman/maildns"
)

// dnsPatience bounds what is asked of the DNS, together.
const dnsPatience = 20 * time.Second

// provider is what is known of a provider, and of how its customers set up their DNS.
type provider struct {
	host       string   // its relay's name, or the end of it
	include    string   // for SPF, where the bounce domain is the customer's own
	selectors  []string // of DKIM; empty: they are different for each customer
	tokenField string   // see [dispatch.Relay]
}

// providers are by preset, from the pages on authenticating a domain in each one's documentation.
var providers = map[string]provider{
	"ses":      {"amazonaws.com", "amazonses.com", nil, ""},
	"gmail":    {"gmail.com", "_spf.google.com", []string{"google"}, ""},
	"mailgun":  {"mailgun.org", "mailgun.org", []string{"mx", "smtp", "k1", "pic", "email"}, ""},
	"mailjet":  {"mailjet.com", "spf.mailjet.com", []string{"mailjet"}, "X-MJ-CustomID"},
	"postmark": {"postmarkapp.com", "spf.mtasv.net", []string{"pm"}, ""},
	"sendgrid": {"sendgrid.net", "sendgrid.net", []string{"s1", "s2"}, ""},
}

// usualSelectors are tried where nothing better is known.
var usualSelectors = []string{"default", "dkim", "mail", "selector1", "selector2", "s1", "s2", "k1", "google"}

// providerOf is the one of a relay, by its preset or its name.
func providerOf(preset, host string) provider {
	if p, ok := providers[preset]; ok {
		return p
	}
	for _, p := range providers {
		if host == p.host || strings.HasSuffix(host, "."+p.host) {
			return p
		}
	}
	return provider{}
}

// sender looks at what receivers look up of the sender's domain, and of the envelope's.
func (d *doctor) sender(ctx context.Context) {
	d.area = "sender"
	from, err := dispatch.AddressOf(d.config.From)
	if err != nil {
		d.find(Doubtful, "from", "there is none to look at", "set POSTMAN_FROM to an address of yours, as in CRM <crm@example.com>")
		return
	}
	bounce := from
	if d.config.Bounce != "" {
		if b, err := dispatch.AddressOf(strings.ReplaceAll(d.config.Bounce, "*", "x")); err == nil {
			bounce = b
		}
	}
	_, fromDomain, _ := strings.Cut(from, "@")
	_, bounceDomain, _ := strings.Cut(bounce, "@")
	ctx, cancel := context.WithTimeout(ctx, dnsPatience)
	defer cancel()
	s := &senderCheck{doctor: d, dns: maildns.Resolver(d.options.Resolver), from: fromDomain, bounce: bounceDomain}
	if r, err := d.config.relayNamed(""); err == nil {
		s.provider, s.relay = providerOf(d.config.SMTP.Preset, r.Host), r.Host
	}
	s.exchangers(ctx)
	s.spf(ctx)
	s.dkim(ctx)
	s.dmarc(ctx)
}

type senderCheck struct {
	*doctor
	dns          *net.Resolver
	from, bounce string // domains
	relay        string // its host
	provider     provider
	signed       bool // a key was found
	allowed      bool // SPF is there, and nothing is known against it
	supposed     bool // and nothing for it, either
}

// unknown tells that the DNS did not answer.
func (s *senderCheck) unknown(name string, err error) {
	s.find(Doubtful, name, "not known: "+err.Error(), "does this machine's DNS work? --resolver HOST:PORT asks another")
}

func (s *senderCheck) exchangers(ctx context.Context) {
	for _, domain := range slices.Compact([]string{s.from, s.bounce}) {
		name := "MX of " + domain
		m, err := maildns.Exchangers(ctx, s.dns, domain)
		switch {
		case err != nil:
			s.unknown(name, err)
		case !m.Takes():
			s.find(Harmful, name, "it takes no mail (no MX, no address, or a null MX): receivers refuse mails of such a domain, and bounces are lost", "give it an MX, or take another domain (POSTMAN_FROM, POSTMAN_BOUNCE)")
		case m.Address:
			s.find(Fine, name, "none; its address stands in for one", "")
		default:
			s.find(Fine, name, strings.Join(m.MX, ", "), "")
		}
	}
}

// relayAddresses are where the relay is reached, which is often where it sends from; none where only it knows, as on loopback.
func (s *senderCheck) relayAddresses(ctx context.Context) (list []netip.Addr) {
	if a, err := netip.ParseAddr(s.relay); err == nil {
		list = []netip.Addr{a}
	} else if s.relay != "" {
		list, _ = s.dns.LookupNetIP(ctx, "ip", strings.TrimSuffix(s.relay, ".")+".") // not knowing is an answer here
	}
	return slices.DeleteFunc(list, func(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() })
}

// spf looks at the envelope's domain: it is that which receivers ask (RFC 7208 §2.4).
func (s *senderCheck) spf(ctx context.Context) {
	name := "SPF of " + s.bounce
	addresses := s.relayAddresses(ctx)
	f, err := maildns.EvaluateSPF(ctx, s.dns, s.bounce, addresses)
	include := "include:" + s.provider.include
	switch {
	case err != nil:
		s.unknown(name, err)
	case f.Record == "":
		add := "v=spf1 <how your relay sends> ~all"
		if s.provider.include != "" {
			add = "v=spf1 " + include + " ~all"
		}
		s.find(Doubtful, name, "there is none", "add a TXT record: "+add)
	case f.Wrong != "":
		s.find(Doubtful, name, "receivers cannot use it: "+f.Wrong, "mend the TXT record: "+f.Record)
	default:
		s.allowed = true
		text := fmt.Sprintf("one record, %d of %d look-ups", f.Lookups, maildns.MostLookups)
		switch {
		case len(f.Allows) > 0:
			s.find(Fine, name, fmt.Sprintf("%s; it lets %s send, where %s is", text, f.Allows[0], s.relay), "")
		case s.provider.include != "" && slices.Contains(f.Includes, s.provider.include):
			s.find(Fine, name, text+"; it includes "+s.provider.include, "")
		case s.provider.include != "":
			s.allowed = false
			s.find(Doubtful, name, text+"; it does not include "+s.provider.include, "add "+include+" to it, unless your provider puts its own domain into the envelope")
		case len(addresses) == 0:
			s.supposed = true
			s.find(Doubtful, name, text+"; whether it lets the relay send is not known: from where that sends, only its owner knows", "have it name the addresses that your relay sends from, if it does not")
		default:
			s.supposed = true
			s.find(Doubtful, name, text+"; whether it lets the relay send is not known: it does not name the address at which the relay is reached", "have it name the addresses that your relay sends from, if it does not")
		}
	}
}

func (s *senderCheck) dkim(ctx context.Context) {
	name, selectors := "DKIM of "+s.from, s.options.Selectors
	given := len(selectors) > 0
	if !given {
		selectors = s.provider.selectors
	}
	if len(selectors) == 0 {
		selectors = usualSelectors
	}
	for _, selector := range selectors {
		k, err := maildns.FindKey(ctx, s.dns, s.from, selector)
		which := name + ", " + selector
		switch {
		case err != nil:
			s.unknown(which, err)
			return
		case k == nil && given:
			s.find(Doubtful, which, "there is no key", "add the TXT or CNAME record "+selector+"._domainkey."+s.from+" that your relay's owner tells")
		case k == nil:
		case k.Revoked:
			s.find(Doubtful, which, "the key is revoked (its p= is empty)", "publish the key that your relay signs with")
		case k.Broken != nil:
			s.find(Doubtful, which, "the key cannot be read: "+k.Broken.Error(), "copy it again: no part of it may be missing")
		case k.Type == "rsa" && k.Bits < 1024:
			s.find(Doubtful, which, fmt.Sprintf("a key of %d bits: receivers take none below 1024 (RFC 8301)", k.Bits), "make one of 2048 bits")
		default:
			s.signed = true
			s.find(Fine, which, keyText(k), "")
		}
	}
	if !s.signed && !given {
		s.find(Doubtful, name, "not known: nothing lists a domain's selectors, and none of "+strings.Join(selectors, ", ")+" has a key", "name the one that your relay signs with: --dkim-selector NAME (it is s= in the DKIM-Signature of a mail that arrived)")
	}
}

func keyText(k *maildns.Key) string {
	if k.Bits == 0 {
		return "a key is there, " + k.Type
	}
	return fmt.Sprintf("a key is there, %s of %d bits", k.Type, k.Bits)
}

func (s *senderCheck) dmarc(ctx context.Context) {
	name := "DMARC of " + s.from
	p, err := maildns.FindDMARC(ctx, s.dns, s.from)
	switch {
	case err != nil:
		s.unknown(name, err)
		return
	case p == nil:
		s.find(Doubtful, name, "there is none: Gmail and Yahoo want one of whoever sends much", "begin with a TXT record at _dmarc."+maildns.Organization(s.from)+": v=DMARC1; p=none; rua=mailto:<where reports shall go>")
		return
	case p.Several || p.Policy == "":
		s.find(Doubtful, name, "receivers cannot use it: there are several records, or it has no p=", "leave one record: "+p.Record)
		return
	}
	aligned := s.from == s.bounce || !p.StrictSPF && maildns.Organization(s.from) == maildns.Organization(s.bounce)
	text := fmt.Sprintf("p=%s, at %s", p.Policy, p.At)
	switch {
	case aligned && s.allowed && !s.supposed:
		s.find(Fine, name, text+"; SPF speaks for From ("+s.bounce+" is in alignment)", "")
	case aligned && s.allowed:
		s.find(Fine, name, text+"; SPF speaks for From ("+s.bounce+" is in alignment), if it lets the relay send", "")
	case s.signed:
		s.find(Fine, name, text+"; DKIM speaks for From, if the relay signs with that key", "")
	case p.Policy == "none":
		s.find(Doubtful, name, text+"; nothing is known to speak for From: neither SPF in alignment nor a DKIM key", "set up one of the two before the policy gets stricter")
	default:
		s.find(Doubtful, name, text+": receivers put aside or refuse mails that neither SPF in alignment nor DKIM speaks for, and neither is known to", "have the relay sign as "+s.from+" (DKIM), or take a bounce address on that domain with an SPF record that lets the relay send")
	}
}
