package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/outbox/sqlite"
)

// Start opens the store, waits for the database, makes slot and publications fit, loads the rules and begins. A database that
// is down, or comes up later, is waited for until the context ends; meanwhile the status says so. After an error nothing is
// left behind.
func (d *Daemon) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			d.undo()
		}
	}()
	d.started = time.Now()
	defer sparing()()
	d.about("opening the store")
	if err := d.openStore(ctx); err != nil {
		return err
	}
	if err := d.listen(ctx); err != nil {
		return err
	}
	if err := d.openWatcher(); err != nil {
		return err
	}
	set, err := d.await(ctx)
	if err != nil {
		return err
	}
	d.warnOfLookups(ctx)
	if err := set.register(ctx, d.store); err != nil {
		return err
	}
	if err := d.keepRelays(ctx, set); err != nil {
		return err
	}
	d.goLive(set)
	if err := d.recover(ctx); err != nil {
		return err
	}
	if err := d.remember(ctx, set); err != nil {
		return err
	}
	if err := errors.Join(d.noteWatched(ctx, d.found), d.noteRules(ctx)); err != nil {
		return err
	}
	return d.begin(ctx)
}

// lockPatience is how long the store may be somebody else's: a command that looks at it, or a daemon that is ending.
const lockPatience = 3 * time.Second

func (d *Daemon) openStore(ctx context.Context) (err error) {
	var store *sqlite.Store
	for began := time.Now(); ; {
		store, err = sqlite.Open(d.config.StorePath(), sqlite.Options{}) //nolint:contextcheck // its writer outlives the call
		if err == nil || !errors.Is(err, outbox.ErrLocked) || time.Since(began) > lockPatience {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	d.store = store
	d.defers(func() { d.close("store", d.store.Close()) })
	return nil
}

// How long the start leaves a database alone that is not there.
const (
	firstWait = 200 * time.Millisecond
	mostWait  = 10 * time.Second
)

// await gets ready, however often it takes while what is in the way passes by itself.
func (d *Daemon) await(ctx context.Context) (*live, error) {
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		set, err := d.getReady(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil {
			d.setTrouble("start", nil)
		}
		if !cdc.Passing(err) {
			return set, err
		}
		d.setTrouble("start", fmt.Errorf("waiting for the database: %w", err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// getReady does all of the start that asks the database.
func (d *Daemon) getReady(ctx context.Context) (set *live, err error) {
	d.about("connecting to the database")
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	d.about("connecting for the look-ups")
	lookup, err := d.openLookup(ctx)
	if err != nil {
		return nil, err
	}
	end := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		lookup.Close(ctx)
	}
	defer func() {
		if err != nil {
			end()
			return
		}
		d.lookup = lookup
		d.defers(end)
	}()
	d.about("checking the rules against the database")
	flushed, inserted, err := cdc.WALEnd(ctx, conn) // before the catalog is read: what is found to fit has fitted up to here
	if err != nil {
		return nil, err
	}
	d.outlook.end.set(flushed)
	settled, err := cdc.Settled(ctx, conn, d.config.Slot)
	if err != nil {
		return nil, err
	}
	if set, err = (&loader{d.config, conn, lookup, false}).load(ctx); err != nil {
		return nil, err
	}
	d.about("making publications and slot fit")
	if err = d.prepare(ctx, conn, set); err == nil {
		if d.outlook.verified = max(inserted, d.source.Checkpoint); !settled { // the slot may have been made since
			d.outlook.verified = lastLooked(&d.source)
		}
	}
	return set, err
}

// about notes what the start is at, for those who look.
func (d *Daemon) about(step string) { d.step.Store(&step) }

// connectPatience bounds how long a connection may take to come about.
const connectPatience = 30 * time.Second

func (d *Daemon) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, string(d.config.DatabaseURL))
	if err != nil {
		return nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	return conn, nil
}

// openLookup connects to where recipients are asked for.
func (d *Daemon) openLookup(ctx context.Context) (*dispatch.Lookup, error) {
	url := string(d.config.LookupURL)
	if url == "" {
		url = string(d.config.DatabaseURL)
	}
	lookup, err := dispatch.OpenLookup(ctx, url, dispatch.LookupOptions{
		Conns: d.config.Lookup.Connections, Timeout: time.Duration(d.config.Lookup.Timeout), Log: d.log,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the look-ups: %w", err)
	}
	return lookup, nil
}

// warnOfLookups says when the look-ups' role could do more than ask.
func (d *Daemon) warnOfLookups(ctx context.Context) {
	warning, err := d.lookup.Warning(ctx)
	if err != nil {
		d.log.Warn("asking what the look-ups' role may do", "error", err)
	}
	if warning != "" {
		d.log.Warn("the look-ups' role may do too much", "warning", warning)
	}
}

// prepare makes the database and the store fit, and arms live sending.
func (d *Daemon) prepare(ctx context.Context, conn *pgx.Conn, set *live) (err error) {
	p := &preparation{config: d.config, conn: conn, store: d.store, needs: set.needs, catalog: set.catalog, log: d.log, lenient: true, about: func(step string) {
		d.about(step)
		d.log.Info("starting", "step", step)
	}}
	p.missed = func(ctx context.Context, src outbox.Source, db *cdc.Database) error {
		if err := set.register(ctx, d.store); err != nil {
			return err
		}
		// Their tables are not published that were when the last run ended.
		d.source, d.outlook.verified, d.watched = src, lastLooked(&src), p.watched
		list := set.source.Rules
		if p.published != 0 { // those that are broken are told of as such, and their tables may have been taken out
			list = set.rules.Rules
		}
		return d.recordMissed(ctx, db, p.catalog, watchers(list, p.watched.still(p.catalog)))
	}
	if d.source, err = p.run(ctx); err != nil {
		return err
	}
	d.setSurplus(p.surplus)
	d.found = p.after
	set.strays = d.watched.strays(set.catalog)
	if p.before.Slot == nil {
		return nil // all rules begin where the slot does
	}
	for _, r := range set.rules.Rules {
		if at := p.since(r); at != 0 {
			set.fresh = append(set.fresh, newRule{name: r.Name, published: at})
		}
	}
	return nil
}

func (d *Daemon) recover(ctx context.Context) error {
	r, err := d.store.Recover(ctx, time.Now())
	if err != nil {
		return fmt.Errorf("recovering the outbox: %w", err)
	}
	if r != (outbox.Recovered{}) {
		d.log.Warn("the last run ended in the middle of its work", "sent_again", r.Requeued, "uncertain", r.Uncertain, "provisional", r.Discarded)
	}
	if r.GivenUp > 0 {
		d.report.report(ctx, fmt.Errorf("%d matches or messages were given up: %d processes in a row ended with them in hand, and they may be why"+
			"\n  → postman outbox list --state failed; once the cause is gone, postman outbox retry", r.GivenUp, outbox.MostInterrupted), "", "interrupted")
	}
	return nil
}
