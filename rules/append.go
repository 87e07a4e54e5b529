package rules

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Append adds a rule to the end of a rule file's list, and leaves all else in the file as it is. item is the rule with its hyphen
// indented by so many spaces. The error says why the file has no place for it.
func Append(name string, content []byte, item func(indent int) string) ([]byte, error) {
	before := new(Source)
	errs := append(before.add(name, content), before.unite()...)
	if len(errs) > 0 && len(bytes.TrimSpace(content)) > 0 {
		return nil, fmt.Errorf("the file has mistakes, which come first:\n%w", errs)
	}
	grown, err := insert(name, content, item)
	if err != nil {
		return nil, err
	}
	after := new(Source)
	if errs = append(after.add(name, grown), after.unite()...); len(errs) > 0 {
		return nil, fmt.Errorf("the rule does not fit the file:\n%w", errs)
	}
	same := len(after.Rules) == len(before.Rules)+1
	for i := 0; same && i < len(before.Rules); i++ {
		same = before.Rules[i].Version() == after.Rules[i].Version()
	}
	if !same {
		return nil, errors.New("the file's list has no place for it")
	}
	return grown, nil
}

// commentOf is how far a line's comment is indented; -1 of a line that is more, or none.
func commentOf(line string) int {
	text := strings.TrimLeft(line, " ")
	if !strings.HasPrefix(text, "#") {
		return -1
	}
	return len(line) - len(text)
}

var emptyList = regexp.MustCompile(`^(rules\s*:)\s*\[\s*\]\s*(#.*)?$`)

// insert puts the item behind the last one of the list.
func insert(name string, content []byte, item func(indent int) string) ([]byte, error) {
	if len(bytes.TrimSpace(content)) == 0 {
		return []byte("rules:\n" + item(2)), nil
	}
	f := newFile(name, content)
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("reading the file: %w", err)
	}
	var lines []string // with their ends, as YAML tells them apart
	start := 0
	for _, end := range lineEnds(content) {
		lines, start = append(lines, string(content[start:end])), end
	}
	if last := len(lines) - 1; lines[last] != "" {
		lines[last] += "\n"
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, list := root.Content[i], root.Content[i+1]
		switch {
		case key.Value != "rules":
		case len(list.Content) == 0:
			at := key.Line - 1
			if !emptyList.MatchString(strings.TrimRight(lines[at], "\r\n")) {
				return nil, errors.New("the file's list is not written as lines that begin with a hyphen")
			}
			lines[at] = emptyList.ReplaceAllString(strings.TrimRight(lines[at], "\r\n"), "$1 $2")
			lines[at] = strings.TrimRight(lines[at], " ") + "\n"
			return []byte(strings.Join(slices.Insert(lines, at+1, item(2)), "")), nil
		case list.Style&yaml.FlowStyle != 0:
			return nil, errors.New("the file's list is written in [ ]: write it as lines that begin with a hyphen")
		default:
			first := list.Content[0]
			indent := strings.LastIndexByte(f.line(first.Line)[:max(first.Column-1, 0)], '-')
			if indent < 0 {
				return nil, errors.New("the file's list is not written as lines that begin with a hyphen")
			}
			at := lastLine(f, list)
			for at < len(lines) && commentOf(lines[at]) > indent { // what is said at the end of the last rule
				at++
			}
			return []byte(strings.Join(slices.Insert(lines, at, "\n"+item(indent)), "")), nil
		}
	}
	return nil, errors.New("the file has no list of rules")
}
