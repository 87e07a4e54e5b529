package outboxtest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"postman/outbox"
	"postman/position"
)

// oracle is a store as naive as it can be: it keeps everything in memory, looks at all of it for every question, and knows
// the states by tables of its own. It is right where a store is clever.
type oracle struct {
	source   outbox.Source
	matches  []*oracleMatch // in the order in which they came
	messages []*oracleMessage
	spilled  map[uint32][]outbox.NewMatch
	turns    [2]oracleTurns // of matches, and of messages
	usage    map[string]map[string]int64
	barred   map[[16]byte]bool // addresses that are suppressed
}

type oracleMatch struct {
	outbox.Match
	blanked []byte
	claimed bool
	begun   int // claims that did not come to an end
	suspect int // begun, when that was found at the start of the process
}

type oracleMessage struct {
	outbox.Message
	of       *oracleMatch
	claimed  bool // by us: queued and to be started, or sending
	started  bool
	finished bool
	begun    int
	suspect  int
}

// asRead is the message as the store tells it, which says whether its match has anything left to be blanked.
func (n *oracleMessage) asRead() outbox.Message {
	m := n.Message
	m.Sensitive = n.of.blanked != nil
	return m
}

// What may happen, in the words of docs/states.md.
var (
	expansions    = words("pending held expanded replaced cancelled expired nobody failed")
	messageBegins = words("queued sending held failed digested suppressed limited repeated expired cancelled not-sent no-address")
	unfinished    = words("queued sending held")
	retryable     = words("dead failed uncertain")
)

func words(s string) map[string]bool {
	all := make(map[string]bool)
	for w := range strings.FieldsSeq(s) {
		all[w] = true
	}
	return all
}

// ownWords stands for a reason that the store gives in its own words.
const ownWords = "in the store's own words"

// matchKey is a match's identity.
type matchKey struct {
	position.Position
	rule uint32
}

func (o *oracle) match(k matchKey) *oracleMatch {
	for _, m := range o.matches {
		if m.Position == k.Position && m.Rule == k.rule {
			return m
		}
	}
	return nil
}

// commit adds a transaction's matches and returns those that are new.
func (o *oracle) commit(t *outbox.Transaction, names map[uint32]string, now time.Time) []*oracleMatch {
	all := slices.Clone(t.Matches)
	spilled := 0
	if t.Spilled != nil {
		spilled = len(o.spilled[t.Spilled.XID])
		all = slices.Concat(o.spilled[t.Spilled.XID], all)
		delete(o.spilled, t.Spilled.XID)
	}
	var fresh []*oracleMatch
	for i, n := range all {
		p := position.Position{Source: o.source.ID, Epoch: o.source.Epoch, LSN: t.LSN, Ordinal: n.Ordinal}
		if o.match(matchKey{p, n.Rule}) != nil {
			continue
		}
		m := &oracleMatch{blanked: n.Blanked, Match: outbox.Match{
			Position: p, Tx: t.Tx, Rule: n.Rule, RuleName: names[n.Rule], Version: n.Version, Shape: n.Shape, Op: n.Op, Change: n.Change,
			State: n.State, Reason: n.Reason, Due: n.Due, Expires: n.Expires, Priority: n.Priority, HoldUncertain: n.HoldUncertain, Silent: n.Silent, Created: now,
			Undecided: n.State == outbox.MatchFailed,
		}}
		if waits := i >= spilled && (n.State == outbox.MatchPending || n.State == outbox.MatchHeld); waits && t.Muted != "" {
			m.State, m.Reason = outbox.MatchMuted, t.Muted
		} else if why, held := t.Hold[n.Rule]; waits && held {
			m.State, m.Reason = outbox.MatchHeld, why
		}
		o.matches = append(o.matches, m)
		fresh = append(fresh, m)
	}
	return fresh
}

// settleSpilled changes what was spilled as a commit will have it.
func (o *oracle) settleSpilled(xid uint32, z outbox.Settlement) {
	for i := range o.spilled[xid] {
		n := &o.spilled[xid][i]
		holds := z.Hold[n.Rule]
		at := slices.IndexFunc(holds, func(h outbox.Hold) bool { return h.Takes(n.Ordinal) })
		waits := n.State == outbox.MatchPending || n.State == outbox.MatchHeld
		switch {
		case waits && z.Muted != "":
			n.State, n.Reason = outbox.MatchMuted, z.Muted
		case waits && at >= 0:
			n.State, n.Reason = outbox.MatchHeld, holds[at].Why
		}
		if t, ok := z.Expires[n.Rule]; ok {
			n.Expires = t
		}
	}
}

// expand does what Expand is asked for; false: it has to be refused.
func (o *oracle) expand(m *oracleMatch, e *outbox.Expansion, now time.Time) (sending []*oracleMessage, ok bool) {
	if !expansions[e.State.String()] || e.State != outbox.MatchExpanded && len(e.Messages) > 0 {
		return nil, false
	}
	for _, g := range e.Messages {
		if !messageBegins[g.State.String()] {
			return nil, false
		}
	}
	possible := m.claimed && m.State == outbox.MatchPending
	m.claimed = false
	if !possible {
		return nil, false
	}
	m.State, m.Reason, m.begun, m.suspect = e.State, e.Reason, 0, 0
	if e.State == outbox.MatchPending {
		m.Due = e.Due
		if !e.Early {
			m.Attempts++
		}
	}
	if e.State == outbox.MatchHeld && !e.Due.IsZero() {
		m.Due = e.Due
	}
	for _, g := range e.Messages {
		if (g.State == outbox.MessageSending || g.State == outbox.MessageQueued) && o.barred[outbox.AddressKey(g.Address)] {
			g.State, g.Reason = outbox.MessageSuppressed, ownWords
		}
		if n := o.queue(m, g, now); n != nil && n.State == outbox.MessageSending {
			sending = append(sending, n)
		}
	}
	return sending, true
}

// queue adds a message, unless it is known.
func (o *oracle) queue(m *oracleMatch, g outbox.NewMessage, now time.Time) *oracleMessage {
	for _, n := range o.messages {
		if n.of == m && n.Resend == g.Resend && outbox.AddressKey(n.Address) == outbox.AddressKey(g.Address) {
			return nil
		}
	}
	n := &oracleMessage{of: m, Message: outbox.Message{
		Position: m.Position, Rule: m.Rule, RuleName: m.RuleName, Address: g.Address, Resend: g.Resend, State: g.State, Reason: g.Reason,
		Due: g.Due, Expires: m.Expires, Priority: m.Priority, HoldUncertain: m.HoldUncertain, Silent: m.Silent, Recipient: g.Recipient, CC: g.CC,
		MessageID: g.MessageID, Subject: g.Subject, Body: g.Body, Template: g.Template, Committed: m.Tx.Time, Created: now,
	}}
	n.claimed = g.State == outbox.MessageSending
	n.started = n.claimed
	if n.claimed {
		n.begun = 1
	}
	o.messages = append(o.messages, n)
	o.settle(n)
	return n
}

// settle draws the consequences of a message's state.
func (o *oracle) settle(n *oracleMessage) {
	state := n.State.String()
	n.finished = !unfinished[state]
	if n.finished && !retryable[state] {
		n.Body = nil
	}
}

// start does what Start is asked for; false: the message may not go.
func (o *oracle) start(n *oracleMessage, s *outbox.Start) bool {
	if !n.claimed || n.started {
		return false
	}
	if n.State != outbox.MessageQueued {
		n.claimed = false
		return false
	}
	if o.barred[outbox.AddressKey(n.Address)] {
		n.State, n.Reason, n.Reply, n.claimed, n.begun, n.suspect = outbox.MessageSuppressed, ownWords, "", false, 0, 0
		o.settle(n)
		o.blank(time.Time{})
		return false
	}
	n.State, n.started = outbox.MessageSending, true
	n.MessageID, n.Subject = cmp.Or(s.MessageID, n.MessageID), cmp.Or(s.Subject, n.Subject)
	if len(s.Body) > 0 {
		n.Body = s.Body
	}
	n.Template = cmp.Or(s.Template, n.Template)
	return true
}

// record does what Record is asked for; false: it has to be refused.
func (o *oracle) record(n *oracleMessage, out *outbox.Outcome) bool {
	from := "queued"
	if n.started {
		from = "sending"
	}
	if !n.claimed || !words(outcomes[from])[out.State.String()] {
		return false
	}
	possible := n.State.String() == from
	n.claimed, n.started = false, false
	if !possible {
		return false
	}
	n.State, n.Reason, n.Reply, n.begun, n.suspect = out.State, out.Reason, out.Reply, 0, 0
	if out.State == outbox.MessageUncertain && !n.HoldUncertain {
		n.State = outbox.MessageQueued
	}
	if n.State == outbox.MessageQueued || n.State == outbox.MessageHeld && !out.Due.IsZero() {
		n.Due = out.Due
	}
	if out.Burned {
		n.Attempts++
	}
	if a := out.Attempt; a != nil && out.State == outbox.MessageSent {
		month := a.Started.Format("2006-01")
		if o.usage[month] == nil {
			o.usage[month] = make(map[string]int64)
		}
		o.usage[month][a.Relay]++
	}
	o.settle(n)
	return true
}

// act does what an operator asks for.
func (o *oracle) act(a outbox.Action, f *outbox.Filter, reason string, now time.Time) (acted outbox.Acted) {
	for _, n := range o.messages {
		to, applies := takesMessage(a, f, n)
		if !applies {
			continue
		}
		acted.Messages++
		n.State.UnmarshalText([]byte(to)) //nolint:errcheck // of our own table
		n.Reason = reason
		if a == outbox.Retry {
			n.Due, n.Attempts, n.begun = now, 0, 0
		}
		n.Released = n.Released || a == outbox.Release
		o.settle(n)
	}
	for _, m := range o.matches {
		to, applies := takesMatch(a, f, m)
		if !applies {
			continue
		}
		acted.Matches++
		m.State.UnmarshalText([]byte(to)) //nolint:errcheck // of our own table
		m.Reason = reason
		if a == outbox.Retry {
			m.Due, m.Attempts, m.begun = now, 0, 0
		}
		m.Released = m.Released || a == outbox.Release
	}
	return acted
}

// die forgets what a process knows, and recovers.
func (o *oracle) die(now time.Time) (r outbox.Recovered) {
	for _, m := range o.matches {
		if m.State == outbox.MatchPending && m.begun >= outbox.MostInterrupted {
			m.State, m.Reason = outbox.MatchFailed, ownWords
			r.GivenUp++
		}
		m.claimed, m.suspect = false, 0
		if m.State == outbox.MatchPending {
			m.suspect = m.begun
		}
	}
	for _, n := range o.messages {
		sending := n.State == outbox.MessageSending
		switch {
		case (n.State == outbox.MessageQueued || sending && !n.HoldUncertain) && n.begun >= outbox.MostInterrupted:
			n.State, n.Reason = outbox.MessageFailed, ownWords
			if sending {
				n.Attempts++
			}
			r.GivenUp++
			o.settle(n)
		case sending:
			n.State, n.Due, n.Reason = outbox.MessageQueued, now, ownWords
			n.Attempts++
			if n.HoldUncertain {
				n.State = outbox.MessageUncertain
				r.Uncertain++
			} else {
				r.Requeued++
			}
			o.settle(n)
		}
		n.claimed, n.started, n.suspect = false, false, 0
		if n.State == outbox.MessageQueued {
			n.suspect = n.begun
		}
	}
	for _, s := range o.spilled {
		r.Discarded += len(s)
	}
	clear(o.spilled)
	o.turns = [2]oracleTurns{}
	return r
}

// blank takes away what is sensitive where nothing needs it any more; beyond its expiry, nobody can retry either.
func (o *oracle) blank(now time.Time) int {
	n := 0
	for _, m := range o.matches {
		expired := !m.Expires.IsZero() && !m.Expires.After(now)
		needed := m.State == outbox.MatchPending || m.State == outbox.MatchHeld || m.State == outbox.MatchFailed && !expired
		for _, g := range o.messages {
			if state := g.State.String(); g.of == m && (unfinished[state] || retryable[state] && !expired) {
				needed = true
			}
		}
		if needed || m.blanked == nil {
			continue
		}
		n++
		m.Change, m.blanked = m.blanked, nil
		for _, g := range o.messages {
			if g.of == m {
				g.Recipient, g.Subject, g.Body = nil, "", nil
			}
		}
	}
	return n
}

// admits says whether something may be given out beside the suspects that are in hand.
func (o *oracle) admits(suspect int) bool {
	if suspect < 2 {
		return true
	}
	together, inHand := companies[min(suspect, 4)], 0
	count := func(claimed bool, n int) {
		if claimed && n >= 2 {
			together, inHand = min(together, companies[min(n, 4)]), inHand+1
		}
	}
	for _, m := range o.matches {
		count(m.claimed, m.suspect)
	}
	for _, n := range o.messages {
		count(n.claimed, n.suspect)
	}
	return inHand < together
}

// companies are how many suspects may be in hand together, by the deaths that they have seen.
var companies = map[int]int{2: 16, 3: 4, 4: 1}
