package rules

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
)

// engineDoc is the page that this file holds true.
func engineDoc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/engine.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEngineKeys holds the page's table of keys.
func TestEngineKeys(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(engineDoc(t), "| condition |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := regexp.MustCompile("(?m)^\\| `(.+)` \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(table, -1)
	if len(rows) < 10 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		content := "rules:\n  - name: r\n    on: {table: schedules, ops: [insert, update]}\n    when: |\n      " + row[1] + "\n    to: new.note\n    template: x\n"
		ops := compile(t, content).Keys()[0].Ops
		if diff := cmp.Diff(row[2:], []string{inEnglish(ops[0]), inEnglish(ops[1])}); diff != "" {
			t.Errorf("%s: %s", row[1], diff)
		}
	}
}

func inEnglish(k OpKeys) string {
	switch {
	case k.Never:
		return "never"
	case k.Scan != "":
		return "every change"
	}
	return "`" + strings.Join(k.Keys, "`, `") + "`"
}

// TestEngineIndex draws the index of the page's rules.
func TestEngineIndex(t *testing.T) {
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```(yaml)?\n(- \\{name.*?|tried on every.*?)```").FindAllStringSubmatch(engineDoc(t), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks", len(blocks))
	}
	var content strings.Builder
	content.WriteString("rules:\n")
	for _, rule := range regexp.MustCompile(`- \{name: (\S+), when: (.*)\}`).FindAllStringSubmatch(blocks[0][2], -1) {
		fmt.Fprintf(&content, "  - {name: %s, on: {table: schedules, ops: [update]}, to: new.note, template: x, when: '%s'}\n", rule[1], rule[2])
	}
	set := compile(t, content.String())
	o := set.watches[schedules().TableName].ops[cdc.Update]
	d := &drawing{o: &o}
	d.branch(o.index.root, "")
	if diff := cmp.Diff(blocks[1][2], d.String()); diff != "" {
		t.Error(diff)
	}
}

// drawing shows an index.
type drawing struct {
	strings.Builder
	o *opRules
}

func (d *drawing) branch(b branch, indent string) {
	switch b := b.(type) {
	case *vertex:
		if len(b.here) > 0 {
			d.line(indent, "tried on every change: "+d.names(b.here))
		}
		for _, b := range b.branches {
			d.branch(b, indent)
		}
	case *values:
		d.line(indent, "by "+b.dictionary.of.String())
		literals := b.literals()
		for _, text := range slices.Sorted(maps.Keys(literals)) {
			d.target(text, literals[text], indent+"  ")
		}
	case *ranges:
		d.line(indent, "by "+b.of.String())
		for _, p := range b.pieces {
			k := key{kind: keyRange, of: b.of, enclosure: &enclosure{p.lo, p.hi}}
			d.target(strings.TrimPrefix(k.String(), b.of.String()+" "), p.to, indent+"  ")
		}
	case *change:
		d.target("changed("+b.of.String()+")", b.to, indent)
	}
}

func (d *drawing) line(indent, text string) { d.WriteString(indent + text + "\n") }

func (d *drawing) target(text string, t target, indent string) {
	if t&isBranch == 0 {
		d.line(indent, text+": "+d.names([]uint32{uint32(t)}))
		return
	}
	d.line(indent, text+":")
	d.branch(d.o.index.branches[t&^isBranch], indent+"  ")
}

func (d *drawing) names(rules []uint32) string {
	var names []string
	for _, r := range rules {
		names = append(names, d.o.rules[r].rule.Name)
	}
	return strings.Join(names, ", ")
}

// literals are where the branch leads to, by the value as an expression has it.
func (b *values) literals() map[string]target {
	named := make(map[string]target)
	add := func(v scalar, id uint32) {
		if t := b.at(id); t != nowhere {
			named[b.dictionary.of.literal(&v)] = t
		}
	}
	for n, id := range b.dictionary.ints {
		add(scalar{state: stateInt, n: n}, id)
	}
	for text, id := range b.dictionary.texts {
		add(scalar{state: stateText, text: []byte(text)}, id)
	}
	return named
}
