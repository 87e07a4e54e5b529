package dispatch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits are what a relay allows, or what its owner wants of it. Zero is the default.
type Limits struct {
	Connections   int   // at the same time; default 4. A mail of high priority that finds all of them busy may open one more
	PerConnection int   // mails over one connection; default 1000, as Exim takes
	Rate          Rate  // mails in a time; none: as many as it takes
	Monthly       int64 // mails in a calendar month, UTC; 0: any
	PerDomain     int   // mails to recipients of one domain at the same time; 0: any
}

// Or takes the other's where a limit is not set.
func (l Limits) Or(other Limits) Limits {
	return Limits{
		cmp.Or(l.Connections, other.Connections), cmp.Or(l.PerConnection, other.PerConnection), cmp.Or(l.Rate, other.Rate),
		cmp.Or(l.Monthly, other.Monthly), cmp.Or(l.PerDomain, other.PerDomain),
	}
}

var defaultLimits = Limits{Connections: 4, PerConnection: 1000}

// presets are what providers say of their SMTP relays; where one says nothing, the default holds. Rates and quotas belong to the
// account and not to the provider: they are the owner's to set. One connection is left for high priority where a number is strict.
var presets = map[string]Limits{
	// Amazon SES: the rate and the daily quota are the account's (sandbox: 1 a second, 200 a day), answered with 454. "Do not maintain
	// long-lived connections", and concurrency is the way to throughput.
	// https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html
	"ses": {Connections: 10, PerConnection: 50},
	// Gmail's SMTP relay (Workspace): 10,000 recipients a user and day, answered with 450 4.2.1 and 550 5.4.5; connections that are
	// opened too fast are answered with 421 4.7.0. https://support.google.com/a/answer/2956491
	"gmail": {Connections: 4},
	// Mailgun: no published limit of connections or of mails on one; pipelining is offered.
	// https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-smtp
	"mailgun": {Connections: 10},
	// Mailjet: no published limit; it is found out.
	"mailjet": {Connections: 8},
	// Postmark asks for at most 10 connections from an address, 50 recipients and 10 MB a message.
	// https://postmarkapp.com/support/article/do-we-have-rate-limits-for-smtp
	"postmark": {Connections: 9},
	// SendGrid: 5,000 messages a connection, 10,000 connections from a server.
	// https://www.twilio.com/docs/sendgrid/for-developers/sending-email/integrating-with-the-smtp-api
	"sendgrid": {Connections: 20, PerConnection: 1000},
}

// Preset is what a provider says of its relay, by the provider's name.
func Preset(name string) (Limits, error) {
	if l, ok := presets[name]; ok || name == "" {
		return l, nil
	}
	return Limits{}, fmt.Errorf("%q is no preset; there are %s", name, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
}

// Rate is a number of mails in a time. The zero value is no limit.
type Rate struct {
	Mails int
	In    time.Duration
}

var rateUnits = []struct {
	name string
	in   time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}}

// UnmarshalText reads a rate such as 14/s, 300/m, 2000/h or 10000/d.
func (r *Rate) UnmarshalText(text []byte) error {
	number, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(number)
	for _, u := range rateUnits {
		if u.name == unit && err == nil && n > 0 {
			*r = Rate{n, u.in}
			return nil
		}
	}
	return fmt.Errorf("%q is no rate; one looks like 14/s, 300/m, 2000/h or 10000/d", text)
}

// String is the rate as it is configured; empty: none.
func (r Rate) String() string {
	for _, u := range rateUnits {
		if r.Mails > 0 && u.in == r.In {
			return fmt.Sprintf("%d/%s", r.Mails, u.name)
		}
	}
	return ""
}

// MarshalText is the rate as it is configured.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// perSecond is how many mails a second it comes to.
func (r Rate) perSecond() float64 { return float64(r.Mails) / r.In.Seconds() }
