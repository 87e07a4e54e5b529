package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// These are values that YAML reads in its own way, behind a key or a hyphen.
var (
	tabIndented = regexp.MustCompile(`^ *\t`)
	quotedStart = regexp.MustCompile(`^[\s-]*[\w.\[\]]+: *(?:"[^"]*"|'[^']*')\s*[^\s#]`)
	quoteOpen   = regexp.MustCompile(`^[\s-]*[\w.\[\]]+: *(?:"[^"]*|'[^']*)$`)
	markedName  = regexp.MustCompile(`([\w]+: *)\{ *address: *@((?:new|old|message)\.\w+)|: *@((?:new|old|message)\.\w+)`)
	markedStart = regexp.MustCompile("^[\\s-]*[\\w.\\[\\]]+: *[!&*@`%|>]")
)

// syntaxHint is the way out of the usual ways to break YAML with an expression or a query: in the broken construct's
// first line, or in the line where it broke.
func (r *reader) syntaxHint(start, line int, problem string) string {
	first, source := r.file.line(start), r.file.line(line)
	if tabIndented.MatchString(source) || tabIndented.MatchString(r.file.line(line+1)) {
		return "indent with spaces: YAML takes no tabs there"
	}
	layout := r.layoutHint(start, line)
	switch {
	case layout != "":
		return layout
	case markedName.MatchString(source):
		m := markedName.FindStringSubmatch(source)
		return "the @ belongs to queries: write " + m[1] + m[2] + m[3]
	case strings.Contains(problem, "expected ',' or"):
		return "a bracket or a brace is not closed, or a comma is missing; a query between braces stands in quotes, or under query: |"
	case quoteOpen.MatchString(first):
		return fmt.Sprintf("the quote on line %d is not closed", start)
	case strings.Contains(r.file.line(line-1), " #"):
		return "a # behind a space begins a comment and ended the value on the line above: write the value under a | line"
	case quotedStart.MatchString(first):
		return "a value that begins with a quote ends at the next one: write it under a | line"
	case markedStart.MatchString(first):
		return "YAML has its own meaning for what begins with one of ! & * @ ` % | > : write the value under a | line, or in quotes"
	case strings.Contains(problem, "mapping values"):
		return "a colon before a space makes a key: write the value under a | line, or in quotes"
	}
	return "check the indentation, the quotes and the brackets here and in the line above"
}

// nestedKeys are the keys below those of a rule.
var nestedKeys = map[string][]string{
	"on": {"table", "ops", "message"}, "to": {"query", "address"}, "cc": {"query", "address"}, "from": {"address"}, "reply_to": {"address"},
	"hold_over": {"transaction", "minute", "tick", "row"},
}

// These are lines that begin with a key, and with one that nothing parts from what stands behind or before it.
var (
	keyLine    = regexp.MustCompile(`^( *)(- +)?(\w+):(?:\s|$)`)
	keyGlued   = regexp.MustCompile(`^ *(?:- +)?(\w+):([^\s:/].*)$`)
	hyphenKey  = regexp.MustCompile(`^ *-(\w+):(?:\s|$)`)
	colonGlued = regexp.MustCompile(`^(\w+):(.+)$`)
)

func isRuleKey(name string) bool {
	return slices.ContainsFunc(ruleKeys, func(k ruleKey) bool { return k.name == name })
}

// isKey says whether a word is a key somewhere in a rule file.
func isKey(name string) bool {
	if isRuleKey(name) || name == "rules" || name == "sensitive" {
		return true
	}
	for _, keys := range nestedKeys {
		if slices.Contains(keys, name) {
			return true
		}
	}
	return false
}

// layoutHint is the way out of a space too many or too few around a key, in the lines of a broken construct; empty: there is none.
func (r *reader) layoutHint(start, line int) string {
	for n := max(start-1, 1); n <= line+1; n++ {
		text := r.file.line(n)
		if m := keyGlued.FindStringSubmatch(text); m != nil && isKey(m[1]) {
			return fmt.Sprintf("a space is missing behind the colon on line %d: write %s: %s", n, m[1], strings.TrimSpace(m[2]))
		}
		if m := hyphenKey.FindStringSubmatch(text); m != nil && isRuleKey(m[1]) {
			return fmt.Sprintf("a space is missing behind the hyphen on line %d: write - %s:", n, m[1])
		}
	}
	return r.depthHint(line)
}

// depthHint is the way out of a rule's key that stands deeper than the others of its rule, or less deep.
func (r *reader) depthHint(line int) string {
	m := keyLine.FindStringSubmatch(r.file.line(line))
	if m == nil || m[2] != "" || !isRuleKey(m[3]) {
		return ""
	}
	for n := line - 1; n > 0; n-- {
		first := keyLine.FindStringSubmatch(r.file.line(n))
		if first == nil || first[2] == "" || !isRuleKey(first[3]) {
			continue
		}
		want := len(first[1]) + len(first[2])
		if want == len(m[1]) {
			return ""
		}
		return fmt.Sprintf("%s: has %d spaces before it, and the rule's other keys have %d: indent it as they are", m[3], len(m[1]), want)
	}
	return ""
}

// spaceHint is the way out of a key with its value glued to it.
func spaceHint(parts []string) string {
	if strings.HasPrefix(parts[2], "{") || strings.HasPrefix(parts[2], "[") {
		return fmt.Sprintf("a space is missing behind the colon, after %s:", parts[1])
	}
	return fmt.Sprintf("a space is missing behind the colon: write %s: %s", parts[1], parts[2])
}

// strays are the keys that stand beside an empty one, and belong under it.
func (r *reader) strays(fields []field) (stray map[*yaml.Node]bool) {
	stray = make(map[*yaml.Node]bool)
	for i, owner := range fields {
		if !null(owner.value) {
			continue
		}
		var names []string
		for _, f := range fields[i+1:] {
			if !belongs(f, owner.name()) {
				break
			}
			stray[f.key], stray[owner.key] = true, true
			names = append(names, f.name())
		}
		if len(names) > 0 {
			verb := map[bool]string{true: "stands", false: "stand"}[len(names) == 1]
			r.fail(fields[i+1].key, "PM008", fmt.Sprintf("%s %s beside %s, which is empty", list(names, "and"), verb, owner.name()),
				fmt.Sprintf("indent %s under %s: by two spaces more", map[bool]string{true: "it", false: "them"}[len(names) == 1], owner.name()))
		}
	}
	return stray
}

// belongs says whether a field belongs under a key of a rule, and not beside it.
func belongs(f field, owner string) bool {
	return slices.Contains(nestedKeys[owner], f.name()) ||
		owner == "load" && !isRuleKey(f.name()) && f.value.Kind == yaml.ScalarNode && asksSQL.MatchString(f.value.Value)
}

// formHint is the way out of a list for a single value, and the reverse.
func formHint(n *yaml.Node, wanted yaml.Kind, what string) string {
	single := n.Kind == yaml.SequenceNode && len(n.Content) == 1 && n.Content[0].Kind == yaml.ScalarNode
	switch {
	case wanted == yaml.ScalarNode && single:
		return "leave the list's brackets or hyphen out: " + n.Content[0].Value
	case wanted == yaml.SequenceNode && n.Kind == yaml.MappingNode && len(n.Content) > 0 && n.Style&yaml.FlowStyle == 0 && (what == ruleList || what == testList):
		return fmt.Sprintf("a hyphen begins each of them: write - %s: in the place of %s:, and indent what follows by two spaces more", n.Content[0].Value, n.Content[0].Value)
	case what == onForms:
		return onHint(n)
	case what == loadForms:
		return loadHint(n)
	case wanted == yaml.SequenceNode && n.Kind == yaml.ScalarNode && !null(n) && len(n.Value) < 40:
		return "a list stands in square brackets: [" + n.Value + "]"
	}
	return ""
}

// The forms that a key of a rule can have, in the words of the messages about them.
const (
	ruleList  = "a list of rules"
	testList  = "a list of tests"
	onForms   = "{table: …, ops: […]} or {message: …}"
	loadForms = "a mapping of names to queries"
)

// onHint is the way out of on: schedules, and of on: insert.
func onHint(n *yaml.Node) string {
	switch word := n.Value; {
	case n.Kind != yaml.ScalarNode || null(n):
		return ""
	case slices.Contains(opNames(rowOps), word):
		return "write on: {table: …, ops: [" + word + "]}"
	default:
		return "write on: {table: " + word + ", ops: [insert]}, with the operations that are meant"
	}
}

// loadHint is the way out of queries without a name.
func loadHint(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0 && n.Content[0].Kind == yaml.MappingNode:
		return "leave the hyphens out: each query stands behind its name"
	case n.Kind == yaml.SequenceNode, n.Kind == yaml.ScalarNode && !null(n):
		return "give the query a name, by which the template shows it: customer: | in the next line, indented, and below it the query"
	}
	return ""
}
