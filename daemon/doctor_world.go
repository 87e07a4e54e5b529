package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/dispatch"
	"postman/rules"
)

// doctorPatience bounds each conversation with a server.
const doctorPatience = 10 * time.Second

// relays connects to each one as a daemon would, and says nothing of any mail.
func (d *doctor) relays(ctx context.Context) {
	d.area = "relay"
	if d.config.SMTPURL == "" {
		level := Doubtful
		if d.config.Sends() {
			level = Harmful
		}
		d.find(level, "relay", "none is named", "set SMTP_URL=smtp+starttls://user:password@host:587")
		return
	}
	var errs []error
	all := d.config.relays(func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) })
	if err := errors.Join(errs...); err != nil && !d.config.Sends() { // else it is among the settings
		d.find(Doubtful, "relay", err.Error(), "correct it before mails are to go")
	}
	for i := range all {
		p, err := dispatch.Prove(ctx, all[i], nil, dispatch.Timeouts{Dial: doctorPatience})
		if err == nil {
			d.relay(p)
		}
	}
}

func (d *doctor) relay(p *dispatch.Proof) {
	if !p.OK() {
		level := Harmful
		if !d.config.Sends() {
			level = Doubtful
		}
		d.find(level, p.Relay, p.Problem, p.Advice)
		return
	}
	how := "in clear text"
	if p.TLS != nil {
		how = p.TLS.Version
		if left := time.Until(p.TLS.Until); left < 14*24*time.Hour {
			d.find(Doubtful, p.Relay, fmt.Sprintf("its certificate ends in %s", roughly(left)), "tell the relay's owner")
		}
	}
	if p.Auth != "" {
		how += ", logs in by " + p.Auth
	}
	d.find(Fine, p.Relay, fmt.Sprintf("lets us in, %s, after %.0f ms", how, p.Took), "")
	var has, lacks []string
	for _, name := range []string{"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "STARTTLS", "AUTH"} {
		at := slices.IndexFunc(p.Offers, func(s string) bool { word, _, _ := strings.Cut(s, " "); return strings.EqualFold(word, name) })
		switch {
		case at >= 0:
			has = append(has, p.Offers[at])
		case (name != "STARTTLS" || p.TLS == nil) && (name != "AUTH" || p.Auth == ""): // within TLS, nobody offers it again
			lacks = append(lacks, name)
		}
	}
	text := "offers " + strings.Join(has, ", ")
	if len(lacks) > 0 {
		text += "; not " + strings.Join(lacks, ", ")
	}
	if slices.Contains(lacks, "PIPELINING") {
		d.find(Doubtful, p.Relay, text, "a mail takes four round trips without PIPELINING: have its owner turn it on")
		return
	}
	d.find(Fine, p.Relay, text, "")
}

// database looks at what the stream and the look-ups need.
func (d *doctor) database(ctx context.Context) {
	d.area = "database"
	if d.config.DatabaseURL == "" {
		return // it is among the settings
	}
	ctx, cancel := context.WithTimeout(ctx, 3*doctorPatience)
	defer cancel()
	conn, err := openReader(ctx, d.config.DatabaseURL, d.config.Lookup.Timeout)
	if err != nil {
		d.find(Harmful, "connection", err.Error(), "can this machine reach it, and are user, password and database right (DATABASE_URL)?")
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	db, err := cdc.Inspect(ctx, conn, d.config.Slot)
	if err != nil {
		d.find(Harmful, "catalog", err.Error(), "may the role read it?")
		return
	}
	if err := db.Ready(); err != nil {
		setup, _ := errors.AsType[*cdc.SetupError](err)
		d.find(Harmful, "server", setup.Problem, setup.Fix)
		return
	}
	d.find(Fine, "server", fmt.Sprintf("Postgres %d, wal_level logical", db.Version), "")
	d.clock(ctx, conn)
	d.slot(db)
	if db.Superuser || db.Replication {
		d.find(Fine, "stream role", fmt.Sprintf("%s may stream", db.Role), "")
	} else {
		d.find(Doubtful, "stream role", fmt.Sprintf("%s has not the attribute REPLICATION; hosted Postgres may grant it in another way", db.Role), "where streaming is refused: alter role "+pgx.Identifier{db.Role}.Sanitize()+" replication")
	}
	d.lookups(ctx, d.publications(ctx, conn, db))
}

// A difference between clocks that shows: expiry, quiet hours and schedules go by this machine's.
const clockOff = 5 * time.Second

func (d *doctor) clock(ctx context.Context, conn *pgx.Conn) {
	var theirs time.Time
	before := time.Now()
	err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&theirs)
	took := time.Since(before)
	switch off := theirs.Sub(before.Add(took / 2)).Round(time.Millisecond); {
	case err != nil:
		d.find(Doubtful, "clock", "the server does not tell: "+err.Error(), "")
	case off.Abs() > clockOff+took:
		d.find(Doubtful, "clock", fmt.Sprintf("this machine's and the server's differ by %s: expiry and delays go wrong by that", off.Abs()), "let both follow NTP")
	default:
		d.find(Fine, "clock", fmt.Sprintf("differs from the server's by %s", off.Abs()), "")
	}
}

func (d *doctor) slot(db *cdc.Database) {
	s := slotStatus(db, time.Now())
	if s == nil {
		d.find(Doubtful, "slot", fmt.Sprintf("%s is not there yet", d.config.Slot), "postman setup, or postman run, makes it")
		return
	}
	s.assess(db.IdleLimit)
	read := "nobody reads it"
	if s.Active {
		read = "a postman reads it"
	}
	switch text := fmt.Sprintf("%s: %s, %s held back", s.Name, read, Bytes(s.Retained)); {
	case s.Level == SlotCritical:
		d.find(Harmful, "slot", s.Note, "docs/slots.md says what can still be saved")
	case s.Level == SlotWarning:
		d.find(Doubtful, "slot", s.Note, "start postman, or give it more (max_slot_wal_keep_size)")
	case !s.Active:
		d.find(Doubtful, "slot", text, "postman run; a slot that is not needed any more: select pg_drop_replication_slot('"+s.Name+"')")
	default:
		d.find(Fine, "slot", text, "")
	}
	if _, missing := db.PublicationIDs(d.config.Slot); len(missing) > 0 {
		d.find(Harmful, "publications", "gone beside a slot: "+strings.Join(missing, ", "), "postman setup --accept-gap: a publication that is made now does not serve what was committed before")
	}
}

// publications compares what is published with what the rules need, and returns the rules; nil: there are none that fit.
func (d *doctor) publications(ctx context.Context, conn *pgx.Conn, db *cdc.Database) *rules.Set {
	source, err := rules.Read(d.config.Rules)
	if err != nil {
		d.find(Harmful, "rules", firstLine(err.Error()), "postman check")
		return nil
	}
	catalog, err := cdc.LoadCatalog(ctx, conn, source.Tables())
	if err != nil {
		d.find(Harmful, "rules", err.Error(), "may the role read the catalog?")
		return nil
	}
	set, err := rules.Compile(source, catalog)
	if err != nil {
		d.find(Harmful, "rules", firstLine(err.Error()), "postman check")
		return nil
	}
	d.find(Fine, "rules", fmt.Sprintf("%d, which fit the database's tables", len(set.Rules)), "")
	plan, err := cdc.PlanPublications(db, d.config.Slot, set.Needs(), catalog)
	switch {
	case err != nil:
		d.find(Harmful, "publications", err.Error(), "postman check")
	case len(plan.Missing) == 0:
		d.find(Fine, "publications", "hold what the rules need", "")
	default:
		level, todo := Doubtful, "postman setup, or a postman that starts, runs: "+strings.Join(plan.Missing, " ")
		tables := source.Tables()
		if may, err := cdc.MayPublish(ctx, conn, d.config.Slot, tables); err == nil && !may {
			level, todo = Harmful, "the role "+db.Role+" may not: a DBA has to run "+strings.Join(plan.Missing, " ")
		}
		d.find(level, "publications", "lack what the rules need", todo)
	}
	return set
}

// lookups connects as look-ups do, and asks what their role may do: what the rules ask for, and nothing beside.
func (d *doctor) lookups(ctx context.Context, set *rules.Set) {
	url := d.config.LookupURL
	if url == "" {
		url = d.config.DatabaseURL
	}
	l, err := dispatch.OpenLookup(ctx, string(url), dispatch.LookupOptions{Conns: 1, Timeout: time.Duration(d.config.Lookup.Timeout)})
	if err != nil {
		d.find(Harmful, "look-up role", err.Error(), "recipients are asked for there: LOOKUP_URL, or else DATABASE_URL")
		return
	}
	defer l.Close(context.WithoutCancel(ctx))
	switch warning, err := l.Warning(ctx); {
	case err != nil:
		d.find(Doubtful, "look-up role", "not known: "+err.Error(), "")
	case warning != "":
		d.find(Doubtful, "look-up role", warning, "create role postman_lookup login; grant pg_read_all_data to postman_lookup; and name it in LOOKUP_URL")
	default:
		d.find(Fine, "look-up role", "can read alone", "")
	}
	if set != nil {
		d.rights(ctx, l, set)
	}
}

// rights tries whether the role of look-ups may read what the rules ask for. What is refused is told once for each table, say, with the first rule that wants it.
func (d *doctor) rights(ctx context.Context, l *dispatch.Lookup, set *rules.Set) {
	tried, told := make(map[string]bool), make(map[string]bool)
	try := func(level Level, who, query string, parameters int) bool {
		if tried[query] {
			return true
		}
		tried[query] = true
		why, err := l.Denied(ctx, query, parameters)
		switch {
		case err != nil:
			d.find(Doubtful, "look-up role", "whether it may read what the rules ask for is not known: "+err.Error(), "")
			return false
		case why != "" && !told[why]:
			told[why] = true
			d.find(level, "look-up role", why+": "+who, "grant select on it to the role of LOOKUP_URL, or else DATABASE_URL")
		}
		return true
	}
	for _, r := range set.Rules {
		for _, q := range queriesOf(r) {
			if !try(Harmful, "a query of rule "+r.Name+" asks for it", q.Text, len(q.Params)) {
				return
			}
		}
		// Rows are read again where the stream did not carry all of them, and when a match is released.
		if t := r.On.Table; t.Name != "" && !try(Doubtful, "rule "+r.Name+" reads its rows again now and then", "select 1 from "+pgx.Identifier{t.Schema, t.Name}.Sanitize(), 0) {
			return
		}
	}
	if len(told) == 0 {
		d.find(Fine, "look-up role", "may read what the rules ask for", "")
	}
}

// queriesOf are a rule's queries: for recipients, and for what its template shows.
func queriesOf(r *rules.Rule) (list []*rules.SQL) {
	for _, source := range slices.Concat(r.To, r.CC) {
		if source.Query != nil {
			list = append(list, source.Query)
		}
	}
	for _, load := range r.Load {
		list = append(list, load.SQL)
	}
	return list
}

// What a store needs of its disk.
const (
	noRoom     = 64 << 20
	littleRoom = 1 << 30
	slowSync   = 50 * time.Millisecond
)

// store looks at the disk: how much it has left, and how long it takes to have something durable, which each commit waits for. A file is made there for that,
// and is gone at once.
func (d *doctor) store() {
	d.area = "store"
	path := d.config.StorePath()
	if path == "" {
		return
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		d.find(Doubtful, "file", path+" is not there yet", "postman run makes it")
	case err != nil:
		d.find(Harmful, "file", err.Error(), "may this user read it?")
		return
	default:
		d.find(Fine, "file", fmt.Sprintf("%s, %s", path, Bytes(info.Size())), "")
	}
	dir := filepath.Dir(path)
	if free, ok := freeBytes(dir); ok {
		switch text := Bytes(free) + " free"; {
		case free < noRoom:
			d.find(Harmful, "disk", text, "make room, or move the store (STORE_URL)")
		case free < littleRoom:
			d.find(Doubtful, "disk", text+"; the journal alone may take "+Bytes(int64(d.config.Journal.Size)), "make room, or bound the journal (journal.size)")
		default:
			d.find(Fine, "disk", text, "")
		}
	}
	switch took, err := syncTime(dir); {
	case err != nil:
		d.find(Harmful, "fsync", err.Error(), "this user has to be able to write beside the store")
	case took > slowSync:
		d.find(Doubtful, "fsync", fmt.Sprintf("%s: each commit of the store waits for it", took.Round(time.Millisecond)), "a faster disk; not one over a network")
	default:
		d.find(Fine, "fsync", took.Round(10*time.Microsecond).String(), "")
	}
}

// syncTime is how long a page takes until it is durable: the median of five.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".postman-doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // nobody misses it
	defer f.Close()           //nolint:errcheck // what was written is of no use
	var took []time.Duration
	for range 5 {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
