package rules

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// canonical is the rule's text as it is stored: its own YAML with what the files say is sensitive of it, without
// comments, in the order of ruleKeys and in one style. Tests are left out, since they decide nothing.
func (r *Rule) canonical() []byte {
	rule := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range ruleKeys {
		for i := 0; i+1 < len(r.node.Content); i += 2 {
			if r.node.Content[i].Value == k.name && k.name != "tests" {
				rule.Content = append(rule.Content, plain(r.node.Content[i]), plain(r.node.Content[i+1]))
			}
		}
	}
	top := &yaml.Node{Kind: yaml.MappingNode}
	if names := r.sensitiveEntries(); names != nil {
		top.Content = append(top.Content, word("sensitive"), names)
	}
	top.Content = append(top.Content, word("rules"), &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{rule}})
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(top); err != nil {
		return nil // a rule with mistakes: it never comes to be stored
	}
	return b.Bytes()
}

// sensitiveEntries is the rule's part of the sensitive lists, in the order of the names; nil if there is none.
func (r *Rule) sensitiveEntries() *yaml.Node {
	if len(r.Sensitive) == 0 {
		return nil
	}
	of := r.On.Table.Schema + "." + r.On.Table.Name + "."
	if r.On.Message != "" {
		of = "message." + r.On.Message + "."
	}
	names := &yaml.Node{Kind: yaml.SequenceNode}
	for _, name := range slices.Sorted(slices.Values(r.Sensitive)) {
		names.Content = append(names.Content, word(of+name))
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
