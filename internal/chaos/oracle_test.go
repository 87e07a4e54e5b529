package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"postman/position"
)

// oracleSchema is what the verdict rests on: each change that a rule may have to see is written down in the ledger, by the same
// transaction, so that Postgres itself says what was committed, and what a mail of it has to say. No rule watches it. The class of a line says when it is
// told of: from 0 on, when the rules at its commit tell of that class.
const oracleSchema = `
create table ledger (change bigint primary key, email text not null, class int not null, body text not null);
create publication oracle for table ledger with (publish = 'insert')`

const oracleSlot = "select pg_create_logical_replication_slot('oracle', 'pgoutput')"

// Classes of lines that are told of whatever the rules say at the time, or are not.
const (
	always  = -1
	muted   = -2 // by its transaction: there is a match, and no mail
	foreign = -3 // it came from elsewhere: there is no match
	emptied = -4 // a truncate: its mail is there, and cannot say of which
)

// line is a line of the ledger.
type line struct {
	mail
	class int
	at    position.LSN // of its commit
}

// mail is what has to come of a change.
type mail struct{ to, text string }

// dues is what has to come of all that was committed.
type dues struct {
	mails   map[int64]mail // by change
	emptied int            // mails of truncates
	muted   int            // matches without a mail
}

// messages is how many mails have to be sent.
func (d *dues) messages() int { return len(d.mails) + d.emptied }

// oracle reads the ledger as it was committed, by a slot of its own and code that postman does not use, since only there the position
// of a commit is told.
type oracle struct {
	url   string
	lines map[int64]line
	err   error // of the last reading
}

func newOracle(url string) *oracle { return &oracle{url: url, lines: make(map[int64]line)} }

// run reads from time to time, so that the slot does not hold back all of the log.
func (o *oracle) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-time.After(15 * time.Second):
			o.err = o.read(context.WithoutCancel(ctx))
		case <-ctx.Done():
		}
	}
}

// read takes in what was committed since. The slot is advanced only behind what has come: a connection that breaks loses nothing.
func (o *oracle) read(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, o.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select data from pg_logical_slot_peek_binary_changes('oracle', null, null, 'proto_version', '1', 'publication_names', 'oracle')")
	if err != nil {
		return err
	}
	var data []byte
	var at, end pglogrepl.LSN
	if _, err := pgx.ForEachRow(rows, []any{&data}, func() error {
		message, err := pglogrepl.Parse(data)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pglogrepl.BeginMessage:
			at = m.FinalLSN
		case *pglogrepl.InsertMessage:
			return o.insert(m, at)
		case *pglogrepl.CommitMessage:
			end = m.TransactionEndLSN
		}
		return nil
	}); err != nil {
		return fmt.Errorf("reading the ledger's slot: %w", err)
	}
	if end != 0 {
		_, err = conn.Exec(ctx, "select pg_replication_slot_advance('oracle', $1::text::pg_lsn)", end.String())
	}
	return err
}

func (o *oracle) insert(m *pglogrepl.InsertMessage, at pglogrepl.LSN) error {
	columns := m.Tuple.Columns
	change, err := strconv.ParseInt(string(columns[0].Data), 10, 64)
	if err != nil {
		return err
	}
	class, err := strconv.Atoi(string(columns[2].Data))
	o.lines[change] = line{mail: mail{string(columns[1].Data), string(columns[3].Data)}, class: class, at: position.LSN(at)}
	return err
}

// due is what has to come. It also compares what the slot told with the ledger.
func (o *oracle) due(ctx context.Context, t *testing.T, h *history) *dues {
	t.Helper()
	if err := o.read(ctx); err != nil {
		t.Fatal(err)
	}
	var stored int
	conn, err := pgx.Connect(ctx, o.url)
	if err == nil {
		err = conn.QueryRow(ctx, "select count(*) from ledger").Scan(&stored)
		_ = conn.Close(ctx)
	}
	if err != nil || stored != len(o.lines) {
		t.Fatalf("the oracle knows %d lines of %d: %v", len(o.lines), stored, err)
	}
	due := &dues{mails: make(map[int64]mail)}
	for change, l := range o.lines {
		switch l.class {
		case always:
			due.mails[change] = l.mail
		case emptied:
			due.emptied++
		case muted:
			due.muted++
		case foreign:
		default:
			e, err := h.deciding(l.at)
			if err != nil {
				t.Fatal(err)
			}
			if e.class == l.class {
				due.mails[change] = l.mail
			}
		}
	}
	return due
}

// history is which rules decided when.
type history struct {
	runs     []decided
	editions []saved
}

// decided is a run of the daemon: it decided what commits at from or behind, and before the next run's from. What it may have decided
// beyond was not durable, and decided again by the next.
type decided struct {
	from position.LSN
	sets []set
}

// set is one of the rules that was live in a run.
type set struct {
	from    position.LSN
	edition edition
}

// saved is an edition, and when it was.
type saved struct {
	edition
	at time.Time
}

func (h *history) deciding(at position.LSN) (edition, error) {
	var last *set
	for i := range h.runs {
		if i+1 < len(h.runs) && at >= h.runs[i+1].from {
			continue
		}
		for j := range h.runs[i].sets {
			if h.runs[i].sets[j].from <= at {
				last = &h.runs[i].sets[j]
			}
		}
		break
	}
	if last == nil {
		return edition{}, fmt.Errorf("the log does not tell which rules decided on %s", at)
	}
	return last.edition, nil
}

// decides is what the daemon logs when it takes up a set.
var decides = regexp.MustCompile(`(?m)^time=(\S+) level=INFO msg="the rules decide" from=(\S+) rules=(\d+)$`)

// read finds out from the log which sets a run of the daemon had.
func (h *history) read(log *os.File, r run) error {
	text := make([]byte, r.end-r.begin)
	if _, err := log.ReadAt(text, r.begin); err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	d := decided{from: r.checkpoint}
	for _, m := range decides.FindAllSubmatch(text, -1) {
		at, err := time.Parse(time.RFC3339, string(m[1]))
		if err != nil {
			return err
		}
		from, err := position.ParseLSN(string(m[2]))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(m[3]))
		if err != nil {
			return err
		}
		e, err := h.saved(at, marks(n))
		if err != nil {
			return fmt.Errorf("%s: %w", m[0], err)
		}
		d.sets = append(d.sets, set{from, e})
	}
	h.runs = append(h.runs, d)
	return nil
}

// saved is the last edition before a moment that has the mark.
func (h *history) saved(before time.Time, mark int) (edition, error) {
	for _, s := range slices.Backward(h.editions) {
		if s.number%editions == mark && s.at.Before(before) {
			return s.edition, nil
		}
	}
	return edition{}, errors.New("no rules that were saved have so many")
}
