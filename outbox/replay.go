package outbox

import (
	"slices"
	"time"

	"postman/position"
)

// Replay is an operator's order to decide again on a stretch of the journal, and what came of it.
type Replay struct {
	ID       int64
	From, To position.Position // of commits, both included; their ordinals mean nothing
	Rules    []string          // the names of those that decide, sorted; none: all
	Muted    bool              // what was muted is sent, too
	Resend   bool              // what has ended is sent once more
	YetAgain bool              // also what a replay before has sent once more
	By, Why  string            // who ordered it
	Begun    time.Time
	Ended    time.Time // zero: it was broken off, or is under way
	Replayed
}

// Replayed counts what a replay did.
type Replayed struct {
	Added  int // matches that were absent
	Again  int // that had failed, or were muted, and wait again
	Resent int // messages that are queued once more
}

// ReplayBatch is one step of a replay: what [Store.Replay] makes durable at once.
type ReplayBatch struct {
	Replay        int64
	Source, Epoch uint32
	// Transactions are any that the store covers. Neither Muted nor Hold stops their matches: an operator has seen them.
	Transactions []Transaction
	Texts        map[Hash][]byte
	Resend       []int64 // matches whose messages are to be sent once more, see [Resendable]
	Again        bool    // also those that a replay before has sent once more
}

// MatchKey is what tells a match from the others of its source and epoch.
type MatchKey struct {
	LSN     position.LSN
	Ordinal uint64
	Rule    uint32
}

// KnownMatch is how a match stands. The zero value is that of one that is not there.
type KnownMatch struct {
	ID    int64
	State MatchState
}

// Takes says whether a replay, which may take what was muted, takes a match up that stands so: it is absent, or has failed.
func (k KnownMatch) Takes(muted bool) bool {
	return k.ID == 0 || k.State.Retryable() || muted && k.State == MatchMuted
}

// Resends are the messages of a match as a replay finds them that is to send what has ended once more.
type Resends struct {
	Messages []Message // that it sends
	Erased   int       // whose recipient was erased with sensitive values: nobody can
	Silent   int       // whose match was made while nothing was let out: they would end as not-sent
	Before   int       // that a replay before has sent once more
	By       int64     // the latest of these replays
}

// Resendable picks from all messages of a match those that a replay sends once more: of each address the latest, if it has ended and was
// not stopped for a reason that stands. What was sent once more before is not, unless again says so: the same order given twice is one. A
// replay that was broken off sends nothing of the match again when it goes on.
func Resendable(messages []Message, replay int64, again bool) (r Resends) {
	latest := make(map[[16]byte]Message)
	for _, m := range messages {
		if replay != 0 && m.Replay == replay {
			return Resends{}
		}
		if known, ok := latest[AddressKey(m.Address)]; !ok || known.Resend < m.Resend {
			latest[AddressKey(m.Address)] = m
		}
	}
	for _, m := range latest {
		switch {
		case m.Resend > 0 && !again:
			r.Before, r.By = r.Before+1, max(r.By, m.Replay)
		case !m.State.Resendable(), m.State == MessageSuppressed && len(m.Recipient) == 0: // a copy has no mail of its own
		case m.Silent:
			r.Silent++
		case len(m.Recipient) == 0:
			r.Erased++
		default:
			r.Messages = append(r.Messages, m)
		}
	}
	slices.SortFunc(r.Messages, func(a, b Message) int { return int(a.ID - b.ID) })
	return r
}

// NextResend is the number that tells the next messages of a match from those before.
func NextResend(messages []Message) uint32 {
	next := uint32(0)
	for _, m := range messages {
		next = max(next, m.Resend+1)
	}
	return next
}
