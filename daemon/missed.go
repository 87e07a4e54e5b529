package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"postman/cdc"
	"postman/rules"
)

// lastSeen is what a live rule watched when the catalog was looked at last.
func (d *Daemon) lastSeen(r *rules.Rule) watch {
	w := watch{Table: r.On.Table, Ops: r.On.Ops, OID: d.lastOID(r.On.Table)}
	if before := d.watched[r.Name]; before.OID == w.OID {
		w.Members = before.Members
	}
	return w
}

// lastOID is the table that had a name when it was there last, be it before a restart; 0: it is not known. When the rules were loaded may be
// longer ago: the name may have been another table's since.
func (d *Daemon) lastOID(name cdc.TableName) uint32 {
	if oid := oidIn(d.outlook.catalog, name); oid != 0 {
		return oid
	}
	return cmp.Or(d.watched.oid(name), oidIn(d.live.Load().catalog, name))
}

// oidIn is the table that has a name in a catalog; 0: none has.
func oidIn(c *cdc.Catalog, name cdc.TableName) uint32 {
	if c == nil || c.Tables[name] == nil {
		return 0
	}
	return c.Tables[name].OID
}

// watching is a rule, what it is on, and what it was on.
type watching struct {
	rule string
	on   rules.On
	was  watch
}

// watchers are those of rules on tables.
func watchers(list []*rules.Rule, was func(*rules.Rule) watch) (all []watching) {
	for _, r := range list {
		if r.On.Message == "" {
			all = append(all, watching{r.Name, r.On, was(r)})
		}
	}
	return all
}

// recordMissed records what rules miss, from the last time on that their tables are known to have been published.
func (d *Daemon) recordMissed(ctx context.Context, db *cdc.Database, catalog *cdc.Catalog, list []watching) error {
	for _, b := range missing(db, d.config.Slot, catalog, list) {
		b.from = d.outlook.verified
		if err := d.breaks(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// missing are the rules that have missed changes: their tables are there, be it under another name, and not published for the operations
// that they were, or are others of the same name, which were published some time after they were made.
func missing(db *cdc.Database, slot string, catalog *cdc.Catalog, list []watching) (broken []breakage) {
	for _, w := range list {
		if len(w.was.Ops) == 0 {
			continue
		}
		if why := w.missed(db, slot, catalog); why != "" {
			broken = append(broken, breakage{rule: w.rule, by: byCatalog, lost: true, why: why})
		}
	}
	return broken
}

// missed says why changes of a rule's table have not been published since it was looked at last; empty: they have, or it is gone.
func (w *watching) missed(db *cdc.Database, slot string, catalog *cdc.Catalog) string {
	t := cmp.Or(catalog.Tables[w.on.Table], tableOf(catalog, w.was.OID))
	if why := catalog.Unwatchable[w.on.Table]; t == nil && why != "" {
		return fmt.Sprintf("the table %s is not published any more: %s", w.on.Table, why)
	}
	if t == nil {
		return ""
	}
	another := w.was.OID != 0 && w.was.OID != t.OID
	left := slices.ContainsFunc(w.was.Ops, func(op cdc.Op) bool {
		now := db.Membership(slot, t.OID, op)
		return now == "" || w.was.Members[op] != "" && w.was.Members[op] != now
	})
	if another || left {
		return fmt.Sprintf("the table %s was not published for a while: it was made again, or somebody altered the publication", t.TableName)
	}
	return ""
}

// tableOf is the table with an OID, whatever it is called; nil: it is not in the catalog.
func tableOf(catalog *cdc.Catalog, oid uint32) *cdc.Table {
	for _, t := range catalog.Tables {
		if oid != 0 && t.OID == oid {
			return t
		}
	}
	return nil
}

// published says whether a rule's table is in the publications of its operations.
func published(db *cdc.Database, slot string, catalog *cdc.Catalog, on rules.On) bool {
	t := catalog.Tables[on.Table]
	return t != nil && !slices.ContainsFunc(on.Ops, func(op cdc.Op) bool { return db.Membership(slot, t.OID, op) == "" })
}
