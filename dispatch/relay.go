package dispatch

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Relay is a server that takes mails.
type Relay struct {
	Name     string // that rules call it by; empty: it has none
	ByName   bool   // only rules that name it use it
	Limits   Limits
	Host     string
	Port     int
	Security Security
	User     string
	Password Password
	// TLS, when set, is used for TLS connections; by default the system's roots and the relay's name count.
	TLS *tls.Config
	// TokenField names the field of a mail's header in which a provider that puts its own envelope sender takes what it names the mail by when it
	// tells of it; the mail's [bounce.Token] goes there. Empty: it has none.
	TokenField string

	// heard keeps what is said; nil: nobody asks.
	heard *transcript
	// dial replaces the network in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Security says how a conversation with the relay is protected.
type Security uint8

// The ways. The zero value is the safe one.
const (
	StartTLS    Security = iota // STARTTLS has to succeed before anything else is said
	ImplicitTLS                 // TLS from the first byte
	Plain                       // none
)

// Password prints as <secret>, wherever it is printed.
type Password string

const secret = "<secret>"

// String hides the password.
func (p Password) String() string { return secret }

// GoString hides the password.
func (p Password) GoString() string { return secret }

// MarshalText hides the password.
func (p Password) MarshalText() ([]byte, error) { return []byte(secret), nil }

// String is the relay's host and port, with its name if it has one. The store counts its mails under this.
func (r Relay) String() string {
	if r.Name == "" {
		return r.address()
	}
	return r.Name + " (" + r.address() + ")"
}

// used is how many of the mails that the store has counted are this relay's: where it has a name, those at other addresses, too.
func (r Relay) used(counted map[string]int64) (n int64) {
	for who, mails := range counted {
		if who == r.String() || r.Name != "" && strings.HasPrefix(who, r.Name+" (") {
			n += mails
		}
	}
	return n
}

func (r Relay) address() string { return net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) }

// schemes are the schemes of SMTP_URL. smtp:// is protected by STARTTLS unless the relay is on loopback.
var schemes = map[string]struct {
	security Security
	port     int
}{
	"smtp":          {StartTLS, 25},
	"smtp+starttls": {StartTLS, 587},
	"smtps":         {ImplicitTLS, 465},
}

// ParseRelay reads smtp://, smtp+starttls:// or smtps:// with user:password@host:port. ?tls=off turns STARTTLS off for
// a relay in a network that is trusted; no error shows the password.
func ParseRelay(s string) (Relay, error) {
	u, err := url.Parse(s)
	if err != nil {
		// url.Parse quotes its input, and with it the password.
		return Relay{}, fmt.Errorf("the SMTP URL is malformed; one looks like smtp://user:password@relay.example.com:587 (in a password, write %%40 for @, %%2F for /)")
	}
	scheme, ok := schemes[u.Scheme]
	if !ok {
		return Relay{}, fmt.Errorf("the SMTP URL begins with %q; it has to be smtp://, smtp+starttls:// or smtps://", u.Scheme+"://")
	}
	r := Relay{Host: u.Hostname(), Security: scheme.security, User: u.User.Username()}
	password, _ := u.User.Password()
	r.Password = Password(password)
	if r.Host == "" || u.Opaque != "" {
		return Relay{}, fmt.Errorf("the SMTP URL names no host; one looks like %s://relay.example.com", u.Scheme)
	}
	if u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return Relay{}, fmt.Errorf("the SMTP URL has something behind its host and port (in a password, write %%2F for / and %%23 for #)")
	}
	if r.Port, err = strconv.Atoi(cmp.Or(u.Port(), strconv.Itoa(scheme.port))); err != nil || r.Port < 1 || r.Port > 65535 {
		return Relay{}, fmt.Errorf("the SMTP URL's port %q is none", u.Port())
	}
	if u.Scheme == "smtp" && loopback(r.Host) {
		r.Security = Plain
	}
	return r, r.options(u.Query())
}

func (r *Relay) options(q url.Values) error {
	for name, values := range q {
		switch {
		case name != "tls":
			return fmt.Errorf("the SMTP URL has an unknown option %q; there is only tls=off and tls=required", name)
		case values[0] == "off" && r.Security == ImplicitTLS:
			return fmt.Errorf("the SMTP URL says smtps:// and tls=off")
		case values[0] == "off":
			r.Security = Plain
		case values[0] != "required":
			return fmt.Errorf("the SMTP URL's option tls is %q; it has to be off or required", values[0])
		case r.Security == Plain:
			r.Security = StartTLS
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
