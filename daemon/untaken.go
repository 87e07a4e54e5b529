package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

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
func (in *intake) untaken(prefix string) {
	name, ours := strings.CutPrefix(prefix, messagePrefix)
	if !ours || slices.ContainsFunc(in.current.source.Rules, func(r *rules.Rule) bool { return r.On.Message == name }) {
		return
	}
	if r := []rune(name); len(r) > longestUntaken {
		name = string(r[:longestUntaken]) + "…"
	}
	if in.open.untaken == nil {
		in.open.untaken = make(map[string]int64)
	}
	if _, known := in.open.untaken[name]; !known && len(in.open.untaken) >= mostUntaken {
		name = otherNames
	}
	in.open.untaken[name]++
}

// tellUntaken counts those of a transaction that was committed, and tells of each name once.
func (in *intake) tellUntaken() {
	for _, name := range slices.Sorted(maps.Keys(in.open.untaken)) {
		if !in.tally.untake(name, in.open.untaken[name]) {
			continue
		}
		var names []string
		for _, r := range in.current.source.Rules {
			if r.On.Message != "" {
				names = append(names, r.On.Message)
			}
		}
		err := fmt.Errorf("no rule takes the message %s%s of the transaction at %s, so that nothing comes of it%s\n  → on: {message: %s} in a rule takes it; later ones of this name are counted in postman status alone",
			messagePrefix, name, in.open.tx.Commit, didYouMean(name, names), name)
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
