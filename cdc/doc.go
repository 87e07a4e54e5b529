// Package cdc streams the committed changes of a Postgres database, in commit order, from one logical
// replication slot, and never loses its place in them.
//
// What it promises:
//
//  1. A [Handler] sees every transaction that commits after the slot was made, whole, once for each run of the
//     stream; after a restart the stream goes on behind the checkpoint that the caller gives.
//  2. It confirms to Postgres only what the caller has called durable ([Stream.Confirm]), idle positions included.
//  3. A lost connection is made again, with back-off, from the checkpoint.
//  4. Changes come undecoded, as pgoutput wrote them; a value that the stream does not carry is told apart from NULL.
//
// It owns the slot, the publications and the catalog. It knows no rules.
//
// The protocol is pgoutput, version 2, with logical messages ("Logical Streaming Replication Protocol" in the
// Postgres documentation).
package cdc
