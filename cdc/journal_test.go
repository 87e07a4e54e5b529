package cdc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"postman/position"
	"postman/value"
)

// journalled is what a test wrote, to be read again.
type journalled struct {
	tx      Tx
	muted   string
	first   uint64
	changes []Change
}

// journalTables are two tables, one of them with a secret.
func journalTables() []*Table {
	column := func(name string) Column {
		return Column{Column: value.Column{Name: name, Type: value.Type{OID: 25, Base: 25, Name: "text"}}}
	}
	return []*Table{
		{TableName: TableName{"public", "people"}, OID: 1, Identity: IdentityFull, Columns: []Column{column("name"), column("secret")}},
		{TableName: TableName{"public", "notes"}, OID: 2, Identity: IdentityDefault, Columns: []Column{column("text")}},
	}
}

func drawChange(t *rapid.T, tables []*Table) Change {
	if rapid.IntRange(0, 5).Draw(t, "message") == 0 {
		return Change{Op: Emit, Prefix: rapid.String().Draw(t, "prefix"), Content: rapid.SliceOf(rapid.Byte()).Draw(t, "content")}
	}
	c := Change{Op: Op(rapid.IntRange(0, int(Truncate)).Draw(t, "op")), Table: rapid.SampledFrom(tables).Draw(t, "table")}
	tuple := func() Tuple {
		var datums []value.Datum
		for range c.Table.Columns {
			long := rapid.SampledFrom([]int{0, 1, 1, 7, 7, 7, 130, 17_000}).Draw(t, "long")
			datums = append(datums, rapid.SampledFrom([]value.Datum{
				{State: value.Null}, {State: value.Unavailable}, {State: value.Present, Text: bytes.Repeat([]byte("v"), long)},
			}).Draw(t, "datum"))
		}
		return MakeTuple(datums)
	}
	if c.Op == Insert || c.Op == Update {
		c.New = tuple()
	}
	if c.Op == Update || c.Op == Delete {
		c.Old, c.OldKey = tuple(), rapid.Bool().Draw(t, "key")
	}
	return c
}

func draw(t *rapid.T, tables []*Table) journalled {
	j := journalled{muted: rapid.SampledFrom([]string{"", "a migration"}).Draw(t, "muted"), first: rapid.Uint64Range(0, 1<<40).Draw(t, "first")}
	j.tx = Tx{
		XID: rapid.Uint32().Draw(t, "xid"), Commit: position.LSN(rapid.Uint64Min(1).Draw(t, "commit")), End: position.LSN(rapid.Uint64().Draw(t, "end")),
		Time: time.UnixMicro(rapid.Int64Range(1, 1<<52).Draw(t, "time")).UTC(),
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "changes") {
		c := drawChange(t, tables)
		c.Ordinal = j.first + uint64(i)
		j.changes = append(j.changes, c)
	}
	return j
}

func shapeHash(t *Table) [32]byte { return sha256.Sum256(t.Shape()) }

func (j *journalled) section(blank func(*Change) func(string) bool) *Section {
	var s Section
	s.Reset(j.first)
	for i := range j.changes {
		s.Add(&j.changes[i], shapeHash, blank(&j.changes[i]))
	}
	return &s
}

func nothing(*Change) func(string) bool { return nil }

// readJournal reads a sealed block as a replay does.
func readJournal(sealed []byte, tables []*Table) (found []journalled, err error) {
	block, err := UnsealBlock(nil, sealed)
	if err != nil {
		return nil, err
	}
	table := func(hash [32]byte) (*Table, error) {
		i := slices.IndexFunc(tables, func(t *Table) bool { return shapeHash(t) == hash })
		if i < 0 {
			return nil, errors.New("no such shape")
		}
		return tables[i], nil
	}
	for s, err := range Sections(block) {
		if err != nil {
			return nil, err
		}
		j := journalled{tx: s.Tx, muted: s.Muted, first: s.First}
		for c, err := range s.Changes(context.Background(), table) {
			if err != nil {
				return nil, err
			}
			kept := *c
			kept.New, kept.Old, kept.Content = slices.Clone(c.New), slices.Clone(c.Old), bytes.Clone(c.Content)
			j.changes = append(j.changes, kept)
		}
		found = append(found, j)
	}
	return found, nil
}

func equalJournal(t interface{ Fatalf(string, ...any) }, got, want []journalled) {
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) { // cheaper than cmp on long values, and nil is as good as empty
		t.Fatalf("the journal gives other changes (-want +got):\n%s", cmp.Diff(want, got, cmp.AllowUnexported(journalled{}), cmpopts.EquateEmpty()))
	}
}

// TestJournal: what blocks were given, they give back, joined or not, cut or not.
func TestJournal(t *testing.T) {
	t.Parallel()
	tables := journalTables()
	rapid.Check(t, func(t *rapid.T) {
		var blocks [][]byte
		var want []journalled
		for range rapid.IntRange(1, 3).Draw(t, "blocks") {
			var block []byte
			for range rapid.IntRange(1, 4).Draw(t, "sections") {
				j := draw(t, tables)
				s := j.section(nothing)
				if rapid.Bool().Draw(t, "cut") {
					keep := rapid.IntRange(0, len(j.changes)).Draw(t, "keep")
					s.Cut(j.first + uint64(keep))
					j.changes = j.changes[:keep:keep]
					for range rapid.IntRange(0, 2).Draw(t, "again") { // what was rolled back gives its numbers away
						c := drawChange(t, tables)
						c.Ordinal = s.First() + uint64(s.Changes())
						s.Add(&c, shapeHash, nil)
						j.changes = append(j.changes, c)
					}
				}
				if len(j.changes) == 0 {
					j.changes = nil
				}
				if s.Changes() != len(j.changes) {
					t.Fatalf("the section counts %d changes, not %d", s.Changes(), len(j.changes))
				}
				block = AppendBlock(block, j.tx, j.muted, s)
				want = append(want, j)
			}
			blocks = append(blocks, block)
		}
		var joined []byte
		var single []journalled
		for _, b := range blocks {
			joined = JoinBlocks(joined, b)
			got, err := readJournal(SealBlock(b), tables)
			if err != nil {
				t.Fatal(err)
			}
			single = append(single, got...)
		}
		equalJournal(t, single, want)
		got, err := readJournal(SealBlock(joined), tables)
		if err != nil {
			t.Fatal(err)
		}
		equalJournal(t, got, want)
	})
}

// TestJournalHidesSecrets: a blanked value is nowhere in the block, and is read as one that is not there.
func TestJournalHidesSecrets(t *testing.T) {
	t.Parallel()
	tables := journalTables()
	text := func(s string) value.Datum { return value.Datum{State: value.Present, Text: []byte(s)} }
	j := journalled{changes: []Change{
		{Op: Update, Table: tables[0], New: MakeTuple([]value.Datum{text("Kim"), text("hunter2")}), Old: MakeTuple([]value.Datum{text("Kim"), text("hunter1")})},
		{Op: Emit, Prefix: "postman.reset", Content: []byte(`{"email":"a@b","token":"hunter3"}`)},
	}}
	blank := func(*Change) func(string) bool {
		return func(name string) bool { return name == "secret" || name == "token" }
	}
	block := AppendBlock(nil, Tx{Commit: 1}, "", j.section(blank))
	if bytes.Contains(block, []byte("hunter")) {
		t.Errorf("a secret is in the journal: %q", block)
	}
	got, err := readJournal(SealBlock(block), tables)
	if err != nil {
		t.Fatal(err)
	}
	datums, err := got[0].changes[0].New.Datums(nil)
	if err != nil || string(datums[0].Text) != "Kim" || datums[1].State != value.Blanked {
		t.Errorf("the row is read as %v (%v)", datums, err)
	}
}

// FuzzJournal: no bytes make the reader panic, read beside them or take memory without bound.
func FuzzJournal(f *testing.F) {
	tables := journalTables()
	rows := MakeTuple([]value.Datum{{State: value.Present, Text: []byte("a")}, {State: value.Null}})
	for _, c := range []Change{{Op: Insert, Table: tables[0], New: rows}, {Op: Emit, Prefix: "p", Content: []byte("c")}} {
		j := journalled{changes: []Change{c}}
		f.Add(AppendBlock(nil, Tx{Commit: 1, XID: 2}, "m", j.section(nothing)))
	}
	for _, raw := range []string{"", "?", "T\x00\x00\x00\x01\x00\x00\x00\x00\x01", "R\x00", "C\x00"} {
		j := journalled{changes: []Change{{Op: Emit, Err: errBehind, Raw: []byte(raw), Described: tables}, {Op: Insert, Err: errBehind, Raw: []byte("I"), Relation: []byte("R")}}}
		f.Add(AppendBlock(nil, Tx{Commit: 1, XID: 2}, "m", j.section(nothing)))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		for s, err := range Sections(block) {
			if err != nil {
				return
			}
			for c, err := range s.Changes(t.Context(), func([32]byte) (*Table, error) { return tables[0], nil }) {
				if err != nil {
					break
				}
				if c.Op != Emit && c.Op != Truncate && len(c.New)+len(c.Old) > len(block) {
					t.Error("a change is longer than the block")
				}
			}
		}
		if unsealed, err := UnsealBlock(nil, SealBlock(block)); err != nil || !bytes.Equal(unsealed, block) {
			t.Errorf("sealed and unsealed it is %q (%v)", unsealed, err)
		}
	})
}

// BenchmarkJournal records and seals rows of 200 bytes, as many as a block has, and reads them again.
func BenchmarkJournal(b *testing.B) {
	table := journalTables()[0]
	var changes []Change
	for i := range 1200 {
		row := MakeTuple([]value.Datum{{State: value.Present, Text: binary.BigEndian.AppendUint64(bytes.Repeat([]byte("n"), 150), uint64(i*2654435761))}, {State: value.Present, Text: []byte("2026-11-22 12:00:00+00")}})
		changes = append(changes, Change{Op: Insert, Table: table, New: row})
	}
	var s Section
	var sealed []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			s.Reset(0)
			for i := range changes {
				s.Add(&changes[i], shapeHash, nil)
			}
			sealed = SealBlock(AppendBlock(nil, Tx{Commit: 1}, "", &s))
		}
		b.ReportMetric(float64(len(sealed))/float64(len(changes)), "B/change")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(changes)), "ns/change")
	})
	b.Run("read", func(b *testing.B) {
		var block []byte
		for b.Loop() {
			block, _ = UnsealBlock(block, sealed)
			for s, err := range Sections(block) {
				if err != nil {
					b.Fatal(err)
				}
				for range s.Changes(b.Context(), func([32]byte) (*Table, error) { return table, nil }) {
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(changes)), "ns/change")
	})
}
