// Package bounce makes and reads the envelope senders that reports of mails which could not be delivered are addressed to.
//
// What it promises: an envelope sender names one message and nothing else, signed with a key that only postman has ([Sender], [Message]). It
// survives servers that fold its case or put something around it.
//
// It knows neither the store nor SMTP.
package bounce
