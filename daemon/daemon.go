package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"postman/cdc"
	"postman/dispatch"
	"postman/outbox"
	"postman/position"
	"postman/templates"
)

// errClosed ends what waits for a daemon that stops.
var errClosed = errors.New("postman is stopping")

// Options is what a daemon is made of.
type Options struct {
	Config Config
	Log    *slog.Logger // nil: discard
	// Observe, if there is one, is told each outcome after it became durable.
	Observe func(outbox.Message, outbox.Outcome)
}

// Daemon is a running postman. New, Start, then Stop once; Reload at any time between.
type Daemon struct {
	config  Config
	log     *slog.Logger
	observe func(outbox.Message, outbox.Outcome)
	report  *reporter
	zone    *time.Location

	store    outbox.Store
	lookup   *dispatch.Lookup
	dispatch *dispatch.Dispatcher
	stream   *cdc.Stream
	batch    *gathering
	live     atomic.Pointer[live]
	source   outbox.Source
	started  time.Time
	step     atomic.Pointer[string] // what Start is about, until ready
	ready    atomic.Bool            // all of the above is there
	watcher  *fsnotify.Watcher
	reload   chan struct{} // holds one token: a reload is asked for
	revived  revivals
	peek     chan struct{} // holds one token: somebody wants the database to be looked at
	broken   *breakages
	addr     net.Addr
	public   net.Addr

	mailed     time.Time                   // when operators last got a mail of what is held; keepHeld has it
	held       chan struct{}               // holds one token: more waits in batches
	slot       atomic.Pointer[SlotStatus]  // as it was last seen; nil: not yet
	tally      tally                       // of what no rule was tried on
	mismatches atomic.Int64                // of the rules' index with what trying every rule says
	rebind     atomic.Bool                 // the stream is to resolve the rules of its tables anew
	outlook    outlook                     // but for its end, guarded by reloading
	watched    watches                     // as it was noted last; guarded by reloading
	noted      bool                        // by this process; likewise
	found      *cdc.Database               // by the start, once it had made the publications fit
	catalog    atomic.Pointer[cdc.Catalog] // that of outlook, for any goroutine

	acting    sync.Mutex    // one acts on batches that are held at a time
	replaying sync.Mutex    // one replay is carried out at a time
	ends      chan struct{} // closed when Stop begins: replays end
	reloading sync.Mutex    // one Reload, or look at the database, at a time
	mu        sync.Mutex
	trouble   map[string]string // by part: what is wrong with it now
	known     outbox.Server     // that is streamed from
	surplus   string            // what the publications hold too much; empty: nothing

	cleanup  []func()           // undone in reverse by Stop, and by Start when it fails half-way
	stopping context.CancelFunc // ends taking in
	aborting context.CancelFunc // ends everything
	running  sync.WaitGroup     // stream and committer
	sending  sync.WaitGroup     // dispatch
	serving  sync.WaitGroup     // watcher, HTTP, housekeeping
	stop     sync.Once
	stopped  error      // what Stop returns
	failed   chan error // what ended the stream, or the committer, before Stop did
}

// New checks the configuration. It opens nothing.
func New(o Options) (*Daemon, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	report, err := newReporter(log, o.Config.SentryDSN)
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(o.Config.Timezone)
	if err != nil {
		return nil, err
	}
	return &Daemon{
		config: o.Config, log: log, observe: o.Observe, report: report, zone: zone,
		trouble: make(map[string]string), failed: make(chan error, 2), reload: make(chan struct{}, 1), ends: make(chan struct{}), peek: make(chan struct{}, 1), held: make(chan struct{}, 1),
		broken: newBreakages(), outlook: outlook{every: lookEvery},
	}, nil
}

// goLive makes a set the one that decides, from the next transaction on. It has just been compared with its catalog.
func (d *Daemon) goLive(l *live) {
	d.live.Store(l)
	d.outlook.compared, d.outlook.catalog, d.outlook.unsound = l, l.catalog, nil
	d.catalog.Store(l.catalog)
	d.log.Info("rules are live", "rules", len(l.rules.Rules), "broken", len(l.broken), "templates", len(l.templates.Names()))
}

// decides tells from where on a set decides. Rules whose table was not published until lately begin later than the others.
func (d *Daemon) decides(l *live, from position.LSN) {
	d.log.Info("the rules decide", "from", from, "rules", len(l.rules.Rules))
	for _, n := range l.fresh {
		if n.from == 0 { // else it has been told
			d.log.Info("a rule is new or changed", "rule", n.name, "from", l.since(n))
		}
	}
}

// endGap ends the gap of a rule that decides again in the stream, once that is stored. A store that fails is tried again; a daemon
// that ends before leaves the gap open, for the next one to end.
func (d *Daemon) endGap(ctx context.Context, m mend) {
	err := persist(ctx, func(err error) { d.setTrouble("store", err) }, func(ctx context.Context) error {
		if m.unsaved { // what the rule missed is to be known, although it is over
			if err := d.store.SaveGap(ctx, m.gap(d.source)); err != nil {
				return fmt.Errorf("recording the gap of rule %q: %w", m.rule, err)
			}
			m.unsaved = false
		}
		return d.mended(ctx, m.breakage, m.to)
	})
	if err != nil {
		d.report.report(ctx, err, m.rule, "store")
	}
}

// begin starts the goroutines. Each has an owner that waits for it in Stop.
func (d *Daemon) begin(ctx context.Context) (err error) {
	if d.dispatch, err = d.newDispatcher(); err != nil {
		return err
	}
	recent, err := d.store.RecentMatches(ctx, time.Now().Add(-time.Minute))
	if err != nil {
		return fmt.Errorf("counting recent matches: %w", err)
	}
	d.batch, d.known = newGathering(d.source), d.source.Server
	d.stream = cdc.NewStream(cdc.Options{
		URL: string(d.config.DatabaseURL), Slot: d.config.Slot, Start: d.source.Checkpoint, InProgress: true, SystemID: d.source.SystemID, Timeline: d.source.Server.Timeline, Moved: d.moved, Log: d.log.With("component", "stream"),
	})
	abort, aborting := context.WithCancel(context.WithoutCancel(ctx))
	taking, stopping := context.WithCancel(abort)
	d.aborting, d.stopping = aborting, stopping
	d.running.Go(func() { d.takeIn(taking, newHolds(recent, time.Duration(d.config.HoldExpires))) })
	d.batch.verify(d.outlook.verified)
	backlog := d.outlook.verified
	d.running.Go(func() { d.commit(abort, backlog) })
	d.sending.Go(func() { d.send(taking) })
	d.serving.Go(func() { d.housekeep(taking) })
	d.serving.Go(func() { d.keepHeld(taking) })
	d.serving.Go(func() { d.watch(taking) })
	d.ready.Store(true)
	if len(d.broken.list()) > 0 {
		d.glance()
	}
	d.announce()
	return nil
}

func (d *Daemon) takeIn(ctx context.Context, h *holds) {
	defer d.batch.close()
	err := d.stream.Run(ctx, &intake{
		store: d.store, source: d.source, zone: d.zone, silent: !d.config.Sends(), live: &d.live, holds: h, rows: newRowHash(),
		batch: d.batch, report: d.report.report,
		broken: d.broken, rebind: &d.rebind, decides: d.decides, reconnect: d.stream.Reconnect, mismatches: &d.mismatches,
		origins: &d.config.IgnoreOrigins, tally: &d.tally,
		plans: make(map[*cdc.Table]bound), streams: make(map[uint32]*transaction), shapes: make(map[*cdc.Table]outbox.Hash), hides: make(map[*cdc.Table]func(string) bool), brought: make(map[outbox.Hash]bool), names: make(map[uint32]cdc.TableName), strays: make(map[uint32][]string),
	})
	if ctx.Err() == nil {
		d.fail(ctx, fmt.Errorf("the stream ended: %w", d.ended(ctx, err)))
	}
}

func (d *Daemon) commit(ctx context.Context, backlog position.LSN) {
	defer d.batch.close() // when nothing more can be stored, the stream must not wait for it
	c := &committer{
		store: d.store, batch: d.batch, dispatch: d.dispatch, confirm: d.stream.Confirm,
		trouble: func(err error) { d.setTrouble("store", err) },
		backlog: backlog, mend: d.endGap, held: d.heldMore,
	}
	if err := c.run(ctx); err != nil && ctx.Err() == nil {
		d.fail(ctx, fmt.Errorf("storing a batch: %w", err))
	}
}

func (d *Daemon) send(ctx context.Context) {
	if err := d.dispatch.Run(ctx); err != nil && ctx.Err() == nil {
		d.fail(ctx, fmt.Errorf("dispatch ended: %w", err))
	}
}

// fail notes what ended a part before Stop did; Wait returns it.
func (d *Daemon) fail(ctx context.Context, err error) {
	d.setTrouble("daemon", err)
	d.report.report(ctx, err, "", "daemon")
	select {
	case d.failed <- err:
	default: // the first reason is the one that counts
	}
}

// Failed yields what ended the daemon from within.
func (d *Daemon) Failed() <-chan error { return d.failed }

// Stop drains: the stream ends, what was read is stored, mails in hand are finished and recorded. When the context ends it
// stops at once; what was in hand is uncertain then, and it returns the context's cause. It may be called again.
func (d *Daemon) Stop(ctx context.Context) error {
	d.stop.Do(func() { d.stopped = d.drain(ctx) })
	return d.stopped
}

func (d *Daemon) drain(ctx context.Context) error {
	if d.stopping == nil {
		return nil // it never began
	}
	close(d.ends)
	d.stopping()
	idle := make(chan struct{})
	go func() {
		d.running.Wait()
		d.sending.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = context.Cause(ctx)
		d.dispatch.Abort()
		d.aborting()
		<-idle
	}
	d.aborting()
	d.undo()
	d.log.Info("stopped", "covered", d.batch.durable(), "drained", err == nil)
	d.report.flush()
	return err
}

// defers has f run when the daemon stops, or when its start fails; the last first.
func (d *Daemon) defers(f func()) { d.cleanup = append(d.cleanup, f) }

// close notes what a part said when it was closed: there is nobody left to return it to.
func (d *Daemon) close(what string, err error) {
	if err != nil {
		d.log.Error("closing", "what", what, "error", err)
	}
}

func (d *Daemon) undo() {
	if d.aborting != nil {
		d.aborting()
	}
	for _, f := range slices.Backward(d.cleanup) {
		f()
	}
	d.cleanup = nil
	d.serving.Wait()
}

// noteTrouble notes what is wrong with a part, or that nothing is any more, and returns what was wrong with it before.
func (d *Daemon) noteTrouble(part string, err error) (before, text string) {
	if err != nil {
		text = err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before = d.trouble[part]
	if text == "" {
		delete(d.trouble, part)
	} else {
		d.trouble[part] = text
	}
	return before, text
}

// setSurplus notes what the publications hold too much. It is told once for each change.
func (d *Daemon) setSurplus(s *surplus) {
	text := s.String()
	d.mu.Lock()
	before := d.surplus
	d.surplus = text
	d.mu.Unlock()
	if text != "" && text != before {
		d.log.Warn("published too much", "warning", text)
	}
}

// setTrouble notes what is wrong with a part, or that nothing is any more. It is told once for each change.
func (d *Daemon) setTrouble(part string, err error) {
	before, text := d.noteTrouble(part, err)
	switch text {
	case before:
	case "":
		d.log.Info("recovered", "part", part, "from", firstLine(before)) // and not what was to be done about it
	default:
		d.log.Error("trouble", "part", part, "error", text)
	}
}

// dispatchOptions are those of a dispatcher that sends nothing.
func (d *Daemon) dispatchOptions() (dispatch.Options, error) {
	domains, err := d.config.senderDomains()
	return dispatch.Options{
		Store: d.store, Lookup: d.lookup, Rules: d.ruleOf, Templates: func() *templates.Set { return d.live.Load().templates },
		From: cmp.Or(d.config.From, "postman@localhost"), Domains: domains, ReplyTo: d.config.ReplyTo, Bounce: d.config.Bounce, Redirect: d.config.Redirect,
		Locale: d.config.Locale, Zone: d.zone, Log: d.log.With("component", "dispatch"), Report: d.report.report,
		Retry: d.config.Retry.dispatch(), Route: d.relayOf, Observe: d.observe,
	}, err
}

func (d *Daemon) newDispatcher() (*dispatch.Dispatcher, error) {
	options, err := d.dispatchOptions()
	if err != nil {
		return nil, err
	}
	if !d.config.Sends() {
		return dispatch.New(options)
	}
	if options.Mode, err = dispatch.ParseMode(d.config.Mode); err != nil {
		return nil, err
	}
	var errs []error
	options.Relays = d.config.relays(func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) })
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return dispatch.New(options)
}

// announce says what the daemon does with mails, since nobody should have to guess.
func (d *Daemon) announce() {
	switch d.config.Mode {
	case "live":
		d.log.Info("mode live: mails go to their recipients", "armed_for", d.source.Armed)
	case "redirect":
		d.log.Info("mode redirect: all mails go to one address", "redirect", d.config.Redirect)
	case "dry-run":
		d.log.Info("mode dry-run: mails are made and end as not-sent")
	default:
		d.log.Warn("no delivery mode is named: nothing is sent, mails end as not-sent; set POSTMAN_MODE to live, redirect or dry-run")
	}
}
