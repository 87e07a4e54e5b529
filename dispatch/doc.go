// Package dispatch makes mails of matches and brings them to the relay.
//
// What it promises:
//
//  1. A match is expanded once its transaction is visible to look-ups, from one read-only snapshot: recipients, then what the
//     mails show. What fails is this match's or this message's alone, and ends in a named state with its reason.
//  2. A message is `sending` in the store before its final dot is begun, and no dot is begun after its lease. The mail's bytes
//     are made once and kept for retries: a second delivery has the same Message-ID and the same words.
//  3. The relay's reply decides, by its codes: 2xx sent, 5xx dead, 4xx again later; a dot without a reply is uncertain. A relay
//     that is down or throttles costs no message an attempt.
//  4. High priority passes first. What is held in memory is bounded; the rest waits in the store.
//  5. Every outcome is durable before it is told to anyone.
//
// It knows no WAL. Its way, step by step, is in docs/architecture.md:
//
//	Take ─► tasks ─► work: expand, or prepare ─► ready ─► start ─► lanes ─► outcomes ─► record
//	          ▲              └─ a lane is free at once ─────────────▲
//	        feed: what did not fit, retries, due times
package dispatch
