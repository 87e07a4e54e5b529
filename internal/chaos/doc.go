// Package chaos shows that no mail is lost and none invented while everything around the daemon fails.
//
// Its test runs the real command, `postman run`, against a real Postgres and a real SMTP conversation. An application writes about 300
// changes a second: in small transactions, in some that are rolled back, in savepoints within savepoints, in imports, and in transactions of
// 200,000 rows that Postgres sends while they are in progress, several at a time. Meanwhile the faults in the table of deck_test.go
// happen, in an order that a seed gives: the daemon and Postgres are killed, the network goes away and comes back or does not, rules are
// reloaded, columns come and go, a column that a rule reads is renamed, and a table that one is on, with what was written before still to be read, while
// the daemon is there and while it is not. Transactions mute themselves, or come from another database, and are not told of. The relay has moods of its own (relay_test.go). Nobody lends a hand
// meanwhile: a daemon that streams has to outlive all that. One that is only just starting may give up, and is started again as a service
// manager does it.
//
// In the end each committed change that a rule matched has its mail, to the right person and with the right text, and nothing else has one. What came twice came with the
// same Message-ID, and because a failure came between the first copy and what is known of it: the store of a daemon that was killed said that
// it was being sent, or it was the last on a connection that broke right behind it. What has to be there is known exactly: each change is written down
// in a ledger by the same transaction, with what its mail has to say, and the ledger is read with the positions of its commits by a slot of its own. Where the rules said different things
// at different times, the daemon's log tells from which position on which of them decided, and its store where each run
// began. A rule that is broken for a while leaves a gap; the command that `postman status` prints for it has to make up for it, and every
// gap has to be made up for so.
//
// The test is short by default and has some of the faults. POSTMAN_CHAOS=10m has all of them happen for so long. It prints its seed, and
// how often everything happened; POSTMAN_CHAOS_SEED repeats the sequence of faults and of what the application writes, though not its timing.
package chaos
