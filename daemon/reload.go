package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Reload reads rules and templates again. All that can fail is done before anything live is touched: a set with any error
// leaves the live one in place, and the error says what is wrong with it.
func (d *Daemon) Reload(ctx context.Context) (err error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	defer func() { d.setTrouble("reload", err) }()
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	set, err := (&loader{d.config, conn, d.lookup, d.store, true}).load(ctx)
	if err != nil {
		return fmt.Errorf("the rules were not reloaded, those from %s stay live:\n%w", d.live.Load().loaded.Format(time.TimeOnly), err)
	}
	// The publications come first: a table that is published and not watched costs a little, one that is watched and not
	// published is silence.
	p := &preparation{config: d.config, conn: conn, store: d.store, needs: set.needs, catalog: set.catalog}
	if err := p.republish(ctx); err != nil {
		return fmt.Errorf("the rules were not reloaded, the publications do not fit them: %w", err)
	}
	d.goLive(ctx, set.live)
	d.dispatch.Wake()
	return nil
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

// watch reloads when a rule file or a template changes.
func (d *Daemon) watch(ctx context.Context) {
	const settle = 200 * time.Millisecond // an editor's save is several events
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-d.watcher.Events:
			if d.concerns(e) {
				timer.Reset(settle)
			}
		case err := <-d.watcher.Errors:
			d.setTrouble("reload", fmt.Errorf("watching rules and templates: %w", err))
		case <-timer.C:
			d.reloadWatched(ctx)
		}
	}
}

func (d *Daemon) reloadWatched(ctx context.Context) {
	if err := d.Reload(ctx); err != nil && ctx.Err() == nil {
		d.ReportReload(ctx, err)
	}
}

// ReportReload tells people that a reload was refused.
func (d *Daemon) ReportReload(ctx context.Context, err error) {
	d.report.report(ctx, err, "", "reload")
}

func (d *Daemon) addFolders(watcher *fsnotify.Watcher) error {
	folders := []string{d.config.Templates, filepath.Dir(d.config.Rules)}
	if info, err := os.Stat(d.config.Rules); err == nil && info.IsDir() {
		folders[1] = d.config.Rules
	}
	for _, f := range folders {
		if err := watcher.Add(f); err != nil {
			return fmt.Errorf("watching %s: %w", f, err)
		}
	}
	return nil
}

// concerns says whether an event may have changed what was loaded. The store and its log may lie in the same folder, and
// change all the time.
func (d *Daemon) concerns(e fsnotify.Event) bool {
	if e.Has(fsnotify.Chmod) {
		return false
	}
	switch filepath.Ext(e.Name) {
	case ".yaml", ".yml", ".html", ".txt":
		return true
	}
	return filepath.Base(e.Name) == "..data" // the link that Kubernetes swaps
}

// housekeep blanks what has expired.
func (d *Daemon) housekeep(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			_, err := d.store.Blank(ctx, now)
			if ctx.Err() == nil {
				d.setTrouble("blanking sensitive values", err)
			}
		}
	}
}
