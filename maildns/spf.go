package maildns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// The most that an evaluation may ask (RFC 7208 §4.6.4): beyond it a record is worth nothing to receivers.
const (
	MostLookups = 10
	mostVoid    = 2
)

// SPF is what a domain's SPF record comes to.
type SPF struct {
	Record   string // empty: there is none
	Several  bool   // there are several records, and receivers take none (RFC 7208 §4.5)
	Lookups  int    // that it may take, with all that it includes
	Includes []string
	// Allows and Refuses are addresses, of those that were asked about, that it lets send, or says must not.
	Allows, Refuses []netip.Addr
	Unknown         string // a part that only the mail at hand would tell; empty: none
	Wrong           string // why receivers cannot use it; empty: they can
}

// EvaluateSPF reads a domain's SPF record and all that it includes, and says what it makes of addresses.
func EvaluateSPF(ctx context.Context, r *net.Resolver, domain string, addresses []netip.Addr) (*SPF, error) {
	w := &spfWalk{resolver: r, spf: new(SPF), of: addresses}
	records, err := texts(ctx, r, domain, "v=spf1")
	if err != nil || len(records) == 0 {
		return w.spf, err
	}
	w.spf.Record, w.spf.Several = records[0], len(records) > 1
	verdicts, err := w.record(ctx, domain, records[0], []string{strings.ToLower(domain)})
	if err != nil {
		return nil, err
	}
	for i, a := range addresses {
		switch verdicts[i] {
		case '+':
			w.spf.Allows = append(w.spf.Allows, a)
		case '-', '~':
			w.spf.Refuses = append(w.spf.Refuses, a)
		}
	}
	switch {
	case w.spf.Several:
		w.spf.Wrong = "there are several SPF records, and there may be one"
	case w.spf.Lookups > MostLookups:
		w.spf.Wrong = fmt.Sprintf("it takes %d look-ups, and %d are the most", w.spf.Lookups, MostLookups)
	case w.void > mostVoid && w.spf.Wrong == "":
		w.spf.Wrong = fmt.Sprintf("%d of its look-ups find nothing, and %d are the most", w.void, mostVoid)
	}
	return w.spf, nil
}

// spfWalk goes through a record and its includes to the end, whatever matches on the way: what counts is the most that receivers may have to ask.
type spfWalk struct {
	resolver *net.Resolver
	spf      *SPF
	of       []netip.Addr
	void     int
}

// bounds a walk through records that somebody made to be walked through.
const mostWalked = 40

// record returns each address's qualifier: + - ~ ?, by the first mechanism that matches it.
func (w *spfWalk) record(ctx context.Context, domain, text string, path []string) (verdicts []byte, err error) {
	verdicts = make([]byte, len(w.of))
	var redirect string
	catchAll := false
	for _, term := range strings.Fields(text)[1:] {
		if to, ok := strings.CutPrefix(strings.ToLower(term), "redirect="); ok {
			redirect = to
			continue
		}
		if name, _, ok := strings.Cut(term, "="); ok && !strings.ContainsAny(name, ":/") {
			continue // exp= and modifiers that nobody knows
		}
		qualifier := byte('+')
		if strings.ContainsAny(term[:1], "+-~?") {
			qualifier, term = term[0], term[1:]
		}
		matches, err := w.mechanism(ctx, domain, strings.ToLower(term), path)
		if err != nil {
			return nil, err
		}
		catchAll = catchAll || strings.EqualFold(term, "all")
		for i, a := range w.of {
			if verdicts[i] == 0 && matches(a, i) {
				verdicts[i] = qualifier
			}
		}
	}
	if redirect == "" || catchAll {
		return verdicts, nil
	}
	then, err := w.include(ctx, redirect, path)
	for i := range then {
		if verdicts[i] == 0 {
			verdicts[i] = then[i]
		}
	}
	return verdicts, err
}

type matcher func(a netip.Addr, i int) bool

func nobody(netip.Addr, int) bool { return false }

func (w *spfWalk) mechanism(ctx context.Context, domain, term string, path []string) (matcher, error) {
	name, value, bits := cutTerm(term)
	if value == "" {
		value = domain
	}
	if strings.Contains(value, "%") {
		w.spf.Lookups++
		w.spf.Unknown = term
		return nobody, nil
	}
	switch name {
	case "all":
		return func(netip.Addr, int) bool { return true }, nil
	case "ip4", "ip6":
		return w.network(term), nil
	case "include":
		verdicts, err := w.include(ctx, value, path)
		return func(_ netip.Addr, i int) bool { return i < len(verdicts) && verdicts[i] == '+' }, err
	case "a":
		w.spf.Lookups++
		return w.hosts(ctx, []string{value}, bits)
	case "mx":
		w.spf.Lookups++
		list, err := w.resolver.LookupMX(ctx, absolute(value))
		if err != nil && !absent(err) {
			return nil, fmt.Errorf("asking for the MX records of %s: %w", value, err)
		}
		if len(list) == 0 {
			w.void++
		}
		hosts := make([]string, 0, len(list))
		for _, mx := range list[:min(len(list), MostLookups)] {
			hosts = append(hosts, mx.Host)
		}
		return w.hosts(ctx, hosts, bits)
	case "exists", "ptr":
		w.spf.Lookups++
		w.spf.Unknown = term
		return nobody, nil
	}
	w.spf.Wrong = fmt.Sprintf("%q is no part of an SPF record", term)
	return nobody, nil
}

// cutTerm divides a:example.com/24//64. Of the two lengths, for IPv4 and IPv6, nothing is -1.
func cutTerm(term string) (name, value string, bits [2]int) {
	bits = [2]int{-1, -1}
	rest, six, _ := strings.Cut(term, "//")
	rest, four, _ := strings.Cut(rest, "/")
	for i, text := range []string{four, six} {
		if _, err := fmt.Sscanf(text, "%d", &bits[i]); err != nil {
			bits[i] = -1
		}
	}
	name, value, _ = strings.Cut(rest, ":")
	return name, value, bits
}

// network is an ip4: or ip6: mechanism.
func (w *spfWalk) network(term string) matcher {
	_, text, _ := strings.Cut(term, ":")
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(text); err == nil {
			prefix = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if err != nil {
		w.spf.Wrong = fmt.Sprintf("%q names no network", term)
		return nobody
	}
	return func(a netip.Addr, _ int) bool { return prefix.Contains(a) }
}

// hosts matches the addresses of names, or networks around them.
func (w *spfWalk) hosts(ctx context.Context, names []string, bits [2]int) (matcher, error) {
	var around []netip.Prefix
	for _, name := range names {
		list, err := w.resolver.LookupNetIP(ctx, "ip", absolute(name))
		if err != nil && !absent(err) {
			return nil, fmt.Errorf("asking for the addresses of %s: %w", name, err)
		}
		if len(list) == 0 {
			w.void++
		}
		for _, a := range list {
			a = a.Unmap()
			n := bits[1]
			if a.Is4() {
				n = bits[0]
			}
			if n < 0 {
				n = a.BitLen()
			}
			if p, err := a.Prefix(n); err == nil {
				around = append(around, p)
			}
		}
	}
	return func(a netip.Addr, _ int) bool {
		return slices.ContainsFunc(around, func(p netip.Prefix) bool { return p.Contains(a) })
	}, nil
}

// include evaluates another domain's record.
func (w *spfWalk) include(ctx context.Context, domain string, path []string) ([]byte, error) {
	w.spf.Lookups++
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if strings.Contains(domain, "%") {
		w.spf.Unknown = domain
		return nil, nil
	}
	if slices.Contains(path, domain) {
		w.spf.Wrong = fmt.Sprintf("it includes %s, which includes it", domain)
		return nil, nil
	}
	w.spf.Includes = append(w.spf.Includes, domain)
	if len(w.spf.Includes) > mostWalked {
		return nil, nil
	}
	records, err := texts(ctx, w.resolver, domain, "v=spf1")
	if err != nil {
		return nil, err
	}
	if len(records) != 1 {
		w.spf.Wrong = fmt.Sprintf("it includes %s, which has %d SPF records", domain, len(records))
		return nil, nil
	}
	return w.record(ctx, domain, records[0], append(slices.Clone(path), domain))
}
