package outbox

import (
	"fmt"
	"time"
)

// Bounce is what came back of a message after its relay had taken it: the message stays sent.
type Bounce struct {
	Event   Hash       // of the report and the recipient
	Message int64      // 0: none that is known
	Address string     // that it is about; empty: it does not say, and nobody is suppressed
	Kind    BounceKind // what it means for the address
	Status  string     // 5.1.1, RFC 3463; of a complaint its type
	Text    string     // what was said, for a person
	Source  string     // who told: a report, a provider
	At      time.Time
}

// BounceKind is what a bounce means for the address. The numbers are stored: new ones go to the end.
type BounceKind uint8

// The kinds.
const (
	BounceHard        BounceKind = iota // no mail will ever arrive
	BounceSoft                          // this one did not arrive; the next one may
	BounceBlocked                       // it was refused, and not for the address
	BounceComplaint                     // its owner called it spam
	BounceUnsubscribe                   // its owner wants no more of such mails; it suppresses nobody
)

var bounceKinds = [...]string{"hard", "soft", "blocked", "complaint", "unsubscribe"}

// String is the kind's name.
func (k BounceKind) String() string { return name(bounceKinds[:], int(k)) }

// MarshalText is the kind's name.
func (k BounceKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a kind's name.
func (k *BounceKind) UnmarshalText(text []byte) error {
	for i, n := range bounceKinds {
		if n == string(text) {
			*k = BounceKind(i)
			return nil
		}
	}
	return fmt.Errorf("%q is no kind of bounce; the kinds are %q", text, bounceKinds)
}

// SoftLimit says how long soft bounces are borne: on so many different days (UTC) within a time. Days are counted and not mails: a mailbox that is
// full for an afternoon is not gone, however many mails come in it.
type SoftLimit struct {
	Days   int
	Within time.Duration
}

// Bounced is what a bounce came to.
type Bounced struct {
	Known      bool         // it had been taken before, and nothing was done
	Days       int          // of a soft one: on how many days there were some, this one among them
	Suppressed *Suppression // what it brought about; nil: nothing
}
