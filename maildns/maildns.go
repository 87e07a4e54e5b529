// Package maildns reads what the DNS says of a domain that mails come from, as receivers read it before they take one.
//
// What it promises: [EvaluateSPF] counts an SPF record's look-ups as RFC 7208 limits them, and says what it makes of given addresses; [FindDMARC] finds the
// policy that counts for a domain (RFC 7489); [FindKey] reads a DKIM key (RFC 6376); [Exchangers] says whether a domain takes mail (RFC 5321 §5.1, RFC 7505).
// What a domain does not have is a result and no error: an error is of the DNS itself. It sends no mail, and asks only the resolver that it is given.
package maildns

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Resolver asks the server at host:port, over UDP and where that is not enough TCP, or where it is empty the system's.
func Resolver(server string) *net.Resolver {
	if server == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
}

// absent says whether the DNS answered, and has none.
func absent(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// absolute keeps the resolver from trying a name below the machine's own domain.
func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

// texts are the TXT records of a name that begin with a version, as SPF, DKIM and DMARC have it.
func texts(ctx context.Context, r *net.Resolver, name, version string) ([]string, error) {
	all, err := r.LookupTXT(ctx, absolute(name))
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("asking for the TXT records of %s: %w", name, err)
	}
	return slices.DeleteFunc(all, func(s string) bool {
		rest, ok := strings.CutPrefix(strings.ToLower(s), version)
		return !ok || rest != "" && !strings.ContainsAny(rest[:1], " ;")
	}), nil
}

// Organization is the domain that was registered: example.co.kr of mail.example.co.kr (RFC 7489 §3.2, by the Public Suffix List).
func Organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(domain)); err == nil {
		return org
	}
	return strings.ToLower(domain)
}

// Mail is how a domain takes mail.
type Mail struct {
	MX      []string // by preference
	Null    bool     // it says that it takes none (RFC 7505)
	Address bool     // it has no MX, and an address that stands in for one
}

// Takes says whether mail can be brought to the domain. One that takes none cannot get bounces, and many receivers refuse its mails.
func (m *Mail) Takes() bool { return !m.Null && (len(m.MX) > 0 || m.Address) }

// Exchangers asks how a domain takes mail.
func Exchangers(ctx context.Context, r *net.Resolver, domain string) (*Mail, error) {
	list, err := r.LookupMX(ctx, absolute(domain))
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("asking for the MX records of %s: %w", domain, err)
	}
	m := &Mail{Null: len(list) == 1 && list[0].Host == "."}
	for _, mx := range list {
		m.MX = append(m.MX, strings.TrimSuffix(mx.Host, "."))
	}
	if len(list) > 0 {
		return m, nil
	}
	addresses, err := r.LookupIPAddr(ctx, absolute(domain))
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("asking for the addresses of %s: %w", domain, err)
	}
	m.Address = len(addresses) > 0
	return m, nil
}

// DMARC is a domain's policy for mails that neither SPF nor DKIM speaks for.
type DMARC struct {
	Record string
	At     string // the domain whose record it is: the organization's, where the domain itself has none
	Policy string // for the domain that was asked for: none, quarantine, reject
	// Strict says that the domains of SPF (or DKIM) and From have to be the same, and not only of one organization.
	StrictSPF, StrictDKIM bool
	Several               bool // there are several records, and receivers take none
}

// FindDMARC finds the record that counts for a domain; nil: there is none.
func FindDMARC(ctx context.Context, r *net.Resolver, domain string) (*DMARC, error) {
	for _, at := range slices.Compact([]string{strings.ToLower(domain), Organization(domain)}) {
		records, err := texts(ctx, r, "_dmarc."+at, "v=dmarc1")
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			continue
		}
		tags := parseTags(records[0])
		d := &DMARC{Record: records[0], At: at, Policy: tags["p"], StrictSPF: tags["aspf"] == "s", StrictDKIM: tags["adkim"] == "s", Several: len(records) > 1}
		if sub := tags["sp"]; sub != "" && at != strings.ToLower(domain) {
			d.Policy = sub
		}
		return d, nil
	}
	return nil, nil
}

// parseTags reads a list of tags (RFC 6376 §3.2). Values that are words come in lower case, except for keys.
func parseTags(record string) map[string]string {
	tags := make(map[string]string)
	for part := range strings.SplitSeq(record, ";") {
		name, value, _ := strings.Cut(part, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name != "p" || len(value) < 16 {
			value = strings.ToLower(value)
		}
		tags[name] = value
	}
	return tags
}

// Key is a DKIM key as a selector names it.
type Key struct {
	Selector string
	Type     string // rsa, ed25519
	Bits     int    // of an RSA key
	Revoked  bool   // its record says that it is no more (an empty p=)
	Broken   error  // why it is none
}

// FindKey reads the key of a selector; nil: there is none.
func FindKey(ctx context.Context, r *net.Resolver, domain, selector string) (*Key, error) {
	name := selector + "._domainkey." + domain
	all, err := r.LookupTXT(ctx, absolute(name))
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("asking for the TXT records of %s: %w", name, err)
	}
	for _, record := range all {
		tags := parseTags(record)
		if _, ok := tags["p"]; !ok { // the version may be left out (RFC 6376 §3.6.1)
			continue
		}
		k := &Key{Selector: selector, Type: tags["k"], Revoked: tags["p"] == ""}
		if k.Type == "" {
			k.Type = "rsa"
		}
		if !k.Revoked && k.Type == "rsa" {
			k.Bits, k.Broken = rsaBits(tags["p"])
		}
		return k, nil
	}
	return nil, nil
}

func rsaBits(text string) (int, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return 0, fmt.Errorf("it is no base64: %w", err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		if bare, e := x509.ParsePKCS1PublicKey(der); e == nil {
			return bare.N.BitLen(), nil
		}
		return 0, fmt.Errorf("it is no public key: %w", err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return 0, fmt.Errorf("it is a %T", key)
	}
	return public.N.BitLen(), nil
}
