package daemon

import (
	cmpstd "cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
	"postman/rules"
	"postman/value"
)

// reading is an intake with a store behind it, and what it tells.
type reading struct {
	t     testing.TB
	store outbox.Store
	in    *intake
	ended chan error
}

// idleDispatch takes nothing.
type idleDispatch struct{}

func (idleDispatch) Room() int                                { return 0 }
func (idleDispatch) Take([]outbox.Match)                      {}
func (idleDispatch) Ahead(*outbox.Batch) func([]outbox.Match) { return func([]outbox.Match) {} }
func (idleDispatch) Wake()                                    {}

var streamTable = &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: "t"}, OID: 1, Identity: cdc.IdentityDefault, Columns: []cdc.Column{
	{Column: value.Column{Name: "id", Type: value.Type{OID: 23, Base: 23, Name: "int4"}}, Key: true, PK: true, NotNull: true},
	{Column: value.Column{Name: "kind", Type: value.Type{OID: 25, Base: 25, Name: "text"}}},
	{Column: value.Column{Name: "note", Type: value.Type{OID: 25, Base: 25, Name: "text"}}},
}}

const streamRules = `
sensitive: [t.note]
rules:
  - {name: few, about: w, on: {table: t, ops: [insert, update]}, when: new.kind == "few", hold_over: {transaction: 4, minute: 7}, to: {address: a@example.com}, template: t}
  - {name: many, about: w, on: {table: t, ops: [insert, update]}, when: new.kind != "none", hold_over: {transaction: 30, minute: 20}, expires: 1h, to: {address: a@example.com}, template: t}
  - {name: noted, about: w, on: {table: t, ops: [update]}, when: new.note == "x", to: {address: a@example.com}, template: t}
  - {name: told, about: w, on: {message: told}, to: {address: a@example.com}, template: t}
`

func newReading(t *testing.T, dir string, set *live) *reading {
	store := openStore(t, dir)
	source, err := store.SaveSource(t.Context(), outbox.Source{SystemID: "1", Database: "d", Slot: "s", Epoch: 1, State: outbox.SourceStreaming})
	if err != nil {
		t.Fatal(err)
	}
	return readInto(t, store, source, set)
}

func openStore(t *testing.T, dir string) outbox.Store {
	t.Helper()
	store, err := sqlite.Open(dir, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// readInto is another intake, which knows nothing of those that read into the store before.
func readInto(t *testing.T, store outbox.Store, source outbox.Source, set *live) *reading {
	if err := set.register(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	r := &reading{t: t, store: store, ended: make(chan error, 1)}
	var pointer atomic.Pointer[live]
	pointer.Store(set)
	r.in = &intake{
		store: store, source: source, zone: time.UTC, live: &pointer, holds: newHolds(nil, 0), rows: newRowHash(), batch: newGathering(source),
		report: func(context.Context, error, string, string) {}, broken: newBreakages(), rebind: new(atomic.Bool), decides: func(*live, position.LSN) {},
		mismatches: new(atomic.Int64), origins: new(Origins), tally: new(tally),
		plans: make(map[*cdc.Table]bound), streams: make(map[uint32]*transaction), shapes: make(map[*cdc.Table]outbox.Hash), hides: make(map[*cdc.Table]func(string) bool),
		brought: make(map[outbox.Hash]bool), names: make(map[uint32]cdc.TableName), strays: make(map[uint32][]string),
	}
	ctx, cancel := context.WithCancel(context.Background())
	trouble := func(err error) {
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			cancel()
		}
	}
	c := &committer{store: store, batch: r.in.batch, dispatch: idleDispatch{}, confirm: func(position.LSN) {}, trouble: trouble, mend: func(context.Context, mend) {}, held: func() {}}
	go func() {
		r.ended <- c.run(ctx)
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.end()
		cancel()
	})
	return r
}

// end waits until what was handed on is stored. It may be called again.
func (r *reading) end() {
	r.in.batch.close()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
}

func (r *reading) must(err error) {
	if err != nil {
		r.t.Fatal(err)
	}
}

// stored is what transactions came to.
type stored struct {
	matches []outbox.Match
	gaps    []outbox.Gap
	journal []string
}

// finish commits one transaction more, waits until all is stored, and returns what is from a position on.
func (r *reading) finish(from position.LSN, last cdc.Tx) (s stored) {
	begun := last
	begun.End = 0
	r.must(r.in.Begin(begun))
	text := func(s string) value.Datum { return value.Datum{State: value.Present, Text: []byte(s)} }
	r.must(r.in.Change(&cdc.Change{Table: streamTable, New: cdc.MakeTuple([]value.Datum{text("0"), text("many"), text("")})}))
	r.must(r.in.Commit(last))
	for r.in.batch.durable() < last.End && !r.t.Failed() {
		time.Sleep(100 * time.Microsecond)
	}
	var err error
	s.matches, err = r.store.Matches(r.t.Context(), outbox.Filter{Limit: 110}) // three transactions of 16 steps, two rules on each, bring no more
	r.must(err)
	s.matches = slices.DeleteFunc(s.matches, func(m outbox.Match) bool { return m.Position.LSN < from })
	slices.SortFunc(s.matches, func(a, b outbox.Match) int {
		return cmpstd.Or(a.Position.Compare(b.Position), cmpstd.Compare(a.Rule, b.Rule))
	})
	sameBatches(s.matches)
	s.gaps, err = r.store.Gaps(r.t.Context())
	r.must(err)
	s.gaps = slices.DeleteFunc(s.gaps, func(g outbox.Gap) bool { return g.From < from })
	slices.SortFunc(s.gaps, func(a, b outbox.Gap) int {
		return strings.Compare(fmt.Sprint(a.From, a.Rule, a.Reason), fmt.Sprint(b.From, b.Rule, b.Reason))
	})
	h := newHistory(r.store, r.in.source)
	for tx, err := range h.read(r.t.Context(), from, 0) {
		r.must(err)
		for c, err := range tx.Changes(r.t.Context(), h.table(r.t.Context())) {
			r.must(err)
			s.journal = append(s.journal, fmt.Sprintf("%s %d %s %q %q %q %q", tx.Commit, c.Ordinal, tx.Muted, c.New, c.Old, c.Prefix, c.Content))
		}
	}
	return s
}

// streamStep is something that a transaction does: a change, or a rollback of all from an ordinal on.
type streamStep struct {
	change *cdc.Change
	cut    bool
	from   uint64
	spill  bool // it is spilled, as if it were large
}

// drawSteps makes up a transaction, and returns which changes are left of it.
func drawSteps(t *rapid.T, id *int) (steps []streamStep, left []*cdc.Change) {
	for range rapid.IntRange(0, 16).Draw(t, "steps") {
		*id++
		text := func(s string) value.Datum { return value.Datum{State: value.Present, Text: []byte(s)} }
		c := &cdc.Change{Table: streamTable, Ordinal: uint64(len(left))}
		switch kind := rapid.SampledFrom(strings.Fields("few few many many none unknown told mute cut spill")).Draw(t, "step"); kind {
		case "cut":
			if len(left) == 0 {
				continue
			}
			from := rapid.IntRange(0, len(left)-1).Draw(t, "from")
			steps, left = append(steps, streamStep{cut: true, from: uint64(from)}), left[:from:from]
			continue
		case "spill":
			steps = append(steps, streamStep{spill: true})
			continue
		case "told":
			c.Table, c.Op, c.Prefix, c.Content = nil, cdc.Emit, "postman.told", fmt.Append(nil, `{"n": `, *id, `}`)
		case "mute":
			if rapid.IntRange(0, 9).Draw(t, "seldom") > 0 {
				continue
			}
			c.Table, c.Op, c.Prefix, c.Content = nil, cdc.Emit, mutePrefix, fmt.Append(nil, "mute ", *id)
		case "unknown": // new.note is not carried
			c.Op = cdc.Update
			c.New = cdc.MakeTuple([]value.Datum{text(fmt.Sprint(*id)), text("none"), {State: value.Unavailable}})
		default:
			c.Op = cdc.Insert
			c.New = cdc.MakeTuple([]value.Datum{text(fmt.Sprint(*id)), text(kind), text("secret")})
		}
		steps, left = append(steps, streamStep{change: c}), append(left, c)
	}
	return steps, left
}

// differences tells how what was read in parts is stored otherwise than what was read whole.
func differences(whole, parts stored) string {
	for i := range parts.matches { // how many there are beyond the measure is not known once some were rolled back
		m := &parts.matches[i]
		j := slices.IndexFunc(whole.matches, func(w outbox.Match) bool { return w.Position == m.Position && w.Rule == m.Rule })
		if j >= 0 && strings.HasPrefix(m.Reason, "more than") {
			m.Reason = whole.matches[j].Reason
		}
	}
	return cmp.Diff(whole, parts, cmp.AllowUnexported(stored{}), cmpopts.IgnoreFields(outbox.Match{}, "ID", "Due", "Created"),
		cmpopts.IgnoreFields(outbox.Gap{}, "ID", "Created"))
}

// streamSet is of streamRules.
func streamSet(t *testing.T) *live {
	t.Helper()
	file := t.TempDir() + "/rules.yaml"
	write(t, file, streamRules)
	source, err := rules.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := rules.Compile(source, &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{streamTable.TableName: streamTable}})
	if err != nil {
		t.Fatal(err)
	}
	return &live{source: source, rules: compiled, catalog: new(cdc.Catalog)}
}

// TestStreamedIntake reads made-up histories twice: whole, and in parts that lie between those of other transactions, with savepoints
// rolled back and breaks of the connection. What is stored of both is the same: matches with their states, gaps and the journal.
func TestStreamedIntake(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole, parts := newReading(t, dir+"/whole", streamSet(t)), newReading(t, dir+"/parts", streamSet(t))
	base, id := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		base += 1000
		var all [][]streamStep
		var left [][]*cdc.Change
		for range rapid.IntRange(1, 3).Draw(rt, "transactions") {
			s, l := drawSteps(rt, &id)
			all, left = append(all, s), append(left, l)
		}
		tx := func(i int) cdc.Tx {
			return cdc.Tx{
				XID: uint32(100 + i), Commit: position.LSN(base + 10*i), End: position.LSN(base + 10*i + 5),
				Time: time.Unix(1_700_000_000+int64(base+i), 0).UTC(),
			}
		}
		for i := range all {
			begun := tx(i)
			begun.End = 0
			whole.must(whole.in.Begin(begun))
			for _, c := range left[i] {
				whole.must(whole.in.Change(c))
			}
			whole.must(whole.in.Commit(tx(i)))
		}

		at, committed, breaks := make([]int, len(all)), 0, rapid.IntRange(0, 2).Draw(rt, "breaks")
		run := func(i int) { // the next step of a transaction
			s := all[i][at[i]]
			at[i]++
			xid := tx(i).XID
			switch {
			case s.cut:
				parts.must(parts.in.Rollback(xid, s.from))
			case s.spill:
				if o := parts.in.streams[xid]; o != nil {
					parts.must(parts.in.spillAll(o))
				}
			default:
				parts.must(parts.in.Stream(xid))
				parts.must(parts.in.Change(s.change))
			}
		}
		for committed < len(all) {
			i := rapid.IntRange(committed, len(all)-1).Draw(rt, "transaction")
			switch {
			case breaks > 0 && rapid.IntRange(0, 40).Draw(rt, "break") == 0:
				breaks--
				parts.must(parts.in.Restart())
				clear(at[committed:])
			case at[i] < len(all[i]):
				run(i)
			case i == committed:
				parts.must(parts.in.Commit(tx(i)))
				committed++
			}
			if rapid.IntRange(0, 20).Draw(rt, "another") == 0 { // that comes to nothing
				parts.must(parts.in.Stream(7))
				c := cdc.Change{Op: cdc.Insert, Table: streamTable, New: cdc.MakeTuple([]value.Datum{{State: value.Null}, {State: value.Null}, {State: value.Null}})}
				parts.must(parts.in.Change(&c))
				parts.must(parts.in.spillAll(parts.in.streams[7]))
				parts.must(parts.in.Rollback(7, 0))
			}
		}
		last := tx(len(all))
		if diff := differences(whole.finish(position.LSN(base), last), parts.finish(position.LSN(base), last)); diff != "" {
			rt.Errorf("of whole transactions (-) and in parts (+): %s", diff)
		}
	})
}

// sameBatches numbers batches by their first matches: what is held together is what counts.
func sameBatches(all []outbox.Match) {
	known := map[int64]int64{0: 0}
	for i := range all {
		if _, ok := known[all[i].Batch]; !ok {
			known[all[i].Batch] = int64(i + 1)
		}
		all[i].Batch = known[all[i].Batch]
	}
}

// TestStreamedTransactions has the server send transactions while they are in progress.
func TestStreamedTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.config.DatabaseURL = Secret(w.url + "&logical_decoding_work_mem=64kB")
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    expires: 1h\n    hold_over: {transaction: 5000, minute: 100000}", 1))
	d := w.start()
	const n = 1000
	rows := func(kind string) string { // of a kilobyte each
		return fmt.Sprintf(`insert into visits (kind, staff_id, note) select '%s', 99, repeat('x', 1000) from generate_series(1, %d)`, kind, n)
	}
	w.sql(`begin; ` + rows("visit") + `; savepoint a; ` + rows("visit") + `; rollback to a; ` + rows("call") + `; savepoint b; ` + rows("visit") + `; release b; commit`)
	got := w.matches(d, 2*n, outbox.MatchNobody)
	for i, m := range got {
		want := uint64(i)
		if i >= n {
			want += n // what was rolled back does not count, and calls do
		}
		if m.Position.Ordinal != want || m.Expires.Sub(m.Tx.Time) != time.Hour {
			t.Fatalf("match %d has ordinal %d and expires %v, committed %v", i, m.Position.Ordinal, m.Expires, m.Tx.Time)
		}
	}
	lines, commits := w.journal(d, 0, 0)
	if len(lines) != 3*n || len(commits) != 1 {
		t.Errorf("the journal has %d changes of %d transactions", len(lines), len(commits))
	}

	// A mute behind all of it, a rollback of all, and one that is muted in a savepoint that goes.
	w.sql(`begin; `+rows("visit")+`; select pg_logical_emit_message(true, 'postman.mute', 'import'); commit`, `begin; `+rows("visit")+`; rollback`)
	if muted := w.matches(d, n, outbox.MatchMuted); muted[0].Reason != "import" {
		t.Errorf("muted: %+v", muted[0])
	}
	w.sql(`begin; ` + rows("visit") + `; savepoint a; ` + rows("call") + `; select pg_logical_emit_message(true, 'postman.mute', 'gone'); rollback to a; commit`)
	w.matches(d, 3*n, outbox.MatchNobody)
}

// TestStreamedByAnOlderSet reloads the rules while a transaction is in progress: those that were live at its first part decide, and what
// newer ones miss of it is a gap that can be mended.
func TestStreamedByAnOlderSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.config.DatabaseURL = Secret(w.url + "&logical_decoding_work_mem=64kB")
	w.rules(strings.Replace(worldRules, "template: visit", "template: visit\n    hold_over: {transaction: 5000, minute: 100000}", 1))
	d := w.start()
	conn := pgtest.Connect(t, w.url)
	do := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	other := pgtest.Connect(t, w.url) // in another that is in progress
	for _, sql := range []string{"begin", "insert into visits (kind, note) select 'other', repeat('x', 1000) from generate_series(1, 400)"} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	do(`begin; insert into visits (kind, staff_id, note) select 'visit', 99, repeat('x', 1000) from generate_series(1, 200)`)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // until parts of both are here
		var sent int64
		if err := pgtest.Connect(t, w.url).QueryRow(t.Context(), "select stream_txns from pg_stat_replication_slots where slot_name = $1", w.config.Slot).Scan(&sent); err == nil && sent > 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is streamed")
		}
		w.sql("insert into visits (kind) values ('other')") // the server tells of its statistics when it is done with something
	}
	w.rules(worldRules + `
  - {name: call, about: A call., on: {table: visits, ops: [insert]}, when: new.kind == "call", load: {who: select 'x' as name}, to: {address: a@example.com}, template: visit}
`)
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(`insert into visits (kind, staff_id, note) select k, 99, repeat('x', 1000) from generate_series(1, 100), unnest('{visit,call}'::text[]) k; commit`)
	got := w.matches(d, 300, outbox.MatchNobody)
	gaps, err := d.store.Gaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := got[0].Position.LSN
	var rules []string
	for _, g := range gaps {
		if g.From == at && g.To == at && !g.Lost && len(g.Ops) > 0 {
			rules = append(rules, g.Rule)
		}
	}
	slices.Sort(rules)
	if want := []string{"call", "visit"}; !slices.Equal(rules, want) { // visit has changed: its measure is another one
		t.Errorf("gaps of %v at %s; want those of %v: %+v", rules, at, want, gaps)
	}
	w.sql("insert into visits (kind, staff_id) values ('call', 1)")
	w.eventually("the new rule's match", func() bool { return w.matchesOf(d, "call") == 1 })
	if _, err := other.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	// What lies between the two was decided by the new rule, and is not part of what it missed.
	w.eventually("the other transaction's gaps", func() bool {
		gaps, err := d.store.Gaps(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(gaps) == 4 && !slices.ContainsFunc(gaps, func(g outbox.Gap) bool { return g.From != g.To })
	})
}

// TestStreamedWithCommitTime: a rule that asks when the transaction commits has it read again, whole, once it has.
func TestStreamedWithCommitTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Mode = "dry-run"
	w.config.DatabaseURL = Secret(w.url + "&logical_decoding_work_mem=64kB")
	w.rules(strings.NewReplacer(`new.kind == "visit"`, `new.kind == "visit" and commit_time > date("2020-01-01T00:00:00Z")`,
		"template: visit", "template: visit\n    hold_over: {transaction: 5000, minute: 100000}").Replace(worldRules))
	d := w.start()
	w.sql(`insert into visits (kind, staff_id, note) select 'visit', 99, repeat('x', 1000) from generate_series(1, 500)`)
	for i, m := range w.matches(d, 500, outbox.MatchNobody) {
		if m.Position.Ordinal != uint64(i) {
			t.Fatalf("match %d has ordinal %d", i, m.Position.Ordinal)
		}
	}
}
