package daemon

import (
	"context"
	"fmt"
	"slices"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

// unread takes in a change that the stream could not make out. Where its table is known, it is a failed match of each rule that would
// have been tried on it, and keeps its bytes: `postman outbox retry` reads them again, once a version can. Where it is not, no rule is
// known to have missed nothing.
func (in *intake) unread(c *cdc.Change) error {
	in.tally.unread.Add(1)
	if in.open.unread++; in.open.unread == 1 {
		in.report(context.Background(), fmt.Errorf("a change in the transaction that commits at %s could not be read; it is put aside, and the stream goes on: %w"+
			"\n  → please report this, with the version of Postgres; postman outbox list --state failed, and postman status, tell what it concerns",
			in.open.tx.Commit, c.Err), "", "unreadable change")
	}
	in.record(c)
	if c.Table == nil {
		in.open.unplaced++
		in.open.blanked = in.blank(c) != nil
		// Behind a message of which nobody knows what it is, one may be sound: what it mutes is not to be mailed about when all is read again.
		if m, err := cdc.ParseRest(c.AppendRest(nil, nil), nil); err == nil && m.Op == cdc.Emit && m.Prefix == mutePrefix {
			in.mute(m, c.Ordinal)
		}
		return in.spill()
	}
	for _, r := range in.open.set.rules.Rules {
		if r.On.Message == "" && r.On.Table == c.Table.TableName && slices.Contains(r.On.Ops, c.Op) {
			in.match(c, r, outbox.MatchFailed, "the change could not be read: "+c.Err.Error())
		}
	}
	return in.spill()
}

// unreadReason is the reason of the gaps of changes that could not be read.
const unreadReason = "changes that could not be read, of which it is not known what they are"

// unreadGap is the record of changes of which nobody can say which rules they concern.
func (t *transaction) unreadGap(commit position.LSN) []outbox.Gap {
	if t.unplaced == 0 {
		return nil
	}
	g := outbox.Gap{From: commit, To: commit, Count: t.unplaced, Lost: t.blanked, Reason: unreadReason}
	if t.blanked {
		g.Reason += "; their bytes are not kept, since they may hold what the rules call sensitive"
	}
	return []outbox.Gap{g}
}
