package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
)

// reloadPatience bounds a reload: altering a publication waits for a VACUUM of the table.
const reloadPatience = 2 * time.Minute

// Reload reads rules and templates again. All that can fail is done before anything live is touched: a set with any error
// leaves the live one in place, and the error says what is wrong with it.
func (d *Daemon) Reload(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadPatience, errors.New("the reload took too long: does something lock a table whose publication has to change?"))
	defer cancel()
	d.reloading.Lock()
	defer d.reloading.Unlock()
	defer sparing()()
	defer func() { d.noteTrouble("reload", err) }()
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return d.reloadWith(ctx, conn)
}

func (d *Daemon) reloadWith(ctx context.Context, conn *pgx.Conn) error {
	d.outlook.refused = nil
	set, err := (&loader{d.config, conn, d.lookup, true}).load(ctx)
	if err != nil {
		return fmt.Errorf("the rules were not reloaded, those from %s stay live:\n%w", d.live.Load().loaded.Format(time.TimeOnly), err)
	}
	before := d.live.Load()
	// What the live rules have missed is recorded before it is mended unawares. Those that go miss nothing any more.
	db, err := cdc.Inspect(ctx, conn, d.config.Slot)
	stay := staying(watchers(before.source.Rules, d.lastSeen), set)
	if err == nil {
		err = d.recordMissed(ctx, db, set.catalog, stay)
	}
	if err != nil {
		return err
	}
	// What is missing comes first, and what is too much last: a table that is published and not watched costs a little, one that is
	// watched and not published is silence.
	p := &preparation{config: d.config, conn: conn, store: d.store, needs: set.needs, catalog: set.catalog, then: "it is reloaded by itself, some seconds later"}
	if err := p.publish(ctx, db); err != nil {
		if _, sql := errors.AsType[*SQLError](err); sql {
			d.outlook.refused, d.outlook.asked = set, set
		}
		return fmt.Errorf("the rules were not reloaded, those from %s stay live: what they need is not published: %w", before.loaded.Format(time.TimeOnly), err)
	}
	if p.published != 0 { // it may have waited, and others have altered what else there is
		if err := d.recordMissed(ctx, p.after, set.catalog, stay); err != nil {
			return err
		}
	}
	if err := set.register(ctx, d.store); err != nil {
		return err
	}
	if err := d.keepRelays(ctx, set); err != nil {
		return err
	}
	d.outlook.asked = nil
	set.fresh = newRules(before, set, p.since)
	d.goLive(set)
	d.dispatch.Wake()
	d.glance()
	if err := p.trim(ctx, db, nil); err != nil {
		d.log.Warn("taking out of the publications what is not needed any more", "error", err) // the next look tries again
	}
	d.setSurplus(p.surplus)
	return errors.Join(d.noteWatched(ctx, p.after), d.noteRules(ctx))
}

// staying are the rules that a set has too, on the same table, whatever that is called by now.
func staying(before []watching, after *live) (list []watching) {
	for _, w := range before {
		i := slices.IndexFunc(after.source.Rules, func(r *rules.Rule) bool {
			return (r.Name == w.rule || r.Was == w.rule) && r.On.Message == "" && w.was.of(r.On.Table, after.catalog)
		})
		if i >= 0 {
			w.on = after.source.Rules[i].On
			list = append(list, w)
		}
	}
	return list
}

// reloadAgain tries a reload again that was refused for what was not published, once a DBA has done what it asked for.
func (d *Daemon) reloadAgain(ctx context.Context, conn *pgx.Conn, db *cdc.Database) {
	set := d.outlook.refused
	if set == nil {
		return
	}
	if plan, err := cdc.PlanPublications(db, d.config.Slot, set.needs, set.catalog); err != nil || len(plan.Missing) > 0 {
		return
	}
	err := d.reloadWith(ctx, conn)
	d.noteTrouble("reload", err)
	if err != nil && ctx.Err() == nil {
		d.report.report(ctx, err, "", "reload")
	}
}

// glance has the daemon look at the database soon.
func (d *Daemon) glance() {
	select {
	case d.peek <- struct{}{}:
	default: // it will anyway
	}
}

// openWatcher begins to watch, before the rules are read for the first time: what is saved from then on is noticed. It watches
// the folders: editors replace files, and Kubernetes swaps a link.
func (d *Daemon) openWatcher() error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching rules and templates: %w", err)
	}
	d.watcher = watcher
	d.defers(func() { d.close("watcher", watcher.Close()) })
	return d.addFolders(watcher)
}

// watch reloads when a rule file or a template changes, and when it is asked to.
func (d *Daemon) watch(ctx context.Context) {
	const settle = 200 * time.Millisecond // an editor's save is several events
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	again := false // the last reload failed for what passes, and is tried again
	reload := func() {
		if again = d.reloadNow(ctx, again); again {
			timer.Reset(reloadAgainAfter)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-d.watcher.Events:
			if d.concerns(e) {
				timer.Reset(settle)
			}
		case err := <-d.watcher.Errors: // events were lost, for one: whatever they said, look
			d.log.Warn("watching rules and templates", "error", err)
			timer.Reset(settle)
		case <-d.reload:
			reload()
		case <-timer.C:
			reload()
		}
	}
}

// reloadAgainAfter is the pause after a reload that failed because the database could not be asked: nobody would save the files again for
// that.
const reloadAgainAfter = 5 * time.Second

// RequestReload has rules and templates read again soon. What is wrong with them is reported.
func (d *Daemon) RequestReload() {
	select {
	case d.reload <- struct{}{}:
	default: // it is asked for already
	}
}

// reloadNow reloads, and says whether it failed for what passes by itself. That is told of once, and not when it is tried again.
func (d *Daemon) reloadNow(ctx context.Context, again bool) (passing bool) {
	// A folder that was replaced as a whole is another one by now; watching one again that is watched changes nothing.
	err := errors.Join(d.addFolders(d.watcher), d.Reload(ctx))
	passing = cdc.Passing(err)
	if err != nil && ctx.Err() == nil && (!again || !passing) {
		d.report.report(ctx, err, "", "reload")
	}
	return passing
}

func (d *Daemon) addFolders(watcher *fsnotify.Watcher) error {
	for _, f := range d.folders() {
		if err := watcher.Add(f); err != nil {
			return fmt.Errorf("watching %s: %w", f, err)
		}
	}
	return nil
}

// folders are those that are watched.
func (d *Daemon) folders() []string {
	rules := filepath.Clean(d.config.Rules)
	if info, err := os.Stat(rules); err == nil && !info.IsDir() {
		rules = filepath.Dir(rules)
	}
	return []string{filepath.Clean(d.config.Templates), rules}
}

// concerns says whether an event may have changed what was loaded. The store and its log may lie in the same folder, and
// change all the time.
func (d *Daemon) concerns(e fsnotify.Event) bool {
	if e.Has(fsnotify.Chmod) {
		return false
	}
	switch filepath.Ext(e.Name) {
	case ".yaml", ".yml", ".html":
		return true
	}
	// The link that Kubernetes swaps; a folder that was replaced.
	return filepath.Base(e.Name) == "..data" || slices.Contains(d.folders(), filepath.Clean(e.Name))
}

// housekeep looks at the database, blanks what has expired, and keeps the journal within its bounds.
func (d *Daemon) housekeep(ctx context.Context) {
	const tidyEvery = time.Minute
	joining := &joining{store: d.store, source: d.source, done: outbox.JournalPlace{Commit: d.source.Checkpoint}}
	tidy, look := time.NewTicker(tidyEvery), time.NewTimer(d.outlook.every)
	defer tidy.Stop()
	defer look.Stop()
	defer func() {
		d.reloading.Lock()
		defer d.reloading.Unlock()
		d.hangUp(ctx)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tidy.C:
			_, err := d.store.Blank(ctx, now)
			tidying := errors.Join(d.prune(ctx, now), joining.join(ctx, now.Add(-joinAfter)))
			if ctx.Err() == nil {
				d.setTrouble("blanking sensitive values", err)
				d.setTrouble("tidying the journal", tidying)
			}
		case <-look.C:
			look.Reset(d.lookNow(ctx))
		case <-d.peek:
			look.Reset(d.lookNow(ctx))
		}
	}
}
