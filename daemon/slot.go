package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/position"
)

// SlotStatus is how the slot does, as the server said when it was looked at last.
type SlotStatus struct {
	Name      string `json:"name"`
	WALStatus string `json:"wal_status"` // reserved, extended, unreserved, lost (pg_replication_slots in the Postgres documentation)
	Active    bool   `json:"active"`
	// Inactive is since when nobody has read it; zero: somebody does, or that is not known.
	Inactive time.Time `json:"inactive_since,omitzero"`
	Retained int64     `json:"retained_bytes"` // of the log, which the server keeps for the slot
	// Safe is how much may still be written to the log before the slot is in danger; absent: nothing limits what it holds back.
	Safe  *int64 `json:"safe_wal_size_bytes,omitempty"`
	Limit int64  `json:"max_slot_wal_keep_size_bytes,omitempty"`
	// Rate is by how much Safe has shrunk, or where there is no limit Retained has grown, in bytes a second.
	Rate float64 `json:"bytes_per_second"`
	// LostAt is when the slot will be lost if that goes on; zero: it will not.
	LostAt   time.Time `json:"lost_at,omitzero"`
	Failover bool      `json:"failover"` // standbys may keep a copy of it
	Level    SlotLevel `json:"level"`
	Note     string    `json:"note,omitempty"` // what is wrong, for a person
	Seen     time.Time `json:"seen"`
}

// SlotLevel says how much of a danger there is.
type SlotLevel string

// The levels. What is critical makes the daemon unhealthy.
const (
	SlotOK       SlotLevel = "ok"
	SlotWarning  SlotLevel = "warning"
	SlotCritical SlotLevel = "critical"
)

// From where on what a slot holds back is told of.
const (
	warnBefore     = 24 * time.Hour // of being lost
	criticalBefore = time.Hour
	muchRetained   = 10 << 30 // where nothing limits it
)

// trendOver is over what time the rate is taken: long enough that a checkpoint or a burst is not taken for a trend.
const trendOver = 10 * time.Minute

// trend keeps what the last looks saw of the slot.
type trend struct{ seen []SlotStatus }

// add takes a look in and completes it: with the rate since the oldest look that is kept, and what comes of it.
func (t *trend) add(s SlotStatus, idleLimit time.Duration) SlotStatus {
	for len(t.seen) > 0 && s.Seen.Sub(t.seen[0].Seen) > trendOver {
		t.seen = t.seen[1:]
	}
	if len(t.seen) > 0 {
		s.Rate = t.seen[0].rate(&s)
	}
	t.seen = append(t.seen, s)
	s.assess(idleLimit)
	return s
}

// rate is by how much the slot came nearer to its loss from one look to a later one, in bytes a second; never below 0.
func (s *SlotStatus) rate(later *SlotStatus) float64 {
	seconds := later.Seen.Sub(s.Seen).Seconds()
	nearer := later.Retained - s.Retained
	if s.Safe != nil && later.Safe != nil {
		nearer = *s.Safe - *later.Safe
	}
	if seconds <= 0 {
		return 0
	}
	return max(0, float64(nearer)/seconds)
}

// slotStatus is what a database says of its slot; nil: it has none.
func slotStatus(db *cdc.Database, now time.Time) *SlotStatus {
	if db.Slot == nil {
		return nil
	}
	s := &SlotStatus{
		Name: db.Slot.Name, WALStatus: db.Slot.WALStatus, Active: db.Slot.ActivePID != 0, Inactive: db.Slot.Inactive,
		Retained: distance(db.Slot.Restart, db.WALEnd), Safe: db.Slot.SafeSize, Limit: max(0, db.KeepSize), Failover: db.Slot.Failover, Seen: now,
	}
	if db.Slot.Lost() {
		s.WALStatus, s.Note = "lost", db.Slot.Why()
	}
	if waiting := now.Sub(s.Inactive); !s.Inactive.IsZero() && waiting > 0 {
		s.Rate = float64(distance(db.Slot.Confirmed, db.WALEnd)) / waiting.Seconds() // on the average since
	}
	return s
}

func distance(from, to position.LSN) int64 {
	if from == 0 || to < from {
		return 0
	}
	return int64(to - from)
}

// assess says when the slot will be lost, and how bad that is.
func (s *SlotStatus) assess(idleLimit time.Duration) {
	if s.Safe != nil && *s.Safe > 0 && s.Rate > 0 {
		if left := float64(*s.Safe) / s.Rate; left < float64(1000*warnBefore/time.Second) {
			s.LostAt = s.Seen.Add(time.Duration(left * float64(time.Second)))
		}
	}
	idle := s.Inactive.Add(idleLimit)
	byIdling := idleLimit > 0 && !s.Inactive.IsZero() && (s.LostAt.IsZero() || idle.Before(s.LostAt))
	if byIdling {
		s.LostAt = idle
	}
	left := s.LostAt.Sub(s.Seen)
	s.Level = SlotOK
	switch {
	case s.WALStatus == "lost":
		s.Level, s.Note = SlotCritical, fmt.Sprintf("slot %q is lost: %s", s.Name, s.Note)
	case s.WALStatus == "unreserved" || s.Safe != nil && *s.Safe <= 0:
		s.Level, s.Note = SlotCritical, fmt.Sprintf("slot %q is lost at the next checkpoint: it holds back more than max_slot_wal_keep_size (%s) allows", s.Name, Bytes(s.Limit))
	case !s.LostAt.IsZero() && left < warnBefore:
		s.Level = SlotWarning
		if left < criticalBefore {
			s.Level = SlotCritical
		}
		s.Note = fmt.Sprintf("slot %q holds back %s of the log, and is lost in %s at this rate (%s/s of %s that max_slot_wal_keep_size leaves)",
			s.Name, Bytes(s.Retained), roughly(left), Bytes(int64(s.Rate)), Bytes(deref(s.Safe)))
		if byIdling {
			s.Note = fmt.Sprintf("nobody has read slot %q since %s, and it is lost in %s (idle_replication_slot_timeout)", s.Name, s.Inactive.Format(time.DateTime), roughly(left))
		}
	case s.Safe != nil && *s.Safe < s.Limit/2:
		s.Level, s.Note = SlotWarning, fmt.Sprintf("slot %q holds back %s of the log, and max_slot_wal_keep_size leaves it %s", s.Name, Bytes(s.Retained), Bytes(*s.Safe))
	case s.Limit == 0 && s.Retained > muchRetained:
		s.Level, s.Note = SlotWarning, fmt.Sprintf("slot %q holds back %s of the log, and nothing limits that until the server's disk is full (max_slot_wal_keep_size is -1)", s.Name, Bytes(s.Retained))
	}
}

func deref(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// roughly is a duration in words that promise no more than is known.
func roughly(d time.Duration) string {
	switch {
	case d <= 0:
		return "no time"
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Bytes is a number of bytes for a person.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 3; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[i])
}

// watchSlot takes a look at the slot in, and tells of a danger that is new, or over.
func (d *Daemon) watchSlot(db *cdc.Database) {
	s := slotStatus(db, time.Now())
	if s == nil {
		return
	}
	now := d.outlook.slot.add(*s, db.IdleLimit)
	before := d.slot.Swap(&now)
	if before != nil && before.Level == now.Level || before == nil && now.Level == SlotOK {
		return
	}
	switch now.Level {
	case SlotOK:
		d.log.Info("the slot is out of danger", "slot", now.Name, "retained", now.Retained)
	case SlotWarning:
		d.log.Warn("the slot may be lost", "slot", now.Name, "why", now.Note, "retained", now.Retained)
	case SlotCritical:
		d.log.Error("the slot is about to be lost, and with it what it has not sent yet", "slot", now.Name, "why", now.Note, "retained", now.Retained)
	}
}

// slotNow asks the database of a daemon that does not run how its slot does. What keeps it from that is the note.
func slotNow(ctx context.Context, c Config) *SlotStatus {
	if c.DatabaseURL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, string(c.DatabaseURL))
	if err != nil {
		return &SlotStatus{Name: c.Slot, Level: SlotWarning, Note: "the database cannot be asked how the slot does: " + err.Error()}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	db, err := cdc.Inspect(ctx, conn, c.Slot)
	if err != nil {
		return &SlotStatus{Name: c.Slot, Level: SlotWarning, Note: "the database does not say how the slot does: " + err.Error()}
	}
	s := slotStatus(db, time.Now())
	if s != nil {
		s.assess(db.IdleLimit)
	}
	return s
}
