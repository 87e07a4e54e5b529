package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

// statement is a query with its parameters, in text form.
type statement struct {
	what   string // for reasons: which query, with its place
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
	talk := talk{p: p}
	for i, f := range a.flights {
		last := i == len(a.flights)-1
		if answers, err = talk.fly(c, a, f, answers, i == 0, last); err != nil {
			break
		}
	}
	if err != nil && !c.IsClosed() {
		talk.rollback()
	}
	if closing := p.Close(); err == nil && closing != nil { // after another error it repeats that
		err = &askError{kind: kindOf(closing), err: closing}
	}
	return answers, err
}

// talk is a pipeline and what was sent into it.
type talk struct{ p *pgconn.Pipeline }

// beginSQL takes the snapshot with the first query, so after the transaction was seen to be visible.
const beginSQL = "begin isolation level repeatable read read only"

// fly sends one flight and reads its answers. The first one clears what another rule left in the session (DISCARD ALL, which
// stands outside of transactions), checks that the match's transaction is visible, and begins; the last one commits.
func (t talk) fly(c *lookupConn, a asking, f flight, before []answer, first, last bool) ([]answer, error) {
	statements, err := f(before)
	if err != nil {
		return nil, err
	}
	discard := first && c.served && c.rule != a.rule
	check := first && a.xid != 0
	if discard {
		t.send(statement{sql: "discard all"})
		t.p.SendPipelineSync()
	}
	if discard {
		c.prepared = false
	}
	if check {
		if !c.prepared {
			t.p.SendPrepare(visibleName, visibleSQL, visibleOIDs)
		}
		t.p.SendQueryPrepared(visibleName, visible(a.xid, time.Since(a.commit)), nil, nil)
		t.p.SendPipelineSync()
	}
	if first {
		t.send(statement{sql: beginSQL})
	}
	for _, s := range statements {
		t.send(s)
	}
	if last {
		t.send(statement{sql: "commit"})
	}
	if err := t.p.Sync(); err != nil {
		return nil, &askError{kind: kindOf(err), err: err}
	}
	if discard {
		if err := t.discarded(); err != nil {
			return nil, err
		}
	}
	c.rule, c.served = a.rule, true
	if check {
		if err := t.checked(c, a.xid); err != nil {
			return nil, err
		}
	}
	return t.answers(statements, first, last)
}

func (t talk) send(s statement) {
	t.p.SendQueryParams(s.sql, s.values, s.oids, nil, nil)
}

func (t talk) discarded() error {
	if _, err := t.read("clearing the session"); err != nil {
		return err
	}
	return t.synced()
}

func (t talk) checked(c *lookupConn, xid uint32) error {
	if !c.prepared {
		if _, err := t.p.GetResults(); err != nil {
			return &askError{kind: kindOf(err), err: err}
		}
		c.prepared = true
	}
	a, err := t.read("asking whether the transaction is visible")
	if err != nil {
		return err
	}
	if err := t.synced(); err != nil {
		return err
	}
	if status := string(a.rows[0][0].Text); status != "committed" {
		return &askError{kind: early, err: fmt.Errorf("transaction %d is not visible to look-ups yet (%s)", xid, status)}
	}
	return nil
}

func (t talk) answers(statements []statement, first, last bool) ([]answer, error) {
	if first {
		if _, err := t.read("beginning a transaction"); err != nil {
			return nil, err
		}
	}
	answers := make([]answer, len(statements))
	for i, s := range statements {
		var err error
		if answers[i], err = t.read(s.what); err != nil {
			return nil, err
		}
	}
	if last {
		if _, err := t.read("ending the transaction"); err != nil {
			return nil, err
		}
	}
	return answers, t.synced()
}

// read reads one statement's answer.
func (t talk) read(what string) (answer, error) {
	fail := func(err error) (answer, error) { return answer{}, &askError{kind: kindOf(err), what: what, err: err} }
	result, err := t.p.GetResults()
	if err != nil {
		return fail(err)
	}
	r, ok := result.(*pgconn.ResultReader)
	if !ok {
		return fail(fmt.Errorf("the server answered out of turn (%T)", result))
	}
	a := answer{columns: columns(r.FieldDescriptions())}
	for r.NextRow() {
		a.rows = append(a.rows, datums(r.Values()))
		if len(a.rows) > mostRows {
			return answer{}, &askError{kind: wrong, what: what, err: fmt.Errorf("it gives more than %d rows", mostRows)}
		}
	}
	if _, err := r.Close(); err != nil {
		return fail(err)
	}
	return a, nil
}

// mostRows is where a query is certainly a mistake, well before memory runs out.
const mostRows = 100_000

// datums copies a row: its values live until the next one is read.
func datums(values [][]byte) []value.Datum {
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
	return row
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
	t.send(statement{sql: "rollback"})
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
func visible(xid uint32, age time.Duration) [][]byte {
	recent := []byte("f")
	if age < young {
		recent = []byte("t")
	}
	return [][]byte{fmt.Append(nil, xid), recent}
}

// The question is prepared, once for each session: parsing it takes longer than all the rest of a look-up.
const visibleName = "postman_visible"

var visibleOIDs = []uint32{pgtype.Int8OID, pgtype.BoolOID}

const visibleSQL = `
select case when id >= next or id < 3 then 'not known here'
            else coalesce(pg_xact_status(id::text::xid8), 'committed') end
  from (select next, next - behind + case when $2 and behind > 2147483648 then 4294967296 else 0 end as id
          from (select next, (next - $1) & 4294967295 as behind
                  from (select pg_snapshot_xmax(pg_current_snapshot())::text::int8 as next) s) b) i`
