package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// verifyEvery is how often the publications are compared with the rules. Postgres says nothing in the stream when a table
// leaves a publication, as one does that is dropped and made again: its changes are just not there.
const verifyEvery = time.Minute

// verify compares the publications with the live rules. What does not fit is mended, and recorded as a gap of the rules that
// it touches, from the last time that it did fit.
func (d *Daemon) verify(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reloadPatience)
	defer cancel()
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	now := d.batch.durable() // before the catalog is read: what is found to fit has fitted up to here
	set := d.live.Load().rules
	catalog, err := cdc.LoadCatalog(ctx, conn, tables(set.Needs()))
	if err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	db, err := cdc.Inspect(ctx, conn, d.config.Slot)
	if err != nil {
		return err
	}
	statements, err := cdc.PlanPublications(db, d.config.Slot, set.Needs(), catalog)
	if err == nil && len(statements) == 0 {
		d.verified = now
		return nil
	}
	fresh, err := (&loader{d.config, conn, d.lookup, false}).load(ctx)
	if err != nil {
		return fmt.Errorf("the publications do not fit the rules any more, and the rules do not load: %w", err)
	}
	return d.remedy(ctx, &preparation{config: d.config, conn: conn, store: d.store, needs: fresh.needs, catalog: fresh.catalog}, db, fresh.live)
}

// remedy records what the publications left out since they fitted last, and makes them fit.
func (d *Daemon) remedy(ctx context.Context, p *preparation, db *cdc.Database, fresh *live) error {
	var touched []string
	for _, r := range d.live.Load().rules.Rules {
		if r.On.Message != "" || published(db, p.config.Slot, r.On) {
			continue
		}
		touched = append(touched, r.Name)
		err := d.store.SaveGap(ctx, outbox.Gap{
			Source: d.source.ID, Epoch: d.source.Epoch, Rule: r.Name, From: d.verified, To: max(d.batch.durable(), d.stream.Status().ServerEnd), Lost: true,
			Reason: fmt.Sprintf("table %s was not published: it was made again, or somebody altered the publication", r.On.Table),
		})
		if err != nil {
			return fmt.Errorf("recording the gap of rule %q: %w", r.Name, err)
		}
	}
	if err := p.republish(ctx); err != nil {
		return fmt.Errorf("the publications do not fit the rules any more (rules that miss changes: %q): %w", touched, err)
	}
	if err := fresh.register(ctx, d.store); err != nil {
		return err
	}
	d.goLive(ctx, fresh)
	if err := d.recordBroken(ctx, fresh.broken, d.verified); err != nil {
		return err
	}
	d.report.report(ctx, fmt.Errorf("the publications did not fit the rules any more, and were mended; rules that missed changes: %q", touched), "", "publications")
	d.verified = d.batch.durable()
	return nil
}

// published says whether a rule's table is in the publications of its operations.
func published(db *cdc.Database, slot string, on rules.On) bool {
	return !slices.ContainsFunc(on.Ops, func(op cdc.Op) bool {
		suffix := map[cdc.Op]string{cdc.Insert: "_ins", cdc.Update: "_upd", cdc.Delete: "_del", cdc.Truncate: "_del"}[op]
		p, ok := db.Publications[slot+suffix]
		if !ok {
			return true
		}
		_, ok = p.Tables[on.Table]
		return !ok
	})
}

// verifyNow verifies and tells of what came in between.
func (d *Daemon) verifyNow(ctx context.Context) {
	err := d.verify(ctx)
	if ctx.Err() == nil {
		d.setTrouble("publications", err)
	}
}
