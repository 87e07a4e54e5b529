package rules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"
)

// lexProblem is what is said of an expression with a sign that has no meaning, which ends its reading.
func lexProblem(source string, err error) problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		return problem{0, "PM102", err.Error(), ""}
	}
	p := problem{e.From, "PM102", e.Message, ""}
	all := []rune(source)
	at := min(max(e.From, 0), len(all))
	rest := string(all[at:])
	first, _ := utf8.DecodeRuneInString(rest)
	switch {
	case first == '@' && at > 0 && all[at-1] == '<':
		p.id, p.message, p.hint = "PM101", "<@ is SQL", holdsHint(rightOf(string(all[at+1:])), leftOf(string(all[:at-1])))
	case strings.HasPrefix(rest, "@>"):
		p.id, p.message, p.hint = "PM101", "@> is SQL", holdsHint(leftOf(string(all[:at])), rightOf(string(all[at+2:])))
	case first == '@':
		p.id, p.message, p.hint = "PM101", "an @ has no meaning in an expression", atHint(rest[1:])
	case rest != "" && strings.ContainsRune("“”„‘’", first):
		p.id, p.message, p.hint = "PM101", "this is a quote of a word processor", `write "`
	case first == '~':
		p.id, p.message, p.hint = "PM101", "~ is SQL", matchesHint(string(all[:at]), rest)
	case strings.Contains(e.Message, "bad number syntax"):
		word := badNumber.FindStringSubmatch(e.Message)
		p.id = "PM119"
		if p.hint = "a number has digits alone, and a point before its fraction"; word != nil {
			p.offset -= utf8.RuneCountInString(word[1])
			p.hint = unitHint(word[1] + rest)
		}
	case strings.Contains(e.Message, "not terminated"):
		p.message, p.hint = "the text is not closed", "add its closing quote; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	}
	return p
}

// leftOf is the value that a part of an expression ends with, as it is written; empty: there is none.
func leftOf(source string) string {
	r, err := read(source)
	if err != nil {
		return ""
	}
	return r.left(len(r.tokens) - 1)
}

// rightOf are the tokens of what follows a sign; none, if it cannot be read either.
func rightOf(source string) string {
	r, err := read(source)
	if err != nil {
		return ""
	}
	if r.is(0, "array") && r.at(1).Is(lexer.Bracket, "[") {
		return r.text(0, r.closes(1)+1)
	}
	return r.right(0)
}

var (
	arrayText = regexp.MustCompile(`^['"]\{([^{}"\\:]+)\}['"]$`)
	arrayList = regexp.MustCompile(`(?i)^array\[(.+)\]$`)
)

// holdsHint is the way out of tags @> '{vip}': a list that has some elements.
func holdsHint(list, held string) string {
	var items []string
	if m := arrayText.FindStringSubmatch(held); m != nil {
		for item := range strings.SplitSeq(m[1], ",") {
			item = strings.TrimSpace(item)
			if _, err := strconv.Atoi(item); err != nil {
				item = strconv.Quote(item)
			}
			items = append(items, item)
		}
	} else if m := arrayList.FindStringSubmatch(held); m != nil {
		if r, err := read("[" + m[1] + "]"); err == nil {
			items = r.list(0)
		}
	}
	if list == "" || len(items) == 0 {
		return "what is in a list is asked for with in, and a key of JSON stands behind a dot"
	}
	for i, item := range items {
		items[i] = item + " in " + list
	}
	return "write " + strings.Join(items, " and ")
}

var likeSign = regexp.MustCompile(`^(~\*?)\s*`)

// matchesHint is the way out of x ~ 'a', and of x ~* 'a', where capitals do not matter.
func matchesHint(before, rest string) string {
	m := likeSign.FindString(rest)
	negated := strings.HasSuffix(before, "!")
	left, r := leftOf(strings.TrimSuffix(before, "!")), rest[len(m):]
	tokens, err := read(r)
	if left == "" || err != nil || tokens.at(0).Kind != lexer.String {
		return "write matches, with a regular expression in quotes behind it"
	}
	pattern := tokens.at(0).Value
	if strings.Contains(m, "*") {
		pattern = "(?i)" + pattern
	}
	operator := "matches"
	if negated {
		operator = "not matches"
	}
	return fmt.Sprintf("write %s %s %s", left, operator, strconv.Quote(pattern))
}

// badNumber has the digits before the letter that the lexer stands at.
var badNumber = regexp.MustCompile(`bad number syntax: "(\d[\d_.]*)[^\d]"`)

var numberUnit = regexp.MustCompile(`^([\d_]+)(k|K|m|M|만|억)(?:[^\pL\pN]|$)`)

// unitZeros are how many digits a unit stands for.
var unitZeros = map[string]int{"k": 3, "m": 6, "만": 4, "억": 8}

// unitHint is the way out of 1M, and of other numbers with letters behind them.
func unitHint(rest string) string {
	m := numberUnit.FindStringSubmatch(rest)
	if m == nil {
		return "a number has digits alone, and a point before its fraction"
	}
	return "a number has digits alone: write " + m[1] + strings.Repeat("0", unitZeros[strings.ToLower(m[2])])
}

var atName = regexp.MustCompile(`^(new|old|message|row|to)\.([\pL_][\pL\pN_]*)|^[\pL_][\pL\pN_]*`)

// atHint is the way out of an @ and what follows it.
func atHint(rest string) string {
	const queries = "the @ belongs to queries"
	switch m := atName.FindStringSubmatch(rest); {
	case m == nil:
		return "leave it out; a mail address stands in {address: …}, and not in an expression"
	case m[1] == "" && slices.Contains([]string{"new", "old", "message"}, m[0]):
		return queries + ": write " + m[0] + ".column"
	case m[1] == "":
		return queries + ": write new." + m[0] + ", or message." + m[0] + " in a rule on a message"
	default:
		return queries + ": write " + m[0]
	}
}

var goWords = strings.NewReplacer("unexpected token EOF", "the expression ends too early",
	"unexpected end of expression", "the expression ends too early")

var tokenText = regexp.MustCompile(`\w+\("(.*?)"\)`)

var longNumber = regexp.MustCompile(`parsing "([^"]+)"`)

// problem is what is said of an expression that the parser refuses.
func (r reading) problem(err error) problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		return problem{0, "PM102", err.Error(), ""}
	}
	p := problem{e.From, "PM102", tokenText.ReplaceAllString(goWords.Replace(e.Message), "$1"), ""}
	at := slices.IndexFunc(r.tokens, func(t lexer.Token) bool { return t.From >= e.From })
	switch {
	case strings.Contains(e.Message, `Operator(",")`):
		p.hint = r.commaHint(at)
	case strings.Contains(e.Message, "coalesce expressions"):
		p.message, p.hint = "it is not clear what ?? and the operator beside it belong to", r.fallbackHint()
	case strings.Contains(e.Message, "EOF"):
		p.offset++ // the end is one behind the last character
		p.hint = "close what is open; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	case strings.Contains(e.Message, "arguments"):
		p.id, p.hint = "PM111", `a list comes first, and then a condition on its element #, such as # == "x"`
	case strings.Contains(e.Message, "float literal"):
		p.id, p.message, p.hint = "PM119", "this is no number", "a number has digits and one point: 1500000, 0.5"
	case strings.Contains(e.Message, "invalid integer literal"):
		p.id, p.message, p.hint = "PM119", "a whole number is at most 9223372036854775807", "write it with .0 behind it: it is compared exactly all the same"
		if m := longNumber.FindStringSubmatch(e.Message); m != nil { // the parser is one token further
			before, _, _ := strings.Cut(string(r.source), m[1])
			p.offset = utf8.RuneCountInString(before)
		}
	case at > 0 && r.at(at).Kind == lexer.Operator && r.at(at-1).Kind == lexer.Operator:
		p.hint = r.doubledHint(at)
	case at > 0 && closes(r.at(at-1)):
		p.hint = r.besideHint(at)
	}
	return p
}

// commaHint is the way out of a comma that joins nothing: of the thousands of a number, or of its fraction.
func (r reading) commaHint(at int) string {
	first, last := at-1, at-1
	for first >= 2 && r.groups(first-2) {
		first -= 2
	}
	for r.groups(last) {
		last += 2
	}
	if at <= 0 || last < at {
		return "conditions are joined with and, or; a list stands in square brackets"
	}
	var parts []string
	for i := first; i <= last; i += 2 {
		parts = append(parts, strings.ReplaceAll(r.at(i).Value, "_", ""))
	}
	whole := strings.Join(parts, "")
	switch tail, _, _ := strings.Cut(parts[len(parts)-1], "."); {
	case len(parts) > 2, len(tail) == 3 && strings.Contains(parts[len(parts)-1], "."):
		return "a number has no commas: write " + whole
	case len(tail) != 3, strings.Trim(parts[0], "0") == "":
		return "a fraction stands behind a point: write " + parts[0] + "." + parts[1]
	}
	return fmt.Sprintf("a number has no commas: write %s, or %s.%s where the comma stood before a fraction", whole, parts[0], parts[1])
}

// groups says whether two numbers stand with a comma between them, and nothing else.
func (r reading) groups(i int) bool {
	return r.at(i).Kind == lexer.Number && r.at(i+1).Is(lexer.Operator, ",") && r.at(i+2).Kind == lexer.Number && touching(r.tokens, i) && touching(r.tokens, i+1)
}

// fallbackHint is the way out of ?? beside another operator.
func (r reading) fallbackHint() string {
	i := slices.IndexFunc(r.tokens, func(t lexer.Token) bool { return t.Is(lexer.Operator, "??") })
	if i < 0 || r.left(i) == "" || r.right(i+1) == "" {
		return "put brackets around ?? and its two values"
	}
	return fmt.Sprintf("put brackets around it: write (%s ?? %s)", r.left(i), r.right(i+1))
}

// doubledHint is the way out of two operators in a row.
func (r reading) doubledHint(at int) string {
	one, two := r.at(at-1), r.at(at)
	joins := func(t lexer.Token) bool { return t.Is(lexer.Operator, "and", "&&", "or", "||") }
	compared := []string{"<", "<=", ">", ">=", "==", "!="}
	switch {
	case one.Value == two.Value:
		return two.Value + " is there twice: leave one out"
	case joins(one) && slices.Contains(compared, two.Value):
		if i := r.comparedBefore(at - 1); i >= 0 {
			return fmt.Sprintf("a comparison has a value on both sides: write %s %s", r.left(i), r.text(at, max(r.behind(at+1), at+1)))
		}
	}
	return fmt.Sprintf("two operators in a row: leave %s or %s out, or write the value between them", one.Value, two.Value)
}

// comparedBefore is the operator of the comparison that ends before the i-th token; -1: there is none.
func (r reading) comparedBefore(i int) int {
	if j := r.before(i) - 1; j > 0 && r.at(j).Is(lexer.Operator, "<", "<=", ">", ">=", "==", "!=") && r.left(j) != "" {
		return j
	}
	return -1
}

// besideHint is the way out of two values without an operator between them.
func (r reading) besideHint(at int) string {
	t := r.at(at)
	if t.Kind != lexer.Identifier && t.Kind != lexer.Number && t.Kind != lexer.String {
		return ""
	}
	first := at - 1
	for first > 0 && r.at(first).Kind == lexer.Identifier && !dot(r.at(first-1)) {
		first--
	}
	if t.Kind != lexer.Identifier || first < 2 || !dot(r.at(first-1)) || r.at(first-2).Kind != lexer.Identifier {
		return "an operator is missing before " + t.Value + ", such as and, or, =="
	}
	words := []string{r.at(first).Value}
	for i := first + 1; r.at(i).Kind == lexer.Identifier; i++ {
		words = append(words, r.at(i).Value)
	}
	return fmt.Sprintf("an operator is missing before %s, such as and, or, ==; a column of the name %q is written %s",
		t.Value, strings.Join(words, " "), exprColumn(r.at(first-2).Value, strings.Join(words, " ")))
}
