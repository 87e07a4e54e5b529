package rules

import (
	"errors"
	"fmt"
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
		return nil, []problem{parseProblem(source, tokens, err)}
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
		p.id, p.message, p.hint = "PM101", "an @ has no meaning in an expression", atHint(string(rest[1:]))
	case len(rest) > 0 && strings.ContainsRune("“”„‘’", rest[0]):
		p.id, p.message, p.hint = "PM101", "this is a quote of a word processor", `write "`
	case len(rest) > 0 && rest[0] == '~':
		p.id, p.message, p.hint = "PM101", "~ is SQL", `write new.x matches "^[0-9]+$"`
	case strings.Contains(e.Message, "bad number syntax"):
		p.id, p.hint = "PM119", "a number has digits alone: 100000000, or 100_000_000"
	case strings.Contains(e.Message, "not terminated"):
		p.message, p.hint = "the text is not closed", "add its closing quote; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	}
	return p
}

var atName = regexp.MustCompile(`^(new|old|message|row|to)\.([\pL_][\pL\pN_]*)|^[\pL_][\pL\pN_]*`)

// atHint is the way out of an @ and what follows it.
func atHint(rest string) string {
	const queries = "the @ belongs to queries"
	switch m := atName.FindStringSubmatch(rest); {
	case m == nil:
		return "an address stands in {address: …}"
	case m[1] == "" && slices.Contains([]string{"new", "old", "message"}, m[0]):
		return "write " + m[0] + ".column: " + queries
	case m[1] == "":
		return "write new." + m[0] + ", or message." + m[0] + " in a rule on a message: " + queries
	default:
		return "write " + m[0] + ": " + queries
	}
}

var goWords = strings.NewReplacer("unexpected token EOF", "the expression ends too early",
	"unexpected end of expression", "the expression ends too early")

var tokenText = regexp.MustCompile(`\w+\("(.*?)"\)`)

var longNumber = regexp.MustCompile(`parsing "([^"]+)"`)

func parseProblem(source string, tokens []lexer.Token, err error) problem {
	e, ok := errors.AsType[*file.Error](err)
	if !ok {
		return problem{0, "PM102", err.Error(), ""}
	}
	p := problem{e.From, "PM102", tokenText.ReplaceAllString(goWords.Replace(e.Message), "$1"), ""}
	at := slices.IndexFunc(tokens, func(t lexer.Token) bool { return t.From >= e.From })
	switch {
	case strings.Contains(e.Message, `Operator(",")`):
		p.hint = commaHint(tokens, at)
	case strings.Contains(e.Message, "coalesce expressions"):
		p.message, p.hint = "it is not clear what ?? and the operator beside it belong to", "write brackets: (new.x ?? 0) > 5"
	case strings.Contains(e.Message, "EOF"):
		p.offset++ // the end is one behind the last character
		p.hint = "close what is open; in YAML, a # behind a space cuts the line unless the value stands under a | line"
	case strings.Contains(e.Message, "arguments"):
		p.id, p.hint = "PM111", `write any(new.tags, # == "x"): a list, and a condition on its element #`
	case strings.Contains(e.Message, "float literal"):
		p.id, p.message, p.hint = "PM119", "this is no number", "a number has digits and one point: 1500000, 0.5"
	case strings.Contains(e.Message, "invalid integer literal"):
		p.id, p.message, p.hint = "PM119", "a whole number is at most 9223372036854775807", "write it with .0 behind it: it is compared exactly all the same"
		if m := longNumber.FindStringSubmatch(e.Message); m != nil { // the parser is one token further
			before, _, _ := strings.Cut(source, m[1])
			p.offset = utf8.RuneCountInString(before)
		}
	case at > 0 && closes(tokens[at-1]):
		p.hint = besideHint(tokens, at)
	}
	return p
}

// commaHint is the way out of a comma that joins nothing.
func commaHint(tokens []lexer.Token, at int) string {
	if at > 0 && touching(tokens, at-1) && touching(tokens, at) && tokens[at-1].Kind == lexer.Number && tokens[at+1].Kind == lexer.Number {
		return "a number has no commas: write " + tokens[at-1].Value + tokens[at+1].Value
	}
	return "conditions are joined with and, or; a list stands in square brackets"
}

// besideHint is the way out of two values without an operator between them.
func besideHint(tokens []lexer.Token, at int) string {
	if tokens[at].Kind != lexer.Identifier && tokens[at].Kind != lexer.Number && tokens[at].Kind != lexer.String {
		return ""
	}
	first := at - 1
	for first > 0 && tokens[first].Kind == lexer.Identifier && !dot(tokens[first-1]) {
		first--
	}
	if tokens[at].Kind != lexer.Identifier || first < 2 || !dot(tokens[first-1]) || tokens[first-2].Kind != lexer.Identifier {
		return "an operator is missing before " + tokens[at].Value + ", such as and, or, =="
	}
	words := []string{tokens[first].Value}
	for _, t := range tokens[first+1:] {
		if t.Kind != lexer.Identifier {
			break
		}
		words = append(words, t.Value)
	}
	return fmt.Sprintf("an operator is missing before %s, such as and, or, ==; a column of the name %q is written %s",
		tokens[at].Value, strings.Join(words, " "), exprColumn(tokens[first-2].Value, strings.Join(words, " ")))
}
