package daemon

import (
	"fmt"

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
	stepGap                // something is missing between them, and an operator has to say so
)

// adoption is a step and, for a gap, what is missing.
type adoption struct {
	step   step
	from   position.LSN // what the store covers
	to     position.LSN // where the slot goes on; zero: there is none
	reason string
}

// adopt compares a store's source with the slot that the database has. A slot that this store did not intend may have been
// made by anybody, and a slot that was confirmed beyond the store's checkpoint will never send again what lies between:
// both are gaps, and so is a slot that is gone. Nothing here is guessed to be harmless.
//
// Elsewhere is a source of the same database and slot in another cluster, if the store has one: after a move to a new server
// what was committed between the two is a gap as well.
func adopt(src, elsewhere *outbox.Source, slot *cdc.SlotInfo) adoption {
	to := position.LSN(0)
	if slot != nil && !slot.Lost() {
		to = slot.Confirmed
	}
	switch {
	case src == nil && elsewhere != nil:
		return adoption{stepGap, 0, to, fmt.Sprintf("the store covers this database on another server (system %s, up to %s), and this is another one: it was restored, upgraded or moved", elsewhere.SystemID, elsewhere.Checkpoint)}
	case src == nil && slot == nil:
		return adoption{step: stepIntend}
	case src == nil:
		return adoption{stepGap, 0, to, "the slot exists, and this store did not make it: the store is new or was lost, or the slot is somebody else's"}
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
	default:
		return adoption{step: stepResume, from: src.Checkpoint, to: slot.Confirmed}
	}
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
		"  → If that is right, record it as a gap and go on from here: postman setup --accept-gap\n"+
		"  → If the store is the wrong one, point STORE_URL at the right one.", e.Slot, e.Reason, span)
}
