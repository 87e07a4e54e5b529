// Package daemon makes one postman of its rooms: it wires stream, rules, outbox, dispatch and templates, reloads
// rules and templates while they run, and serves operators.
//
// What it promises:
//
//  1. A position is confirmed to Postgres only after the matches before it are durable in the store (see intake).
//  2. One version of the rules decides a whole transaction; a set that does not load leaves the live one in place.
//  3. A slot and a store that do not belong together are noticed before anything is streamed, and never silently
//     made to fit (see adopt).
//  4. Without a delivery mode nothing is sent; live sending is armed for one database.
//  5. A rule that the database does not bear any more breaks alone: it is told, and what it misses is a gap that ends where the rule
//     decides again (see fit, look).
//  6. Stop drains: mails in hand are finished and recorded; what is queued stays queued.
package daemon
