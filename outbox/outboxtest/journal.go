package outboxtest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"postman/outbox"
	"postman/position"
)

// block is a piece of the journal of the next transactions, n of them.
func (r *rig) block(n int, data string) outbox.Block {
	b := outbox.Block{First: r.lsn + 50, Transactions: n, Changes: 2 * n, From: past, To: past.Add(time.Minute), Data: []byte(data)}
	r.lsn += position.LSN(100 * n)
	b.Last = r.lsn - 50
	return b
}

// journal appends blocks, and whatever transactions go with them.
func (r *rig) journal(blocks []outbox.Block, txs ...outbox.Transaction) {
	r.Helper()
	b := r.batch(txs...)
	b.Journal = blocks
	_, err := r.store.Append(r.Context(), b, 0)
	r.ok(err)
}

// pieces reads a stretch of the journal, a few pieces at a time.
func (r *rig) pieces(from, to position.LSN, limit int) (all []outbox.Piece) {
	r.Helper()
	q := outbox.JournalQuery{Source: r.source.ID, Epoch: 1, From: from, To: to, Limit: limit}
	for {
		page, err := r.store.Journal(r.Context(), q)
		r.ok(err)
		if len(page) > limit {
			r.Fatalf("%d pieces came where %d were asked for", len(page), limit)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		q.After = page[len(page)-1].Place
	}
}

// names are the pieces' data, in order.
func names(pieces []outbox.Piece) (all []string) {
	for _, p := range pieces {
		all = append(all, string(p.Data))
	}
	return all
}

func testJournal(r *rig) {
	one, two := r.block(1, "one"), r.block(3, "two")
	r.journal([]outbox.Block{one, two})
	key := outbox.Spill{Source: r.source.ID, Epoch: 1, XID: 7}
	spill := func(parts ...outbox.Part) {
		r.ok(r.store.Spill(r.Context(), key, outbox.Provisional{Parts: parts}))
	}
	spill(outbox.Part{Ordinal: 0, Changes: 10, Data: []byte("a")}, outbox.Part{Ordinal: 10, Changes: 10, Data: []byte("b")})
	spill(outbox.Part{Ordinal: 20, Changes: 5, Data: []byte("c")})
	r.ok(r.store.Unspill(r.Context(), key, 14))
	spill(outbox.Part{Ordinal: 14, Changes: 1, Data: []byte("d")})
	r.equal("with a transaction in progress", names(r.pieces(0, 0, 10)), []string{"one", "two"})

	three := r.block(1, "three")
	tx := r.tx()
	tx.XID, tx.Spilled, tx.Muted = 7, &key, "a migration"
	four := r.block(1, "four")
	r.journal([]outbox.Block{three, four}, tx)
	r.reopen()
	for limit := 1; limit < 8; limit++ {
		r.equal(fmt.Sprintf("pages of %d", limit), names(r.pieces(0, 0, limit)), []string{"one", "two", "three", "a", "b", "d", "four"})
	}
	all := r.pieces(0, 0, 10)
	r.equal("a block", all[1], outbox.Piece{Block: two, Place: outbox.JournalPlace{Commit: two.Last}})
	want := outbox.Piece{
		Block: outbox.Block{First: tx.LSN, Last: tx.LSN, From: past, To: past, Transactions: 1, Changes: 4, Data: []byte("b")},
		Place: outbox.JournalPlace{Commit: tx.LSN, Part: 2}, Tx: &tx.Tx, Ordinal: 10,
	}
	r.equal("a part that was cut", all[4], want)
	r.equal("the last part", all[5].Final, true)

	r.equal("from within a block, up to the first of another", names(r.pieces(two.Last, three.Last, 3)), []string{"two", "three"})
	r.equal("from behind a block on", names(r.pieces(two.Last+1, three.First-1, 3)), []string(nil))
	r.equal("of another epoch", len(r.journalOf(2)), 0)
	span, err := r.store.JournalSpan(r.Context(), r.source.ID, 1)
	r.ok(err)
	span.SinceTime = time.Time{}
	r.equal("the span", span, outbox.JournalSpan{Since: 100, Oldest: one.First, Newest: four.Last, From: past, To: past.Add(time.Minute), Bytes: 18})

	// What is covered already is passed over.
	r.journal([]outbox.Block{four})
	r.equal("after a block came again", len(r.pieces(0, 0, 10)), 7)
}

func (r *rig) journalOf(epoch uint32) []outbox.Piece {
	pieces, err := r.store.Journal(r.Context(), outbox.JournalQuery{Source: r.source.ID, Epoch: epoch, Limit: 10})
	r.ok(err)
	return pieces
}

func testJournalRefuses(r *rig) {
	b := r.batch()
	b.Journal = []outbox.Block{r.block(1, "one")}
	if _, err := r.store.Append(r.Context(), b, 0); !errors.Is(err, outbox.ErrCheckpoint) {
		r.Errorf("a block behind the checkpoint gave %v", err)
	}
	if n := len(r.pieces(0, 0, 10)); n != 0 {
		r.Errorf("%d pieces were stored", n)
	}
}

// journalModel is the journal as a list.
type journalModel struct {
	*rig
	kept    []outbox.Piece
	open    map[uint32][]outbox.Part
	serial  int
	since   position.LSN
	minutes int
}

func testJournalModel(r *rig) {
	fewer(r)
	rapid.Check(r.T, func(t *rapid.T) {
		m := &journalModel{rig: newRig(r.T, r.open), since: 100, open: make(map[uint32][]outbox.Part)}
		t.Repeat(map[string]func(*rapid.T){
			"":       m.compare,
			"append": m.add, "spill": m.spillPart, "cut": m.cut, "commit": m.commitParts, "prune": m.prune, "join": m.join,
			"restart": func(*rapid.T) {
				m.reopen()
				_, err := m.store.Recover(m.Context(), past)
				m.ok(err)
				clear(m.open)
			},
		})
	})
}

func (m *journalModel) data(t *rapid.T) []byte {
	m.serial++
	return fmt.Appendf(nil, "%d%*s", m.serial, rapid.IntRange(0, 30).Draw(t, "bytes"), "")
}

// at is a minute later for each block.
func (m *journalModel) at() time.Time {
	m.minutes++
	return past.Add(time.Duration(m.minutes) * time.Minute)
}

func (m *journalModel) add(t *rapid.T) {
	var blocks []outbox.Block
	for range rapid.IntRange(1, 3).Draw(t, "blocks") {
		b := m.block(rapid.IntRange(1, 3).Draw(t, "transactions"), string(m.data(t)))
		b.From = m.at()
		b.To = b.From
		blocks = append(blocks, b)
		m.kept = append(m.kept, outbox.Piece{Block: b, Place: outbox.JournalPlace{Commit: b.Last}})
	}
	m.journal(blocks)
}

func (m *journalModel) key(t *rapid.T) outbox.Spill {
	return outbox.Spill{Source: m.source.ID, Epoch: 1, XID: uint32(rapid.IntRange(1, 2).Draw(t, "xid"))}
}

func (m *journalModel) spillPart(t *rapid.T) {
	k := m.key(t)
	p := outbox.Part{Changes: rapid.IntRange(1, 9).Draw(t, "changes"), Data: m.data(t)}
	if parts := m.open[k.XID]; len(parts) > 0 {
		last := parts[len(parts)-1]
		p.Ordinal = last.Ordinal + uint64(last.Changes)
	}
	m.ok(m.store.Spill(m.Context(), k, outbox.Provisional{Parts: []outbox.Part{p}}))
	m.open[k.XID] = append(m.open[k.XID], p)
}

func (m *journalModel) cut(t *rapid.T) {
	k := m.key(t)
	from := rapid.Uint64Range(0, 20).Draw(t, "from")
	m.ok(m.store.Unspill(m.Context(), k, from))
	parts := slices.DeleteFunc(m.open[k.XID], func(p outbox.Part) bool { return p.Ordinal >= from })
	for i, p := range parts {
		parts[i].Changes = min(p.Changes, int(from-p.Ordinal))
	}
	if _, ok := m.open[k.XID]; ok && from > 0 {
		m.open[k.XID] = parts
	} else {
		delete(m.open, k.XID)
	}
}

func (m *journalModel) commitParts(t *rapid.T) {
	k := m.key(t)
	parts, ok := m.open[k.XID]
	if !ok {
		t.Skip("nothing is spilled")
	}
	tx := m.tx()
	tx.XID, tx.Spilled, tx.Time = k.XID, &k, m.at()
	m.journal(nil, tx)
	delete(m.open, k.XID)
	for i, p := range parts {
		m.kept = append(m.kept, outbox.Piece{
			Block: outbox.Block{First: tx.LSN, Last: tx.LSN, From: tx.Time, To: tx.Time, Transactions: 1, Changes: p.Changes, Data: p.Data},
			Place: outbox.JournalPlace{Commit: tx.LSN, Part: i + 1}, Tx: &tx.Tx, Ordinal: p.Ordinal, Final: i == len(parts)-1,
		})
	}
}

// join replaces a run of blocks, or tries to in vain what is no such run.
func (m *journalModel) join(t *rapid.T) {
	if len(m.kept) == 0 {
		t.Skip("nothing is kept")
	}
	from := rapid.IntRange(0, len(m.kept)-1).Draw(t, "from")
	run := m.kept[from : from+rapid.IntRange(1, len(m.kept)-from).Draw(t, "n")]
	b := outbox.Block{First: run[0].First, From: run[0].From, Last: run[len(run)-1].Last, To: run[len(run)-1].To, Data: m.data(t)}
	for _, p := range run {
		b.Transactions, b.Changes = b.Transactions+p.Transactions, b.Changes+p.Changes
	}
	refused := slices.ContainsFunc(run, func(p outbox.Piece) bool { return p.Tx != nil })
	if wrong := rapid.IntRange(0, 3).Draw(t, "wrong"); wrong < 3 {
		*[]*int{&b.Transactions, &b.Changes, new(int)}[wrong] += 1
		refused = refused || wrong < 2
	}
	err := m.store.JoinJournal(m.Context(), m.source.ID, 1, b)
	if refused != errors.Is(err, outbox.ErrState) || !refused && err != nil {
		t.Fatalf("joining %d pieces gave %v", len(run), err)
	}
	if !refused {
		m.kept = slices.Replace(m.kept, from, from+len(run), outbox.Piece{Block: b, Place: outbox.JournalPlace{Commit: b.Last}})
	}
}

func (m *journalModel) size() (n int64) {
	for _, p := range m.kept {
		n += int64(len(p.Data))
	}
	return n
}

func (m *journalModel) prune(t *rapid.T) {
	before := past.Add(time.Duration(rapid.IntRange(0, m.minutes).Draw(t, "minutes")) * time.Minute)
	most := rapid.Int64Range(0, 200).Draw(t, "bytes")
	for more := true; more; {
		p, err := m.store.PruneJournal(m.Context(), before, most)
		m.ok(err)
		more = p.More
	}
	for len(m.kept) > 0 && (m.kept[0].To.Before(before) || m.size() > most) {
		commit := m.kept[0].Place.Commit
		m.since = commit + 1
		m.kept = slices.DeleteFunc(m.kept, func(p outbox.Piece) bool { return p.Place.Commit == commit })
	}
}

func (m *journalModel) compare(t *rapid.T) {
	agree(t, "the journal", m.pieces(0, 0, rapid.IntRange(1, 5).Draw(t, "limit")), m.kept)
	span, err := m.store.JournalSpan(m.Context(), m.source.ID, 1)
	fatal(t, err)
	span.SinceTime = time.Time{}
	want := outbox.JournalSpan{Since: m.since, Bytes: m.size()}
	if n := len(m.kept); n > 0 {
		want.Oldest, want.From, want.Newest, want.To = m.kept[0].First, m.kept[0].From, m.kept[n-1].Last, m.kept[n-1].To
	}
	agree(t, "its span", span, want)
}
