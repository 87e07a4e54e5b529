package dispatch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// advise says what to do about a relay that did not take a test mail.
func advise(r Relay, got reply) string {
	if got.err != nil {
		return adviseOn(r, got)
	}
	return adviseCode(got.phase, got.code)
}

// adviseOn is for what is no reply to a mail.
func adviseOn(r Relay, got reply) string {
	err := got.err
	if way := adviseTLS(r, err); way != "" {
		return way
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("the name %s cannot be resolved: is it spelt right in smtp_url, and does this machine's DNS work?", e.Name)
	}
	_, offered := r.heard.offered("STARTTLS")
	switch {
	case got.phase == dotted:
		return "nobody knows whether it was sent: look into the inbox and the relay's log before you try again"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s: is the port right (587 for smtp+starttls://, 465 for smtps://, 25 for smtp://), and does the relay run?", r.address())
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no way leads there from this machine: is there a firewall, or IPv6 without a route?"
	case got.phase == dialing && silent(err) && len(r.heard.lines) == 0:
		return fmt.Sprintf("no connection to %s: a firewall lets nothing through, as many hosters do for port 25; try 587", r.address())
	case got.phase == dialing && len(r.heard.lines) == 1 && r.Security != ImplicitTLS && silent(err):
		return "it says nothing: does it wait for TLS from the first byte, as on port 465 (smtps://)? Else it is busy"
	case got.phase == dialing && r.heard.protected == nil && r.Security == StartTLS && len(r.heard.offers) > 0 && !offered:
		return "it offers no STARTTLS, and nothing is said in clear text: take smtps:// where it has TLS from the first byte (port 465), or ?tls=off in a network that you trust"
	case got.phase == dialing && r.heard.mechanism == "" && r.User != "" && (r.heard.protected != nil || r.Security == Plain && len(r.heard.offers) > 0):
		return "it offers no way to log in here: leave user and password out of smtp_url if it takes mails by the sender's address, or take its port for submission (587)"
	case got.phase == dialing && len(r.heard.lines) <= 1:
		return fmt.Sprintf("it hung up without a greeting: does %s speak SMTP, and without TLS from the first byte (smtps:// else)? May this machine's address use it?", r.address())
	}
	return "it hung up in the middle: its own log tells why"
}

// silent says whether nothing came in time.
func silent(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, errNoAnswer)
}

// adviseTLS is for what went wrong while TLS was begun; empty: it was something else.
func adviseTLS(r Relay, err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "this machine does not trust who signed the relay's certificate: install ca-certificates, or the authority of your own among the system's (SSL_CERT_FILE names a file)"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the certificate is for %v, and smtp_url says %s: write there the name that it is for", e.Certificate.DNSNames, r.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return fmt.Sprintf("the certificate is good from %s to %s: the relay's owner has to renew it, or this machine's clock is wrong", e.Cert.NotBefore.UTC(), e.Cert.NotAfter.UTC())
		}
		return "the relay's owner has to get a certificate that is in order"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "what it answered is no TLS: where it begins in clear text (ports 25 and 587), take smtp+starttls://"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return "the two agree on no version of TLS: the relay needs TLS 1.2 or later"
	}
	return ""
}

// adviseCode is for a reply, by its code and what it was to.
func adviseCode(p phase, code int) string {
	switch {
	case code == 535 || code == 534 || code == 538:
		return "it does not take this user and password: is each what the provider calls SMTP credentials (an API key, or a password for applications, and not that of its web site), and " +
			"written so for a URL (%40 for @, %2F for /)?"
	case code == 530:
		return "it wants a login, or TLS before: put user and password into smtp_url, smtp+starttls://user:password@host:587"
	case code == 421 || code == 454:
		return "it has too much to do, or lets no more in for now: try again in a minute"
	case p == dialing:
		return "it does not let this machine in: does it know this address, and the name that EHLO says?"
	case code/100 == 4 && p == naming:
		return "later: postman tries again by itself (greylisting, for one, wants a second visit after some minutes)"
	case code/100 == 4:
		return "later: postman tries such mails again by itself"
	case p == mailing:
		return "it does not take this sender: has the domain of from (and of bounce) been verified with the provider, and may this user send as it?"
	case p == naming:
		return "it does not take this recipient: is the address right? If it says that it does not relay: log in (user and password in smtp_url), or have it take mails of this machine's address"
	}
	return "it refuses the mail itself: a policy or its content; the relay's words tell, and postman doctor looks at the sender's domain"
}
