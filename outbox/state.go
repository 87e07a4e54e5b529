package outbox

import "fmt"

// MatchState is where a match stands. docs/states.md has the diagram.
type MatchState uint8

// The states of a match. Pending and Held wait; all others are final.
const (
	MatchPending   MatchState = iota // waits until it is due, then is expanded
	MatchHeld                        // waits for an operator: over hold_over or max_recipients, or its rule is gone
	MatchExpanded                    // its messages are queued
	MatchMuted                       // its transaction carried a postman.mute
	MatchReplaced                    // a later match of the same key took its place
	MatchCancelled                   // a change cancelled it, or an operator
	MatchExpired                     // too old to be told: expired, late
	MatchNobody                      // the recipient query gave no row
	MatchFailed                      // evaluating or expanding it failed for good
	MatchDiscarded                   // an operator discarded it while it was held, or its hold expired
)

// MessageState is where a message stands. docs/states.md has the diagram.
type MessageState uint8

// The states of a message. Queued, Sending, Held and, under `uncertain: resend`, Uncertain move on by themselves or
// by an operator; all others are final.
const (
	MessageQueued     MessageState = iota // waits until it is due and a lane is free
	MessageSending                        // committed before the final dot; a lease bounds it
	MessageSent                           // the relay said 2xx to the final dot
	MessageDead                           // the relay said 5xx, or the retries ran out
	MessageUncertain                      // the final dot was begun and no reply is known
	MessageFailed                         // it could not be rendered or composed
	MessageDigested                       // its content went into a digest
	MessageSuppressed                     // the address is suppressed, or consent is missing
	MessageLimited                        // over a limit that drops
	MessageRepeated                       // `once`: this was told before
	MessageReplaced                       // a later match of the same key took its place
	MessageExpired                        // too old to be told
	MessageCancelled                      // a change or a false recheck cancelled it, or an operator
	MessageNotSent                        // the delivery mode was dry-run, or none was named
	MessageNoAddress                      // the address is NULL or no address
	MessageHeld                           // waits for an operator
	MessageDiscarded                      // an operator discarded it while it was held, or its hold expired
)

var matchStates = [...]string{"pending", "held", "expanded", "muted", "replaced", "cancelled", "expired", "nobody", "failed", "discarded"}

var messageStates = [...]string{
	"queued", "sending", "sent", "dead", "uncertain", "failed", "digested", "suppressed", "limited", "repeated",
	"replaced", "expired", "cancelled", "not-sent", "no-address", "held", "discarded",
}

// Final says whether a match in this state stays there unless an operator moves it.
func (s MatchState) Final() bool { return s != MatchPending && s != MatchHeld }

// Final says whether a message in this state stays there unless an operator moves it.
// An uncertain message is final only under `uncertain: hold`; under resend the store never leaves one so.
func (s MessageState) Final() bool {
	return s != MessageQueued && s != MessageSending && s != MessageHeld
}

func (s MatchState) String() string   { return matchStates[s] }
func (s MessageState) String() string { return messageStates[s] }

// MarshalText is the state's name.
func (s MatchState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText is the state's name.
func (s MessageState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *MatchState) UnmarshalText(text []byte) error {
	i, err := index(matchStates[:], string(text))
	*s = MatchState(i)
	return err
}

// UnmarshalText reads a state's name.
func (s *MessageState) UnmarshalText(text []byte) error {
	i, err := index(messageStates[:], string(text))
	*s = MessageState(i)
	return err
}

func index(names []string, name string) (int, error) {
	for i, n := range names {
		if n == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is no state; the states are %q", name, names)
}
