package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// How long a test waits for what has to come; it is never waited for when all is well. In a bubble time costs nothing.
const (
	testPatience   = 2 * time.Minute
	bubblePatience = time.Hour
)

// setup says what a world is made of. Zero fields take what suits most tests.
type setup struct {
	schema    []string // of a database of its own; nil: there is none, and rules must not ask it
	cluster   string   // the URL of a database of the test's own, in place of schema
	rules     string
	templates map[string]string
	relay     smtptest.Options
	fake      *smtptest.Fake // in place of the relay
	tune      func(*Options)
	lookup    LookupOptions
	stopped   bool // Run is the test's to start
}

// world is a dispatcher among real neighbours: a Postgres database, a store on disk, rules, templates, a relay.
type world struct {
	testing.TB
	url    string
	conn   *pgx.Conn
	store  *watchedStore
	source outbox.Source
	relay  *smtptest.Server
	lookup *Lookup
	set    *rules.Set
	tables map[cdc.TableName]*cdc.Table
	*Dispatcher

	patience time.Duration
	mu       sync.Mutex
	lsn      position.LSN
	reports  []string
	observed []outcome
	sources  map[outbox.Hash]bool // of the templates
}

var crm = []string{
	`create table staff (id int primary key, email text, name text, locale text, timezone text)`,
	`create table meetings (id bigint primary key, title text, staff_id int, starts_at timestamptz, price numeric(12,2))`,
	`insert into staff values (1, 'kim@example.com', '김민수', 'ko', 'Asia/Seoul'), (2, 'ann@example.com', 'Ann', 'en', null)`,
}

const meetingRule = `
rules:
  - name: meeting
    about: You have a meeting.
    on: {table: meetings, ops: [insert]}
    to: {query: "select email, name, locale, timezone from staff where id = @new.staff_id"}
    template: meeting
`

const resetRule = `
rules:
  - name: reset
    about: A link to set a new password.
    on: {message: reset}
    to: message.email
    template: reset
  - name: careful
    about: A code.
    on: {message: careful}
    to: message.email
    uncertain: hold
    template: reset
`

var plainTemplates = map[string]string{
	"meeting.html": `{{define "subject"}}Meeting: {{.new.title}}{{end}}{{define "body"}}<p>Dear {{.to.name}}, {{.new.title}}</p>{{end}}`,
	"reset.html":   `{{define "subject"}}Reset{{end}}{{define "body"}}<p>{{.message.token}}</p>{{end}}`,
}

func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := &world{TB: t, patience: testPatience, lsn: 1 << 32, lookup: &Lookup{places: make(chan struct{}, 4)}}
	if s.schema != nil {
		s.cluster = pgtest.Database(t)
		pgtest.Exec(t, s.cluster, s.schema...)
	}
	if w.url = s.cluster; w.url != "" {
		w.conn = pgtest.Connect(t, w.url)
		w.lookup = must(OpenLookup(t.Context(), w.url, s.lookup))
		t.Cleanup(func() { w.lookup.Close(context.Background()) })
	}
	w.store = &watchedStore{Store: must(sqlite.Open(filepath.Join(t.TempDir(), "postman.db"), sqlite.Options{}))}
	w.store.changed.L = &w.store.mu
	t.Cleanup(func() { w.check(w.store.Close()) })
	w.source = must(w.store.SaveSource(t.Context(), outbox.Source{
		SystemID: "7", Database: "crm", Slot: "postman", Epoch: 1, State: outbox.SourceStreaming, Checkpoint: 1,
	}))
	w.compile(cmp.Or(s.rules, map[bool]string{true: resetRule, false: meetingRule}[w.url == ""]))

	o := Options{
		Store: w.store, Lookup: w.lookup, Rules: w.rule, Mode: Live, From: "CRM <crm@example.com>", Bounce: "bounce@example.com",
		Locale: "en", Zone: time.UTC, Report: w.report, Observe: w.observe, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	set := must(templates.Load(mapFS(s.templates)))
	o.Templates = func() *templates.Set { return set }
	w.sources = make(map[outbox.Hash]bool)
	for _, name := range set.Names() {
		for _, h := range set.Hashes(name) {
			w.sources[outbox.Hash(h)] = true
		}
	}
	if s.fake != nil {
		o.Relays = []Relay{{Host: "fake", Port: 25, Security: Plain, dial: s.fake.Dial}}
		t.Cleanup(s.fake.Close)
		w.patience = bubblePatience
	} else {
		w.relay = must(smtptest.Start(s.relay))
		t.Cleanup(w.relay.Close)
		o.Relays = []Relay{must(ParseRelay("smtp://" + w.relay.Addr()))}
	}
	if s.tune != nil {
		s.tune(&o)
	}
	w.Dispatcher = must(New(o))
	if !s.stopped {
		w.run()
	}
	return w
}

// run runs the dispatcher until the test ends, or the function that it returns is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			w.check(err)
		case <-time.After(testPatience):
			w.Error("Run does not end")
		}
	})
	w.Cleanup(stop)
	for w.Room() == 0 {
		time.Sleep(time.Millisecond) // Run has no moment of its own when it is up
	}
	return stop
}

func mapFS(files map[string]string) fs.FS {
	if files == nil {
		files = plainTemplates
	}
	m := make(fstest.MapFS)
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) compile(text string) {
	w.Helper()
	path := filepath.Join(w.TempDir(), "rules.yaml")
	w.check(os.WriteFile(path, []byte(text), 0o600))
	source, err := rules.Read(path)
	w.check(err)
	var names []cdc.TableName
	for _, n := range source.Needs() {
		names = append(names, n.Table)
	}
	catalog := &cdc.Catalog{}
	if len(names) > 0 {
		catalog, err = cdc.LoadCatalog(w.Context(), w.conn, names)
		w.check(err)
	}
	w.tables = catalog.Tables
	w.set, err = rules.Compile(source, catalog)
	w.check(err)
}

func (w *world) rule(_ context.Context, m outbox.Match) (*rules.Rule, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.set.Rules {
		if r.Name == m.RuleName || outbox.HashOf([]byte(r.Name)) == m.Version {
			return r, nil
		}
	}
	if m.RuleName == "unread" || m.Version == outbox.HashOf([]byte("unread")) {
		return nil, fmt.Errorf("%w: the disk is slow", ErrNotNow)
	}
	return nil, ErrRuleGone
}

func (w *world) report(_ context.Context, err error, rule, class string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, fmt.Sprintf("%s %s: %v", class, rule, err))
	w.Logf("report: %s %s: %v", class, rule, err)
}

func (w *world) reported() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports)
}

func (w *world) observe(m outbox.Message, o outbox.Outcome) {
	w.mu.Lock()
	w.observed = append(w.observed, outcome{m, o})
	w.mu.Unlock()
	w.store.notify()
}

func (w *world) outcomesSeen() []outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.observed)
}

// change is a change that a match is made of.
type change struct {
	rule    string
	op      cdc.Op
	table   *cdc.Table
	new     []value.Datum
	old     []value.Datum
	message string
	xid     uint32
	time    time.Time
	tune    func(*outbox.NewMatch)
}

// insert runs an insert … (without returning), and hands its row to the dispatcher as a match of the rule.
func (w *world) insert(rule, sql string) {
	w.Helper()
	w.take(w.inserted(rule, sql))
}

func (w *world) inserted(rule, sql string) change {
	w.Helper()
	c := change{rule: rule, op: cdc.Insert, table: w.tableOf(rule), time: time.Now()}
	tx, err := w.conn.Begin(w.Context())
	w.check(err)
	w.check(tx.QueryRow(w.Context(), "select pg_current_xact_id()::xid::text::int8").Scan(&c.xid))
	c.new = w.row(w.conn.PgConn(), sql+" returning "+columnList(c.table))
	w.check(tx.Commit(w.Context()))
	return c
}

func columnList(t *cdc.Table) string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = pgx.Identifier{c.Name}.Sanitize()
	}
	return strings.Join(names, ", ")
}

func (w *world) row(c *pgconn.PgConn, sql string) []value.Datum {
	w.Helper()
	r := c.ExecParams(w.Context(), sql, nil, nil, nil, nil).Read()
	w.check(r.Err)
	row, _ := datums(r.Rows[0])
	return row
}

func (w *world) tableOf(rule string) *cdc.Table {
	w.Helper()
	r, err := w.rule(w.Context(), outbox.Match{RuleName: rule})
	w.check(err)
	return w.tables[r.On.Table]
}

// emit hands a message to the dispatcher as a match of the rule.
func (w *world) emit(rule, json string) {
	w.Helper()
	w.take(message(rule, json))
}

func message(rule, json string) change {
	return change{rule: rule, op: cdc.Emit, message: json, time: time.Now()}
}

// reset is the content of a message for an address.
func reset(address string) string { return fmt.Sprintf(`{"email": %q, "token": "t0k3n"}`, address) }

// take stores changes, one transaction each, and hands over what the store gives for that.
// take does as the daemon does.
func (w *world) take(changes ...change) {
	w.Helper()
	b := w.batch(changes...)
	take := w.Ahead(&b)
	ms, err := w.store.Append(w.Context(), b, w.Room())
	take(ms)
	w.check(err)
}

func (w *world) append(claim int, changes ...change) []outbox.Match {
	w.Helper()
	ms, err := w.store.Append(w.Context(), w.batch(changes...), claim)
	w.check(err)
	return ms
}

func (w *world) batch(changes ...change) outbox.Batch {
	w.Helper()
	b := outbox.Batch{Source: w.source.ID, Epoch: 1, Texts: make(map[outbox.Hash][]byte)}
	for _, c := range changes {
		b.Transactions = append(b.Transactions, w.transaction(c, b.Texts))
	}
	b.Checkpoint = b.Transactions[len(b.Transactions)-1].End
	return b
}

func (w *world) transaction(c change, texts map[outbox.Hash][]byte) outbox.Transaction {
	w.Helper()
	w.mu.Lock()
	w.lsn += 100
	lsn := w.lsn
	w.mu.Unlock()
	ids, err := w.store.RuleIDs(w.Context(), outbox.RuleName{Name: c.rule})
	w.check(err)
	stored := cdc.Change{Op: c.op, Table: c.table, Content: []byte(c.message), Prefix: "postman." + c.rule}
	m := outbox.NewMatch{Rule: ids[0], Op: c.op.String(), Due: c.time, Priority: outbox.Normal, State: outbox.MatchPending}
	if c.table != nil {
		shape := c.table.Shape()
		m.Shape = outbox.HashOf(shape)
		texts[m.Shape] = shape
	}
	if c.new != nil {
		stored.New = cdc.MakeTuple(c.new)
	}
	if c.old != nil {
		stored.Old = cdc.MakeTuple(c.old)
	}
	m.Change = stored.AppendRest(nil, nil)
	m.Version = outbox.HashOf([]byte(c.rule))
	texts[m.Version] = []byte(c.rule)
	if c.tune != nil {
		c.tune(&m)
	}
	return outbox.Transaction{
		Tx:      outbox.Tx{LSN: lsn, End: lsn + 50, XID: c.xid, Time: c.time},
		Matches: []outbox.NewMatch{m},
	}
}

// eventually waits until a condition on the store or on what was observed holds.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	deadline := time.AfterFunc(w.patience, w.store.notify)
	defer deadline.Stop()
	started := time.Now()
	for {
		seen := w.store.now()
		if ok() {
			return
		}
		if time.Since(started) > w.patience {
			w.dump()
			w.Fatalf("it never happens: %s", what)
		}
		w.store.wait(seen)
	}
}

// holds waits until a condition on something that tells nobody of its changes holds.
func (w *world) holds(what string, ok func() bool) {
	w.Helper()
	for started := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(started) > w.patience {
			w.dump()
			w.Fatalf("it never happens: %s", what)
		}
	}
}

func (w *world) dump() {
	for _, m := range w.matches() {
		w.Logf("match %d %s %s: %s", m.ID, m.RuleName, m.State, m.Reason)
	}
	for _, m := range w.messages() {
		w.Logf("message %d %s %s: %s (%d attempts, due %s)", m.ID, m.Address, m.State, m.Reason, m.Attempts, m.Due)
	}
}

func (w *world) matches() []outbox.Match {
	w.Helper()
	ms, err := w.store.Matches(context.Background(), outbox.Filter{})
	w.check(err)
	slices.Reverse(ms)
	return ms
}

func (w *world) messages() []outbox.Message {
	w.Helper()
	ms, err := w.store.Messages(context.Background(), outbox.Filter{})
	w.check(err)
	slices.Reverse(ms)
	return ms
}

// settled waits until nothing is pending, queued or sending any more, and returns the messages' states by address.
func (w *world) settled() map[string]string {
	w.Helper()
	w.eventually("all is settled", func() bool {
		c, err := w.store.Count(context.Background())
		w.check(err)
		return c.Matches[outbox.MatchPending]+c.Messages[outbox.MessageQueued]+c.Messages[outbox.MessageSending] == 0
	})
	states := make(map[string]string)
	for _, m := range w.messages() {
		states[m.Address] = m.State.String()
		if m.State == outbox.MessageSent && !w.sources[m.Template] {
			w.Errorf("of message %d nobody knows the template: %x", m.ID, m.Template)
		}
	}
	return states
}

func (w *world) mails(n int) []smtptest.Mail {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), w.patience)
	defer cancel()
	mails, err := w.relay.Wait(ctx, n)
	if err != nil {
		w.dump()
		w.Fatal(err)
	}
	return mails
}

// parsed reads a mail's header.
func parsed(t testing.TB, data []byte) *mail.Message {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(string(data)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return m
}

// watchedStore lets tests wait for changes, and fail calls.
type watchedStore struct {
	outbox.Store
	mu      sync.Mutex
	changed sync.Cond
	changes int
	fail    func(call string) error // nil: nothing fails
	before  func(call string)       // nil: nothing happens
}

func (s *watchedStore) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.changed.Broadcast()
}

func (s *watchedStore) now() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

func (s *watchedStore) wait(seen int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.changes == seen {
		s.changed.Wait()
	}
}

func (s *watchedStore) ask(call string) error {
	s.mu.Lock()
	fail, before := s.fail, s.before
	s.mu.Unlock()
	if before != nil {
		before(call)
	}
	if fail != nil {
		return fail(call)
	}
	return nil
}

func (s *watchedStore) set(fail func(string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

var errStore = errors.New("disk full")

func (s *watchedStore) Expand(ctx context.Context, e outbox.Expansion) ([]outbox.Message, error) {
	defer s.notify()
	if err := s.ask("expand"); err != nil {
		return nil, err
	}
	return s.Store.Expand(ctx, e)
}

func (s *watchedStore) Act(ctx context.Context, a outbox.Action, f outbox.Filter, reason string, now time.Time) (outbox.Acted, error) {
	defer s.notify()
	return s.Store.Act(ctx, a, f, reason, now)
}

func (s *watchedStore) Start(ctx context.Context, starts []outbox.Start) ([]int64, error) {
	defer s.notify()
	if err := s.ask("start"); err != nil {
		return nil, err
	}
	return s.Store.Start(ctx, starts)
}

func (s *watchedStore) Record(ctx context.Context, o []outbox.Outcome) error {
	defer s.notify()
	if err := s.ask("record"); err != nil {
		return err
	}
	return s.Store.Record(ctx, o)
}
