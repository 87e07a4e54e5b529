package rules

import (
	"fmt"
	"slices"
	"strings"

	"postman/cdc"
	"postman/value"
)

// Plan tries the rules of one table, as the stream describes it, on its changes. It finds them by what a change has (see
// docs/engine.md). One goroutine at a time.
type Plan struct {
	// OnMismatch, where it is set, is told of each rule that the index did not find for a change that it matches, or the other way
	// round: a defect of postman, which the daemon reports. The rule is nil where the index broke down as a whole. What counts
	// is what trying every rule says.
	OnMismatch func(r *Rule, err error)

	watch  *watch
	frame  frame
	search search
	audits [cdc.Emit]int // how many changes are left before the next audit
}

// watch is the rules of one table, and their indexes. It is immutable, and plans share it.
type watch struct {
	table *cdc.Table
	ops   [cdc.Emit]opRules
	lower *lowering // nil when the watch is complete
}

func newWatch(t *cdc.Table) *watch { return &watch{table: t, lower: newLowering()} }

// opRules are a table's rules on one operation, in the set's order.
type opRules struct {
	rules []tried
	index *index
}

// tried is a rule with its condition: as a tree (nil: every change), and as the parts of a conjunction, made ready for the
// operation.
type tried struct {
	rule  *Rule
	when  node
	parts all
}

// never says whether no change of the operation can match.
func (t *tried) never() bool { return t.parts[0] == always(False) }

// always says whether every one matches.
func (t *tried) always() bool { return t.parts[0] == always(True) }

// add takes a rule with its condition for the table.
func (w *watch) add(r *Rule, when node) {
	for _, op := range r.On.Ops {
		var condition clause = always(True)
		if when != nil {
			condition = w.lower.condition(specialize(when, op), false)
		}
		parts, ok := condition.(all)
		if !ok {
			parts = all{condition}
		}
		w.ops[op].rules = append(w.ops[op].rules, tried{r, when, parts})
	}
}

// index builds the indexes of a watch that is complete.
func (w *watch) index() {
	for op := range w.ops {
		w.ops[op].index = w.ops[op].grow(nil)
	}
	w.lower = nil
}

// prepare sorts the rules by what they are on, and builds the indexes. It does so once.
func (s *Set) prepare() {
	s.once.Do(func() {
		s.watches, s.messages = make(map[cdc.TableName]*watch), make(map[string][]*Rule)
		for _, r := range s.Rules {
			if name := r.On.Message; name != "" {
				s.messages[name] = append(s.messages[name], r)
				continue
			}
			w := s.watches[r.On.Table]
			if w == nil {
				w = newWatch(r.against)
				s.watches[r.On.Table] = w
			}
			w.add(r, r.When.node())
		}
		for _, w := range s.watches {
			w.index()
		}
	})
}

// Bind resolves the set's rules of one table. Rules that no longer fit it come back as Errors beside the plan of the others;
// Errors[i].Rule names them. The plan is nil where no rule is on the table, or none fits it.
func (s *Set) Bind(t *cdc.Table) (*Plan, error) {
	s.prepare()
	w := s.watches[t.TableName]
	switch {
	case w == nil:
		return nil, nil
	case w.table != nil && sameToRules(w.table, t):
		return newPlan(w), nil
	}
	w = newWatch(t)
	known := make(configs)
	var errs Errors
	fits := false
	for _, r := range s.Rules {
		if r.On.Message != "" || r.On.Table != t.TableName {
			continue
		}
		bound, mistakes := r.check(t, "", known)
		if errs = append(errs, mistakes...); len(mistakes) == 0 {
			fits = true
			w.add(r, bound.When.node())
		}
	}
	if !fits {
		return nil, errs.orNil()
	}
	w.index()
	return newPlan(w), errs.orNil()
}

// sameToRules says whether rules that were checked against one of the tables mean the same on the other. What only the catalog
// knows of a table, the check has seen.
func sameToRules(a, b *cdc.Table) bool {
	return a.TableName == b.TableName && a.Identity == b.Identity &&
		slices.EqualFunc(a.Columns, b.Columns, func(a, b cdc.Column) bool {
			return a.Name == b.Name && a.Type.OID == b.Type.OID && a.Type.Base == b.Type.Base && a.Key == b.Key
		})
}

func newPlan(w *watch) *Plan {
	p := &Plan{watch: w, frame: newFrame(w.table)}
	most := 0
	for op := range w.ops {
		most = max(most, w.ops[op].index.dictionaries)
	}
	p.search = search{frame: &p.frame, ids: make([]idCell, most)}
	return p
}

// Match finds the plan's rules on a change of its table whose verdict is not False, and calls yield for each, in the set's order.
func (p *Plan) Match(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) {
	if c.Op >= cdc.Emit || len(p.watch.ops[c.Op].rules) == 0 {
		return
	}
	o := &p.watch.ops[c.Op]
	p.frame.begin(tx, c)
	if p.audits[c.Op]--; p.audits[c.Op] < 0 {
		p.audits[c.Op] = o.auditEvery() - 1
		p.audit(o, yield)
		return
	}
	p.tryFound(o, yield)
}

// tryFound tries the rules that the index finds.
func (p *Plan) tryFound(o *opRules, yield func(*Rule, Verdict)) {
	found, err := p.find(o)
	if err != nil {
		p.tryAll(o, func(int, Verdict) {}, yield)
		return
	}
	for _, i := range found {
		if v := p.frame.judge(&o.rules[i]); v.Truth != False {
			yield(o.rules[i].rule, v)
		}
	}
}

// find asks the index. A panic is a defect of this package, and costs one change's speed and not the stream.
func (p *Plan) find(o *opRules) (found []uint32, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("asking the rules' index: %v", r)
			p.tell(nil, err)
		}
	}()
	return p.search.candidates(o.index), nil
}

// judge is a rule's verdict on the frame's change. What is undetermined is told by the tree: it knows the reason. A panic is a
// defect of this package, and costs one verdict and not the stream.
func (f *frame) judge(t *tried) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = panicked(p)
		}
	}()
	switch t.parts.try(f) {
	case False:
		return Verdict{}
	case True:
		return Verdict{Truth: True}
	case Undetermined:
	}
	return f.try(t.when)
}

// try evaluates a condition as a tree.
func (f *frame) try(when node) (v Verdict) {
	if when == nil {
		return Verdict{Truth: True}
	}
	defer func() {
		if p := recover(); p != nil {
			v = panicked(p)
		}
	}()
	f.early = false
	switch t := truth(when.eval(f)).(type) {
	case bool:
		return Verdict{Truth: truthOf(t)}
	case *absent:
		return Verdict{Truth: Undetermined, Err: t.err, Missing: t.column, Early: f.early}
	}
	return Verdict{}
}

func panicked(p any) Verdict {
	return Verdict{Truth: Undetermined, Err: fmt.Errorf("evaluating the rule: %v", p)}
}

// messagePrefix stands before the names of postman's messages.
const messagePrefix = "postman."

// MatchMessage tries the rules of a transactional message (prefix with "postman."), and says whether there are any.
func (s *Set) MatchMessage(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) bool {
	s.prepare()
	name, ok := strings.CutPrefix(c.Prefix, messagePrefix)
	if !ok || len(s.messages[name]) == 0 {
		return false
	}
	f := new(frame)
	f.begin(tx, c)
	f.message = readMessage(c.Content)
	for _, r := range s.messages[name] {
		if x, ok := f.message.(*absent); ok { // its mail could not be written either
			yield(r, Verdict{Truth: Undetermined, Err: x.err})
		} else if v := f.try(r.When.node()); v.Truth != False {
			yield(r, v)
		}
	}
	return true
}

// readMessage is a message's content, or an *absent that says why it cannot be read.
func readMessage(content []byte) any {
	v, err := value.DecodeJSON(content)
	if err != nil {
		return &absent{"message", fmt.Errorf("the message's content is no JSON: %w", err)}
	}
	return v
}
