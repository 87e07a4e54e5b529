package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"postman/cdc"
	"postman/rules"
)

// Names of messages that no rule takes come from the application, and may be any number of texts of any length.
const (
	mostUntaken    = 20
	longestUntaken = 64
)

// otherNames is counted under for all names behind the first ones.
const otherNames = "(others)"

// untaken notes that the open transaction brought a message that no rule takes. One whose rule is broken is taken: that rule misses it.
func (in *intake) untaken(c *cdc.Change) {
	t := in.open
	name, ours := strings.CutPrefix(c.Prefix, messagePrefix)
	if !ours || slices.ContainsFunc(t.set.source.Rules, func(r *rules.Rule) bool { return r.On.Message == name }) {
		return
	}
	if r := []rune(name); len(r) > longestUntaken {
		name = string(r[:longestUntaken]) + "…"
	}
	if t.untaken == nil {
		t.untaken = make(map[string]*ordinals)
	}
	if _, known := t.untaken[name]; !known && len(t.untaken) >= mostUntaken {
		name = otherNames
	}
	if t.untaken[name] == nil {
		t.untaken[name] = new(ordinals)
	}
	t.untaken[name].add(c.Ordinal)
}

// tellUntaken counts those of a transaction that was committed, and tells of each name once.
func (in *intake) tellUntaken(t *transaction) {
	for _, name := range slices.Sorted(maps.Keys(t.untaken)) {
		if !in.tally.untake(name, t.untaken[name].n()) {
			continue
		}
		var names []string
		for _, r := range t.set.source.Rules {
			if r.On.Message != "" {
				names = append(names, r.On.Message)
			}
		}
		err := fmt.Errorf("no rule takes the message %s%s of the transaction at %s, so that nothing comes of it%s\n  → on: {message: %s} in a rule takes it; later ones of this name are counted in postman status alone",
			messagePrefix, name, t.tx.Commit, DidYouMean(name, names), name)
		in.report(context.Background(), err, "", "message")
	}
}

// untake counts messages of a name, and says whether the name is new.
func (t *tally) untake(name string, n int64) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.untaken == nil {
		t.untaken = make(map[string]int64)
	}
	_, known := t.untaken[name]
	if !known && len(t.untaken) >= mostUntaken {
		name, known = otherNames, true
	}
	t.untaken[name] += n
	return !known
}

func (t *tally) byName() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.untaken)
}
