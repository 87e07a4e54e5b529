package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postman/cdc"
)

// explained is the trace of one rule on one change.
func explained(t *testing.T, rule string, c cdc.Change) *Trace {
	t.Helper()
	set := compile(t, rule)
	c.Table = set.Rules[0].against
	return set.Rules[0].Explain(testTx, &c)
}

// told is a trace as a test reads it: a line for each condition, with the values that it looks at.
func told(t *Trace) string {
	if t.When == nil {
		return t.Excluded
	}
	var b strings.Builder
	tell(&b, t.When, "")
	return b.String()
}

var marks = map[Truth]string{False: "✗", True: "✓", Undetermined: "?"}

func tell(b *strings.Builder, s *Step, indent string) {
	mark, words := marks[s.Truth], s.Text
	if s.Idle {
		mark += "·"
	}
	if s.Kind != ClauseStep {
		words = s.Kind.String()
	}
	fmt.Fprintf(b, "%s%s %s", indent, mark, words)
	for _, p := range s.Parts {
		tellValue(b, p)
	}
	if s.Note != "" {
		b.WriteString(" # " + s.Note)
	}
	b.WriteByte('\n')
	for _, p := range s.Parts {
		if p.Kind != ValueStep {
			tell(b, p, indent+"  ")
		}
	}
}

func tellValue(b *strings.Builder, s *Step) {
	if s.Kind != ValueStep {
		return
	}
	fmt.Fprintf(b, " [%s = %s", s.Text, s.Value)
	for _, p := range s.Parts {
		tellValue(b, p)
	}
	if s.Note != "" {
		b.WriteString(" (" + s.Note + ")")
	}
	b.WriteString("]")
}

// TestExplain holds what a trace tells of each kind of part, and what it notes.
func TestExplain(t *testing.T) {
	t.Parallel()
	table := schedules()
	update := func(now, then row) cdc.Change {
		return cdc.Change{Op: cdc.Update, New: now.tuple(table), Old: then.tuple(table)}
	}
	insert := func(now row) cdc.Change { return cdc.Change{Op: cdc.Insert, New: now.tuple(table)} }
	for name, c := range map[string]struct {
		when   string
		change cdc.Change
		want   string
	}{
		"a conjunction": {`new.status == "won" and new.price > 1000`, insert(row{"status": "won", "price": "20.50"}), `
✗ and
  ✓ new.status == "won" [new.status = "won"]
  ✗ new.price > 1000 [new.price = 20.50]`},
		"an order with NULL": {`new.price > 1000`, insert(row{}), `
✗ new.price > 1000 [new.price = NULL] # an order with NULL is false`},
		"a negated order with NULL": {`not (new.price > 1000)`, insert(row{}), `
✓ not
  ✗ new.price > 1000 [new.price = NULL] # an order with NULL is false`},
		"text with NULL":     {`new.note contains "x"`, insert(row{}), "\n" + `✗ new.note contains "x" [new.note = NULL] # with NULL, contains is false`},
		"matches with NULL":  {`new.note matches "x"`, insert(row{}), "\n" + `✗ new.note matches "x" [new.note = NULL] # with NULL, matches is false`},
		"equality with NULL": {`new.note != "x"`, insert(row{}), "\n" + `✓ new.note != "x" [new.note = NULL] # NULL equals NULL only`},
		"asking for NULL":    {`new.note != nil`, insert(row{"note": "x"}), "\n" + `✓ new.note != nil [new.note = "x"]`},
		"not in with NULL":   {`new.note not in ["x", "y"]`, insert(row{}), "\n" + `✓ new.note not in ["x", "y"] [new.note = NULL] # NULL equals NULL only`},
		"NULL as condition":  {`not new.vacant`, insert(row{}), "\n✓ not\n  ✗ new.vacant [new.vacant = NULL] # NULL counts as false"},
		"a disjunction": {`new.id == 1 or new.id == 2 and op == "insert"`, insert(row{"id": "1"}), `
✓ or
  ✓ new.id == 1 [new.id = 1]
  ✗· and
    ✗· new.id == 2 [new.id = 1]
    ✓· op == "insert" [op = "insert"]`},
		"a choice": {`new.vacant ? new.id == 1 : new.id == 2`, insert(row{"id": "1", "vacant": "t"}), `
✓ if
  ✓ new.vacant [new.vacant = true]
  ✓ new.id == 1 [new.id = 1]
  ✗· new.id == 2 [new.id = 1]`},
		"a chain of orders": {`0 < new.id <= 3`, insert(row{"id": "5"}), "\n✗ and\n  ✓ 0 < new.id [new.id = 5]\n  ✗ new.id <= 3 [new.id = 5]"},
		"functions":         {`lower(trim(new.status)) == "won"`, insert(row{"status": " WON"}), "\n" + `✓ lower(trim(new.status)) == "won" [lower(trim(new.status)) = "won" [trim(new.status) = "WON" [new.status = " WON"]]]`},
		"arithmetic":        {`new.price * 2 > new.rate`, insert(row{"price": "1.50", "rate": "0.1"}), "\n✓ new.price * 2 > new.rate [new.price * 2 = 3.00 [new.price = 1.50]] [new.rate = 0.1]"},
		"changed":           {`changed(new.status)`, update(row{"status": "won"}, row{"status": "open"}), "\n" + `✓ changed(new.status) [old.status = "open"] [new.status = "won"]`},
		"changed from NULL": {`old.status != new.status`, update(row{"status": "won"}, row{}), "\n" + `✓ old.status != new.status [old.status = NULL] [new.status = "won"] # NULL equals NULL only`},
		"old of an insert":  {`old.status == new.status`, insert(row{}), "\n" + `✓ old.status == new.status [old.status = NULL (an insert has no old row)] [new.status = NULL]`},
		"moments":           {`new.starts_at < date("2026-03-05T00:00:00+09:00")`, insert(row{"starts_at": "2026-03-04 15:30:00+00"}), "\n" + `✗ new.starts_at < date("2026-03-05T00:00:00+09:00") [new.starts_at = 2026-03-04 15:30:00+00]`},
		"JSON":              {`new.data.a.b == 1 and new.data["c d"]`, insert(row{"data": `{"a": {"b": 1}, "c d": "x"}`}), "\n✗ and\n" + `  ✓ new.data.a.b == 1 [new.data.a.b = 1]` + "\n" + `  ✗ new.data["c d"] [new.data["c d"] = "x"] # not true or false, which counts as false`},
		"a list":            {`any(new.tags, # == "vip")`, insert(row{"tags": "{new,vip}"}), "\n" + `✓ any(new.tags, # == "vip") [new.tags = ["new", "vip"]]` + "\n" + `  ✗ # == "vip" [# = "new"]` + "\n" + `  ✓ # == "vip" [# = "vip"]`},
		"a list that is NULL": {
			`any(new.tags, # == "vip") or "x" in new.tags`, insert(row{}), "\n✗ or\n" + `  ✗ any(new.tags, # == "vip") [new.tags = NULL] # a list that is NULL has no items` + "\n" +
				`  ✗ "x" in new.tags [new.tags = NULL] # a list that is NULL has no items`,
		},
		"brackets, comments and lines": {"(new.id == 1 // one\n  or (new.id == 2)) and (new.vacant)", insert(row{"id": "2", "vacant": "t"}), `
✓ and
  ✓ or
    ✗· new.id == 1 [new.id = 2]
    ✓ new.id == 2 [new.id = 2]
  ✓ new.vacant [new.vacant = true]`},
		"a constant": {`true`, insert(row{}), "\n✓ true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explained(t, "rules:\n  - name: a\n    on: {table: schedules, ops: [insert, update]}\n    to: new.note\n    template: x\n    when: |\n      "+
				strings.ReplaceAll(c.when, "\n", "\n      ")+"\n", c.change)
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n")+"\n", told(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestExplainUnknown holds what a trace tells of what the stream does not carry, of what does not decode and of what was erased.
func TestExplainUnknown(t *testing.T) {
	t.Parallel()
	toast := `a long value that the update did not touch: Postgres does not send it again`
	for name, c := range map[string]struct {
		rule    string
		change  cdc.Change
		want    string
		verdict Verdict
	}{
		"an unchanged long value": {
			`{name: a, on: {table: customers, ops: [update]}, when: 'new.note == "x" and new.id == 1', to: new.email, template: x}`,
			cdc.Change{Op: cdc.Update, New: row{"id": "1", "note": unsent}.tuple(customers())},
			`? and
  ? new.note == "x" [new.note =  (` + toast + `)] # it hangs on new.note, which is not known
  ✓ new.id == 1 [new.id = 1]
`,
			Verdict{Truth: Undetermined, Missing: "new.note"},
		},
		"one that another part decides for": {
			`{name: a, on: {table: customers, ops: [update]}, when: 'lower(new.note) == "x" and new.id == 1', to: new.email, template: x}`,
			cdc.Change{Op: cdc.Update, New: row{"id": "2", "note": unsent}.tuple(customers())},
			`✗ and
  ?· lower(new.note) == "x" [lower(new.note) =  [new.note =  (` + toast + `)] (it hangs on new.note)] # it hangs on new.note, which is not known
  ✗ new.id == 1 [new.id = 2]
`,
			Verdict{},
		},
		"changed of an unchanged long value": {
			`{name: a, on: {table: schedules, ops: [update]}, when: changed(new.note), to: new.note, template: x}`,
			cdc.Change{Op: cdc.Update, New: row{"note": unsent}.tuple(schedules()), Old: row{"note": unsent}.tuple(schedules())},
			`✗ changed(new.note) [old.note =  (` + toast + `)] [new.note =  (` + toast + `)] # not sent again, so it did not change
`,
			Verdict{},
		},
		"a value that does not decode": {
			`{name: a, on: {table: customers, ops: [insert]}, when: 'new.id > 1', to: new.email, template: x}`,
			cdc.Change{Op: cdc.Insert, New: row{"id": "one"}.tuple(customers())},
			`? new.id > 1 [new.id =  (column new.id: a value of 3 bytes is no int8)] # column new.id: a value of 3 bytes is no int8
`,
			Verdict{Truth: Undetermined, Missing: "new.id"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explained(t, "rules:\n  - "+c.rule+"\n", c.change)
			if diff := cmp.Diff(c.want, told(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			got.Verdict.Err = nil
			if got.Verdict != c.verdict {
				t.Errorf("the verdict is %+v, want %+v", got.Verdict, c.verdict)
			}
		})
	}
}

// TestExplainOldKey holds that a column outside of the replica identity is told from NULL. Such a rule is refused at load: it is one
// whose table was altered since.
func TestExplainOldKey(t *testing.T) {
	t.Parallel()
	set := compile(t, `rules: [{name: a, on: {table: schedules, ops: [update]}, when: 'old.status == "x"', to: new.note, template: x}]`)
	table := schedules()
	table.Identity = cdc.IdentityDefault
	got := set.Rules[0].Explain(testTx, &cdc.Change{Op: cdc.Update, Table: table, New: row{"id": "1"}.tuple(table)})
	want := `? old.status == "x" [old.status =  (not in the stream: the replica identity of schedules does not carry it)] # it hangs on old.status, which is not known
`
	if diff := cmp.Diff(want, told(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	table.Columns = table.Columns[:1]
	got = set.Rules[0].Explain(testTx, &cdc.Change{Op: cdc.Update, Table: table, New: row{"id": "1"}.tuple(table)})
	if got.When != nil || got.Verdict.Err == nil || !strings.Contains(got.Verdict.Err.Error(), "has no column status") {
		t.Errorf("%+v", got)
	}
}

func TestExplainExcluded(t *testing.T) {
	t.Parallel()
	onTable := `rules: [{name: a, on: {table: customers, ops: [insert, update]}, to: new.email, template: x}]`
	onMessage := `rules: [{name: a, on: {message: reset}, when: message.urgent, to: message.email, template: x}]`
	for name, c := range map[string]struct {
		rule   string
		change cdc.Change
		want   string
	}{
		"another operation":       {onTable, cdc.Change{Op: cdc.Delete, Table: customers()}, "the rule is on insert and update, and this is a delete"},
		"another table":           {onTable, cdc.Change{Op: cdc.Update, Table: visits()}, "the rule is on the table customers, and this is a change of shop.Visits"},
		"a message":               {onTable, cdc.Change{Op: cdc.Emit, Prefix: "postman.reset"}, "the rule is on the table customers, and this is a message"},
		"another message":         {onMessage, cdc.Change{Op: cdc.Emit, Prefix: "postman.resets"}, "the rule is on the message postman.reset, and this is postman.resets"},
		"a row and no message":    {onMessage, cdc.Change{Op: cdc.Insert, Table: customers()}, "the rule is on the message postman.reset, and this is a change of customers"},
		"the table, no condition": {onTable, cdc.Change{Op: cdc.Insert, Table: customers(), New: row{}.tuple(customers())}, ""},
		"the message":             {onMessage, cdc.Change{Op: cdc.Emit, Prefix: "postman.reset", Content: []byte(`{"urgent": true}`)}, "✓ message.urgent [message.urgent = true]\n"},
	} {
		got := compile(t, c.rule).Rules[0].Explain(testTx, &c.change)
		if told(got) != c.want {
			t.Errorf("%s: %q, want %q", name, told(got), c.want)
		}
		if excluded := got.Excluded != ""; excluded != (got.Verdict.Truth == False) {
			t.Errorf("%s: %+v", name, got.Verdict)
		}
	}
	broken := compile(t, onMessage).Rules[0].Explain(testTx, &cdc.Change{Op: cdc.Emit, Prefix: "postman.reset", Content: []byte(`{`)})
	if broken.Verdict.Err == nil || broken.Verdict.Truth != Undetermined {
		t.Errorf("%+v", broken)
	}
}

// TestExplainHides holds that a trace shows no sensitive value, nor one that is made of it.
func TestExplainHides(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for when, table := range map[string]string{
		`new.note == "x" or upper(new.note) == "Y" or len(new.note) > 3 or old.note != new.note or changed(new.note)`: "schedules",
		`any(new.tags, # == "x" or lower(#) contains "y") or "x" in new.tags or any(["a", new.note], # == "x")`:       "schedules",
		`(new.note ?? "") + "hunter" == "x" or (new.vacant ? new.note : "b") == "a" or new.data.a.note == "z"`:        "schedules",
		`message.token == "x" or "x" in message or message.deep.token == "y" or message.list[0] == message.token`:     "",
	} {
		on, c := "{message: m}", cdc.Change{Op: cdc.Emit, Prefix: "postman.m", Content: []byte(`{"token": "` + secret + `", "deep": {"token": "` + secret + `"}, "list": [1]}`)}
		if table != "" {
			r := row{"note": secret, "tags": "{" + secret + ",b}", "data": `{"a": {"note": "` + secret + `"}}`, "vacant": "t"}
			on, c = "{table: schedules, ops: [update]}", cdc.Change{Op: cdc.Update, New: r.tuple(schedules()), Old: row{"note": strings.ToUpper(secret)}.tuple(schedules())}
		}
		hidden := "schedules.note, schedules.tags, schedules.data"
		if table == "" {
			hidden = "message.m.token, message.m.deep"
		}
		got := told(explained(t, "sensitive: ["+hidden+"]\nrules:\n  - name: a\n    on: "+on+
			"\n    to: {address: a@example.com}\n    template: x\n    when: |\n      "+when+"\n", c))
		if strings.Contains(strings.ToLower(got), secret) || !strings.Contains(got, "<sensitive>") {
			t.Errorf("%s:\n%s", when, got)
		}
	}
}

// TestExplainPlaces holds that a step knows where in the rule file it stands, and which part of the expression it is.
func TestExplainPlaces(t *testing.T) {
	t.Parallel()
	got := explained(t, `rules:
  - name: a
    on: {table: schedules, ops: [insert]}
    when: |
      new.id == 1
        and (new.note == "한글"   // a note
             or new.vacant)
    to: new.note
    template: x
`, cdc.Change{Op: cdc.Insert, New: row{}.tuple(schedules())})
	var places []string
	for c := range got.Clauses() {
		places = append(places, fmt.Sprintf("%d:%d %d-%d %s", c.Place.Line, c.Place.Column, c.From, c.To, c.Text))
	}
	want := []string{"5:7 0-11 new.id == 1", `6:14 19-35 new.note == "한글"`, "7:17 58-68 new.vacant"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestTraceText holds how a trace looks.
func TestTraceText(t *testing.T) {
	t.Parallel()
	table := schedules()
	const rule = `rules:
  - name: a
    on: {table: schedules, ops: [insert, update]}
    to: new.note
    template: x
    when: |
      new.status == "won"
      and (new.kind in ["call", "viewing"] or new.price > 1000)
      and old.note != new.note and lower(new.status) + lower(new.status) != "가나"
      and not new.vacant and not (new.id == 5 and new.customer_id == 7) and not (not (new.id == 6))
      and any(new.tags, # == "v") and (new.vacant ? new.id == 1 : new.id == 2)
`
	for name, c := range map[string]struct {
		change cdc.Change
		want   string
	}{
		"an update": {
			cdc.Change{
				Op: cdc.Update, New: row{"id": "5", "status": "won", "price": "2000.50", "note": "ㄴ", "tags": "{a,v}"}.tuple(table), Old: row{"note": "ㄱ"}.tuple(table),
			}, `
 7  ✓ new.status == "won"                               new.status = "won"
 8  ✓ one of these:
 8  ·   new.kind in ["call", "viewing"]                 new.kind = NULL — NULL equals NULL only (false, not needed)
 8  ✓   new.price > 1000                                new.price = 2000.50
 9  ✓ old.note != new.note                              "ㄱ" → "ㄴ"
 9  ✓ lower(new.status) + lower(new.status) != "가나"   lower(new.status) + lower(new.status) = "wonwon", lower(new.status) = "won", new.status = "won"
10  ✓ not new.vacant                                    new.vacant = NULL — NULL counts as false
10  ✓ not all of these:
10  ✓   new.id == 5                                     new.id = 5
10  ✗   new.customer_id == 7                            new.customer_id = NULL — NULL equals NULL only
10  ✗ not this:
10  ✓   not (new.id == 6)                               new.id = 5
11  ✓ any(new.tags, # == "v")                           new.tags = ["a", "v"]
11  ✗   # == "v"                                        # = "a"
11  ✓   # == "v"                                        # = "v"
11  ✗ a choice:
11  ✗   if new.vacant                                   new.vacant = NULL — NULL counts as false
11  ·   then new.id == 1                                new.id = 5 (false, not needed)
11  ✗   else new.id == 2                                new.id = 5
`,
		},
	} {
		if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), explained(t, rule, c.change).Text(nil)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	inserted := explained(t, rule, cdc.Change{Op: cdc.Update, New: row{"note": unsent}.tuple(table), Old: row{"note": unsent}.tuple(table)})
	if text := inserted.Text(nil); !strings.Contains(text, `old.note is not known (a long value that the update did not touch: Postgres does not send it again), new.note is not known`) ||
		strings.Contains(text, hangsOn) {
		t.Error(text)
	}
	painted := explained(t, rule, cdc.Change{Op: cdc.Insert, New: row{"status": "won"}.tuple(table)}).Text(func(mark, text string) string { return "<" + mark + ">" + text })
	if !strings.Contains(painted, "7  <✓>✓ new.status") || !strings.Contains(painted, "<✗>✗ one of these:\n") {
		t.Error(painted)
	}
	if text := explained(t, rule, cdc.Change{Op: cdc.Delete, Old: row{}.tuple(table)}).Text(nil); text != "" {
		t.Error(text)
	}
}

// TestExplainOracle holds that on random rules and rows, with NULLs and values that the stream does not carry, a trace comes to the
// verdict of the plan and to that of the tree, and that the truth of each condition is what its parts come to.
func TestExplainOracle(t *testing.T) {
	t.Parallel()
	table := schedules()
	rapid.Check(t, func(rt *rapid.T) {
		g := &grammar{T: rt}
		var source strings.Builder
		source.WriteString("rules:\n")
		for i := range rapid.IntRange(1, 3).Draw(rt, "rules") {
			fmt.Fprintf(&source, "  - {name: r%d, on: {table: schedules, ops: [insert, update, delete]}, to: {address: a@example.com}, template: x, when: %q}\n", i, g.condition())
		}
		set := compile(t, source.String())
		plan, err := set.Bind(table)
		if err != nil {
			rt.Fatal(err)
		}
		c := &cdc.Change{Op: rapid.SampledFrom([]cdc.Op{cdc.Insert, cdc.Update, cdc.Delete}).Draw(rt, "op"), Table: table}
		if c.Op != cdc.Delete {
			c.New = g.holes(table)
		}
		if c.Op != cdc.Insert {
			c.Old = g.holes(table)
		}
		matched := make(map[*Rule]Verdict)
		plan.Match(testTx, c, func(r *Rule, v Verdict) { matched[r] = v })
		for _, r := range set.Rules {
			f := newFrame(table)
			f.begin(testTx, c)
			trace, naive := r.Explain(testTx, c), f.try(r.When.node())
			if trace.Verdict != naive || trace.Verdict != matched[r] {
				rt.Fatalf("%s on %s: explained %+v, by the tree %+v, by the plan %+v", r.When, c.Op, trace.Verdict, naive, matched[r])
			}
			if trace.When.Truth != naive.Truth {
				rt.Fatalf("%s: %+v, and its root %v", r.When, naive, trace.When.Truth)
			}
			if s := trace.When.odd(); s != nil {
				rt.Fatalf("%s: %s is %v, and its parts tell otherwise:\n%s", r.When, s.Text, s.Truth, told(trace))
			}
		}
	})
}

// holes is a row with NULLs, and values that the stream does not carry.
func (g *grammar) holes(table *cdc.Table) cdc.Tuple {
	r, _ := g.row()
	for name := range r {
		switch g.pick("", "", "", "null", "unsent") {
		case "null":
			r[name] = nil
		case "unsent":
			r[name] = unsent
		}
	}
	return r.tuple(table)
}

// odd is a condition whose truth is not what Kleene's logic makes of its parts'; nil: there is none.
func (s *Step) odd() *Step {
	for _, p := range s.Parts {
		if found := p.odd(); found != nil {
			return found
		}
	}
	if want := s.kleene(); s.Kind != ValueStep && s.Truth != want {
		return s
	}
	return nil
}

func (s *Step) kleene() Truth {
	has := func(t Truth) bool { return slices.ContainsFunc(s.Parts, func(p *Step) bool { return p.Truth == t }) }
	switch {
	case s.Kind == AndStep && has(False):
		return False
	case s.Kind == OrStep && has(True):
		return True
	case (s.Kind == AndStep || s.Kind == OrStep) && has(Undetermined):
		return Undetermined
	case s.Kind == AndStep || s.Kind == OrStep:
		return truthOf(s.Kind == AndStep)
	case s.Kind == NotStep && s.Parts[0].Truth != Undetermined:
		return truthOf(s.Parts[0].Truth == False)
	case s.Kind == IfStep && s.Parts[0].Truth == True:
		return s.Parts[1].Truth
	case s.Kind == IfStep && s.Parts[0].Truth == False:
		return s.Parts[2].Truth
	}
	return s.Truth // of a clause; where a choice is not known, its values tell more than their truth
}

// bare is a rule of a condition alone, in a file of its own.
func bare(source string, table *cdc.Table) *Rule {
	file := newFile("rules.yaml", []byte(source))
	return &Rule{
		Name: "bare", On: On{Table: table.TableName, Ops: everyOp}, file: file,
		When: &Expr{text: text{file: file, value: source, line: 1, column: 1}},
	}
}

// FuzzExplain holds that every expression that is accepted is explained, with the verdict of its tree, and that each step's text stands
// where the step says.
func FuzzExplain(f *testing.F) {
	for _, seed := range []string{
		`new.id == 1 and not (old.note contains "x")`, `any(new.tags, {# in ["a", nil]}) or none([1, new.id], # > 0)`, `"가" in new.tags /* x */ ? new["id"] in -1..2 : !(changed(new.note))`,
		`0 < new.id <= (3) // one`, `(new.data?.a[0]["b"] ?? "x") matches "^y" and new.starts_at - commit_time > duration("1h")`, `((new.vacant)) == (op not in ["insert"])`,
		`-(+new.price) % 2 == - 1`, `count(new.numbers, # == 1) == len(new.tags)`,
	} {
		f.Add(seed)
	}
	table := schedules()
	now := row{"id": "1", "status": "a", "price": "NaN", "vacant": "t", "tags": "{a,NULL}", "numbers": "{1,2}", "data": `{"a": [{"b": null}, 1e300, "x"]}`, "note": unsent}
	changes := []*cdc.Change{
		{Op: cdc.Update, Table: table, New: now.tuple(table), Old: row{"id": "one"}.tuple(table)},
		{Op: cdc.Insert, Table: table, New: row{}.tuple(table)},
		{Op: cdc.Delete, Table: table, Old: now.tuple(table)},
	}
	f.Fuzz(func(t *testing.T, source string) {
		checked, problems := checkExpr(source, env{table: table, ops: everyOp})
		if len(problems) > 0 || !checked.typ.condition() {
			return
		}
		rule, frame, runes := bare(source, table), newFrame(table), []rune(source)
		for _, c := range changes {
			frame.begin(testTx, c)
			trace, want := rule.Explain(testTx, c), frame.try(checked.root)
			if trace.Verdict.Truth != want.Truth || trace.Verdict.Missing != want.Missing || trace.When.Truth != want.Truth {
				t.Fatalf("explained %+v, and its root %v; by the tree %+v", trace.Verdict, trace.When.Truth, want)
			}
			if s := trace.When.odd(); s != nil {
				t.Fatalf("%s is %v, and its parts tell otherwise:\n%s", s.Text, s.Truth, trace.Text(nil))
			}
			trace.When.visit(func(s *Step) {
				if s.From < 0 || s.From >= s.To || s.To > len(runes) || s.Text == "" {
					t.Fatalf("%q stands from %d to %d of %d", s.Text, s.From, s.To, len(runes))
				}
			})
		}
	})
}

func (s *Step) visit(f func(*Step)) {
	f(s)
	for _, p := range s.Parts {
		p.visit(f)
	}
}

// BenchmarkExplain explains the longest condition that there may be.
func BenchmarkExplain(b *testing.B) {
	table := schedules()
	for name, source := range map[string]string{
		"clauses":  strings.Repeat("new.id == 1 or ", 540) + "true",
		"brackets": strings.Repeat("(", 2000) + "new.vacant" + strings.Repeat(")", 2000),
		"nots":     strings.Repeat("not (", 100) + "new.vacant" + strings.Repeat(")", 100),
		"sums":     strings.Repeat("new.id + ", 900) + "1 == 2",
	} {
		if _, problems := checkExpr(source, env{table: table, ops: everyOp}); len(problems) > 0 {
			b.Logf("%s: %v", name, problems[0])
			continue
		}
		rule := bare(source, table)
		c := &cdc.Change{Op: cdc.Insert, Table: table, New: row{"id": "7"}.tuple(table)}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				rule.Explain(testTx, c)
			}
		})
	}
}
