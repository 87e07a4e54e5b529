package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// research is a look-up of everything a match's mails need: who gets them, and what they show. It is one round trip, unless
// something has to be read again, or loaded for each recipient.
type research struct {
	draft *draft
	match *outbox.Match
	limit int  // of recipients; 0: none
	known bool // audience is there already: only what its mails show is asked for
	// first is how many recipients `load` queries that bind @to are asked for: those whose mails can go now.
	first int

	audience audience
	shared   loaded
	own      []loaded // of the first recipients
	served   []int    // which of audience.to own belongs to
}

// Asker answers the queries of rules: a [Lookup], or what a rehearsal has in its place.
type Asker interface {
	ask(ctx context.Context, a asking) ([]answer, error)
}

// do runs the look-up.
func (r *research) do(ctx context.Context, l Asker) error {
	main := r.main
	if r.stale() {
		main = r.afterReread
	}
	flights := []flight{main}
	if r.stale() {
		flights = []flight{r.primaryKey, r.reread, main}
	}
	own := r.bindsTo()
	if own {
		flights = append(flights, r.ofRecipients)
	}
	if !r.stale() && queries(r.sources())+len(r.rule().Load) == 0 {
		return r.finish(nil, nil) // nothing to ask
	}
	m := r.match
	answers, err := l.ask(ctx, asking{rule: m.Rule, xid: m.Tx.XID, commit: m.Tx.Time, flights: flights})
	if err != nil {
		return err
	}
	if own {
		return r.finish(nil, answers)
	}
	return r.finish(answers, nil)
}

func (r *research) rule() *rules.Rule { return r.draft.rule }

func (r *research) bindsTo() bool {
	for _, l := range r.rule().Load {
		if bindsTo(l.SQL) {
			return true
		}
	}
	return false
}

// sources are where recipients come from, to before cc.
func (r *research) sources() []rules.Recipients {
	if r.known {
		return nil
	}
	return slices.Concat(r.rule().To, r.rule().CC)
}

// main asks for recipients, and loads what does not depend on them.
func (r *research) main([]answer) ([]statement, error) {
	var list []statement
	for _, source := range r.sources() {
		if source.Query == nil {
			continue
		}
		s, err := r.draft.bind("the query of recipients", source.Query, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	for _, l := range r.rule().Load {
		if bindsTo(l.SQL) {
			continue
		}
		s, err := r.draft.bind("load "+l.Name, l.SQL, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// ofRecipients loads what depends on the recipient.
func (r *research) ofRecipients(answers []answer) ([]statement, error) {
	if err := r.take(answers); err != nil {
		return nil, err
	}
	var list []statement
	for i, to := range r.audience.to {
		if to.bad != nil || len(r.served) >= r.first {
			continue
		}
		r.served = append(r.served, i)
		for _, l := range r.rule().Load {
			if !bindsTo(l.SQL) {
				continue
			}
			s, err := r.draft.bind("load "+l.Name, l.SQL, to.row)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	}
	return list, nil
}

// take reads the answers of main.
func (r *research) take(answers []answer) error {
	n := queries(r.sources())
	if !r.known {
		var err error
		if r.audience, err = r.gather(answers[:n]); err != nil {
			return err
		}
	}
	r.shared, answers = make(loaded), answers[n:]
	for _, l := range r.rule().Load {
		if bindsTo(l.SQL) {
			continue
		}
		var err error
		if r.shared[l.Name], err = load(l, answers[0]); err != nil {
			return fmt.Errorf("load %s: %w", l.Name, err)
		}
		answers = answers[1:]
	}
	return nil
}

// gather makes the audience; a panic in an expression is this match's alone.
func (r *research) gather(answers []answer) (a audience, err error) {
	defer caught(&err)
	return gather(r.rule(), r.draft.facts, answers, r.limit)
}

// finish reads the last flight's answers.
func (r *research) finish(main, own []answer) error {
	if own == nil && r.shared == nil {
		return r.take(main)
	}
	r.own = make([]loaded, len(r.served))
	for i := range r.own {
		r.own[i] = make(loaded)
		for _, l := range r.rule().Load {
			if !bindsTo(l.SQL) {
				continue
			}
			var err error
			if r.own[i][l.Name], err = load(l, own[0]); err != nil {
				return fmt.Errorf("load %s: %w", l.Name, err)
			}
			own = own[1:]
		}
	}
	return nil
}

// loads is what the mail of the i-th recipient shows; false: it was not asked for.
func (r *research) loads(i int) (loaded, bool) {
	if !r.bindsTo() {
		return r.shared, true
	}
	for j, served := range r.served {
		if served != i {
			continue
		}
		all := maps.Clone(r.shared)
		maps.Copy(all, r.own[j])
		return all, true
	}
	return nil, false
}

// stale says whether the stream left out values of the new row (unchanged TOAST) that can be read again. What old lacks
// nobody has any more, and what was erased is not brought back.
func (r *research) stale() bool {
	if r.rule().On.Table.Name == "" {
		return false
	}
	for _, f := range r.draft.facts.New {
		if f.State == value.Unavailable {
			return true
		}
	}
	return false
}

// primaryKey asks for the names of the key's columns.
func (r *research) primaryKey([]answer) ([]statement, error) {
	table := r.rule().On.Table
	return []statement{{
		what: "asking for the primary key of " + table.String(), sql: primaryKeySQL, oids: []uint32{pgtype.TextOID, pgtype.TextOID},
		values: [][]byte{[]byte(table.Schema), []byte(table.Name)},
	}}, nil
}

const primaryKeySQL = `
select a.attname
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_index i on i.indrelid = c.oid and i.indisprimary
  join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
 where n.nspname = $1 and c.relname = $2`

// byKey begins a statement about the row, with a condition that finds it; empty: it cannot be found.
func (r *research) byKey(key []answer) (where string, s statement) {
	s.what = "reading the row of " + r.rule().On.Table.String() + " again"
	var all []string
	for _, k := range key[0].rows {
		f, ok := r.draft.facts.New.Field(string(k[0].Text))
		if !ok || f.State != value.Present {
			return "", s
		}
		s.oids, s.values = append(s.oids, f.Type.OID), append(s.values, present(f.Text))
		all = append(all, fmt.Sprintf("%s = $%d", quoted(f.Name), len(s.values)))
	}
	return strings.Join(all, " and "), s
}

// reread reads the row again by its primary key.
func (r *research) reread(key []answer) ([]statement, error) {
	table, row := r.rule().On.Table, r.draft.facts.New
	where, s := r.byKey(key)
	if where == "" {
		return nil, nil // its values stay unavailable
	}
	var names []string
	for _, f := range row {
		if f.State == value.Unavailable {
			names = append(names, quoted(f.Name))
		}
	}
	s.sql = fmt.Sprintf("select %s from %s.%s where %s", strings.Join(names, ", "), quoted(table.Schema), quoted(table.Name), where)
	return []statement{s}, nil
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// afterReread fills in what was read, and asks what was to be asked. A row that is gone leaves its values unavailable.
func (r *research) afterReread(answers []answer) ([]statement, error) {
	if len(answers) > 0 && len(answers[0].rows) > 0 {
		again := answers[0].row(0)
		facts := *r.draft.facts
		facts.New = append(value.Row(nil), facts.New...)
		for i := range facts.New {
			if f := &facts.New[i]; f.State == value.Unavailable {
				f.Datum, again = again[0].Datum, again[1:]
			}
		}
		r.draft.facts = &facts
	}
	return r.main(nil)
}

// newDraft reads a match's rule and change.
func (d *Dispatcher) newDraft(ctx context.Context, m *outbox.Match) (*draft, error) {
	rule, err := d.o.Rules(ctx, *m)
	if err != nil {
		return nil, err
	}
	facts, err := d.Facts(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("reading the change: %w", err)
	}
	return &draft{rule: rule, facts: facts, position: m.Position, ruleID: m.Rule}, nil
}

// show prepares what templates see, once the look-up has completed the facts.
func (d *draft) show() (err error) {
	defer caught(&err)
	d.data, err = shown(d.rule, d.facts)
	return err
}

// errNobody says that a match has no recipients.
var errNobody = errors.New("the recipient query gave no row")
