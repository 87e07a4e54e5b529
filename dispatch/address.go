package dispatch

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Limits of an address, RFC 5321 §4.5.3.1.
const (
	mostLocalPart = 64
	mostAddress   = 254
)

// parseAddress reads one addr-spec (RFC 5322 §3.4.1), as data has it, and returns it as it goes over the wire: its
// domain in ASCII. It refuses whatever could mean something else to a server or in a header: display names, lists,
// comments, quoted local parts, domain literals, control characters.
func parseAddress(s string) (string, error) {
	address, err := parseRecipient(s)
	if err == nil && !ascii(address) {
		return "", fmt.Errorf("%q needs SMTPUTF8, which a sender's address may not: what stands before the @ is not ASCII", clip(s))
	}
	return address, err
}

// parseRecipient is parseAddress for whom a mail goes to: what stands before the @ may have letters and digits of any script (RFC 6531), in
// normal form C (RFC 6532 §3.1). It takes a relay with SMTPUTF8.
func parseRecipient(s string) (string, error) {
	s = norm.NFC.String(strings.TrimSpace(s))
	if s == "" {
		return "", errors.New("the address is empty")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", fmt.Errorf("%q is no address: it has control characters", clip(s))
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", fmt.Errorf("%q is no address: %w", clip(s), err)
	}
	if a.Address != s { // net/mail has taken something off: a name, angle brackets, quotes, a comment
		return "", fmt.Errorf("%q is more than an address", clip(s))
	}
	at := strings.LastIndexByte(s, '@')
	local, domain := s[:at], s[at+1:]
	if strings.ContainsFunc(local, notInLocal) {
		return "", fmt.Errorf("%q is no address: what stands before the @ has more than letters, digits and signs", clip(s))
	}
	if domain, err = idna.Lookup.ToASCII(domain); err != nil {
		return "", fmt.Errorf("%q is no address: %w", clip(s), err)
	}
	if strings.ContainsFunc(domain, notInDomain) {
		return "", fmt.Errorf("%q is no address: %q is no domain", clip(s), domain)
	}
	if len(local) > mostLocalPart || len(local)+1+len(domain) > mostAddress {
		return "", fmt.Errorf("%q is no address: it is too long", clip(s))
	}
	return local + "@" + domain, nil
}

// parseMailbox reads an address with or without a display name, as people configure them.
func parseMailbox(s string) (*mail.Address, error) { return mailboxBy(parseAddress, s) }

func mailboxBy(parse func(string) (string, error), s string) (*mail.Address, error) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return nil, fmt.Errorf("%q is no address: it has control characters", clip(s))
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no address: %w", clip(s), err)
	}
	if a.Address, err = parse(a.Address); err != nil {
		return nil, err
	}
	a.Name = displayName(a.Name) // an encoded word may hold anything
	return a, nil
}

// mailbox is an address with a name for people.
func mailbox(address, name string) *mail.Address {
	return &mail.Address{Name: displayName(name), Address: address}
}

// notInLocal says what no local part has beyond ASCII: spaces, controls, and what turns the direction of a text.
func notInLocal(r rune) bool {
	return r > unicode.MaxASCII && !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r)
}

func notInDomain(r rune) bool {
	return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// domainOf is what follows the @ of a checked address.
func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// clip keeps what comes from a database short in a reason.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// AddressOf is the address in what people write, with or without a name, as it goes over the wire and as the outbox knows it.
func AddressOf(s string) (string, error) {
	m, err := parseMailbox(strings.TrimSpace(s))
	if err != nil {
		return "", err
	}
	return m.Address, nil
}
