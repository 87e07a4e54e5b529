package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/daemon"
	"postman/examples/crm"
	"postman/internal/pgcluster"
	"postman/internal/smtptest"
)

// world is everything that a demo starts: Postgres with the CRM, a relay, postman, and the page.
type world struct {
	o     Options
	term  *terminal
	inbox *inbox
	dir   string // for temporary files

	cluster *pgcluster.Cluster
	crm     *pgx.Conn // what the CRM's people work with
	relay   *smtptest.Server
	daemon  *daemon.Daemon
	url     string // the page's

	settings daemon.Config // the daemon's

	cleanup []func() // the last first
}

// build starts everything, step by step. After an error nothing is left behind.
func build(ctx context.Context, o Options, t *terminal) (_ *world, err error) {
	w := &world{o: o, term: t, inbox: newInbox()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	steps := []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"Postgres", w.startCluster},
		{"CRM", w.fillCRM},
		{"Relay", w.startRelay},
		{"postman", w.startDaemon},
		{"Inbox", w.servePage},
	}
	if o.Once {
		steps = steps[:len(steps)-1] // nobody would have the time to look
	}
	for _, step := range steps {
		t.begin(step.name)
		begun := time.Now()
		detail, err := step.do(ctx)
		t.end(step.name, detail, time.Since(begun), err)
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) defers(f func()) { w.cleanup = append(w.cleanup, f) }

// close stops everything and removes the temporary files.
func (w *world) close() {
	for _, f := range slices.Backward(w.cleanup) {
		f()
	}
	w.cleanup = nil
}

func (w *world) startCluster(ctx context.Context) (string, error) {
	var err error
	if w.dir, err = os.MkdirTemp("", "postman-demo-"); err != nil {
		return "", fmt.Errorf("making a directory for temporary files: %w", err)
	}
	// What cannot be removed lies in a directory for temporary files; there is nobody to tell.
	w.defers(func() { _ = os.RemoveAll(w.dir) })
	if w.cluster, err = pgcluster.Start(ctx, pgcluster.Options{}); err != nil {
		return "", err
	}
	w.defers(w.cluster.Stop)
	return fmt.Sprintf("version %d, in %s", w.cluster.Version(), w.cluster.Dir), nil
}

const database = "crm"

// fillCRM makes the example CRM, and the role that looks up recipients: it can read and nothing else.
func (w *world) fillCRM(ctx context.Context) (string, error) {
	admin, err := pgx.Connect(ctx, w.cluster.URL("postgres"))
	if err != nil {
		return "", err
	}
	_, err = admin.Exec(ctx, "create database "+database)
	admin.Close(ctx)
	if err != nil {
		return "", fmt.Errorf("making the CRM's database: %w", err)
	}
	if w.crm, err = pgx.Connect(ctx, w.cluster.URL(database)); err != nil {
		return "", err
	}
	w.defers(func() { w.crm.Close(context.WithoutCancel(ctx)) })
	for _, sql := range []string{
		crm.Schema, crm.Data, "create role postman_reader login", "grant select on all tables in schema public to postman_reader",
	} {
		if _, err := w.crm.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("filling the CRM: %w", err)
		}
	}
	var detail string
	err = w.crm.QueryRow(ctx, `select format('%s people in %s teams, %s customers, %s listings', (select count(*) from staff),
		(select count(*) from teams), (select count(*) from customers), (select count(*) from listings))`).Scan(&detail)
	return detail, err
}

func (w *world) startRelay(context.Context) (string, error) {
	o := smtptest.Options{Accepted: w.inbox.accept}
	if w.o.Once {
		o.Hook = putOff
	}
	var err error
	if w.relay, err = smtptest.Start(o); err != nil {
		return "", err
	}
	w.defers(w.relay.Close)
	return "SMTP on " + w.relay.Addr(), nil
}

func (w *world) startDaemon(ctx context.Context) (string, error) {
	c, err := w.config()
	if err != nil {
		return "", err
	}
	log, err := daemon.NewLogger(w.o.Stderr, c.Log)
	if err != nil {
		return "", err
	}
	d, err := daemon.New(daemon.Options{Config: c, Log: log, Observe: w.inbox.record})
	if err != nil {
		return "", err
	}
	if err := d.Start(ctx); err != nil {
		return "", err
	}
	w.daemon, w.settings = d, c
	w.defers(func() {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), time.Duration(c.Drain), errors.New("the mails in hand did not end in time"))
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			w.term.line("  %s stopping postman: %v", w.term.paint(red, "✕"), err)
		}
	})
	return fmt.Sprintf("mode %s, rules of %s", c.Mode, c.Rules), nil
}

// config is the daemon's. Nothing of the environment goes into it: a demo must never meet somebody's database or relay.
func (w *world) config() (daemon.Config, error) {
	c := daemon.DefaultConfig()
	reader, err := url.Parse(w.cluster.URL(database))
	if err != nil {
		return c, err
	}
	reader.User = url.User("postman_reader")
	c.DatabaseURL, c.LookupURL = daemon.Secret(w.cluster.URL(database)), daemon.Secret(reader.String())
	c.StoreURL = "sqlite:" + filepath.Join(w.dir, "postman.db")
	c.SMTPURL = daemon.Secret("smtp://" + w.relay.Addr())
	c.Mode, c.From, c.Bounce = "live", `"온마루 부동산중개" <no-reply@onmaru.example>`, "bounces@onmaru.example"
	c.Locale, c.Timezone, c.HTTP = "ko", "Asia/Seoul", ""
	c.Retry.Pauses, c.Drain = []daemon.Span{daemon.Span(time.Second), daemon.Span(2 * time.Second), daemon.Span(4 * time.Second)}, daemon.Span(5*time.Second)
	c.Log.Level = cmp.Or(w.o.LogLevel, "warn")
	if c.Templates, err = w.files(w.o.Templates, "templates"); err != nil {
		return c, err
	}
	c.Rules, err = w.files(w.o.Rules, "rules.yaml")
	if err == nil && w.o.Once {
		c.Rules, err = withOnce(c.Rules, filepath.Join(w.dir, "rules"))
	}
	return c, err
}

// files is where the rules or templates are: where the options say, or in the checkout that the demo was started in, where
// they can be edited while it runs, or else a copy of those in the binary.
func (w *world) files(named, name string) (string, error) {
	if named != "" {
		return named, nil
	}
	if _, err := os.Stat("examples/crm/schema.sql"); err == nil {
		return name, nil
	}
	if w.o.Example == nil {
		return "", fmt.Errorf("no %s here: start the demo in postman's own folder, or name --rules and --templates", name)
	}
	return copied(w.o.Example, name, w.dir)
}

// copied copies a file or folder of a file system below a directory, and returns its path.
func copied(from fs.FS, name, dir string) (string, error) {
	to := filepath.Join(dir, name)
	err := fs.WalkDir(from, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return nil
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o600)
	})
	if err != nil {
		return "", fmt.Errorf("copying %s: %w", name, err)
	}
	return to, nil
}

// servePage listens where the options say; the usual port may be taken, by another demo for example, and then any will do.
func (w *world) servePage(ctx context.Context) (string, error) {
	p, err := newPage(w.inbox)
	if err != nil {
		return "", err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cmp.Or(w.o.Listen, usualAddress))
	if err != nil && w.o.Listen == "" {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", fmt.Errorf("listening for browsers: %w", err)
	}
	w.url = "http://" + listener.Addr().String()
	base, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends the streams of events
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return base }}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it ends with Close alone
	}()
	w.defers(func() {
		cancel()
		_ = server.Close()
		<-served
	})
	return w.url, nil
}

const usualAddress = "127.0.0.1:8025"
