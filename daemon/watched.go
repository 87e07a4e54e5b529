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
}

// noteWatched notes what the live rules watch. Should that fail, people are told: the next start would not notice what it misses.
func (d *Daemon) noteWatched(ctx context.Context) error {
	watched := make(map[string]watch)
	for _, r := range d.live.Load().rules.Rules {
		if r.On.Message == "" {
			watched[r.Name] = watch{r.On.Table, r.On.Ops}
		}
	}
	text, err := json.Marshal(watched)
	if err == nil {
		err = d.store.SaveNote(ctx, d.source.ID, watchedNote, text)
	}
	if err != nil {
		return fmt.Errorf("noting what the rules watch: %w", err)
	}
	return nil
}

// missedWhileAway records which rules' tables are not published that were when the last run ended.
func (d *Daemon) missedWhileAway(ctx context.Context, src outbox.Source, db *cdc.Database, set *live) error {
	text, err := d.store.Note(ctx, src.ID, watchedNote)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil
	}
	watched := make(map[string]watch)
	if err == nil {
		err = json.Unmarshal(text, &watched)
	}
	if err != nil {
		return fmt.Errorf("reading what the rules watched: %w", err)
	}
	d.source, d.outlook.verified = src, src.Checkpoint
	return d.recordMissed(ctx, db, set, func(r *rules.Rule) []cdc.Op {
		before := watched[r.Name]
		if before.Table != r.On.Table {
			return nil
		}
		return slices.DeleteFunc(slices.Clone(r.On.Ops), func(op cdc.Op) bool { return !slices.Contains(before.Ops, op) })
	})
}
