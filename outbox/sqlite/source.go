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

const selectSources = `SELECT id, system_id, database, slot, epoch, state, checkpoint, verified, armed, timeline, publications, restart FROM sources`

func scanSource(scan scanner) (s outbox.Source, err error) {
	var checkpoint, verified, restart int64
	err = scan(&s.ID, &s.SystemID, &s.Database, &s.Slot, &s.Epoch, &s.State, &checkpoint, &verified, &s.Armed, &s.Server.Timeline, &s.Server.Publications, &restart)
	s.Checkpoint, s.Verified, s.Server.Restart = position.LSN(checkpoint), position.LSN(verified), position.LSN(restart)
	return s, err
}

// Source returns the named source.
func (s *Store) Source(ctx context.Context, systemID, database, slot string) (outbox.Source, error) {
	found, err := rows(s.reading(ctx), scanSource, selectSources+` WHERE system_id = ? AND database = ? AND slot = ?`, systemID, database, slot)
	switch {
	case err != nil:
		return outbox.Source{}, fmt.Errorf("reading a source: %w", explain(err))
	case len(found) == 0:
		return outbox.Source{}, fmt.Errorf("the source of system %s, database %q, slot %q: %w", systemID, database, slot, outbox.ErrNotFound)
	}
	return found[0], nil
}

// Sources lists all sources.
func (s *Store) Sources(ctx context.Context) ([]outbox.Source, error) {
	found, err := rows(s.reading(ctx), scanSource, selectSources+` ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("reading the sources: %w", explain(err))
	}
	return found, nil
}

// SaveSource adds or changes a source.
func (s *Store) SaveSource(ctx context.Context, src outbox.Source) (outbox.Source, error) {
	err := s.write(ctx, "saving a source", func(w *writer) error {
		if src.ID == 0 {
			return w.addSource(&src)
		}
		return w.changeSource(src)
	})
	if err != nil {
		return outbox.Source{}, err
	}
	return src, nil
}

func (w *writer) addSource(src *outbox.Source) error {
	for _, known := range w.known.sources {
		if known.SystemID == src.SystemID && known.Database == src.Database && known.Slot == src.Slot {
			return fmt.Errorf("it is there already, with id %d", known.ID)
		}
	}
	src.ID = uint32(w.next("sources"))
	_, err := w.exec(`
		INSERT INTO sources (id, system_id, database, slot, epoch, state, checkpoint, verified, armed, timeline, publications, restart)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		src.ID, src.SystemID, src.Database, src.Slot, src.Epoch, src.State, int64(src.Checkpoint), int64(src.Verified), src.Armed,
		src.Server.Timeline, src.Server.Publications, int64(src.Server.Restart))
	w.known.sources[src.ID] = *src
	return errors.Join(err, w.beginJournal(*src))
}

func (w *writer) changeSource(src outbox.Source) error {
	known, ok := w.known.sources[src.ID]
	if !ok {
		return fmt.Errorf("source %d: %w", src.ID, outbox.ErrNotFound)
	}
	if known.SystemID != src.SystemID || known.Database != src.Database || known.Slot != src.Slot {
		return fmt.Errorf("source %d is system %s, database %q, slot %q, and stays that", src.ID, known.SystemID, known.Database, known.Slot)
	}
	// Until a source streams, nobody knows where its slot will start; afterwards only a new epoch may go back.
	back := src.Checkpoint < known.Checkpoint && known.State == outbox.SourceStreaming
	if src.Epoch < known.Epoch || src.Epoch == known.Epoch && back {
		return fmt.Errorf("%w: source %d is at epoch %d, %s; not to epoch %d, %s", outbox.ErrCheckpoint,
			src.ID, known.Epoch, known.Checkpoint, src.Epoch, src.Checkpoint)
	}
	_, err := w.exec(`UPDATE sources SET epoch = ?, state = ?, checkpoint = ?, verified = ?, armed = ? WHERE id = ?`,
		src.Epoch, src.State, int64(src.Checkpoint), int64(src.Verified), src.Armed, src.ID)
	if err != nil {
		return err
	}
	w.known.sources[src.ID] = src
	return errors.Join(w.changeServer(src.ID, src.Server), w.beginJournal(src))
}

// SaveServer changes what is known of a source's server.
func (s *Store) SaveServer(ctx context.Context, source uint32, server outbox.Server) error {
	return s.write(ctx, "saving what is known of a server", func(w *writer) error { return w.changeServer(source, server) })
}

func (w *writer) changeServer(source uint32, server outbox.Server) error {
	known, ok := w.known.sources[source]
	if !ok {
		return fmt.Errorf("source %d: %w", source, outbox.ErrNotFound)
	}
	if before := known.Server.Timeline; before != 0 && before != server.Timeline { // behind the checkpoint its log is another one
		known.Verified = min(known.Verified, known.Checkpoint)
	}
	_, err := w.exec(`UPDATE sources SET timeline = ?, publications = ?, restart = ?, verified = ? WHERE id = ?`,
		server.Timeline, server.Publications, int64(server.Restart), int64(known.Verified), source)
	known.Server = server
	w.known.sources[source] = known
	return err
}

// SaveNote keeps a text beside a source.
func (s *Store) SaveNote(ctx context.Context, source uint32, name string, text []byte) error {
	return s.write(ctx, fmt.Sprintf("noting %s", name), func(w *writer) error {
		if _, ok := w.known.sources[source]; !ok {
			return fmt.Errorf("source %d: %w", source, outbox.ErrNotFound)
		}
		_, err := w.exec(`INSERT INTO notes (source, name, text) VALUES (?, ?, ?) ON CONFLICT (source, name) DO UPDATE SET text = excluded.text`,
			source, name, present(text))
		return err
	})
}

// Note returns what SaveNote kept.
func (s *Store) Note(ctx context.Context, source uint32, name string) ([]byte, error) {
	var text []byte
	err := s.reads.QueryRowContext(ctx, `SELECT text FROM notes WHERE source = ? AND name = ?`, source, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("the note %s of source %d: %w", name, source, outbox.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the note %s: %w", name, explain(err))
	}
	return text, nil
}

// RuleIDs allots numbers to rules.
func (s *Store) RuleIDs(ctx context.Context, rules ...outbox.RuleName) ([]uint32, error) {
	ids := make([]uint32, len(rules))
	err := s.write(ctx, "numbering the rules", func(w *writer) (err error) {
		for i, r := range rules {
			if ids[i], err = w.ruleID(r.Name, r.Was); err != nil {
				return fmt.Errorf("rule %q: %w", r.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

func (w *writer) ruleID(name, was string) (uint32, error) {
	if id, ok := w.known.ruleIDs[name]; ok {
		return id, nil
	}
	id, renamed := w.known.ruleIDs[was]
	var err error
	if renamed {
		delete(w.known.ruleIDs, was)
		_, err = w.exec(`UPDATE rules SET name = ? WHERE id = ?`, name, id)
	} else {
		id = uint32(w.next("rules"))
		_, err = w.exec(`INSERT INTO rules (id, name) VALUES (?, ?)`, id, name)
	}
	w.known.rules[id], w.known.ruleIDs[name] = name, id
	return id, err
}

// RuleNames lists the rules by their present names.
func (s *Store) RuleNames(ctx context.Context) ([]string, error) {
	names, err := rows(s.reading(ctx), func(scan scanner) (name string, err error) { return name, scan(&name) }, `SELECT name FROM rules ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("listing the rules: %w", explain(err))
	}
	return names, nil
}

// Rules lists the rules that were numbered, by name.
func (s *Store) Rules(ctx context.Context) (map[string]uint32, error) {
	all := make(map[string]uint32)
	_, err := rows(s.reading(ctx), func(scan scanner) (struct{}, error) {
		var id uint32
		var name string
		err := scan(&id, &name)
		all[name] = id
		return struct{}{}, err
	}, `SELECT id, name FROM rules`)
	if err != nil {
		return nil, fmt.Errorf("reading the rules' numbers: %w", explain(err))
	}
	return all, nil
}

// Text returns a text that a batch brought.
func (s *Store) Text(ctx context.Context, h outbox.Hash) ([]byte, error) {
	var text []byte
	err := s.reads.QueryRowContext(ctx, `SELECT text FROM texts WHERE hash = ?`, h[:]).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("the text %x: %w", h[:6], outbox.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the text %x: %w", h[:6], explain(err))
	}
	return text, nil
}

// TextSince is when a text was first brought.
func (s *Store) TextSince(ctx context.Context, h outbox.Hash) (time.Time, error) {
	var since sql.NullInt64
	err := s.reads.QueryRowContext(ctx, `SELECT since FROM texts WHERE hash = ?`, h[:]).Scan(&since)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, fmt.Errorf("the text %x: %w", h[:6], outbox.ErrNotFound)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading of the text %x when it came: %w", h[:6], explain(err))
	}
	return moment(since), nil
}

// addTexts stores the texts that are new.
func (w *writer) addTexts(texts map[outbox.Hash][]byte) error {
	for h, text := range texts {
		if _, ok := w.known.texts[h]; ok {
			continue
		}
		id := w.next("texts")
		if _, err := w.exec(`INSERT INTO texts (id, hash, text, since) VALUES (?, ?, ?, ?)`, id, h[:], present(text), time.Now().UnixMicro()); err != nil {
			return fmt.Errorf("storing the text %x: %w", h[:6], err)
		}
		w.known.texts[h] = id
	}
	return nil
}
