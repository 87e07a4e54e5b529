package sqlite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postman/outbox"
)

var (
	// open are the states in which a match or a message goes on by itself or by an operator's release.
	openMatch   = in(outbox.MatchStates(), func(s outbox.MatchState) bool { return !s.Final() })
	openMessage = in(outbox.MessageStates(), func(s outbox.MessageState) bool { return !s.Final() })
	// A retry would need the values of these, too.
	needingMatch   = in(outbox.MatchStates(), func(s outbox.MatchState) bool { return !s.Final() || s.Retryable() })
	needingMessage = in(outbox.MessageStates(), func(s outbox.MessageState) bool { return !s.Final() || s.Retryable() })
)

// takePlace puts the blanked change in the change's place.
const takePlace = ` SET change = blanked, blanked = NULL WHERE blanked IS NOT NULL AND state NOT IN `

// blankFinal blanks matches that are final with all their messages, and gives their ids.
var blankFinal = `UPDATE matches` + takePlace + needingMatch +
	` AND NOT EXISTS (SELECT 1 FROM messages x WHERE x.match = matches.id AND x.state IN ` + needingMessage + `) RETURNING id`

// blankOne is blankFinal for one match.
var blankOne = strings.Replace(blankFinal, ` RETURNING`, ` AND id = ? RETURNING`, 1)

// blankExpired blanks, beyond their expiry, also those that an operator could have retried until then.
var blankExpired = `UPDATE matches INDEXED BY matches_blank` + takePlace + openMatch +
	` AND expires <= ? AND tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL)
		AND NOT EXISTS (SELECT 1 FROM messages x WHERE x.match = matches.id AND x.state IN ` + openMessage + `) RETURNING id`

// dropShown drops what a change's sensitive values may have gone into.
const dropShown = `UPDATE messages SET recipient = NULL, subject = '', body = NULL WHERE match IN (SELECT value FROM json_each(?))`

// blank blanks one match, if nothing needs its values any more.
func (w *writer) blank(match int64) error {
	if _, err := w.blankBy(blankOne, match); err != nil {
		return fmt.Errorf("blanking match %d: %w", match, err)
	}
	return nil
}

// blankBy blanks the matches that a statement selects, and their messages. It returns how many matches these were.
func (w *writer) blankBy(statement string, args ...any) (int, error) {
	var ids []int64
	err := w.each(statement, func(scan scanner) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, args...)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	_, err = w.exec(dropShown, list(ids))
	return len(ids), err
}

// Blank blanks matches that an operator could have retried until they expired.
func (s *Store) Blank(ctx context.Context, now time.Time) (int, error) {
	var blanked int
	err := s.write(ctx, "blanking what expired", func(w *writer) (err error) {
		blanked, err = w.blankBy(blankExpired, now.UnixMicro())
		return err
	})
	if err != nil {
		return 0, err
	}
	return blanked, nil
}
