package rules

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"postman/cdc"
)

// parse reads rules from a text.
func parse(tb testing.TB, content string) *Source {
	tb.Helper()
	s := new(Source)
	if errs := append(s.add("rules.yaml", []byte(content)), s.unite()...); len(errs) > 0 {
		tb.Fatal(errs)
	}
	return s
}

func compile(tb testing.TB, content string) *Set {
	tb.Helper()
	set, err := Compile(parse(tb, content), catalog())
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

const every = `
sensitive: [schedules.note, schedules.ip, customers.email]
rules:
  - name: everything
    about: Why you get this.
    was: something
    on: {table: schedules, ops: [insert, update]}
    when: |
      new.kind == "meeting" and
        changed(new.status)
    load:
      customer: select name from customers where id = @new.customer_id
      listings[]: |
        select title from listings
         where id = @new.id and locale = @to.locale;
    to:
      - query: select email, name from staff where id = @new.created_by
      - {address: "Sales <sales@example.com>"}
      - new.tags
    cc: new.note
    from: {address: news@example.com}
    reply_to: new.note ?? "office@example.com"
    template: everything
    locale: ko-KR
    timezone: Asia/Seoul
    class: transactional
    priority: high
    expires: 1d12h
    uncertain: hold
    hold_over: {minute: 20}
    max_recipients: 3
    tests:
      - insert: {id: 1, kind: meeting, price: 1.50, note: ~, status: "null"}
        match: true
      - update: {new: {id: 1}, old: {status: x}}
        match: false
  - name: plain
    on: {message: reset}
    to: message.email
    template: reset
`

// TestRead holds what each key comes to.
func TestRead(t *testing.T) {
	t.Parallel()
	r := parse(t, every).Rules[0]
	seoul, err := time.LoadLocation("Asia/Seoul")
	if err != nil {
		t.Fatal(err)
	}
	want := &Rule{
		Name: "everything", About: "Why you get this.", Was: "something",
		On:       On{Table: cdc.TableName{Schema: "public", Name: "schedules"}, Ops: []cdc.Op{cdc.Insert, cdc.Update}},
		Template: "everything", Locale: "ko-KR", Zone: seoul, Class: Transactional, Priority: High, Expires: Duration{Days: 1, Time: 12 * time.Hour},
		HoldUncertain: true, HoldOver: HoldOver{100, 20, 10000, 5}, MaxRecipients: 3, Sensitive: []string{"note", "ip"},
	}
	own := cmpopts.IgnoreFields(Rule{}, "Place", "When", "Load", "To", "CC", "From", "ReplyTo", "Tests")
	zones := cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, r, own, cmpopts.IgnoreUnexported(Rule{}), zones); diff != "" {
		t.Error(diff)
	}
	if r.When.String() != "new.kind == \"meeting\" and\n  changed(new.status)\n" {
		t.Errorf("%q", r.When)
	}
	if len(r.Load) != 2 || r.Load[0].Name != "customer" || r.Load[0].All || r.Load[1].Name != "listings" || !r.Load[1].All ||
		r.Load[1].SQL.Text != "select title from listings\n where id = $1 and locale = $2" || r.Load[1].SQL.Params[1] != (Param{"to", "locale"}) {
		t.Errorf("%+v", r.Load)
	}
	if len(r.To) != 3 || r.To[0].Query == nil || r.To[1].Address != "Sales <sales@example.com>" || r.To[2].Expr == nil || len(r.CC) != 1 ||
		r.From.Address != "news@example.com" || r.ReplyTo.Expr == nil {
		t.Errorf("%+v %+v %+v %+v", r.To, r.CC, r.From, r.ReplyTo)
	}
	cell := func(name, text string, plain bool) Cell { return Cell{Name: name, Text: new(text), Plain: plain} }
	tests := []Test{
		{Steps: []TestStep{{Op: "insert", New: []Cell{
			cell("id", "1", true), cell("kind", "meeting", true), cell("price", "1.50", true), {Name: "note", Plain: true}, cell("status", "null", false),
		}, Match: new(true)}}},
		{Steps: []TestStep{{Op: "update", New: []Cell{cell("id", "1", true)}, Old: []Cell{cell("status", "x", true)}, Match: new(false)}}},
	}
	if diff := cmp.Diff(tests, r.Tests, withoutPlaces); diff != "" {
		t.Error(diff)
	}
	if r.Place != (Place{"rules.yaml", 4, 5}) || r.Load[0].SQL.Place() != (Place{"rules.yaml", 12, 17}) {
		t.Errorf("%v %v", r.Place, r.Load[0].SQL.Place())
	}
	if !r.Hides("note") || r.Hides("status") {
		t.Error("hides the wrong columns")
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	r := parse(t, every).Rules[1]
	want := &Rule{
		Name: "plain", On: On{Message: "reset", Ops: []cdc.Op{cdc.Emit}}, Template: "reset", Class: Notice, Priority: Normal,
		HoldOver: HoldOver{100, 200, 10000, 5}, MaxRecipients: 50,
	}
	if diff := cmp.Diff(want, r, cmpopts.IgnoreFields(Rule{}, "Place", "To"), cmpopts.IgnoreUnexported(Rule{})); diff != "" {
		t.Error(diff)
	}
}

// TestReadDirectory holds which files of a directory are read, in which order, and that their rules are checked together.
func TestReadDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rule := func(name string) string {
		return "rules:\n  - {name: " + name + ", on: {message: m}, to: message.a, template: x}\n"
	}
	files := map[string]string{
		"b.yaml": rule("second"), "a.yml": rule("first"), "c.yaml": "sensitive: [message.m.secret]\nrules: []\n",
		".#b.yaml": "no YAML: [", "notes.txt": "nothing",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rules) != 2 || s.Rules[0].Name != "first" || s.Rules[1].Name != "second" || !s.Rules[0].Hides("secret") {
		t.Errorf("%+v", s.Rules)
	}
	if err := os.WriteFile(filepath.Join(dir, "d.yaml"), []byte(rule("first")+rule("x")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Read(dir)
	if err == nil || !strings.Contains(err.Error(), "d.yaml:3:1: the key rules is there twice") ||
		!strings.Contains(err.Error(), `rule "first": the name is taken by the rule at `+filepath.Join(dir, "a.yml")+":2:5") {
		t.Error(err)
	}
}

func TestReadNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                             "the directory holds no *.yaml file",
		filepath.Join(dir, "none.yaml"): "no such file or directory",
	} {
		s, err := Read(path)
		if _, ok := err.(Errors); !ok || s != nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) { //nolint:errorlint // Read documents the type
			t.Errorf("%s: %v, %v", path, s, err)
		}
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	s := parse(t, `
rules:
  - {name: a, on: {table: schedules, ops: [update]}, to: new.note, template: x}
  - {name: b, on: {message: m}, to: message.a, template: x}
  - {name: c, on: {table: shop.Visits, ops: [insert]}, to: new.url, template: x}
  - {name: d, on: {table: schedules, ops: [insert, update]}, to: new.note, template: x}
`)
	want := []cdc.Need{
		{Table: cdc.TableName{Schema: "public", Name: "schedules"}, Ops: []cdc.Op{cdc.Insert, cdc.Update}},
		{Table: cdc.TableName{Schema: "shop", Name: "Visits"}, Ops: []cdc.Op{cdc.Insert}},
	}
	if diff := cmp.Diff(want, s.Needs()); diff != "" {
		t.Error(diff)
	}
}

// TestTheDesignsExample holds that the example of the design is read as far as this version has its keys.
func TestTheDesignsExample(t *testing.T) {
	t.Parallel()
	s, err := Read("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rules) != 2 || s.Rules[1].Expires != (Duration{Time: 15 * time.Minute}) {
		t.Errorf("%+v", s.Rules)
	}
	if _, err := Compile(s, catalog()); err != nil {
		t.Error(err)
	}
}

// TestRevive holds that a stored rule comes back as it was, and that its text is a fixed point.
func TestRevive(t *testing.T) {
	t.Parallel()
	for i, r := range compile(t, every).Rules {
		shape := []*cdc.Table{schedules(), nil}[i]
		got, err := Revive(r.Source(), shape)
		if err != nil {
			t.Fatalf("%v\n%s", err, r.Source())
		}
		if string(got.Source()) != string(r.Source()) {
			t.Errorf("%s\nbecame\n%s", r.Source(), got.Source())
		}
		opts := []cmp.Option{
			cmpopts.IgnoreUnexported(Rule{}, SQL{}), cmpopts.IgnoreFields(Rule{}, "Place", "Tests"),
			cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }), cmpopts.SortSlices(strings.Compare),
			cmp.Comparer(func(a, b *Expr) bool { return (a == nil) == (b == nil) && (a == nil || a.String() == b.String()) }),
		}
		if diff := cmp.Diff(r, got, opts...); diff != "" {
			t.Error(diff)
		}
	}
	if strings.Contains(string(compile(t, every).Rules[0].Source()), "tests") {
		t.Error("tests are a part of the version")
	}
}

// TestVersion holds what makes a new version of a rule, and what does not.
func TestVersion(t *testing.T) {
	t.Parallel()
	const base = "rules:\n  - {name: a, on: {table: schedules, ops: [insert]}, when: new.id == 1, to: new.note, template: x}\n"
	version := func(content string) string { return string(parse(t, content).Rules[0].Source()) }
	same := []string{
		"# a comment\nrules:\n- template: \"x\"\n  name: a # the name\n  to: 'new.note'\n  when: |-\n    new.id == 1\n  on:\n    table: schedules\n    ops:\n    - insert\n",
		strings.Replace(base, "template: x", "template: x, tests: [{insert: {id: 1}, match: true}]", 1),
		"sensitive: [customers.email]\n" + base,
	}
	other := []string{
		strings.Replace(base, "== 1", "== 2", 1), strings.Replace(base, "template: x", "template: y", 1), "sensitive: [schedules.note]\n" + base,
	}
	for _, content := range same {
		if got := version(content); got != version(base) {
			t.Errorf("%s\nis another version:\n%s\nnot\n%s", content, got, version(base))
		}
	}
	for _, content := range other {
		if version(content) == version(base) {
			t.Errorf("%s\nis no other version", content)
		}
	}
}

// TestCanonicalText holds that any text comes through Source and back unchanged, however YAML has to write it.
func TestCanonicalText(t *testing.T) {
	t.Parallel()
	for _, about := range []string{"\n a", " a\nb", "\ta\n b", "a\n\n b\n\n", "null", "~", "- a", "a: b # c", "'", "yes", "1e3", "\u2028x"} {
		text := storedText(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{word("about"), word(about)}})
		s := new(Source)
		_ = s.add("x.yaml", text) // the rest of the rule is missing
		if len(s.Rules) != 1 || s.Rules[0].About != about {
			t.Errorf("%q became %+v in\n%s", about, s.Rules, text)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		about := rapid.StringOfN(rapid.SampledFrom([]rune("ab 가\n\t:#'\"-|>&*!%@`{}[],?\\~é\u0085\u2028\u00a0\u0001 ")), 1, 30, -1).Draw(rt, "about")
		quoted, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: about})
		if err != nil {
			rt.Skip("no YAML can hold it")
		}
		s := new(Source)
		content := "rules:\n  - name: a\n    on: {message: m}\n    to: message.a\n    template: x\n    about: " + string(quoted)
		if errs := append(s.add("x.yaml", []byte(content)), s.unite()...); len(errs) > 0 {
			if strings.TrimSpace(about) != "" {
				rt.Fatalf("%q: %v", about, errs)
			}
			return
		}
		r, err := Revive(s.Rules[0].Source(), nil)
		if err != nil || r.About != s.Rules[0].About || string(r.Source()) != string(s.Rules[0].Source()) {
			rt.Fatalf("%q became %+v, %v in\n%s", s.Rules[0].About, r, err, s.Rules[0].Source())
		}
	})
}

// TestPlaces holds that each character of a scalar is found where it stands, in each of YAML's styles.
func TestPlaces(t *testing.T) {
	t.Parallel()
	styles := []yaml.Style{0, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle}
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringOfN(rapid.SampledFrom([]rune("ab가 \n'\"\\\té#:")), 1, 40, -1).Draw(rt, "value")
		style := rapid.SampledFrom(styles).Draw(rt, "style")
		content, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			word("key"), {Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Style: style, Value: value}}},
		}})
		if err != nil {
			rt.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(content, &doc); err != nil {
			rt.Skip("the library does not read what it wrote")
		}
		f := newFile("x.yaml", content)
		scalar := newText(f, doc.Content[0].Content[1].Content[0])
		end := len([]rune(strings.TrimSpace(scalar.value)))
		for i, r := range []rune(strings.TrimRight(scalar.value, " \n\t")) {
			if strings.ContainsRune(" \n\t", r) || end == 0 {
				continue
			}
			p := scalar.place(i)
			line := []rune(f.line(p.Line))
			if p.Column > len(line) || !slices.Contains([]rune{r, '\\'}, line[p.Column-1]) {
				rt.Fatalf("%q at %d of %q is at %v of\n%s", r, i, scalar.value, p, content)
			}
		}
	})
}

// TestLineEnds holds that a mistake is at the same place in a file from Windows.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	const content = "rules:\n  - name: a\n    on: {message: m}\n    when: |\n      message.a == 1\n        and nwe == 2\n    to: message.a\n    template: x\n    colour: red\n"
	message := func(content string) string {
		s := new(Source)
		errs := s.add("x.yaml", []byte(content))
		_, err := Compile(s, catalog())
		return errs.Error() + "\n" + err.Error()
	}
	want := message(content)
	if !strings.Contains(want, "x.yaml:6:13") || !strings.Contains(want, "x.yaml:9:5") {
		t.Error(want)
	}
	for _, other := range []string{strings.ReplaceAll(content, "\n", "\r\n"), "\uFEFF" + content} {
		if diff := cmp.Diff(want, message(other)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	tests := map[string]Duration{
		"15m": {Time: 15 * time.Minute}, "1h30m": {Time: 90 * time.Minute}, "2d": {Days: 2}, "1w": {Days: 7}, "1w2d3h4m5s": {9, 3*time.Hour + 4*time.Minute + 5*time.Second},
		"0s": {}, "876000h": {Time: 876000 * time.Hour}, "36500d": {Days: 36500}, "007m": {Time: 7 * time.Minute},
	}
	for s, want := range tests {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "m", "1m1h", "1m1m", "-1m", "1.5h", "1 h", "1M", "9999999999999999999999s", "36500d1s", "100ms"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	known := []string{"starts_at", "status", "customer_id"}
	for name, want := range map[string]string{
		"stauts": "did you mean status?", "STATUS": "did you mean status?", "start_at": "did you mean starts_at?", "zzz": "there are starts_at, status and customer_id",
	} {
		if got := suggest(name, known); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"담당", "담당자", 1}} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d", tt.a, tt.b, got)
		}
	}
}

// TestErrorSnippet holds that the caret stands under its column, whatever the letters before it are.
func TestErrorSnippet(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, line, caret string }{
		{"indented", "      ab|cd", "    abcd\n      ^"},
		{"Korean is twice as wide", "  담당|자", "    담당자\n        ^"},
		{"tab", "a\t|b", "    a\tb\n     \t^"},
		{"combining", "e\u0301|x", "    e\u0301x\n     ^"},
		{"at the end", "ab|", "    ab\n      ^"},
		{"long", strings.Repeat("x", 100) + "|" + strings.Repeat("y", 100), "    …" + strings.Repeat("x", 70) + strings.Repeat("y", 39) + "…\n    " + strings.Repeat(" ", 71) + "^"},
		{"blank", "   |", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before, after, _ := strings.Cut(tt.line, "|")
			e := &Error{Place: Place{"f", 1, len([]rune(before)) + 1}, Line: before + after, Message: "m"}
			want := "f:1:" + strings.TrimPrefix(e.Place.String(), "f:1:") + ": m"
			if tt.caret != "" {
				want += "\n" + tt.caret
			}
			if diff := cmp.Diff(want, e.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzRead holds that no file makes the loader panic or hang, that a mistake has a place, and that what was read comes
// through its stored form.
// tryTests tries the tests of a set whose files have so many lines.
func tryTests(t *testing.T, set *Set, lines int) {
	mistakes := set.CheckTests()
	for _, e := range mistakes {
		if e.Place.Line < 1 || e.Place.Line > lines || e.Message == "" {
			t.Errorf("%+v", e)
		}
	}
	for _, r := range set.Rules {
		for i := range r.Tests {
			r.Moments(&r.Tests[i], time.UTC)
			for j := range r.Tests[i].Steps {
				s := &r.Tests[i].Steps[j]
				change, errs := r.TestChange(s)
				if change == nil || len(errs) > 0 {
					continue
				}
				facts, err := NewFacts(testTx, change)
				if err != nil {
					t.Fatalf("%s: a change that was read cannot be told: %v", s.Place, err)
				}
				if v := r.Decide(facts); v.Err != nil {
					t.Errorf("%s: %v", s.Place, v.Err)
				}
				r.LeftOut(s, facts)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	lints, err := filepath.Glob("testdata/lints/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range slices.Concat(paths, lints, []string{"testdata/design.yaml"}) {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(every))
	f.Add([]byte(everyTest))
	f.Fuzz(func(t *testing.T, content []byte) {
		inParts(t, content)
		s := new(Source)
		errs := append(s.add("x.yaml", content), s.unite()...)
		for _, e := range errs {
			if e.Place.File != "x.yaml" || e.Message == "" || e.Place.Line > len(newFile("", content).ends) {
				t.Errorf("%+v", e)
			}
			_ = e.Error()
		}
		set, _ := Compile(s, catalog())
		if len(errs) > 0 {
			return
		}
		for _, e := range s.Silence(set.Lint(catalog()), func(ID) bool { return true }) {
			if !e.ID.Warning() || e.Place.Line < 1 || e.Place.Line > len(newFile("", content).ends) {
				t.Errorf("%+v", e)
			}
		}
		tryTests(t, set, len(newFile("", content).ends))
		draft := &Draft{Name: "added-by-a-test", Template: "x", Message: "m", To: "message.email"}
		if grown, err := Append("x.yaml", content, draft.Rule); err == nil && len(grown) <= len(content) {
			t.Errorf("nothing was added to\n%s", content)
		}
		for _, r := range set.Rules {
			again, err := Revive(r.Source(), catalog().Tables[r.On.Table])
			if err != nil || string(again.Source()) != string(r.Source()) {
				t.Errorf("%v\n%s", err, r.Source())
			}
		}
	})
}

// withoutPlaces compares all but where things stand.
var withoutPlaces = cmp.FilterPath(func(p cmp.Path) bool { return p.Last().Type() == reflect.TypeFor[Place]() }, cmp.Ignore())
