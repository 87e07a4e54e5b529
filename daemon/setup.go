package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/rules"
)

// SetupOptions is what an operator asks of Setup.
type SetupOptions struct {
	AcceptGap bool // record a gap between store and slot, and go on behind it
	Arm       bool // let mode live send for the configured database
	Print     bool // print the SQL, change nothing
}

// Setup makes publications and slot, and fits the store to them. It returns what it did, line by line, also beside an error.
// It may be run again at any time while no daemon runs on the store.
func Setup(ctx context.Context, c Config, o SetupOptions) ([]string, error) {
	if c.DatabaseURL == "" {
		return nil, usage("database_url: no database is named; set DATABASE_URL=postgres://user@host/database")
	}
	conn, err := pgx.Connect(ctx, string(c.DatabaseURL))
	if err != nil {
		return nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	source, err := rules.Read(c.Rules)
	if err != nil {
		return nil, err
	}
	catalog, err := cdc.LoadCatalog(ctx, conn, source.Tables())
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	set, err := rules.Compile(source, catalog)
	if err != nil {
		return nil, err
	}
	if o.Print {
		return setupSQL(ctx, conn, c, set.Needs(), catalog)
	}
	store, err := sqlite.Open(c.StorePath(), sqlite.Options{}) //nolint:contextcheck // its writer outlives the call
	if err != nil {
		if errors.Is(err, outbox.ErrLocked) {
			err = fmt.Errorf("%w\n  → a postman that runs makes its publications fit by itself; postman setup --print prints the SQL for a DBA beside it, "+
				"and for what else setup does it has to be stopped", err)
		}
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	p := &preparation{
		config: c, conn: conn, store: store, needs: set.Needs(), catalog: catalog, accept: o.AcceptGap, arm: o.Arm, then: "run postman setup again",
	}
	if o.AcceptGap {
		p.then = "run postman setup --accept-gap again"
	}
	done, err := setup(ctx, p, &live{source: source, rules: set, catalog: catalog})
	return done, errors.Join(err, store.Close())
}

func setup(ctx context.Context, p *preparation, set *live) (done []string, err error) {
	// What the last run's rules have missed is recorded before it is mended: the next run would not see it any more.
	p.missed = func(ctx context.Context, src outbox.Source, db *cdc.Database) (err error) {
		done, err = recordAway(ctx, p, src, db, set)
		return err
	}
	src, err := p.run(ctx)
	done = append(done, p.done...)
	if err != nil {
		return done, err
	}
	done = append(done, fmt.Sprintf("publications %[1]s_ins, %[1]s_upd, %[1]s_del fit the rules", p.config.Slot),
		fmt.Sprintf("slot %s streams from %s, epoch %d", p.config.Slot, src.Checkpoint, src.Epoch))
	if p.surplus != nil {
		done = append(done, p.surplus.String())
	}
	if p.arm {
		done = append(done, "live sending is armed for "+src.Armed)
	}
	return append(done, revokeHint...), nil
}

// recordAway stores the gaps of rules whose tables are not published that were when the last run ended, and tells them. The next run
// takes them up, and ends them.
func recordAway(ctx context.Context, p *preparation, src outbox.Source, db *cdc.Database, set *live) (told []string, err error) {
	broken := missing(db, p.config.Slot, p.catalog, watchers(set.source.Rules, p.watched.still(p.catalog)))
	if len(broken) == 0 {
		return nil, nil
	}
	if err := set.register(ctx, p.store); err != nil {
		return nil, err
	}
	for _, b := range broken {
		b.from = lastLooked(&src)
		if err := p.store.SaveGap(ctx, b.gap(src)); err != nil {
			return told, fmt.Errorf("recording the gap of rule %q: %w", b.rule, err)
		}
		told = append(told, fmt.Sprintf("rule %s has missed changes since %s, which are lost: %s", b.rule, b.from, b.why))
	}
	return told, nil
}

// revokeHint is for DBAs: the function that rules and mutes listen to may be called by any role.
var revokeHint = []string{
	"any role may write logical messages, and so ask for mails that rules send on a message; to let only one role do so:",
	"  revoke execute on function pg_logical_emit_message(boolean, text, text) from public;",
	"  revoke execute on function pg_logical_emit_message(boolean, text, bytea) from public;",
	"  grant execute on function pg_logical_emit_message(boolean, text, text) to <the application's role>;",
}

func setupSQL(ctx context.Context, conn *pgx.Conn, c Config, needs []cdc.Need, catalog *cdc.Catalog) ([]string, error) {
	db, err := cdc.Inspect(ctx, conn, c.Slot)
	if err != nil {
		return nil, err
	}
	plan, err := cdc.PlanPublications(db, c.Slot, needs, catalog)
	statements := plan.Statements()
	if db.Slot == nil {
		statements = append(statements, cdc.SlotSQL(c.Slot, db.Version))
	}
	for _, line := range revokeHint {
		statements = append(statements, "-- "+line)
	}
	return statements, errors.Join(err, db.Ready())
}

// misconfigured is an error of what the daemon was told, and not of the world.
type misconfigured struct{ what string }

func usage(what string) error { return misconfigured{what} }

func (m misconfigured) Error() string { return m.what }

// refused is an error of the files that people edit.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// Misconfigured says whether an error is one of configuration, rules or templates, that trying again will not mend.
func Misconfigured(err error) bool {
	_, usage := errors.AsType[misconfigured](err)
	_, files := errors.AsType[refused](err)
	_, rule := errors.AsType[rules.Errors](err)
	_, gap := errors.AsType[*GapError](err)
	_, armed := errors.AsType[*ArmError](err)
	_, sql := errors.AsType[*SQLError](err)
	_, ready := errors.AsType[*cdc.SetupError](err)
	return usage || files || rule || gap || armed || sql || ready
}
