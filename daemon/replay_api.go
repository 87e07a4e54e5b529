package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/outbox"
)

// ReplayLine is a line of the answer to a replay, or to its plan: how far it is, several times, and at last what came of it.
type ReplayLine struct {
	Progress *Progress   `json:"progress,omitempty"`
	Plan     *ReplayPlan `json:"plan,omitempty"`
	Done     *ReplayDone `json:"done,omitempty"`
	Error    string      `json:"error,omitempty"`
	Usage    bool        `json:"usage,omitempty"` // the error is the caller's
}

// ReplayView is a replay that was ordered.
type ReplayView struct {
	ID     int64     `json:"id"`
	From   string    `json:"from"` // positions
	To     string    `json:"to"`
	Rules  []string  `json:"rules,omitempty"` // none: all
	Muted  bool      `json:"muted,omitempty"`
	Resend bool      `json:"resend,omitempty"`
	By     string    `json:"by"`
	Why    string    `json:"why,omitempty"`
	Begun  time.Time `json:"begun"`
	Ended  time.Time `json:"ended,omitzero"` // absent: it was broken off, or is under way
}

// replaysOf are those that made what is shown.
func (a *api) replaysOf(ctx context.Context, v *ShowView) (views []ReplayView, err error) {
	made := map[int64]bool{v.Match.Replay: v.Match.Replay != 0}
	for i := range v.Messages {
		made[v.Messages[i].Replay] = v.Messages[i].Replay != 0
	}
	if len(made) == 1 && !made[v.Match.Replay] {
		return nil, nil
	}
	all, err := a.store.Replays(ctx)
	for _, o := range all {
		if made[o.ID] {
			views = append(views, ReplayView{o.ID, o.From.String(), o.To.String(), o.Rules, o.Muted, o.Resend, o.By, o.Why, o.Begun, o.Ended})
		}
	}
	return views, err
}

func (a *api) planReplay(w http.ResponseWriter, r *http.Request) {
	a.serveReplay(w, r, func(ctx context.Context, p *replayer, q ReplayRequest) (line ReplayLine, err error) {
		line.Plan, err = p.makePlan(ctx, q)
		return line, err
	})
}

func (a *api) replay(w http.ResponseWriter, r *http.Request) {
	a.serveReplay(w, r, func(ctx context.Context, p *replayer, q ReplayRequest) (line ReplayLine, err error) {
		line.Done, err = p.replay(ctx, q)
		return line, err
	})
}

// serveReplay answers line by line. The caller's going away ends it.
func (a *api) serveReplay(w http.ResponseWriter, r *http.Request, do func(context.Context, *replayer, ReplayRequest) (ReplayLine, error)) {
	var q ReplayRequest
	body := http.MaxBytesReader(nil, r.Body, 16<<20)
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil { // to the end: only then does the server lift its deadline, and notice that the caller goes away
		_, err = io.Copy(io.Discard, body)
	}
	if err != nil {
		reply(w, nil, badRequest{"reading the order of a replay: " + err.Error()})
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if a.ends != nil {
		go func() {
			select {
			case <-a.ends:
				cancel(errClosed)
			case <-ctx.Done():
			}
		}()
	}
	p, done, err := a.replayer(ctx)
	if err != nil {
		reply(w, nil, err)
		return
	}
	defer done()
	control, lines := http.NewResponseController(w), json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	say := func(line ReplayLine) {
		lines.Encode(line) //nolint:errcheck // the caller is gone; the context tells
		control.Flush()    //nolint:errcheck // likewise
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	p.tell = func(progress Progress) { say(ReplayLine{Progress: &progress}) }
	line, err := do(ctx, p, q)
	if err != nil {
		_, usage := errors.AsType[badRequest](err)
		line = ReplayLine{Error: err.Error(), Usage: usage}
	}
	say(line)
}

// replayer is the daemon's: the rules that are live decide, and mails go out at once.
func (d *Daemon) replayer(context.Context) (*replayer, func(), error) {
	if !d.ready.Load() {
		return nil, nil, fmt.Errorf("postman is starting (%s)\n  → try again when postman status says that it runs", *d.step.Load())
	}
	return &replayer{
		store: d.store, source: d.source, live: d.live.Load(), catalog: d.catalog.Load(), zone: d.zone, config: &d.config, lookup: d.lookup, wake: d.wake, log: d.log, busy: &d.replaying,
	}, func() {}, nil
}

// openReplayer is that of a command which has the store to itself: the rules of the files decide, once they are checked against the
// database, and mails go out when a daemon runs.
func openReplayer(ctx context.Context, c *Config, store outbox.Store) (_ *replayer, done func(), err error) {
	if c.DatabaseURL == "" {
		return nil, nil, badRequest{"database_url: no database is named; set DATABASE_URL=postgres://user@host/database"}
	}
	zone, err := time.LoadLocation(c.Timezone)
	if err != nil || c.Timezone == "" {
		return nil, nil, badRequest{"timezone: " + c.Timezone + " is no time zone; one looks like Asia/Seoul"}
	}
	d := &Daemon{config: *c}
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	source, err := sourceOf(ctx, conn, c.Slot, store)
	if err != nil {
		return nil, nil, err
	}
	lookup, err := d.openLookup(ctx)
	if err != nil {
		return nil, nil, err
	}
	done = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		lookup.Close(ctx)
	}
	set, err := (&loader{d.config, conn, lookup, false}).load(ctx)
	if err == nil {
		err = set.register(ctx, store)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return &replayer{store: store, source: source, live: set, catalog: set.catalog, zone: zone, config: c, lookup: lookup, busy: new(sync.Mutex)}, done, nil
}

// sourceOf is what a store calls the database of a connection.
func sourceOf(ctx context.Context, conn *pgx.Conn, slot string, store outbox.Store) (outbox.Source, error) {
	db, err := cdc.Inspect(ctx, conn, slot)
	if err != nil {
		return outbox.Source{}, err
	}
	source, err := store.Source(ctx, db.SystemID, db.Name, slot)
	if errors.Is(err, outbox.ErrNotFound) {
		err = badRequest{fmt.Sprintf("the store has nothing of slot %s of the database %s on this server (system %s)\n  → is STORE_URL the right one, and DATABASE_URL?", slot, db.Name, db.SystemID)}
	}
	return source, err
}
