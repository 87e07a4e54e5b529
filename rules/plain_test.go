package rules

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// TestWritePlain holds that what is written here is what the library writes.
func TestWritePlain(t *testing.T) {
	t.Parallel()
	letters := rapid.SampledFrom([]rune("aetnyoNO_.-:#,'\"[]{}()=<>@$%&*!|?`~+/\\ 019가힣é ß"))
	words := rapid.OneOf(rapid.StringOfN(letters, 0, 12, -1), rapid.StringOfN(letters, 100, 300, -1), rapid.SampledFrom([]string{
		"true", "Yes", "on", "NULL", "a: b", "a #b", "a:", "insert", "new.kind in [\"a\", \"b\"]", "select a from b where c = @new.c", "<<", "=", "e1", "nan", "a\nb",
	}))
	var node *rapid.Generator[*yaml.Node]
	scalar := rapid.Map(words, word)
	node = rapid.Custom(func(t *rapid.T) *yaml.Node {
		n := &yaml.Node{Kind: rapid.SampledFrom([]yaml.Kind{yaml.ScalarNode, yaml.ScalarNode, yaml.MappingNode, yaml.SequenceNode}).Draw(t, "kind")}
		switch n.Kind {
		case yaml.MappingNode:
			for range rapid.IntRange(0, 3).Draw(t, "keys") {
				n.Content = append(n.Content, scalar.Draw(t, "key"), node.Draw(t, "value"))
			}
		case yaml.SequenceNode:
			n.Content = rapid.SliceOfN(node, 0, 3).Draw(t, "items")
		default:
			return scalar.Draw(t, "text")
		}
		return n
	})
	written := 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(node, rapid.Map(scalar, func(n *yaml.Node) *yaml.Node {
			return &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.MappingNode, Content: []*yaml.Node{word("key"), n, word("list"), {Kind: yaml.SequenceNode, Content: []*yaml.Node{n, n}}}}}}
		})).Draw(t, "node")
		got, ok := writePlain([]byte("rules:"), n, 1)
		if !ok {
			return
		}
		written++
		if got[len(got)-1] != '\n' {
			got = append(got, '\n')
		}
		if diff := cmp.Diff(string(section("rules", n)), string(got)); diff != "" {
			t.Fatal(diff)
		}
	})
	if written == 0 {
		t.Error("nothing was plain")
	}
}
