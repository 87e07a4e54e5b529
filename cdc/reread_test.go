package cdc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// keeper is a Handler that writes a journal, in parts of two changes.
type keeper struct {
	teller
	block  []byte
	part   Section
	tables map[[32]byte]*Table
	unread int
}

func (k *keeper) Begin(tx Tx) error { k.part.Reset(0); return nil }

func (k *keeper) Change(c *Change) error {
	if c.Err != nil {
		k.unread++
	}
	k.part.Add(c, func(t *Table) [32]byte { k.tables[shapeHash(t)] = t; return shapeHash(t) }, nil)
	if k.part.Changes() == 2 {
		return k.Commit(Tx{Commit: 1})
	}
	return nil
}

func (k *keeper) Commit(tx Tx) error {
	if n := k.part.Changes(); n > 0 {
		k.block = AppendBlock(k.block, tx, "", &k.part)
		k.part.Reset(k.part.First() + uint64(n))
	}
	return nil
}

// read is what the journal gives, a line for each change.
func (k *keeper) read(t *testing.T) string {
	t.Helper()
	var all teller
	var rest Rest
	for s, err := range Sections(k.block) {
		if err != nil {
			t.Fatal(err)
		}
		s.Rest = &rest
		for c, err := range s.Changes(t.Context(), func(hash [32]byte) (*Table, error) { return k.tables[hash], nil }) {
			if err != nil {
				t.Fatal(err)
			}
			_ = all.Change(c)
		}
	}
	return all.String()
}

// garbled is a message of which nobody can tell how many changes it is: a truncate as one of a kind that is not known, a table's
// description with a replica identity that there is not.
func garbled(m []byte) []byte {
	m = bytes.Clone(m)
	if m[0] != 'R' {
		m[0] = '?'
		return m
	}
	identity := 5 + bytes.IndexByte(m[5:], 0) + 1
	m[identity+bytes.IndexByte(m[identity:], 0)+1] = '!'
	return m
}

// TestRest: whichever truncate or description of a session cannot be read, the journal gives all changes with their ordinals, as if nothing had
// been the matter, once it can; until then, those before it, and those of other transactions.
func TestRest(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	journal := func(bad int) *keeper {
		k := &keeper{tables: make(map[[32]byte]*Table)}
		d := newDecoder(k)
		d.quarantine.certain = true
		for i, m := range messages {
			if i == bad {
				m = garbled(m)
			}
			if err := d.message(t.Context(), 1, m); err != nil {
				t.Fatalf("message %d (%.1q): %v", i, m, err)
			}
		}
		return k
	}
	want := journal(-1).read(t)
	if !strings.Contains(want, "truncate") || strings.Contains(want, "unread") {
		t.Fatalf("the session is %s", want)
	}
	tried := make(map[byte]int)
	for i, m := range messages {
		if m[0] != 'T' && m[0] != 'R' {
			continue
		}
		k := journal(i)
		tried[m[0]]++
		before := k.read(t)
		if strings.Count(before, "unread") != k.unread || k.unread == 0 {
			t.Errorf("message %d (%.1q), as it is: %s", i, m, before)
		}
		k.block = bytes.ReplaceAll(k.block, garbled(m), m)
		if diff := cmp.Diff(want, k.read(t)); diff != "" {
			t.Errorf("message %d (%.1q), read again: %s", i, m, diff)
		}
	}
	if tried['T'] == 0 || tried['R'] < 3 {
		t.Errorf("%d truncates and %d descriptions were tried", tried['T'], tried['R'])
	}
}

// TestUndescribed: what comes of a table whose description could not be read, in a later transaction, is read with it.
func TestUndescribed(t *testing.T) {
	t.Parallel()
	messages := captured(t, "session.hex")
	find := func(kind byte) []byte {
		return messages[slices.IndexFunc(messages, func(m []byte) bool { return m[0] == kind })]
	}
	begin, relation, insert, commit := find('B'), find('R'), find('I'), find('C')
	bad := garbled(relation)
	k := &keeper{tables: make(map[[32]byte]*Table)}
	d := newDecoder(k)
	d.quarantine.certain = true
	for _, m := range [][]byte{begin, bad, commit, begin, insert, insert, commit} {
		d.done = 0
		if err := d.message(t.Context(), 1, m); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.read(t); strings.Count(got, "unread") != 3 {
		t.Errorf("as it is: %s", got)
	}
	k.block = bytes.ReplaceAll(k.block, bad, relation)
	got := k.read(t)
	for i := range 2 {
		if !strings.Contains(got, fmt.Sprintf("%d insert", i)) {
			t.Errorf("read again: %s", got)
		}
	}
	if strings.Contains(got, "unread") {
		t.Errorf("read again: %s", got)
	}
}
