package dispatch

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/log"
)

// Line is one line of a conversation with a relay, as people read it.
type Line struct {
	// By is who it is from: "we", "relay", or empty for what was found out beside their words.
	By   string `json:"by,omitempty"`
	Text string `json:"text"`
}

// TLSState is how a conversation is protected.
type TLSState struct {
	Version string    `json:"version"` // TLS 1.3
	Cipher  string    `json:"cipher"`
	Subject string    `json:"subject"` // of the relay's certificate
	Issuer  string    `json:"issuer"`
	Names   []string  `json:"names,omitempty"` // that it is for
	Until   time.Time `json:"until"`
}

// transcript keeps what was said to a relay, and by it. What is said to log in, and what answers it with a challenge, is not in it. It is go-mail's
// logger up to AUTH; the session tells it the rest. Nil keeps nothing.
// One goroutine has it at a time, as its session.
type transcript struct {
	lines     []Line
	offers    []string // the last EHLO's, without the relay's name
	protected *TLSState
	mechanism string // of AUTH
}

func (t *transcript) add(by, text string) {
	if t == nil {
		return
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		t.lines = append(t.lines, Line{by, clip(strings.ToValidUTF8(strings.TrimRight(line, "\r"), "?"))})
	}
}

// The four are go-mail's log.Logger.
func (t *transcript) Infof(l log.Log)  { t.Debugf(l) }
func (t *transcript) Warnf(l log.Log)  { t.Debugf(l) }
func (t *transcript) Errorf(l log.Log) { t.Debugf(l) }

// Debugf is told each command, and each reply that goes on. What belongs to AUTH comes without its data.
func (t *transcript) Debugf(l log.Log) {
	text := fmt.Sprintf(l.Format, l.Messages...)
	switch {
	case l.Direction == log.DirServerToClient:
		if lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n"); len(lines) > 1 && strings.HasPrefix(text, "250 ") {
			t.offers = lines[1:]
		}
		t.add("relay", text)
	case strings.Contains(text, "auth data redacted"):
		if t.mechanism != "" {
			t.add("we", "AUTH "+t.mechanism+" (what logs in is not shown)")
		}
	default:
		t.add("we", text)
	}
}

// reply notes what the relay said to a mail.
func (t *transcript) reply(r reply) {
	switch {
	case t == nil || r.err != nil: // why there is none is told in the end
	default:
		t.add("relay", fmt.Sprintf("%d %s", r.code, r.text))
	}
}

// commands notes what is said to the relay.
func (t *transcript) commands(list []command) {
	if t == nil {
		return
	}
	for _, c := range list {
		t.add("we", c.line)
	}
}

// connected notes where the relay was found.
func (t *transcript) connected(conn net.Conn) {
	if a := conn.RemoteAddr(); t != nil && a != nil {
		t.add("", "connected to "+a.String())
	}
}

// secured notes how the conversation is protected from here on. Part of tls.Config.
func (t *transcript) secured(s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	p := &TLSState{
		Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite), Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(),
		Names: slices.Clone(leaf.DNSNames), Until: leaf.NotAfter,
	}
	for _, ip := range leaf.IPAddresses {
		p.Names = append(p.Names, ip.String())
	}
	t.protected = p
	t.add("", p.String())
	if n := len(t.lines); n > 1 && t.lines[n-2].By == "we" { // the handshake begins with the first word behind it
		t.lines[n-2], t.lines[n-1] = t.lines[n-1], t.lines[n-2]
	}
	return nil
}

// String is the state for a person.
func (s *TLSState) String() string {
	return fmt.Sprintf("%s, %s; certificate for %s, until %s", s.Version, s.Cipher, strings.Join(s.Names, ", "), s.Until.Format(time.DateOnly))
}

// offered is the parameter of an extension that the relay's last EHLO names (RFC 5321 §4.1.1.1).
func (t *transcript) offered(extension string) (parameter string, ok bool) {
	for _, line := range t.offers {
		word, rest, _ := strings.Cut(line, " ")
		if strings.EqualFold(word, extension) {
			return rest, true
		}
	}
	return "", false
}
