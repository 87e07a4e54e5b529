package daemon

import (
	"fmt"
	"time"

	"postman/outbox"
)

// GateView is a place where a match or message may be stopped, and what happened there.
type GateView struct {
	Gate    string `json:"gate"`    // muted, held, expires, recipients, address, mail, mode, relay; or the state that ended it
	Outcome string `json:"outcome"` // passed, stopped or waiting
	Detail  string `json:"detail"`
}

// The outcomes of a gate.
const (
	gatePassed  = "passed"
	gateStopped = "stopped"
	gateWaiting = "waiting"
)

// gateList gathers gates until one did not let pass: there are none behind it.
type gateList struct {
	views []GateView
	ended bool
}

func (g *gateList) add(gate, outcome, format string, args ...any) {
	if g.ended {
		return
	}
	g.views = append(g.views, GateView{gate, outcome, fmt.Sprintf(format, args...)})
	g.ended = outcome != gatePassed
}

// gates are those that the match came through, and then its message, in the order of docs/states.md.
func (e *explanation) gates() []GateView {
	var g gateList
	e.matchGates(&g)
	if e.message != nil {
		e.messageGates(&g)
	}
	for i := range g.views {
		g.views[i].Detail = e.mask(g.views[i].Detail)
	}
	return g.views
}

func (e *explanation) matchGates(g *gateList) {
	m := e.match
	if m.State == outbox.MatchFailed && m.Undecided {
		g.add("when", gateStopped, "the rule could not be tried: %s", m.Reason)
	}
	switch {
	case m.State == outbox.MatchMuted:
		g.add("muted", gateStopped, "%s", m.Reason)
	case m.Tx.Muted != "":
		g.add("muted", gatePassed, "its transaction is muted (%s), and it was let pass all the same", m.Tx.Muted)
	default:
		g.add("muted", gatePassed, "its transaction carries no postman.mute")
	}
	switch {
	case m.State == outbox.MatchHeld, m.State == outbox.MatchDiscarded:
		g.add("held", gateStopped, "%s%s", m.Reason, inBatch(m))
	case m.Released:
		g.add("held", gatePassed, "it was held, and an operator released it")
	case e.rule != nil:
		h := e.rule.HoldOver
		g.add("held", gatePassed, "no more than %d matches of the rule in its transaction, %d in its minute and %d for its row", h.Transaction, h.Minute, h.Row)
	}
	e.expiry(g, m.State == outbox.MatchExpired, m.Reason)
	e.recipientGate(g)
}

// inBatch says where a held match waits, with others.
func inBatch(m *outbox.Match) string {
	if m.Batch == 0 {
		return ""
	}
	return fmt.Sprintf(" (batch b%d: postman outbox show b%[1]d)", m.Batch)
}

func (e *explanation) expiry(g *gateList, over bool, reason string) {
	switch {
	case over:
		g.add("expires", gateStopped, "%s", reason)
	case e.match.Expires.IsZero():
		g.add("expires", gatePassed, "the rule sets no time")
	default:
		g.add("expires", gatePassed, "good until %s", stamp(e.match.Expires))
	}
}

func (e *explanation) recipientGate(g *gateList) {
	m := e.match
	switch m.State {
	case outbox.MatchExpanded:
		most := ""
		if e.rule != nil {
			most = fmt.Sprintf(", of at most %d", e.rule.MaxRecipients)
		}
		g.add("recipients", gatePassed, "%s%s", counted(len(e.messages), "message", "messages"), most)
	case outbox.MatchPending:
		g.add("recipients", gateWaiting, "they are asked for at %s%s", stamp(m.Due), because(m.Reason))
	case outbox.MatchNobody, outbox.MatchFailed:
		g.add("recipients", gateStopped, "%s", m.Reason)
	case outbox.MatchCancelled, outbox.MatchReplaced, outbox.MatchMuted, outbox.MatchHeld, outbox.MatchExpired, outbox.MatchDiscarded:
		g.add(m.State.String(), gateStopped, "%s", m.Reason)
	}
}

func (e *explanation) messageGates(g *gateList) {
	m := e.message
	if m.State == outbox.MessageNoAddress {
		g.add("address", gateStopped, "%s", m.Reason)
	}
	g.add("address", gatePassed, "mail can go there")
	switch {
	case m.State == outbox.MessageExpired:
		g.add("expires", gateStopped, "%s", m.Reason)
	case m.State == outbox.MessageFailed:
		g.add("mail", gateStopped, "%s", m.Reason)
	case m.MessageID != "":
		note := ""
		if m.State == outbox.MessageSent { // any other state's reason is not about how it was made
			note = because(m.Reason)
		}
		g.add("mail", gatePassed, "it was made%s", note)
	}
	e.endGate(g)
}

// endGate is the one that the message stands at.
func (e *explanation) endGate(g *gateList) {
	m := e.message
	if m.State == outbox.MessageNotSent {
		g.add("mode", gateStopped, "%s", m.Reason)
	}
	tries := ""
	if m.Attempts > 0 {
		tries = ", after " + counted(m.Attempts, "attempt", "attempts")
	}
	switch m.State {
	case outbox.MessageSent:
		e.modeGate(g)
		g.add("relay", gatePassed, "it took the mail%s%s", tries, because(m.Reply))
	case outbox.MessageSending:
		e.modeGate(g)
		g.add("relay", gateWaiting, "the mail is on its way")
	case outbox.MessageDead, outbox.MessageUncertain:
		e.modeGate(g)
		g.add("relay", gateStopped, "%s%s", m.Reason, tries)
	case outbox.MessageQueued:
		g.add("relay", gateWaiting, "it is due at %s%s%s", stamp(m.Due), tries, because(m.Reason))
	case outbox.MessageFailed, outbox.MessageNotSent, outbox.MessageNoAddress, outbox.MessageExpired, outbox.MessageDigested,
		outbox.MessageSuppressed, outbox.MessageLimited, outbox.MessageRepeated, outbox.MessageReplaced, outbox.MessageCancelled,
		outbox.MessageHeld, outbox.MessageDiscarded:
		g.add(m.State.String(), gateStopped, "%s", m.Reason)
	}
}

func (e *explanation) modeGate(g *gateList) {
	if to := e.message.Redirected; to != "" {
		g.add("mode", gatePassed, "redirect: the mail was for %s instead", to)
		return
	}
	g.add("mode", gatePassed, "it let mails out")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// counted is a number of things.
func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// Grouped is a number with its thousands apart.
func Grouped(n int64) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
