package outbox

import (
	"fmt"
	"net/mail"
	"time"
)

// Suppression is an address that no mail goes to any more, whatever its class. It ends when an operator lifts it.
type Suppression struct {
	ID      int64
	Address string // as it was given
	Cause   Cause
	Detail  string // what was said, by a server or by a person; empty: nothing
	By      string // who did it, or told of it: an operator, a provider, a report
	Since   time.Time
}

// Cause is why an address is suppressed. The numbers are stored: new ones go to the end.
type Cause uint8

// The causes.
const (
	HardBounce  Cause = iota // there is no such mailbox, or no such domain
	SoftBounces              // mails to it bounced for so long that nobody can be there
	Complaint                // its owner called a mail spam
	Manual                   // an operator said so
	Imported                 // it came with a list
)

var causes = [...]string{"hard bounce", "soft bounces", "complaint", "manual", "import"}

// String is the cause's name.
func (c Cause) String() string { return name(causes[:], int(c)) }

// MarshalText is the cause's name.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a cause's name.
func (c *Cause) UnmarshalText(text []byte) error {
	for i, n := range causes {
		if n == string(text) {
			*c = Cause(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no cause of a suppression; the causes are %q", text, causes)
}

// String says why, since when and by whom, for the reason of a message that ended for it.
func (s *Suppression) String() string {
	text := fmt.Sprintf("the address is suppressed since %s: %s", s.Since.UTC().Format("2006-01-02 15:04 MST"), s.Cause)
	if s.Detail != "" {
		text += ", " + s.Detail
	}
	if s.By != "" {
		text += ", by " + s.By
	}
	return text
}

// SuppressionFilter selects suppressions. Zero fields select all.
type SuppressionFilter struct {
	Addresses []string // however they are spelt, see [AddressKey]
	Causes    []Cause
	Before    int64 // ids below, for paging
	Limit     int
}

// MailboxKey is the [AddressKey] of an address that may have a name before it, as those of copies do.
func MailboxKey(mailbox string) [16]byte {
	if m, err := mail.ParseAddress(mailbox); err == nil {
		mailbox = m.Address
	}
	return AddressKey(mailbox)
}
