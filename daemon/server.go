package daemon

import (
	"context"
	"errors"
	"fmt"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
)

// adopt compares store and database; where the server is in another timeline than the source, it asks where the two parted.
func (p *preparation) adopt(ctx context.Context, src, elsewhere *outbox.Source, db *cdc.Database) (adoption, error) {
	s := situation{slot: p.config.Slot, src: src, elsewhere: elsewhere, db: db}
	if src == nil || src.Server.Timeline == 0 || src.Server.Timeline == db.Timeline {
		return adopt(s), nil
	}
	at, known, err := cdc.LeftAt(ctx, string(p.config.DatabaseURL), p.config.Slot, src.Server.Timeline, db.Timeline)
	if err != nil {
		return adoption{}, err
	}
	if known {
		s.left = at
	}
	if s.bare, err = bareFrom(ctx, p.store, *src); err != nil {
		return adoption{}, err
	}
	a := adopt(s)
	switch {
	case a.step == stepResume && p.log != nil:
		p.log.Warn("a standby was promoted since the last run, and the stream goes on with it: nothing is missing", "slot", p.config.Slot,
			"timeline", db.Timeline, "before", src.Server.Timeline, "since", at, "at", src.Checkpoint)
	case a.step == stepGap && db.Slot == nil && known:
		a.reason += fmt.Sprintf(" (timeline %d left timeline %d at %s; a standby keeps the slot from Postgres 17 on, where it is told to: docs/slots.md)",
			db.Timeline, src.Server.Timeline, at)
	}
	return a, nil
}

// bareFrom is from where on, up to a source's checkpoint, nothing was committed that is published; 0: nobody knows. All that was, is in the
// journal, or was and is pruned.
func bareFrom(ctx context.Context, store outbox.Store, src outbox.Source) (position.LSN, error) {
	span, err := store.JournalSpan(ctx, src.ID, src.Epoch)
	if err != nil || span.Newest == 0 {
		return span.Since, err
	}
	return span.Newest + 1, nil
}

// turn goes on, in a new epoch, with a standby that was promoted and lacks a part of the log on which nothing was committed. What the
// database was last seen to have holds for what both have in common.
func (p *preparation) turn(ctx context.Context, src outbox.Source, a adoption) (_ outbox.Source, err error) {
	if err := p.unrefuse(ctx, src); err != nil {
		return src, err
	}
	looked := min(lastLooked(&src), a.to)
	src.Epoch++
	if err := p.endOpen(ctx, src, a.to); err != nil {
		return src, err
	}
	if src.Server, err = p.server(ctx); err != nil {
		return src, err
	}
	before := src.Checkpoint
	src.Checkpoint, src.Verified = a.to, looked
	if src, err = p.save(ctx, src); err != nil {
		return src, err
	}
	p.did("a standby was promoted that left at %s, behind which nothing was committed that postman knows of, up to %s: nothing is missing, and epoch %d begins there", a.to, before, src.Epoch)
	if p.log != nil {
		p.log.Warn("a standby was promoted that lacks the end of the log, where nothing was committed that is watched: the stream goes on with it, in a new epoch, and nothing is missing",
			"slot", p.config.Slot, "timeline", src.Server.Timeline, "since", a.to, "before", before, "epoch", src.Epoch)
	}
	return src, nil
}

// refuseGap records that a source cannot go on, for whoever looks before an operator has decided, and says why.
func refuseGap(ctx context.Context, store outbox.Store, slot string, src *outbox.Source, a adoption) error {
	refusal := &GapError{slot, a.from, a.to, a.reason}
	if src == nil { // the store knows nothing of this database
		return refusal
	}
	if err := store.SaveGap(ctx, outbox.Gap{Source: src.ID, Epoch: src.Epoch, From: a.from, Lost: true, Reason: a.reason}); err != nil {
		return fmt.Errorf("%w\n  (and it could not be recorded: %w)", refusal, err)
	}
	return refusal
}

// unrefuse ends the gaps that refuseGap recorded: the right server or the right slot is there again, and nothing was missed.
func (p *preparation) unrefuse(ctx context.Context, src outbox.Source) error {
	gaps, err := p.store.Gaps(ctx)
	if err != nil {
		return fmt.Errorf("reading the gaps: %w", err)
	}
	for _, g := range gaps {
		if g.Source != src.ID || g.Rule != "" || g.To != 0 || !g.Closed.IsZero() {
			continue
		}
		if err := p.store.CloseGap(ctx, g, g.From); err != nil {
			return fmt.Errorf("closing gap %d: %w", g.ID, err)
		}
	}
	return nil
}

// resume notes what the source is on now.
func (p *preparation) resume(ctx context.Context, src outbox.Source) (outbox.Source, error) {
	now, err := p.server(ctx)
	if err != nil {
		return src, err
	}
	if now.Timeline == src.Server.Timeline {
		now.Restart = src.Server.Restart
	}
	src.Server = now
	return p.save(ctx, src)
}

// server is what tells this server from others of its cluster. A slot that an older version made is made one that standbys may keep.
func (p *preparation) server(ctx context.Context) (outbox.Server, error) {
	db, err := cdc.Inspect(ctx, p.conn, p.config.Slot)
	if err != nil {
		return outbox.Server{}, err
	}
	if db.KeepsNoCopy() {
		if err := cdc.KeepOnStandbys(ctx, string(p.config.DatabaseURL), p.config.Slot); err != nil && p.log != nil {
			p.log.Warn("the slot would not survive a failover", "slot", p.config.Slot, "error", err)
		}
	}
	return serverOf(db, p.config.Slot), nil
}

// serverOf is what a database says of its server, but for its slot.
func serverOf(db *cdc.Database, slot string) outbox.Server {
	ids, _ := db.PublicationIDs(slot)
	return outbox.Server{Timeline: db.Timeline, Publications: ids}
}

// server is what is known of the server that is streamed from.
func (d *Daemon) server() outbox.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known
}

// saveServer stores what is known of the server.
func (d *Daemon) saveServer(ctx context.Context, s outbox.Server) error {
	if err := d.store.SaveServer(ctx, d.source.ID, s); err != nil {
		return fmt.Errorf("noting what the server is: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = s
	return nil
}

// moved notes that the stream goes on with a standby that was promoted.
func (d *Daemon) moved(ctx context.Context, timeline int32) error {
	d.batch.parted()
	return d.saveServer(ctx, outbox.Server{Timeline: timeline, Publications: d.server().Publications})
}

// belongs says whether the database is still the one that the store covers, with the slot and the publications that it had. What is
// missing is recorded, and an error that ends the daemon: a *GapError. The known server and the checkpoint are of before the database was
// inspected.
func (d *Daemon) belongs(ctx context.Context, db *cdc.Database, known outbox.Server, covered position.LSN) error {
	src := d.source
	src.Checkpoint, src.Verified, src.Server = d.batch.durable(), d.batch.verified(), d.server()
	if db.InRecovery || src.Server.Timeline != known.Timeline || src.Server.Timeline != db.Timeline {
		return nil // a failover: the stream will tell, which goes by the server that it gets
	}
	if seen := *db; seen.WALEnd >= covered { // what was covered since lies behind what the server said
		seen.WALEnd = max(seen.WALEnd, src.Checkpoint)
		db = &seen
	}
	if a := adopt(situation{slot: d.config.Slot, src: &src, db: db}); a.step == stepGap {
		return refuseGap(ctx, d.store, d.config.Slot, &src, a)
	}
	return d.noteServer(ctx, db, src.Server)
}

// noteServer stores how far the slot has let go of the log. It was so when the slot was seen before, so that it is on the server's disk by
// now, and does not go back when the server crashes.
func (d *Daemon) noteServer(ctx context.Context, db *cdc.Database, before outbox.Server) error {
	s := serverOf(db, d.config.Slot)
	s.Restart = max(before.Restart, d.outlook.restart)
	d.outlook.restart = db.Slot.Restart
	if s == before {
		return nil
	}
	return d.saveServer(ctx, s)
}

// ended is why the stream ended, in the words of whoever has to decide how to go on where something is missing.
func (d *Daemon) ended(ctx context.Context, err error) error {
	if _, setup := errors.AsType[*cdc.SetupError](err); !setup {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	conn, connecting := d.connect(ctx)
	if connecting != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	p := &preparation{config: d.config, conn: conn, store: d.store}
	src := d.source
	src.Checkpoint, src.Verified, src.Server = d.batch.durable(), d.batch.verified(), d.server()
	db, inspecting := cdc.Inspect(ctx, conn, d.config.Slot)
	if inspecting != nil || db.Ready() != nil || db.SystemID != src.SystemID {
		return err
	}
	a, adopting := p.adopt(ctx, &src, nil, db)
	switch {
	case adopting == nil && a.step == stepGap:
		return refuseGap(ctx, d.store, d.config.Slot, &src, a)
	case adopting == nil && a.step == stepTurn: // no error of the configuration: whoever restarts what fails may do so
		return fmt.Errorf("slot %q: a standby was promoted that left at %s, and the stream is at %s; nothing was committed between that postman knows of\n"+
			"  → start postman again: it goes on there, in a new epoch, and nothing is missing", d.config.Slot, a.to, a.from)
	}
	return err
}
