package cdc

import (
	"time"

	"postman/position"
	"postman/value"
)

// Op is what was done to a row, or a message that a transaction carried.
type Op uint8

// The operations.
const (
	Insert Op = iota
	Update
	Delete
	Truncate
	Emit // pg_logical_emit_message
)

// String is the operation's name in rules: insert, update, delete, truncate; message.
func (o Op) String() string {
	return [...]string{"insert", "update", "delete", "truncate", "message"}[o]
}

// Identity is a table's REPLICA IDENTITY: which columns of the old row the stream carries.
type Identity byte

// The replica identities, by their letters in pg_class.relreplident.
const (
	IdentityDefault Identity = 'd' // the primary key, and only when it changed or the row was deleted
	IdentityFull    Identity = 'f' // the whole old row
	IdentityIndex   Identity = 'i' // the columns of an index, likewise only when one of them changed
	IdentityNothing Identity = 'n'
)

// TableName is a schema-qualified table name, exact in case.
type TableName struct{ Schema, Name string }

// String is schema.name, with public left out.
func (n TableName) String() string {
	if n.Schema == "public" {
		return n.Name
	}
	return n.Schema + "." + n.Name
}

// Table is a table as the catalog or a Relation message describes it. Tables are immutable: a change of the
// schema makes a new one.
type Table struct {
	TableName
	OID      uint32
	Identity Identity
	Columns  []Column // those that the stream carries: generated ones are not among them
	// Partitioned says that the rows are in partitions (from the catalog; unknown to the stream). Of an old row the stream tells the
	// primary key then, and never more: what it holds is what the partition's own replica identity says, which is not inherited, while
	// it is described by that of the table, and nothing tells which partition a change is of.
	Partitioned bool
}

// Column is a column of a table, in the stream's order.
type Column struct {
	value.Column
	Key     bool     // belongs to the replica identity
	PK      bool     // belongs to the primary key (from the catalog; unknown to the stream)
	NotNull bool     // from the catalog
	Enum    []string // labels in order, when the type is an enum
}

// Column returns the index of the named column, or -1.
func (t *Table) Column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// Tx is a transaction's envelope, as its Begin and Commit messages tell it.
type Tx struct {
	XID    uint32       // top-level, without its wraparound epoch
	Commit position.LSN // where the commit record begins: the key
	End    position.LSN // where it ends: the checkpoint. Zero until the commit was read.
	Time   time.Time    // of the commit, by the server's clock
	// Origin is the replication origin that the transaction was replayed from; empty: it is the database's own.
	Origin string
}

// Change is one change of a transaction. Its tuples alias the receive buffer: whoever keeps a change copies it.
type Change struct {
	Op      Op
	Ordinal uint64 // counts the transaction's changes from 0, without those that were rolled back
	Table   *Table // nil for a message
	New     Tuple  // insert, update
	Old     Tuple  // update, delete; empty where the replica identity sends none
	OldKey  bool   // Old holds the replica identity's columns only; its others are sent as NULL and mean nothing
	Prefix  string // of a message
	Content []byte // of a message

	// Err is why the change could not be read; nil: it could. Then Raw is its message as it came, and nothing else of it is known but
	// Op and Ordinal, and Table where the message tells. Where Table is nil, the change may be of any table, or of several, and Op and
	// Ordinal are not to be trusted: so it is for all that follows, in its transaction, a message of which nobody can say whether it counts.
	Err error
	Raw []byte
	// Relation is the description of its table, where that could not be read either. Described are tables as the stream has them before
	// a change of which nobody knows what it is: all that are known, and, behind the first, those that were described meanwhile. With
	// these, who reads the bytes again needs nothing else.
	Relation  []byte
	Described []*Table
}

// Handler takes the stream in. All calls come from one goroutine. Transactions are committed in the order of their commits. An
// error stops the stream.
//
// Most transactions come whole: Begin, their changes, Commit. A large one comes while it is in progress: parts of it, each after a
// Stream, between which whole ones and parts of others may lie; what its savepoints roll back is taken back by Rollback, and Commit or
// Rollback ends it.
type Handler interface {
	// Restart says that a session begins. Whatever was told of transactions that were not committed is void: they begin anew.
	Restart() error
	// Begin says that a whole transaction follows, up to its Commit.
	Begin(Tx) error
	// Stream says that what follows, up to the next call of another method than Change, belongs to this transaction, which is in
	// progress. It is the first that is told of it, or goes on.
	Stream(xid uint32) error
	// Change hands over one change. Its Ordinal counts the changes of the transaction that were not rolled back: after a Rollback
	// from an ordinal, the next change has that one. [ErrLater] asks for a transaction in progress again once it has committed.
	Change(*Change) error
	// Rollback takes back all changes from an ordinal on of a transaction in progress. From 0 on: nothing is left of it, and it
	// may be over. The transaction may never have been told of, then.
	Rollback(xid uint32, from uint64) error
	// Commit ends the transaction that Begin opened, or the one in progress that has this number. Of one that was never told of,
	// nothing is published.
	Commit(Tx) error
	// Relation announces how a table looks from here on, before its first change and after each change of its shape. A transaction
	// in progress uses tables as it sees them itself, which may have altered them: these are announced between Stream and its Commit.
	Relation(*Table) error
	// Idle says that every transaction that committed before the LSN has been handed over.
	Idle(position.LSN) error
}

// Catalog is what the database says of the tables that were asked for, at one moment.
type Catalog struct {
	Tables map[TableName]*Table
	Names  []TableName // all tables that could be watched, for "did you mean"
	// Unwatchable are those of the tables asked for that exist and cannot be watched, with the reason: a view, a partition.
	Unwatchable map[TableName]string
	// Unidentified are tables whose updates, deletes and truncates must not be published, since the application's own would
	// fail or old rows would lie, with the reason and the ALTER TABLE that mends it.
	Unidentified map[TableName]string
	// Misread are those of Unidentified that may be published without harm to the application: only their old rows would lie.
	Misread map[TableName]bool
}

// Need is what the rules need of a table: the operations to publish.
type Need struct {
	Table TableName
	Ops   []Op
}
