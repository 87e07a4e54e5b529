package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// preparation makes publications and slot fit the rules, and the store fit the slot.
type preparation struct {
	config  Config
	conn    *pgx.Conn
	store   outbox.Store
	needs   []cdc.Need
	catalog *cdc.Catalog
	watched watches           // what the rules watched when the last run ended; nil: there was none
	accept  bool              // an operator accepts a gap
	arm     bool              // an operator arms live sending for this database
	about   func(step string) // is told what may take long; nil: nobody asks
	log     *slog.Logger      // nil: nobody is told
	lenient bool              // tables that cannot be published are left out: their rules have been reported
	then    string            // what to do once a DBA has run what the role may not; empty: start again
	// missed is asked to record what the publications lack, before they are altered; nil: that is of no interest.
	missed func(context.Context, outbox.Source, *cdc.Database) error

	before    *cdc.Database // as it was before the publications were altered
	after     *cdc.Database // as it is since
	published position.LSN  // from where on what they lacked is published; 0: they lacked nothing
	done      []string      // what was done that an error behind it does not undo, for people
	surplus   *surplus      // what is published and not needed, and stays so; nil: nothing
}

// SQLError says that the role may not do what has to be done, what a DBA has to run instead, and what comes then.
type SQLError struct {
	Cause      error
	Statements []string
	Then       string
}

// Error prints the statements, ready to paste.
func (e *SQLError) Error() string {
	return fmt.Sprintf("%v\n  → Ask a DBA to run this in the database; then %s:\n\n%s\n", e.Cause, e.Then, strings.Join(e.Statements, "\n"))
}

func (e *SQLError) Unwrap() error { return e.Cause }

// run brings everything into place and returns the source to stream from. Publications come before the slot: a slot decodes
// with the catalog of the past, in which a later publication does not exist.
func (p *preparation) run(ctx context.Context) (outbox.Source, error) {
	db, err := cdc.Inspect(ctx, p.conn, p.config.Slot)
	if err != nil {
		return outbox.Source{}, err
	}
	if err := db.Ready(); err != nil {
		return outbox.Source{}, err
	}
	sources, err := p.store.Sources(ctx)
	if err != nil {
		return outbox.Source{}, fmt.Errorf("reading what the store covers: %w", err)
	}
	src, elsewhere := p.find(sources, db)
	known := src
	if src == nil {
		src = &outbox.Source{SystemID: db.SystemID, Database: db.Name, Slot: p.config.Slot, Epoch: 1}
	}
	// Refusals come before anything is made: a slot that nobody reads pins WAL.
	if err := p.armed(src, sources); err != nil {
		return outbox.Source{}, err
	}
	a, err := p.adopt(ctx, known, elsewhere, db)
	if err == nil && known != nil {
		err = p.follow(ctx, *known)
	}
	if err != nil {
		return outbox.Source{}, err
	}
	switch {
	case a.step == stepGap && !p.accept:
		return outbox.Source{}, refuseGap(ctx, p.store, p.config.Slot, known, a)
	case a.step == stepGap && known == nil && db.Slot != nil && db.Slot.ActivePID != 0:
		return outbox.Source{}, usage(fmt.Sprintf("slot %q is read by the server's process %d, and this store did not make it: it is another postman's\n"+
			"  → name another one with POSTMAN_SLOT; or stop that postman first, where this one is to take its place", p.config.Slot, db.Slot.ActivePID))
	case a.step == stepGap:
		if known != nil && p.missed != nil && lastLooked(known) < a.from { // nobody has looked at what the stream passed before the gap
			if err := p.missed(ctx, *src, db); err != nil {
				return outbox.Source{}, err
			}
		}
		if db, err = p.publishAnew(ctx, db, a); err != nil {
			return outbox.Source{}, err
		}
		if *src, err = p.bridge(ctx, *src, db, a); err != nil {
			return outbox.Source{}, err
		}
	case a.step == stepResume:
		if err := p.unrefuse(ctx, *src); err != nil {
			return outbox.Source{}, err
		}
		if src.Server.Timeline != db.Timeline { // what was looked at behind the checkpoint may have been another server's
			src.Verified = min(lastLooked(src), src.Checkpoint)
		}
	case a.step == stepTurn:
		if *src, err = p.turn(ctx, *src, a); err != nil {
			return outbox.Source{}, err
		}
	}
	if a.step == stepResume || a.step == stepTurn {
		err = p.mend(ctx, *src, db)
	} else {
		err = p.fit(ctx, db)
	}
	if err != nil {
		if _, sql := errors.AsType[*SQLError](err); sql && a.step == stepIntend {
			// The slot that a DBA makes now is the one that we asked for.
			src.State = outbox.SourceIntended
			_, saving := p.save(ctx, *src)
			err = errors.Join(err, saving)
		}
		return outbox.Source{}, err
	}
	return p.take(ctx, *src, a)
}

// mend makes the publications fit of a slot that goes on, once it is recorded what they lacked; and then what others have altered while that
// waited for a lock.
func (p *preparation) mend(ctx context.Context, src outbox.Source, db *cdc.Database) error {
	record := func(db *cdc.Database) error {
		if p.missed == nil {
			return nil
		}
		return p.missed(ctx, src, db)
	}
	if err := record(db); err != nil {
		return err
	}
	if err := p.fit(ctx, db); err != nil || p.published == 0 {
		return err
	}
	return record(p.after)
}

// follow takes up what the last run's rules watched. Tables that have other names by now are needed under these, too: what their broken
// rules miss is to be there when they are mended.
func (p *preparation) follow(ctx context.Context, src outbox.Source) (err error) {
	if p.watched, err = readWatched(ctx, p.store, src); err != nil {
		return err
	}
	p.catalog, p.needs, err = following(ctx, p.conn, p.needs, p.catalog, p.watched.oid)
	return err
}

// find picks the source of this database, and one of the same database and slot on another server.
func (p *preparation) find(sources []outbox.Source, db *cdc.Database) (src, elsewhere *outbox.Source) {
	for i := range sources {
		s := &sources[i]
		switch {
		case s.Database != db.Name || s.Slot != p.config.Slot:
		case s.SystemID == db.SystemID:
			src = s
		case s.State == outbox.SourceStreaming:
			elsewhere = s
		}
	}
	return src, elsewhere
}

// fit makes the publications what the rules need, and no more than that where it can.
func (p *preparation) fit(ctx context.Context, db *cdc.Database) error {
	if err := p.publish(ctx, db); err != nil {
		return err
	}
	return p.trim(ctx, db, nil)
}

// publish has published what the rules need and is missing, or says what a DBA has to run.
func (p *preparation) publish(ctx context.Context, db *cdc.Database) error {
	p.before, p.after = db, db
	plan, err := p.plan(db, p.needs, p.catalog)
	if err != nil || len(plan.Missing) == 0 {
		return err
	}
	err = cdc.Apply(ctx, p.conn, plan.Missing)
	if err == nil {
		if _, p.published, err = cdc.WALEnd(ctx, p.conn); err == nil {
			p.after, err = cdc.Inspect(ctx, p.conn, p.config.Slot)
		}
		return err
	}
	if denied(err) {
		statements := plan.Missing
		if db.Slot == nil {
			statements = append(statements, cdc.SlotSQL(p.config.Slot, db.Version))
		}
		cause := fmt.Errorf("role %q may not change the publications: %w", p.conn.Config().User, err)
		return &SQLError{cause, statements, cmp.Or(p.then, "start postman again")}
	}
	return err
}

// together is a catalog with the tables of another one that it has not.
func together(c, other *cdc.Catalog) *cdc.Catalog {
	all := *c
	all.Tables, all.Unidentified = maps.Clone(other.Tables), maps.Clone(other.Unidentified)
	for name, t := range c.Tables {
		all.Tables[name] = t
		delete(all.Unidentified, name)
	}
	maps.Copy(all.Unidentified, c.Unidentified)
	return &all
}

func (p *preparation) plan(db *cdc.Database, needs []cdc.Need, catalog *cdc.Catalog) (cdc.PublicationPlan, error) {
	plan, err := cdc.PlanPublications(db, p.config.Slot, needs, catalog)
	if _, setup := errors.AsType[*cdc.SetupError](err); p.lenient && !setup {
		err = nil
	}
	return plan, err
}

// surplus is what the publications hold and nobody needs.
type surplus struct {
	cause      error    // why it stays
	statements []string // that take it out
}

// String tells people of it.
func (s *surplus) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("the publications hold more than the rules need, which costs traffic and loses nothing: %v\n  → A DBA may run, at any time:\n\n%s\n",
		s.cause, strings.Join(s.statements, "\n"))
}

// trimPatience is how long taking a table out of a publication waits for who has locked it: a VACUUM, for one.
const trimPatience = "SET LOCAL lock_timeout = '3s';"

// trim takes out of the publications what nobody needs. That the role may not, or somebody is in the way, is noted and no error: no
// change is lost by it. Also are rules that are to be live: what they need is not too much; nil: there are none.
func (p *preparation) trim(ctx context.Context, db *cdc.Database, also *live) error {
	p.surplus = nil
	needs, catalog := p.needs, p.catalog
	if also != nil {
		needs, catalog = slices.Concat(needs, also.needs), together(catalog, also.catalog)
	}
	plan, err := p.plan(db, needs, catalog)
	if err != nil || len(plan.Surplus) == 0 {
		return err
	}
	err = cdc.Apply(ctx, p.conn, append([]string{trimPatience}, plan.Surplus...))
	if _, refused := errors.AsType[*pgconn.PgError](err); refused && !p.conn.IsClosed() {
		if denied(err) {
			err = fmt.Errorf("role %q may not take it out", p.conn.Config().User)
		}
		p.surplus, err = &surplus{err, plan.Surplus}, nil
	}
	return err
}

// since is from where on a rule's table is published that was not before; 0: it was.
func (p *preparation) since(r *rules.Rule) position.LSN {
	if r.On.Message != "" || published(p.before, p.config.Slot, p.catalog, r.On) {
		return 0
	}
	return p.published
}

// denied says whether Postgres refused for want of a privilege (42501).
func denied(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "42501"
}

// take stores the intent, makes the slot where there is none, and notes from where it streams.
func (p *preparation) take(ctx context.Context, src outbox.Source, a adoption) (_ outbox.Source, err error) {
	switch a.step {
	case stepResume, stepTurn:
		return p.resume(ctx, src)
	case stepTake:
		return p.streaming(ctx, src, a.to)
	case stepGap:
		if a.to != 0 {
			return p.streaming(ctx, src, a.to)
		}
	case stepIntend:
		src.State = outbox.SourceIntended
		if src, err = p.save(ctx, src); err != nil {
			return src, err
		}
	case stepCreate:
	}
	start, err := p.create(ctx)
	if err != nil {
		return src, err
	}
	return p.streaming(ctx, src, start)
}

func (p *preparation) create(ctx context.Context) (position.LSN, error) {
	if p.about != nil {
		p.about("making the slot: Postgres waits for all transactions to end that are open now")
	}
	return cdc.CreateSlot(ctx, string(p.config.DatabaseURL), p.config.Slot)
}

// publishAnew has published what the rules need behind a gap, before anything is given up for the new epoch: here it comes out what the
// role may not do. It returns the database as it is then.
func (p *preparation) publishAnew(ctx context.Context, db *cdc.Database, a adoption) (*cdc.Database, error) {
	anew := *db
	if a.to == 0 {
		anew.Slot = nil // it is made behind the publications
	}
	err := p.publish(ctx, &anew)
	if denied, ok := errors.AsType[*SQLError](err); ok && db.Slot != nil { // and is not for a DBA to make
		denied.Statements = slices.DeleteFunc(denied.Statements, func(s string) bool { return s == cdc.SlotSQL(p.config.Slot, db.Version) })
	}
	if err != nil || p.published == 0 {
		return db, err
	}
	return cdc.Inspect(ctx, p.conn, p.config.Slot)
}

// bridge records an accepted gap, and intends to go on behind it in a new epoch.
func (p *preparation) bridge(ctx context.Context, src outbox.Source, db *cdc.Database, a adoption) (_ outbox.Source, err error) {
	gap := outbox.Gap{Source: src.ID, Epoch: src.Epoch, From: a.from, Lost: true, Reason: a.reason}
	if src.ID == 0 {
		// Streaming from nowhere: were we to die before the gap is recorded, the next start would find it again.
		src.State = outbox.SourceStreaming
		if src, err = p.save(ctx, src); err != nil {
			return src, err
		}
		gap.Source = src.ID
	} else {
		src.Epoch++
	}
	// First the gap, then what makes it real: a crash between the two leaves one that is open, and never none.
	if err := p.store.SaveGap(ctx, gap); err != nil {
		return src, fmt.Errorf("recording the gap: %w", err)
	}
	p.did("the gap is recorded: %s", a.reason)
	if a.to == 0 && db.Slot != nil { // it serves no more, and would be taken for the one that is intended
		if err := cdc.DropSlot(ctx, string(p.config.DatabaseURL), p.config.Slot); err != nil {
			return src, err
		}
		p.did("slot %s is dropped, and is made anew", p.config.Slot)
		db.Slot = nil
	}
	src.State, src.Server = outbox.SourceIntended, outbox.Server{}
	return p.save(ctx, src)
}

// did notes what was done, for people who may be told of an error that came behind it.
func (p *preparation) did(format string, args ...any) {
	p.done = append(p.done, fmt.Sprintf(format, args...))
}

// streaming notes that the slot is ours and where it starts.
func (p *preparation) streaming(ctx context.Context, src outbox.Source, start position.LSN) (_ outbox.Source, err error) {
	if err := p.endOpen(ctx, src, start); err != nil {
		return src, err
	}
	src.State, src.Checkpoint, src.Verified = outbox.SourceStreaming, start, start
	if src.Server, err = p.server(ctx); err != nil {
		return src, err
	}
	return p.save(ctx, src)
}

// endOpen ends the gap of the whole stream that is open where the stream goes on, and those of single rules from former epochs where the
// stream had come to.
func (p *preparation) endOpen(ctx context.Context, src outbox.Source, start position.LSN) error {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	for _, g := range gaps {
		if g.Source != src.ID || g.To != 0 || !g.Closed.IsZero() || g.Rule != "" && g.Epoch == src.Epoch {
			continue
		}
		end := start
		if g.Rule != "" {
			end = max(g.From, src.Checkpoint)
		}
		if err := p.store.CloseGap(ctx, g, end); err != nil {
			return fmt.Errorf("closing gap %d: %w", g.ID, err)
		}
	}
	return nil
}

func (p *preparation) save(ctx context.Context, src outbox.Source) (outbox.Source, error) {
	src, err := p.store.SaveSource(ctx, src)
	if err != nil {
		return src, fmt.Errorf("storing what is known of slot %q: %w", p.config.Slot, err)
	}
	return src, nil
}

// ArmError says that live sending is armed for another database than the one that is configured.
type ArmError struct{ Armed, Hosts string }

// Error is for the operator.
func (e *ArmError) Error() string {
	return fmt.Sprintf("mode live is armed for %s, and this is %s: a copy of a database must not mail the customers of the original.\n"+
		"  → If this is the one that shall mail: postman setup --arm\n"+
		"  → If it is a copy: POSTMAN_MODE=redirect POSTMAN_REDIRECT=you@example.com", e.Armed, e.Hosts)
}

// armed decides whether live sending is armed for the source: noted at the first live run of a store, for one database, and
// refused for any other until an operator says so. It changes src alone; take stores it.
func (p *preparation) armed(src *outbox.Source, all []outbox.Source) error {
	if p.config.Mode != "live" && !p.arm {
		return nil
	}
	hosts, err := hostList(string(p.config.DatabaseURL))
	if err != nil {
		return err
	}
	if before := cmp.Or(src.Armed, armedElsewhere(src, all)); before != "" && src.Armed != hosts && !p.arm {
		return &ArmError{before, hosts + " (system " + src.SystemID + ", database " + src.Database + ")"}
	}
	src.Armed = hosts
	return nil
}

// armedElsewhere finds another database that the store was armed for: then this one may be a restored copy.
func armedElsewhere(src *outbox.Source, all []outbox.Source) string {
	for _, s := range all {
		if s.ID != src.ID && s.Armed != "" {
			return fmt.Sprintf("%s (system %s, database %s)", s.Armed, s.SystemID, s.Database)
		}
	}
	return ""
}

// hostList is the hosts of a connection string, as written, without user and password.
func hostList(databaseURL string) (string, error) {
	c, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return "", fmt.Errorf("reading database_url: %w", err)
	}
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks { // each host stands there twice when TLS is only preferred
		if h := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return strings.Join(hosts, ","), nil
}
