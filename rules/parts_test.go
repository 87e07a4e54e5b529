package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// inParts compares what a file is in parts with what it is as a whole, and says whether it can be taken apart.
func inParts(t interface{ Errorf(string, ...any) }, content []byte) bool {
	file := newFile("x.yaml", content)
	parted := new(Source)
	errs, ok := parted.addParts(file, content, 1)
	if !ok {
		return false
	}
	whole, r := new(Source), newReader(file)
	if root := r.parse(content); root != nil {
		whole.Rules = r.rules(r.top(root, whole))
		whole.ignores = r.ignores(root)
	}
	if diff := cmp.Diff(r.errs.inOrder(), errs.inOrder()); diff != "" {
		t.Errorf("in parts there are other mistakes in\n%s\n%s", content, diff)
	}
	if diff := cmp.Diff(whole, parted, cmp.Exporter(func(reflect.Type) bool { return true }), cmp.Comparer(func(a, b *ruleFile) bool { return a == b }),
		cmp.Comparer(func(a, b packed) bool {
			return string((&Rule{packed: a}).Source()) == string((&Rule{packed: b}).Source())
		})); diff != "" {
		t.Errorf("in parts there are other rules in\n%s\n%s", content, diff)
	}
	return true
}

// TestParts holds that a file says the same in parts, or is not taken apart.
func TestParts(t *testing.T) {
	t.Parallel()
	const a, b = "- name: a\n    about: x\n", "- name: b\n    when: new.x == 1\n"
	for _, test := range []struct {
		content string
		apart   bool
	}{
		{"rules:\n  " + a + "  " + b, true},
		{"sensitive: [a.b]\nrules: # all\n# and\n\n  " + a + "\n# or\n  " + b + "  # end\n\n", true},
		{"sensitive:\n  - a.b\n  - message.c.d\nrules:\n- name: a\n- name: b\n", true},
		{"rules:\r\n  - name: a\r\n  -\r\n    name: b\r\n", true},
		{"rules:\n  - name: a\n    when: |\n      - x\n     \n  - - b\n  - |\n    - c\n\n\n  - >+\n   d\n\n\n  - e", true},
		{"rules:\n  " + a + "nope: 1\n", false},
		{"rules:\n  " + a + "sensitive: []\n", false},
		{"rules:\n- name: a\nsensitive: []\n", false},
		{"rules:\n  - &a x\n  - *a\n", false},
		{"rules:\n  - \"x\n  - y\"\n", false},
		{"rules:\n  - [x,\n  - y]\n", false},
		{"rules:\n  - x\n -y\n", false},
		{"rules:\n  -\tx\n  - y\n", false},
		{"rules:\n  - x\n  -\ty\n", false},
		{"rules: []\n", false},
		{"rules: !a\n  - x\n", false},
		{"rules: &a\n  - x\n", false},
		{"rules:\n  - x\n---\nrules:\n  - y\n", false},
		{"rules:\n  - x\n...\n", false},
		{"%YAML 1.1\n---\nrules:\n  - x\n", false},
		{"\uFEFFrules:\n  - x\n", true},
		{"# postman: ignore PM203\nrules:\n  - x\n", false},
		{"rules:\n  x\n", false},
		{"rules:\n", false},
		{"  rules:\n  - x\n", false},
		{"{\nrules:\n  - x\n}\n", false},
		{"a: \"\nrules:\n  - x\n\"\n", false},
	} {
		if got := inParts(t, []byte(test.content)); got != test.apart {
			t.Errorf("taken apart is %v:\n%s", got, test.content)
		}
	}
	paths, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(paths) < 60 {
		t.Fatal(len(paths), err)
	}
	apart := 0
	for _, path := range append(paths, "../rules.yaml", "testdata/design.yaml") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if inParts(t, content) {
			apart++
		}
	}
	if apart < 40 {
		t.Errorf("%d files were taken apart", apart)
	}
}

// TestPartsOfAnything draws files of pieces that mean different things in different places.
func TestPartsOfAnything(t *testing.T) {
	t.Parallel()
	pieces := []string{
		"rules:", "sensitive:", "- ", "  - ", "-", "  -", "name: a", "when: new.x == 1", "when: |", "about: >-", "\n", "\n", "\n", "\n  ", "\n    ", "\n      ", "# c",
		"\"", "'", "[", "]", "{", "}", "a: b", "x", " ", "\t", "\r\n", "\u2028", "&a ", "*a", "!t ", "? ", ": ", "|", ">+", "---", "...", "on: {table: t, ops: [insert]}", "to: {query: \"select 1\"}",
	}
	apart := 0
	rapid.Check(t, func(rt *rapid.T) {
		var content strings.Builder
		if rapid.Bool().Draw(rt, "begun") {
			content.WriteString("rules:\n  - name: a\n")
		}
		for _, piece := range rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 30).Draw(rt, "pieces") {
			content.WriteString(piece)
		}
		if inParts(rt, []byte(content.String())) {
			apart++
		}
	})
	if apart == 0 {
		t.Error("nothing was taken apart")
	}
}

// TestManyParts reads a file of several parts, with mistakes in each.
func TestManyParts(t *testing.T) {
	t.Parallel()
	var content strings.Builder
	content.WriteString("sensitive: [t.x]\nrules:\n")
	for i := range 3*partSize + 1 {
		fmt.Fprintf(&content, "  - name: r%d\n    on: {table: t, ops: [insert]}\n    when: new.x = %d\n    to: {query: select email from s where id = @new.x}\n    template: t\n", i, i)
	}
	s := new(Source)
	errs := s.add("x.yaml", []byte(content.String()))
	if len(s.Rules) != 3*partSize+1 || len(errs) != len(s.Rules) {
		t.Fatalf("%d rules, %d mistakes", len(s.Rules), len(errs))
	}
	if p := split(newFile("x.yaml", []byte(content.String())), []byte(content.String()), partSize); len(p.rules) != 4 {
		t.Errorf("%d parts", len(p.rules))
	}
	for i, r := range s.Rules {
		if r.Name != fmt.Sprint("r", i) || r.Place.Line != 3+5*i || errs[i].Place.Line != 5+5*i || errs[i].Rule != r.Name {
			t.Fatalf("rule %d is %+v with %+v", i, r.Place, errs[i])
		}
	}
	if errs := s.unite(); len(errs) > 0 {
		t.Fatal(errs)
	}
	if text := string(s.Rules[0].Source()); !strings.HasPrefix(text, "sensitive:\n  - public.t.x\nrules:\n  - name: r0\n") {
		t.Error(text)
	}
	if slices.ContainsFunc(s.Rules, func(r *Rule) bool { return r.To[0].Query.Text != s.Rules[0].To[0].Query.Text }) {
		t.Error("the queries are not the same")
	}
}
