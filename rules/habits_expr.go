package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/parser/lexer"
)

// habit is a way of SQL, of templates or of another language that is none of an expression's.
type habit struct {
	tokens  []string // in a row, in small letters
	capital bool     // only in capitals
	message string
	hint    string
}

const (
	queryHint   = "what needs another table belongs into the query of to: where it gives no row, there is no mail"
	nullHint    = "NULL is written nil: new.x == nil, new.x != nil"
	likeHint    = `write new.x contains "…", startsWith, endsWith, or matches with a regular expression`
	timeHint    = "the change's own time is commit_time: a replay must come to the same result"
	inHint      = `a list stands in square brackets: new.x in ["a", "b"]; a range in none: new.x in 1..10`
	castHint    = "an expression knows the types of columns: leave the cast out"
	commentHint = "a comment begins with // here, and goes to the end of its line"
)

// habitList has the longer ones first: only the first that fits is reported.
var habitList = []habit{
	{[]string{"=", "<"}, false, "=< does not compare", "write <="},
	{[]string{"=", ">"}, false, "=> does not compare", "write >="},
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
	{[]string{"now"}, false, "now would not be the same in a replay", timeHint},
	{[]string{"today", "("}, false, "today() would not be the same in a replay", timeHint},
	{[]string{"today"}, false, "today would not be the same in a replay", timeHint},
	{[]string{"current_timestamp"}, false, "current_timestamp would not be the same in a replay", timeHint},
	{[]string{"current_date"}, false, "current_date would not be the same in a replay", timeHint},
	{[]string{"localtimestamp"}, false, "localtimestamp would not be the same in a replay", timeHint},
	{[]string{"count", "(", "*"}, false, "an expression sees one row, and counts none", queryHint},
	{[]string{"xor"}, false, "xor is not a part of rules", "write (a) != (b) of two conditions: just one of them is true"},
	{[]string{"&"}, false, "& is not a part of rules", "write and, or && (what takes the bits of a number belongs into a query)"},
	{[]string{"|"}, false, "the pipe is not a part of rules", "write the function around the value: lower(new.x)"},
	{[]string{";"}, false, "an expression is one expression", "join conditions with and"},
	{[]string{"let"}, false, "let is not a part of rules", "write the value out where it is needed"},
	{[]string{"if"}, false, "if is not a part of rules", "leave it out: when says by itself which changes; a choice is written condition ? a : b"},
	{[]string{"case", "when"}, false, "case when is SQL", "write condition ? a : b"},
	{[]string{"case"}, false, "case is SQL", "write condition ? a : b"},
	{[]string{"select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"exists", "(", "select"}, false, "a query does not stand in an expression", queryHint},
	{[]string{"{", "{"}, false, "{{ }} belongs to templates", "write new.column"},
}

// habitual says whether a word is told of as one of another language.
func habitual(word string) bool {
	word = strings.ToLower(word)
	return slices.Contains(dateWords, word) || templateOperators[word] != "" || slices.ContainsFunc(habitList, func(h habit) bool { return h.tokens[0] == word })
}

// glued are signs that mean something only where nothing stands between them.
var glued = []string{"<", "="}

// habits reports all habits in a row of tokens. What follows a dot is a column's name, whatever it is called.
func habits(tokens []lexer.Token) []problem {
	var found []problem
	for i := 0; i < len(tokens); i++ {
		if i > 0 && dot(tokens[i-1]) && tokens[i].Kind != lexer.String {
			continue
		}
		p, length := habitAt(tokens, i)
		if length == 0 {
			continue
		}
		p.offset, p.id = tokens[i].From, "PM101"
		found = append(found, p)
		i += length - 1
	}
	return found
}

// looks find what is more than words in a row.
var looks = []func(tokens []lexer.Token, i int) (problem, int){
	lookNumber, lookQuotedColumn, lookCast, lookArrow, lookComment, lookTemplate, lookOr,
}

// habitAt is what is said of the tokens from the i-th on, and of how many of them; of none, if nothing is wrong.
func habitAt(tokens []lexer.Token, i int) (p problem, length int) {
	for _, look := range looks {
		if p, length = look(tokens, i); length > 0 {
			return p, length
		}
	}
	if h := slices.IndexFunc(habitList, func(h habit) bool { return h.fits(tokens[i:]) }); h >= 0 {
		return problem{message: habitList[h].message, hint: habitList[h].hint}, len(habitList[h].tokens)
	}
	return problem{}, 0
}

func dot(t lexer.Token) bool { return t.Is(lexer.Operator, ".") || t.Is(lexer.Operator, "?.") }

// touching says whether there is a second token, with nothing between the two.
func touching(tokens []lexer.Token, i int) bool {
	return i+1 < len(tokens) && tokens[i].To == tokens[i+1].From
}

// ends says whether a value ends before the token.
func ends(t lexer.Token) bool {
	return t.Kind == lexer.EOF || t.Kind == lexer.Bracket && strings.Contains(")]}", t.Value) ||
		t.Kind == lexer.Operator && slices.Contains([]string{"&&", "and", "||", "or", "==", "!=", "<", "<=", ">", ">=", ",", "?", ":", "??"}, t.Value)
}

// lookNumber finds 90% and 1.000.000.
func lookNumber(tokens []lexer.Token, i int) (problem, int) {
	if tokens[i].Kind != lexer.Number || i+1 >= len(tokens) {
		return problem{}, 0
	}
	digits := strings.ReplaceAll(tokens[i].Value, "_", "")
	if tokens[i+1].Is(lexer.Operator, "%") && i+2 < len(tokens) && ends(tokens[i+2]) {
		share := "0.9"
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			share = strconv.FormatFloat(f/100, 'f', -1, 64)
		}
		return problem{message: "% is the remainder of a division, and no per cent", hint: "write " + share + ", as a factor: old.price * " + share}, 2
	}
	end := i
	for touching(tokens, end) && tokens[end+1].Kind == lexer.Number && strings.HasPrefix(tokens[end+1].Value, ".") {
		end++
		digits += tokens[end].Value
	}
	if end == i {
		return problem{}, 0
	}
	return problem{message: "a number has one point at most", hint: "write " + strings.ReplaceAll(digits, ".", "") + ", or with a point before the fraction alone"}, end - i + 1
}

// lookQuotedColumn finds new."Buyer Id".
func lookQuotedColumn(tokens []lexer.Token, i int) (problem, int) {
	if tokens[i].Kind != lexer.String || i < 2 || !dot(tokens[i-1]) || tokens[i-2].Kind != lexer.Identifier {
		return problem{}, 0
	}
	return problem{message: "a name in quotes does not stand behind a dot", hint: "write " + exprColumn(tokens[i-2].Value, tokens[i].Value)}, 1
}

// dateWords are types of SQL whose values are moments.
var dateWords = []string{"date", "timestamp", "timestamptz"}

// lookCast finds '2026-01-31'::date, date '2026-01-31' and other casts.
func lookCast(tokens []lexer.Token, i int) (problem, int) {
	literal := func(at int) string {
		if at < 0 || at >= len(tokens) || tokens[at].Kind != lexer.String {
			return ""
		}
		return tokens[at].Value
	}
	switch t := tokens[i]; {
	case t.Is(lexer.Operator, "::"), t.Is(lexer.Operator, ":") && touching(tokens, i) && tokens[i+1].Is(lexer.Operator, ":"):
		hint := castHint
		if text := literal(i - 1); text != "" && i+1 < len(tokens) && slices.Contains(dateWords, tokens[i+1].Value) {
			hint = dateHint(text, true)
		}
		return problem{message: ":: is SQL", hint: hint}, 1
	case t.Kind == lexer.Identifier && slices.Contains(dateWords, strings.ToLower(t.Value)) && literal(i+1) != "":
		return problem{message: t.Value + " before a text is SQL", hint: dateHint(literal(i+1), true)}, 2
	}
	return problem{}, 0
}

// dateHint is how a moment is written that somebody wrote as text. A time stamp with time zone needs an offset, where nothing else
// tells the zone.
func dateHint(text string, zoned bool) string {
	v, t, err := parseMoment(text)
	switch {
	case err != nil:
		return `write date("2026-01-31") or date("2026-01-31T09:00:00+09:00")`
	case t.kind == kindInstant || !zoned:
		return fmt.Sprintf("write date(%q)", text)
	}
	moment, _ := clockReading(v)
	return fmt.Sprintf(`write date(%q); beside a timestamp with time zone its offset too, date("%s+09:00"), or else give the rule a timezone`, text, moment.Format("2006-01-02T15:04:05"))
}

// lookArrow finds the operators that take JSON apart in SQL.
func lookArrow(tokens []lexer.Token, i int) (problem, int) {
	if !tokens[i].Is(lexer.Operator, "-") || !touching(tokens, i) || !tokens[i+1].Is(lexer.Operator, ">") {
		return problem{}, 0
	}
	length, sign := 2, "->"
	if touching(tokens, i+1) && tokens[i+2].Is(lexer.Operator, ">") {
		length, sign = 3, "->>"
	}
	hint := "a key of JSON stands behind a dot: new.data.city"
	if i+length < len(tokens) && tokens[i+length].Kind == lexer.String {
		hint = "a key of JSON stands behind a dot: write " + exprColumn("new.data", tokens[i+length].Value)
		length++
	}
	return problem{message: sign + " is SQL", hint: hint}, length
}

// lookComment finds -- and the text behind it, all of which it takes in.
func lookComment(tokens []lexer.Token, i int) (problem, int) {
	if !tokens[i].Is(lexer.Operator, "-") || !touching(tokens, i) || !tokens[i+1].Is(lexer.Operator, "-") || touching(tokens, i+1) {
		return problem{}, 0
	}
	return problem{message: "-- begins a comment in SQL alone", hint: commentHint}, len(tokens) - i
}

// templateOperators are how templates compare.
var templateOperators = map[string]string{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

// templateRows are what templates write with a dot before it.
var templateRows = []string{"new", "old", "message"}

// closes says whether a value may end with the token.
func closes(t lexer.Token) bool {
	return t.Kind == lexer.Identifier || t.Kind == lexer.Number || t.Kind == lexer.String || t.Kind == lexer.Bracket && strings.Contains(")]}", t.Value)
}

// path is the name that a row of tokens begins with, such as new.status.
func path(tokens []lexer.Token) string {
	var b strings.Builder
	for i, t := range tokens {
		if t.Kind != lexer.Identifier && !dot(t) || i > 0 && !touching(tokens, i-1) {
			break
		}
		b.WriteString(t.Value)
	}
	return b.String()
}

// lookTemplate finds .new.status and eq.
func lookTemplate(tokens []lexer.Token, i int) (problem, int) {
	t := tokens[i]
	if dot(t) && i+1 < len(tokens) && slices.Contains(templateRows, tokens[i+1].Value) && (i == 0 || !closes(tokens[i-1])) {
		return problem{message: "the dot before a value belongs to templates", hint: "leave it out: write " + path(tokens[i+1:])}, 1
	}
	sign := templateOperators[t.Value]
	if t.Kind != lexer.Identifier || sign == "" || i+1 >= len(tokens) || tokens[i+1].Kind == lexer.EOF {
		return problem{}, 0
	}
	return problem{message: t.Value + " belongs to templates", hint: fmt.Sprintf("write a sign between the two values: new.x %s 5", sign)}, 1
}

// lookOr finds an or whose right side is a text alone.
func lookOr(tokens []lexer.Token, i int) (problem, int) {
	rest := tokens[i:]
	if len(rest) < 3 || !rest[0].Is(lexer.Operator, "||") && !rest[0].Is(lexer.Operator, "or") || rest[1].Kind != lexer.String {
		return problem{}, 0
	}
	next := rest[2]
	if next.Kind != lexer.EOF && !next.Is(lexer.Bracket, ")") && (!next.Is(lexer.Operator) || !slices.Contains([]string{"||", "or", "&&", "and"}, next.Value)) {
		return problem{}, 0
	}
	return problem{
		message: "a text is no condition: " + rest[0].Value + " means or here",
		hint:    `to join texts write +; to compare with each of some, new.x in ["a", "b"]`,
	}, 1
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
