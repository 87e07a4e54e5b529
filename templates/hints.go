package templates

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
)

// parseMistake gives an error of the parser its place. The parser tells the line alone; the column is where the shortest beginning of
// the line ends that fails in the same way.
func parseMistake(f *file, err error) error {
	m := parseError.FindStringSubmatch(err.Error())
	if m == nil {
		return &mistake{file: f, message: err.Error()}
	}
	line, _ := strconv.Atoi(m[1])
	start, text := f.lineStart(line), f.lineText(line)
	at := f.breaks(start, text, err.Error())
	column := 0
	if at > 0 {
		column = f.runeColumn(line, at-1)
	}
	hint := parseHint(m[2], text, at)
	if m[2] == "unexpected {{end}}" {
		hint = cmp.Or(f.loopHint(line), hint)
	}
	return &mistake{file: f, line: line, column: column, message: m[2], hint: hint}
}

// otherLoop is a loop, or a choice, of another template language.
var otherLoop = regexp.MustCompile(`\{\{-?\s*(?:for\s+(\w+)\s+in\s+\.?(\w[\w.]*)|(#?(?:foreach|each|for|while|unless|switch))\b)`)

// loopHint is the way out of an {{end}} too many in a line, where a loop of another language stands before it.
func (f *file) loopHint(line int) string {
	for n := line; n > 0; n-- {
		switch m := otherLoop.FindStringSubmatch(f.lineText(n)); {
		case m == nil:
		case m[1] != "":
			return fmt.Sprintf("on line %d, write {{range $%s := .%s}}, and $%[2]s where %[2]s is meant", n, m[1], m[2])
		default:
			return fmt.Sprintf("{{%s}} on line %d is of another language: there are {{if}}, {{with}} and {{range}}", m[3], n)
		}
	}
	return ""
}

// tagStart is HTML behind an action that was not closed.
var tagStart = regexp.MustCompile(`^<(?:/|!--|[a-zA-Z])`)

// breaks is how many bytes of a line, which begins at an offset, fail to parse as the whole does; 0: that cannot be told.
func (f *file) breaks(start int, line, failure string) int {
	const most = 1000 // of a longer line nobody sees the column
	if strings.Contains(failure, "unexpected EOF") {
		return 0
	}
	for end := 1; end <= min(len(line), most); end++ {
		tree := parse.New(f.name)
		tree.Mode = parse.SkipFuncCheck
		if _, err := tree.Parse(f.text[:start+end], "", "", make(map[string]*parse.Tree)); err != nil && err.Error() == failure {
			return end
		}
	}
	return 0
}

const (
	computedHint = "what is computed belongs into a query of load: select @new.price - @old.price as saved"
	compareHint  = `what compares comes first: {{if eq .new.kind "meeting"}}, {{if ne …}}, {{if not …}}`
)

// quotedPart is a column in quotes or brackets behind a dot: .new."Buyer Id", .new["Buyer Id"].
var quotedPart = regexp.MustCompile(`\.?(\w[\w.]*?)\.?\[?["']([^"']+)["']\]?`)

// parseHint is the way out of what people write who know other languages. The line's first bytes break it.
func parseHint(message, line string, bytes int) string {
	has := func(signs ...string) bool {
		return slices.ContainsFunc(signs, func(sign string) bool {
			return strings.Contains(message, `unexpected "`+sign) || strings.Contains(message, `'`+sign+`'`) || strings.Contains(message, `number syntax: "`+sign)
		})
	}
	switch {
	case message == "unexpected EOF":
		return "an {{if}}, {{with}}, {{range}} or {{define}} before it has no {{end}}"
	case message == "unexpected {{end}}":
		return "it closes nothing: there is one {{end}} too many, or an {{if}}, {{with}} or {{range}} is missing"
	case strings.HasPrefix(message, "unexpected {{else}}"):
		return "it belongs to no {{if}}, {{with}} or {{range}}"
	case strings.HasPrefix(message, "undefined variable"):
		return "a value begins with a dot: .new; a variable is made with {{$x := .new.title}}"
	case strings.HasPrefix(message, "unterminated quoted string"):
		return `close the text: "…"`
	case has(`"`, "["):
		if m := quotedPart.FindStringSubmatch(action(line, bytes)); m != nil {
			return fmt.Sprintf("write {{get .%s %q}}", m[1], m[2])
		}
	case has("??"), has("?"):
		return `a value for NULL: {{.new.title | default "…"}}; a choice: {{if .new.sold}}…{{else}}…{{end}}`
	case has("=", "!"):
		return compareHint
	case has("<") && bytes > 0 && bytes <= len(line) && tagStart.MatchString(line[bytes-1:]):
		return "the action before it is not closed: write }} before " + tagStart.FindString(line[bytes-1:])
	case has("<", ">"):
		return "what compares comes first: lt, le, gt, ge, as in {{if gt .new.price 1000}}"
	case has("&"):
		return "what joins comes first: {{if and .new.vacant .new.price}}, {{if or …}}"
	case has("@"):
		return "an @ is for queries: write .new.column"
	case has("%"):
		return computedHint + "; for the sign itself write it behind the action: {{.new.share}} %"
	case has("+", "-", "*", "/"):
		return computedHint
	case has(","):
		return "values stand side by side, without commas"
	case has("}"):
		return "an action ends with two braces: }}"
	case strings.Contains(message, "malformed character constant"):
		return `a text stands in double quotes: "meeting"`
	}
	return ""
}

// action is the source of the action that an offset in a line is in, without its braces.
func action(line string, at int) string {
	at = min(at, len(line))
	text := line[strings.LastIndex(line[:at], "{{")+1:]
	text, _, _ = strings.Cut(strings.TrimPrefix(text, "{"), "}}")
	return text
}

// partHint is the way out of a part that is not there.
func partHint(name, owner string, known []string) string {
	best, ok := nearest(name, known)
	i := slices.IndexFunc(known, func(k string) bool { return strings.HasPrefix(strings.ToLower(k), strings.ToLower(name)+" ") })
	if !ok && i >= 0 {
		best, ok = known[i], true
	}
	if ok && !plainName.MatchString(best) {
		return fmt.Sprintf("did you mean {{%s}}?", getCall(owner, best))
	}
	if ok {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return didYouMean(name, known)
}

// plainName is a name that may stand behind a dot.
var plainName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{Nd}_]*$`)

// valueHint is the way out of a word that is no function, where it looks like a value: customer.name, or the second word of a column.
func (f *file) valueHint(id *parse.IdentifierNode) string {
	before, behind := f.text[:id.Pos], f.text[int(id.Pos)+len(id.Ident):]
	if strings.HasPrefix(behind, ".") {
		return "a value begins with a dot: ." + id.Ident
	}
	if m := lastPart.FindStringSubmatch(before); m != nil {
		return fmt.Sprintf("if the column is called %[2]q, write {{get %[1]s %[2]q}}", m[1], m[2]+id.Ident)
	}
	return ""
}

// unknownHint is the way out of a word that is like nothing: without values behind it, it may be one itself.
func (f *file) unknownHint(id *parse.IdentifierNode) string {
	const list = "docs/templates.md lists the functions"
	behind := strings.TrimLeft(f.text[int(id.Pos)+len(id.Ident):], " \t\r\n")
	if strings.HasPrefix(behind, "}}") || strings.HasPrefix(behind, "|") || strings.HasPrefix(behind, ")") {
		return list + "; a value begins with a dot: ." + id.Ident
	}
	return list
}

// lastPart is .new.Buyer and white space at a text's end.
var lastPart = regexp.MustCompile(`\{\{-? *(\.[\w.]*)\.(\w+ )$`)

// Errors of text/template about what a function takes.
var (
	wrongValue = regexp.MustCompile(`^wrong type for value; expected (string|int); got |^expected (string|integer); found `)
	wrongCount = regexp.MustCompile(`^wrong number of args for (\w+): (.*)$`)
	notMethod  = regexp.MustCompile(`^(\w+) is not a method but has arguments$`)
	lastWord   = regexp.MustCompile(`[a-z]+`)
)

// usages are a call of each function.
var usages = map[string]string{
	"money": `money .new.price "KRW"`, "won": "won .new.price", "number": "number .new.price 2", "date": "date .new.starts_at", "day": "day .new.starts_at",
	"time": "time .new.starts_at", "datetime": "datetime .new.starts_at", "weekday": "weekday .new.starts_at", "zone": "zone .new.starts_at",
	"icstime": "icstime .new.starts_at", "locale": "locale", "plural": `plural .new.rooms "room" "rooms"`, "default": `default "none" .new.note`,
	"join": `join ", " .new.tags`, "print": `print "a" .new.note`, "upper": "upper .new.title", "lower": "lower .new.title", "initial": "initial .new.title",
	"get": `get .message "name"`, "dict": `dict "label" "…" "value" .new.title`, "len": "len .listings", "not": "not .new.sold", "eq": `eq .new.kind "meeting"`,
	"ne": `ne .new.kind "meeting"`, "lt": "lt .new.price 1000", "le": "le .new.price 1000", "gt": "gt .new.price 1000", "ge": "ge .new.price 1000",
	"and": "and .new.vacant .new.price", "or": "or .new.title .new.note",
}

// usageHint shows a call of the function that an action in a line failed in, where it was called in a wrong way.
func usageHint(line string, column int, message string) string {
	if m := wrongCount.FindStringSubmatch(message); m != nil {
		return usageOf(m[1])
	}
	if notMethod.MatchString(message) {
		return `what is done with values comes first: {{or .new.title "none"}}, {{if eq .new.kind "meeting"}}`
	}
	if !wrongValue.MatchString(message) {
		return ""
	}
	before := line[:min(column, len(line))]
	for _, word := range slices.Backward(lastWord.FindAllString(before[max(strings.LastIndex(before, "{{"), 0):], -1)) {
		if usages[word] != "" {
			return usageOf(word)
		}
	}
	return ""
}

func usageOf(function string) string {
	if usages[function] == "" {
		return ""
	}
	return "write {{" + usages[function] + "}}"
}
