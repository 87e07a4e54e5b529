package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"postman/outbox"
	"postman/position"
)

var insertJournal = newInsertion("journal", "(id)",
	"id", "source", "epoch", "first_lsn", "last_lsn", "first_time", "last_time", "transactions", "changes", "bytes", "tx", "data")

// addJournal stores a batch's blocks, but for what is covered already.
func (w *writer) addJournal(b *outbox.Batch, covered position.LSN) error {
	var values []any
	for i := range b.Journal {
		j := &b.Journal[i]
		if j.Last < covered { // the commit record lies before the end of it
			continue
		}
		w.known.journal[b.Source] += int64(len(j.Data))
		values = append(values, w.next("journal"), b.Source, b.Epoch, int64(j.First), int64(j.Last), micros(j.From), micros(j.To),
			j.Transactions, j.Changes, len(j.Data), nil, present(j.Data))
	}
	_, err := w.insert(&insertJournal, values)
	return err
}

// adoptJournal gives the parts that a transaction spilled their place in the journal.
func (w *writer) adoptJournal(in *incoming, t *outbox.Transaction, id int64) error {
	var parts, changes, bytes int64
	err := w.each(`SELECT count(*), coalesce(sum(changes), 0), coalesce(sum(length(data)), 0) FROM journal_parts WHERE tx = ?`,
		func(scan scanner) error { return scan(&parts, &changes, &bytes) }, id)
	if err != nil || parts == 0 {
		return err
	}
	w.known.journal[in.batch.Source] += bytes
	_, err = w.insert(&insertJournal, []any{
		w.next("journal"), in.batch.Source, in.batch.Epoch, int64(t.LSN), int64(t.LSN), micros(t.Time), micros(t.Time),
		1, changes, bytes, id, nil,
	})
	return err
}

// addParts stores pieces of a provisional transaction's journal.
func (w *writer) addParts(tx int64, parts []outbox.Part) error {
	if len(parts) == 0 {
		return nil
	}
	var last int64
	if err := w.each(`SELECT coalesce(max(part), 0) FROM journal_parts WHERE tx = ?`, func(scan scanner) error { return scan(&last) }, tx); err != nil {
		return err
	}
	for _, p := range parts {
		last++
		_, err := w.exec(`INSERT INTO journal_parts (tx, part, ordinal, changes, data) VALUES (?, ?, ?, ?, ?)`,
			tx, last, int64(p.Ordinal), p.Changes, present(p.Data))
		if err != nil {
			return fmt.Errorf("storing a part of the journal: %w", err)
		}
	}
	return nil
}

// cutParts takes the changes of a provisional transaction from an ordinal on out of its journal.
func (w *writer) cutParts(tx int64, from uint64) error {
	_, err := w.exec(`DELETE FROM journal_parts WHERE tx = ? AND ordinal >= ?`, tx, int64(from))
	if err == nil {
		_, err = w.exec(`UPDATE journal_parts SET changes = ? - ordinal WHERE tx = ? AND ordinal + changes > ?`, int64(from), tx, int64(from))
	}
	if err != nil {
		return fmt.Errorf("cutting the journal of a transaction: %w", err)
	}
	return nil
}

// JoinJournal puts a block in the place of several.
func (s *Store) JoinJournal(ctx context.Context, source, epoch uint32, b outbox.Block) error {
	return s.write(ctx, "joining blocks of the journal", func(w *writer) error {
		const those = ` FROM journal WHERE source = ? AND epoch = ? AND last_lsn BETWEEN ? AND ?`
		var id, first, last sql.NullInt64
		var transactions, changes, bytes, parts int64
		err := w.each(`SELECT min(id), min(first_lsn), max(last_lsn), coalesce(sum(transactions), 0), coalesce(sum(changes), 0), coalesce(sum(bytes), 0), count(tx)`+those,
			func(scan scanner) error { return scan(&id, &first, &last, &transactions, &changes, &bytes, &parts) }, source, epoch, int64(b.First), int64(b.Last))
		switch {
		case err != nil:
			return err
		case first.Int64 != int64(b.First) || last.Int64 != int64(b.Last) || transactions != int64(b.Transactions) || changes != int64(b.Changes) || parts > 0:
			return fmt.Errorf("from %s to %s it is not what was joined: %w", b.First, b.Last, outbox.ErrState)
		}
		if _, err := w.exec(`DELETE`+those+` AND id <> ?`, source, epoch, int64(b.First), int64(b.Last), id.Int64); err != nil {
			return err
		}
		_, err = w.exec(`UPDATE journal SET last_lsn = ?, last_time = ?, transactions = ?, changes = ?, bytes = ?, data = ? WHERE id = ?`,
			int64(b.Last), micros(b.To), b.Transactions, b.Changes, len(b.Data), present(b.Data), id.Int64)
		w.known.journal[source] += int64(len(b.Data)) - bytes
		return errors.Join(err, w.saveJournalSize(source))
	})
}

const (
	pruneRows = 64      // pieces that one step of pruning deletes at most
	pruneSize = 8 << 20 // bytes, beyond which it goes no further
)

// PruneJournal deletes some of the oldest pieces.
func (s *Store) PruneJournal(ctx context.Context, before time.Time, most int64) (outbox.Pruned, error) {
	var p outbox.Pruned
	err := s.write(ctx, "pruning the journal", func(w *writer) (err error) {
		p = outbox.Pruned{}
		if err = w.prune(&p, before, most); err == nil && p.Pieces < pruneRows {
			err = w.sweepParts(&p)
		}
		return err
	})
	if err != nil {
		return outbox.Pruned{}, err
	}
	return p, nil
}

// prune deletes the oldest rows of the journal. The parts of a large transaction are left to sweepParts: nobody finds them any more.
func (w *writer) prune(p *outbox.Pruned, before time.Time, most int64) error {
	for _, bytes := range w.known.journal {
		p.Bytes += bytes
	}
	type row struct {
		id, bytes, last, time int64
		source, epoch         uint32
	}
	found, err := rows(w.query, func(scan scanner) (r row, err error) {
		err = scan(&r.id, &r.source, &r.epoch, &r.bytes, &r.last, &r.time)
		return r, err
	}, `SELECT id, source, epoch, bytes, last_lsn, last_time FROM journal ORDER BY id LIMIT ?`, pruneRows)
	if err != nil {
		return err
	}
	var last, size int64
	since := make(map[[2]uint32]row)
	for _, r := range found {
		if r.time >= before.UnixMicro() && p.Bytes <= most || size > pruneSize {
			break
		}
		last, size, p.Bytes = r.id, size+r.bytes, p.Bytes-r.bytes
		p.Pieces++
		w.known.journal[r.source] -= r.bytes
		since[[2]uint32{r.source, r.epoch}] = r
	}
	if p.Pieces == 0 {
		return nil
	}
	p.More = true // perhaps: the next step tells
	if _, err = w.exec(`DELETE FROM journal WHERE id <= ?`, last); err != nil {
		return fmt.Errorf("deleting from the journal: %w", err)
	}
	for _, r := range since {
		if _, err := w.exec(journalSince+` DO UPDATE SET lsn = max(lsn, excluded.lsn), time = max(time, excluded.time)`, r.source, r.epoch, r.last+1, r.time); err != nil {
			return fmt.Errorf("noting where the journal begins: %w", err)
		}
		if err := w.saveJournalSize(r.source); err != nil {
			return err
		}
	}
	return nil
}

// sweepParts deletes parts whose transaction is neither provisional nor in the journal: it was rolled back, or pruned.
func (w *writer) sweepParts(p *outbox.Pruned) error {
	n, err := w.exec(`DELETE FROM journal_parts WHERE rowid IN (SELECT rowid FROM journal_parts WHERE tx IN (
			SELECT DISTINCT tx FROM journal_parts p WHERE NOT EXISTS (SELECT 1 FROM journal j WHERE j.tx = p.tx)
				AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.id = p.tx AND t.lsn IS NULL)) LIMIT ?)`, pruneRows)
	if err != nil {
		return fmt.Errorf("deleting parts of the journal: %w", err)
	}
	p.Pieces += n
	p.More = p.More || n == pruneRows
	return nil
}

// saveJournalSize stores how much the journal of a source takes.
func (w *writer) saveJournalSize(source uint32) error {
	if _, err := w.exec(`UPDATE sources SET journal_bytes = ? WHERE id = ?`, w.known.journal[source], source); err != nil {
		return fmt.Errorf("storing the journal's size: %w", err)
	}
	return nil
}

// journalSince notes from where on the journal of an epoch has everything.
const journalSince = `INSERT INTO journal_since (source, epoch, lsn, time) VALUES (?, ?, ?, ?) ON CONFLICT (source, epoch)`

// beginJournal notes from where on a source that begins to stream, or does so in a new epoch, has a journal.
func (w *writer) beginJournal(src outbox.Source) error {
	if src.State != outbox.SourceStreaming {
		return nil
	}
	// A slot that was not made yet began nowhere.
	_, err := w.exec(journalSince+` DO UPDATE SET lsn = excluded.lsn, time = excluded.time WHERE lsn = 0`, src.ID, src.Epoch, int64(src.Checkpoint), time.Now().UnixMicro())
	if err != nil {
		return fmt.Errorf("noting where the journal begins: %w", err)
	}
	return nil
}

// JournalAt is where the journal of an epoch has come to at a time.
func (s *Store) JournalAt(ctx context.Context, source, epoch uint32, at time.Time) (position.LSN, error) {
	var lsn int64
	err := s.reads.QueryRowContext(ctx, `SELECT coalesce(min(first_lsn), 0) FROM (SELECT first_lsn FROM journal
		WHERE source = ? AND epoch = ? AND last_time >= ? ORDER BY last_time LIMIT 1)`, source, epoch, at.UnixMicro()).Scan(&lsn)
	if err != nil {
		return 0, fmt.Errorf("looking for a time in the journal: %w", explain(err))
	}
	return position.LSN(lsn), nil
}

// JournalSpan says what the journal of an epoch covers.
func (s *Store) JournalSpan(ctx context.Context, source, epoch uint32) (outbox.JournalSpan, error) {
	var span outbox.JournalSpan
	end := func(column, order string, lsn *position.LSN, at *time.Time) error {
		var l, t int64
		err := s.reads.QueryRowContext(ctx, `SELECT `+column+`_lsn, `+column+`_time FROM journal WHERE source = ? AND epoch = ? ORDER BY last_lsn `+order+` LIMIT 1`,
			source, epoch).Scan(&l, &t)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		*lsn, *at = position.LSN(l), time.UnixMicro(t).UTC()
		return err
	}
	since := func() error {
		var l, t int64
		err := s.reads.QueryRowContext(ctx, `SELECT lsn, time FROM journal_since WHERE source = ? AND epoch = ?`, source, epoch).Scan(&l, &t)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		span.Since, span.SinceTime = position.LSN(l), time.UnixMicro(t).UTC()
		return err
	}
	err := errors.Join(since(), end("first", "ASC", &span.Oldest, &span.From), end("last", "DESC", &span.Newest, &span.To),
		s.reads.QueryRowContext(ctx, `SELECT coalesce(sum(journal_bytes), 0) FROM sources WHERE id = ?`, source).Scan(&span.Bytes))
	if err != nil {
		return outbox.JournalSpan{}, fmt.Errorf("reading what the journal covers: %w", explain(err))
	}
	return span, nil
}

// Journal returns the next pieces of a stretch of the journal.
func (s *Store) Journal(ctx context.Context, q outbox.JournalQuery) ([]outbox.Piece, error) {
	pieces, err := s.journal(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", explain(err))
	}
	return pieces, nil
}

// entry is a row of the journal.
type entry struct {
	outbox.Piece
	tx sql.NullInt64
}

func scanEntry(scan scanner) (e entry, err error) {
	var first, last, from, to int64
	err = scan(&first, &last, &from, &to, &e.Transactions, &e.Changes, &e.tx, &e.Data)
	e.First, e.Last, e.From, e.To = position.LSN(first), position.LSN(last), time.UnixMicro(from).UTC(), time.UnixMicro(to).UTC()
	e.Place.Commit = e.Last
	return e, err
}

func (s *Store) journal(ctx context.Context, q outbox.JournalQuery) (pieces []outbox.Piece, err error) {
	next, to, most := max(q.From, q.After.Commit+1), q.To, q.Limit
	if q.After.Part > 0 { // in the middle of a transaction, or at its end: then it gives none
		next, most = q.After.Commit, most+1
	}
	if to == 0 {
		to = 1<<63 - 1
	}
	entries, err := rows(s.reading(ctx), scanEntry, `SELECT first_lsn, last_lsn, first_time, last_time, transactions, changes, tx, data FROM journal
		WHERE source = ? AND epoch = ? AND last_lsn >= ? AND first_lsn <= ? ORDER BY last_lsn LIMIT ?`, q.Source, q.Epoch, int64(next), int64(to), most)
	for i := 0; i < len(entries) && len(pieces) < q.Limit && err == nil; i++ {
		e := &entries[i]
		if !e.tx.Valid {
			pieces = append(pieces, e.Piece)
			continue
		}
		after := 0
		if e.Last == q.After.Commit {
			after = q.After.Part
		}
		var parts []outbox.Piece
		parts, err = s.parts(ctx, e, after, q.Limit-len(pieces))
		pieces = append(pieces, parts...)
		if len(parts) > 0 && !parts[len(parts)-1].Final {
			break
		}
	}
	return pieces, err
}

// parts reads the next parts of a transaction in the journal.
func (s *Store) parts(ctx context.Context, e *entry, after, limit int) ([]outbox.Piece, error) {
	tx, err := s.envelope(ctx, e.tx.Int64)
	if err != nil {
		return nil, err
	}
	return rows(s.reading(ctx), func(scan scanner) (outbox.Piece, error) {
		p, ordinal := e.Piece, int64(0)
		p.Tx, p.Transactions = &tx, 1
		err := scan(&p.Place.Part, &ordinal, &p.Changes, &p.Data, &p.Final)
		p.Ordinal = uint64(ordinal)
		return p, err
	}, `SELECT part, ordinal, changes, data, part = (SELECT max(part) FROM journal_parts m WHERE m.tx = p.tx) FROM journal_parts p
		WHERE tx = ? AND part > ? ORDER BY part LIMIT ?`, e.tx.Int64, after, limit)
}

// envelope is that of a transaction that was adopted.
func (s *Store) envelope(ctx context.Context, id int64) (outbox.Tx, error) {
	var t outbox.Tx
	var lsn, end, at int64
	err := s.reads.QueryRowContext(ctx, `SELECT lsn, end_lsn, xid, time, muted FROM transactions WHERE id = ?`, id).Scan(&lsn, &end, &t.XID, &at, &t.Muted)
	t.LSN, t.End, t.Time = position.LSN(lsn), position.LSN(end), time.UnixMicro(at).UTC()
	return t, err
}
