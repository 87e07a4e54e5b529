package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Test is one case of a rule's `tests`: what happens, and what is expected of it. docs/testing.md has its form.
type Test struct {
	Place Place
	Name  string     // empty: it has none
	Steps []TestStep // at least one, the first with a change
}

// TestStep is a change at a moment; or, without one, a later look at the mails of the change before it.
type TestStep struct {
	Place    Place
	At       time.Time // zero: not said
	After    Duration  // behind the step before
	Op       string    // insert, update, delete, truncate or message; empty: no change
	New, Old []Cell    // nil where there is none
	Message  []byte    // JSON
	Match    *bool     // nil: not said
	Given    *Given    // nil: nothing
	Expect   Expect
}

// Cell is a column of a test's row and its value, as it was written.
type Cell struct {
	Name  string
	Text  *string // nil: NULL
	Plain bool    // it stands without quotes
	Place Place   // of the name
	Value Place
}

// Given are answers to the rule's queries. What is nil is not given.
type Given struct {
	To, CC [][]Cell
	Load   map[string][][]Cell
}

// Said is a text of a test.
type Said struct {
	Text  string
	Place Place
}

// Expect is what is expected of a change's mails. What is nil is not said.
type Expect struct {
	None    bool   // no mail goes to anybody
	To, CC  []Said // exactly these addresses
	Content        // of each mail
	Mails   []MailExpect
	Place   Place // of the first of these; zero: nothing is said
}

// Content is what is expected to be in a mail. What is nil is not said.
type Content struct {
	Subject, Body, NotBody []Said // fragments
	Locale                 *Said
}

func (c *Content) says() bool {
	return c.Subject != nil || c.Body != nil || c.NotBody != nil || c.Locale != nil
}

// MailExpect is what is expected of the one mail to an address.
type MailExpect struct {
	To Said
	Content
}

// Mail says whether the step says anything of mails.
func (e *Expect) Mail() bool { return e.Place.Line > 0 }

var (
	// testOps are the kinds of change that a step can have.
	testOps     = []string{"insert", "update", "delete", "truncate", "message"}
	contentKeys = []string{"subject", "body", "not_body", "locale"}
	expectKeys  = slices.Concat([]string{"to", "cc"}, contentKeys, []string{"mail", "mails"})
	stepKeys    = slices.Concat([]string{"at", "after", "match", "given"}, testOps, expectKeys)
	// laterTestKeys would say something of what is not there yet.
	laterTestKeys = []string{"row", "tick", "due", "digest", "replaced", "cancelled", "held", "deferred", "repeated"}
)

const stepForm = "a test such as {insert: {…}, match: true}"

func (r *reader) readTests(rule *Rule, n *yaml.Node) {
	for _, item := range r.items(n, testList) {
		before := len(r.errs)
		if test := r.readTest(rule, item); len(r.errs) == before {
			rule.Tests = append(rule.Tests, test)
		}
	}
}

// readTest reads one case: a step, or a list of them.
func (r *reader) readTest(rule *Rule, n *yaml.Node) Test {
	t := Test{Place: r.at(n)}
	parts, whole := r.testMapping(n, slices.Concat([]string{"name", "steps"}, stepKeys))
	if !whole {
		return t
	}
	if name, ok := parts["name"]; ok {
		t.Name, _ = r.scalar(name, "a name")
	}
	delete(parts, "name")
	steps, ok := parts["steps"]
	if !ok {
		t.Steps = []TestStep{r.readStep(rule, n, parts, true)}
		return t
	}
	if len(parts) > 1 {
		delete(parts, "steps")
		r.fail(n, "PM016", "a test with steps has nothing beside them but a name", "put "+list(slices.Sorted(maps.Keys(parts)), "and")+" into one of the steps")
	}
	for i, item := range r.items(steps, "a list of steps") {
		if parts, whole := r.testMapping(item, stepKeys); whole {
			t.Steps = append(t.Steps, r.readStep(rule, item, parts, i == 0))
		}
	}
	if steps.Kind == yaml.SequenceNode && len(steps.Content) == 0 {
		r.fail(steps, "PM008", "the list is empty", "the first step has a change, as in {insert: {…}, match: true}")
	}
	moments := rule.Moments(&t, time.UTC)
	for i := 1; i < len(moments); i++ {
		if moments[i].Before(moments[i-1]) {
			r.failAt(t.Steps[i].Place, "PM016", "the step lies before the one above it", "the clock of a test goes forward only")
		}
	}
	return t
}

// testClock is when a test begins that does not say.
var testClock = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Moments are when the steps of a rule's test happen. Days are calendar days in the rule's zone, or else in the given one.
func (r *Rule) Moments(t *Test, zone *time.Location) []time.Time {
	if r.Zone != nil {
		zone = r.Zone
	}
	now := testClock
	moments := make([]time.Time, len(t.Steps))
	for i, s := range t.Steps {
		if now = s.After.Behind(now, zone); !s.At.IsZero() {
			now = s.At
		}
		moments[i] = now
	}
	return moments
}

func (r *reader) at(n *yaml.Node) Place { return Place{r.file.name, n.Line, n.Column} }

// testMapping is mapping, where a key of a later version is told apart.
func (r *reader) testMapping(n *yaml.Node, known []string) (map[string]*yaml.Node, bool) {
	if !r.is(n, yaml.MappingNode, stepForm) {
		return nil, false
	}
	parts, whole := make(map[string]*yaml.Node), true
	for _, f := range r.fields(n, stepForm) {
		switch {
		case slices.Contains(known, f.key.Value):
			parts[f.key.Value] = f.value
			continue
		case slices.Contains(laterTestKeys, f.key.Value) || slices.Contains(laterKeys, f.key.Value):
			r.fail(f.key, "PM006", "tests of "+f.key.Value+" belong to a later version of postman", "docs/testing.md lists what a test can say; this one can be of the condition and the mail")
		default:
			r.fail(f.key, "PM005", "a test has no key "+f.key.Value, suggest(f.key.Value, known))
		}
		whole = false
	}
	return parts, whole
}

// readStep reads what a step has, and whether that goes together.
func (r *reader) readStep(rule *Rule, n *yaml.Node, parts map[string]*yaml.Node, first bool) TestStep {
	s := TestStep{Place: r.at(n)}
	r.readClock(rule, &s, parts, first)
	for _, op := range testOps {
		change, ok := parts[op]
		switch {
		case !ok:
		case s.Op != "":
			r.fail(change, "PM016", "a test is about one change, and this one has "+s.Op+" already", "make it two tests, or steps")
		default:
			s.Op = op
			r.readChange(&s, change)
		}
	}
	if m := parts["match"]; m != nil {
		s.Match = r.readMatch(m)
	}
	if g := parts["given"]; g != nil {
		s.Given = r.readGiven(rule, g)
	}
	r.readExpect(&s.Expect, parts)
	r.stepFits(rule, n, &s, parts, first)
	return s
}

// stepFits looks for what contradicts itself, or says nothing.
func (r *reader) stepFits(rule *Rule, n *yaml.Node, s *TestStep, parts map[string]*yaml.Node, first bool) {
	e := &s.Expect
	switch {
	case s.Op == "" && first:
		r.fail(n, "PM016", "the test has no change", "add "+list(testOps, "or"))
	case s.Op == "" && (parts["match"] != nil || parts["given"] != nil):
		r.fail(n, "PM016", "a step without a change looks at the mails of the one before, and has neither match nor given", "say what is expected of the mail, as in mail: none")
	case s.Op == "" && !e.Mail():
		r.fail(n, "PM016", "the step says nothing", "say what is expected of the mail by then, as in mail: none")
	case s.Op != "" && !slices.Contains(rule.On.Ops, opOf(s.Op)) && len(rule.On.Ops) > 0:
		r.fail(n, "PM016", fmt.Sprintf("the rule is never tried on %s %s", article(opOf(s.Op)), s.Op), "its on names "+list(opNames(rule.On.Ops), "and"))
	case s.Op != "" && parts["match"] == nil && !e.Mail():
		r.fail(n, "PM016", "the test does not say whether the rule matches", "add match: true or match: false")
	case s.Match != nil && !*s.Match && e.Mail() && !e.None:
		r.failAt(e.Place, "PM016", "a change that the rule does not match makes no mail", "leave this out, or write match: true")
	case s.Given != nil && s.Given.To == nil && e.Mail() && slices.ContainsFunc(rule.To, asksQuery):
		r.fail(parts["given"], "PM016", "given does not say whom the query of to finds", "add to: [{email: kim@example.com}], or to: [] for nobody: with given, nothing is asked of a database")
	case e.None && (e.To != nil || e.CC != nil || e.says() || e.Mails != nil):
		r.failAt(e.Place, "PM016", "mail: none says that there is no mail, and the test says something of one", "keep the one or the other")
	case e.To != nil && len(e.To) == 0 && (len(e.CC) > 0 || e.says() || e.Mails != nil):
		r.failAt(e.Place, "PM016", "to: [] says that nobody gets a mail, and the test says something of one", "keep the one or the other")
	}
	r.mailsFit(e)
}

// mailsFit looks for mails that the same test says nobody gets, or says two things of.
func (r *reader) mailsFit(e *Expect) {
	among := func(all []Said, address string) bool {
		return slices.ContainsFunc(all, func(s Said) bool { return strings.EqualFold(s.Text, address) })
	}
	var named []Said
	for _, m := range e.Mails {
		switch a := m.To.Text; {
		case a == "": // which was told
		case among(named, a):
			r.failAt(m.To.Place, "PM016", "the mail to "+a+" is there twice", "put all that is expected of it in one place")
		case len(e.To) > 0 && !among(e.To, a):
			r.failAt(m.To.Place, "PM016", "to says who gets a mail, and not "+a, "add the address there, or leave to out")
		}
		named = append(named, m.To)
	}
}

func asksQuery(s Recipients) bool { return s.Query != nil }

// readClock reads when a step happens.
func (r *reader) readClock(rule *Rule, s *TestStep, parts map[string]*yaml.Node, first bool) {
	at, after := parts["at"], parts["after"]
	switch {
	case at != nil && after != nil:
		r.fail(after, "PM016", "a step has at or after, not both", "")
	case after != nil && first:
		r.fail(after, "PM016", "there is no step before this one for it to come after", "write at, with a moment")
	case after != nil:
		r.readAfter(s, after)
	case at != nil:
		r.readAt(rule, s, at)
	}
}

func (r *reader) readAfter(s *TestStep, n *yaml.Node) {
	text, ok := r.scalar(n, "a duration such as 15m")
	if !ok {
		return
	}
	var err error
	if s.After, err = parseDuration(text); err != nil {
		r.fail(n, "PM009", text+": "+err.Error(), "")
	}
}

func (r *reader) readAt(rule *Rule, s *TestStep, n *yaml.Node) {
	text, ok := r.scalar(n, "a moment such as 2026-01-31T09:00:00+09:00")
	if !ok {
		return
	}
	v, t, err := parseMoment(text)
	switch {
	case err != nil:
		r.fail(n, "PM009", text+" is no moment", "write one like 2026-01-31T09:00:00+09:00")
	case t.kind == kindInstant:
		s.At = v.(time.Time)
	case rule.Zone == nil:
		r.fail(n, "PM009", text+" is in no time zone", "write the offset, as in 2026-01-31T09:00:00+09:00, or give the rule a timezone")
	default:
		s.At = inZone(rule.Zone).do(v, nil).(time.Time)
	}
}

func (r *reader) readMatch(n *yaml.Node) *bool {
	word, ok := r.scalar(n, "true or false")
	if ok && word != "true" && word != "false" {
		r.fail(n, "PM009", "match is true or false, not "+word, "")
		return nil
	}
	if !ok {
		return nil
	}
	return new(word == "true")
}
