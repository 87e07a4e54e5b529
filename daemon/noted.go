package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"postman/cdc"
	"postman/outbox"
	"postman/position"
	"postman/rules"
)

// What the store keeps beside the journal for those who read it later: which rules are live, and which tables were published when.
const (
	rulesNote     = "rules.zst"
	publishedNote = "published"
)

// liveRule is a rule that is live, as the store keeps it.
type liveRule struct {
	Name   string `json:"name"`
	Source string `json:"source"`
}

// publishedOp is a stretch in which a table was published for an operation; without a ToEpoch it still is.
type publishedOp struct {
	Table   cdc.TableName `json:"table"`
	Op      cdc.Op        `json:"op"`
	OID     uint32        `json:"oid,omitempty"`    // of the table, which another one of the same name has not; 0: not known
	Member  string        `json:"member,omitempty"` // its place in the publication, see [cdc.Database.Membership]; empty: not known
	Epoch   uint32        `json:"epoch"`
	From    position.LSN  `json:"from"`
	ToEpoch uint32        `json:"to_epoch,omitempty"`
	To      position.LSN  `json:"to,omitempty"`
}

// noteRules notes the live rules.
func (d *Daemon) noteRules(ctx context.Context) error {
	list, err := noteOf(d.live.Load().source.Rules)
	if err != nil {
		return err
	}
	return d.note(ctx, rulesNote, list)
}

// notePublished notes what is published for the live rules.
func (d *Daemon) notePublished(ctx context.Context, db *cdc.Database) error {
	before, err := readPublished(ctx, d.store, d.source)
	if err != nil {
		return err
	}
	at := d.source.Checkpoint
	if d.batch != nil {
		at = max(at, d.batch.durable())
	}
	l := d.live.Load()
	oid := d.oids(l)
	all := publishing(before, l, publishedNow{
		oid:    oid,
		member: func(table cdc.TableName, op cdc.Op) string { return db.Membership(d.config.Slot, oid(table), op) },
		at:     spot{d.source.Epoch, at}, looked: spot{d.source.Epoch, d.outlook.verified}, now: db.WALEnd,
	})
	published, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("noting what is published: %w", err)
	}
	return d.note(ctx, publishedNote, published)
}

// noteOf is a list of rules as the store keeps it: a JSON object for each, all compressed, since ten thousand rules are some megabytes.
func noteOf(list []*rules.Rule) ([]byte, error) {
	var note bytes.Buffer
	w, err := zstd.NewWriter(&note, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
	if err != nil {
		return nil, fmt.Errorf("noting the rules: %w", err)
	}
	lines := json.NewEncoder(w)
	for r, source := range rules.Sources(list) {
		if err := lines.Encode(liveRule{r.Name, string(source)}); err != nil {
			return nil, fmt.Errorf("noting rule %q: %w", r.Name, err)
		}
	}
	err = w.Close()
	return note.Bytes(), err
}

// readRules reads the live rules that were noted; nil, where no daemon did so yet.
func readRules(ctx context.Context, store outbox.Store, src outbox.Source) (list []liveRule, err error) {
	note, err := store.Note(ctx, src.ID, rulesNote)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which rules are live: %w", err)
	}
	r, err := zstd.NewReader(bytes.NewReader(note), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("reading which rules are live: %w", err)
	}
	defer r.Close()
	list = []liveRule{}
	for lines := json.NewDecoder(r); ; {
		var rule liveRule
		switch err := lines.Decode(&rule); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("reading which rules are live: %w", err)
		}
		list = append(list, rule)
	}
}

// knownRules reads the live rules of a source when they are asked for, and once.
func knownRules(ctx context.Context, store outbox.Store) func(source uint32) ([]liveRule, error) {
	read := make(map[uint32][]liveRule)
	return func(source uint32) (list []liveRule, err error) {
		list, ok := read[source]
		if !ok {
			list, err = readRules(ctx, store, outbox.Source{ID: source})
			read[source] = list
		}
		return list, err
	}
}

// note keeps what has changed.
func (d *Daemon) note(ctx context.Context, name string, text []byte) error {
	if known, err := d.store.Note(ctx, d.source.ID, name); err == nil && bytes.Equal(known, text) {
		return nil
	}
	return d.store.SaveNote(ctx, d.source.ID, name, text)
}

// oids tells which tables have which names, as far as the database was looked at last.
func (d *Daemon) oids(l *live) func(cdc.TableName) uint32 {
	catalog := cmp.Or(d.catalog.Load(), l.catalog) // setup never goes live
	return func(name cdc.TableName) uint32 { return oidIn(catalog, name) }
}

// publishedNow is what was found when the database was looked at.
type publishedNow struct {
	oid    func(cdc.TableName) uint32         // of a table; 0: it is not known
	member func(cdc.TableName, cdc.Op) string // its place in a publication
	at     spot                               // what the store covers
	looked spot                               // where the log ended at the look before
	now    position.LSN                       // where it ended at this one
}

// publishing brings what is known to be published up to date with what rules need. What is new is published from where the set says
// that it is or else from at on, which may be somewhat later than the truth; a table that only has another name, from where on it was; one that
// has left its publication and come back, up to the look before that, and from this one on.
func publishing(known []publishedOp, l *live, found publishedNow) []publishedOp {
	at, oids := found.at, found.oid
	type key struct {
		table cdc.TableName
		op    cdc.Op
	}
	since := make(map[key]position.LSN) // of all that is needed; 0: it is not known to be new
	for _, r := range l.source.Rules {
		if r.On.Message != "" {
			continue
		}
		var from position.LSN
		for _, n := range l.fresh {
			if n.name == r.Name {
				from = n.published
			}
		}
		for _, op := range r.On.Ops {
			since[key{r.On.Table, op}] = max(since[key{r.On.Table, op}], from)
		}
	}
	known = slices.Clone(known)
	left := make(map[key]bool)
	published := make(map[publishedOp]publishedOp) // by OID and operation alone
	for i := range known {
		p := &known[i]
		if p.ToEpoch != 0 {
			left[key{p.Table, p.Op}] = true
			continue
		}
		if p.OID != 0 {
			published[publishedOp{OID: p.OID, Op: p.Op}] = *p
		}
		oid := oids(p.Table)
		_, still := since[key{p.Table, p.Op}]
		if !still || oid != 0 && p.OID != 0 && oid != p.OID {
			p.ToEpoch, p.To = at.epoch, at.lsn
			continue
		}
		p.OID = cmp.Or(p.OID, oid)
		member := found.member(p.Table, p.Op)
		if oid != 0 && member != cmp.Or(p.Member, member) || oid != 0 && member == "" {
			p.ToEpoch, p.To = found.looked.epoch, found.looked.lsn
			left[key{p.Table, p.Op}] = true
			continue
		}
		p.Member = cmp.Or(p.Member, member)
		delete(since, key{p.Table, p.Op})
	}
	for k, from := range since {
		p := publishedOp{Table: k.table, Op: k.op, OID: oids(k.table), Member: found.member(k.table, k.op), Epoch: at.epoch, From: cmp.Or(from, at.lsn)}
		before, was := published[publishedOp{OID: p.OID, Op: p.Op}]
		switch {
		case p.Member == "" && p.OID != 0: // it is not published now
			continue
		case was && from == 0 && p.Member == cmp.Or(before.Member, p.Member): // else there was a break
			p.Epoch, p.From = before.Epoch, before.From
		case from == 0 && (was || left[k]):
			p.From = max(p.From, found.now)
		}
		known = append(known, p)
	}
	slices.SortStableFunc(known, func(a, b publishedOp) int {
		return cmp.Or(cmp.Compare(a.Table.String(), b.Table.String()), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.From, b.From))
	})
	return known
}

// readPublished reads what was noted; nothing, where no daemon did so yet.
func readPublished(ctx context.Context, store outbox.Store, src outbox.Source) (all []publishedOp, err error) {
	text, err := store.Note(ctx, src.ID, publishedNote)
	if errors.Is(err, outbox.ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was published: %w", err)
	}
	return all, nil
}

// before says whether a place comes before another.
func (s spot) before(t spot) bool {
	return s.epoch < t.epoch || s.epoch == t.epoch && s.lsn < t.lsn
}

// notInJournal says which of a rule's operations cannot be in the journal of what lies between two places, or in a part of that.
func notInJournal(known []publishedOp, on rules.On, from, to spot) (told []string) {
	if len(known) == 0 || on.Message != "" {
		return nil
	}
	byReason := make(map[string][]string)
	for _, op := range on.Ops {
		if why := unpublishedOp(known, on.Table, op, from, to); why != "" {
			byReason[why] = append(byReason[why], op.String())
		}
	}
	for _, why := range slices.Sorted(maps.Keys(byReason)) {
		told = append(told, fmt.Sprintf("the table %s %s (%s)", on.Table, why, strings.Join(byReason[why], ", ")))
	}
	return told
}

func unpublishedOp(known []publishedOp, table cdc.TableName, op cdc.Op, from, to spot) string {
	why := "was not published then: nothing of it is in the journal"
	at := from
	for i := range known {
		p := &known[i]
		begins, ends := spot{p.Epoch, p.From}, spot{p.ToEpoch, p.To}
		if p.Table != table || p.Op != op || to.before(begins) || p.ToEpoch != 0 && ends.before(at) {
			continue
		}
		if at.before(begins) {
			return fmt.Sprintf("is known to be published since %s only: what was committed before is not in the journal, or not all of it", p.From)
		}
		if p.ToEpoch == 0 || !ends.before(to) {
			return ""
		}
		why, at = fmt.Sprintf("was published up to %s only", p.To), ends
	}
	return why
}
