package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"postman/outbox"
	"postman/position"
)

// What a list shows of a match. The joins keep this order: the rows that are wanted are known by their ids.
const selectMatches = `
	SELECT m.id, t.source, t.epoch, t.lsn, t.end_lsn, t.xid, t.time, t.muted, m.ordinal, m.rule, r.name, v.hash, s.hash, m.op,
		m.change, m.state, m.reason, m.due, m.expires, m.priority, m.key, m.hold_uncertain, m.silent, m.released, m.undecided, m.attempts,
		coalesce(m.replay, 0), coalesce(m.batch, 0), m.created, m.blanked IS NOT NULL
	FROM matches m
	CROSS JOIN transactions t ON t.id = m.tx AND t.lsn IS NOT NULL
	CROSS JOIN rules r ON r.id = m.rule
	CROSS JOIN texts v ON v.id = m.version
	LEFT JOIN texts s ON s.id = m.shape`

// claimMessages is for who sends them, and asks nothing of the past.
const claimMessages = selectMessage + `'', m.body` + fromMessages

const selectMessages = selectMessage + redirected + `m.body` + fromMessages

// listMessages leaves the bodies on the disk: a long list of them would not fit into memory.
const listMessages = selectMessage + redirected + `NULL` + fromMessages

const redirected = `coalesce((SELECT a.redirected FROM attempts a WHERE a.message = m.id ORDER BY a.number DESC LIMIT 1), ''), `

const selectMessage = `
	SELECT m.id, m.match, t.source, t.epoch, t.lsn, x.ordinal, x.rule, r.name, m.address, m.resend, m.state, m.reason, m.reply,
		m.due, x.expires, m.priority, x.hold_uncertain, x.silent, m.released, m.recipient, m.cc, m.message_id, m.subject,
		m.attempts, m.template, coalesce(m.replay, 0), t.time, m.created, m.finished, x.blanked IS NOT NULL, `

const fromMessages = `
	FROM messages m
	CROSS JOIN matches x ON x.id = m.match
	CROSS JOIN transactions t ON t.id = x.tx
	CROSS JOIN rules r ON r.id = x.rule`

// stub is a match or message with what its claim has to know and nobody else.
type stub[T any] struct {
	row       T
	id        int64
	sensitive bool
}

func scanMatch(scan scanner) (f stub[outbox.Match], err error) {
	m := &f.row
	var lsn, end, ordinal int64
	var committed, due, expires, created sql.NullInt64
	var version, shape []byte
	p := &m.Position
	if err := scan(&m.ID, &p.Source, &p.Epoch, &lsn, &end, &m.Tx.XID, &committed, &m.Tx.Muted, &ordinal, &m.Rule, &m.RuleName,
		&version, &shape, &m.Op, &m.Change, &m.State, &m.Reason, &due, &expires, &m.Priority, &m.Key, &m.HoldUncertain, &m.Silent, &m.Released,
		&m.Undecided, &m.Attempts, &m.Replay, &m.Batch, &created, &f.sensitive); err != nil {
		return f, err
	}
	p.LSN, p.Ordinal = position.LSN(lsn), uint64(ordinal)
	m.Tx.LSN, m.Tx.End, m.Tx.Time = p.LSN, position.LSN(end), moment(committed)
	m.Due, m.Expires, m.Created = moment(due), moment(expires), moment(created)
	f.id = m.ID
	if m.Version, err = hashFrom(version); err == nil {
		m.Shape, err = hashFrom(shape)
	}
	return f, err
}

func scanMessage(scan scanner) (f stub[outbox.Message], err error) {
	m := &f.row
	var lsn, ordinal int64
	var committed, due, expires, created, finished sql.NullInt64
	var cc sql.NullString
	var template []byte
	p := &m.Position
	if err := scan(&m.ID, &m.Match, &p.Source, &p.Epoch, &lsn, &ordinal, &m.Rule, &m.RuleName, &m.Address, &m.Resend, &m.State,
		&m.Reason, &m.Reply, &due, &expires, &m.Priority, &m.HoldUncertain, &m.Silent, &m.Released, &m.Recipient, &cc, &m.MessageID,
		&m.Subject, &m.Attempts, &template, &m.Replay, &committed, &created, &finished, &f.sensitive, &m.Redirected, &m.Body); err != nil {
		return f, err
	}
	p.LSN, p.Ordinal = position.LSN(lsn), uint64(ordinal)
	m.Due, m.Expires, m.Committed, m.Created, m.Finished = moment(due), moment(expires), moment(committed), moment(created), moment(finished)
	f.id, m.Sensitive = m.ID, f.sensitive
	if m.Template, err = hashFrom(template); err == nil && cc.Valid {
		err = json.Unmarshal([]byte(cc.String), &m.CC)
	}
	return f, err
}

// some reads what was found due, in the same order.
func some[T any](w *writer, scan func(scanner) (stub[T], error), query string, due []claim) ([]stub[T], error) {
	if len(due) == 0 {
		return nil, nil
	}
	at := make(map[int64]int, len(due))
	for i, d := range due {
		at[d.id] = i
	}
	read, err := rows(w.query, scan, query+` WHERE m.id IN (SELECT value FROM json_each(?))`, list(idsOf(due)))
	if err == nil && len(read) != len(due) {
		err = fmt.Errorf("%d of %d rows: %w", len(read), len(due), outbox.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	found := make([]stub[T], len(due))
	for _, r := range read {
		found[at[r.id]] = r
	}
	return found, nil
}

func idsOf(due []claim) []int64 {
	ids := make([]int64, len(due))
	for i, d := range due {
		ids[i] = d.id
	}
	return ids
}

// Matches lists matches, newest first.
func (s *Store) Matches(ctx context.Context, f outbox.Filter) ([]outbox.Match, error) {
	found, err := listed(ctx, s, scanMatch, selectMatches, newSearch("matches", &f, f.MatchStates))
	if err != nil {
		return nil, fmt.Errorf("listing matches: %w", explain(err))
	}
	return found, nil
}

// Messages lists messages, newest first.
func (s *Store) Messages(ctx context.Context, f outbox.Filter) ([]outbox.Message, error) {
	query := listMessages
	if len(f.Messages) > 0 {
		query = selectMessages
	}
	found, err := listed(ctx, s, scanMessage, query, newSearch("messages", &f, f.MessageStates))
	if err != nil {
		return nil, fmt.Errorf("listing messages: %w", explain(err))
	}
	return found, nil
}

func listed[T any](ctx context.Context, s *Store, scan func(scanner) (stub[T], error), query string, ids search) ([]T, error) {
	found, err := rows(s.reading(ctx), scan, query+` WHERE m.id IN (`+ids.text+`) ORDER BY m.id DESC`+ids.limit, ids.args...)
	if err != nil {
		return nil, err
	}
	all := make([]T, len(found))
	for i := range found {
		all[i] = found[i].row
	}
	return all, nil
}

// Attempts lists a message's attempts, oldest first.
func (s *Store) Attempts(ctx context.Context, message int64) ([]outbox.Attempt, error) {
	found, err := rows(s.reading(ctx), scanAttempt,
		`SELECT relay, started, took, code, enhanced, text, redirected FROM attempts WHERE message = ? ORDER BY number`, message)
	if err != nil {
		return nil, fmt.Errorf("listing the attempts of message %d: %w", message, explain(err))
	}
	return found, nil
}

func scanAttempt(scan scanner) (a outbox.Attempt, err error) {
	var started sql.NullInt64
	var took int64
	err = scan(&a.Relay, &started, &took, &a.Code, &a.Enhanced, &a.Text, &a.Redirected)
	a.Started, a.Took = moment(started), time.Duration(took)*time.Microsecond
	return a, err
}

// selectCounts reads nothing but indexes. What is provisional is counted by its transactions, of which there are few.
var selectCounts = fmt.Sprintf(`
	SELECT 'match', %[1]d, count(*) FROM matches INDEXED BY matches_due WHERE state = %[1]d
	UNION ALL SELECT 'match', state, count(*) FROM matches INDEXED BY matches_state WHERE state <> %[1]d GROUP BY state
	UNION ALL SELECT 'match', state, -count(*) FROM matches WHERE tx IN (SELECT id FROM transactions WHERE lsn IS NULL) GROUP BY state
	UNION ALL SELECT 'message', %[2]d, count(*) FROM messages INDEXED BY messages_due WHERE state = %[2]d
	UNION ALL SELECT 'message', state, count(*) FROM messages INDEXED BY messages_state WHERE state <> %[2]d GROUP BY state`,
	outbox.MatchPending, outbox.MessageQueued)

// Count counts matches and messages by state.
func (s *Store) Count(ctx context.Context) (outbox.Counts, error) {
	counts := outbox.Counts{Matches: make(map[outbox.MatchState]int), Messages: make(map[outbox.MessageState]int)}
	found, err := rows(s.reading(ctx), scanCount, selectCounts)
	if err != nil {
		return counts, fmt.Errorf("counting: %w", explain(err))
	}
	for _, c := range found {
		if c.what == "match" {
			counts.Matches[outbox.MatchState(c.state)] += c.n
		} else {
			counts.Messages[outbox.MessageState(c.state)] += c.n
		}
	}
	maps.DeleteFunc(counts.Matches, func(_ outbox.MatchState, n int) bool { return n == 0 })
	maps.DeleteFunc(counts.Messages, func(_ outbox.MessageState, n int) bool { return n == 0 })
	return counts, nil
}

// selectFailures goes by the indexes of states, from their ends. Beside max() SQLite takes other columns from the row that has it.
var selectFailures = fmt.Sprintf(`
	SELECT r.name, sum(f.matches), sum(f.messages), max(f.reason) FROM (
		SELECT m.rule, count(*) AS matches, 0 AS messages, m.reason, max(m.id)
			FROM (SELECT * FROM matches INDEXED BY matches_state WHERE state <> 0 AND state = %[1]d ORDER BY id DESC LIMIT %[3]d) m
			WHERE m.tx NOT IN (SELECT id FROM transactions WHERE lsn IS NULL) GROUP BY m.rule
		UNION ALL
		SELECT t.rule, 0, count(*), m.reason, max(m.id)
			FROM (SELECT * FROM messages INDEXED BY messages_state WHERE state <> 0 AND state = %[2]d ORDER BY id DESC LIMIT %[3]d) m
			JOIN matches t ON t.id = m.match GROUP BY t.rule
	) f JOIN rules r ON r.id = f.rule GROUP BY r.name ORDER BY r.name`, outbox.MatchFailed, outbox.MessageFailed, outbox.MostFailures)

// Failures lists what has failed, by rule.
func (s *Store) Failures(ctx context.Context) ([]outbox.Failure, error) {
	found, err := rows(s.reading(ctx), func(scan scanner) (f outbox.Failure, err error) {
		err = scan(&f.Rule, &f.Matches, &f.Messages, &f.Reason)
		return f, err
	}, selectFailures)
	if err != nil {
		return nil, fmt.Errorf("reading what has failed: %w", explain(err))
	}
	return found, nil
}

// selectDead goes by the index of states, as selectFailures does.
var selectDead = fmt.Sprintf(`
	SELECT count(*), coalesce(r.name, ''), coalesce(d.reason, ''), max(d.finished) FROM (
		SELECT * FROM messages INDEXED BY messages_state WHERE state <> 0 AND state = %d ORDER BY id DESC LIMIT %d
	) d JOIN matches t ON t.id = d.match JOIN rules r ON r.id = t.rule WHERE d.finished >= ?`, outbox.MessageDead, outbox.MostFailures)

// Dead tells of the messages that died since a time.
func (s *Store) Dead(ctx context.Context, since time.Time) (d outbox.Dead, err error) {
	var last sql.NullInt64
	_, err = rows(s.reading(ctx), func(scan scanner) (struct{}, error) {
		return struct{}{}, scan(&d.Messages, &d.Rule, &d.Reason, &last)
	}, selectDead, since.UnixMicro())
	if err != nil {
		return d, fmt.Errorf("reading what is dead: %w", explain(err))
	}
	d.Last = moment(last)
	return d, nil
}

type count struct {
	what  string
	state uint8
	n     int
}

func scanCount(scan scanner) (c count, err error) {
	err = scan(&c.what, &c.state, &c.n)
	return c, err
}

// RecentMatches tells, for each rule, the commit times of the matches that passed hold_over: neither held, nor discarded
// after that, nor muted, nor failed. It reads every transaction: it is asked once, at the start.
func (s *Store) RecentMatches(ctx context.Context, since time.Time) (map[uint32][]time.Time, error) {
	passed := in(outbox.MatchStates(), func(state outbox.MatchState) bool {
		return state != outbox.MatchHeld && state != outbox.MatchDiscarded && state != outbox.MatchMuted && state != outbox.MatchFailed
	})
	recent := make(map[uint32][]time.Time)
	r, err := s.reads.QueryContext(ctx, `SELECT m.rule, t.time FROM transactions t CROSS JOIN matches m ON m.tx = t.id
		WHERE t.time >= ? AND m.replay IS NULL AND m.state IN `+passed+` ORDER BY t.time`, since.UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("counting recent matches: %w", explain(err))
	}
	defer r.Close()
	for r.Next() {
		var rule uint32
		var at sql.NullInt64
		if err := r.Scan(&rule, &at); err != nil {
			return nil, fmt.Errorf("counting recent matches: %w", explain(err))
		}
		recent[rule] = append(recent[rule], moment(at))
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("counting recent matches: %w", explain(err))
	}
	return recent, nil
}
