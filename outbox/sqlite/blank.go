package sqlite

import (
	"context"
	"fmt"
	"time"

	"postman/outbox"
)

var (
	// open are the states in which a match or a message goes on by itself or by an operator's release.
	openMatch   = in(outbox.MatchStates(), func(s outbox.MatchState) bool { return !s.Final() })
	openMessage = in(outbox.MessageStates(), func(s outbox.MessageState) bool { return !s.Final() })
	// A retry would need the values of these, too.
	needingMatch   = in(outbox.MatchStates(), func(s outbox.MatchState) bool { return !s.Final() || s.CanBecome(outbox.MatchPending) })
	needingMessage = in(outbox.MessageStates(), func(s outbox.MessageState) bool { return !s.Final() || s.Retryable() })
)

// blankFinal puts the blanked change of matches that are final, with all their messages, in the change's place.
var blankFinal = `UPDATE matches SET change = blanked, blanked = NULL WHERE blanked IS NOT NULL AND state NOT IN ` + needingMatch +
	` AND NOT EXISTS (SELECT 1 FROM messages x WHERE x.match = matches.id AND x.state IN ` + needingMessage + `)`

// blank blanks one match, if nothing needs its values any more.
func (w *writer) blank(match int64) error {
	if _, err := w.exec(blankFinal+` AND id = ?`, match); err != nil {
		return fmt.Errorf("blanking match %d: %w", match, err)
	}
	return nil
}

// blankAll blanks all matches whose values nothing needs any more.
func (w *writer) blankAll() error {
	if _, err := w.exec(blankFinal); err != nil {
		return fmt.Errorf("blanking final matches: %w", err)
	}
	return nil
}

// Blank blanks matches that an operator could have retried until they expired, and drops what was rendered of them.
func (s *Store) Blank(ctx context.Context, now time.Time) (int, error) {
	var blanked int
	err := s.write(ctx, "blanking what expired", func(w *writer) error {
		var ids []int64
		err := w.each(`SELECT m.id FROM matches m INDEXED BY matches_blank WHERE blanked IS NOT NULL AND expires <= ? AND state NOT IN `+openMatch+
			` AND tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL)
				AND NOT EXISTS (SELECT 1 FROM messages x WHERE x.match = m.id AND x.state IN `+openMessage+`)`, func(scan scanner) error {
			var id int64
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, now.UnixMicro())
		if err != nil || len(ids) == 0 {
			return err
		}
		if _, err := w.exec(`UPDATE messages SET body = NULL WHERE match IN (SELECT value FROM json_each(?)) AND body IS NOT NULL`, list(ids)); err != nil {
			return err
		}
		blanked, err = w.exec(`UPDATE matches SET change = blanked, blanked = NULL WHERE id IN (SELECT value FROM json_each(?))`, list(ids))
		return err
	})
	if err != nil {
		return 0, err
	}
	return blanked, nil
}
