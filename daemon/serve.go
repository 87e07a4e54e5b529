package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postman/outbox"
	"postman/position"
)

// SocketPath is where the daemon that owns a store listens for the commands: beside the store, so that who may change the
// store may talk to its daemon.
func SocketPath(store string) string { return store + ".sock" }

// listen opens the operators' listeners, the socket for the commands and /healthz on the HTTP address, and that of recipients. They answer
// while the daemon is still starting, too.
func (d *Daemon) listen(ctx context.Context) error {
	socket, err := listenSocket(SocketPath(d.config.StorePath()))
	if err != nil {
		return err
	}
	a := &api{config: &d.config, store: d.store, soft: d.config.SoftBounces.limit(), status: d.Status, acted: d.wake, replayer: d.replayer, sampler: d.sampler, acting: &d.acting, ends: d.ends}
	d.serveOn(ctx, socket, a.handler())
	d.defers(func() { d.close("socket", os.Remove(SocketPath(d.config.StorePath()))) })
	if err := d.listenPublic(ctx, a); err != nil {
		return err
	}
	if d.config.HTTP == "" || d.config.HTTP == "off" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", d.config.HTTP)
	if err != nil {
		return fmt.Errorf("listening on http %s (POSTMAN_HTTP; off for none): %w", d.config.HTTP, err)
	}
	d.addr = listener.Addr()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", d.healthz)
	d.serveOn(ctx, listener, mux)
	return nil
}

// Addr is the address of the HTTP listener, once started; nil: there is none.
func (d *Daemon) Addr() net.Addr { return d.addr }

// listenSocket listens on a path that only the owner may use. A socket that a dead process left behind is in the way of
// nobody: the store's lock has told already that no other daemon lives.
func listenSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the stale socket: %w", err)
	}
	return withShortPath(path, func(short string) (net.Listener, error) {
		listener, err := net.Listen("unix", short)
		if err != nil {
			return nil, fmt.Errorf("listening on the commands' socket %s: %w", path, err)
		}
		listener.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("closing the socket to others: %w", err), listener.Close())
		}
		return listener, nil
	})
}

// DialSocket connects to the daemon that owns a store.
func DialSocket(ctx context.Context, store string) (net.Conn, error) {
	return withShortPath(SocketPath(store), func(short string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", short)
	})
}

// withShortPath calls f with a path that fits into a socket address, which holds about a hundred bytes: a longer one goes
// through the directory's descriptor.
func withShortPath[T any](path string, f func(string) (T, error)) (T, error) {
	if len(path) < 100 {
		return f(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		var none T
		return none, err
	}
	defer dir.Close() //nolint:errcheck // it was only read
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func (d *Daemon) serveOn(ctx context.Context, l net.Listener, h http.Handler) *http.Server {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	d.serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.setTrouble("http", err)
		}
	})
	d.defers(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			d.close("listener", server.Close())
		}
	})
	return server
}

// healthz says 200 while changes are taken in and stored, 503 otherwise. A relay that is down, a rule that is broken, what it missed, mails that
// failed and what waits for a DBA are told as trouble but are no 503: a restart would mend none of them.
func (d *Daemon) healthz(w http.ResponseWriter, r *http.Request) {
	healthy, trouble := d.health(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(map[string]any{"healthy": healthy, "trouble": trouble}) //nolint:errcheck // the client is gone
}

// wake has dispatch look at the store, once there is one.
func (d *Daemon) wake() {
	if d.ready.Load() {
		d.dispatch.Wake()
	}
}

// vital are the parts without which no changes are taken in. What is wrong with others is for people to see to.
var vital = []string{"daemon", "start", "store"}

// health says whether changes are taken in, and lists all that is wrong.
func (d *Daemon) health(ctx context.Context) (healthy bool, trouble []string) {
	healthy = true
	d.mu.Lock()
	for part, text := range d.trouble {
		trouble = append(trouble, part+": "+text)
		healthy = healthy && !slices.Contains(vital, part)
	}
	d.mu.Unlock()
	if !d.ready.Load() {
		return false, append(trouble, "it is starting: "+*d.step.Load())
	}
	if s := d.stream.Status(); !s.Connected {
		healthy = false
		trouble = append(trouble, "the stream is not connected: "+s.LastError)
	} else if s.Held != "" {
		healthy = false
		trouble = append(trouble, "the stream stands still: "+s.Held)
	}
	if slot := d.slot.Load(); slot != nil && slot.Level != SlotOK {
		healthy = healthy && slot.Level != SlotCritical
		trouble = append(trouble, slot.Note)
	}
	sending := d.dispatch.Status()
	for i := range sending.Relays {
		if t := sending.Relays[i].Trouble(); t != "" {
			trouble = append(trouble, t)
		}
	}
	if sending.LookupError != "" {
		trouble = append(trouble, "look-ups fail: "+sending.LookupError)
	}
	trouble = append(trouble, d.missing(ctx)...)
	slices.Sort(trouble)
	return healthy, trouble
}

// mostNamed bounds the rules that trouble names one by one.
const mostNamed = 5

// missing tells of rules whose mails are missed: they do not decide, did not for a while, or what they decided on failed. It makes nobody
// unhealthy: a restart would not mend it, and the other rules go on.
func (d *Daemon) missing(ctx context.Context) (trouble []string) {
	if broken := d.broken.list(); len(broken) > 0 {
		names := make([]string, 0, mostNamed)
		for _, b := range broken[:min(len(broken), mostNamed)] {
			names = append(names, b.rule)
		}
		text := fmt.Sprintf("%s broken, and mails are missed: %s", counted(len(broken), "rule is", "rules are"), strings.Join(names, ", "))
		if more := len(broken) - len(names); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		trouble = append(trouble, text)
	}
	gaps, err := d.store.Gaps(ctx)
	if err == nil {
		var told []string
		told, err = d.unsettled(ctx, gaps)
		trouble = append(trouble, told...)
	}
	failures, failure := d.store.Failures(ctx)
	if err := errors.Join(err, failure); err != nil {
		trouble = append(trouble, "reading the store: "+err.Error())
	}
	held, err := heldNow(ctx, d.store)
	if err != nil {
		trouble = append(trouble, "reading the store: "+err.Error())
	}
	return append(append(trouble, heldTrouble(held)...), failed(failures)...)
}

// unsettled tells of gaps that have ended and that nobody has made up for or accepted, and the steps out.
func (d *Daemon) unsettled(ctx context.Context, gaps []outbox.Gap) (trouble []string, err error) {
	gaps = slices.DeleteFunc(gaps, func(g outbox.Gap) bool {
		nothing := g.Rule == "" && g.Lost && g.From == g.To && !strings.HasPrefix(g.Reason, unreadReason) // a start was refused, and then nothing was missing
		return g.To == 0 || g.Settled() || nothing
	})
	view := viewing(ctx, d.store)
	for i := range gaps {
		if i == mostNamed {
			return append(trouble, counted(len(gaps)-i, "more gap is", "more gaps are")+" to be seen to: postman status"), nil
		}
		g := &gaps[i]
		v, err := view(g)
		if err != nil {
			return trouble, err
		}
		of := ""
		if g.Rule != "" {
			of = " of rule " + g.Rule
		}
		what := "is not made up for"
		if v.Lost {
			what = "is lost"
		}
		trouble = append(trouble, fmt.Sprintf("gap %d%s, %s to %s, %s: %s\n  → %s", v.ID, of, v.From, v.To, what, firstLine(v.Reason), cmp.Or(v.Mend, v.Accept, acceptCommand(v.ID))))
	}
	return trouble, nil
}

// failed tells what has failed for good, and the steps out.
func failed(list []outbox.Failure) (trouble []string) {
	all := 0
	for _, f := range list {
		all += f.Matches + f.Messages
	}
	if all >= outbox.MostFailures {
		trouble = append(trouble, fmt.Sprintf("of what has failed, only the latest %d are counted by rule: postman status counts all", outbox.MostFailures))
	}
	for i, f := range list {
		if i == mostNamed {
			return append(trouble, fmt.Sprintf("so it is of %d more rules: postman outbox list --state failed", len(list)-i))
		}
		var what []string
		if f.Matches > 0 {
			what = append(what, counted(f.Matches, "match", "matches"))
		}
		if f.Messages > 0 {
			what = append(what, counted(f.Messages, "message", "messages"))
		}
		trouble = append(trouble, fmt.Sprintf("rule %s: %s failed: %s\n  → mend that, then %s; or end them: postman outbox discard --rule %[1]s --state failed",
			f.Rule, strings.Join(what, " and "), firstLine(f.Reason), retryCommand(f.Rule)))
	}
	return trouble
}

func retryCommand(rule string) string {
	return "postman outbox retry --rule " + rule + " --state failed"
}

// Status is all that operators see.
func (d *Daemon) Status() Status {
	s := StoreStatus(context.Background(), d.store)
	s.Running, s.Starting, s.Started, s.Mode = true, !d.ready.Load(), d.started, d.config.Mode
	healthy, trouble := d.health(context.Background())
	s.Healthy, s.Trouble = healthy && len(s.Trouble) == 0, append(trouble, s.Trouble...)
	if s.Starting {
		return s
	}
	stream := d.stream.Status()
	stored := d.batch.durable()
	// The walsender tells how far the log has come when it has nothing else to tell; so that one may be older news.
	end, seen := d.outlook.end.get()
	if stream.ServerEnd >= end {
		end, seen = stream.ServerEnd, stream.LastMessage
	}
	s.Stream = StreamStatus{
		Connected: stream.Connected, Since: stream.Since, LastError: stream.LastError, Held: stream.Held, ServerEnd: end.String(), ServerSeen: seen,
		Received: stream.Received.String(), Stored: stored.String(), Confirmed: stream.Confirmed.String(), Refused: stream.Refused,
		Unread: d.tally.unread.Load(), Ignored: d.tally.byOrigin(), Untaken: d.tally.byName(),
	}
	if end > stored {
		s.Stream.Behind = int64(end - stored)
	}
	s.Slot = d.slot.Load()
	s.Rules = d.rulesStatus(s.Gaps)
	d.mu.Lock()
	s.Rules.ReloadFail = d.trouble["reload"]
	if d.surplus != "" {
		s.Warnings = append(s.Warnings, d.surplus)
	}
	d.mu.Unlock()
	s.Relay = RelayStatus{d.dispatch.Status()}
	s.Relays = s.Relay.Relays
	return s
}

func (d *Daemon) rulesStatus(gaps []GapStatus) RulesStatus {
	l := d.live.Load()
	s := RulesStatus{Rules: len(l.rules.Rules), Templates: len(l.templates.Names()), Loaded: l.loaded, Mismatches: d.mismatches.Load()}
	from := position.LSN(l.from.Load())
	if from != 0 {
		s.From = from.String()
	}
	for _, n := range l.fresh {
		view := NewRule{Rule: n.name}
		if since := l.since(n); since != 0 {
			view.From = since.String()
		}
		s.New = append(s.New, view)
	}
	for _, b := range d.broken.list() {
		view := BrokenRule{Rule: b.rule, From: b.from.String(), Reason: b.why, Lost: b.lost}
		if i := slices.IndexFunc(gaps, func(g GapStatus) bool { return g.Rule == b.rule && g.To == "" && !g.Lost }); i >= 0 && !b.lost {
			view.Mend = replayCommand(gaps[i].ID)
		}
		s.Broken = append(s.Broken, view)
	}
	return s
}

// deadFor is how long a mail that died is told of, unless somebody has it retried.
const deadFor = 24 * time.Hour

// StoreStatus is what a store alone tells.
func StoreStatus(ctx context.Context, store outbox.Store) Status {
	s := Status{Version: Version(), Sources: []SourceStatus{}, Gaps: []GapStatus{}}
	sources, errSources := store.Sources(ctx)
	gaps, errGaps := store.Gaps(ctx)
	counts, errCounts := store.Count(ctx)
	held, errHeld := heldNow(ctx, store)
	dead, errDead := store.Dead(ctx, time.Now().Add(-deadFor))
	if dead.Messages > 0 {
		s.Dead = &dead
	}
	if err := errors.Join(errSources, errGaps, errCounts, errHeld, errDead); err != nil {
		s.Trouble = append(s.Trouble, "reading the store: "+err.Error())
	}
	s.Outbox, s.Held = counts, held
	for _, src := range sources {
		journal, err := journalOf(ctx, store, src)
		if err != nil {
			s.Trouble = append(s.Trouble, "reading the store: "+err.Error())
		}
		s.Sources = append(s.Sources, SourceStatus{src.Database, src.SystemID, src.Slot, src.Epoch, src.Checkpoint.String(), src.Armed, journal})
	}
	view := viewing(ctx, store)
	for i := range gaps {
		v, err := view(&gaps[i])
		if err != nil {
			s.Trouble = append(s.Trouble, "reading the store: "+err.Error())
		}
		s.Gaps = append(s.Gaps, v)
	}
	return s
}
