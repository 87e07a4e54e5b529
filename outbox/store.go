package outbox

import (
	"context"
	"errors"
	"time"

	"postman/position"
)

// Store is a durable outbox. All methods may be called from many goroutines; a method that returned nil has
// made its effect durable. Writers commit in groups: the one way to be fast is to call at the same time.
//
// Claims: a claimed match or message is this process's to finish, by Expand, Start or Record; nobody else is given
// it meanwhile. A claim dies with its process, and that is counted: what has been in hand at several such deaths in a row may
// be their cause, and is then given out in ever smaller company, at last alone, before it is given up ([MostInterrupted]). An operator may still cancel what is claimed, up to the moment when it is
// sending; whoever holds the claim learns it from Expand, Start or Record.
//
// Errors: [ErrState] refuses one match or message and leaves nothing undone but that. After any other error of a method
// that writes, nothing of it is to be seen, and the call may be made again.
type Store interface {
	// ID is the store's own identity, made with it, and part of every Message-ID.
	ID() string
	// Secret is a random key, made with the store, that signs what is to come back from outside.
	Secret() []byte
	Close() error

	// Recover is called once, by the daemon, before anything else: it discards provisional matches and returns
	// `sending` messages that a dead process left to `uncertain`, or to the queue where they do not hold. What MostInterrupted
	// processes have ended with becomes failed.
	Recover(ctx context.Context, now time.Time) (Recovered, error)

	// Source returns the named source, or ErrNotFound.
	Source(ctx context.Context, systemID, database, slot string) (Source, error)
	// Sources lists all of them.
	Sources(ctx context.Context) ([]Source, error)
	// SaveSource adds a source (ID 0; it returns with its own) or changes its state, epoch, checkpoint, arming and server.
	SaveSource(ctx context.Context, s Source) (Source, error)
	// SaveServer changes what is known of a source's server, beside whoever moves its checkpoint. Of one that has moved to another timeline
	// nothing is verified behind the checkpoint.
	SaveServer(ctx context.Context, source uint32, s Server) error

	// RuleIDs allots numbers to rules, for ever, one after the other and all of them or none, and returns them in the same order. A
	// rule whose name is not known, and its former one is, is renamed and keeps its number.
	RuleIDs(ctx context.Context, rules ...RuleName) ([]uint32, error)
	// RuleNames lists the rules that RuleIDs allotted numbers to, by their present names, in order.
	RuleNames(ctx context.Context) ([]string, error)
	// Rules lists all of these numbers, by the rules' present names.
	Rules(ctx context.Context) (map[string]uint32, error)
	// Text returns a text that a Batch brought, or ErrNotFound.
	Text(ctx context.Context, h Hash) ([]byte, error)
	// TextSince is when a text was first brought; zero where that is not known any more. ErrNotFound: it never was.
	TextSince(ctx context.Context, h Hash) (time.Time, error)

	// Append makes a batch durable and returns up to claim of its pending matches that are due, claimed.
	// Transactions at or below the stored checkpoint, and matches that are known, are passed over.
	Append(ctx context.Context, b Batch, claim int) ([]Match, error)
	// Spill stores matches and pieces of the journal of a transaction whose commit has not been read. Nobody sees them until
	// Append names the key; Recover discards them.
	Spill(ctx context.Context, key Spill, p Provisional) error
	// Settle has spilled matches become what the commit, which was read, makes of them, before Append adopts them: pending and held ones
	// are muted or held, and all of a rule expire. ErrNotFound: nothing was spilled.
	//
	// Settle and Unspill go in small steps, so that nobody waits for them. One that failed is called again.
	Settle(ctx context.Context, key Spill, s Settlement) error
	// Unspill takes what was spilled of changes from an ordinal on back: they were rolled back. From 0 it forgets the key. It is
	// no error when nothing was spilled.
	Unspill(ctx context.Context, key Spill, from uint64) error

	// Journal returns the next pieces of a stretch of the journal, in the order of commits; none: that was all.
	Journal(ctx context.Context, q JournalQuery) ([]Piece, error)
	// JournalSpan says what the journal of an epoch covers.
	JournalSpan(ctx context.Context, source, epoch uint32) (JournalSpan, error)
	// JoinJournal puts a block in the place of the blocks from its first commit to its last, whose content it has. ErrState: there are
	// others than these, or parts, between them, and nothing was done.
	JoinJournal(ctx context.Context, source, epoch uint32, b Block) error
	// PruneJournal deletes some of the oldest pieces of all sources that end before a time, or with which the journal takes more than most
	// bytes. It does so in small steps, so that nobody waits for it: it is called again while there is more.
	PruneJournal(ctx context.Context, before time.Time, most int64) (Pruned, error)
	// JournalAt is where the journal of an epoch has come to at a time: the first commit of its first piece that does not end before; 0: all do.
	JournalAt(ctx context.Context, source, epoch uint32, at time.Time) (position.LSN, error)

	// KnownMatches says how matches stand, in the order of their keys.
	KnownMatches(ctx context.Context, source, epoch uint32, keys []MatchKey) ([]KnownMatch, error)
	// SaveReplay notes a replay that begins (ID 0; it returns with its own), or its stretch and end. What it did is Replay's to count.
	SaveReplay(ctx context.Context, r Replay) (Replay, error)
	// Replays lists the replays, newest first.
	Replays(ctx context.Context) ([]Replay, error)
	// Replay makes one step of a replay that has not ended durable: matches that are absent are added, those that wait by what it brings and
	// have failed, or are muted where it takes these, wait again by the version that it brings, and messages are queued once more under
	// the next resend number. Matches that stand otherwise are passed over. It returns what it did.
	Replay(ctx context.Context, b ReplayBatch) (Replayed, error)
	// MendGap notes that a replay made up for a gap that ended and is not lost, and what of it is lost all the same, each as SaveGap does.
	// ErrState: it is none, or has taken more in since.
	MendGap(ctx context.Context, g Gap, replay int64, losses []Gap) error
	// LeaveGap notes why a replay could not make up for a gap; it stays as it is else. ErrState: it is settled.
	LeaveGap(ctx context.Context, g Gap, why string) error
	// AcceptGaps notes that an operator takes gaps as they are, each at its Accepted, by whom and why: all of them or none. ErrState: one goes
	// on, is settled, or has taken more in since.
	AcceptGaps(ctx context.Context, gaps []Gap) error

	// Blank puts Blanked in the place of Change for matches whose expiry has made dead, failed and uncertain messages
	// final for good, and drops what these show; it returns how many. Other final matches are blanked when they become final.
	Blank(ctx context.Context, now time.Time) (int, error)

	// ClaimMatches claims pending matches that are due. High ones come first, and wait for nobody. Of the others, normal ones come
	// before bulk ones; after every seventh normal one comes a bulk one that is due, so that these never wait for ever. Within a priority the
	// rules take turns, one match each, by their numbers and from claim to claim; and within a rule, due times and then positions decide.
	ClaimMatches(ctx context.Context, c Claim) ([]Match, error)
	// Expand ends, defers or holds a claimed match and queues its messages. A message that is known is passed
	// over. It returns the messages that it stored as Sending, and releases the claim. ErrState: the match is no longer
	// pending and claimed; nothing was stored, and the claim is gone.
	Expand(ctx context.Context, e Expansion) ([]Message, error)
	// ClaimMessages claims queued messages that are due, in the order of ClaimMatches.
	ClaimMessages(ctx context.Context, c Claim) ([]Message, error)
	// Start takes claimed messages to sending and returns the ids of those that may go. No dot may be begun before it
	// returned. The others were cancelled meanwhile, or were not claimed: they stay as they are, and their claims are gone. So are those of
	// messages that Suppress stops, or takes copies off.
	Start(ctx context.Context, starts []Start) ([]int64, error)
	// Record stores outcomes of messages that are sending or claimed and releases the claims. Bodies of finished messages are
	// dropped; dead, failed and uncertain ones keep theirs for a retry. ErrState: the outcomes that it names were refused, since
	// their messages are not where that outcome is possible; all others are stored.
	Record(ctx context.Context, outcomes []Outcome) error
	// Suppress keeps addresses from getting mail, and returns how many are new. One that is suppressed already stays so for the reason that
	// it has. From then on no message to one becomes sending: Expand and Start end it as suppressed, and take copies to one off a message;
	// such a copy is a message of its own, which has ended. What is sending already goes.
	Suppress(ctx context.Context, list []Suppression) (added int, err error)
	// Unsuppress lifts a suppression, and keeps who did and why. ErrNotFound: there is none.
	Unsuppress(ctx context.Context, address, by, why string, now time.Time) error
	// Suppressions lists what is suppressed, newest first.
	Suppressions(ctx context.Context, f SuppressionFilter) ([]Suppression, error)
	// SaveBounce notes what came back of a message, and suppresses its address where that says so: in one commit. The same report twice is
	// taken once.
	SaveBounce(ctx context.Context, b Bounce, soft SoftLimit) (Bounced, error)
	// Bounces lists what came back of a message, oldest first.
	Bounces(ctx context.Context, message int64) ([]Bounce, error)
	// Find returns the message of a Message-ID, which was made in a transaction at an LSN, of a change of whose ordinal it knows the low bits.
	// ErrNotFound: there is none.
	Find(ctx context.Context, at position.LSN, ordinal uint32, messageID string) (Message, error)
	// Release gives up claims that came to nothing, in good order.
	Release(matches, messages []int64)
	// NextDue is when the next unclaimed match or message is due, of such rules as [Claim] has them; zero: none.
	NextDue(ctx context.Context, matchOf, messageOf func(rule uint32, p Priority) bool) (time.Time, error)
	// RecentMatches counts, for each rule, the commit times since then of matches that hold_over counts: not those of replays.
	RecentMatches(ctx context.Context, since time.Time) (map[uint32][]time.Time, error)

	// Matches and Messages list, newest first. Only messages that the filter names by their own ids come with their Body. A list
	// without Limit is as long as the store: who asks for others sets one.
	Matches(ctx context.Context, f Filter) ([]Match, error)
	Messages(ctx context.Context, f Filter) ([]Message, error)
	// Attempts lists a message's attempts, oldest first.
	Attempts(ctx context.Context, message int64) ([]Attempt, error)
	// Usage counts the mails that each relay took in the month of a moment, in UTC: those that Record stored as sent, when the attempt ended,
	// for the relay that it names.
	Usage(ctx context.Context, month time.Time) (map[string]int64, error)
	// Count counts matches and messages by state.
	Count(ctx context.Context) (Counts, error)
	// Failures lists the rules of which matches or messages have failed, and wait for a retry; of either, it counts the latest [MostFailures].
	Failures(ctx context.Context) ([]Failure, error)
	// Dead tells of the messages that died since a time, and are dead still; it counts the latest [MostFailures].
	Dead(ctx context.Context, since time.Time) (Dead, error)
	// Act moves what the filter selects and the action applies to, and returns how many it moved. Where only message ids or
	// states, or an address, are given, it moves messages only; where only match states are, matches only; ids of matches
	// move these and their messages. Messages that are sending stay as they are. A retry begins to count attempts anew. A filter
	// with Before is an error: that pages through lists. With Limit it takes that many at most, messages before matches, of each state the oldest first.
	//
	// It goes in small steps, so that nobody waits for it. After an error, or the end of the process, some may have moved, and the same call goes on.
	Act(ctx context.Context, a Action, f Filter, reason string, now time.Time) (Acted, error)

	// HeldBatches lists batches, newest first: those of these ids, or else all of which something may wait. One whose transaction is not
	// stored yet is none.
	HeldBatches(ctx context.Context, ids ...int64) ([]HeldBatch, error)
	// ActOnBatch orders Release or Discard of all that waits in a batch, and carries that out in small steps, so that nobody waits for it. It
	// returns how many matches it moved. The order is durable first: after an error, or the end of the process, the same call goes on with it.
	// ErrState: another order was given before. ErrNotFound: there is no such batch.
	ActOnBatch(ctx context.Context, id int64, a Action, reason string, now time.Time) (int, error)
	// TellBatches notes that people were told of batches with their present Total and, with a mail, that this mail does so: it is queued in the
	// same commit. Batches of which nothing waits any more, and to which nothing more comes, are finished with that.
	TellBatches(ctx context.Context, batches []HeldBatch, mail *Notice) error

	// Affected counts what Act would move, as it stands now.
	Affected(ctx context.Context, a Action, f Filter) (Affected, error)

	// SaveNote keeps a text of the caller's beside a source, in the place of one with the same name. Note returns it, or ErrNotFound.
	SaveNote(ctx context.Context, source uint32, name string, text []byte) error
	Note(ctx context.Context, source uint32, name string) ([]byte, error)

	// SaveGap records a gap outside of a batch, as Batch.Gaps does.
	SaveGap(ctx context.Context, g Gap) error
	// Gaps lists the gaps, newest first.
	Gaps(ctx context.Context) ([]Gap, error)
	// CloseGap ends an open one as Gaps gave it out. ErrState: it is not open any more, or has taken more in since, and stays as it is.
	CloseGap(ctx context.Context, g Gap, to position.LSN) error
}

// Sentinels that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	// ErrLocked: another process owns the store.
	ErrLocked = errors.New("the store is in use by another postman")
	// ErrCheckpoint: a batch's checkpoint lies before the stored one, or its epoch is not the source's.
	ErrCheckpoint = errors.New("the checkpoint would move back")
	// ErrState: a match or message is not in a state from which it can go where it was told to.
	ErrState = errors.New("not possible from its state")
)

// RuleName is what a rule is called, and what it was called before; empty: nothing else.
type RuleName struct{ Name, Was string }

// Recovered says what Recover found.
type Recovered struct {
	Discarded int // provisional matches
	Requeued  int // sending messages that go out again, with the same Message-ID
	Uncertain int // sending messages that wait for an operator
	GivenUp   int // matches and messages that MostInterrupted processes ended with
}

// Claim says what is to be claimed.
type Claim struct {
	Now  time.Time // what is due by then
	Most int
	// Of says of which rules, at which priorities; nil: of all. It is called while the store is at work, and must neither
	// wait nor ask the store.
	Of func(rule uint32, p Priority) bool
}

// Filter selects matches or messages. Zero fields select all.
type Filter struct {
	Messages      []int64        // of these ids; for matches: the match of one of these messages
	Matches       []int64        // of these ids; for messages: of one of these matches
	Batches       []int64        // that are held in one of these, or were; an action takes matches alone then, and a list of messages does not heed it
	Apart         bool           // for matches: none that waits in a batch
	Rules         []string       // of these, by their present names; one that the store never saw has none
	MatchStates   []MatchState   // a list of messages does not heed them
	MessageStates []MessageState // a list of matches does not heed them
	Address       string         // however it is spelt, see AddressKey; for matches: of one of its messages
	Since, Until  time.Time      // that came into the store then or later, and before
	Due           time.Time      // that were due, or are held since, before
	Error         string         // whose reason, or the relay's last words, have this in them; a to z are A to Z
	Before        int64          // ids below, for paging
	Limit         int
}

// MostFailures bounds what is read to tell what has failed: monitoring asks for it every few seconds.
const MostFailures = 10_000

// Failure is what has failed of a rule.
type Failure struct {
	Rule              string
	Matches, Messages int
	Reason            string // of the latest
}

// Dead is what died: how many messages, and of the latest its rule, when that was and why. Messages 0: none.
type Dead struct {
	Messages int       `json:"messages"`
	Rule     string    `json:"rule"`
	Reason   string    `json:"reason"`
	Last     time.Time `json:"last"`
}

// Counts holds the number of matches and messages in each state.
type Counts struct {
	Matches  map[MatchState]int   `json:"matches"`
	Messages map[MessageState]int `json:"messages"`
}

// Action is what an operator does to matches and messages.
type Action string

// The actions, and the states that they take from.
const (
	Retry   Action = "retry"   // dead, failed, uncertain messages and failed matches: back to the queue
	Cancel  Action = "cancel"  // pending matches, queued messages: cancelled
	Release Action = "release" // held: pending or queued
	Discard Action = "discard" // held, and failed where that is named: discarded
)

// From are the states that an action takes matches and messages from.
func (a Action) From() (matches []MatchState, messages []MessageState) {
	switch a {
	case Retry:
		return []MatchState{MatchFailed}, []MessageState{MessageDead, MessageFailed, MessageUncertain}
	case Cancel:
		return []MatchState{MatchPending}, []MessageState{MessageQueued}
	case Release:
		return []MatchState{MatchHeld}, []MessageState{MessageHeld}
	case Discard:
		return []MatchState{MatchHeld, MatchFailed}, []MessageState{MessageHeld, MessageFailed}
	}
	return nil, nil
}

// By are the states that an action takes from where a filter selects: what has failed is discarded by its id or its state only, since
// who discards what is held of a rule may want the rest retried.
func (a Action) By(f *Filter) (matches []MatchState, messages []MessageState) {
	matches, messages = a.From()
	if a == Discard && len(f.Matches)+len(f.Messages)+len(f.MatchStates)+len(f.MessageStates) == 0 {
		matches, messages = []MatchState{MatchHeld}, []MessageState{MessageHeld}
	}
	return matches, messages
}

// Acted says how many an action moved.
type Acted struct {
	Messages int
	Matches  int
}

// Affected is what an action would move, by the rules' names and then by the states.
type Affected struct {
	Messages []Group[MessageState]
	Matches  []Group[MatchState]
}

// Group is how many of a rule stand in a state.
type Group[S MatchState | MessageState] struct {
	Rule  string
	State S
	Count int
}
