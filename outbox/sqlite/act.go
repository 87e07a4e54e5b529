package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postman/outbox"
)

// move is what an action does to matches or to messages: it takes them from some states to one.
type move[S outbox.MatchState | outbox.MessageState] struct {
	from []S
	to   S
	set  string // what else changes; each parameter is the time
}

// The actions on messages. What waits again is due, or was all the time; what is final keeps no body.
var messageMoves = map[outbox.Action]move[outbox.MessageState]{
	outbox.Retry: {
		from: []outbox.MessageState{outbox.MessageDead, outbox.MessageFailed, outbox.MessageUncertain},
		to:   outbox.MessageQueued, set: `, due = ?, attempts = 0, begun = 0, finished = NULL`,
	},
	outbox.Cancel: {
		from: []outbox.MessageState{outbox.MessageQueued},
		to:   outbox.MessageCancelled, set: `, finished = ?, body = NULL`,
	},
	outbox.Release: {
		from: []outbox.MessageState{outbox.MessageHeld},
		to:   outbox.MessageQueued, set: `, released = 1`,
	},
	outbox.Discard: {
		from: []outbox.MessageState{outbox.MessageHeld},
		to:   outbox.MessageDiscarded, set: `, finished = ?, body = NULL`,
	},
}

// The actions on matches.
var matchMoves = map[outbox.Action]move[outbox.MatchState]{
	outbox.Retry: {
		from: []outbox.MatchState{outbox.MatchFailed},
		to:   outbox.MatchPending, set: `, due = ?, attempts = 0, begun = 0`,
	},
	outbox.Cancel: {
		from: []outbox.MatchState{outbox.MatchPending},
		to:   outbox.MatchCancelled,
	},
	outbox.Release: {
		from: []outbox.MatchState{outbox.MatchHeld},
		to:   outbox.MatchPending, set: `, released = 1`,
	},
	outbox.Discard: {
		from: []outbox.MatchState{outbox.MatchHeld},
		to:   outbox.MatchDiscarded,
	},
}

// Act moves what the filter selects and the action applies to.
func (s *Store) Act(ctx context.Context, a outbox.Action, f outbox.Filter, reason string, now time.Time) (outbox.Acted, error) {
	var acted outbox.Acted
	err := s.write(ctx, fmt.Sprintf("acting on the outbox (%s)", a), func(w *writer) (err error) {
		acted, err = w.act(a, &f, reason, now)
		return err
	})
	if err != nil {
		return outbox.Acted{}, err
	}
	return acted, nil
}

func (w *writer) act(a outbox.Action, f *outbox.Filter, reason string, now time.Time) (acted outbox.Acted, err error) {
	onMessages, known := messageMoves[a]
	if !known {
		return acted, fmt.Errorf("there is no action %q", a)
	}
	if f.Before != 0 || f.Limit != 0 {
		return acted, errors.New("an action takes all that its filter selects: Before and Limit are for lists")
	}
	// A filter that names only what messages have means messages, and the reverse.
	if len(f.MessageStates) > 0 || len(f.MatchStates) == 0 {
		if acted.Messages, err = moveAll(w, "messages", onMessages, f, f.MessageStates, reason, now); err != nil {
			return acted, err
		}
	}
	if len(f.Messages) == 0 && f.Address == "" && (len(f.MatchStates) > 0 || len(f.MessageStates) == 0) {
		if acted.Matches, err = moveAll(w, "matches", matchMoves[a], f, f.MatchStates, reason, now); err != nil {
			return acted, err
		}
	}
	w.after(w.claims.reset) // some are due again
	if a == outbox.Cancel || a == outbox.Discard {
		err = w.blankAll()
	}
	return acted, err
}

// moveAll makes a move of all that the filter selects of a table, and returns how many it moved.
func moveAll[S outbox.MatchState | outbox.MessageState](w *writer, table string, m move[S], f *outbox.Filter, states []S, reason string, now time.Time) (int, error) {
	n := 0
	for _, from := range m.from {
		if len(states) > 0 && !slices.Contains(states, from) {
			continue
		}
		text, selected := m.statement(table, from, f)
		args := []any{int64(m.to), reason}
		for range strings.Count(m.set, "?") {
			args = append(args, now.UnixMicro())
		}
		moved, err := w.exec(text, append(args, selected...)...)
		if err != nil {
			return 0, fmt.Errorf("moving %s: %w", table, err)
		}
		n += moved
	}
	return n, nil
}

// statement moves what the filter selects from a state. Its parameters are the new state, the reason, the time as often as
// set has it, and those of the filter, which it returns.
func (m move[S]) statement(table string, from S, f *outbox.Filter) (text string, selected []any) {
	c := where(table, f).with(inState(from))
	return fmt.Sprintf(`UPDATE %s AS m%s SET state = ?, reason = ?%s WHERE %s`, table, by(table, from, f), m.set, c), c.args
}
