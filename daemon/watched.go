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

// noteWatched notes what the live rules watch, and what those did that are broken: theirs may be a table that has another name for a while.
// Should that fail, people are told: the next start would not notice what it misses.
func (d *Daemon) noteWatched(ctx context.Context) error {
	watched := make(watches)
	for _, w := range watchers(d.live.Load().source.Rules, d.lastSeen) {
		watched[w.rule] = w.was
	}
	d.watched = watched
	text, err := json.Marshal(watched)
	if err == nil {
		err = d.store.SaveNote(ctx, d.source.ID, watchedNote, text)
	}
	if err != nil {
		return fmt.Errorf("noting what the rules watch: %w", err)
	}
	return d.noteForReplays(ctx)
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

// oid is the table that had a name when it was there last; 0: it is not known.
func (w watches) oid(name cdc.TableName) uint32 {
	for _, one := range w {
		if one.Table == name && one.OID != 0 {
			return one.OID
		}
	}
	return 0
}

// strays are the tables, by their OIDs, whose names a catalog has not.
func (w watches) strays(catalog *cdc.Catalog) map[uint32]cdc.TableName {
	all := make(map[uint32]cdc.TableName)
	for _, one := range w {
		if one.OID != 0 && catalog.Tables[one.Table] == nil {
			all[one.OID] = one.Table
		}
	}
	return all
}

// still tells what a rule watched of what it watches.
func (w watches) still(catalog *cdc.Catalog) func(*rules.Rule) watch {
	return func(r *rules.Rule) watch {
		before, known := w[r.Name]
		if !known || !before.of(r.On.Table, catalog) {
			return watch{}
		}
		before.Ops = slices.DeleteFunc(slices.Clone(r.On.Ops), func(op cdc.Op) bool { return !slices.Contains(before.Ops, op) })
		return before
	}
}

// of says whether it was of what has a name: by that name, or as the same table under another.
func (w *watch) of(name cdc.TableName, catalog *cdc.Catalog) bool {
	t := catalog.Tables[name]
	return w.Table == name || t != nil && w.OID != 0 && w.OID == t.OID
}
