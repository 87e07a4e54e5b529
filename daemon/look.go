package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// lookEvery is how often the daemon looks at the database beside the stream. Postgres says nothing in the stream when a table
// leaves a publication, as one does that is dropped and made again: its changes are just not there. And a walsender that is busy
// does not tell how far the log has come.
const lookEvery = 10 * time.Second

// answerPatience is how long the server may take to say where its log ends, before the connection is taken for dead.
const answerPatience = 5 * time.Second

// outlook is what the daemon knows of the database from outside of the stream. But for end, it is guarded by reloading.
type outlook struct {
	conn     *pgx.Conn    // kept between looks; nil: not there
	verified position.LSN // up to here the publications fitted the rules, and the catalog bore them, or else a gap tells
	restart  position.LSN // how far the slot had let go of the log at the last look
	slot     trend
	compared *live        // the rules that were last compared with a catalog
	catalog  *cdc.Catalog // which one that was
	unsound  map[string]*rules.Error
	refused  *live     // what the last reload would have made live, had a DBA published what it needs; nil: it was not refused for that
	asked    *live     // what a DBA was last asked to publish for: not too much, whatever became of that reload; nil: it is live
	tried    time.Time // when rules that were broken at load were last checked again
	waiting  bool      // for the stream to pass a position: soon
	every    time.Duration

	end walEnd
}

// look finds out what the stream does not tell: where the log ends; whether the publications fit the rules, which is mended;
// whether the catalog still bears the rules, or does so again. What it finds is recorded by rule.
func (d *Daemon) look(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reloadPatience)
	defer cancel()
	for {
		kept := d.outlook.conn != nil && !d.outlook.conn.IsClosed()
		if !kept {
			conn, err := d.connect(ctx)
			if err != nil {
				return err
			}
			d.outlook.conn = conn
		}
		err := d.lookWith(ctx, d.outlook.conn)
		if err == nil || !cdc.Passing(err) || !kept {
			return err
		}
		d.hangUp(ctx) // it may have died since the last look
	}
}

// hangUp ends the connection that is kept between looks.
func (d *Daemon) hangUp(ctx context.Context) {
	if d.outlook.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = d.outlook.conn.Close(ctx) // it is of no use any more, whatever that says
	d.outlook.conn = nil
}

func (d *Daemon) lookWith(ctx context.Context, conn *pgx.Conn) error {
	// Before the catalog is read: what is found to fit has fitted up to here. It is answered at once, or the connection has died without a word.
	answer, cancel := context.WithTimeout(ctx, answerPatience)
	flushed, inserted, err := cdc.WALEnd(answer, conn)
	cancel()
	if err != nil {
		return err
	}
	d.outlook.end.set(flushed)
	settled, err := cdc.Settled(ctx, conn, d.config.Slot)
	if err != nil {
		return err
	}
	d.outlook.verified = min(d.outlook.verified, d.batch.verified()) // another server may have taken over since
	known, covered := d.server(), d.batch.durable()
	db, err := cdc.Inspect(ctx, conn, d.config.Slot)
	if err != nil {
		return err
	}
	d.watchSlot(db)
	if err := d.belongs(ctx, db, known, covered); err != nil {
		if _, gap := errors.AsType[*GapError](err); gap {
			d.fail(ctx, err)
		}
		return err
	}
	d.reloadAgain(ctx, conn, db) // before the rules that it replaces are found not to fit
	l := d.live.Load()
	catalog, needs, err := d.readCatalog(ctx, conn, l)
	if err != nil {
		return err
	}
	if db, err = cdc.Inspect(ctx, conn, d.config.Slot); err != nil {
		return err
	}
	if err := d.recordMissed(ctx, db, catalog, watchers(l.source.Rules, d.lastSeen)); err != nil {
		return err
	}
	p := &preparation{config: d.config, conn: conn, store: d.store, needs: needs, catalog: catalog, lenient: true, then: "postman goes on by itself, some seconds later"}
	unfit := p.publish(ctx, db)
	if unfit != nil { // which is no reason not to notice what else is wrong
		unfit = fmt.Errorf("the publications do not fit the rules any more: %w", unfit)
	} else if err := d.trim(ctx, p, db); err != nil {
		return err
	}
	if p.published != 0 {
		d.log.Warn("the publications did not fit the rules any more, and were mended", "slot", d.config.Slot)
	}
	seen := watchers(l.source.Rules, d.lastSeen)
	err = d.compare(ctx, conn, comparison{live: l, catalog: catalog, db: p.after, before: d.outlook.verified})
	if err == nil && p.published != 0 { // which may have waited: what others altered meanwhile. What had to be taken out has been told of
		err = d.recordMissed(ctx, p.after, catalog, seen)
	}
	if err == nil {
		err = d.noteWatched(ctx, p.after)
	}
	if err == nil && settled { // and not what is the end now: altering may have waited long, and the catalog was read before
		d.verify(inserted)
	}
	return errors.Join(unfit, err)
}

// verify notes up to where the publications fit the rules, and the catalog bears them, or else a gap tells. A batch takes it to the store.
func (d *Daemon) verify(at position.LSN) {
	d.outlook.verified = at
	d.batch.verify(at)
}

// trim takes out of the publications what neither the live rules need nor those that a DBA was asked to publish for.
func (d *Daemon) trim(ctx context.Context, p *preparation, db *cdc.Database) error {
	err := p.trim(ctx, db, d.outlook.asked)
	d.setSurplus(p.surplus)
	return err
}

// readCatalog reads how the tables of the rules look now, and what the rules need of them. A table that was renamed since it was
// looked at last is needed under its present name, too: the rule that was broken by that may be mended, and what it missed replayed.
func (d *Daemon) readCatalog(ctx context.Context, conn *pgx.Conn, l *live) (*cdc.Catalog, []cdc.Need, error) {
	catalog, err := cdc.LoadTables(ctx, conn, tables(l.needs))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the catalog: %w", err)
	}
	return following(ctx, conn, l.needs, catalog, d.lastOID)
}

// following adds to needs the tables that have other names by now than rules know them by, and to the catalog what they look like. The OID
// tells which table it was that had a name; 0: nobody knows.
func following(ctx context.Context, conn *pgx.Conn, needs []cdc.Need, catalog *cdc.Catalog, oid func(cdc.TableName) uint32) (*cdc.Catalog, []cdc.Need, error) {
	gone := make(map[uint32][]cdc.Op)
	for _, n := range needs {
		if was := oid(n.Table); was != 0 && catalog.Tables[n.Table] == nil {
			gone[was] = append(gone[was], n.Ops...)
		}
	}
	if len(gone) == 0 {
		return catalog, needs, nil
	}
	renamed, err := cdc.TableNames(ctx, conn, slices.Collect(maps.Keys(gone)))
	if err != nil {
		return nil, nil, err
	}
	needs = slices.Clone(needs)
	for oid, name := range renamed {
		needs = append(needs, cdc.Need{Table: name, Ops: gone[oid]})
	}
	if catalog, err = cdc.LoadTables(ctx, conn, tables(needs)); err != nil {
		return nil, nil, fmt.Errorf("reading the catalog: %w", err)
	}
	return catalog, needs, nil
}

// comparison is of the live rules with a catalog.
type comparison struct {
	live    *live
	catalog *cdc.Catalog
	db      *cdc.Database
	before  position.LSN // when the catalog bore the rules last
}

// compare tells which live rules the catalog does not bear any more, and which it bears again. Whether a rule decides on a change is
// for the stream to say, which may be behind; this is for people, and for what the stream never says.
func (d *Daemon) compare(ctx context.Context, conn *pgx.Conn, c comparison) error {
	o := &d.outlook
	news := o.compared != c.live || !sameTables(o.catalog, c.catalog)
	if news {
		// All names, too, now that somebody may need to be told of one.
		full, err := cdc.LoadCatalog(ctx, conn, tables(c.live.needs))
		if err != nil {
			return fmt.Errorf("reading the catalog: %w", err)
		}
		done := sparing()
		_, err = rules.Compile(c.live.source, full)
		done()
		o.compared, o.catalog, o.unsound = c.live, c.catalog, byRule(err)
		d.catalog.Store(c.catalog)
		if err := d.noteRules(ctx); err != nil {
			return err
		}
	}
	var now position.LSN
	for name, e := range o.unsound {
		r := c.live.named(name)
		if r == nil {
			continue // it was broken at load
		}
		lost := r.On.Message == "" && !published(c.db, d.config.Slot, c.catalog, r.On) && c.catalog.Tables[r.On.Table] != nil
		from := c.before
		if t := c.catalog.Tables[r.On.Table]; !lost && t != nil && streamTells(r, t, e) {
			var err error
			if now, err = endOnce(ctx, conn, now); err != nil {
				return err
			}
			from = now
		}
		if err := d.breaks(ctx, breakage{rule: name, from: from, why: e.Message, mistake: e, by: byCatalog, lost: lost}); err != nil {
			return err
		}
	}
	if len(c.live.broken) > 0 && (news || time.Since(o.tried) > time.Minute) {
		o.tried = time.Now()
		if err := d.revisit(ctx, conn, &c); err != nil {
			return err
		}
	}
	return d.heal(ctx, conn, &c)
}

// streamTells says whether a mistake is one of a table's shape: the stream tells of that by itself, with the first change that the rule does not
// fit, and exactly. What comes before that was decided, and does not fit the rule that will have been mended: a gap that had it
// in it could not be made up for by a replay. The labels of enums it does not tell.
func streamTells(r *rules.Rule, t *cdc.Table, e *rules.Error) bool {
	told := *t
	told.Columns = slices.Clone(t.Columns)
	for i := range told.Columns {
		told.Columns[i].Enum = nil
	}
	_, err := (&rules.Set{Rules: []*rules.Rule{r}}).Bind(&told)
	errs, _ := errors.AsType[rules.Errors](err)
	return slices.ContainsFunc(errs, func(b *rules.Error) bool { return b.Message == e.Message })
}

// endOnce is where the log ends, or ended when that was asked before.
func endOnce(ctx context.Context, conn *pgx.Conn, known position.LSN) (position.LSN, error) {
	if known != 0 {
		return known, nil
	}
	_, end, err := cdc.WALEnd(ctx, conn)
	return end, err
}

// byRule is the first mistake of each rule.
func byRule(err error) map[string]*rules.Error {
	first := make(map[string]*rules.Error)
	if errs, ok := errors.AsType[rules.Errors](err); ok {
		for _, e := range errs {
			if e.Rule != "" && first[e.Rule] == nil {
				first[e.Rule] = e
			}
		}
	}
	return first
}

// sameTables says whether two catalogs look alike to rules.
func sameTables(a, b *cdc.Catalog) bool {
	return a != nil && reflect.DeepEqual(a.Tables, b.Tables) && maps.Equal(a.Unwatchable, b.Unwatchable) && maps.Equal(a.Unidentified, b.Unidentified)
}

// revisit checks a set again of which rules were broken when it was loaded: the database may bear them by now.
func (d *Daemon) revisit(ctx context.Context, conn *pgx.Conn, c *comparison) error {
	l := c.live
	fresh, err := (&loader{d.config, conn, d.lookup, false}).compile(ctx, l.source.Clone(), l.templates, nil)
	if err != nil {
		return fmt.Errorf("checking broken rules again: %w", err)
	}
	if len(fresh.rules.Rules) <= len(l.rules.Rules) {
		return nil
	}
	if err := fresh.register(ctx, d.store); err != nil {
		return err
	}
	if err := d.keepRelays(ctx, fresh); err != nil {
		return err
	}
	fresh.fresh, fresh.strays = newRules(l, fresh, nil), d.watched.strays(fresh.catalog)
	d.goLive(fresh)
	return errors.Join(d.noteWatched(ctx, c.db), d.noteRules(ctx))
}

// heal ends the gaps of rules that the catalog bears again, once the stream has passed the position from where on it does.
func (d *Daemon) heal(ctx context.Context, conn *pgx.Conn, c *comparison) error {
	d.outlook.waiting = false
	broken := d.broken.list()
	if len(broken) == 0 {
		return nil
	}
	for _, b := range broken {
		if b.unsaved { // before its end is
			if err := d.breaks(ctx, b); err != nil {
				return err
			}
		}
	}
	_, now, err := cdc.WALEnd(ctx, conn)
	if err != nil {
		return err
	}
	l := d.live.Load()
	for _, b := range broken {
		r := l.named(b.rule)
		if r != nil && d.outlook.unsound[b.rule] == nil && (r.On.Message != "" || published(c.db, d.config.Slot, c.catalog, r.On)) {
			d.broken.soundFrom(b.rule, now)
		}
	}
	at := d.batch.durable()
	if slices.ContainsFunc(d.broken.list(), func(b breakage) bool { return b.sound != 0 && b.sound <= at }) {
		d.rebind.Store(true) // should the stream be of another mind after all, the rule breaks anew, and is not just left out
	}
	mended, waiting := d.broken.passed(at)
	d.outlook.waiting = waiting
	var errs []error
	for _, b := range mended {
		if err := d.mended(ctx, b, b.sound); err != nil {
			d.broken.keep(b) // until its end is stored
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lookNow looks, and tells of what keeps it from that. It returns when to look again.
func (d *Daemon) lookNow(ctx context.Context) time.Duration {
	err := d.look(ctx)
	if ctx.Err() == nil {
		d.setTrouble("publications", err)
	}
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.outlook.waiting {
		return min(time.Second, d.outlook.every)
	}
	return d.outlook.every
}

// remember takes up the gaps that the last run left open: their rules have yet to show that they decide again. Then it records
// those of rules that the catalog does not bear now.
func (d *Daemon) remember(ctx context.Context, l *live) error {
	gaps, err := d.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	for _, g := range gaps {
		if !ofRule(&g, d.source) {
			continue
		}
		b := breakage{rule: g.Rule, on: aim{g.Table, g.OID, g.Ops}, from: g.From, why: strings.TrimPrefix(g.Reason, brokenReason), by: byLoad, lost: g.Lost}
		if g.Lost {
			b.by = byCatalog // a change from before the loss may fit the rule, and ends nothing
		}
		d.broken.breaks(b)
	}
	for _, e := range l.broken {
		if e.Rule == "" { // what is called sensitive is not there: no rule is worse for that
			d.report.report(ctx, e, "", "broken rule")
			continue
		}
		b := breakage{rule: e.Rule, from: d.decided(l, e), why: e.Message, mistake: e, by: byLoad}
		if err := d.breaks(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// decided is up to where a rule that is broken now is known to have decided before this start: where the stream tells of what broke it, it did
// on all that the store covers.
func (d *Daemon) decided(l *live, e *rules.Error) position.LSN {
	for _, r := range l.source.Rules {
		if t := l.catalog.Tables[r.On.Table]; r.Name == e.Rule && r.On.Message == "" && t != nil && streamTells(r, t, e) {
			return d.source.Checkpoint
		}
	}
	return min(lastLooked(&d.source), d.source.Checkpoint)
}

// lastLooked is where the log ended when the database was looked at last, by a daemon that has ended since: behind it, nobody knows what the
// stream did not tell. It may lie ahead of the checkpoint: what the stream has yet to bring was published up to there.
func lastLooked(src *outbox.Source) position.LSN { return cmp.Or(src.Verified, src.Checkpoint) }

// walEnd is where the log ended when it was looked at last. Any goroutine may ask.
type walEnd struct{ lsn, at atomic.Int64 }

func (e *walEnd) set(lsn position.LSN) {
	e.lsn.Store(int64(lsn))
	e.at.Store(time.Now().UnixNano())
}

func (e *walEnd) get() (position.LSN, time.Time) {
	return position.LSN(e.lsn.Load()), time.Unix(0, e.at.Load())
}
