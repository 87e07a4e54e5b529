package rules

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/parser/lexer"
)

// habit is a way of SQL, of templates or of another language that is none of an expression's.
type habit struct {
	tokens  []string // in a row, in small letters
	capital bool     // only in capitals
	message string
	hint    string // new.x is the value before the habit, where one stands there
}

const (
	queryHint   = "what needs another table belongs into the query of to: where it gives no row, there is no mail"
	timeHint    = "the change's own time is commit_time: a replay must come to the same result"
	listHint    = "a list stands in square brackets, a range such as 1..10 in none"
	commentHint = "a comment begins with // here, and goes to the end of its line"
)

// habitList has the longer ones first: only the first that fits is reported.
var habitList = []habit{
	{[]string{"==", "="}, false, "=== does not compare", "write =="},
	{[]string{"!=", "="}, false, "!== does not compare", "write !="},
	{[]string{"=", "<"}, false, "=< does not compare", "write <="},
	{[]string{"=", ">"}, false, "=> does not compare", "write >="},
	{[]string{"="}, false, "= does not compare", "write =="},
	{[]string{"<", ">"}, false, "<> does not compare", "write !="},
	{[]string{"is", "not", "null"}, false, "is not null is SQL", "NULL is written nil: write new.x != nil"},
	{[]string{"is", "null"}, false, "is null is SQL", "NULL is written nil: write new.x == nil"},
	{[]string{"is", "not", "distinct", "from"}, false, "is not distinct from is SQL", "write ==, which means just that here: NULL equals NULL"},
	{[]string{"is", "distinct", "from"}, false, "is distinct from is SQL", "write !=, which means just that here: NULL equals NULL"},
	{[]string{"is", "not", "true"}, false, "is not true is SQL", "write not new.x"},
	{[]string{"is", "true"}, false, "is true is SQL", "write new.x"},
	{[]string{"is", "not", "false"}, false, "is not false is SQL", "write new.x != false"},
	{[]string{"is", "false"}, false, "is false is SQL", "write new.x == false"},
	{[]string{"is", "not"}, false, "is not is SQL", "write !="},
	{[]string{"is"}, false, "is is SQL", "write =="},
	{[]string{"and"}, true, "and is written in small letters", "write and, or &&"},
	{[]string{"or"}, true, "or is written in small letters", "write or, or ||"},
	{[]string{"not"}, true, "not is written in small letters", "write not, or !"},
	{[]string{"in"}, true, "in is written in small letters", "write in"},
	{[]string{"true"}, true, "true is written in small letters", "write true"},
	{[]string{"false"}, true, "false is written in small letters", "write false"},
	{[]string{"null"}, false, "null is SQL", "NULL is written nil: write nil"},
	{[]string{"none"}, true, "none is of another language", "NULL is written nil: write nil"},
	{[]string{"count", "(", "*"}, false, "an expression sees one row, and counts none", queryHint},
	{[]string{"xor"}, false, "xor is not a part of rules", "put each of the two conditions into brackets, and != between them: just one of them is true then"},
	{[]string{"&"}, false, "& is not a part of rules", "write and, or && (what takes the bits of a number belongs into a query)"},
	{[]string{"|"}, false, "the pipe is not a part of rules", "a function stands around its value"},
	{[]string{";"}, false, "an expression is one expression", "join conditions with and"},
	{[]string{"let"}, false, "let is not a part of rules", "write the value out where it is needed"},
	{[]string{"if"}, false, "if is not a part of rules", "leave it out: when says by itself which changes; a choice is written condition ? a : b"},
	{[]string{"case", "when"}, false, "case when is SQL", "write condition ? a : b"},
	{[]string{"case"}, false, "case is SQL", "write condition ? a : b"},
	{[]string{"select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"exists", "(", "select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"{", "{"}, false, "{{ }} belongs to templates", "leave the braces out: a name stands by itself"},
}

// lookWords are what the looks begin at.
var lookWords = slices.Concat(dateWords, nowWords, []string{"like", "ilike", "between", "interval", "array"})

// habitual says whether a word is told of as one of another language.
func habitual(word string) bool {
	word = strings.ToLower(word)
	return slices.Contains(lookWords, word) || templateOperators[word] != "" || slices.ContainsFunc(habitList, func(h habit) bool { return h.tokens[0] == word })
}

// glued are signs that mean something only where nothing stands between them.
var glued = []string{"<", "=", "==", "!="}

// habits reports all habits of an expression. What follows a dot is a column's name, whatever it is called.
func (r reading) habits() []problem {
	var found []problem
	for i := 0; i < len(r.tokens); i++ {
		if i > 0 && dot(r.tokens[i-1]) && r.tokens[i].Kind != lexer.String {
			continue
		}
		p, length := r.habitAt(i)
		if length == 0 {
			continue
		}
		p.offset, p.id = r.tokens[i].From, "PM101"
		found = append(found, p)
		i += length - 1
	}
	return found
}

// looks find what is more than words in a row.
var looks = []func(r reading, i int) (problem, int){
	reading.number, reading.quotedColumn, reading.cast, reading.clock, reading.interval, reading.like, reading.between, reading.listed, reading.anyOf,
	reading.pipe, reading.arrow, reading.comment, reading.template, reading.prefixed, reading.misspelt,
}

// habitAt is what is said of the tokens from the i-th on, and of how many of them; of none, if nothing is wrong.
func (r reading) habitAt(i int) (p problem, length int) {
	for _, look := range looks {
		if p, length = look(r, i); length > 0 {
			return p, length
		}
	}
	if h := slices.IndexFunc(habitList, func(h habit) bool { return h.fits(r.tokens[i:]) }); h >= 0 {
		hint := habitList[h].hint
		if left := r.left(i); left != "" {
			hint = strings.ReplaceAll(hint, "new.x", left)
		} else if strings.Contains(hint, "new.x") {
			before, _, said := strings.Cut(hint, ": write")
			hint = before[:len(before)*b2i(said)]
		}
		return problem{message: habitList[h].message, hint: hint}, len(habitList[h].tokens)
	}
	return problem{}, 0
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
	return len(h.tokens) < 2 || !slices.Contains(glued, h.tokens[0]) || touching(tokens, 0)
}

func dot(t lexer.Token) bool { return t.Is(lexer.Operator, ".") || t.Is(lexer.Operator, "?.") }

// touching says whether there is a second token, with nothing between the two.
func touching(tokens []lexer.Token, i int) bool {
	return i >= 0 && i+1 < len(tokens) && tokens[i].To == tokens[i+1].From
}

// ends says whether a value ends before the token.
func ends(t lexer.Token) bool {
	return t.Kind == lexer.EOF || t.Kind == lexer.Bracket && strings.Contains(")]}", t.Value) ||
		t.Kind == lexer.Operator && slices.Contains([]string{"&&", "and", "||", "or", "==", "!=", "<", "<=", ">", ">=", ",", "?", ":", "??"}, t.Value)
}

// closes says whether a value may end with the token.
func closes(t lexer.Token) bool {
	return t.Kind == lexer.Identifier || t.Kind == lexer.Number || t.Kind == lexer.String || t.Kind == lexer.Bracket && strings.Contains(")]}", t.Value)
}
