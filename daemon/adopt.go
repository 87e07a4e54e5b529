package daemon

import (
	"cmp"
	"fmt"
	"strings"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

// step is what has to be done so that a slot and a store belong together.
type step uint8

const (
	stepIntend step = iota // neither exists: store the intent, then make the slot
	stepCreate             // the intent is stored and the slot is not there yet
	stepTake               // the slot was made after our intent, and we died before we noted it
	stepResume             // both are there and fit
	stepTurn               // the server is another branch, and nothing lies on the part of ours that it lacks: a new epoch, without a gap
	stepGap                // something is missing between them, and an operator has to say so
)

// adoption is a step and, for a gap, what is missing.
type adoption struct {
	step   step
	from   position.LSN // what the store covers
	to     position.LSN // where the slot goes on; zero: there is none, or it serves no more and has to be made anew
	reason string
}

// situation is what a store and a database say of each other.
type situation struct {
	slot      string
	src       *outbox.Source // that the store has of this database; nil: none
	elsewhere *outbox.Source // of the same database and slot in another cluster; nil: none
	db        *cdc.Database
	left      position.LSN // where the server's timeline left that of the source, if it did; 0: it did not come from there
	bare      position.LSN // from here up to the source's checkpoint nothing was committed that is published; 0: nobody knows
}

// adopt compares a store's source with the server and the slot that the database has. A slot that this store did not intend may have been
// made by anybody, and a slot that was confirmed beyond the store's checkpoint will never send again what lies between:
// both are gaps, and so is a slot that is gone, or one without the publications that it had. Nothing here is guessed to be harmless.
//
// Where the database moved to another cluster, what was committed between the two is a gap as well. A server that is of the same cluster may
// be an older state of it, or another branch: then the store covers what never happened there, and the positions of what did may be
// behind its checkpoint.
//
// Where a standby was promoted that lacks only a part of the log on which nothing was committed, nothing is missing. Its positions recur,
// though, and the checkpoint moves back: that is a new epoch.
func adopt(s situation) adoption {
	src, slot := s.src, s.db.Slot
	to := position.LSN(0)
	if slot != nil && !slot.Lost() {
		to = slot.Confirmed
	}
	switch {
	case src == nil && s.elsewhere != nil:
		return adoption{stepGap, 0, to, fmt.Sprintf("the store covers this database on another server (system %s, up to %s), and this is another one: it was restored, upgraded or moved",
			s.elsewhere.SystemID, s.elsewhere.Checkpoint)}
	case src == nil && slot == nil:
		return adoption{step: stepIntend}
	case src == nil:
		return adoption{stepGap, 0, to, "the slot exists, and this store did not make it: the store is new or was lost, or the slot is another postman's: then name another one (POSTMAN_SLOT)"}
	case src.State == outbox.SourceStreaming && s.another() != "" && s.lacksNothing():
		return adoption{step: stepTurn, from: src.Checkpoint, to: s.left}
	case src.State == outbox.SourceStreaming && s.another() != "":
		return s.branch(to)
	case src.State == outbox.SourceIntended && slot == nil:
		return adoption{step: stepCreate}
	case slot == nil:
		return adoption{stepGap, src.Checkpoint, 0, "the slot is gone: it was dropped, or the server was restored or failed over without it"}
	case slot.Lost():
		return adoption{stepGap, src.Checkpoint, 0, "the slot is invalidated (" + slot.Why() + "): Postgres removed WAL that it still needed"}
	case src.State == outbox.SourceIntended:
		return adoption{step: stepTake, to: slot.Confirmed}
	case slot.Confirmed > src.Checkpoint:
		return adoption{stepGap, src.Checkpoint, slot.Confirmed, "the slot was confirmed beyond what this store covers: it was recreated or advanced, or the store was restored from a copy"}
	case s.unpublished() != "":
		return adoption{stepGap, min(lastLooked(src), src.Checkpoint), 0, s.unpublished()} // the stream may have passed over what was committed since
	default:
		return adoption{step: stepResume, from: src.Checkpoint, to: slot.Confirmed}
	}
}

// another says why the server is not the one that the store covers, nor one that went on from there; empty: it is.
func (s *situation) another() string {
	before, now := s.src.Server.Timeline, s.db.Timeline
	switch {
	case before != 0 && before != now && (s.left == 0 || s.src.Checkpoint > s.left):
		return cdc.BranchOff(before, now, s.left, s.src.Checkpoint)
	case s.db.WALEnd < s.src.Checkpoint:
		return "the server's log ends before what the store covers: it was restored or failed over to an older state"
	case before == now && s.db.Slot != nil && s.db.Slot.Restart < s.src.Server.Restart:
		return "the slot stands where it stood before it was last seen: the server was restored from an older copy, and has been written to since, or somebody made the slot anew from another"
	}
	return ""
}

// lacksNothing says whether the server is that of a standby which was promoted without the end of the log, and nothing was committed there that
// the store knows of: positions move on without a commit, too, and are confirmed. The slot has to reach back to where both are the same.
func (s *situation) lacksNothing() bool {
	slot := s.db.Slot
	return s.left != 0 && s.bare != 0 && s.bare <= s.left && slot != nil && !slot.Lost() && slot.Confirmed <= s.left && s.unpublished() == ""
}

// branch is the gap before a server that is an older state of the one that the store covers, or another branch of it. From where both are the
// same, or else from where the slot stands, it is streamed: what was committed there since is looked at, under another epoch.
func (s *situation) branch(to position.LSN) adoption {
	from := cmp.Or(s.left, to, s.src.Checkpoint)
	if to != 0 {
		to = max(to, s.left)
	}
	if s.unpublished() != "" {
		to = 0
	}
	return adoption{stepGap, min(from, s.src.Checkpoint), to, s.another()}
}

// unpublished says what became of publications that the slot needs for what it has not sent yet: it decodes with the catalog of the past.
func (s *situation) unpublished() string {
	ids, missing := s.db.PublicationIDs(s.slot)
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("the publication %s was dropped: what was committed since cannot be streamed, and one that is made now does not serve what lies before it", strings.Join(missing, " and "))
	case s.src.Server.Publications != "" && ids != s.src.Server.Publications:
		return "a publication was dropped and made again: what was committed between was not published"
	}
	return ""
}

// GapError says that the store and the slot do not belong together, and what an operator can do.
type GapError struct {
	Slot     string
	From, To position.LSN
	Reason   string
}

// Error is for the operator: what is missing, and the way out.
func (e *GapError) Error() string {
	span := fmt.Sprintf("The store covers the changes up to %s", e.From)
	if e.From == 0 {
		span = "The store covers nothing yet"
	}
	if e.To != 0 {
		span += fmt.Sprintf("; the slot goes on at %s", e.To)
	}
	return fmt.Sprintf("slot %q: %s.\n  %s; what was committed between is not known to postman.\n"+
		"  → If that is right, record it as a gap and go on from here, in a new epoch: postman setup --accept-gap\n"+
		"  → If the server or the store is the wrong one, point DATABASE_URL or STORE_URL at the right one.", e.Slot, e.Reason, span)
}
