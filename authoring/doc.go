// Package authoring is what the authors of rules do before a rule is live and after it has spoken: they test it, look at its mails,
// and ask why it did what it did.
//
// What it promises:
//
//  1. Nothing is stored or sent, and a database that is asked is left as it was: what a test changes there is rolled back.
//  2. What is told is what would happen: the condition is evaluated by the rules' own nodes, the mails are made by dispatch's own
//     code, of a change such as the stream would bring.
//  3. The same files give the same result, whenever and wherever they are tried: a test has a clock of its own.
package authoring
