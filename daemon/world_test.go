package daemon

import (
	"context"
	"io"
	"log/slog"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
	"postman/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Shared(m)) }

// patience is how long a test waits for what must come: on a busy machine much longer than it takes.
const patience = time.Minute

// world is all that a postman lives in: a database with the application's tables, a relay, rules and templates.
type world struct {
	t      *testing.T
	url    string
	dir    string
	relay  *smtptest.Server
	config Config
	also   io.Writer // gets what daemons log; nil: only the test's own log does
	blind  bool      // daemons look at the database only when the test has them do so
}

const worldSchema = `
	create table staff (id int primary key, email text, name text not null);
	create table visits (id bigint generated always as identity primary key, kind text not null, staff_id int, note text, price numeric(12,2));
	insert into staff values (1, 'kim@example.com', '김민준'), (2, 'lee@example.com', '이서연'), (3, null, 'nobody');`

const worldRules = `
rules:
  - name: visit
    about: A visit was booked for you.
    on: {table: visits, ops: [insert]}
    when: new.kind == "visit"
    load:
      who: select name from staff where id = @new.staff_id
    to:
      query: select email, name from staff where id = @new.staff_id
    template: visit
`

var worldTemplates = map[string]string{
	"visit.html": `{{define "subject"}}Visit {{.new.id}} for {{.who.name}}{{end}}{{define "body"}}<p>{{.new.note}} {{.new.price}}</p>{{end}}`,
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, url: pgtest.Database(t), dir: t.TempDir()}
	pgtest.Exec(t, w.url, worldSchema)
	relay, err := smtptest.Start(smtptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	w.relay = relay
	w.rules(worldRules)
	for name, text := range worldTemplates {
		w.template(name, text)
	}
	c := DefaultConfig()
	c.DatabaseURL, c.StoreURL = Secret(w.url), "sqlite:"+filepath.Join(w.dir, "postman.db")
	c.SMTPURL, c.Mode, c.From = Secret("smtp://"+relay.Addr()), "live", "Postman <postman@example.com>"
	c.Rules, c.Templates = filepath.Join(w.dir, "rules.yaml"), filepath.Join(w.dir, "templates")
	c.Slot, c.HTTP = pgtest.Name(w.url), "127.0.0.1:0"
	c.Retry.Pauses = []Span{Span(50 * time.Millisecond), Span(100 * time.Millisecond), Span(200 * time.Millisecond), Span(400 * time.Millisecond), Span(time.Second)}
	w.config = c
	return w
}

func (w *world) rules(text string) {
	w.t.Helper()
	write(w.t, filepath.Join(w.dir, "rules.yaml"), text)
}

func (w *world) template(name, text string) {
	w.t.Helper()
	dir := filepath.Join(w.dir, "templates")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	write(w.t, filepath.Join(dir, name), text)
}

func (w *world) sql(statements ...string) {
	w.t.Helper()
	pgtest.Exec(w.t, w.url, statements...)
}

// start runs a daemon that stops, at the latest, with the test.
func (w *world) start() *Daemon {
	w.t.Helper()
	d, err := w.tryStart()
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) tryStart() (*Daemon, error) {
	w.t.Helper()
	return w.startIn(w.t.Context())
}

func (w *world) build() (*Daemon, error) {
	log := w.t.Output()
	if w.also != nil {
		log = io.MultiWriter(log, w.also)
	}
	d, err := New(Options{Config: w.config, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err == nil && w.blind {
		d.outlook.every, d.peek = time.Hour, nil
	}
	return d, err
}

func (w *world) startIn(ctx context.Context) (*Daemon, error) {
	w.t.Helper()
	d, err := w.build()
	if err != nil {
		return nil, err
	}
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { //nolint:contextcheck // it comes after the end of the context
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), 10*time.Second)
		defer cancel()
		_ = d.Stop(ctx) // a test that cares has stopped it and looked
	})
	return d, nil
}

func (w *world) stop(d *Daemon) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), 10*time.Second)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		w.t.Errorf("stopping: %v", err)
	}
}

// subjects waits for n mails and returns the subjects of all that came, sorted.
func (w *world) subjects(n int) []string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	mails, err := w.relay.Wait(ctx, n)
	if err != nil {
		w.t.Error(err)
	}
	var subjects []string
	for _, m := range mails {
		subjects = append(subjects, header(m.Data, "Subject"))
	}
	slices.Sort(subjects)
	return subjects
}

// header reads a header that stands on one line.
func header(mail []byte, name string) string {
	for line := range strings.Lines(string(mail)) {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			decoded, err := new(mime.WordDecoder).DecodeHeader(strings.TrimSpace(v))
			if err != nil {
				return v
			}
			return decoded
		}
	}
	return ""
}

// recipients lists the envelope recipients of all mails that came, sorted.
func (w *world) recipients() []string {
	var all []string
	for _, m := range w.relay.Mails() {
		all = append(all, m.To...)
	}
	slices.Sort(all)
	return all
}

// messages waits until the daemon's store holds n finished messages, and returns them, oldest first.
func (w *world) messages(d *Daemon, n int) []outbox.Message {
	w.t.Helper()
	var found []outbox.Message
	w.eventually("finished messages", func() bool {
		all, err := d.store.Messages(w.t.Context(), outbox.Filter{Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		found = slices.DeleteFunc(all, func(m outbox.Message) bool { return m.Finished.IsZero() })
		return len(found) >= n
	})
	slices.Reverse(found)
	return found
}

// matches waits until the store holds n matches in a state, and returns them, oldest first.
func (w *world) matches(d *Daemon, n int, state outbox.MatchState) []outbox.Match {
	w.t.Helper()
	w.eventually("matches "+state.String(), func() bool {
		counts, err := d.store.Count(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return counts.Matches[state] >= n
	})
	found, err := d.store.Matches(w.t.Context(), outbox.Filter{Limit: 100_000, MatchStates: []outbox.MatchState{state}})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(found)
	return found
}

// covered waits until the store covers all that is committed now.
func (w *world) covered(d *Daemon) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var end string
	if err := conn.QueryRow(w.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the store covers "+end, func() bool {
		var covered bool
		err := conn.QueryRow(w.t.Context(), "select $1::text::pg_lsn >= $2::text::pg_lsn", d.batch.durable().String(), end).Scan(&covered)
		return err == nil && covered
	})
}

// markRule is for mark.
const markRule = "  - {name: mark, on: {message: mark}, to: {address: a@example.com}, template: plain}\n"

// mark waits until all that is committed now has been taken in. It takes less time than covered, and markRule.
func (w *world) mark(d *Daemon) {
	w.t.Helper()
	marks := w.matchesOf(d, "mark")
	w.sql(`select pg_logical_emit_message(true, 'postman.mark', '{}')`)
	w.eventually("the mark", func() bool { return w.matchesOf(d, "mark") > marks })
}

// matchesOf is how many matches a rule has.
func (w *world) matchesOf(d *Daemon, rule string) int {
	w.t.Helper()
	all, err := d.store.Matches(w.t.Context(), outbox.Filter{Rules: []string{rule}, Limit: 1_000_000})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

// eventually polls a condition that the outside world makes true.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			w.t.Fatalf("timed out: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
