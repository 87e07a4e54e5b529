package chaos

import (
	"fmt"
	"time"

	"postman/daemon"
)

// tables is what the faults have made of the tables so far.
type tables struct {
	spare  []column // of schedules; no rule reads them
	made   int      // how many there ever were
	level  int      // which of levelTypes tickets.level has
	labels int      // how many were added to the enum progress
}

// column is one that no rule reads.
type column struct {
	name string
	typ  int // which of spareTypes
}

// The types that a column goes through, back and forth. Some changes write the table anew, some do not.
var (
	spareTypes = []string{"int", "bigint", "numeric(30)", "varchar(40)", "text"}
	levelTypes = []string{"int", "bigint", "numeric"}
)

// alter does something to schedules that is of no rule's interest.
func (w *world) alter() {
	t := &w.tables
	if len(t.spare) == 0 {
		w.addColumn()
		return
	}
	i := w.dice.IntN(len(t.spare))
	c := &t.spare[i]
	switch w.dice.IntN(5) {
	case 0:
		w.addColumn()
	case 1:
		w.ddl("columns: dropped", "alter table schedules drop column %s", c.name)
		t.spare = append(t.spare[:i], t.spare[i+1:]...)
	case 2:
		was := c.name
		c.name = w.column()
		w.ddl("columns: renamed", "alter table schedules rename column %s to %s", was, c.name)
	case 3:
		w.ddl("columns: dropped and made anew in one transaction", "begin; alter table schedules drop column %s; alter table schedules add column %[1]s %s default '7'; commit", c.name, spareTypes[c.typ])
	default:
		c.typ = (c.typ + 1) % len(spareTypes)
		w.ddl("columns: of another type", "alter table schedules alter column %s drop default, alter column %[1]s type %s using %[1]s::text::%[2]s", c.name, spareTypes[c.typ])
	}
}

func (w *world) addColumn() {
	c := column{name: w.column(), typ: w.dice.IntN(len(spareTypes))}
	w.tables.spare = append(w.tables.spare, c)
	w.ddl("columns: added", "alter table schedules add column %s %s default '7'", c.name, spareTypes[c.typ])
}

// column is a name that no column had.
func (w *world) column() string {
	w.tables.made++
	return fmt.Sprintf("spare_%d", w.tables.made)
}

func (w *world) ddl(what, statement string, args ...any) {
	w.t.Helper()
	w.count(what)
	w.exec(fmt.Sprintf(statement, args...))
}

// retype gives a column that a rule reads other types, which the rule fits as well: it goes on without a gap.
func (w *world) retype() {
	for range levelTypes {
		w.tables.level = (w.tables.level + 1) % len(levelTypes)
		w.exec("alter table tickets alter column level type " + levelTypes[w.tables.level])
		w.pause(w.upTo(time.Second))
	}
}

// label adds one to an enum that a rule reads, which knows the others as before.
func (w *world) label() {
	w.tables.labels++
	w.exec(fmt.Sprintf("alter type progress add value 'label %d'", w.tables.labels))
}

// reload saves the rules in other words, of which those on visits mean something else. Half the time the next fault meets the daemon as it
// reads them.
func (w *world) reload() {
	w.edition = w.edition.next(w.dice)
	w.must(w.postman.save(w.edition))
	if w.one(2) || w.broken() {
		return
	}
	w.live()
}

// live waits until the daemon decides by the rules in the file.
func (w *world) live() {
	w.t.Helper()
	w.await(w.size.patience, "the rules to be live", func() (bool, string) {
		r := w.status().Rules
		return r.Rules == w.edition.rules() && len(r.Broken) == 0 && r.ReloadFail == "" && r.From != "", fmt.Sprintf("%+v instead of %d", r, w.edition.rules())
	})
}

// mistake saves rules that do not load, and mends them once the daemon has said so.
func (w *world) mistake() {
	w.streaming(w.postman.process.began)
	w.must(w.postman.write("rules.yaml", w.edition.text()+"    wen: new.kind\n"))
	w.await(w.size.patience, "the daemon to refuse the rules", func() (bool, string) {
		r := w.status().Rules
		return r.ReloadFail != "", fmt.Sprintf("%+v", r)
	})
	w.must(w.postman.save(w.edition))
	w.await(w.size.patience, "the daemon to take the rules", func() (bool, string) {
		r := w.status().Rules
		return r.ReloadFail == "" || w.broken(), fmt.Sprintf("%+v", r)
	})
}

// broken says whether the rule on tickets reads a column that was renamed, or that on parcels is on a table that was.
func (w *world) broken() bool {
	return w.edition.column != w.edition.reads || w.edition.table != w.app.parcels.name
}

// rename gives a column that a rule reads another name, or, the next time, has the rule follow, and what it missed replayed.
//
// Nobody writes tickets while the name changes, until all from before is stored: what commits before the change and is read when the
// rule does not fit any more is missed for good, since the rule that fitted it is there no longer. Everything else happens as the
// dice will have it: the daemon, or Postgres, may be killed while the rule is broken, and the rules may be saved.
func (w *world) rename() {
	if w.edition.column != w.edition.reads {
		w.follow()
		return
	}
	resume := w.app.hold()
	defer resume()
	w.stored()
	was := w.edition.column
	w.edition.column = other(was)
	w.ddl("columns: renamed while a rule reads it", "alter table tickets rename column %s to %s", was, w.edition.column)
}

// renameTable gives a table that a rule is on another name, or, the next time, has the rule follow, and what it missed replayed. Nobody waits
// for what was written before: the daemon reads it when the table is called otherwise.
func (w *world) renameTable() {
	if w.edition.table != w.app.parcels.name {
		w.follow()
		return
	}
	w.app.parcels.rename(func(was string) string {
		w.ddl("tables: renamed while a rule is on it", "alter table %s rename to %s", was, other(was))
		return other(was)
	})
}

// renameAway is as renameTable while no daemon runs: there is something to read from before and from behind.
func (w *world) renameAway() {
	if w.edition.table != w.app.parcels.name {
		w.follow()
		return
	}
	w.must(w.postman.kill())
	time.Sleep(w.upTo(time.Second))
	w.renameTable()
	time.Sleep(w.upTo(time.Second))
	w.must(w.postman.start())
}

// follow mends the rules, and then what they missed.
func (w *world) follow() {
	w.edition.reads, w.edition.table = w.edition.column, w.app.parcels.name
	w.edition = w.edition.next(w.dice)
	w.must(w.postman.save(w.edition))
	w.streaming(w.postman.process.began)
	w.live()
	w.mend()
}

// mend makes up for every gap with the command that the status prints for it.
func (w *world) mend() {
	w.t.Helper()
	w.await(w.size.patience, "the gaps to end", func() (bool, string) {
		gaps := w.status().Gaps
		for _, g := range gaps {
			if g.To == "" {
				return false, fmt.Sprintf("%+v", gaps)
			}
		}
		return true, ""
	})
	said := make(map[int64]string)
	for _, g := range w.status().Gaps {
		if !unmended(g) {
			continue
		}
		w.t.Logf("gap %d of %s, %s to %s: %s", g.ID, g.Rule, g.From, g.To, g.Mend)
		text, err := w.postman.mend(g.Mend)
		w.must(err)
		said[g.ID] = text
	}
	for _, g := range w.status().Gaps { // there may be others by now
		if text, run := said[g.ID]; run && unmended(g) {
			w.t.Errorf("a gap is there still, although its command was run: %+v; it said:\n%s", g, text)
		}
	}
}

func unmended(g daemon.GapStatus) bool { return g.Replay == 0 && g.Mend != "" && g.To != "" }
