package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/rules"
	"postman/value"
)

// statement is a query with its parameters, in text form.
type statement struct {
	what   string     // for reasons: which query, with its place
	of     *rules.SQL // the rule's query that it is; nil: one of our own
	sql    string
	oids   []uint32
	values [][]byte // nil: NULL
}

// answer is a query's result.
type answer struct {
	columns []value.Column
	rows    [][]value.Datum
}

// row is a row with its columns; one of NULLs where there is none.
func (a answer) row(i int) value.Row {
	row := make(value.Row, len(a.columns))
	for j, c := range a.columns {
		row[j].Column = c
		if i < len(a.rows) {
			row[j].Datum = a.rows[i][j]
		}
	}
	return row
}

// flight makes the statements of a round trip from the answers to the one before.
type flight func(before []answer) ([]statement, error)

// asking is a look-up for one match.
type asking struct {
	rule    uint32
	xid     uint32    // of the transaction that has to be visible; 0: none
	commit  time.Time // when it committed
	flights []flight
}

// grace is how much longer than the server the client waits for a query's end.
const grace = time.Second

// ask runs all flights in one snapshot and returns the last one's answers. Its errors are askErrors, those of the flights,
// and the context's cause.
func (l *Lookup) ask(ctx context.Context, a asking) ([]answer, error) {
	for {
		c, fresh, err := l.take(ctx, a.rule)
		if err != nil {
			return nil, err
		}
		answers, err := l.askOn(ctx, c, a)
		l.give(ctx, c)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if e, ok := errors.AsType[*askError](err); ok && e.kind == lost && !fresh {
			l.forget(ctx) // the server went while connections were idle: the others died with this one
			continue
		}
		return answers, err
	}
}

// forget closes all idle connections.
func (l *Lookup) forget(ctx context.Context) {
	l.mu.Lock()
	idle := l.idle
	l.idle = nil
	l.mu.Unlock()
	for _, c := range idle {
		_ = c.Close(context.WithoutCancel(ctx))
	}
}

func (l *Lookup) askOn(ctx context.Context, c *lookupConn, a asking) (answers []answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(a.flights))*l.timeout+grace)
	defer cancel()
	p := c.StartPipeline(ctx)
	talk := talk{p: p, c: c, unsure: make(map[string]bool)}
	for i, f := range a.flights {
		last := i == len(a.flights)-1
		if answers, err = talk.fly(a, f, answers, i == 0, last); err != nil {
			break
		}
	}
	if err != nil && !c.IsClosed() {
		talk.rollback()
	}
	for key := range talk.unsure {
		delete(c.prepared, key)
	}
	if closing := p.Close(); err == nil && closing != nil { // after another error it repeats that
		err = &askError{kind: kindOf(closing), err: closing}
	}
	return answers, err
}

// talk is a pipeline on a connection.
type talk struct {
	p      *pgconn.Pipeline
	c      *lookupConn
	unsure map[string]bool // statements that were sent to be prepared, of which the server has not said that they are
}

// beginning takes the snapshot with the first query, so after the transaction was seen to be visible.
var (
	beginning = statement{what: "beginning a transaction", sql: "begin isolation level repeatable read read only"}
	ending    = statement{what: "ending the transaction", sql: "commit"}
)

// fly sends one flight and reads its answers. The first one clears what another rule left in the session (DISCARD ALL, which
// stands outside of transactions), checks that the match's transaction is visible, and begins; the last one commits.
func (t talk) fly(a asking, f flight, before []answer, first, last bool) ([]answer, error) {
	statements, err := f(before)
	if err != nil {
		return nil, err
	}
	discard := first && t.c.served && t.c.rule != a.rule
	if discard {
		clear(t.c.prepared)
		t.p.SendQueryParams("discard all", nil, nil, nil, nil)
		t.p.SendPipelineSync()
	}
	var seen question
	check := first && a.xid != 0
	if check {
		seen = t.send(visible(a.xid, time.Since(a.commit)))
		t.p.SendPipelineSync()
	}
	questions := make([]question, 0, len(statements)+2)
	if first {
		questions = append(questions, t.send(beginning))
	}
	for _, s := range statements {
		questions = append(questions, t.send(s))
	}
	if last {
		questions = append(questions, t.send(ending))
	}
	if err := t.p.Sync(); err != nil {
		return nil, &askError{kind: kindOf(err), err: err}
	}
	if discard {
		if err := t.discarded(); err != nil {
			return nil, err
		}
	}
	t.c.rule, t.c.served = a.rule, true
	if check {
		if err := t.checked(seen, a.xid); err != nil {
			return nil, err
		}
	}
	answers, err := t.answers(questions)
	if err != nil {
		return nil, err
	}
	if first {
		answers = answers[1:]
	}
	return answers[:len(statements)], nil
}

// question is a statement that was sent.
type question struct {
	statement
	key        string // of the prepared statement
	known, new bool   // it was prepared before, or is with this
}

// mostPrepared bounds what a session keeps for one rule. A rule has a few queries, but reading a row again may take many forms.
const mostPrepared = 64

// send sends a statement. Parsing and planning take longer than the rest of most look-ups, so that they are done once for each
// session, as long as that serves one rule.
func (t talk) send(s statement) question {
	q := question{statement: s, key: fmt.Sprint(s.oids, s.sql)}
	name, prepared := t.c.prepared[q.key]
	switch {
	case prepared:
		q.known = !t.unsure[q.key]
	case len(t.c.prepared) >= mostPrepared:
		t.p.SendQueryParams(s.sql, s.values, s.oids, nil, nil)
		return q
	default:
		t.c.names++ // a name is never used again: an unsure one may exist
		name, q.new = fmt.Sprintf("postman_%x_%d", t.c.id, t.c.names), true
		t.c.prepared[q.key], t.unsure[q.key] = name, true
		t.p.SendPrepare(name, s.sql, s.oids)
	}
	t.p.SendQueryPrepared(name, s.values, nil, nil)
	return q
}

func (t talk) discarded() error {
	if _, err := t.rows("clearing the session"); err != nil {
		return err
	}
	return t.synced()
}

// ErrEarly says that a transaction that the stream brought is not seen by queries yet. It will be in a moment.
var ErrEarly = errors.New("not visible to look-ups yet")

func (t talk) checked(seen question, xid uint32) error {
	a, err := t.read(seen)
	if err != nil {
		return err
	}
	if err := t.synced(); err != nil {
		return err
	}
	if status := string(a.rows[0][0].Text); status != "committed" {
		return &askError{kind: early, err: fmt.Errorf("transaction %d is %w (%s)", xid, ErrEarly, status)}
	}
	return nil
}

func (t talk) answers(questions []question) ([]answer, error) {
	answers := make([]answer, len(questions))
	for i, q := range questions {
		var err error
		if answers[i], err = t.read(q); err != nil {
			return nil, err
		}
	}
	return answers, t.synced()
}

// read reads the answer to one question.
func (t talk) read(q question) (answer, error) {
	if q.new {
		if _, err := t.p.GetResults(); err != nil {
			return answer{}, &askError{kind: kindOf(err), what: q.what, err: err}
		}
		delete(t.unsure, q.key)
	}
	a, err := t.rows(q.what)
	if e, ok := errors.AsType[*askError](err); ok && q.known && outdated(e.err) {
		e.kind = lost // so are the statements of the other sessions: ask connects anew
	}
	return a, err
}

// outdated says that a statement was prepared for tables that look different by now (0A000, "cached plan must not change result
// type"), or that the session does not have it (26000, of a pooler that changed the server behind it).
func outdated(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "0A000" || pg.Code == "26000")
}

// rows reads one statement's result.
func (t talk) rows(what string) (answer, error) {
	fail := func(err error) (answer, error) { return answer{}, &askError{kind: kindOf(err), what: what, err: err} }
	result, err := t.p.GetResults()
	if err != nil {
		return fail(err)
	}
	r, ok := result.(*pgconn.ResultReader)
	if !ok {
		return fail(fmt.Errorf("the server answered out of turn (%T)", result))
	}
	return collect(what, r)
}

// collect reads a result to its end.
func collect(what string, r *pgconn.ResultReader) (answer, error) {
	a, size := answer{columns: columns(r.FieldDescriptions())}, 0
	for r.NextRow() {
		row, n := datums(r.Values())
		if a.rows, size = append(a.rows, row), size+n; len(a.rows) > mostRows || size > mostBytes {
			return answer{}, &askError{kind: wrong, what: what, err: fmt.Errorf("it gives more than %d rows or %d MB", mostRows, mostBytes>>20)}
		}
	}
	if _, err := r.Close(); err != nil {
		return answer{}, &askError{kind: kindOf(err), what: what, err: err}
	}
	return a, nil
}

// Where a query is certainly a mistake, well before memory runs out.
const (
	mostRows  = 100_000
	mostBytes = 32 << 20
)

// datums copies a row, whose values live until the next one is read, and tells its size.
func datums(values [][]byte) ([]value.Datum, int) {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	row, text := make([]value.Datum, len(values)), make([]byte, 0, size)
	for i, v := range values {
		if v == nil {
			continue
		}
		from := len(text)
		text = append(text, v...)
		row[i] = value.Datum{State: value.Present, Text: text[from:len(text):len(text)]}
	}
	return row, size
}

func (t talk) synced() error {
	result, err := t.p.GetResults()
	if err != nil {
		return &askError{kind: kindOf(err), err: err}
	}
	if _, ok := result.(*pgconn.PipelineSync); !ok {
		return &askError{kind: lost, err: fmt.Errorf("the server answered out of turn (%T)", result)}
	}
	return nil
}

// rollback ends a transaction that was left open. What it meets only says that the connection is of no more use, and
// [Lookup.give] sees that by itself.
func (t talk) rollback() {
	t.p.SendQueryParams("rollback", nil, nil, nil, nil)
	if t.p.Sync() != nil {
		return
	}
	for {
		result, err := t.p.GetResults()
		if _, known := errors.AsType[*pgconn.PgError](err); result == nil && !known {
			return // all was read, or nothing more will come
		}
	}
}

// young is how long after its commit a transaction's id is taken to be at most 2³¹ away from the snapshot's, in either
// direction; an older one lies before it.
const young = 24 * time.Hour

// visible asks how a transaction of which the stream tells the 32-bit id stands in the database that is asked.
//
// The stream runs ahead of visibility: a commit is streamed once it is flushed, and seen only when synchronous standbys
// have confirmed it; and a standby sees it only once it is replayed there. pg_xact_status knows both, where a snapshot taken
// on a standby does not list the transactions in progress. It is asked before the look-up's own snapshot is taken: what has
// committed by then is in the snapshot.
//
// The id is the 64-bit one next to the snapshot's that ends in these 32 bits. No status (NULL) means that the transaction is
// too old for its status to be kept.
func visible(xid uint32, age time.Duration) statement {
	recent := []byte("f")
	if age < young {
		recent = []byte("t")
	}
	return statement{
		what: "asking whether the transaction is visible", sql: visibleSQL, oids: visibleOIDs,
		values: [][]byte{fmt.Append(nil, xid), recent},
	}
}

var visibleOIDs = []uint32{pgtype.Int8OID, pgtype.BoolOID}

const visibleSQL = `
select case when id >= next or id < 3 then 'not known here'
            else coalesce(pg_xact_status(id::text::xid8), 'committed') end
  from (select next, next - behind + case when $2 and behind > 2147483648 then 4294967296 else 0 end as id
          from (select next, (next - $1) & 4294967295 as behind
                  from (select pg_snapshot_xmax(pg_current_snapshot())::text::int8 as next) s) b) i`
