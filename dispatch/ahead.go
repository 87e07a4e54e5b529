package dispatch

import (
	"time"

	"postman/outbox"
	"postman/position"
)

// ahead is a match that is expanded while the store still makes it durable. A look-up takes about as long as that, and neither
// needs the other: only nothing may be stored or sent before. What was made of a match that is then not there to be expanded
// (it is held, muted, known) is thrown away.
type ahead struct {
	landed chan struct{} // closed when it is known what became of the match
	match  *outbox.Match // as it stands in the store, claimed; nil: it is not there to be expanded. Only after landed
}

// origin tells one match of a batch from the others.
type origin struct {
	position position.Position
	rule     uint32
}

// Ahead begins to expand the matches of a batch that is about to be stored. The function that it returns takes what Append
// then claimed, in place of [Dispatcher.Take]; it must be called, with nothing when Append failed.
//
// A large batch is left alone: it is other matches' look-ups that its commit's time goes to.
func (d *Dispatcher) Ahead(b *outbox.Batch) (take func(claimed []outbox.Match)) {
	coming := soon(b, d.o.Lookup.Conns())
	if len(coming) == 0 || d.Room() < len(coming) {
		return d.Take
	}
	tasks := make(map[origin]*task, len(coming))
	for _, m := range coming {
		t := &task{match: m, ahead: &ahead{landed: make(chan struct{})}}
		tasks[origin{m.Position, m.Rule}] = t
		d.tasks.push(t)
	}
	return func(claimed []outbox.Match) { d.Take(d.land(tasks, claimed)) }
}

// soon is the matches of a batch that will be pending and due once it is stored; none when there are more than most.
func soon(b *outbox.Batch, most int) (ms []outbox.Match) {
	now := time.Now()
	for i := range b.Transactions {
		t := &b.Transactions[i]
		for j := range t.Matches {
			m := &t.Matches[j]
			if _, held := t.Hold[m.Rule]; held || t.Muted != "" || m.State != outbox.MatchPending || m.Due.After(now) {
				continue
			}
			if len(ms) == most {
				return nil
			}
			ms = append(ms, outbox.Match{
				Position: position.Position{Source: b.Source, Epoch: b.Epoch, LSN: t.LSN, Ordinal: m.Ordinal}, Tx: t.Tx,
				Rule: m.Rule, Version: m.Version, Shape: m.Shape, Op: m.Op, Change: m.Change, State: m.State, Due: m.Due, Expires: m.Expires,
				Priority: m.Priority, Key: m.Key, HoldUncertain: m.HoldUncertain, Silent: m.Silent,
			})
		}
	}
	return ms
}

// land tells the tasks what became of their matches, and returns the claimed ones that none of them is for.
func (d *Dispatcher) land(tasks map[origin]*task, claimed []outbox.Match) (rest []outbox.Match) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range claimed {
		t, ok := tasks[origin{m.Position, m.Rule}]
		if !ok || !d.running { // nobody will take the task up any more; Take gives the match back
			rest = append(rest, m)
			continue
		}
		t.ahead.match = &m
		d.matches++
	}
	for _, t := range tasks {
		close(t.ahead.landed)
	}
	return rest
}

// landed says whether it is known already what became of a task's match.
func (t *task) landed() bool {
	if t.ahead == nil {
		return true
	}
	select {
	case <-t.ahead.landed:
		return true
	default:
		return false
	}
}

// await waits until it is known, and says whether the match is there to be expanded.
func (t *task) await() bool {
	if t.ahead == nil {
		return true
	}
	<-t.ahead.landed
	stored := t.ahead.match
	if t.ahead = nil; stored != nil {
		t.match = *stored
	}
	return stored != nil
}
