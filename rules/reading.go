package rules

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"
)

// reading is an expression as its writer sees it: words and signs, of which a hint can show those that stand there.
type reading struct {
	source []rune
	tokens []lexer.Token // the last one is EOF
}

// read takes an expression apart.
func read(source string) (reading, error) {
	tokens, err := lexer.Lex(file.NewSource(source))
	return reading{[]rune(source), tokens}, err
}

// text is the source of the tokens from one on to before another.
func (r reading) text(from, to int) string {
	if from < 0 || from >= to || to > len(r.tokens) {
		return ""
	}
	return string(r.source[r.tokens[from].From:r.tokens[to-1].To])
}

// at is the i-th token; the end, where there is none.
func (r reading) at(i int) lexer.Token {
	if i < 0 || i >= len(r.tokens) {
		return lexer.Token{Kind: lexer.EOF}
	}
	return r.tokens[i]
}

// is says whether the i-th token is a word or sign, in small letters or not.
func (r reading) is(i int, words ...string) bool {
	t := r.at(i)
	return t.Kind != lexer.String && slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, t.Value) })
}

// before is where the value begins that ends before the i-th token; i, where none does.
func (r reading) before(i int) int {
	start := i
	for start > 0 {
		t := r.at(start - 1)
		switch {
		case t.Is(lexer.Bracket, ")", "]"):
			open := r.opens(start - 1)
			if open < 0 {
				return i
			}
			start = open
			if start > 0 && r.at(start-1).Kind == lexer.Identifier || t.Value == "]" { // a call, or an item
				if !touching(r.tokens, start-1) {
					return start
				}
				continue
			}
			return start
		case t.Kind == lexer.Identifier || t.Kind == lexer.Number || t.Kind == lexer.String:
			start--
		default:
			return i
		}
		if !dot(r.at(start - 1)) {
			return start
		}
		start--
	}
	return i
}

// opens is the bracket that the one at i closes; -1: there is none.
func (r reading) opens(i int) int {
	for depth, j := 0, i; j >= 0; j-- {
		switch {
		case r.tokens[j].Is(lexer.Bracket, ")", "]", "}"):
			depth++
		case r.tokens[j].Is(lexer.Bracket):
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return -1
}

// closes is the bracket that closes the one at i; -1: there is none.
func (r reading) closes(i int) int {
	for depth, j := 0, i; j < len(r.tokens); j++ {
		switch {
		case r.tokens[j].Is(lexer.Bracket, "(", "[", "{"):
			depth++
		case r.tokens[j].Is(lexer.Bracket):
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return -1
}

// behind is where the value ends that begins with the i-th token: a name with its parts, a call, a number, a text, what is in brackets;
// i, where none begins.
func (r reading) behind(i int) int {
	end := i
	switch t := r.at(i); {
	case t.Is(lexer.Operator, "-"):
		if end = r.behind(i + 1); end == i+1 {
			return i
		}
		return end
	case t.Kind == lexer.Number || t.Kind == lexer.String:
		return i + 1
	case t.Is(lexer.Bracket, "(", "["):
		if c := r.closes(i); c > 0 {
			return c + 1
		}
		return i
	case t.Kind != lexer.Identifier:
		return i
	}
	for end++; end < len(r.tokens); {
		switch {
		case dot(r.at(end)) && r.at(end+1).Kind == lexer.Identifier:
			end += 2
		case r.at(end).Is(lexer.Bracket, "(", "[") && touching(r.tokens, end-1) && r.closes(end) > 0:
			end = r.closes(end) + 1
		default:
			return end
		}
	}
	return end
}

// left is the value that ends before the i-th token, as it is written; empty: there is none.
func (r reading) left(i int) string { return r.text(r.before(i), i) }

// right is the value that begins with the i-th token, as it is written; empty: there is none.
func (r reading) right(i int) string { return r.text(i, r.behind(i)) }

// list are the values between the bracket at i and the one that closes it, as they are written; nil, where it is not closed.
func (r reading) list(i int) []string {
	end := r.closes(i)
	if end < 0 {
		return nil
	}
	var items []string
	from := i + 1
	for j := i + 1; j <= end; j++ {
		switch {
		case j == end || r.at(j).Is(lexer.Operator, ","):
			if item := r.text(from, j); item != "" {
				items = append(items, item)
			}
			from = j + 1
		case r.at(j).Is(lexer.Bracket, "(", "[", "{") && r.closes(j) > 0:
			j = r.closes(j)
		}
	}
	return items
}
