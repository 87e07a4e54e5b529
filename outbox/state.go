package outbox

import "fmt"

// MatchState is where a match stands. docs/states.md has the diagram. The numbers are stored: new states go to the end.
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
	MatchDiscarded                   // an operator discarded it, held or failed, or its hold expired
)

// MessageState is where a message stands. docs/states.md has the diagram. The numbers are stored: new states go to the end.
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
	MessageDiscarded                      // an operator discarded it, held or failed, or its hold expired
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

// CanBegin says whether a match may enter the store in this state. Those that are final already are kept for the record.
func (s MatchState) CanBegin() bool {
	switch s {
	case MatchPending, MatchHeld, MatchMuted, MatchExpired, MatchFailed:
		return true
	case MatchExpanded, MatchReplaced, MatchCancelled, MatchNobody, MatchDiscarded:
	}
	return false
}

// CanBecome says whether a match may go from this state to the next. Pending to pending is a try that did not come to an
// end.
func (s MatchState) CanBecome(next MatchState) bool {
	switch s {
	case MatchPending:
		switch next {
		case MatchPending, MatchHeld, MatchExpanded, MatchReplaced, MatchCancelled, MatchExpired, MatchNobody, MatchFailed:
			return true
		case MatchMuted, MatchDiscarded:
		}
	case MatchHeld:
		return next == MatchPending || next == MatchDiscarded
	case MatchFailed:
		return next == MatchPending || next == MatchDiscarded
	case MatchMuted:
		return next == MatchPending
	case MatchExpanded, MatchReplaced, MatchCancelled, MatchExpired, MatchNobody, MatchDiscarded:
	}
	return false
}

// CanBegin says whether a message may enter the store in this state. Those that are final already are kept for the record.
func (s MessageState) CanBegin() bool {
	switch s {
	case MessageQueued, MessageSending, MessageHeld, MessageFailed, MessageDigested, MessageSuppressed, MessageLimited,
		MessageRepeated, MessageExpired, MessageCancelled, MessageNotSent, MessageNoAddress:
		return true
	case MessageSent, MessageDead, MessageUncertain, MessageReplaced, MessageDiscarded:
	}
	return false
}

// CanBecome says whether a message may go from this state to the next. Only what was sending can be sent or uncertain.
func (s MessageState) CanBecome(next MessageState) bool {
	switch s {
	case MessageQueued:
		switch next {
		case MessageQueued, MessageSending, MessageHeld, MessageDead, MessageFailed, MessageDigested, MessageSuppressed,
			MessageLimited, MessageRepeated, MessageReplaced, MessageExpired, MessageCancelled, MessageNotSent, MessageNoAddress:
			return true
		case MessageSent, MessageUncertain, MessageDiscarded:
		}
	case MessageSending:
		switch next {
		case MessageQueued, MessageSent, MessageDead, MessageUncertain, MessageFailed, MessageExpired, MessageNotSent:
			return true
		case MessageSending, MessageHeld, MessageDigested, MessageSuppressed, MessageLimited, MessageRepeated,
			MessageReplaced, MessageCancelled, MessageNoAddress, MessageDiscarded:
		}
	case MessageHeld:
		return next == MessageQueued || next == MessageDiscarded
	case MessageFailed:
		return next == MessageQueued || next == MessageDiscarded
	case MessageDead, MessageUncertain:
		return next == MessageQueued
	case MessageSent, MessageDigested, MessageSuppressed, MessageLimited, MessageRepeated, MessageReplaced, MessageExpired,
		MessageCancelled, MessageNotSent, MessageNoAddress, MessageDiscarded:
	}
	return false
}

// Retryable says whether an operator may take a message in this state back to the queue. It keeps its body for that.
func (s MessageState) Retryable() bool { return s.Final() && s.CanBecome(MessageQueued) }

// Retryable says whether an operator may take a match in this state back without a replay. It keeps all of its change for that.
func (s MatchState) Retryable() bool { return s == MatchFailed }

// Resendable says whether a replay sends a message once more that ended in this state.
func (s MessageState) Resendable() bool {
	switch s {
	case MessageSent, MessageDead, MessageUncertain, MessageFailed, MessageNotSent, MessageSuppressed:
		return true
	case MessageQueued, MessageSending, MessageHeld, MessageDigested, MessageLimited, MessageRepeated, MessageReplaced,
		MessageExpired, MessageCancelled, MessageNoAddress, MessageDiscarded:
	}
	return false
}

// MatchStates lists all states of a match.
func MatchStates() []MatchState { return states[MatchState](len(matchStates)) }

// MessageStates lists all states of a message.
func MessageStates() []MessageState { return states[MessageState](len(messageStates)) }

func states[S MatchState | MessageState](n int) []S {
	all := make([]S, n)
	for i := range all {
		all[i] = S(i)
	}
	return all
}

func (s MatchState) String() string   { return name(matchStates[:], int(s)) }
func (s MessageState) String() string { return name(messageStates[:], int(s)) }

// name is for a state that a newer postman stored, too.
func name(names []string, i int) string {
	if i >= len(names) {
		return fmt.Sprintf("state %d", i)
	}
	return names[i]
}

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
