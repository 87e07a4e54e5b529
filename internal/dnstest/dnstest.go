// Package dnstest is a DNS server on loopback for tests.
//
// What it promises: it answers over UDP from the zone that it was given, and says that what is not in it does not exist. A name whose record is FAIL
// answers with SERVFAIL.
package dnstest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone has the records of names, without a dot at their end: "TXT v=spf1 -all", "MX 10 mx.example.com", "A 192.0.2.1", "AAAA 2001:db8::1", "CNAME x.example.com", "FAIL".
type Zone map[string][]string

// Server answers until it is closed.
type Server struct {
	conn net.PacketConn
	zone Zone
	wg   sync.WaitGroup

	mu    sync.Mutex
	asked int
}

// Start starts a server on a free port.
func Start(zone Zone) (*Server, error) {
	for name, records := range zone {
		for _, r := range records {
			if _, _, err := record(name, r); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{conn: conn, zone: zone}
	s.wg.Go(s.serve)
	return s, nil
}

// Addr is host:port.
func (s *Server) Addr() string { return s.conn.LocalAddr().String() }

// Asked is how many questions came so far.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Close ends the server.
func (s *Server) Close() {
	_ = s.conn.Close() // serve ends with it
	s.wg.Wait()
}

func (s *Server) serve() {
	packet := make([]byte, 64<<10)
	for {
		n, from, err := s.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.asked++
		s.mu.Unlock()
		if answer, err := s.answer(packet[:n]); err == nil {
			_, _ = s.conn.WriteTo(answer, from) // who does not get it asks again
		}
	}
}

func (s *Server) answer(packet []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil || len(m.Questions) != 1 {
		return nil, errors.Join(err, errors.New("one question is one too few or too many"))
	}
	q := m.Questions[0]
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true}, Questions: m.Questions}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	records, known := s.zone[name]
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for range 8 { // of aliases
		alias := ""
		for _, text := range records {
			kind, body, err := record(name, text)
			if err != nil {
				return nil, err
			}
			if kind == 0 {
				reply.RCode = dnsmessage.RCodeServerFailure
				continue
			}
			if kind == q.Type || kind == dnsmessage.TypeCNAME {
				owner, err := dnsmessage.NewName(name + ".")
				if err != nil {
					return nil, err
				}
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 1}, Body: body})
			}
			if to, ok := strings.CutPrefix(text, "CNAME "); ok {
				alias = to
			}
		}
		if alias == "" {
			break
		}
		name = alias
		records = s.zone[name]
	}
	return reply.Pack()
}

// record reads one record of a zone. Its type is 0 for FAIL.
func record(name, text string) (dnsmessage.Type, dnsmessage.ResourceBody, error) {
	kind, rest, _ := strings.Cut(text, " ")
	switch kind {
	case "FAIL":
		return 0, nil, nil
	case "TXT":
		var parts []string // of 255 bytes at most (RFC 1035 §3.3.14)
		for len(rest) > 255 {
			parts, rest = append(parts, rest[:255]), rest[255:]
		}
		return dnsmessage.TypeTXT, &dnsmessage.TXTResource{TXT: append(parts, rest)}, nil
	case "MX":
		preference, host, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(preference, 10, 16)
		if err != nil {
			return 0, nil, err
		}
		to, err := dnsmessage.NewName(strings.TrimSuffix(host, ".") + ".")
		return dnsmessage.TypeMX, &dnsmessage.MXResource{Pref: uint16(n), MX: to}, err
	case "CNAME":
		to, err := dnsmessage.NewName(rest + ".")
		return dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: to}, err
	case "A", "AAAA":
		a, err := netip.ParseAddr(rest)
		if err != nil {
			return 0, nil, err
		}
		if a.Is4() {
			return dnsmessage.TypeA, &dnsmessage.AResource{A: a.As4()}, nil
		}
		return dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: a.As16()}, nil
	}
	return 0, nil, fmt.Errorf("%s: %q is no record", name, text)
}
