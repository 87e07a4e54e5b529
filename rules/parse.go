package rules

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"
)

// maxExpr bounds an expression's source in bytes. The parser recurses once per bracket.
const maxExpr = 8 << 10

// swallowing finds a // comment that takes in more than its line.
func swallowing(t text) (offset int, found bool) {
	if !strings.Contains(t.value, "//") {
		return 0, false
	}
	tokens, err := lexer.Lex(file.NewSource(t.value))
	if err != nil {
		return 0, false
	}
	source, end := []rune(t.value), 0
	for _, token := range tokens {
		next := token.From
		if token.Kind == lexer.EOF {
			next = len(source)
		}
		gap := string(source[end:max(end, next)]) // white space and comments
		if before, comment, ok := strings.Cut(gap, "//"); ok {
			from := end + utf8.RuneCountInString(before)
			line, _, _ := strings.Cut(comment, "\n")
			if swallows(t, from, from+2+utf8.RuneCountInString(line)) {
				return from, true
			}
		}
		end = token.To
	}
	return 0, false
}

// parseExpr parses an expression. It looks for what people who think in SQL write first: the parser's own words for it
// would not help them.
func parseExpr(source string, c *conf.Config) (ast.Node, []problem) {
	if len(source) > maxExpr {
		return nil, []problem{{0, "PM103", "the expression is longer than 8 KiB", "join a table that lists the cases in the query of to, or make several rules"}}
	}
	tokens, err := lexer.Lex(file.NewSource(source))
	if err != nil {
		return nil, []problem{lexProblem(source, err)}
	}
	if habits := habits(tokens); len(habits) > 0 {
		return nil, habits
	}
	tree, err := parser.ParseWithConfig(source, c)
	if err != nil {
		return nil, []problem{parseProblem(source, err)}
	}
	if left := maxExpr; !countable(tree.Node, &left) {
		return nil, []problem{{
			0, "PM103", "the chains of comparisons stand inside of one another too deep: each like 0 < a < 10 means what stands at a twice",
			"write the chains out with and, or make several rules",
		}}
	}
	return tree.Node, nil
}

// countable says whether a tree has at most as many parts as are left. An expression's length bounds them, but for its chains:
// of 0 < a < 10 the parser makes 0 < a && a < 10, with one a that each walk over the tree meets twice.
func countable(n ast.Node, left *int) bool {
	*left--
	return *left >= 0 && !slices.ContainsFunc(children(n), func(n ast.Node) bool { return !countable(n, left) })
}

// children are the parts that a part of an expression is made of.
func children(n ast.Node) []ast.Node {
	switch n := n.(type) {
	case *ast.UnaryNode:
		return []ast.Node{n.Node}
	case *ast.BinaryNode:
		return []ast.Node{n.Left, n.Right}
	case *ast.ChainNode:
		return []ast.Node{n.Node}
	case *ast.MemberNode:
		return []ast.Node{n.Node, n.Property}
	case *ast.SliceNode:
		return []ast.Node{n.Node, n.From, n.To}
	case *ast.CallNode:
		return append([]ast.Node{n.Callee}, n.Arguments...)
	case *ast.BuiltinNode:
		return n.Arguments
	case *ast.PredicateNode:
		return []ast.Node{n.Node}
	case *ast.VariableDeclaratorNode:
		return []ast.Node{n.Value, n.Expr}
	case *ast.SequenceNode:
		return n.Nodes
	case *ast.ConditionalNode:
		return []ast.Node{n.Cond, n.Exp1, n.Exp2}
	case *ast.ArrayNode:
		return n.Nodes
	case *ast.MapNode:
		return n.Pairs
	case *ast.PairNode:
		return []ast.Node{n.Key, n.Value}
	}
	return nil
}

func lexProblem(source string, err error) problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		return problem{0, "PM102", err.Error(), ""}
	}
	p := problem{e.From, "PM102", e.Message, ""}
	rest := []rune(source)[min(max(e.From, 0), utf8.RuneCountInString(source)):]
	switch {
	case len(rest) > 0 && rest[0] == '@':
		p.id, p.message, p.hint = "PM101", "an @ has no meaning in an expression", "write new.column here; @new.column is for queries, {address: …} for an address"
	case len(rest) > 0 && strings.ContainsRune("“”„‘’", rest[0]):
		p.id, p.message, p.hint = "PM101", "this is a quote of a word processor", `write "`
	case strings.Contains(e.Message, "bad number syntax"):
		p.id, p.hint = "PM119", "a number has digits alone: 100000000, or 100_000_000"
	case strings.Contains(e.Message, "not terminated"):
		p.message, p.hint = "the text is not closed", "add its closing quote; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	}
	return p
}

var goWords = strings.NewReplacer("unexpected token EOF", "the expression ends too early",
	"unexpected end of expression", "the expression ends too early")

var tokenText = regexp.MustCompile(`\w+\("(.*?)"\)`)

var longNumber = regexp.MustCompile(`parsing "([^"]+)"`)

func parseProblem(source string, err error) problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		return problem{0, "PM102", err.Error(), ""}
	}
	p := problem{e.From, "PM102", tokenText.ReplaceAllString(goWords.Replace(e.Message), "$1"), ""}
	switch {
	case strings.Contains(e.Message, `Operator(",")`):
		p.hint = "a number has no commas: 1000, or 1_000; a list stands in brackets"
	case strings.Contains(e.Message, "coalesce expressions"):
		p.message, p.hint = "it is not clear what ?? and the operator beside it belong to", "write brackets: (new.x ?? 0) > 5"
	case strings.Contains(e.Message, "EOF"):
		p.offset++ // the end is one behind the last character
		p.hint = "close what is open; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	case strings.Contains(e.Message, "invalid integer literal"):
		p.id, p.message, p.hint = "PM119", "a whole number is at most 9223372036854775807", "write it with .0 behind it: it is compared exactly all the same"
		if m := longNumber.FindStringSubmatch(e.Message); m != nil { // the parser is one token further
			before, _, _ := strings.Cut(source, m[1])
			p.offset = utf8.RuneCountInString(before)
		}
	}
	return p
}

// habit is a way of SQL that is none of an expression's.
type habit struct {
	tokens  []string // in a row, in small letters
	capital bool     // only in capitals
	message string
	hint    string
}

const (
	queryHint = "what needs another table belongs into the query of to: where it gives no row, there is no mail"
	nullHint  = "NULL is written nil: new.x == nil, new.x != nil"
	likeHint  = `write new.x contains "…", startsWith, endsWith, or matches with a regular expression`
	timeHint  = "the change's own time is commit_time: a replay must come to the same result"
	inHint    = `a list stands in square brackets: new.x in ["a", "b"]; a range in none: new.x in 1..10`
)

// habitList has the longer ones first: only the first that fits is reported.
var habitList = []habit{
	{[]string{"="}, false, "= does not compare", "write =="},
	{[]string{"<", ">"}, false, "<> does not compare", "write !="},
	{[]string{"is", "not", "null"}, false, "is not null is SQL", nullHint},
	{[]string{"is", "null"}, false, "is null is SQL", nullHint},
	{[]string{"is", "not", "distinct", "from"}, false, "is not distinct from is SQL", "== means just that here: NULL equals NULL"},
	{[]string{"is", "distinct", "from"}, false, "is distinct from is SQL", "!= means just that here: NULL equals NULL"},
	{[]string{"is"}, false, "is is SQL", "write == or !="},
	{[]string{"and"}, true, "and is written in small letters", "write and, or &&"},
	{[]string{"or"}, true, "or is written in small letters", "write or, or ||"},
	{[]string{"not"}, true, "not is written in small letters", "write not, or !"},
	{[]string{"in", "(", "select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"in", "("}, false, "a list is not in round brackets", inHint},
	{[]string{"in"}, true, "in is written in small letters", inHint},
	{[]string{"true"}, true, "true is written in small letters", "write true"},
	{[]string{"false"}, true, "false is written in small letters", "write false"},
	{[]string{"like"}, false, "like is SQL", likeHint},
	{[]string{"ilike"}, false, "ilike is SQL", "write lower(new.x) contains \"…\", startsWith or endsWith"},
	{[]string{"between"}, false, "between is SQL", "write new.x in 1..10 for whole numbers, or new.x >= 1 and new.x <= 10"},
	{[]string{"null"}, false, "null is SQL", nullHint},
	{[]string{"interval"}, false, "interval is SQL", `write duration("1h")`},
	{[]string{"now", "("}, false, "now() would not be the same in a replay", timeHint},
	{[]string{"current_timestamp"}, false, "current_timestamp would not be the same in a replay", timeHint},
	{[]string{"current_date"}, false, "current_date would not be the same in a replay", timeHint},
	{[]string{"::"}, false, ":: is SQL", "an expression knows the types of columns: leave the cast out"},
	{[]string{"|"}, false, "the pipe is not a part of rules", "write the function around the value: lower(new.x)"},
	{[]string{";"}, false, "an expression is one expression", "join conditions with and"},
	{[]string{"let"}, false, "let is not a part of rules", "write the value out where it is needed"},
	{[]string{"if"}, false, "if is not a part of rules", "write condition ? a : b"},
	{[]string{"case", "when"}, false, "case when is SQL", "write condition ? a : b"},
	{[]string{"case"}, false, "case is SQL", "write condition ? a : b"},
	{[]string{"select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"exists", "(", "select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"{", "{"}, false, "{{ }} belongs to templates", "write new.column"},
}

// habits reports all habits of SQL in a row of tokens. What follows a dot is a column's name, whatever it is called.
func habits(tokens []lexer.Token) []problem {
	var found []problem
	for i := 0; i < len(tokens); i++ {
		if i > 0 && (tokens[i-1].Is(lexer.Operator, ".") || tokens[i-1].Is(lexer.Operator, "?.")) {
			continue
		}
		if h := slices.IndexFunc(habitList, func(h habit) bool { return h.fits(tokens[i:]) }); h >= 0 {
			found = append(found, problem{tokens[i].From, "PM101", habitList[h].message, habitList[h].hint})
			i += len(habitList[h].tokens) - 1
		} else if loose(tokens[i:]) {
			found = append(found, problem{
				tokens[i].From, "PM101", "a text is no condition: " + tokens[i].Value + " means or here",
				`to join texts write +; to compare with each of some, new.x in ["a", "b"]`,
			})
		}
	}
	return found
}

// loose says whether the tokens begin with an or whose right side is a text alone.
func loose(tokens []lexer.Token) bool {
	if len(tokens) < 3 || !tokens[0].Is(lexer.Operator, "||") && !tokens[0].Is(lexer.Operator, "or") || tokens[1].Kind != lexer.String {
		return false
	}
	next := tokens[2]
	return next.Kind == lexer.EOF || next.Is(lexer.Bracket, ")") || next.Is(lexer.Operator) && slices.Contains([]string{"||", "or", "&&", "and"}, next.Value)
}

func (h habit) fits(tokens []lexer.Token) bool {
	if len(tokens) < len(h.tokens) {
		return false
	}
	for i, want := range h.tokens {
		got := tokens[i]
		if len(got.Value) != len(want) || strings.ToLower(got.Value) != want || got.Kind == lexer.String {
			return false
		}
		if h.capital && got.Value == strings.ToLower(got.Value) {
			return false
		}
	}
	// < and > are one operator only when nothing is between them
	return h.tokens[0] != "<" || tokens[0].To == tokens[1].From
}
