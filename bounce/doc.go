// Package bounce reads what comes back: reports of mails that could not be delivered (RFC 3464), complaints (RFC 5965), and the envelope
// senders that these are addressed to. What providers say of mails in their own form it reads as such reports ([ReadMailjet]).
//
// What it promises:
//
//  1. An envelope sender names one message and nothing else, signed with a key that only postman has ([Sender], [Message]). It survives servers
//     that fold its case or put something around it.
//  2. What is no report is said to be none ([Read]); a report that is damaged says as much as can be read of it. No mail, however it is made,
//     makes it fail otherwise, or take more memory than the mail has bytes, give or take.
//  3. Only what is the address's own fault is called hard ([Recipient.Class]). docs/bounces.md has the table.
//
// It knows neither the store nor SMTP.
package bounce
