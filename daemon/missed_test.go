package daemon

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/position"
)

// TestNothingIsMissedSilently: whatever becomes of tables and publications, and wherever a daemon dies, each change that a rule was to match
// is a match, or was committed in a recorded gap of that rule; and a gap that was made up for has its matches. Every row matches, so that the
// oracle needs to know the names of tables only.
func TestNothingIsMissedSilently(t *testing.T) {
	t.Parallel()
	for round := range 6 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			m := newMissing(t, uint64(round))
			for range 40 {
				m.step()
			}
			m.end()
		})
	}
}

// missingWorld is a database whose schema changes at random under a daemon that dies at random.
type missingWorld struct {
	*schemaWorld
	conn   *pgx.Conn
	random *rand.Rand
	tables []*shifting
	rows   []row
	log    []string // what was done
	next   int
}

// shifting is a table, and how it stands.
type shifting struct {
	rule, home string // the rule that is on it, and the name that the rule knows
	schema     string
	name       string // that it has
	column     string // what the column kind is called; empty: it has none
	text       bool   // the column n is text
	extra      int
	whole      bool // it can tell of updates
	root       bool // it is partitioned
	detached   bool
}

// row is a change that its rule was to match, committed between two positions.
type row struct {
	rule       string
	table      string
	what       string
	from, till position.LSN
}

func newMissing(t *testing.T, seed uint64) *missingWorld {
	w := newWorld(t)
	w.config.Mode, w.blind = "dry-run", true
	w.template("plain.html", `{{define "subject"}}Plain{{end}}{{define "body"}}<p></p>{{end}}`)
	m := &missingWorld{
		schemaWorld: &schemaWorld{world: w, rules: map[string]string{"mark": markRule}}, conn: pgtest.Connect(t, w.url), random: rand.New(rand.NewPCG(1, seed)), //nolint:gosec // it is to come again
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.tellGaps()
			t.Log(strings.Join(m.log, "\n"))
		}
	})
	m.do("create schema other")
	for i := range 4 {
		s := &shifting{rule: fmt.Sprintf("r%d", i), home: fmt.Sprintf("t%d", i), whole: true, root: i == 3}
		m.tables = append(m.tables, s)
		m.make(s)
		m.writeRule(s)
	}
	m.write()
	m.daemon = m.start()
	return m
}

func (m *missingWorld) make(s *shifting) {
	s.name, s.schema, s.column, s.text, s.detached, s.whole = s.home, "public", "kind", false, false, true
	if s.root {
		m.do("create table "+s.at()+" (id int primary key, kind text, n int) partition by range (id)", "create table "+s.part()+" partition of "+s.at()+" default")
		return
	}
	m.do("create table " + s.at() + " (id int primary key, kind text, n int)")
}

func (s *shifting) at() string { return s.schema + "." + s.name }

// part is the one partition of a partitioned table, which keeps its name.
func (s *shifting) part() string { return "public." + s.home + "_part" }

func (m *missingWorld) writeRule(s *shifting) {
	m.rules[s.rule] = fmt.Sprintf("  - {name: %s, on: {table: %s, ops: [insert, update]}, when: 'new.kind == \"c\"', to: {address: a@example.com}, template: plain}\n", s.rule, s.home)
}

// do runs statements, and returns between which positions they were committed.
func (m *missingWorld) do(statements ...string) (from, till position.LSN) {
	m.t.Helper()
	from = m.insertAt()
	for _, s := range statements {
		m.log = append(m.log, fmt.Sprintf("%s  %s", m.insertAt(), s))
		if _, err := m.conn.Exec(m.t.Context(), s); err != nil {
			m.t.Fatalf("%s: %v", s, err)
		}
	}
	return from, m.insertAt()
}

func (m *missingWorld) insertAt() position.LSN {
	m.t.Helper()
	var text string
	if err := m.conn.QueryRow(m.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		m.t.Fatal(err)
	}
	return lsn(m.t, text)
}

func (m *missingWorld) tell(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%s  -- ", m.insertAt())+fmt.Sprintf(format, args...))
}

// step does one of the things that happen.
func (m *missingWorld) step() {
	s := m.tables[m.random.IntN(len(m.tables))]
	switch n := m.random.IntN(20); {
	case n < 9:
		m.change(s)
	case n < 15:
		m.alter(s)
	case n < 17 && m.daemon != nil:
		m.look()
	case n < 19 && m.daemon != nil:
		m.kill()
	default:
		m.settle()
	}
}

// change inserts a row or updates one, each to match.
func (m *missingWorld) change(s *shifting) {
	m.next++
	statement := fmt.Sprintf("insert into %s (id) values (%d)", s.at(), m.next)
	if s.column != "" {
		statement = fmt.Sprintf("insert into %s (id, %s, n) values (%d, 'c', '1')", s.at(), s.column, m.next)
	}
	if s.root && s.detached { // there is nowhere to put it: the partition is a table of its own, of which no rule is
		m.do(fmt.Sprintf("insert into %s (id) values (%d)", s.part(), m.next))
		return
	}
	if m.random.IntN(4) == 0 && s.whole {
		statement = fmt.Sprintf("update %s set n = n where id = (select max(id) from %[1]s)", s.at())
		var rows int
		if err := m.conn.QueryRow(m.t.Context(), "select count(*) from "+s.at()).Scan(&rows); err != nil || rows == 0 {
			return
		}
		if s.column != "" { // that of a row from before may be another one
			statement = strings.Replace(statement, "n = n", s.column+" = 'c'", 1)
		}
	}
	from, till := m.do(statement)
	rule := m.ruleOn(s)
	if rule == nil {
		return
	}
	m.rows = append(m.rows, row{rule.rule, s.home, statement, from, till})
}

// ruleOn is the table whose rule misses what happens to another one: the one whose name that has; or itself, where no table has its name.
func (m *missingWorld) ruleOn(s *shifting) *shifting {
	for _, o := range m.tables {
		if s.at() == "public."+o.home {
			return o
		}
	}
	for _, o := range m.tables {
		if o.at() == "public."+s.home {
			return nil
		}
	}
	return s
}

// alter changes a table, or what is published of it.
func (m *missingWorld) alter(s *shifting) {
	slot := m.config.Slot
	switch m.random.IntN(13) {
	case 0: // drop, or add again
		if s.column != "" {
			m.do("alter table " + s.at() + " drop column " + s.column)
			s.column = ""
		} else {
			m.do("alter table " + s.at() + " add column kind text")
			s.column = "kind"
		}
	case 1:
		if s.column != "" {
			to := map[string]string{"kind": "sort", "sort": "kind"}[s.column]
			m.do("alter table " + s.at() + " rename column " + s.column + " to " + to)
			s.column = to
		}
	case 2:
		m.do("alter table " + s.at() + " alter column n type " + map[bool]string{true: "int using n::int", false: "text"}[s.text])
		s.text = !s.text
	case 3:
		s.extra++
		m.do(fmt.Sprintf("alter table %s add column extra%d text", s.at(), s.extra))
	case 4:
		if to := map[string]string{s.home: s.home + "b", s.home + "b": s.home}[s.name]; to != "" && s.schema == "public" && !m.taken("public."+to) {
			m.do("alter table " + s.at() + " rename to " + to)
			s.name = to
		}
	case 5:
		if to := map[string]string{"public": "other", "other": "public"}[s.schema]; !m.taken(to + "." + s.name) {
			m.do("alter table " + s.at() + " set schema " + to)
			s.schema = to
		}
	case 6:
		if s.at() == "public."+s.home && !s.detached {
			m.do("drop table " + s.at())
			m.make(s)
		}
	case 7:
		m.do(fmt.Sprintf("do $$ begin alter publication %s_ins drop table %s; exception when undefined_object then null; end $$", slot, s.at()))
	case 8: // and back: nobody need ever see it
		m.do(fmt.Sprintf("do $$ begin alter publication %s_ins drop table %s; exception when undefined_object then null; end $$", slot, s.at()))
		m.change(s)
		m.do(fmt.Sprintf("alter publication %s_ins add table only %s", slot, s.at()))
	case 9:
		if s.root && s.detached {
			m.do("alter table " + s.at() + " attach partition " + s.part() + " default")
			s.detached = false
		} else if s.root && !s.text && s.column == "kind" {
			m.do("alter table " + s.at() + " detach partition " + s.part())
			s.detached = true
		}
	case 10:
		o := m.tables[m.random.IntN(len(m.tables))]
		if o != s && !o.root && !s.root {
			m.do("alter table "+s.at()+" rename to swap", "alter table "+s.schema+".swap set schema public")
			name, schema := s.name, s.schema
			m.do("alter table "+o.at()+" set schema other", "alter table other."+o.name+" rename to swapped", "alter table other.swapped set schema "+schema, "alter table "+schema+".swapped rename to "+name)
			m.do("alter table public.swap rename to "+o.name, "alter table public."+o.name+" set schema "+o.schema)
			s.name, s.schema, o.name, o.schema = o.name, o.schema, name, schema
		}
	case 11:
		m.do("alter table " + s.at() + " replica identity " + []string{"full", "default"}[m.random.IntN(2)])
	case 12:
		m.do(fmt.Sprintf("alter publication %s_ins set (publish = 'delete')", slot))
		m.change(s)
		m.do(fmt.Sprintf("alter publication %s_ins set (publish = 'insert')", slot))
	}
}

func (m *missingWorld) taken(at string) bool {
	return slices.ContainsFunc(m.tables, func(o *shifting) bool { return o.at() == at })
}

func (m *missingWorld) look() {
	m.tell("look")
	if err := m.daemon.look(m.t.Context()); err != nil {
		m.tell("%v", err)
	}
}

// kill ends the daemon at once: nothing is drained, and nothing more is stored.
func (m *missingWorld) kill() {
	m.tell("kill")
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel()
	_ = m.daemon.Stop(ctx)
	m.daemon = nil
}

// settle starts a daemon, or waits until the one that runs has taken all in.
func (m *missingWorld) settle() {
	if m.daemon == nil {
		m.tell("start")
		m.daemon = m.start()
		return
	}
	m.tell("settle")
	m.mark(m.daemon)
}

// end brings all back to what the rules know, and asks for each row. Then it replays what can be replayed, and asks again.
func (m *missingWorld) end() {
	if m.daemon == nil {
		m.settle()
	}
	m.settle()
	m.look()
	m.mark(m.daemon)
	m.judge("before anything is repaired")
	for range 2 { // by way of names that nobody has
		for _, s := range m.tables {
			if s.schema != "public" || s.name != s.home {
				to := s.home
				if m.taken("public." + to) {
					to = "away_" + to
				}
				m.do("alter table "+s.at()+" rename to "+to+"_", "alter table "+s.schema+"."+to+"_ set schema public", "alter table public."+to+"_ rename to "+to)
				s.schema, s.name = "public", to
			}
		}
	}
	for _, s := range m.tables {
		m.do("alter table " + s.at() + " replica identity default")
		switch s.column {
		case "":
			m.do("alter table " + s.at() + " add column kind text")
		case "sort":
			m.do("alter table " + s.at() + " rename column sort to kind")
		}
		if s.text {
			m.do("alter table " + s.at() + " alter column n type int using n::int")
		}
		if s.column, s.text = "kind", false; s.detached {
			m.do("drop table "+s.part(), "create table "+s.part()+" partition of "+s.at()+" default")
			s.detached = false
		}
	}
	for range 2 { // what the stream calls by another name still, it is told by a change
		m.eventually("all is whole again", func() bool {
			if err := m.daemon.look(m.t.Context()); err != nil {
				m.t.Fatal(err)
			}
			for _, s := range m.tables {
				if s.root && brokenRule(m.daemon, s.rule) != nil {
					m.change(s)
				}
			}
			m.mark(m.daemon)
			open := slices.ContainsFunc(m.daemon.Status().Gaps, func(g GapStatus) bool { return g.To == "" })
			return len(m.daemon.broken.list()) == 0 && !open
		})
		for _, s := range m.tables {
			m.change(s)
		}
		m.mark(m.daemon)
	}
	m.judge("once all is repaired")
	for _, g := range m.daemon.Status().Gaps {
		if g.Mend == "" || g.To == "" { // of a table that was swapped with another, and told again just now
			continue
		}
		if _, done := m.replayed(m.daemon, ReplayRequest{Gap: g.ID}); len(done.Mended)+len(done.Stays) == 0 {
			m.t.Errorf("the replay of gap %d did %+v", g.ID, done)
		}
	}
	m.judge("once the gaps are replayed")
}

// tellGaps has the log say how the rules stand.
func (m *missingWorld) tellGaps() {
	if m.daemon == nil {
		return
	}
	gaps, err := m.daemon.store.Gaps(context.WithoutCancel(m.t.Context()))
	for _, g := range gaps {
		m.log = append(m.log, fmt.Sprintf("gap %d of %s, %s to %s, lost %v, replay %d: %s", g.ID, g.Rule, g.From, g.To, g.Lost, g.Replay, firstLine(g.Reason)))
	}
	for _, b := range m.daemon.broken.list() {
		m.log = append(m.log, fmt.Sprintf("broken: %s by %d, sound from %s, missed %s: %s", b.rule, b.by, b.sound, b.missed, b.why))
	}
	m.log = append(m.log, fmt.Sprintf("stored %s, %v", m.daemon.batch.durable(), err))
}

// judge asks of each row whether it is a match, or in a gap that is not made up for.
func (m *missingWorld) judge(when string) {
	m.t.Helper()
	gaps, err := m.daemon.store.Gaps(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	matches, err := m.daemon.store.Matches(m.t.Context(), outbox.Filter{Limit: 100_000})
	if err != nil {
		m.t.Fatal(err)
	}
	told := make(map[string]int)
	for _, r := range m.rows {
		matched := slices.ContainsFunc(matches, func(o outbox.Match) bool {
			return o.RuleName == r.rule && r.from <= o.Position.LSN && o.Position.LSN < r.till
		})
		inGap := slices.ContainsFunc(gaps, func(g outbox.Gap) bool {
			return g.Replay == 0 && (g.Rule == r.rule || g.Rule == "") && g.From < r.till && (g.To == 0 || g.To > r.from)
		})
		switch {
		case matched:
			told["matched"]++
		case inGap:
			told["in a gap"]++
		default:
			told["missed"]++
			m.t.Errorf("%s: rule %s has missed %q, which was committed between %s and %s", when, r.rule, r.what, r.from, r.till)
		}
	}
	m.tell("%s: %v", when, told)
	if m.t.Failed() {
		m.t.FailNow()
	}
	m.t.Log(when, slices.Sorted(maps.Keys(told)), told, time.Now().Format(time.StampMilli))
}
