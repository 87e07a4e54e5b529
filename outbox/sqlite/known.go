package sqlite

import (
	"fmt"

	"postman/outbox"
)

// known is what the writer keeps in memory of the tables, so that an insert needs no look-up. It is filled when the store
// is opened, and again whenever something was rolled back: until that succeeds it is stale, and no operation runs.
type known struct {
	sources     map[uint32]outbox.Source
	rules       map[uint32]string
	ruleIDs     map[string]uint32
	texts       map[outbox.Hash]int64
	provisional map[int64]bool   // transactions whose commit has not been read
	journal     map[uint32]int64 // bytes that the journal of a source takes
	last        map[string]int64
}

// load reads what is known from the tables.
func (w *writer) load() error {
	w.stale = true
	w.known = known{
		sources: make(map[uint32]outbox.Source), rules: make(map[uint32]string), ruleIDs: make(map[string]uint32),
		texts: make(map[outbox.Hash]int64), provisional: make(map[int64]bool), journal: make(map[uint32]int64), last: make(map[string]int64),
	}
	for _, err := range []error{w.loadSources(), w.loadJournal(), w.loadRules(), w.loadTexts(), w.loadProvisional(), w.loadSuppresses(), w.loadLast()} {
		if err != nil {
			return fmt.Errorf("reading what the store knows: %w", err)
		}
	}
	w.stale = false
	return nil
}

func (w *writer) loadSuppresses() error {
	return w.each(`SELECT EXISTS (SELECT 1 FROM suppressions WHERE lifted IS NULL)`, func(scan scanner) error {
		var any bool
		err := scan(&any)
		w.suppresses.Store(any)
		return err
	})
}

func (w *writer) loadSources() error {
	all, err := rows(w.query, scanSource, selectSources)
	for _, s := range all {
		w.known.sources[s.ID] = s
	}
	return err
}

func (w *writer) loadJournal() error {
	return w.each(`SELECT id, journal_bytes FROM sources`, func(scan scanner) error {
		var id uint32
		var bytes int64
		err := scan(&id, &bytes)
		w.known.journal[id] = bytes
		return err
	})
}

func (w *writer) loadRules() error {
	return w.each(`SELECT id, name FROM rules`, func(scan scanner) error {
		var id uint32
		var name string
		err := scan(&id, &name)
		w.known.rules[id], w.known.ruleIDs[name] = name, id
		return err
	})
}

func (w *writer) loadTexts() error {
	return w.each(`SELECT id, hash FROM texts`, func(scan scanner) error {
		var id int64
		var hash []byte
		if err := scan(&id, &hash); err != nil {
			return err
		}
		h, err := hashFrom(hash)
		w.known.texts[h] = id
		return err
	})
}

func (w *writer) loadProvisional() error {
	return w.each(`SELECT id FROM transactions WHERE lsn IS NULL`, func(scan scanner) error {
		var id int64
		err := scan(&id)
		w.known.provisional[id] = true
		return err
	})
}

func (w *writer) loadLast() error {
	return w.each(`SELECT name, seq FROM sqlite_sequence`, func(scan scanner) error {
		var table string
		var id int64
		err := scan(&table, &id)
		w.known.last[table] = id
		return err
	})
}

// next allots an id of a table. They are never given twice.
func (w *writer) next(table string) int64 {
	w.known.last[table]++
	return w.known.last[table]
}
