// Package cdc streams the committed changes of a Postgres database, in commit order, from one logical
// replication slot, and never loses its place in them.
//
// What it promises:
//
//  1. A [Handler] sees every transaction that commits after the slot was made, whole, once for each run of the
//     stream; after a restart the stream goes on behind the checkpoint that the caller gives. Of a large one it sees parts before
//     the commit, if it asks for that ([Options.InProgress]), and in the end the same changes under the same ordinals as without.
//  2. It confirms to Postgres only what the caller has called durable ([Stream.Confirm]), idle positions included.
//  3. A lost connection is made again, with back-off, behind the last commit that was handed over. Where the slot can
//     no longer give what comes next, the stream ends with an error instead of going on elsewhere.
//  4. Changes come undecoded, as pgoutput wrote them; a value that the stream does not carry is told apart from NULL.
//     A message that cannot be read is asked for again; if it stays so, it is handed over as it came, and the stream goes on,
//     unless it is one that says where the stream stands. None is ever skipped.
//  5. Publications are planned so that no statement of the application ever fails because a table is watched.
//
// It owns the slot, the publications and the catalog. It knows no rules.
//
// The protocol is pgoutput, version 2, with logical messages and in-progress streaming ("Logical Streaming
// Replication Protocol" in the Postgres documentation). A run of the stream goes like this:
//
//  1. Connect for replication, with the settings pinned on which the text form of values depends.
//  2. Look at the database and the slot ([Inspect]); what trying again cannot mend is a [SetupError].
//  3. START_REPLICATION behind the last commit, in this session or one before.
//  4. Receive, decode, call the handler; beside it, a goroutine sends the status: when the caller confirms, when the
//     server asks, and often enough that a slow handler does not look like a dead one.
//  5. When the connection breaks, or nothing comes for as long as wal_sender_timeout, begin again.
//
// While Postgres streams a transaction that is in progress, it does not tell in which savepoint a logical message was emitted. Where one
// that was rolled back may have had it, or where the server fails to stream what it can send later, the stream asks for transactions
// that have committed only, until that one is over.
//
// Postgres moves a start that lies before the slot's confirmed position forward without a word, so that step 2
// compares the two.
package cdc
