package outbox

import (
	"fmt"
	"slices"
	"time"
)

// HoldCause says which limit of hold_over a rule went over.
type HoldCause string

// The causes.
const (
	HeldTransaction HoldCause = "transaction" // all of the rule's matches in one transaction
	HeldMinute      HoldCause = "minute"      // those beyond what a minute lets through
	HeldRow         HoldCause = "row"         // those about one row that comes again and again
)

// Hold holds a rule's matches in a transaction, and says why.
type Hold struct {
	From uint64   // from this ordinal on
	Only []uint64 // these ordinals, sorted; nil: all
	Why  string
	// Cause has them wait as one thing, together with others: see [HeldBatch]. Empty: each waits for itself.
	Cause HoldCause
	Tx    Tx // that they are in
	// Calm is for how long, by commit times, nothing must have been added to a batch that others do not come to; 0: it is of one
	// transaction.
	Calm    time.Duration
	Expires time.Time // of a batch that begins with these; zero: never
}

// Takes says whether it holds the match of a change.
func (h *Hold) Takes(ordinal uint64) bool {
	if h.Only != nil {
		_, there := slices.BinarySearch(h.Only, ordinal)
		return there
	}
	return ordinal >= h.From
}

// HeldBatch is what is held of a rule as one thing: all that it matched in a transaction, or what came beyond a limit until it had calmed
// down. Matches that are let go or discarded one by one stay members.
type HeldBatch struct {
	ID       int64
	Rule     uint32
	RuleName string
	Cause    HoldCause
	Source   uint32
	Epoch    uint32
	Tx       Tx        // that it began with
	Last     time.Time // when the latest transaction was committed of which it took something in
	Why      string
	Created  time.Time
	Expires  time.Time // zero: never
	Held     int       // matches that wait in it
	Total    int       // that it took in
	Told     int       // Total, when people were last told of it
	Mailed   time.Time // when a mail told operators of it; zero: none did
	// Action is what was ordered, Release or Discard, and Reason why: what waits in it goes that way, and nothing more comes to it. Empty: it
	// waits for an order.
	Action   Action
	Reason   string
	Ordered  time.Time
	Finished time.Time // none of it waits any more; zero: some may
}

// Name is how people call it.
func (b *HeldBatch) Name() string { return fmt.Sprintf("b%d", b.ID) }

// Notice is a mail of postman's own, to operators. It has no rule and nothing to look up: it is queued as it will be sent.
type Notice struct {
	Rule    uint32 // that stands for such mails
	Text    []byte // what the store keeps as its version
	Tx      Tx     // its own, of the clock
	Silent  bool   // the delivery mode lets nothing out
	Message NewMessage
}
