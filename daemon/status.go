package daemon

import (
	"context"
	"encoding/hex"
	"time"

	"postman/dispatch"
	"postman/outbox"
)

// Status is what `postman status` prints; its JSON is a contract (docs/cli.md).
type Status struct {
	Version string `json:"version"`
	// Running is false when no daemon runs and the status was read from the store alone.
	Running bool `json:"running"`
	// Starting is true while a daemon waits for what it needs, and takes nothing in yet.
	Starting bool         `json:"starting,omitzero"`
	Healthy  bool         `json:"healthy"`
	Trouble  []string     `json:"trouble,omitempty"`  // what keeps it from being healthy, for a person
	Warnings []string     `json:"warnings,omitempty"` // what is not as it should be, and keeps it from nothing
	Started  time.Time    `json:"started,omitzero"`
	Mode     string       `json:"mode"`
	Stream   StreamStatus `json:"stream,omitzero"`
	Slot     *SlotStatus  `json:"slot,omitempty"` // nil: it is not known how it does, or there is none
	Rules    RulesStatus  `json:"rules,omitzero"`
	Relay    RelayStatus  `json:"relay,omitzero"`   // the first by preference
	Relays   []Relay      `json:"relays,omitempty"` // all of them

	Sources []SourceStatus `json:"sources"`
	Outbox  outbox.Counts  `json:"outbox"`
	Dead    *outbox.Dead   `json:"dead,omitempty"` // messages that died in the last 24 hours; nil: none
	Held    []HeldView     `json:"held"`           // what hold_over holds, as batches
	Gaps    []GapStatus    `json:"gaps"`
}

// StreamStatus says how far the stream is. The LSNs are a ladder: each is at most the one before.
type StreamStatus struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	Held      string    `json:"held,omitempty"` // why it stands still although it is connected
	ServerEnd string    `json:"server_end"`
	// ServerSeen is when the server was last known to end there.
	ServerSeen time.Time `json:"server_seen,omitzero"`
	Received   string    `json:"received"`
	Stored     string    `json:"stored"`
	Confirmed  string    `json:"confirmed"`
	Behind     int64     `json:"behind_bytes"`
	Refused    uint64    `json:"refused_messages"` // logical messages that were not transactional
	// Untaken are messages that no rule takes, by the names behind "postman.", since the start: twenty names, and how many more there were.
	Untaken map[string]int64 `json:"untaken_messages,omitempty"`
	// Unread counts the changes since the start that could not be read, and were put aside.
	Unread int64 `json:"unread_changes"`
	// Ignored counts the transactions since the start that made no matches for their replication origin, by its name.
	Ignored map[string]int64 `json:"ignored_transactions,omitempty"`
}

// RulesStatus says which rules are live.
type RulesStatus struct {
	Rules     int       `json:"rules"`
	Templates int       `json:"templates"`
	Loaded    time.Time `json:"loaded,omitzero"`
	// From is the LSN from which on they decide: each transaction that commits there or behind. Empty: none has come since they were loaded.
	From       string       `json:"from,omitempty"`
	New        []NewRule    `json:"new,omitempty"`         // those that came or changed since the start, latest first; at most 100
	Broken     []BrokenRule `json:"broken,omitempty"`      // those that do not decide
	ReloadFail string       `json:"reload_fail,omitempty"` // why the last reload was refused
	// Mismatches counts verdicts of the rules' index that trying every rule did not confirm. It is a defect where it is not 0.
	Mismatches int64 `json:"mismatches"`
}

// NewRule is a rule that is new or changed, and from where on it decides; empty: that is not known yet.
type NewRule struct {
	Rule string `json:"rule"`
	From string `json:"from,omitempty"`
}

// BrokenRule is a rule that does not decide, from where on, and what will make up for what it misses.
type BrokenRule struct {
	Rule   string `json:"rule"`
	From   string `json:"from"`
	Reason string `json:"reason"`
	Lost   bool   `json:"lost"`
	Mend   string `json:"mend,omitempty"`
}

// RelayStatus says how the relay does.
type RelayStatus struct{ dispatch.Status }

// Relay is how one relay does.
type Relay = dispatch.RelayStatus

// SourceStatus is a database that the store covers.
type SourceStatus struct {
	Database   string `json:"database"`
	SystemID   string `json:"system_id"`
	Slot       string `json:"slot"`
	Epoch      uint32 `json:"epoch"`
	Checkpoint string `json:"checkpoint"`
	Armed      string `json:"armed,omitempty"`
	// Journal is what a replay can read of the source.
	Journal JournalStatus `json:"journal"`
}

// JournalStatus says what the journal of a source covers; without Oldest it is empty.
type JournalStatus struct {
	Oldest string    `json:"oldest,omitempty"` // the first commit that is in it
	Epoch  uint32    `json:"epoch,omitempty"`  // of oldest; newest is of the present one
	Newest string    `json:"newest,omitempty"`
	From   time.Time `json:"from,omitzero"` // when that was
	To     time.Time `json:"to,omitzero"`
	Bytes  int64     `json:"bytes"`
}

// journalOf is the journal of a source, over all of its epochs.
func journalOf(ctx context.Context, store outbox.Store, src outbox.Source) (v JournalStatus, err error) {
	for epoch := uint32(1); epoch <= src.Epoch; epoch++ {
		s, err := store.JournalSpan(ctx, src.ID, epoch)
		if err != nil {
			return v, err
		}
		v.Bytes = max(v.Bytes, s.Bytes) // of all epochs
		if s.Oldest == 0 {
			continue
		}
		if v.Oldest == "" {
			v.Oldest, v.From, v.Epoch = s.Oldest.String(), s.From, epoch
		}
		v.Newest, v.To = s.Newest.String(), s.To
	}
	return v, nil
}

func shortHash[H ~[32]byte](h H) string { return hex.EncodeToString(h[:6]) }
