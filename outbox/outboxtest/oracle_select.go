package outboxtest

import (
	"cmp"
	"slices"
	"strings"

	"postman/outbox"
)

// What filters select, as the oracle sees it.

// named says whether a filter names ids or states.
func named(f *outbox.Filter) bool {
	return len(f.Messages)+len(f.Matches)+len(f.MessageStates)+len(f.MatchStates) > 0
}

// affected counts what act would move.
func (o *oracle) affected(a outbox.Action, f *outbox.Filter) (all outbox.Affected) {
	for _, n := range o.messages {
		if _, applies := takesMessage(a, f, n); applies {
			all.Messages = grouped(all.Messages, n.RuleName, n.State)
		}
	}
	for _, m := range o.matches {
		if _, applies := takesMatch(a, f, m); applies {
			all.Matches = grouped(all.Matches, m.RuleName, m.State)
		}
	}
	return all
}

// grouped counts one more.
func grouped[S outbox.MatchState | outbox.MessageState](all []outbox.Group[S], rule string, state S) []outbox.Group[S] {
	order := func(g outbox.Group[S], _ int) int {
		return cmp.Or(cmp.Compare(g.Rule, rule), cmp.Compare(g.State, state))
	}
	i, there := slices.BinarySearchFunc(all, 0, order)
	if !there {
		all = slices.Insert(all, i, outbox.Group[S]{Rule: rule, State: state})
	}
	all[i].Count++
	return all
}

// takesMessage says whether an action moves a message that the filter may select, and where.
func takesMessage(a outbox.Action, f *outbox.Filter, n *oracleMessage) (to string, applies bool) {
	to, applies = moves[a].messages[n.State.String()]
	return to, applies && selectsMessage(f, n) && (a != outbox.Discard || n.State != outbox.MessageFailed || named(f))
}

func takesMatch(a outbox.Action, f *outbox.Filter, m *oracleMatch) (to string, applies bool) {
	to, applies = moves[a].matches[m.State.String()]
	return to, applies && selectsMatch(f, m) && (a != outbox.Discard || m.State != outbox.MatchFailed || named(f))
}

func selectsMessage(f *outbox.Filter, n *oracleMessage) bool {
	return (len(f.MessageStates) > 0 || len(f.MatchStates) == 0) &&
		(len(f.MessageStates) == 0 || slices.Contains(f.MessageStates, n.State)) &&
		(len(f.Messages) == 0 || slices.Contains(f.Messages, n.ID)) &&
		(len(f.Matches) == 0 || slices.Contains(f.Matches, n.of.ID)) &&
		(len(f.Rules) == 0 || slices.Contains(f.Rules, n.RuleName)) &&
		(f.Due.IsZero() || n.Due.Before(f.Due)) &&
		(contains(n.Reason, f.Error) || contains(n.Reply, f.Error)) &&
		(f.Address == "" || outbox.AddressKey(f.Address) == outbox.AddressKey(n.Address))
}

func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func selectsMatch(f *outbox.Filter, m *oracleMatch) bool {
	return len(f.Messages) == 0 && f.Address == "" &&
		(len(f.MatchStates) > 0 || len(f.MessageStates) == 0) &&
		(len(f.MatchStates) == 0 || slices.Contains(f.MatchStates, m.State)) &&
		(len(f.Matches) == 0 || slices.Contains(f.Matches, m.ID)) &&
		(len(f.Rules) == 0 || slices.Contains(f.Rules, m.RuleName)) &&
		(f.Due.IsZero() || m.Due.Before(f.Due)) &&
		contains(m.Reason, f.Error)
}
