package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// domain is a type's values for random tests: few, so that rules match often, and with all that is peculiar to the type.
type domain struct {
	oid      uint32
	texts    []string // as Postgres prints them, and a few that it never would
	literals []string // in expressions
}

var domains = []domain{
	{pgtype.Int4OID, []string{"0", "1", "2", "3", "-1", "007", "one", ""}, []string{"0", "1", "2", "3", "-1", "1.0", "2.5"}},
	{pgtype.Int8OID, []string{"1", "2", "3", "9223372036854775807", "-9223372036854775808", "9007199254740993"}, []string{
		"1", "2", "3", "9223372036854775807", "9223372036854775808.0", "9007199254740992.0", "9007199254740993.0",
	}},
	{pgtype.NumericOID, []string{
		"1", "1.0", "1.00", "0", "-0", "0.000", "-1", "-1.5", "-10", "-100", "10", "100", "0.1", "2.50", "NaN", "Infinity", "-Infinity", "1e2", "12345678901234567890.10",
		"1000000000000000000000", "123456789012345678", "-123456789012345678", "1234567890123456789", "999999999999.999999", "1000000000000", "-1000000000000.0", "0.0000001", "0.0000000000000000000000001", ".5", "5.", "x",
	}, []string{
		"0", "1", "1.0", "-1", "-2.5", "-10", "-20", "10", "100.0", "0.1", "2.5", "12345678901234567890.1", "1000000000000000000000.0", "123456789012345678.0", "-123456789012345678.0", "999999999999.999999", "1000000000000", "0.5",
		"1234567890123456789.0", "0.0000000000000000000000001",
	}},
	{pgtype.Float8OID, []string{"0", "-0", "0.1", "1", "1e+20", "5e-324", "NaN", "Infinity", "-Infinity", "0.30000000000000004", "1.0000000000000000001", "y"}, []string{
		"0", "0.1", "1", "100000000000000000000.0", "0.3", "0.30000000000000004",
	}},
	{pgtype.TextOID, []string{"", "a", "ab", "abc", "b", "A", "a ", "é", "한글"}, []string{`""`, `"a"`, `"ab"`, `"abc"`, `"b"`, `"A"`, `"é"`, `"한"`}},
	{pgtype.BPCharOID, []string{"a  ", "a", "ab ", "b", "   ", ""}, []string{`"a"`, `"ab"`, `"b"`, `""`, `"a "`}},
	{pgtype.BoolOID, []string{"t", "f", "t", "f", "true"}, []string{"true", "false"}},
	{pgtype.UUIDOID, []string{uuidA, uuidB, strings.ToUpper(uuidA)}, []string{`"` + uuidA + `"`, `"` + uuidB + `"`}},
	{pgtype.TimestamptzOID, []string{
		"2026-03-04 15:30:00+00", "2026-03-04 15:30:00.5+00", "2026-03-04 15:30:00.500000+00", "2026-03-05 00:30:00+09", "infinity", "-infinity",
		"2026-03-05 00:00:00+00", "0044-03-15 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "2026-02-30 00:00:00+00", "2000-02-29 23:59:59+00", "soon",
	}, []string{
		`date("2026-03-04T15:30:00Z")`, `date("2026-03-04T15:30:00.5Z")`, `date("2026-03-05T00:00:00Z")`, `date("2000-02-29T23:59:59Z")`,
		`date("2026-03-04T15:30:00.0000001Z")`, `date("2026-03-04T15:30")`,
	}},
	{pgtype.TimestampOID, []string{
		"2026-03-04 15:30:00", "2026-03-04 15:30:00.000001", "2026-03-05 00:00:00", "infinity", "9999-12-31 23:59:59", "2026-3-4",
	}, []string{`date("2026-03-04T15:30")`, `date("2026-03-05")`, `date("9999-12-31T23:59:59")`, `(date("2026-03-04") + duration("1d"))`, `(date("2026-03-04") + duration("300000000d"))`}},
	{pgtype.DateOID, []string{"2026-03-04", "2026-03-05", "0001-01-01", "0044-03-15 BC", "-infinity", "10000-01-01", "5874897-12-31", "2026-02-29", "2024-02-29", "1900-02-29", "1900-03-01"}, []string{
		`date("2026-03-04")`, `date("2026-03-05")`, `date("0001-01-01")`, `date("2024-02-29")`,
	}},
	{pgtype.JSONBOID, []string{`{"a": 1, "b": "x"}`, `{"a": "1"}`, `[1, "x"]`, "null", "true", "{", `"x"`}, []string{"1", `"x"`, "nil"}},
	{pgtype.TextArrayOID, []string{"{}", "{a}", "{a,NULL}", "{b,a}", "{"}, []string{}},
	{pgtype.Int4ArrayOID, []string{"{}", "{1}", "{1,2,3}", "{{1},{2}}"}, []string{}},
	{pgtype.ByteaOID, []string{`\x00`, `\x6869`, `\xzz`}, []string{`b"hi"`, `b"\x00"`}},
	{enumOID, []string{"open", "won", "lost"}, []string{`"open"`, `"won"`, `"lost"`}},
}

const (
	enumOID = 16400
	uuidA   = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	uuidB   = "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
)

// world is a random table, with rules on it and changes of it.
type world struct {
	*rand.Rand
	table   *cdc.Table
	domains []domain // by column
	zone    *time.Location
	leaves  []condition
}

// condition is an expression and the tree that the check makes of it.
type condition struct {
	source string
	node   node
}

func newWorld(seed uint64) *world {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1))}
	w.zone = []*time.Location{nil, time.UTC}[w.IntN(2)]
	w.table = &cdc.Table{
		TableName: cdc.TableName{Schema: "public", Name: "things"},
		Identity:  []cdc.Identity{cdc.IdentityFull, cdc.IdentityFull, cdc.IdentityDefault, cdc.IdentityIndex, cdc.IdentityNothing}[w.IntN(5)],
	}
	for i := range 3 + w.IntN(6) {
		d := domains[w.IntN(len(domains))]
		c := col(fmt.Sprintf("c%d", i), d.oid)
		if d.oid == enumOID {
			c.Type.Base, c.Enum = pgtype.TextOID, d.texts
		}
		c.Key = w.table.Identity == cdc.IdentityFull || w.table.Identity != cdc.IdentityNothing && w.IntN(3) == 0
		w.table.Columns, w.domains = append(w.table.Columns, c), append(w.domains, d)
	}
	for len(w.leaves) < 40 {
		if c, ok := w.checked(w.leaf()); ok {
			w.leaves = append(w.leaves, c)
		}
	}
	return w
}

// checked has the check make a tree of a condition. Most of those that it refuses compare unlike things.
func (w *world) checked(source string) (condition, bool) {
	t, problems := checkExpr(source, env{table: w.table, ops: everyOp, zone: w.zone})
	return condition{source, t.root}, len(problems) == 0 && t.typ.condition()
}

func (w *world) of(words ...string) string { return words[w.IntN(len(words))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

// condition makes a random condition. The trees of its parts are joined here as the check does, which takes a tenth of the
// time; sometimes the check makes the whole.
func (w *world) condition(depth int) (c condition) {
	switch n := w.IntN(20); {
	case depth > 2 || n < 6:
		return w.leaves[w.IntN(len(w.leaves))]
	case n < 14:
		c = w.chain("and", depth)
	case n < 17:
		c = w.chain("or", depth)
	case n < 18:
		of, a, b := w.condition(depth+1), w.condition(depth+1), w.condition(depth+1)
		c = condition{fmt.Sprintf("(%s ? %s : %s)", of.source, a.source, b.source), &choice{of.node, a.node, b.node}}
	case n < 19:
		a, b := w.condition(depth+1), w.condition(depth+1)
		c = condition{fmt.Sprintf("((%s) == (%s))", a.source, b.source), &equality{a.node, b.node, false}}
	default:
		of := w.condition(depth + 1)
		c = condition{fmt.Sprintf("not (%s)", of.source), &not{of.node}}
	}
	if depth == 0 && w.chance(5) {
		if whole, ok := w.checked(c.source); ok {
			return whole
		}
	}
	return c
}

func (w *world) chain(operator string, depth int) condition {
	c := w.condition(depth + 1)
	for range 1 + w.IntN(3) {
		next := w.condition(depth + 1)
		c = condition{fmt.Sprintf("(%s %s %s)", c.source, operator, next.source), &junction{c.node, next.node, operator == "or"}}
	}
	return c
}

// leaf compares one column with something.
func (w *world) leaf() string {
	if w.chance(8) {
		return w.of(`op == "insert"`, `op == "update"`, `op != "delete"`, `op in ["insert", "truncate"]`, "true", "xid == 77", "commit_time == date(\"2026-03-04T12:00:00Z\")")
	}
	i := w.IntN(len(w.domains))
	d, name := w.domains[i], w.table.Columns[i].Name
	c := w.of("new.", "new.", "old.") + name
	literal := func() string {
		if len(d.literals) == 0 || w.chance(8) {
			return "nil"
		}
		return w.of(d.literals...)
	}
	other := w.of("new.", "old.") + w.table.Columns[w.IntN(len(w.domains))].Name
	if w.chance(60) && d.oid != pgtype.BoolOID {
		other = w.of("new.", "old.") + name
	}
	forms := []func() string{
		func() string { return c + " == " + literal() },
		func() string { return literal() + " == " + c },
		func() string { return c + " == " + literal() },
		func() string { return c + " != " + literal() },
		func() string {
			return c + w.of(" in [", " in [", " not in [") + literal() + ", " + literal() + ", " + literal() + "]"
		},
		func() string { return "changed(new." + name + ")" },
		func() string { return "old." + name + w.of(" != ", " == ") + "new." + name },
		func() string { return c + w.of(" < ", " <= ", " > ", " >= ") + literal() },
		func() string { return literal() + w.of(" < ", " <= ", " > ", " >= ") + c },
		func() string { return literal() + " < " + c + " <= " + literal() },
		func() string { return c + w.of(" < ", " <= ", " > ", " >= ", " == ", " != ") + other },
		func() string { return "(" + c + " ?? " + literal() + ") == " + literal() },
	}
	return w.of(slices.Concat(w.each(forms), w.special(c, literal))...)
}

func (w *world) each(forms []func() string) (made []string) {
	for _, f := range forms {
		made = append(made, f())
	}
	return made
}

// special are conditions that go with a column's type; none go with many.
func (w *world) special(c string, literal func() string) []string {
	return []string{
		c + w.of(" startsWith ", " startsWith ", " endsWith ", " contains ") + literal(),
		c + w.of(` matches "^a"`, ` matches "b.?$"`),
		"lower(" + c + ") == " + literal(),
		"len(" + c + w.of(") > 1", ") == 2"),
		c + w.of(" in 1..2", " in -1..3", " in 0..0", " not in 1..9223372036854775807"),
		c + w.of(" + 1 == ", " * 2 > ", " - 1 <= ", " / 3 < ") + literal(),
		"any(" + c + ", # == " + w.of("1", `"a"`, "nil") + ")",
		w.of("1", `"a"`, `"x"`) + " in " + c,
		c + w.of(".a == ", "[0] == ", ".b == ") + literal(),
		c, "not " + c, c + w.of(" == ", " != ") + "nil",
	}
}

// rules are random ones. Each is about what it says.
func (w *world) rules(number int) (rules []*Rule, trees []node) {
	for i := range number {
		r := &Rule{Name: fmt.Sprint("r", i)}
		for _, op := range everyOp {
			if w.chance(65) {
				r.On.Ops = append(r.On.Ops, op)
			}
		}
		var when condition
		if w.chance(98) {
			when = w.condition(0)
		}
		r.About = when.source
		rules, trees = append(rules, r), append(trees, when.node)
	}
	return rules, trees
}

// change is a random change, sometimes one that no Postgres would send.
func (w *world) change() *cdc.Change {
	c := &cdc.Change{Op: []cdc.Op{cdc.Insert, cdc.Update, cdc.Update, cdc.Delete, cdc.Truncate}[w.IntN(5)], Table: w.table}
	now := w.row()
	if hasRow(c.Op, newRow) {
		c.New = cdc.MakeTuple(now)
	}
	if !hasRow(c.Op, oldRow) {
		return w.damage(c)
	}
	then := slices.Clone(now)
	for i, d := range w.row() {
		if w.chance(40) {
			then[i] = d
		}
	}
	switch {
	case w.table.Identity == cdc.IdentityFull:
		c.Old = cdc.MakeTuple(then)
	case c.Op == cdc.Delete || w.chance(50):
		c.OldKey = true
		for i := range then {
			if !w.table.Columns[i].Key {
				then[i] = value.Datum{}
			}
		}
		c.Old = cdc.MakeTuple(then)
	}
	return w.damage(c)
}

func (w *world) row() []value.Datum {
	row := make([]value.Datum, len(w.domains))
	for i, d := range w.domains {
		switch n := w.IntN(100); {
		case n < 10:
		case n < 16:
			row[i].State = value.Unavailable
		case n < 17:
			row[i].State = value.Blanked
		default:
			row[i] = value.Of(w.of(d.texts...))
		}
	}
	return row
}

func (w *world) damage(c *cdc.Change) *cdc.Change {
	if len(c.New) > 3 && w.chance(2) {
		c.New = c.New[:w.IntN(len(c.New))]
	}
	if len(c.Old) > 3 && w.chance(2) {
		c.Old = c.Old[:w.IntN(len(c.Old))]
	}
	return c
}

// said is what was said of a change, rule by rule.
type said struct {
	rule *Rule
	Verdict
}

// naively tries every rule's tree on a change, in a frame of its own.
func naively(rules []*Rule, trees []node, c *cdc.Change) (all []said) {
	f := newFrame(c.Table)
	f.begin(testTx, c)
	for i, r := range rules {
		if !slices.Contains(r.On.Ops, c.Op) {
			continue
		}
		if v := f.try(trees[i]); v.Truth != False {
			all = append(all, said{r, v})
		}
	}
	return all
}

// planOf is a plan of rules with their trees.
func planOf(t *cdc.Table, rules []*Rule, trees []node) *Plan {
	w := newWatch(t)
	for i, r := range rules {
		w.add(r, trees[i])
	}
	w.index()
	return newPlan(w)
}

// byIndex is what the plan says of a change without trying every rule. An index that breaks down does not go unnoticed.
func (p *Plan) byIndex(c *cdc.Change) (all []said) {
	p.OnMismatch = func(_ *Rule, err error) { all = append(all, said{nil, Verdict{Err: err}}) }
	p.frame.begin(testTx, c)
	p.tryFound(&p.watch.ops[c.Op], func(r *Rule, v Verdict) { all = append(all, said{r, v}) })
	return all
}

// differing shows where two lists of what was said part ways. An error's text counts, and not which error it is.
func differing(a, b []said) string {
	for i := range max(len(a), len(b)) {
		var x, y said
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x.rule != y.rule || x.Truth != y.Truth || x.Missing != y.Missing || fmt.Sprint(x.Err) != fmt.Sprint(y.Err) {
			return fmt.Sprintf("\n  %+v of %s\n  %+v of %s", x.Verdict, x.about(), y.Verdict, y.about())
		}
	}
	return ""
}

func (s said) about() string {
	if s.rule == nil {
		return "nothing more"
	}
	return s.rule.Name + ": " + s.rule.About
}

// tally counts what the pairs of a rule and a change came to.
type tally struct{ pairs, tried, true, undetermined, failed atomic.Int64 }

func (n *tally) add(pairs, tried int, all []said) {
	n.pairs.Add(int64(pairs))
	n.tried.Add(int64(tried))
	for _, s := range all {
		switch {
		case s.Err != nil:
			n.failed.Add(1)
		case s.Truth == True:
			n.true.Add(1)
		default:
			n.undetermined.Add(1)
		}
	}
}

// TestIndex holds that the index finds just what trying every rule's tree finds, in the same order, on random tables, rules
// and changes; and that neither rules that have nothing to do with it nor their order change what is found.
func TestIndex(t *testing.T) {
	t.Parallel()
	const worlds = 120
	var n tally
	t.Run("worlds", func(t *testing.T) {
		for part := range 4 {
			t.Run(fmt.Sprint(part), func(t *testing.T) {
				t.Parallel()
				for seed := part; seed < worlds && !t.Failed(); seed += 4 {
					newWorld(uint64(seed)).check(t, &n)
				}
			})
		}
	})
	t.Logf("%d pairs of a rule and a change, %d tried: %d true, %d undetermined, %d failed",
		n.pairs.Load(), n.tried.Load(), n.true.Load(), n.undetermined.Load(), n.failed.Load())
	for what, few := range map[string]bool{
		"pairs": n.pairs.Load() < 1_000_000, "matches": n.true.Load() < n.pairs.Load()/20, "undetermined": n.undetermined.Load() < n.pairs.Load()/50,
		"failures": n.failed.Load() < n.pairs.Load()/50, "rules passed over": n.tried.Load() > n.pairs.Load()*4/5,
	} {
		if few {
			t.Errorf("there were too few %s", what)
		}
	}
}

func (w *world) check(t *testing.T, n *tally) {
	t.Helper()
	rules, trees := w.rules([]int{5, 30, 100, 300, 300, 300}[w.IntN(6)])
	plan := planOf(w.table, rules, trees)
	more, moreTrees, original := w.among(rules, trees)
	crowded := planOf(w.table, more, moreTrees)
	for i := range 13_200 / len(rules) {
		c := w.change()
		want := naively(rules, trees, c)
		got := plan.byIndex(c)
		n.add(len(plan.watch.ops[c.Op].rules), len(plan.search.found), got)
		if diff := differing(want, got); diff != "" {
			t.Errorf("%+v\n of %s: trying every rule, and the index, say %s", w.table, shown(c), diff)
			return
		}
		if i%4 > 0 {
			continue
		}
		among := slices.DeleteFunc(crowded.byIndex(c), func(s said) bool { return original[s.rule.Name] == 0 })
		slices.SortFunc(among, func(a, b said) int { return original[a.rule.Name] - original[b.rule.Name] })
		if diff := differing(want, among); diff != "" {
			t.Errorf("%+v\n of %s: alone, and among others, they say %s", w.table, shown(c), diff)
			return
		}
	}
}

// among shuffles the rules, with others among them. original numbers the rules by their names, from 1.
func (w *world) among(rules []*Rule, trees []node) (more []*Rule, moreTrees []node, original map[string]int) {
	original = make(map[string]int)
	for i, r := range rules {
		original[r.Name] = i + 1
	}
	others, otherTrees := w.rules(10)
	for _, r := range others {
		r.Name = "other " + r.Name
	}
	rules, trees = append(rules[:len(rules):len(rules)], others...), append(trees[:len(trees):len(trees)], otherTrees...)
	for _, i := range w.Perm(len(rules)) {
		more, moreTrees = append(more, rules[i]), append(moreTrees, trees[i])
	}
	return more, moreTrees, original
}

func shown(c *cdc.Change) string {
	now, err1 := c.New.Datums(nil)
	then, err2 := c.Old.Datums(nil)
	return fmt.Sprintf("%s new %q (%v) old %q (%v, key only %v)", c.Op, now, err1, then, err2, c.OldKey)
}

// FuzzIndex goes on where TestIndex ends.
func FuzzIndex(f *testing.F) {
	for seed := range 3 {
		f.Add(uint64(1000 + seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64) { newWorld(seed).check(t, new(tally)) })
}
