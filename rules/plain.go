package rules

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// writePlain appends a node as the library writes it with an indentation of two, where all texts of it are plain. The library makes 30 kB
// of garbage for each rule that it writes.
func writePlain(text []byte, n *yaml.Node, depth int) ([]byte, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Style == 0 && n.Tag == "!!str" && isPlain(n.Value):
		return append(append(text, ' '), n.Value...), true
	case n.Kind == yaml.ScalarNode || n.Kind == yaml.AliasNode || len(n.Content) == 0:
		return nil, false
	}
	text = append(text, '\n')
	return writeItems(text, n, depth)
}

// writeItems appends the items of a list, or the keys of a mapping, a line each at least.
func writeItems(text []byte, n *yaml.Node, depth int) (_ []byte, ok bool) {
	step, indent := 1, bytes.Repeat([]byte("  "), depth)
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i < len(n.Content); i += step {
		if i > 0 || text[len(text)-1] == '\n' { // else it stands behind the hyphen of a list
			text = append(text, indent...)
		}
		value := n.Content[i+step-1]
		switch {
		case step == 2 && (n.Content[i].Kind != yaml.ScalarNode || len(n.Content[i].Value) > 100 || !isPlain(n.Content[i].Value)): // a longer key is written otherwise
			return nil, false
		case step == 2:
			text = append(append(text, n.Content[i].Value...), ':')
			text, ok = writePlain(text, value, depth+1)
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			text, ok = writeItems(append(text, "- "...), value, depth+1)
		default:
			text, ok = writePlain(append(text, '-'), value, depth+1)
			ok = ok && value.Kind == yaml.ScalarNode
		}
		if !ok {
			return nil, false
		}
		if text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
	}
	return text, true
}

// notText are words that YAML takes for something else than a text, in small letters (YAML 1.1, which writers still heed).
var notText = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}

// isPlain says whether a text is for sure written without quotes, and on one line.
func isPlain(s string) bool {
	for i, r := range s {
		letter := r == '_' || unicode.IsLetter(r) && r < 0x3000 || r >= 0xAC00 && r <= 0xD7A3 // of Hangul
		if !letter && (i == 0 || r < ' ' || r > '~') {
			return false
		}
	}
	return s != "" && s[len(s)-1] != ' ' && s[len(s)-1] != ':' && !strings.Contains(s, ": ") && !strings.Contains(s, " #") &&
		!slices.Contains(notText, strings.ToLower(s))
}
