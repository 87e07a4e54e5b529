package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postman/cdc"
	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/position"
	"postman/rules"
)

// WhyAtOptions is what somebody asks of WhyAt.
type WhyAtOptions struct {
	Rule   string
	LSN    string
	Unmask bool
}

// WhyAtView tells what a rule says of a transaction that was streamed: what `explain --rule --lsn` prints. Its JSON is a contract
// (docs/explain.md).
type WhyAtView struct {
	Rule        RuleView        `json:"rule"`
	LSN         string          `json:"lsn"`
	Transaction *WhyTransaction `json:"transaction,omitempty"` // absent: there is none there
	Changes     []WhyChange     `json:"changes"`               // of the rule's table, or its message
	More        int             `json:"more,omitempty"`        // of them that are not told
	Others      []WhyOthers     `json:"others,omitempty"`      // what else the transaction did
	Reasons     []string        `json:"reasons,omitempty"`     // why there is nothing, or what else stood in the way
}

// WhyTransaction is a transaction in the journal.
type WhyTransaction struct {
	Commit string    `json:"commit"`
	Time   time.Time `json:"time"`
	XID    uint32    `json:"xid"`
	Muted  string    `json:"muted,omitempty"`
	// Next says that the LSN lies in none, and this one commits next behind it: the LSN is that of one of its changes, or of nothing
	// that was streamed.
	Next bool `json:"next,omitempty"`
}

// WhyChange is a change and what the rule says of it.
type WhyChange struct {
	Ordinal   uint64        `json:"ordinal"`
	Change    ChangeView    `json:"change"`
	Condition ConditionView `json:"condition"`
	Unread    string        `json:"unread,omitempty"` // why it cannot be read
	Match     int64         `json:"match,omitempty"`  // in the outbox
	State     string        `json:"state,omitempty"`  // of the match
}

// WhyOthers counts the transaction's changes of another table.
type WhyOthers struct {
	Table   string `json:"table"` // or a message's prefix
	Op      string `json:"op"`
	Changes int    `json:"changes"`
}

// mostWhy bounds the changes that are told.
const mostWhy = 20

// OpenView opens a store for reading alone, beside a daemon or without one, and finds the source of a slot in it.
func openView(ctx context.Context, c *Config) (outbox.Store, outbox.Source, error) {
	store, err := sqlite.Open(c.StorePath(), sqlite.Options{ReadOnly: true}) //nolint:contextcheck // it only reads
	if err != nil {
		return nil, outbox.Source{}, refused{err}
	}
	all, err := store.Sources(ctx)
	var found []outbox.Source
	for _, s := range all {
		if s.Slot == c.Slot {
			found = append(found, s)
		}
	}
	switch {
	case err != nil:
	case len(found) == 0:
		err = usage(fmt.Sprintf("the store %s has nothing of a slot %s\n  → name the store with STORE_URL, and the slot with POSTMAN_SLOT", c.StorePath(), c.Slot))
	default:
		return store, found[len(found)-1], nil // of several databases, the one that came last
	}
	return nil, outbox.Source{}, errors.Join(err, store.Close())
}

// WhyAt tells why a rule, as it stands in its file, does or does not match what was committed at a position. It reads the store, also
// while a daemon runs, and needs no database.
func WhyAt(ctx context.Context, c *Config, o WhyAtOptions) (_ *WhyAtView, err error) {
	lsn, err := position.ParseLSN(o.LSN)
	if err != nil {
		return nil, usage(err.Error())
	}
	rule, err := ruleFromFile(c.Rules, o.Rule)
	if err != nil {
		return nil, err
	}
	store, source, err := openView(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	zone, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return nil, usage("timezone: " + c.Timezone + " is no time zone; one looks like Asia/Seoul")
	}
	reach, err := newReach(ctx, store, source, zone)
	if err != nil {
		return nil, usage(err.Error())
	}
	reach.flag = "--lsn"
	at, err := reach.find(lsn)
	if err != nil {
		return notStored(ctx, reach, rule, lsn, err)
	}
	w := &whyAt{reach: reach, rule: rule, at: at, naming: &naming{epoch: reach.source.Epoch}, others: make(map[WhyOthers]int), mask: Mask, view: &WhyAtView{Rule: ViewRule(rule), LSN: lsn.String(), Changes: []WhyChange{}}}
	if o.Unmask {
		w.mask = func(text string) string { return text }
	}
	if w.naming.known, err = readPublished(ctx, store, source); err != nil {
		return nil, err
	}
	if err := w.look(ctx); err != nil {
		return nil, err
	}
	return w.view, w.reasons(ctx, c)
}

// notStored tells of an LSN that the journal has not: the gap that it lies in, or else the error.
func notStored(ctx context.Context, r *reach, rule *rules.Rule, lsn position.LSN, missing error) (*WhyAtView, error) {
	v := &WhyAtView{Rule: ViewRule(rule), LSN: lsn.String(), Changes: []WhyChange{}}
	gaps, err := r.store.Gaps(ctx)
	if err != nil {
		return nil, err
	}
	for i := range gaps {
		g := &gaps[i]
		if g.Source == r.source.ID && (g.Rule == "" || g.Rule == rule.Name) && g.From <= lsn && lsn <= g.To {
			v.Reasons = append(v.Reasons, "nothing is in the journal there; "+inGap(g))
		}
	}
	if len(v.Reasons) == 0 {
		return nil, usage(missing.Error())
	}
	return v, nil
}

// inGap says that something lies in a gap, and what is to be known of that.
func inGap(g *outbox.Gap) string {
	view := viewGap(g)
	text := fmt.Sprintf("it lies in gap %d (%s to %s): %s", g.ID, view.From, cmp.Or(view.To, "…"), g.Reason)
	switch {
	case view.Accepted != nil:
		text += fmt.Sprintf("; accepted by %s: %s", view.Accepted.By, view.Accepted.Why)
	case view.Replay != 0:
		text += fmt.Sprintf("; made up for by replay %d", view.Replay)
	case view.Lost:
		text += "; what was committed there is lost"
	case view.Stays != "":
		text += "; no replay makes up for it: " + view.Stays
	case view.Mend != "":
		text += " → " + view.Mend
	}
	return text
}

// ruleFromFile reads one rule. Mistakes of others are in nobody's way.
func ruleFromFile(path, name string) (*rules.Rule, error) {
	source, err := rules.Read(path)
	mistakes, ok := errors.AsType[rules.Errors](err)
	if err != nil && (!ok || source == nil) {
		return nil, err
	}
	if own := concerning(name, mistakes); len(own) > 0 {
		return nil, own
	}
	i := slices.IndexFunc(source.Rules, func(r *rules.Rule) bool { return r.Name == name })
	if i < 0 {
		return nil, noRule(path, name, source.Rules)
	}
	return source.Rules[i], nil
}

// whyAt looks for a transaction.
type whyAt struct {
	reach  *reach
	rule   *rules.Rule
	at     spot
	mask   func(string) string
	view   *WhyAtView
	others map[WhyOthers]int
	naming *naming
	was    cdc.TableName // what the rule's table was called in the transaction, if that is not what it is called now
	last   position.LSN  // the end of the last transaction before
}

// longestCommit is how long a commit record is at most, as far as one is looked for in which an LSN lies.
const longestCommit = 1 << 20

// look finds the transaction that the LSN is the commit of, or lies in the commit record of, or else the next that commits.
func (w *whyAt) look(ctx context.Context) error {
	h := newHistory(w.reach.store, w.reach.inEpoch(w.at.epoch))
	table := h.table(ctx)
	from := w.at.lsn - min(w.at.lsn, longestCommit)
	found := false
	for tx, err := range h.read(ctx, from, 0) {
		switch {
		case err != nil:
			return err
		case tx.End <= w.at.lsn && tx.Commit != w.at.lsn:
			w.last = tx.End
			continue
		}
		if !found {
			found = true
			w.view.Transaction = &WhyTransaction{Commit: tx.Commit.String(), Time: tx.Time, XID: tx.XID, Muted: tx.Muted, Next: tx.Commit > w.at.lsn}
		}
		for c, err := range tx.Changes(ctx, table) {
			if err != nil {
				return fmt.Errorf("reading the journal of %s: %w", tx.Commit, err)
			}
			if err := w.change(&tx, c); err != nil {
				return err
			}
		}
		if tx.final {
			break
		}
	}
	for o, n := range w.others {
		o.Changes = n
		w.view.Others = append(w.view.Others, o)
	}
	slices.SortFunc(w.view.Others, func(a, b WhyOthers) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Op, b.Op))
	})
	return w.stands(ctx)
}

// concerns says whether a change is of the rule's table, or its message.
func (w *whyAt) concerns(c *cdc.Change) bool {
	if c.Op == cdc.Emit {
		return w.rule.On.Message != "" && c.Prefix == "postman."+w.rule.On.Message
	}
	if w.rule.On.Message != "" || c.Table == nil {
		return false
	}
	if c.Table.TableName != w.rule.On.Table && w.naming.now(c.Table, w.at.epoch) == w.rule.On.Table {
		w.was = c.Table.TableName
		return true
	}
	return c.Table.TableName == w.rule.On.Table
}

func (w *whyAt) change(tx *section, c *cdc.Change) error {
	if !w.concerns(c) {
		o := WhyOthers{Table: c.Prefix, Op: c.Op.String()}
		if c.Table != nil {
			o.Table = c.Table.String()
		}
		w.others[o]++
		return nil
	}
	if len(w.view.Changes) == mostWhy {
		w.view.More++
		return nil
	}
	v := WhyChange{Ordinal: c.Ordinal}
	if c.Err != nil {
		v.Unread = c.Err.Error()
		w.view.Changes = append(w.view.Changes, v)
		return nil
	}
	// What is told outlives the memory that the change lies in.
	kept, err := cdc.ParseRest(c.AppendRest(nil, nil), c.Table)
	if err != nil {
		return err
	}
	v.Condition = ViewCondition(w.rule.Explain(tx.Tx, kept), w.mask)
	facts, err := rules.NewFacts(tx.Tx, kept)
	if err != nil {
		v.Unread = err.Error()
	} else {
		v.Change = ViewChange(kept, facts, w.rule.Sensitive, w.mask)
	}
	w.view.Changes = append(w.view.Changes, v)
	return nil
}

// stands tells which of the changes have a match of the rule in the outbox.
func (w *whyAt) stands(ctx context.Context) error {
	numbers, err := w.reach.store.Rules(ctx)
	if err != nil {
		return err
	}
	number, ok := numbers[w.rule.Name]
	if !ok || w.view.Transaction == nil {
		return nil
	}
	commit, err := position.ParseLSN(w.view.Transaction.Commit)
	if err != nil {
		return err
	}
	keys := make([]outbox.MatchKey, len(w.view.Changes))
	for i := range keys {
		keys[i] = outbox.MatchKey{LSN: commit, Ordinal: w.view.Changes[i].Ordinal, Rule: number}
	}
	known, err := w.reach.store.KnownMatches(ctx, w.reach.source.ID, w.at.epoch, keys)
	for i, k := range known {
		if k.ID != 0 {
			w.view.Changes[i].Match, w.view.Changes[i].State = k.ID, k.State.String()
		}
	}
	return err
}

// reasons tells what else stood in the rule's way.
func (w *whyAt) reasons(ctx context.Context, c *Config) error {
	say := func(format string, args ...any) {
		w.view.Reasons = append(w.view.Reasons, fmt.Sprintf(format, args...))
	}
	v, at := w.view, w.at
	switch {
	case v.Transaction == nil:
		say("no transaction is in the journal there or behind it: %s changed nothing that is published", cmp.Or(map[bool]string{true: "what has been committed since " + w.last.String()}[w.last != 0], "what was committed"))
	case v.Transaction.Next && w.last != 0:
		say("no commit lies there; between %s and %s, nothing was committed that changed anything published", w.last, v.Transaction.Commit)
	}
	if v.Transaction != nil && v.Transaction.Muted != "" {
		say("the transaction is muted (%s): its matches send nothing; postman replay --muted sends them", v.Transaction.Muted)
	}
	if w.was != (cdc.TableName{}) {
		say("the table %s was called %s then", w.rule.On.Table, w.was)
	}
	gaps, err := w.reach.store.Gaps(ctx)
	if err != nil {
		return err
	}
	for i := range gaps {
		g := &gaps[i]
		if g.Source == w.reach.source.ID && g.Epoch == at.epoch && (g.Rule == "" || g.Rule == w.rule.Name) && g.From <= at.lsn && (g.To == 0 || g.To >= at.lsn) {
			say("%s", inGap(g))
		}
	}
	if len(v.Changes) == 0 {
		for _, why := range notInJournal(w.naming.known, w.rule.On, at, at) {
			say("%s", why)
		}
		if len(v.Others) > 0 {
			say("the transaction changed nothing that the rule is on (%s)", w.on())
		}
	}
	return nil
}

func (w *whyAt) on() string {
	if w.rule.On.Message != "" {
		return "the message " + w.rule.On.Message
	}
	return "the table " + w.rule.On.Table.String()
}
