package rules

import (
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
	r, err := read(source)
	if err != nil {
		return nil, []problem{lexProblem(source, err)}
	}
	if habits := r.habits(); len(habits) > 0 {
		return nil, habits
	}
	tree, err := parser.ParseWithConfig(source, c)
	if err != nil {
		return nil, []problem{r.problem(err)}
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
