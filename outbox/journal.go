package outbox

import (
	"time"

	"postman/position"
)

// Block is a piece of the journal: what the stream brought of a run of transactions, whole and in the order of their commits.
// Its data are opaque here.
type Block struct {
	First, Last  position.LSN // of the commits of the first and the last of them
	From, To     time.Time    // of these commits
	Transactions int
	Changes      int
	Data         []byte
}

// Part is a piece of the journal of one transaction that is too large for a block, or whose commit has not been read.
type Part struct {
	Ordinal uint64 // of its first change
	Changes int
	Data    []byte
}

// Provisional is what [Store.Spill] keeps of a transaction whose commit has not been read.
type Provisional struct {
	Matches []NewMatch
	Texts   map[Hash][]byte
	Parts   []Part // which go on where the parts before them ended
}

// JournalQuery asks for a stretch of the journal.
type JournalQuery struct {
	Source, Epoch uint32
	From, To      position.LSN // of commits; To 0: up to the end
	After         JournalPlace // the last piece that is known already; zero: none
	Limit         int          // pieces, of which a usual one is a few hundred kilobytes
}

// JournalPlace is where a piece stands in the journal of an epoch.
type JournalPlace struct {
	Commit position.LSN // Last of a Block, or that of the transaction that the part is of
	Part   int          // 0: a block; else the transaction's n-th part
}

// Piece is a block of the journal, or a part of a large transaction.
type Piece struct {
	Block
	Place JournalPlace
	// Tx is the envelope of the transaction that the piece is a part of. It is nil for a block, which has the envelopes inside.
	Tx *Tx
	// Ordinal is of the part's first change. A part has Changes changes, and may have had more that were rolled back: they follow, and
	// count no more.
	Ordinal uint64
	Final   bool // the last part of its transaction
}

// JournalSpan is what the journal of one epoch covers: what committed from Oldest to Newest.
type JournalSpan struct {
	Since          position.LSN // all that commits there, or behind, is in it; zero: nobody knows
	SinceTime      time.Time    // when that began
	Oldest, Newest position.LSN // of commits; zero: it is empty
	From, To       time.Time    // when they were
	Bytes          int64        // that the journal of the source takes in the store, all epochs together
}

// Pruned says what [Store.PruneJournal] left.
type Pruned struct {
	Pieces int   // that it deleted
	Bytes  int64 // that the journal still takes
	More   bool  // there is more to be pruned
}
