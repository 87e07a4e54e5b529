package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/parser/lexer"
)

// number finds 90% and 1.000.000.
func (r reading) number(i int) (problem, int) {
	if r.at(i).Kind != lexer.Number {
		return problem{}, 0
	}
	digits := strings.ReplaceAll(r.at(i).Value, "_", "")
	if r.at(i+1).Is(lexer.Operator, "%") && ends(r.at(i+2)) {
		share := "0.9"
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			share = strconv.FormatFloat(f/100, 'f', -1, 64)
		}
		return problem{message: "% is the remainder of a division, and no per cent", hint: "write " + share + "; a share is a factor, with which something is multiplied"}, 2
	}
	end := i
	for touching(r.tokens, end) && r.at(end+1).Kind == lexer.Number && strings.HasPrefix(r.at(end+1).Value, ".") {
		end++
		digits += r.at(end).Value
	}
	if end == i {
		return problem{}, 0
	}
	return problem{message: "a number has one point at most", hint: "write " + strings.ReplaceAll(digits, ".", "") + ", or with a point before the fraction alone"}, end - i + 1
}

// quotedColumn finds new."Buyer Id".
func (r reading) quotedColumn(i int) (problem, int) {
	if r.at(i).Kind != lexer.String || !dot(r.at(i-1)) || r.at(i-2).Kind != lexer.Identifier {
		return problem{}, 0
	}
	return problem{message: "a name in quotes does not stand behind a dot", hint: "write " + exprColumn(r.at(i-2).Value, r.at(i).Value)}, 1
}

// like finds like and ilike, and says what their pattern does.
func (r reading) like(i int) (problem, int) {
	if r.at(i).Kind != lexer.Identifier || !r.is(i, "like", "ilike") {
		return problem{}, 0
	}
	word := strings.ToLower(r.at(i).Value)
	p := problem{message: word + " is SQL", hint: `write contains "…", startsWith, endsWith, or matches with a regular expression`}
	negated := r.at(i-1).Is(lexer.Operator, "not")
	left := r.left(i - b2i(negated))
	if left == "" || r.at(i+1).Kind != lexer.String {
		return p, 1
	}
	pattern := r.at(i + 1).Value
	if word == "ilike" {
		left, pattern = "lower("+left+")", strings.ToLower(pattern)
	}
	p.hint = "write " + liked(left, pattern)
	if negated {
		p.hint = "write not (" + liked(left, pattern) + ")"
	}
	return p, 2
}

// liked is a condition that is true of the texts that a pattern of SQL fits.
func liked(left, pattern string) string {
	plain := strings.Trim(pattern, "%")
	from, to := strings.HasPrefix(pattern, "%"), strings.HasSuffix(pattern, "%")
	switch {
	case strings.ContainsAny(plain, `%_\`):
		expr := regexp.QuoteMeta(pattern)
		expr = "^" + strings.NewReplacer("%", ".*", "_", ".").Replace(expr) + "$"
		return left + " matches " + strconv.Quote(strings.TrimSuffix(strings.TrimPrefix(expr, "^.*"), ".*$"))
	case from && to:
		return left + " contains " + strconv.Quote(plain)
	case to:
		return left + " startsWith " + strconv.Quote(plain)
	case from:
		return left + " endsWith " + strconv.Quote(plain)
	}
	return left + " == " + strconv.Quote(plain)
}

// between finds x between a and b.
func (r reading) between(i int) (problem, int) {
	if r.at(i).Kind != lexer.Identifier || !r.is(i, "between") {
		return problem{}, 0
	}
	p := problem{message: "between is SQL", hint: "write two comparisons, joined with and: >= the least, and <= the greatest"}
	negated := r.at(i-1).Is(lexer.Operator, "not")
	left, middle := r.left(i-b2i(negated)), r.behind(i+1)
	least, most := r.text(i+1, middle), r.right(middle+1)
	if left == "" || least == "" || most == "" || !r.is(middle, "and") {
		return p, 1
	}
	if p.hint = fmt.Sprintf("write %[1]s >= %[2]s and %[1]s <= %[3]s", left, least, most); negated {
		p.hint = fmt.Sprintf("write (%[1]s < %[2]s or %[1]s > %[3]s)", left, least, most)
	}
	return p, middle + 1 - i
}

// listed finds in (1, 2) and in (select …).
func (r reading) listed(i int) (problem, int) {
	if !r.is(i, "in") || r.at(i).Kind == lexer.String || !r.at(i+1).Is(lexer.Bracket, "(") {
		return problem{}, 0
	}
	if r.is(i+2, "select") {
		return problem{message: "a query does not stand in an expression", hint: queryHint}, 3
	}
	p := problem{message: "a list is not in round brackets", hint: listHint}
	if left, items := r.left(i-b2i(r.at(i-1).Is(lexer.Operator, "not"))), r.list(i+1); left != "" && len(items) > 0 {
		operator := "in"
		if r.at(i-1).Is(lexer.Operator, "not") {
			operator = "not in"
		}
		p.hint = fmt.Sprintf("a list stands in square brackets: write %s %s [%s]", left, operator, strings.Join(items, ", "))
	}
	return p, 2
}

// pipe finds new.x | lower.
func (r reading) pipe(i int) (problem, int) {
	name := strings.TrimSuffix(r.at(i+1).Value, "()")
	if !r.at(i).Is(lexer.Operator, "|") || unaries[name] == nil || r.left(i) == "" {
		return problem{}, 0
	}
	return problem{message: "the pipe is not a part of rules", hint: fmt.Sprintf("write %s(%s)", name, r.left(i))}, 2
}

// anyOf finds x = any(new.list), and x = any(array[…]).
func (r reading) anyOf(i int) (problem, int) {
	if r.at(i).Is(lexer.Identifier, "any") && r.at(i+1).Is(lexer.Bracket, "(") {
		return r.anyIs(i)
	}
	if !r.at(i).Is(lexer.Operator, "=", "==") || !r.is(i+1, "any") || !r.at(i+2).Is(lexer.Bracket, "(") || len(r.list(i+2)) != 1 {
		return problem{}, 0
	}
	left, of := r.left(i), r.list(i + 2)[0]
	if left == "" || of == "" {
		return problem{}, 0
	}
	if r.is(i+3, "array") && r.at(i+4).Is(lexer.Bracket, "[") {
		of = "[" + strings.Join(r.list(i+4), ", ") + "]"
	}
	return problem{message: "= any(…) is SQL", hint: fmt.Sprintf("write %s in %s", left, of)}, r.closes(i+2) + 1 - i
}

// anyIs finds any(new.list) = x.
func (r reading) anyIs(i int) (problem, int) {
	end, of := r.closes(i+1), r.list(i+1)
	value := r.right(end + 2)
	if len(of) != 1 || !r.at(end+1).Is(lexer.Operator, "=", "==") || value == "" {
		return problem{}, 0
	}
	return problem{message: "any(…) takes a list and a condition", hint: fmt.Sprintf("write %s in %s", value, of[0])}, r.behind(end+2) - i
}

// arrow finds the operators that take JSON apart in SQL, in a row.
func (r reading) arrow(i int) (problem, int) {
	sign := func(i int) string {
		switch {
		case !r.at(i).Is(lexer.Operator, "-") || !touching(r.tokens, i) || !r.at(i+1).Is(lexer.Operator, ">"):
			return ""
		case touching(r.tokens, i+1) && r.at(i+2).Is(lexer.Operator, ">"):
			return "->>"
		}
		return "->"
	}
	first := sign(i)
	if first == "" {
		return problem{}, 0
	}
	at, of := i, r.left(i)
	for s := first; s != "" && (r.at(at+len(s)).Kind == lexer.String || r.at(at+len(s)).Kind == lexer.Number); s = sign(at) {
		key := r.at(at + len(s))
		if key.Kind == lexer.Number {
			of += "[" + key.Value + "]"
		} else {
			of = exprColumn(of, key.Value)
		}
		at += len(s) + 1
	}
	if at == i || r.left(i) == "" {
		return problem{message: first + " is SQL", hint: "a key of JSON stands behind a dot"}, len(first)
	}
	return problem{message: first + " is SQL", hint: "a key of JSON stands behind a dot: write " + of}, at - i
}

// comment finds -- and the text behind it, all of which it takes in.
func (r reading) comment(i int) (problem, int) {
	if !r.at(i).Is(lexer.Operator, "-") || !touching(r.tokens, i) || !r.at(i+1).Is(lexer.Operator, "-") || touching(r.tokens, i+1) {
		return problem{}, 0
	}
	return problem{message: "-- begins a comment in SQL alone", hint: commentHint}, len(r.tokens) - i
}

// templateOperators are how templates compare.
var templateOperators = map[string]string{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

// templateRows are what templates write with a dot before it.
var templateRows = []string{"new", "old", "message"}

// template finds .new.status and eq.
func (r reading) template(i int) (problem, int) {
	t := r.at(i)
	if dot(t) && slices.Contains(templateRows, r.at(i+1).Value) && (i == 0 || !closes(r.at(i-1))) {
		return problem{message: "the dot before a value belongs to templates", hint: "leave it out: write " + r.right(i+1)}, 1
	}
	sign := templateOperators[t.Value]
	if t.Kind != lexer.Identifier || sign == "" || r.at(i+1).Kind == lexer.EOF || r.at(i+1).Is(lexer.Operator) && !dot(r.at(i+1)) {
		return problem{}, 0
	}
	left, right, end := r.left(i), r.right(i+1), i+1
	if left == "" { // eq a b
		from := i + 1 + b2i(dot(r.at(i+1)))
		between := r.behind(from)
		second := between + b2i(dot(r.at(between)))
		left, right, end = r.text(from, between), r.right(second), r.behind(second)
	}
	if left == "" || right == "" {
		return problem{message: t.Value + " belongs to templates", hint: "write " + sign + " between the two values"}, 1
	}
	return problem{message: t.Value + " belongs to templates", hint: fmt.Sprintf("write %s %s %s", left, sign, right)}, end - i
}

// prefixed finds startsWith(new.x, "a").
func (r reading) prefixed(i int) (problem, int) {
	t := r.at(i)
	word := operatorWords[strings.ToLower(strings.ReplaceAll(t.Value, "_", ""))]
	if word == "" || t.Kind == lexer.String || !r.at(i+1).Is(lexer.Bracket, "(") || closes(r.at(i-1)) {
		return problem{}, 0
	}
	items := r.list(i + 1)
	if len(items) != 2 {
		return problem{message: word + " is an operator, and no function", hint: "write it between the two values"}, 1
	}
	return problem{message: word + " is an operator, and no function", hint: fmt.Sprintf("write %s %s %s", items[0], word, items[1])}, r.closes(i+1) + 1 - i
}

// misspelt finds operators in other letters: new.x startswith "a".
func (r reading) misspelt(i int) (problem, int) {
	t := r.at(i)
	word := operatorWords[strings.ToLower(strings.ReplaceAll(t.Value, "_", ""))]
	negated := r.at(i-1).Is(lexer.Operator, "not")
	if word == "" || t.Kind != lexer.Identifier || !closes(r.at(i-1-b2i(negated))) || r.at(i+1).Kind == lexer.EOF || r.at(i+1).Is(lexer.Operator) {
		return problem{}, 0
	}
	return problem{message: t.Value + " is no operator", hint: "write " + word}, 1
}
