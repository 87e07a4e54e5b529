package rules

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postman/cdc"
)

// page is docs/rules.md, and what stands between its fences, by language.
func page(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("no %s in docs/rules.md", language)
	}
	return blocks
}

// TestDocsRules holds that the rules of the page are sound.
func TestDocsRules(t *testing.T) {
	t.Parallel()
	for _, block := range page(t, "yaml") {
		if strings.HasPrefix(block, "sensitive") {
			block = strings.Replace(block, "[]", "[{name: a, on: {message: password_reset}, to: message.email, template: x}]", 1)
		}
		compile(t, block)
	}
}

// TestDocsExpressions holds that the page's expressions on NULL have the values that it says.
func TestDocsExpressions(t *testing.T) {
	t.Parallel()
	table := schedules()
	c := &cdc.Change{Op: cdc.Insert, New: row{"id": "1", "status": "open"}.tuple(table)}
	lines := regexp.MustCompile(`(?m)^(.+?) +// (true|false)`)
	for _, block := range page(t, "expr") {
		examples := lines.FindAllStringSubmatch(block, -1)
		if len(examples) != strings.Count(block, "\n") {
			t.Errorf("%d of the lines have a value:\n%s", len(examples), block)
		}
		for _, m := range examples {
			if got := ask(t, m[1], env{table: table, ops: everyOp}, c); got != (Verdict{Truth: truthOf(m[2] == "true")}) {
				t.Errorf("%s: %+v, and the page says %s", m[1], got, m[2])
			}
		}
	}
}

// TestDocsKeys holds that the page has every key, and those of later versions.
func TestDocsKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := slices.Clone(laterKeys)
	for _, k := range ruleKeys {
		keys = append(keys, k.name)
	}
	for _, name := range slices.Concat(keys, functions) {
		if !regexp.MustCompile("[`( ]" + name + "[`(),]").Match(text) {
			t.Errorf("docs/rules.md does not have %s", name)
		}
	}
}
