// Package outbox is the durable queue between the decision that a mail is due and the relay's 250.
//
// What it promises:
//
//  1. A batch's matches and the checkpoint behind it are one transaction ([Store.Append]). What the caller was told
//     is durable survives a kill -9 and a power cut.
//  2. One (position, rule) is expanded once, and one (position, rule, address, resend) queued once, ever.
//  3. Every match and every message ends in exactly one named final state, with its reason and its attempts.
//  4. A message is `sending` durably before its final dot may be begun. One whose process died is uncertain: it goes out
//     again with the same Message-ID or, where its rule holds what is uncertain, waits for an operator.
//
// It knows no WAL, no rules and no SMTP: rules are numbers and texts to it, changes are bytes.
// Implementations pass the suite in outboxtest.
package outbox

import (
	"crypto/sha256"
	"strings"
	"time"

	"postman/position"
)

// Hash names a content-addressed text: the version of a rule, the shape of a table.
type Hash [sha256.Size]byte

// HashOf is the SHA-256 of a text.
func HashOf(text []byte) Hash { return sha256.Sum256(text) }

// MostInterrupted is how many processes in a row may end with a match or message in hand. It may be what ends them: the next
// [Store.Recover] gives it up, so that a mail that breaks the daemon does not break it for ever. They are many: what is in hand
// alone while a relay hangs, and the daemon is restarted over it, must not be lost for that.
const MostInterrupted = 20

// Source is a replicated database, as the store knows it.
type Source struct {
	ID         uint32
	SystemID   string // of the cluster, from IDENTIFY_SYSTEM
	Database   string
	Slot       string
	Epoch      uint32
	State      SourceState
	Checkpoint position.LSN // the end of the last commit, or the idle position, that is covered by this store
	// Verified is up to where the database was last seen to stream what the rules watch; it may lie ahead of the checkpoint, and is as old as
	// that. 0: nobody knows.
	Verified position.LSN
	Armed    string // DATABASE_URL's host list for which live sending was armed, as written; empty: never
	Server   Server
}

// Server is what tells the server that a checkpoint lies on from an older state or another branch of it, which has the same SystemID.
// Zero fields are not known.
type Server struct {
	Timeline     int32        // that the checkpoint is part of
	Publications string       // the identities of the slot's publications
	Restart      position.LSN // what the slot's restart_lsn had reached when it was seen: it never goes back
}

// SourceState says how far the setting up of a slot came.
type SourceState uint8

// The states of a source. The intent is stored before the slot is made, so that a slot is never taken for ours
// that we did not make, nor ours for a stranger's.
const (
	SourceIntended SourceState = iota
	SourceStreaming
)

// Tx is a committed transaction, or a tick of a scheduled rule.
type Tx struct {
	LSN   position.LSN // of its commit record
	End   position.LSN
	XID   uint32
	Time  time.Time // of the commit, or the tick
	Muted string    // the reason that a postman.mute gave; empty: not muted
}

// NewMatch is a match on its way into the store.
type NewMatch struct {
	Ordinal uint64
	Rule    uint32 // as [Store.RuleIDs] allotted it
	Version Hash   // of the rule's text
	Shape   Hash   // of the table's; zero for a message or a row of a query
	Op      string
	Change  []byte // opaque here: written by cdc, read by rules
	// Blanked is Change without its sensitive values; nil: it has none. It takes Change's place, and recipients' rows, subjects
	// and rendered bodies are dropped, once the match and all its messages are final; for dead, failed and uncertain ones once
	// they expired.
	Blanked  []byte
	State    MatchState
	Reason   string
	Due      time.Time
	Expires  time.Time // zero: never
	Priority Priority
	Key      string // that `key` gave; empty: none
	// HoldUncertain is the rule's `uncertain: hold`: a message whose fate is not known waits for an operator.
	HoldUncertain bool
	// Silent says that it was made while the delivery mode let nothing out: its messages end as not-sent, whatever the mode is
	// when it is due.
	Silent bool
	// Batch is why it is held together with others, where State is Held; nil: it is not.
	Batch *Hold
}

// Priority orders what is due: a lower number first.
type Priority uint8

// The priorities.
const (
	High Priority = iota
	Normal
	Bulk
)

// Transaction is a transaction's matches on their way into the store.
type Transaction struct {
	Tx
	Matches []NewMatch
	// Spilled says that some of the transaction was handed to [Store.Spill], and is its key: earlier matches, and all of its journal.
	Spilled *Spill
	// Hold names the rules all of whose Matches here are held, and why. Those that were spilled are held, and muted, by [Store.Settle].
	Hold map[uint32]string
}

// Spill is the provisional key of what is stored of a transaction whose commit has not been read yet.
type Spill struct {
	Source, Epoch uint32
	XID           uint32
}

// Settlement is what the commit of a transaction says of the matches that it spilled.
type Settlement struct {
	Muted   string               // why all of them are; empty: they are not
	Hold    map[uint32][]Hold    // by rule; the first that takes a match holds it
	Expires map[uint32]time.Time // by rule
}

// Batch is one step of the stream: what [Store.Append] makes durable at once.
type Batch struct {
	Source, Epoch uint32
	Transactions  []Transaction
	Checkpoint    position.LSN // never moves back; an older one than is stored is an error
	Verified      position.LSN // as the source is to have it; an older one than is stored is passed over
	Texts         map[Hash][]byte
	Gaps          []Gap
	Journal       []Block // each with transactions that end at or before the checkpoint; what was spilled brings its own
}

// Match is a match in the store.
type Match struct {
	ID            int64
	Position      position.Position
	Tx            Tx
	Rule          uint32
	RuleName      string
	Version       Hash
	Shape         Hash
	Op            string
	Change        []byte
	State         MatchState
	Reason        string
	Due           time.Time // of one that is held: since when it is
	Expires       time.Time
	Priority      Priority
	Key           string
	HoldUncertain bool
	Silent        bool // it was made while nothing was let out, see [NewMatch]: its messages end as not-sent
	Released      bool // an operator released it: what held it must not hold it again
	// Undecided says that it came as failed, since its rule could not be tried on the change: whoever retries it tries that first.
	Undecided bool
	Batch     int64 // that it is held in, or was: see [HeldBatch]; 0: none
	Attempts  int   // expansions that did not come to an end
	Replay    int64 // the replay that made it, or took it up again; 0: the stream did
	Created   time.Time
}

// NewMessage is a message on its way into the store.
type NewMessage struct {
	Address   string // as the recipient source gave it; may be no address at all
	Resend    uint32
	State     MessageState // Queued, Sending, or a final one
	Reason    string
	Due       time.Time
	Recipient []byte   // the recipient's row, opaque here
	CC        []string // on the match's first message only
	MessageID string
	Subject   string
	Body      []byte    // the rendered mail, with Sending
	Template  Hash      // of what it was rendered from; zero: it was not
	Lease     time.Time // with Sending: until when the dot may be begun
}

// Message is a message in the store.
type Message struct {
	ID            int64
	Match         int64
	Position      position.Position
	Rule          uint32
	RuleName      string
	Address       string
	Resend        uint32
	State         MessageState
	Reason        string // of the state, for a person
	Reply         string // the relay's last words
	Redirected    string // in lists: as the last attempt had it
	Due           time.Time
	Expires       time.Time
	Priority      Priority
	HoldUncertain bool
	Silent        bool // its match was made while nothing was let out: it ends as not-sent, whatever the mode is
	Sensitive     bool // its match has what is to be blanked, and so its bytes may have
	Released      bool // an operator released it: what held it must not hold it again
	Recipient     []byte
	CC            []string
	MessageID     string
	Subject       string
	Body          []byte // kept from the first attempt until it is sent; empty before and after, and in lists that do not name it
	Template      Hash   // of what it was rendered from, see templates.Mail; zero: it was not yet, or nobody knows any more
	Attempts      int    // that the relay answered, or may have
	Replay        int64  // the replay that sends it once more; 0: none
	Committed     time.Time
	Created       time.Time
	Finished      time.Time // zero while not final
}

// AddressKey is the part of a message's identity that stands for the recipient: the hash of the normalised
// address. Two spellings that differ in case or in surrounding space are one recipient.
func AddressKey(address string) [16]byte {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.TrimSpace(address))))
	return [16]byte(sum[:16])
}

// Expansion is what became of a match when it was due.
type Expansion struct {
	Match    int64
	State    MatchState // Expanded, Nobody, Failed, Expired, Held, or Pending to try again at Due
	Reason   string
	Due      time.Time // with Pending; with Held since when, by which it expires; zero: the match keeps its own
	Early    bool      // with Pending: it came too early, and counts as no try
	Messages []NewMessage
}

// Start takes a queued, claimed message to sending. An empty MessageID, Subject, Body or Template keeps what an earlier attempt
// stored.
type Start struct {
	Message   int64
	MessageID string
	Subject   string
	Body      []byte
	Template  Hash
	Lease     time.Time
}

// Outcome is what became of a message that was sending or claimed. An Uncertain one without HoldUncertain is stored as
// Queued at Due.
type Outcome struct {
	Message int64
	State   MessageState // Sent, Dead, Uncertain, Failed, Expired, Held, NotSent, NoAddress …, or Queued to try again at Due
	Reason  string
	Reply   string
	Due     time.Time // with Queued; with Held since when, by which it expires; zero: the message keeps its own
	// Burned says that the attempt counts: the relay answered this message, or may have seen its dot.
	Burned  bool
	Attempt *Attempt // nil: nothing was said to a relay
}

// Attempt is one conversation about a message.
type Attempt struct {
	Relay    string
	Started  time.Time
	Took     time.Duration
	Code     int    // 0: no reply
	Enhanced string // 4.7.1; RFC 3463
	Text     string // the reply, or the failure
	// Redirected is the address that the mail was for instead of all its recipients; empty: it was for them.
	Redirected string
}

// Gap is a stretch of the stream that was not covered. A gap that a batch brings extends the open one of the same source,
// epoch, rule and reason, if there is one: To moves on, Count grows, and Ops that it comes with are taken for those of both.
type Gap struct {
	ID       int64
	Source   uint32
	Epoch    uint32
	Rule     string       // empty: all rules
	Table    string       // that the rule was on when it began; empty: none, or nobody knows
	OID      uint32       // of that table, which another one of its name has not; 0: nobody knows
	Ops      []string     // that the rule was on meanwhile; none: nobody knows
	From, To position.LSN // To zero: still open
	Count    int64        // how often a batch brought it
	Lost     bool         // no journal can mend it
	Reason   string
	Created  time.Time
	Closed   time.Time
	Replay   int64 // that made up for it; 0: none
	// Left is why the last replay that covered it could not make up for it; empty: none could not.
	Left string
	// Accepted is when an operator took it as it is, By whom that was and Why; zero: nobody did.
	Accepted time.Time
	By, Why  string
}

// Settled says whether there is nothing more to do about a gap: it was made up for, or accepted.
func (g *Gap) Settled() bool { return g.Replay != 0 || !g.Accepted.IsZero() }
