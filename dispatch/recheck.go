package dispatch

import (
	"context"
	"fmt"
	"strings"

	"postman/outbox"
	"postman/rules"
	"postman/value"
)

// recheck looks whether the rule still holds of a match that was held for a while and is released: its row is read again by primary key, and
// `when` is tried on it as it is now. It says why the match is cancelled; empty: it goes on. What cannot be looked at again goes on:
// [rules.Rule.Rechecks] says of which rules that is so, and here it is that of tables without a primary key.
func (d *Dispatcher) recheck(ctx context.Context, m *outbox.Match, of *draft) (string, error) {
	columns, why := of.rule.Rechecks(m.Op)
	if why != "" {
		return "", nil
	}
	r := &rechecking{research: research{draft: of, match: m}, columns: columns}
	answers, err := d.o.Lookup.ask(ctx, asking{rule: m.Rule, xid: m.Tx.XID, commit: m.Tx.Time, flights: []flight{r.primaryKey, r.rereadNow}})
	switch {
	case err != nil:
		return "", err
	case len(answers) == 0:
		return "", nil
	case len(answers[0].rows) == 0:
		return "checked again as it was released: its row is gone", nil
	}
	facts := *of.facts
	facts.New = append(value.Row(nil), facts.New...)
	for _, now := range answers[0].row(0) {
		for i := range facts.New {
			if facts.New[i].Name == now.Name {
				facts.New[i].Datum = now.Datum
			}
		}
	}
	v := of.rule.Decide(&facts)
	switch {
	case v.Err != nil:
		return "", fmt.Errorf("checking the rule again as the match was released: %w", v.Err)
	case v.Truth == rules.False:
		return "checked again as it was released: the rule does not match the row as it is now", nil
	}
	return "", nil
}

// rechecking reads the columns that a rule's condition reads.
type rechecking struct {
	research
	columns []string
}

func (r *rechecking) rereadNow(key []answer) ([]statement, error) {
	table := r.rule().On.Table
	where, s := r.byKey(key)
	if where == "" {
		return nil, nil
	}
	names := []string{"1"} // so that there is one without a condition, too
	for _, c := range r.columns {
		names = append(names, quoted(c))
	}
	s.sql = fmt.Sprintf("select %s from %s.%s where %s", strings.Join(names, ", "), quoted(table.Schema), quoted(table.Name), where)
	return []statement{s}, nil
}
