package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
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
	// Members are the table's places in the publications, see [cdc.Database.Membership]; none: not published, or not known.
	Members map[cdc.Op]string `json:",omitempty"`
}

// watches are what rules were on, by their names.
type watches map[string]watch

// noteWatched notes what the live rules watch, and what those did that are broken: theirs may be a table that has another name for a while.
// From where on what it tells is known to be so, the caller notes behind it, and not before.
func (d *Daemon) noteWatched(ctx context.Context, db *cdc.Database) error {
	watched := make(watches)
	for _, w := range watchers(d.live.Load().source.Rules, d.lastSeen) {
		w.was.Members = make(map[cdc.Op]string)
		for _, op := range w.was.Ops {
			if m := db.Membership(d.config.Slot, w.was.OID, op); m != "" {
				w.was.Members[op] = m
			}
		}
		watched[w.rule] = w.was
	}
	if reflect.DeepEqual(watched, d.watched) && d.noted {
		return nil
	}
	if err := d.notePublished(ctx, db); err != nil {
		return err
	}
	text, err := json.Marshal(watched)
	if err == nil {
		err = d.note(ctx, watchedNote, text)
	}
	if err != nil {
		return fmt.Errorf("noting what the rules watch: %w", err)
	}
	d.watched, d.noted = watched, true
	return nil
}

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
		if !known { // as the last run may have known it
			before, known = w[r.Was]
		}
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
