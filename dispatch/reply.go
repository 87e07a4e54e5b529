package dispatch

import (
	"fmt"
	"strings"
)

// phase is where a conversation stands.
type phase uint8

const (
	dialing phase = iota
	mailing
	naming
	opening // DATA
	writing // the content, before the dot
	dotted  // the dot was begun
)

// String names the phase by its command, for reasons.
func (p phase) String() string {
	return [...]string{"connecting", "MAIL", "RCPT", "DATA", "the content", "the final dot"}[p]
}

// reply is what ended a conversation about a mail: the relay's words, or why there are none.
type reply struct {
	phase   phase
	code    int
	text    string
	err     error
	refused []string // copies that the relay refused for good
	own     bool     // the relay was not asked: what it offers tells
}

// String is the reply as an operator wants to read it.
func (r reply) String() string {
	if r.err != nil {
		return fmt.Sprintf("%v (at %s)", r.err, r.phase)
	}
	return fmt.Sprintf("%d %s (at %s)", r.code, oneLine(r.text), r.phase)
}

// oneLine makes a reply of several lines fit for a column of a table.
func oneLine(text string) string {
	return clip(strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " "))
}

// enhanced is the reply's enhanced status code, RFC 3463: 4.7.1; empty when it has none.
func (r reply) enhanced() string {
	word, _, _ := strings.Cut(r.text, " ")
	class, rest, ok := strings.Cut(word, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || len(class) != 1 || !strings.ContainsAny(class, "245") || !digits(subject) || !digits(detail) {
		return ""
	}
	return word
}

func digits(s string) bool {
	return len(s) >= 1 && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}

// class is what a reply means for the mail it was about.
type class uint8

const (
	sent      class = iota
	temporary       // this mail, later
	permanent       // this mail, never
	unknown         // the dot was begun and no reply is known
	denied          // this mail, or all of them: the relay does not let us send, or not as this sender
	trouble         // the relay's, and no mail's
)

// class decides by codes and phases, never by words (RFC 5321 §4.2.1, §4.2.5). What is not known is temporary.
func (r reply) class() class {
	switch {
	case r.phase == dotted && (r.err != nil || r.code/100 != 2 && r.code/100 != 4 && r.code/100 != 5):
		return unknown
	case r.phase == dotted && r.code/100 == 2:
		return sent
	case r.phase == dialing || r.err == nil && relays(r.phase, r.code):
		return trouble
	case r.err != nil && r.phase < opening:
		return trouble // it went away before it had heard anything but names
	case r.err == nil && r.code/100 == 5 && r.policy():
		return denied
	case r.err == nil && r.code/100 == 5:
		return permanent
	default:
		return temporary // a connection that broke off counts as 451
	}
}

// relays says whether a code speaks of the relay and not of the mail: it shuts down (421), throttles or has no
// authentication at hand (454), has lost our login or wants one (530, 534, 535, 538), or has no room for anyone
// (452 to MAIL; to RCPT it is the mailbox that is full).
func relays(p phase, code int) bool {
	switch code {
	case 421, 454, 530, 534, 535, 538:
		return true
	case 452:
		return p == mailing
	}
	return false
}

// policy says whether a refusal is by a policy, or for a limit of the account (RFC 3463 §3.8 X.7.x, §3.6 X.4.5, as Gmail has it): of the mail, or of us.
func (r reply) policy() bool {
	e := r.enhanced()
	return strings.HasPrefix(e, "5.7.") || e == "5.4.5"
}

// throttles says whether a code asks for less: too many connections, or mails in too short a time.
func throttles(p phase, code int) bool {
	return code == 421 || code == 454 || code == 452 && p == mailing
}

// greylists says whether a refusal asks to come again, as those do who meet sender and recipient for the first time (RFC 6647): with 4.7.1, 4.2.0 as Postgrey
// under Postfix has it, or with no more than 450 or 451.
func (r reply) greylists() bool {
	return r.err == nil && r.phase == naming && (r.code == 450 || r.code == 451) && (strings.HasPrefix(r.enhanced(), "4.7.") || r.enhanced() == "4.2.0" || r.enhanced() == "")
}
