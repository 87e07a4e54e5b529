package sqlite

import (
	"fmt"
	"slices"

	"postman/outbox"
)

// Who is next. Of each priority the rules take turns, by their numbers, each with what is first in its line. High comes before all
// others; of the others, a bulk one comes after every seventh normal one.

// normalFirst is how many normal ones go before a bulk one that is due.
const normalFirst = 7

// page is how many entries of an index are read at once at most.
const page = 256

// The lines in which something waits, and when the first of it is due. It hops from line to line in the index: what stands in them is
// not read.
var selectLines = [...]string{
	matches:  linesOf("matches", int(outbox.MatchPending)),
	messages: linesOf("messages", int(outbox.MessageQueued)),
}

func linesOf(table string, state int) string {
	of := fmt.Sprintf(`FROM %[1]s INDEXED BY %[1]s_due WHERE state = %[2]d AND priority = ?1`, table, state)
	return `WITH RECURSIVE lines(rule) AS (
			SELECT min(rule) ` + of + `
			UNION ALL SELECT (SELECT min(rule) ` + of + ` AND rule > lines.rule) FROM lines WHERE lines.rule IS NOT NULL)
		SELECT rule, (SELECT min(due) ` + of + ` AND rule = lines.rule) FROM lines WHERE rule IS NOT NULL`
}

// What stands in a line, from a key on.
var selectLine = [...]string{
	matches: fmt.Sprintf(`SELECT due, tx, id FROM matches INDEXED BY matches_due
		WHERE state = %d AND priority = ? AND rule = ? AND (due, tx, id) > (?, ?, ?) ORDER BY due, tx, id LIMIT ?`, outbox.MatchPending),
	messages: fmt.Sprintf(`SELECT due, match, id FROM messages INDEXED BY messages_due
		WHERE state = %d AND priority = ? AND rule = ? AND (due, match, id) > (?, ?, ?) ORDER BY due, match, id LIMIT ?`, outbox.MessageQueued),
}

// survey finds the lines in which something waits, if they are not known. It is called with the claims' mu held, as is all that follows.
func (w *writer) survey() error {
	c := w.claims
	for k := range c.rings {
		for p := range c.rings[k] {
			if c.known {
				continue
			}
			var queues []queue
			err := w.each(selectLines[k], func(scan scanner) error {
				q := queue{mark: start}
				err := scan(&q.rule, &q.next)
				queues = append(queues, q)
				return err
			}, p)
			if err != nil {
				return fmt.Errorf("looking up which rules wait: %w", err)
			}
			c.rings[k][p].queues = queues
		}
	}
	c.known = true
	return nil
}

// reader reads a line.
type reader struct {
	*queue
	w     *writer
	line  line
	limit int   // of the next read
	at    key   // of the last one that was passed
	ahead []key // read, and not passed
	all   bool  // nothing is behind these
	left  bool  // something that is free was passed: the mark stays
}

func (w *writer) reader(l line, q *queue, limit int) *reader {
	return &reader{queue: q, w: w, line: l, limit: limit, at: q.mark}
}

// find returns the first that is free, due by a time, and admitted. It stays the first until it is passed.
func (r *reader) find(until int64, admit func(key) bool) (at key, found bool, err error) {
	for {
		if len(r.ahead) == 0 {
			if err := r.read(); err != nil || len(r.ahead) == 0 {
				return key{}, false, err
			}
		}
		at := r.ahead[0]
		switch {
		case r.taken(at):
			r.pass()
		case at.due > until:
			return key{}, false, nil
		case admit(at):
			return at, true, nil
		default:
			r.left = true
			r.pass()
		}
	}
}

// taken says whether something is not for anybody to claim.
func (r *reader) taken(at key) bool {
	_, held := r.w.claims.held[r.line.kind][at.id]
	return held || r.line.kind == matches && r.w.known.provisional[at.group]
}

// pass goes on to the next.
func (r *reader) pass() {
	r.at, r.ahead = r.ahead[0], r.ahead[1:]
	r.note()
}

// note keeps how far it came.
func (r *reader) note() {
	switch {
	case r.left:
		return
	case len(r.ahead) > 0:
		r.next = r.ahead[0].due
	case r.all:
		r.next = never
	}
	r.mark = r.at
}

// read reads ahead, more each time: it is mostly the first few that are wanted.
func (r *reader) read() error {
	if r.all {
		return nil
	}
	err := r.w.each(selectLine[r.line.kind], func(scan scanner) error {
		var at key
		err := scan(&at.due, &at.group, &at.id)
		r.ahead = append(r.ahead, at)
		return err
	}, r.line.priority, r.line.rule, r.at.due, r.at.group, r.at.id, r.limit)
	if err != nil {
		return fmt.Errorf("searching what is due: %w", err)
	}
	r.all = len(r.ahead) < r.limit
	r.limit = min(2*r.limit, page)
	r.note()
	return nil
}

// turns has the rules of a kind and priority take turns, for one claim.
type turns struct {
	w     *writer
	of    line // but for the rule
	ring  *ring
	lines []turn // that may have something left, by rule
	at    int    // whose turn it is
	first int    // how many of a line are likely to be wanted
}

// turn is a line that takes part. Most claims come to an end before most of a thousand rules had their turn.
type turn struct {
	waits   *queue
	*reader // nil: it had none yet
}

func (w *writer) turns(k kind, p outbox.Priority, c *outbox.Claim) turns {
	t := turns{w: w, of: line{kind: k, priority: p}, ring: &w.claims.rings[k][p]}
	now := c.Now.UnixMicro()
	for i := range t.ring.queues {
		q := &t.ring.queues[i]
		if q.next > now || c.Of != nil && !c.Of(q.rule, p) {
			continue
		}
		if q.rule <= t.ring.last {
			t.at++
		}
		t.lines = append(t.lines, turn{waits: q})
	}
	if n := len(t.lines); n > 0 { // a share each, and the one behind, to know when it is due
		t.first = min((c.Most+n-1)/n+1, page)
	}
	return t
}

// next takes what comes next.
func (t *turns) next(now int64, admit func(key) bool) (c claim, found bool, err error) {
	for len(t.lines) > 0 {
		t.at %= len(t.lines)
		next := &t.lines[t.at]
		if next.reader == nil {
			of := t.of
			of.rule = next.waits.rule
			next.reader = t.w.reader(of, next.waits, t.first)
		}
		at, found, err := next.find(now, admit)
		if err != nil {
			return claim{}, false, err
		}
		if found {
			next.pass()
			t.ring.last = next.line.rule
			t.at++
			return claim{line: next.line, key: at}, true, nil
		}
		t.lines = slices.Delete(t.lines, t.at, t.at+1)
	}
	return claim{}, false, nil
}

// nextTurn takes what comes next of all priorities.
func (c *claims) nextTurn(all *[outbox.Bulk + 1]turns, now int64, admit func(key) bool) (one claim, found bool, err error) {
	order := [...]outbox.Priority{outbox.High, outbox.Normal, outbox.Bulk}
	normal := &c.normal[all[outbox.High].of.kind]
	if *normal >= normalFirst {
		order = [...]outbox.Priority{outbox.High, outbox.Bulk, outbox.Normal}
	}
	for _, p := range order {
		if one, found, err = all[p].next(now, admit); err != nil || found {
			break
		}
	}
	switch {
	case found && one.priority == outbox.Normal:
		*normal++
	case found && one.priority == outbox.Bulk:
		*normal = 0
	}
	return one, found, err
}
