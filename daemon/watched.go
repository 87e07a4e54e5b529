package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// watchedNote is the name under which the store keeps what the rules watched when they went live. A table that left its publication
// while no daemon ran is told by it from one that was never in.
const watchedNote = "watched"

// watch is what a rule was on.
type watch struct {
	Table cdc.TableName
	Ops   []cdc.Op
	OID   uint32 // of the table, which another one of the same name has not; 0: not known
}

// noteWatched notes what the live rules watch. Should that fail, people are told: the next start would not notice what it misses.
func (d *Daemon) noteWatched(ctx context.Context) error {
	watched := make(watches)
	for _, r := range d.live.Load().rules.Rules {
		if r.On.Message == "" {
			watched[r.Name] = d.lastSeen(r)
		}
	}
	text, err := json.Marshal(watched)
	if err == nil {
		err = d.store.SaveNote(ctx, d.source.ID, watchedNote, text)
	}
	if err != nil {
		return fmt.Errorf("noting what the rules watch: %w", err)
	}
	return d.noteForReplays(ctx)
}

// missedWhileAway records which rules' tables are not published that were when the last run ended.
func (d *Daemon) missedWhileAway(ctx context.Context, src outbox.Source, db *cdc.Database, set *live) error {
	watched, err := readWatched(ctx, d.store, src)
	if err != nil {
		return err
	}
	d.source, d.outlook.verified = src, src.Checkpoint
	return d.recordMissed(ctx, db, set, watched.still)
}

// watches are what rules were on, by their names.
type watches map[string]watch

// readWatched reads what noteWatched noted; nothing, where no daemon ever ran.
func readWatched(ctx context.Context, store outbox.Store, src outbox.Source) (watches, error) {
	text, err := store.Note(ctx, src.ID, watchedNote)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil, nil
	}
	var watched watches
	if err == nil {
		err = json.Unmarshal(text, &watched)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the rules watched: %w", err)
	}
	return watched, nil
}

// still is what a rule watched of what it watches.
func (w watches) still(r *rules.Rule) watch {
	before := w[r.Name]
	if before.Table != r.On.Table {
		return watch{}
	}
	before.Ops = slices.DeleteFunc(slices.Clone(r.On.Ops), func(op cdc.Op) bool { return !slices.Contains(before.Ops, op) })
	return before
}
