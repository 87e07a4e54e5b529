package rules

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// The text of a rule as it is stored is its own YAML with what the files say is sensitive of it, without comments, in the order of
// ruleKeys and in one style. Tests are left out, since they decide nothing.

// storedText is the text of a rule without what is sensitive.
func storedText(rule *yaml.Node) []byte {
	written := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range ruleKeys {
		for i := 0; i+1 < len(rule.Content); i += 2 {
			if rule.Content[i].Value == k.name && k.name != "tests" {
				written.Content = append(written.Content, plain(rule.Content[i]), plain(rule.Content[i+1]))
			}
		}
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{written}}
	if text, ok := writePlain([]byte("rules:"), list, 1); ok {
		return text
	}
	return section("rules", list)
}

// section is a key of a text's top and its value.
func section(key string, value *yaml.Node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{word(key), value}}); err != nil {
		return nil // a rule with mistakes: it never comes to be stored
	}
	return b.Bytes()
}

// sensitiveEntries is the rule's part of the sensitive lists, in the order of the names; nil if there is none. What its queries read is
// part of it.
func (r *Rule) sensitiveEntries() *yaml.Node {
	if len(r.Sensitive)+len(r.Reads) == 0 {
		return nil
	}
	of := r.On.Table.Schema + "." + r.On.Table.Name + "."
	if r.On.Message != "" {
		of = "message." + r.On.Message + "."
	}
	var entries []string
	for _, name := range r.Sensitive {
		entries = append(entries, of+name)
	}
	for _, c := range r.Reads {
		entries = append(entries, c.Table.Schema+"."+c.Table.Name+"."+c.Column)
	}
	slices.Sort(entries)
	names := &yaml.Node{Kind: yaml.SequenceNode}
	for _, entry := range slices.Compact(entries) {
		names.Content = append(names.Content, word(entry))
	}
	return names
}

// word writes a text. The library writes a text that begins with white space under a | line, and does not read it back.
func word(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.Contains(s, "\n") && strings.TrimLeftFunc(s, unicode.IsSpace) != s {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// plain copies a node without comments, anchors and its own style. All that is not empty is written as text, since a
// rule's values are read as they are written.
func plain(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode && !null(n) {
		return word(n.Value)
	}
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value}
	for _, child := range n.Content {
		c.Content = append(c.Content, plain(child))
	}
	return c
}
