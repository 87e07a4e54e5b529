package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// move is what an action does to matches or to messages: it takes them from the states of [outbox.Action.From] to one.
type move[S state] struct {
	to  S
	set string // what else changes; each parameter is the time
}

// state is one of either.
type state interface {
	outbox.MatchState | outbox.MessageState
	Final() bool
}

// The actions on messages. What waits again is due, or was all the time; what is final keeps no body.
var messageMoves = map[outbox.Action]move[outbox.MessageState]{
	outbox.Retry: {
		to: outbox.MessageQueued, set: `, due = ?, attempts = 0, begun = 0, finished = NULL`,
	},
	outbox.Cancel: {
		to: outbox.MessageCancelled, set: `, finished = ?, body = NULL`,
	},
	outbox.Release: {
		to: outbox.MessageQueued, set: `, released = 1`,
	},
	outbox.Discard: {
		to: outbox.MessageDiscarded, set: `, finished = ?, body = NULL`,
	},
}

// The actions on matches.
var matchMoves = map[outbox.Action]move[outbox.MatchState]{
	outbox.Retry: {
		to: outbox.MatchPending, set: `, due = ?, attempts = 0, begun = 0`,
	},
	outbox.Cancel: {
		to: outbox.MatchCancelled,
	},
	outbox.Release: {
		to: outbox.MatchPending, set: `, released = 1`,
	},
	outbox.Discard: {
		to: outbox.MatchDiscarded,
	},
}

// Act moves what the filter selects and the action applies to. What that is, is read before: while that takes a while, others write.
func (s *Store) Act(ctx context.Context, a outbox.Action, f outbox.Filter, reason string, now time.Time) (acted outbox.Acted, err error) {
	fromMatches, fromMessages, err := from(a, &f)
	if err != nil {
		return acted, err
	}
	what := acting{s, fmt.Sprintf("acting on the outbox (%s)", a), reason, now}
	if acted.Messages, err = moveAll(ctx, &what, "messages", messageMoves[a], &f, fromMessages); err == nil && left(&f, acted.Messages) {
		acted.Matches, err = moveAll(ctx, &what, "matches", matchMoves[a], &f, fromMatches)
	}
	return acted, err
}

// left takes what was found from a filter's limit, and says whether anything more is to be.
func left(f *outbox.Filter, found int) bool {
	if f.Limit == 0 {
		return true
	}
	f.Limit = max(0, f.Limit-found)
	return f.Limit > 0
}

// oldest are the first of a filter's rows, as far as its limit goes.
func oldest(f *outbox.Filter) string {
	if f.Limit == 0 {
		return ""
	}
	return fmt.Sprintf(" ORDER BY m.id LIMIT %d", f.Limit)
}

// from are the states that an action takes from where a filter selects. A filter that names only what messages have means messages, and
// the reverse.
func from(a outbox.Action, f *outbox.Filter) (fromMatches []outbox.MatchState, fromMessages []outbox.MessageState, err error) {
	if _, known := messageMoves[a]; !known {
		return nil, nil, fmt.Errorf("there is no action %q", a)
	}
	if f.Before != 0 {
		return nil, nil, errors.New("an action begins with the oldest that its filter selects: Before is for lists")
	}
	fromMatches, fromMessages = a.By(f)
	fromMatches, fromMessages = both(fromMatches, f.MatchStates), both(fromMessages, f.MessageStates)
	if len(f.Batches) > 0 || len(f.MessageStates) == 0 && len(f.MatchStates) > 0 {
		fromMessages = nil
	}
	if len(f.Messages) > 0 || f.Address != "" || len(f.MatchStates) == 0 && len(f.MessageStates) > 0 {
		fromMatches = nil
	}
	return fromMatches, fromMessages, nil
}

// both are the states that an action takes from and that were asked for; none asked for: all.
func both[S outbox.MatchState | outbox.MessageState](from, asked []S) []S {
	return slices.DeleteFunc(from, func(s S) bool { return len(asked) > 0 && !slices.Contains(asked, s) })
}

// acting is what an operator does.
type acting struct {
	*Store
	what   string
	reason string
	now    time.Time
}

// moveAll makes a move of all that the filter selects of a table in some states, and returns how many it moved.
func moveAll[S state](ctx context.Context, a *acting, table string, m move[S], f *outbox.Filter, from []S) (n int, err error) {
	rest := *f
	for _, state := range from {
		text, args := chosen(table, state, &rest)
		ids, err := rows(a.reading(ctx), func(scan scanner) (id int64, err error) { err = scan(&id); return id, err }, text, args...)
		if err != nil {
			return n, fmt.Errorf("%s: %w", a.what, explain(err))
		}
		for some := range slices.Chunk(ids, stepRows) {
			moved := 0
			if err := a.write(ctx, a.what, func(w *writer) (err error) { moved, err = m.step(w, a, table, state, some); return err }); err != nil {
				return n, err
			}
			n += moved
		}
		if !left(&rest, len(ids)) {
			break
		}
	}
	return n, nil
}

// chosen is what the filter selects of a table in a state.
func chosen[S state](table string, from S, f *outbox.Filter) (text string, args []any) {
	c := where(table, f).with(inState(from))
	return fmt.Sprintf(`SELECT m.id FROM %s AS m%s WHERE %s%s`, table, by(table, from, f), c, oldest(f)), c.args
}

// step moves those of these that are still in a state, and returns how many that were.
func (m move[S]) step(w *writer, a *acting, table string, from S, ids []int64) (int, error) {
	args := []any{int64(m.to), a.reason}
	for range strings.Count(m.set, "?") {
		args = append(args, a.now.UnixMicro())
	}
	n, err := w.exec(m.statement(table, from), append(args, list(ids))...)
	if err != nil {
		return 0, fmt.Errorf("moving %s: %w", table, err)
	}
	w.after(w.claims.reset) // some are due again
	if !m.to.Final() {
		return n, nil
	}
	these := list(ids)
	if table == "messages" {
		_, err = w.blankBy(blankOf, these)
	} else {
		_, err = w.blankBy(blankThese, these)
	}
	if err != nil {
		return 0, fmt.Errorf("blanking final matches: %w", err)
	}
	return n, nil
}

// statement moves some from a state. Its parameters are the new state, the reason, the time as often as set has it, and a list of ids.
func (m move[S]) statement(table string, from S) string {
	return fmt.Sprintf(`UPDATE %s AS m SET state = ?, reason = ?%s WHERE m.id IN (SELECT value FROM json_each(?)) AND %s`, table, m.set, inState(from))
}

// blankOf is blankFinal for the matches of some messages.
var blankOf = strings.Replace(blankFinal, ` RETURNING`, ` AND id IN (SELECT match FROM messages WHERE id IN (SELECT value FROM json_each(?))) RETURNING`, 1)

// Affected counts what Act would move.
func (s *Store) Affected(ctx context.Context, a outbox.Action, f outbox.Filter) (all outbox.Affected, err error) {
	fromMatches, fromMessages, err := from(a, &f)
	if err == nil {
		all.Messages, err = countAll(ctx, s, "messages", &f, fromMessages)
	}
	if err == nil && left(&f, total(all.Messages)) {
		all.Matches, err = countAll(ctx, s, "matches", &f, fromMatches)
	}
	if err != nil {
		return outbox.Affected{}, fmt.Errorf("counting what is acted on (%s): %w", a, explain(err))
	}
	return all, nil
}

// countAll counts what the filter selects of a table in some states.
func countAll[S outbox.MatchState | outbox.MessageState](ctx context.Context, s *Store, table string, f *outbox.Filter, from []S) ([]outbox.Group[S], error) {
	var all []outbox.Group[S]
	rest := *f
	for _, state := range from {
		text, args := countOf(table, state, &rest)
		found, err := rows(s.reading(ctx), func(scan scanner) (outbox.Group[S], error) {
			g := outbox.Group[S]{State: state}
			err := scan(&g.Rule, &g.Count)
			return g, err
		}, text, args...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		if !left(&rest, total(found)) {
			break
		}
	}
	slices.SortFunc(all, func(a, b outbox.Group[S]) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.State, b.State))
	})
	return all, nil
}

// total is how many there are of all rules and states.
func total[S outbox.MatchState | outbox.MessageState](all []outbox.Group[S]) (n int) {
	for _, g := range all {
		n += g.Count
	}
	return n
}

// countOf counts, by rule, what the filter selects of a table in a state.
func countOf[S outbox.MatchState | outbox.MessageState](table string, state S, f *outbox.Filter) (text string, args []any) {
	c := where(table, f).with(inState(state))
	return fmt.Sprintf(`SELECT (SELECT name FROM rules WHERE id = x.rule), count(*) FROM (SELECT m.rule FROM %s AS m%s WHERE %s%s) AS x GROUP BY x.rule`, table, by(table, state, f), c, oldest(f)), c.args
}
